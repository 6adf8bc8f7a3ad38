//! The only place where causes become statuses, one line each with its reason.

use http::header::{CONTENT_ENCODING, CONTENT_TYPE};
use http::{HeaderMap, StatusCode};
use pingora_core::protocols::http::ServerSession;

use super::cause::{After, Asker, Gone, Refused};
use super::downstream::Downstream;
use super::fields::{self, RETRY_AFTER_MAX};
use super::strict::Kind;
use crate::admission::{Full, Refusal};
use crate::answer::{Cut, Facts, Head};
use crate::ids::CallId;
use crate::memory;
use crate::metrics::Outcome;
use crate::openai::ErrorBody;
use crate::pipeline::{Stranger, WAIT_MAX};
use crate::time::Duration;
use crate::units::{format_size, say_duration};
use crate::upstream::Failure;

/// When to come back where nobody can tell.
const SOON: Duration = Duration::from_secs(5);

/// An answer of ours.
struct Reply {
    status: StatusCode,
    body: ErrorBody,
    retry_after: Option<Duration>,
    /// Asked again it might be done twice.
    is_once: bool,
}

impl Reply {
    fn new(status: StatusCode, kind: &'static str, code: &'static str, message: String) -> Self {
        Self { status, body: ErrorBody::new(message, kind, code), retry_after: None, is_once: false }
    }

    fn retry_after(mut self, retry_after: Duration) -> Self {
        self.retry_after = Some(retry_after);
        self
    }

    /// When to come back, unless that may do harm.
    fn soon_unless(mut self, is_once: bool) -> Self {
        (self.retry_after, self.is_once) = (Some(SOON).filter(|_| !is_once), is_once);
        self
    }

    fn headers(&self, length: usize) -> HeaderMap {
        fields::of_error(self.status, length, self.retry_after, self.is_once)
    }
}

fn reply(refused: &Refused) -> Reply {
    let bad_request = |message| Reply::new(StatusCode::BAD_REQUEST, "invalid_request_error", "bad_request", message);
    match refused {
        Refused::BadRequest(why) => bad_request((*why).to_owned()),
        Refused::Unsound(violation) => {
            let status = match violation.kind {
                Kind::BadRequest => StatusCode::BAD_REQUEST,
                Kind::UriTooLong => StatusCode::URI_TOO_LONG,
                Kind::HeadTooLarge => StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
            };
            Reply { status, ..bad_request(violation.reason.to_owned()) }
        }
        Refused::BadCall(why) => bad_request(format!("header {why}")),
        Refused::Stranger(Stranger::Misnamed(why)) => bad_request(format!("header {why}")),
        Refused::Stranger(stranger) => {
            Reply::new(StatusCode::UNAUTHORIZED, "invalid_request_error", "invalid_api_key", stranger.to_string())
        }
        Refused::TooLarge { body_max } => Reply::new(
            StatusCode::PAYLOAD_TOO_LARGE,
            "invalid_request_error",
            "request_too_large",
            format!("the request body is larger than server.body_max ({})", format_size(*body_max)),
        ),
        Refused::MemoryFull(memory::Full(max)) => {
            let message = format!(
                "what is held for calls would be more than {} (server.memory_max); send less at a time, or raise it",
                format_size(*max)
            );
            Reply::new(StatusCode::TOO_MANY_REQUESTS, "requests", "queue_full", message).retry_after(SOON)
        }
        Refused::BodyTimeout => Reply::new(
            StatusCode::REQUEST_TIMEOUT,
            "invalid_request_error",
            "bad_request",
            "the request body made no progress for server.body_timeout".to_owned(),
        )
        .retry_after(Duration::ZERO),
        Refused::TooManyConnections => Reply::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "server_error",
            "queue_full",
            "server.connections_max connections are open; use fewer, or raise it".to_owned(),
        )
        .retry_after(SOON),
        Refused::NeedsTls => bad_request("this port speaks TLS: use https in the base URL (server.tls)".to_owned()),
        Refused::Failure(failure, asker) => reply_to_failure(failure, asker),
    }
}

fn reply_to_failure(failure: &Failure, asker: &Asker) -> Reply {
    let upstream = |status, code, message| Reply::new(status, "server_error", code, message);
    match failure {
        Failure::Refused(refusal) => reply_to_refusal(refusal, asker),
        Failure::Disconnected { attempts, detail, is_once } => upstream(
            StatusCode::BAD_GATEWAY,
            "upstream_disconnected",
            format!("the upstream broke the connection, {}: {detail}", tried(*attempts)),
        )
        .soon_unless(*is_once),
        Failure::TimedOut { attempts, is_once } => upstream(
            StatusCode::GATEWAY_TIMEOUT,
            "upstream_timeout",
            format!("the upstream did not begin to answer within upstreams.first_byte_timeout, {}", tried(*attempts)),
        )
        .soon_unless(*is_once),
        Failure::Unavailable { attempts, detail } => upstream(
            StatusCode::SERVICE_UNAVAILABLE,
            "upstream_unavailable",
            format!("the upstream could not be reached, {}: {detail}", tried(*attempts)),
        )
        .retry_after(SOON),
        Failure::ClientLeft => {
            Reply::new(StatusCode::BAD_REQUEST, "invalid_request_error", "bad_request", "the body broke off".to_owned())
        }
        Failure::Internal => Reply::new(
            StatusCode::INTERNAL_SERVER_ERROR,
            "server_error",
            "internal_error",
            "a defect of tidegate; its log has more".to_owned(),
        ),
    }
}

fn tried(attempts: u32) -> String {
    if attempts == 1 { "1 attempt".to_owned() } else { format!("{attempts} attempts") }
}

fn reply_to_refusal(refusal: &Refusal, asker: &Asker) -> Reply {
    let too_many = |code, message| Reply::new(StatusCode::TOO_MANY_REQUESTS, "requests", code, message);
    match refusal {
        Refusal::QueueFull { full, retry_after } => {
            let full = match full {
                Full::Calls(max) => format!("{} already (admission.queue_max)", calls_wait(*max)),
                Full::Bytes(max) => {
                    format!("the calls that wait hold {} already (admission.queue_bytes_max)", format_size(*max))
                }
                Full::Keys(max) => format!("{max} keys of clients are in use already, and each has an allowance"),
            };
            let message = format!("{full}; send less at a time, or come back in about {}", say_duration(*retry_after));
            too_many("queue_full", message).retry_after(*retry_after)
        }
        Refusal::DeadlineUnreachable { turn, left } => {
            let expected = match turn {
                Some(turn) => format!("its turn is expected in about {}", say_duration(*turn)),
                None => "nobody can tell when its turn comes".to_owned(),
            };
            let message = format!(
                "{}{expected}, but it can wait for {} only ({}); {}",
                contention(asker),
                say_duration(*left),
                bound(asker),
                advice(asker)
            );
            // With the same patience it would be in time once so much of the queue has gone.
            let cured_in = turn.map_or(RETRY_AFTER_MAX, |turn| turn.saturating_sub(*left));
            too_many("deadline_unreachable", message).retry_after(cured_in)
        }
        Refusal::LimitExceeded { dimension, limit, retry_after } => {
            let room = match retry_after {
                Some(after) => format!("there is room in about {}", say_duration(*after)),
                None => "there is room when one of its calls has ended".to_owned(),
            };
            let message = format!(
                "over this client's own limit, clients.limits.{} = {limit}; {room}; send less, or set on_limit = \"wait\"",
                dimension.as_str()
            );
            too_many("rate_limit_exceeded", message).retry_after(retry_after.unwrap_or_default())
        }
        Refusal::QueueTimeout { waited, turn } => {
            let missing = turn.map_or_else(String::new, |turn| {
                format!(", which would have come in about {} more", say_duration(turn))
            });
            let message = format!(
                "waited {} for its turn{missing}: as long as it could ({}); {}{}",
                say_duration(*waited),
                bound(asker),
                contention(asker),
                advice(asker)
            );
            too_many("queue_timeout", message).retry_after(turn.unwrap_or(SOON))
        }
        Refusal::NoUpstream { model } => {
            let message = match model {
                Some(model) => format!("no upstream serves the model {model:?} (upstreams.models)"),
                None => "no upstream serves calls that name no model (upstreams.models has no \"*\")".to_owned(),
            };
            Reply::new(StatusCode::NOT_FOUND, "invalid_request_error", "model_not_found", message)
        }
        Refusal::ShuttingDown => Reply::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "server_error",
            "shutting_down",
            "tidegate is shutting down; ask again".to_owned(),
        )
        .retry_after(Duration::from_secs(1)),
    }
}

const FAILING: &str = "an upstream fails, and calls wait for it to come back (breaker.open, recovery.cooldown); ";

/// Who else wants what there is too little of, or what else stands in the way.
fn contention(asker: &Asker) -> String {
    let paused = if asker.paused { "an operator has paused an upstream; " } else { "" };
    let failing = if asker.failing { FAILING } else { "" };
    match usize::try_from(asker.waiting) {
        Ok(0) | Err(_) => format!("{paused}{failing}"),
        Ok(calls) => format!("{paused}{failing}{} already; ", calls_wait(calls)),
    }
}

fn calls_wait(calls: usize) -> String {
    if calls == 1 { "1 call waits".to_owned() } else { format!("{calls} calls wait") }
}

/// What bounds a wait, as its client knows it.
fn bound(asker: &Asker) -> String {
    match asker.deadline_from {
        from if from.starts_with("x-stainless") => format!("{from}, less what an answer takes"),
        from => from.to_owned(),
    }
}

/// What helps a call whose turn comes too late. A stream is kept alive, so no time-out binds it.
fn advice(asker: &Asker) -> String {
    match asker.deadline_from {
        WAIT_MAX => format!("send less, or raise {WAIT_MAX}"),
        _ if asker.stream => "allow more time, or send less".to_owned(),
        _ => "stream, allow more time, or send less".to_owned(),
    }
}

/// What a client is told in a stream that has begun.
pub(super) fn in_stream(refused: &Refused) -> (StatusCode, ErrorBody) {
    let reply = reply(refused);
    (reply.status, reply.body)
}

/// What a client is told that was promised a stream, where the provider sends something else.
pub(super) fn no_stream(head: &Head) -> (StatusCode, ErrorBody) {
    let field = |name| head.headers.get(name).and_then(|value| value.to_str().ok());
    let kind = field(CONTENT_TYPE).unwrap_or("no content type");
    let encoded = field(CONTENT_ENCODING).map_or_else(String::new, |coding| format!(", encoded as {coding}"));
    let message = format!(
        "the upstream answered with status {} and {kind}{encoded}, not with the plain stream that was asked for; ask again: the next \
         answer is waited for in silence, and passed on as it is",
        head.status.as_u16()
    );
    (StatusCode::BAD_GATEWAY, ErrorBody::new(message, "server_error", "upstream_no_stream"))
}

/// What the client of a broken stream is told.
pub(super) fn broken_stream(cut: Cut) -> (StatusCode, ErrorBody) {
    let (status, code) = match cut {
        Cut::Disconnected | Cut::Unfinished => (StatusCode::BAD_GATEWAY, "upstream_disconnected"),
        Cut::Stalled => (StatusCode::GATEWAY_TIMEOUT, "upstream_timeout"),
    };
    (status, ErrorBody::new(cut.as_str(), "server_error", code))
}

/// What log and metrics say of a request that never became a call.
pub(super) fn reason(refused: &Refused) -> (Outcome, StatusCode, String) {
    let reply = reply(refused);
    (outcome(refused), reply.status, reply.body.message.into_owned())
}

fn outcome(refused: &Refused) -> Outcome {
    match refused {
        Refused::TooLarge { .. } => Outcome::RequestTooLarge,
        Refused::Stranger(Stranger::NoKey | Stranger::WrongKey | Stranger::ManyKeys) => Outcome::InvalidApiKey,
        Refused::TooManyConnections | Refused::MemoryFull(_) => Outcome::QueueFull,
        Refused::BadRequest(_)
        | Refused::Unsound(_)
        | Refused::BadCall(_)
        | Refused::Stranger(Stranger::Misnamed(_))
        | Refused::NeedsTls
        | Refused::BodyTimeout
        | Refused::Failure(..) => Outcome::BadRequest,
    }
}

/// Answers with the reason, on a connection that stays open if the request was read to its end.
pub(super) async fn refuse(downstream: &mut Downstream<'_>, id: CallId, refused: &Refused, facts: &Facts) -> After {
    let reply = reply(refused);
    let body = reply.body.to_json();
    let mut headers = reply.headers(body.len());
    fields::add(&mut headers, id, facts);
    let keep = downstream.is_body_read();
    let written = async {
        downstream.write_head(Head { status: reply.status, headers }).await?;
        if downstream.is_head() {
            return downstream.finish().await;
        }
        downstream.write_last(body).await?;
        downstream.finish().await
    };
    match written.await {
        Ok(()) if keep => After::Keep,
        Ok(()) => After::Linger,
        Err(Gone) => After::Close,
    }
}

/// Answers a connection from which no request could be read, which is then closed.
pub(super) async fn refuse_connection(session: &mut ServerSession, refused: &Refused) {
    let reply = reply(refused);
    let body = reply.body.to_json();
    let Ok(mut head) = pingora_http::ResponseHeader::build_no_case(reply.status, None) else { return };
    for (name, value) in &reply.headers(body.len()) {
        if head.append_header(name, value).is_err() {
            return;
        }
    }
    session.set_keepalive(None);
    if session.write_response_header(Box::new(head)).await.is_ok() {
        // Whoever has left needs no reason.
        drop(session.write_response_body(body, true).await);
    }
}

/// What a connection is told that is not served, as it goes on the wire: nobody reads its request.
pub(super) fn on_the_wire(refused: &Refused) -> Vec<u8> {
    let reply = reply(refused);
    let body = reply.body.to_json();
    let mut wire = format!("HTTP/1.1 {}\r\nconnection: close\r\n", reply.status).into_bytes();
    for (name, value) in &reply.headers(body.len()) {
        wire.extend([name.as_str().as_bytes(), b": ", value.as_bytes(), b"\r\n"].concat());
    }
    wire.extend(b"\r\n");
    wire.extend(&body);
    wire
}

#[cfg(test)]
mod tests;
