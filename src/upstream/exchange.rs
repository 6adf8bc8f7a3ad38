//! All tries of a call, in a task of its own: the *flight*.

mod notes;

use std::sync::Arc;
use std::time::SystemTime;

use bytes::Bytes;
use http::{Method, StatusCode};
use tokio::sync::{mpsc, oneshot};
use tokio_util::task::AbortOnDropHandle;

use super::attempt::{Answered, Attempted, How, attempt};
use super::backoff;
use super::connect::Wanted;
use super::conversation::Loss;
use super::hold::{Handling, Landed, Short, hold_back, pass_on, read_short};
use super::signal;
use super::target::Target;
use super::upgraded::switch;
use super::verdict::{Happened, Rules, Verdict, judge};
use super::{Failure, Shared};
use crate::admission::{Blame, Permit, Place, Refusal};
use crate::answer::{Answer, Chunk, Cut, ERROR_MAX, ERROR_TIME, Head, Trace, Upgraded};
use crate::call::{Call, CallBody, Upgrade};
use crate::ids::LaneId;
use crate::metrics;
use crate::openai::{self, Complaint, Route};
use crate::time::{self, Duration};

/// Chunks on their way to a subscriber; a slow one holds the provider back.
const CHUNKS: usize = 8;

/// A flight before it has landed.
pub(super) struct Flight {
    shared: Arc<Shared>,
    call: Call,
    place: Place,
    trace: Trace,
    /// Attempts that count.
    attempts: u32,
    /// A pooled connection was dead, or died: no more of those.
    stale: bool,
    /// The provider's own last answer to an attempt that failed.
    last_answer: Option<(Head, Bytes)>,
}

/// Why an attempt brought nothing that can be delivered.
struct Miss {
    happened: Happened,
    verdict: Verdict,
    loss: Loss,
    retry_after: Option<Duration>,
    /// The connection was a pooled one.
    stale: bool,
    /// Its lane is closed: the next permit waits as long as it must.
    waits_in_line: bool,
}

/// Counts an attempt when it is dropped: as cancelled, unless it came to a verdict.
struct AttemptCount<'a> {
    target: &'a Target,
    verdict: metrics::Verdict,
}

impl<'a> AttemptCount<'a> {
    fn begin(target: &'a Target) -> Self {
        Self { target, verdict: metrics::Verdict::Cancelled }
    }
}

impl Drop for AttemptCount<'_> {
    fn drop(&mut self) {
        self.target.metrics.attempt(self.verdict);
    }
}

enum Tried {
    Landed(Landed),
    Missed(Miss),
    /// The client left in the middle of its body.
    ClientLeft,
}

/// What a flight tells whoever asked, once it has landed.
enum Told {
    Whole(Head, Bytes),
    Stream(Head, mpsc::Receiver<Chunk>),
    Upgraded(Head, Box<dyn Upgraded>),
}

impl Flight {
    pub(super) fn new(shared: Arc<Shared>, call: Call, place: Place, trace: Trace) -> Self {
        Self { shared, call, place, trace, attempts: 0, stale: false, last_answer: None }
    }

    /// Starts the flight and waits for the head of its answer. Dropping the future, or later the answer, cancels it: its
    /// place is free at once, its connection closed.
    pub(super) async fn depart(self) -> Result<Answer, Failure> {
        let (tell, told) = oneshot::channel();
        let (tasks, trace) = (self.shared.tasks.clone(), self.trace.clone());
        let task = AbortOnDropHandle::new(tasks.spawn(self.fly(tell)));
        match told.await {
            Ok(Ok(Told::Whole(head, body))) => Ok(Answer::whole(head, body, trace)),
            Ok(Ok(Told::Stream(head, chunks))) => Ok(Answer::stream(head, chunks, task, trace)),
            Ok(Ok(Told::Upgraded(head, connection))) => Ok(Answer::upgraded(head, connection, trace)),
            Ok(Err(failure)) => Err(failure),
            Err(_) => Err(Failure::Internal),
        }
    }

    async fn fly(mut self, tell: oneshot::Sender<Result<Told, Failure>>) {
        let landed = self.land().await;
        let memory = self.shared.memory.clone();
        drop(self); // nothing is sent again from here on, so the request's body is not needed any more
        // Whoever asked may have left; then there is nobody to tell, and the rest is dropped.
        let (head, first, rest) = match landed {
            Ok(Landed::Begun(head, first, rest)) => (head, first, rest),
            Ok(Landed::Whole(head, body)) => return drop(tell.send(Ok(Told::Whole(head, body)))),
            Ok(Landed::Upgraded(head, connection)) => return drop(tell.send(Ok(Told::Upgraded(head, connection)))),
            Err(failure) => return drop(tell.send(Err(failure))),
        };
        let (chunks, receiver) = mpsc::channel(CHUNKS);
        if tell.send(Ok(Told::Stream(head, receiver))).is_err() {
            return;
        }
        for bytes in first {
            if chunks.send(Chunk::Data(bytes)).await.is_err() {
                return;
            }
        }
        rest.relay(&chunks, &memory).await;
    }

    /// Tries until something can be delivered, or no further try is allowed.
    async fn land(&mut self) -> Result<Landed, Failure> {
        let mut missed = None;
        loop {
            let came = time::now();
            let permit = match self.trace.in_line(self.place.permit()).await {
                Ok(permit) => permit,
                Err(refusal) => {
                    let standing = self.place.standing();
                    self.trace.note(|facts| {
                        facts.waited += came.elapsed();
                        (facts.requests, facts.tokens) = standing;
                    });
                    return self.give_up(missed, Some(refusal));
                }
            };
            // A reload may have taken the upstream away just now; then the permit serves somebody else.
            let Some(target) = self.shared.target(permit.lane(), self.call.key) else {
                tokio::task::yield_now().await;
                continue;
            };
            self.attempts += 1;
            self.note_attempt(&permit);
            let lane = permit.lane().clone();
            let mut counted = AttemptCount::begin(&target);
            let miss = match self.try_once(&target, permit).await {
                Tried::Landed(landed) => {
                    counted.verdict = metrics::Verdict::Deliver;
                    return Ok(landed);
                }
                Tried::ClientLeft => return Err(Failure::ClientLeft),
                Tried::Missed(miss) => miss,
            };
            self.count_disconnect(&target, miss.happened);
            counted.verdict = metrics::Verdict::GiveUp;
            let Some(pause) = self.pause_after(&lane, &miss) else { return self.give_up(Some(miss), None) };
            counted.verdict = metrics::Verdict::Retry;
            drop(counted);
            self.count_retry(&miss);
            missed = Some(miss);
            self.trace.note(|facts| facts.backed_off += pause);
            tokio::time::sleep(pause).await;
        }
    }

    /// How long to back off before the next attempt; `None` when there must be none.
    fn pause_after(&mut self, lane: &LaneId, miss: &Miss) -> Option<Duration> {
        if miss.verdict == Verdict::GiveUp {
            return None;
        }
        if miss.stale && !self.stale {
            // It was not the provider's fault, and does not count.
            self.stale = true;
            self.attempts -= 1;
            return Some(Duration::ZERO);
        }
        let retry = self.shared.retry();
        if self.attempts >= retry.attempts_max.get() {
            return None;
        }
        let blame = if miss.verdict == Verdict::Refused { Blame::Key } else { Blame::Upstream };
        self.place.failed(lane, blame);
        let pause = match miss.verdict {
            Verdict::Refused if miss.waits_in_line => Duration::ZERO,
            Verdict::Refused | Verdict::Retry | Verdict::Deliver | Verdict::GiveUp => {
                backoff::delay(&retry, self.attempts, miss.retry_after.filter(|after| !after.is_zero()))
            }
        };
        (time::now() + pause < self.place.deadline()).then_some(pause)
    }

    /// The provider's own last answer where there is one, else what it was that failed.
    fn give_up(&mut self, missed: Option<Miss>, refusal: Option<Refusal>) -> Result<Landed, Failure> {
        if let Some((head, body)) = self.last_answer.take() {
            return Ok(Landed::Whole(head, body));
        }
        let Some(miss) = missed else {
            return Err(refusal.map_or(Failure::Internal, Failure::Refused));
        };
        let (attempts, detail) = (self.attempts, miss.loss.detail);
        Err(match miss.happened {
            Happened::NotConnected | Happened::Untouched => Failure::Unavailable { attempts, detail },
            Happened::NoFirstByte => Failure::TimedOut { attempts },
            Happened::Lost | Happened::Cut | Happened::Status { .. } => Failure::Disconnected { attempts, detail },
        })
    }

    async fn try_once(&mut self, target: &Target, permit: Permit) -> Tried {
        let may_be_lost = self.judge(target, Happened::Lost) == Verdict::Retry;
        let switches = self.call.upgrade != Upgrade::None;
        let wanted = Wanted { fresh: self.stale || switches || !may_be_lost, switches };
        let how = How { wanted, write_timeout: self.shared.write_timeout(), trace: &self.trace };
        let attempted = attempt(&mut self.call, target, &self.shared.connector, permit, how).await;
        match attempted {
            Attempted::NotConnected(loss) => self.missed(target, Happened::NotConnected, loss, false),
            Attempted::Lost { loss, stale } if loss.is_untouched && matches!(self.call.body, CallBody::Whole(_)) => {
                self.missed(target, Happened::Untouched, loss, stale)
            }
            Attempted::Lost { loss, stale } => self.missed(target, Happened::Lost, loss, stale),
            Attempted::NoFirstByte => {
                self.missed(target, Happened::NoFirstByte, Loss::new("first_byte_timeout"), false)
            }
            Attempted::ClientLeft => Tried::ClientLeft,
            Attempted::Answered(answered) => self.judge_answer(target, answered).await,
        }
    }

    fn missed(&self, target: &Target, happened: Happened, loss: Loss, stale: bool) -> Tried {
        let verdict = self.judge(target, happened);
        let stale = stale && verdict == Verdict::Retry;
        Tried::Missed(Miss { happened, verdict, loss, retry_after: None, stale, waits_in_line: false })
    }

    fn judge(&self, target: &Target, happened: Happened) -> Verdict {
        let retry = self.shared.retry();
        let rules = Rules {
            repeatable: self.is_repeatable(target),
            on_disconnect: retry.on_disconnect,
            refusal_statuses: &target.settings.refusal_statuses,
            retry_statuses: &target.settings.retry_statuses,
        };
        judge(happened, &rules)
    }

    fn is_repeatable(&self, target: &Target) -> bool {
        self.call.is_repeatable() && target.may_repeat(self.shared.retry().agents)
    }

    async fn judge_answer(&mut self, target: &Target, answered: Answered) -> Tried {
        self.note_first_byte(target);
        let status = answered.head.status;
        if status == StatusCode::SWITCHING_PROTOCOLS {
            signal::listen(&answered.head, &answered.permit);
            return match switch(answered, &self.trace).await {
                Ok(landed) => Tried::Landed(landed),
                Err(loss) => self.missed(target, Happened::Cut, loss, false),
            };
        }
        let suspect = |statuses: &[u16]| statuses.contains(&status.as_u16());
        let settings = &target.settings;
        if suspect(&settings.refusal_statuses) || suspect(&settings.retry_statuses) || status == StatusCode::CONFLICT {
            return self.judge_error(target, answered).await;
        }
        signal::listen(&answered.head, &answered.permit);
        self.deliver(target, answered).await
    }

    async fn deliver(&mut self, target: &Target, answered: Answered) -> Tried {
        match hold_back(answered, self.handling(target), target, &self.trace, &self.shared.memory).await {
            Ok(landed) => Tried::Landed(landed),
            // The provider still generates; a second try would only waste it.
            Err((Cut::Stalled, loss)) => self.missed(target, Happened::NoFirstByte, loss, false),
            Err((Cut::Disconnected | Cut::Unfinished, loss)) => self.missed(target, Happened::Cut, loss, false),
        }
    }

    fn handling(&self, target: &Target) -> Handling {
        Handling {
            route: self.call.route,
            usage_of: Route::resembling(&self.call.method, &self.call.target),
            choices: self.call.choices,
            repeatable: self.is_repeatable(target),
            first_byte_timeout: target.settings.first_byte_timeout,
            idle_timeout: target.settings.idle_timeout,
            is_head: self.call.method == Method::HEAD,
            include_usage: self.call.include_usage,
        }
    }

    /// An error status: its body is part of the evidence, and may be what the client gets in the end.
    async fn judge_error(&mut self, target: &Target, mut answered: Answered) -> Tried {
        let short = read_short(&mut answered.conversation, ERROR_MAX, ERROR_TIME).await;
        let head = &answered.head;
        let body = if let Ok(Short::Whole(body) | Short::Beginning(body)) = &short { &body[..] } else { b"" };
        let happened = Happened::Status {
            status: head.status,
            should_retry: should_retry(head),
            hopeless: match head.status {
                StatusCode::NOT_FOUND => openai::is_model_not_found(body),
                _ => Complaint::of(body, SystemTime::now()).hopeless,
            },
        };
        let verdict = self.judge(target, happened);
        let retry_after = openai::parse_retry_after(&head.headers, SystemTime::now());
        let waits_in_line = verdict == Verdict::Refused && self.close_gate(target, &answered, body);
        if verdict != Verdict::Refused {
            signal::listen(head, &answered.permit);
        }
        let is_final = verdict == Verdict::Deliver || !self.is_repeatable(target);
        let loss = Loss::new(format!("status {}", head.status.as_u16()));
        let missed = Miss { happened, verdict, loss, retry_after, stale: false, waits_in_line };
        let body = match short {
            Ok(Short::Whole(body)) => body,
            // Too long for an error: let the client see it, if waiting does not cure it.
            Ok(Short::Beginning(bytes)) if is_final || verdict != Verdict::Refused => {
                return Tried::Landed(pass_on(answered, bytes, self.handling(target), target, &self.trace));
            }
            // What it says counts, even if it does not come to its end.
            Ok(Short::Beginning(_)) => return Tried::Missed(missed),
            Err(_) if !is_final => return Tried::Missed(missed),
            Err(loss) => return self.missed(target, Happened::Cut, loss, false),
        };
        let Answered { head, conversation, permit } = answered;
        conversation.release().await;
        permit.ended();
        if is_final {
            return Tried::Landed(Landed::Whole(head, body));
        }
        self.last_answer = Some((head, body));
        Tried::Missed(missed)
    }

    /// Nobody goes until the provider wants us again. Says whether the next permit of this call waits for that, too: then
    /// the call is in line again, however long that takes, and admission says when its turn cannot come in time.
    fn close_gate(&self, target: &Target, answered: &Answered, body: &[u8]) -> bool {
        let permit = &answered.permit;
        if permit.is_within_limits() {
            target.metrics.refused_within_limits();
        }
        let backoff = backoff::ceiling(&self.shared.retry(), self.attempts);
        let reopens = permit.refused(&signal::of_refusal(&answered.head, body, backoff));
        let closed_for = reopens.map(|reopens| reopens.saturating_duration_since(time::now()));
        tracing::warn!(
            upstream = &*target.name,
            request_id = %self.call.id,
            status = answered.head.status.as_u16(),
            closed_for_ms = closed_for.map(|closed_for| u64::try_from(closed_for.as_millis()).unwrap_or(u64::MAX)),
            "the provider refused a request; nothing more goes with its key for that long"
        );
        closed_for.is_some_and(|closed_for| !closed_for.is_zero())
    }
}

fn should_retry(head: &Head) -> Option<bool> {
    head.headers.get("x-should-retry")?.to_str().ok()?.trim().parse().ok()
}
