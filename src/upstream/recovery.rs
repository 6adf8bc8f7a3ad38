//! A stream that breaks after some of it was passed on: the rest is asked for with the partial answer and spliced on, or
//! it begins anew, as settings and client want it; else its client is told that it broke.
//!
//! What was passed on is recorded as it passes, where the rest may be asked for; the record is bounded, and paid for out of
//! `server.memory_max`. Each continuation is an attempt like any other: with a permit, backoff, and a count.

mod record;

use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::mpsc::error::TrySendError;

pub(super) use self::record::Record;
use super::Failure;
use super::exchange::{Flight, relay};
use super::hold::Landed;
use super::rest::{Outlet, Passed, Rest, whole};
use super::settings;
use super::target::Target;
use super::verdict::Verdict;
use crate::admission::Blame;
use crate::answer::{Chunk, Head};
use crate::call::{CallBody, MidStream};
use crate::metrics::{MemoryKind, Recovery};
use crate::openai::continuation::{Continuation, Partial, Style};
use crate::openai::{Frame, Framer, Terminal};
use crate::time::{self, Duration};

const NO_ROOM: &str = "there is no memory for going on (server.memory_max)";

impl Flight {
    /// What its client gets whose stream breaks: its own word, else the operator's. Only who asks for it has its stream
    /// begin anew, since it has to throw away what it had.
    pub(super) fn mid_stream(&self) -> MidStream {
        match (self.call.mid_stream, self.shared.recovery().mid_stream) {
            (Some(wanted), _) => wanted,
            (None, MidStream::Continue) => MidStream::Continue,
            (None, MidStream::Error | MidStream::Restart) => MidStream::Error,
        }
    }

    /// What is wanted of a stream if it breaks, besides that it is told.
    pub(super) fn repair(&self, head: &Head, target: &Target) -> Option<Recovery> {
        if self.call.stream && head.is_event_stream() { self.repair_of(target) } else { None }
    }

    /// The same of a stream that it was asked for, from this target.
    fn repair_of(&self, target: &Target) -> Option<Recovery> {
        match self.judge_broken(target) {
            Verdict::Continue => Some(Recovery::Continue),
            Verdict::Restart => Some(Recovery::Restart),
            _ => None,
        }
    }

    /// Passes a stream on, and has it go on when it breaks, as often as the call may be sent.
    pub(super) async fn relay_and_recover(
        mut self,
        first: Vec<Frame>,
        rest: Box<Rest>,
        mut record: Record,
        outlet: &Outlet,
    ) -> Passed {
        self.call.body = CallBody::Whole(Bytes::new()); // the record has it, and lets go of it when it is of no more use
        let mut passed = relay(first, Some(rest), Some(&mut record), outlet).await;
        while let Passed::Broken(_) = passed {
            record.is_broken = true;
            let Some((first, rest)) = self.recover(&mut record, outlet).await else {
                record.settle(false);
                break;
            };
            self.trace.note(|facts| facts.recovered += 1);
            passed = relay(first, rest, Some(&mut record), outlet).await;
            match passed {
                Passed::Whole => record.settle(true),
                Passed::Misfit(misfit) => {
                    record.settle(false);
                    self.warn(misfit.as_str());
                }
                Passed::NoRoom => {
                    record.settle(false);
                    self.warn(NO_ROOM);
                }
                Passed::Broken(_) | Passed::Nobody => {}
            }
        }
        passed
    }

    /// The beginning of what is missing of a stream, once it has come, and what follows; `None`: it cannot be had.
    async fn recover(&mut self, record: &mut Record, outlet: &Outlet) -> Option<(Vec<Frame>, Option<Box<Rest>>)> {
        if let Err(why) = self.may_recover(record) {
            self.warn(why);
            return None;
        }
        self.is_passed_on = true;
        self.trace.note(|facts| {
            let took = facts.sent.zip(facts.upstream_ended).map(|(sent, ended)| ended.saturating_duration_since(sent));
            facts.broke_after += took.unwrap_or_default();
        });
        self.ask_for_the_rest(record)?;
        if let Some(lane) = &self.lane {
            self.place.failed(lane, Blame::Upstream); // whoever else can go on is asked first
        }
        // Waiting begins anew: it has a clock of its own, which stood still while the stream came.
        let patience = self.call.deadline.saturating_duration_since(self.call.received);
        self.place.renew(time::now() + patience);
        let Some(pause) = self.back_off(None, patience) else {
            self.warn("its deadline leaves no time to ask for the rest");
            return None;
        };
        tracing::info!(
            request_id = %self.call.id,
            upstream = &*record.target.name,
            how = record.repair.as_str(),
            attempts = self.attempts,
            "a stream broke after some of it was passed on, and is asked for again"
        );
        let (landed, target) = match self.land_in_company(pause, outlet).await? {
            Ok(landed) => landed,
            Err(failure) => {
                self.warn(&failure.to_string());
                return None;
            }
        };
        let (head, first, rest) = match landed {
            Landed::Begun(head, first, rest) => (head, first, Some(rest)),
            Landed::Whole(head, body) => (head, events_of(body), None),
            Landed::Upgraded(..) => return None,
        };
        if !head.is_event_stream() {
            tracing::warn!(
                request_id = %self.call.id,
                upstream = &*target.name,
                status = head.status.as_u16(),
                "a stream broke, and the upstream has no stream to go on with (upstreams.continuation)"
            );
            return None;
        }
        record.target = target;
        let is_restart = record.repair == Recovery::Restart;
        // Of which nothing was said is asked for by the same request.
        if is_restart || record.partial.as_ref().is_some_and(Partial::is_blank) {
            self.shared.metrics.duplicate_sent();
        }
        if is_restart {
            let comment = format!(": restarted attempt={}\n", self.attempts);
            outlet.chunks.send(Chunk::Data(comment.into())).await.ok()?;
        }
        Some((first, rest))
    }

    fn may_recover(&self, record: &Record) -> Result<(), &'static str> {
        if self.repair_of(&record.target) != Some(record.repair) {
            return Err("whoever it came from is not asked twice (upstreams.kind, retry.on_disconnect)");
        }
        if self.attempts >= self.shared.retry().attempts_max.get() {
            return Err("it was sent as often as it may be (retry.attempts_max)");
        }
        if record.is_mid_event {
            return Err("it broke in the middle of an event of which a part was passed on");
        }
        Ok(())
    }

    /// Has the next attempts ask for what is missing, where it can be had.
    fn ask_for_the_rest(&mut self, record: &mut Record) -> Option<()> {
        if record.repair == Recovery::Restart {
            self.call.body = CallBody::Whole(Bytes::clone(&record.body));
            return Some(());
        }
        let Some(partial) = &record.partial else {
            self.warn("there was no memory to record what was passed on (server.memory_max)");
            return None;
        };
        let style = self.shared.continuation(&record.target, self.call.model.as_deref());
        let Continuation { body, splice } = match partial.request(&record.body, style.and_then(style_of)) {
            Ok(continuation) => continuation,
            Err(unfit) => {
                self.warn(unfit.as_str());
                return None;
            }
        };
        if let Some(style) = style.filter(|_| !partial.is_blank()) {
            self.place.only(self.shared.continuing(style));
        }
        let Ok(body) = self.shared.memory.pay(MemoryKind::Bodies, body) else {
            self.warn(NO_ROOM);
            return None;
        };
        self.call.body = CallBody::Whole(body);
        if record.go_on_by(splice, Terminal::for_route(self.call.route)).is_err() {
            self.warn(NO_ROOM);
            return None;
        }
        Some(())
    }

    /// Lands again, after a pause, while the client hears that somebody is still working on it.
    /// `None`: nobody reads it any more.
    async fn land_in_company(
        &mut self,
        pause: Duration,
        outlet: &Outlet,
    ) -> Option<Result<(Landed, Arc<Target>), Failure>> {
        let (company, attempts) = (self.call.company, self.attempts + 1);
        // Boxed: few streams break, and else the future of every call had room for a second landing.
        let mut landing = Box::pin(async {
            self.trace.note(|facts| facts.backed_off += pause);
            self.place.pause(time::now() + pause).await;
            self.land().await
        });
        loop {
            tokio::select! {
                biased;
                landed = &mut landing => return Some(landed),
                () = tokio::time::sleep(company.unwrap_or(Duration::MAX)), if company.is_some() => {}
            }
            // Only whole events were passed on, so a comment can stand here. Who has something to read needs none.
            let comment = format!(": waiting attempt={attempts}\n");
            if let Err(TrySendError::Closed(_)) = outlet.chunks.try_send(Chunk::Data(comment.into())) {
                return None;
            }
        }
    }

    fn warn(&self, why: &str) {
        tracing::warn!(request_id = %self.call.id, why, "a stream broke after some of it was passed on, and cannot go on");
    }
}

/// The events of a stream that came whole.
fn events_of(body: Bytes) -> Vec<Frame> {
    let mut framer = Framer::default();
    let mut events: Vec<Frame> = framer.push(body).collect();
    events.extend(framer.finish().map(whole));
    events
}

fn style_of(manner: settings::Continuation) -> Option<Style> {
    match manner {
        settings::Continuation::Off => None,
        settings::Continuation::Vllm => Some(Style::Vllm),
        settings::Continuation::Prefix => Some(Style::Prefix),
        settings::Continuation::PrefixEcho => Some(Style::PrefixEcho),
    }
}
