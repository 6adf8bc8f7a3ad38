//! What became of a call: one log line and its metrics, exactly once, however it ended.

use std::sync::Arc;

use bytes::Bytes;
use http::StatusCode;

use super::habits::{Asked, Habits, Seen};
use crate::admission::Refusal;
use crate::answer::{EVENT_STREAM, Ending, Facts, Head, Observer, Trace};
use crate::call::Call;
use crate::ids::{CallId, ClientId};
use crate::metrics::{CallEnd, DisconnectPhase, Metrics, Outcome, Present};
use crate::openai::{self, Route};
use crate::telemetry::{self, CallRecord};
use crate::time::{self, Instant};
use crate::units::Priority;
use crate::upstream::Failure;

/// A request that never became a call, because it could not be forwarded.
#[derive(Debug)]
pub struct TurnedAway {
    /// Names it.
    pub id: CallId,
    /// Whose it is, as far as that was found out.
    pub client: ClientId,
    /// When it came.
    pub received: Instant,
    /// What it counts as.
    pub outcome: Outcome,
    /// What its client was told.
    pub status: StatusCode,
    /// Why.
    pub reason: String,
}

pub(super) fn turned_away(request: &TurnedAway, metrics: &Metrics) {
    let duration = request.received.elapsed();
    let (route, priority, outcome) = (Route::Other, Priority::Normal, request.outcome);
    let none = time::Duration::ZERO;
    metrics.call_ended(&CallEnd { route, priority, outcome, duration, queued: none, upstream: none });
    telemetry::call_line(&CallRecord {
        request_id: request.id,
        client: &request.client,
        class: priority,
        model: None,
        route,
        stream: false,
        status: Some(request.status.as_u16()),
        wait: none,
        attempts: 0,
        recovered: 0,
        upstream: None,
        first_byte: None,
        duration,
        usage: Default::default(),
        outcome,
        reason: Some(&request.reason),
    });
}

/// The account of a call that runs. Dropped without an ending it says that the client has gone.
pub(super) struct Account {
    open: Option<Open>,
}

struct Open {
    id: CallId,
    client: ClientId,
    route: Route,
    priority: Priority,
    model: Option<Arc<str>>,
    stream: bool,
    received: Instant,
    /// When it began to wait for its first permit.
    opened: Instant,
    status: Option<StatusCode>,
    /// Whether it was the stream that was asked for; `None` where that cannot be told.
    streamed: Option<bool>,
    /// Its answer is an error, although its status does not say so.
    is_error: bool,
    trace: Trace,
    metrics: Arc<Metrics>,
    /// What it asked for, and whom its end teaches what that came to.
    lesson: (Asked, Arc<Habits>),
    _present: Present,
}

impl Account {
    pub(super) fn open(call: &Call, trace: Trace, metrics: Arc<Metrics>, lesson: (Asked, Arc<Habits>)) -> Self {
        Self {
            open: Some(Open {
                id: call.id,
                client: call.client.clone(),
                route: call.route,
                priority: call.priority,
                model: call.model.clone(),
                stream: call.stream,
                received: call.received,
                opened: time::now(),
                status: None,
                streamed: None,
                is_error: false,
                trace,
                lesson,
                _present: metrics.in_flight(),
                metrics,
            }),
        }
    }

    /// The head of its answer goes to the client.
    pub(super) fn answered(mut self, head: &Head) -> Self {
        if let Some(open) = &mut self.open {
            open.status = Some(head.status);
            let is_stream = head.is_of(EVENT_STREAM);
            open.streamed = Some(is_stream).filter(|_| open.stream && (is_stream || !head.is_encoded()));
        }
        self
    }

    /// There will be no answer.
    pub(super) fn failed(mut self, failure: &Failure) {
        if let Some(open) = self.open.take() {
            open.close(outcome_of(failure), Some(&failure.to_string()));
        }
    }
}

impl Observer for Account {
    fn chunk(&mut self, bytes: &Bytes) {
        // An error is short, and comes in one piece.
        if let Some(open) = self.open.as_mut().filter(|open| open.streamed == Some(false)) {
            open.is_error |= openai::is_error(bytes);
        }
    }

    fn end(mut self: Box<Self>, ending: Ending) {
        let Some(open) = self.open.take() else { return };
        match ending {
            Ending::Complete => {
                let status = open.status.map_or(200, |status| status.as_u16());
                let facts = open.trace.facts();
                // One that was put together of several tells nothing of what such calls usually are.
                if status == 200 && !open.is_error && facts.recovered == 0 {
                    open.learn(&facts);
                }
                // The client was told 200 and found this in its stream.
                let told_late = facts.told.filter(|told| told.as_u16() != status).map(|_| format!("status {status}"));
                open.close(Outcome::of_status(status), told_late.as_deref());
            }
            Ending::Truncated(cut) => {
                // Streams that break are counted by their flight: many of them go on.
                if open.status == Some(StatusCode::SWITCHING_PROTOCOLS) {
                    open.metrics.disconnect(open.trace.facts().upstream.as_deref(), DisconnectPhase::WebSocket);
                }
                open.close(Outcome::Broken, Some(cut.as_str()));
            }
            Ending::Abandoned => open.client_gone(),
            Ending::ShutDown => open.close(Outcome::ShuttingDown, None),
        }
    }
}

impl Drop for Account {
    fn drop(&mut self) {
        if let Some(open) = self.open.take() {
            open.client_gone();
        }
    }
}

impl Open {
    fn client_gone(self) {
        let facts = self.trace.facts();
        if facts.verdict.is_none() {
            self.metrics.disconnect(facts.upstream.as_deref(), DisconnectPhase::Client);
        }
        self.close(Outcome::ClientGone, None);
    }

    fn learn(&self, facts: &Facts) {
        let (Some(sent), Some(ended)) = (facts.sent, facts.upstream_ended) else { return };
        let (asked, habits) = &self.lesson;
        let seen = Seen {
            usage: facts.usage.unwrap_or_default(),
            took: ended.saturating_duration_since(sent),
            streamed: self.streamed,
        };
        habits.learn(asked, &seen, ended);
    }

    fn close(self, outcome: Outcome, reason: Option<&str>) {
        let facts = self.trace.facts();
        let (outcome, reason) = match &facts.verdict {
            Some((outcome, reason)) => (*outcome, Some(reason.as_str())),
            None => (outcome, reason),
        };
        let duration = self.received.elapsed();
        // A client that leaves the line takes the note of its wait along.
        let waited = match facts.attempts {
            0 if facts.waited.is_zero() => self.opened.elapsed(),
            _ => facts.waited,
        };
        let queued = waited + facts.backed_off;
        // Who left the line without a permit stood in it, too; who was refused at once did not.
        if facts.attempts > 0 || facts.stood_in_line {
            self.metrics.queue_wait(self.priority, waited);
        }
        let upstream = match (facts.sent, facts.upstream_ended) {
            (Some(sent), Some(ended)) => facts.broke_after + ended.saturating_duration_since(sent),
            (Some(sent), None) => facts.broke_after + sent.elapsed(),
            (None, _) => time::Duration::ZERO,
        };
        self.metrics.client_served(&self.client, facts.attempts, facts.waited);
        let (route, priority) = (self.route, self.priority);
        self.metrics.call_ended(&CallEnd { route, priority, outcome, duration, queued, upstream });
        telemetry::call_line(&CallRecord {
            request_id: self.id,
            client: &self.client,
            class: priority,
            model: self.model.as_deref(),
            route,
            stream: self.stream,
            status: facts.told.or(self.status).map(|status| status.as_u16()),
            wait: waited,
            attempts: facts.attempts,
            recovered: facts.recovered,
            upstream: facts.upstream.as_deref(),
            first_byte: facts.first_byte.map(|at| at.saturating_duration_since(self.received)),
            duration,
            usage: facts.usage.unwrap_or_default(),
            outcome,
            reason,
        });
    }
}

fn outcome_of(failure: &Failure) -> Outcome {
    match failure {
        Failure::Refused(Refusal::QueueFull { .. }) => Outcome::QueueFull,
        Failure::Refused(Refusal::QueueTimeout { .. }) => Outcome::QueueTimeout,
        Failure::Refused(Refusal::DeadlineUnreachable { .. }) => Outcome::DeadlineUnreachable,
        Failure::Refused(Refusal::LimitExceeded { .. }) => Outcome::RateLimitExceeded,
        Failure::Refused(Refusal::NoUpstream { .. }) => Outcome::BadRequest,
        Failure::Refused(Refusal::ShuttingDown) => Outcome::ShuttingDown,
        Failure::Disconnected { .. } => Outcome::UpstreamDisconnected,
        Failure::TimedOut { .. } => Outcome::UpstreamTimeout,
        Failure::Unavailable { .. } => Outcome::UpstreamUnavailable,
        Failure::ClientLeft => Outcome::ClientGone,
        Failure::Internal => Outcome::Internal,
    }
}
