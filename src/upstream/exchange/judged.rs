//! One attempt, and the verdict on it.

use std::sync::Arc;
use std::time::SystemTime;

use http::{Method, StatusCode};

use super::Flight;
use crate::admission::{Blame, Permit};
use crate::answer::{Cut, ERROR_MAX, ERROR_TIME, Head};
use crate::call::{CallBody, Upgrade};
use crate::openai::{self, Complaint, Route};
use crate::time::{self, Duration, Instant};
use crate::upstream::attempt::{Answered, Attempted, How, attempt};
use crate::upstream::connect::Wanted;
use crate::upstream::conversation::Loss;
use crate::upstream::hold::{Broke, Handling, Landed, Short, hold_back, pass_on, read_short};
use crate::upstream::target::Target;
use crate::upstream::upgraded::switch;
use crate::upstream::verdict::{Happened, Health, Judgement, Rules, Verdict, judge};
use crate::upstream::{Failure, backoff, signal};

pub(super) enum Tried {
    Landed(Landed),
    Missed(Miss),
    /// The client left in the middle of its body.
    ClientLeft,
}

/// Why an attempt brought nothing that can be delivered.
pub(super) struct Miss {
    pub(super) target: Arc<Target>,
    pub(super) happened: Happened,
    pub(super) verdict: Verdict,
    pub(super) loss: Loss,
    pub(super) retry_after: Option<Duration>,
    /// Its lane is closed: the next permit waits as long as it must.
    pub(super) waits_in_line: bool,
    /// It tried for everybody whether the provider is there again.
    pub(super) was_probe: bool,
}

impl Miss {
    /// What the call is to keep away from, if it can.
    pub(super) fn blame(&self) -> Blame {
        match self.verdict {
            Verdict::Refused | Verdict::Elsewhere => Blame::Key,
            _ => Blame::Upstream,
        }
    }
}

impl Happened {
    /// Whether it was sent, and nobody knows whether the provider has done it: to send it again may be once too often.
    pub(super) fn is_lost(self) -> bool {
        matches!(self, Self::Stale | Self::Lost | Self::Cut)
    }

    /// What it is called when nothing came of the call, which [may not be repeated](Flight::is_once).
    pub(super) fn failure(self, attempts: u32, is_once: bool, detail: String) -> Failure {
        match self {
            Self::NotConnected { .. } | Self::Untouched => Failure::Unavailable { attempts, detail },
            Self::NoFirstByte => Failure::TimedOut { attempts, is_once },
            Self::Stale | Self::Lost | Self::Cut | Self::Broken | Self::Status { .. } => {
                Failure::Disconnected { attempts, detail, is_once }
            }
        }
    }
}

impl Flight {
    pub(super) async fn try_once(&mut self, target: &Arc<Target>, permit: Permit) -> Tried {
        let may_be_lost = self.judge(target, Happened::Lost).verdict == Verdict::Retry;
        let switches = self.call.upgrade != Upgrade::None;
        let wanted = Wanted { fresh: self.stale || switches || !may_be_lost, switches };
        let plain = self.is_passed_on || self.trace.is_told();
        let how = How { wanted, write_timeout: self.shared.write_timeout(), plain, trace: &self.trace };
        let attempted = attempt(&mut self.call, target, &self.shared.connector, permit, how).await;
        let (happened, loss, permit) = match attempted {
            Attempted::Answered(answered) => return self.judge_answer(target, answered).await,
            Attempted::ClientLeft => return Tried::ClientLeft,
            Attempted::NotConnected(loss, permit) => (Happened::NotConnected { ours: loss.is_ours }, loss, permit),
            Attempted::NoFirstByte(permit) => (Happened::NoFirstByte, Loss::new("first_byte_timeout"), permit),
            Attempted::Lost { loss, stale, permit } => {
                let is_untouched = loss.is_untouched && matches!(self.call.body, CallBody::Whole(_));
                let happened = match stale && !self.stale {
                    _ if is_untouched => Happened::Untouched,
                    true => Happened::Stale,
                    false => Happened::Lost,
                };
                self.stale |= stale;
                (happened, loss, permit)
            }
        };
        Tried::Missed(self.missed(target, happened, loss, permit))
    }

    /// The attempt is judged, and its permit hears of it.
    fn missed(&self, target: &Arc<Target>, happened: Happened, loss: Loss, mut permit: Permit) -> Miss {
        let was_probe = permit.is_probe();
        let Judgement { verdict, health } = self.judge_try(target, happened, was_probe);
        let opens = match health {
            // It was told of the first call that was lost with its connection.
            Health::Failed | Health::Lost if !self.shared.fallen.is_news(&loss) => None,
            health => tell(health, &mut permit),
        };
        let waits_in_line = opens.is_some_and(|opens| opens > time::now());
        let target = Arc::clone(target);
        Miss { target, happened, verdict, loss, retry_after: None, waits_in_line, was_probe }
    }

    fn judge(&self, target: &Target, happened: Happened) -> Judgement {
        self.judge_try(target, happened, false)
    }

    fn judge_try(&self, target: &Target, happened: Happened, is_probe: bool) -> Judgement {
        let retry = self.shared.retry();
        let rules = Rules {
            repeatable: self.is_repeatable(target),
            on_disconnect: retry.on_disconnect,
            refusal_statuses: &target.settings.refusal_statuses,
            retry_statuses: &target.settings.retry_statuses,
            has_our_key: !target.passes_keys(),
            mid_stream: self.mid_stream(),
            is_probe,
        };
        judge(happened, &rules)
    }

    /// What is to be done about a stream of this call that broke after something of it was passed on.
    pub(in crate::upstream) fn judge_broken(&self, target: &Target) -> Verdict {
        self.judge(target, Happened::Broken).verdict
    }

    fn is_repeatable(&self, target: &Target) -> bool {
        self.call.is_repeatable() && target.may_repeat(self.shared.retry().agents)
    }

    /// Whether an agent may have worked on a call, or may still do so: SDKs repeat what failed by themselves, and its tools
    /// would run twice after all.
    pub(super) fn is_once(&self, miss: &Miss) -> bool {
        let Miss { happened, target, loss, .. } = miss;
        let may_be_done = (happened.is_lost() && !loss.is_untouched) || *happened == Happened::NoFirstByte;
        may_be_done && !target.may_repeat(self.shared.retry().agents)
    }

    /// What the client of a call is told that failed for good: where it was not sent again, also why.
    pub(super) fn detail(&self, miss: Miss) -> String {
        let Miss { happened, verdict, target, loss, .. } = miss;
        let retry = self.shared.retry();
        let is_lost = happened.is_lost();
        let why = match verdict {
            Verdict::GiveUp if is_lost && !self.call.is_repeatable() => "sent again it might be done twice",
            Verdict::GiveUp if is_lost && !target.may_repeat(retry.agents) => {
                "a call to an agent is not sent again, since it may have run tools (retry.agents)"
            }
            Verdict::GiveUp if is_lost && !retry.on_disconnect => "it is not sent again (retry.on_disconnect)",
            _ => return loss.detail,
        };
        format!("{}; {why}", loss.detail)
    }

    async fn judge_answer(&mut self, target: &Arc<Target>, mut answered: Answered) -> Tried {
        self.note_first_byte(target);
        let status = answered.head.status;
        if status == StatusCode::SWITCHING_PROTOCOLS {
            signal::listen(&answered.head, &answered.permit);
            answered.permit.answered();
            return match switch(answered, &self.trace).await {
                Ok(landed) => Tried::Landed(landed),
                Err((loss, permit)) => Tried::Missed(self.missed(target, Happened::Cut, loss, permit)),
            };
        }
        let verdict = self.judge(target, Happened::Status { status, should_retry: None, hopeless: false }).verdict;
        if verdict != Verdict::Deliver || status == StatusCode::CONFLICT {
            return self.judge_error(target, answered).await;
        }
        signal::listen(&answered.head, &answered.permit);
        match hold_back(answered, self.handling(target), target, &self.trace, &self.shared.memory).await {
            Ok(landed) => Tried::Landed(landed),
            Err(Broke { cut, loss, permit }) => {
                let happened = match cut {
                    Cut::Stalled => Happened::NoFirstByte,
                    Cut::Disconnected | Cut::Unfinished => Happened::Cut,
                };
                Tried::Missed(self.missed(target, happened, loss, permit))
            }
        }
    }

    fn handling(&self, target: &Target) -> Handling {
        Handling {
            route: self.call.route,
            usage_of: Route::resembling(&self.call.method, &self.call.target),
            choices: self.call.choices,
            repeatable: self.is_repeatable(target),
            holdback: self.shared.recovery().holdback,
            first_byte_timeout: target.settings.first_byte_timeout,
            idle_timeout: target.settings.idle_timeout,
            is_head: self.call.method == Method::HEAD,
            include_usage: self.call.include_usage,
        }
    }

    /// An error status: its body is part of the evidence, and may be what the client gets in the end.
    async fn judge_error(&mut self, target: &Arc<Target>, mut answered: Answered) -> Tried {
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
        let Judgement { verdict, health } = self.judge(target, happened);
        let retry_after = openai::parse_retry_after(&head.headers, SystemTime::now());
        let waits_in_line = verdict == Verdict::Refused && self.close_gate(target, &mut answered, body);
        if verdict != Verdict::Refused {
            signal::listen(&answered.head, &answered.permit);
        }
        if verdict == Verdict::Elsewhere {
            tracing::warn!(
                upstream = &*target.name,
                request_id = %self.call.id,
                key = target.key_index(answered.permit.lane().key),
                status = answered.head.status.as_u16(),
                "the provider does not accept this key of ours (upstreams.api_keys, counted from 0)"
            );
        }
        let was_probe = answered.permit.is_probe();
        tell(health, &mut answered.permit);
        let is_final = verdict == Verdict::Deliver || !self.is_repeatable(target);
        let loss = Loss::new(format!("status {}", answered.head.status.as_u16()));
        let missed =
            Miss { target: Arc::clone(target), happened, verdict, loss, retry_after, waits_in_line, was_probe };
        let body = match short {
            Ok(Short::Whole(body)) => body,
            // Too long for an error: let the client see it, if waiting does not cure it.
            Ok(Short::Beginning(bytes)) if is_final || verdict != Verdict::Refused => {
                return Tried::Landed(pass_on(answered, bytes, self.handling(target), target, &self.trace));
            }
            // What it says counts, even if it does not come to its end.
            Ok(Short::Beginning(_)) => return Tried::Missed(missed),
            Err(_) if !is_final => return Tried::Missed(missed),
            Err(loss) => {
                let Answered { conversation, permit, .. } = answered;
                drop(conversation);
                return Tried::Missed(self.missed(target, Happened::Cut, loss, permit));
            }
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
    fn close_gate(&self, target: &Target, answered: &mut Answered, body: &[u8]) -> bool {
        let permit = &mut answered.permit;
        if permit.is_within_limits() {
            target.metrics.refused_within_limits();
        }
        let backoff = backoff::ceiling(&self.shared.retry(), self.failures + 1);
        let reopens = permit.refused(&signal::of_refusal(&answered.head, body, backoff));
        tracing::warn!(
            upstream = &*target.name,
            request_id = %self.call.id,
            status = answered.head.status.as_u16(),
            closed_for_ms = reopens.map(millis_until),
            "the provider refused a request; nothing more goes with its key for that long"
        );
        reopens.is_some_and(|reopens| reopens > time::now())
    }
}

/// Tells a permit what its attempt says of the provider. Says until when nobody goes, if that was taken for a refusal.
fn tell(health: Health, permit: &mut Permit) -> Option<Instant> {
    match health {
        Health::Answered => permit.answered(),
        Health::Failed => permit.failed(),
        Health::Lost => {
            permit.failed();
            return permit.lost();
        }
        Health::Unknown => {}
    }
    None
}

fn millis_until(instant: Instant) -> u64 {
    u64::try_from(instant.saturating_duration_since(time::now()).as_millis()).unwrap_or(u64::MAX)
}

fn should_retry(head: &Head) -> Option<bool> {
    head.headers.get("x-should-retry")?.to_str().ok()?.trim().parse().ok()
}
