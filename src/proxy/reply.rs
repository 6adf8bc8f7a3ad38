//! The only place where causes become statuses, one line each with its reason.

use http::header::{CONTENT_LENGTH, CONTENT_TYPE, HeaderName, HeaderValue, RETRY_AFTER, WWW_AUTHENTICATE};
use http::{HeaderMap, StatusCode};
use pingora_core::protocols::http::ServerSession;

use super::cause::{After, Gone, Refused};
use super::downstream::Downstream;
use super::strict::Kind;
use crate::admission::{Full, Refusal};
use crate::answer::{Cut, Facts, Head};
use crate::ids::CallId;
use crate::memory;
use crate::metrics::Outcome;
use crate::openai::ErrorBody;
use crate::pipeline::Stranger;
use crate::time::Duration;
use crate::units::{format_duration, format_size};
use crate::upstream::Failure;

/// SDKs obey a `Retry-After` of up to a minute; so never more.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(60);

/// An answer of ours.
struct Reply {
    status: StatusCode,
    body: ErrorBody,
    retry_after: Option<Duration>,
}

impl Reply {
    fn new(status: StatusCode, kind: &'static str, code: &'static str, message: String) -> Self {
        Self { status, body: ErrorBody::new(message, kind, code), retry_after: None }
    }

    fn retry_after(mut self, retry_after: Duration) -> Self {
        self.retry_after = Some(retry_after.min(RETRY_AFTER_MAX));
        self
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
            Reply::new(StatusCode::TOO_MANY_REQUESTS, "requests", "queue_full", message)
                .retry_after(Duration::from_secs(5))
        }
        Refused::BodyTimeout => Reply::new(
            StatusCode::REQUEST_TIMEOUT,
            "invalid_request_error",
            "bad_request",
            "the request body made no progress for server.body_timeout".to_owned(),
        ),
        Refused::TooManyConnections => Reply::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "server_error",
            "queue_full",
            "server.connections_max connections are open; use fewer, or raise it".to_owned(),
        )
        .retry_after(Duration::from_secs(5)),
        Refused::NeedsTls => bad_request("this port speaks TLS: use https in the base URL (server.tls)".to_owned()),
        Refused::Failure(failure) => reply_to_failure(failure),
    }
}

fn reply_to_failure(failure: &Failure) -> Reply {
    let upstream = |status, code, message| Reply::new(status, "server_error", code, message);
    match failure {
        Failure::Refused(refusal) => reply_to_refusal(refusal),
        Failure::Disconnected { attempts, detail } => upstream(
            StatusCode::BAD_GATEWAY,
            "upstream_disconnected",
            format!("the upstream broke the connection, {attempts} attempts: {detail}"),
        )
        .retry_after(Duration::from_secs(5)),
        Failure::TimedOut { attempts } => upstream(
            StatusCode::GATEWAY_TIMEOUT,
            "upstream_timeout",
            format!("the upstream did not begin to answer within upstreams.first_byte_timeout, {attempts} attempts"),
        ),
        Failure::Unavailable { attempts, detail } => upstream(
            StatusCode::SERVICE_UNAVAILABLE,
            "upstream_unavailable",
            format!("the upstream could not be reached, {attempts} attempts: {detail}"),
        )
        .retry_after(Duration::from_secs(5)),
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

fn reply_to_refusal(refusal: &Refusal) -> Reply {
    let too_many = |code, message| Reply::new(StatusCode::TOO_MANY_REQUESTS, "requests", code, message);
    match refusal {
        Refusal::QueueFull { full, retry_after } => {
            let message = match full {
                Full::Calls(max) => format!("{max} calls wait already (admission.queue_max)"),
                Full::Bytes(max) => {
                    format!("the calls that wait hold {} already (admission.queue_bytes_max)", format_size(*max))
                }
                Full::Keys(max) => format!("{max} keys of clients are in use already, and each has an allowance"),
            };
            too_many("queue_full", message).retry_after(*retry_after)
        }
        Refusal::DeadlineUnreachable { turn, left } => {
            let message = format!("its turn is expected in {turn:?}, but it can wait for {left:?} only");
            too_many("deadline_unreachable", message).retry_after(turn.unwrap_or(RETRY_AFTER_MAX))
        }
        Refusal::LimitExceeded { dimension, limit, retry_after } => {
            let message = format!("over this client's own {} ({limit})", dimension.as_str());
            too_many("rate_limit_exceeded", message).retry_after(retry_after.unwrap_or(Duration::from_secs(1)))
        }
        Refusal::QueueTimeout { waited, .. } => {
            let message = format!(
                "waited {} for its turn; allow more time (x-tidegate-deadline-ms, admission.wait_max) or send less",
                format_duration(Duration::from_millis(u64::try_from(waited.as_millis()).unwrap_or(u64::MAX)))
            );
            too_many("queue_timeout", message).retry_after(Duration::from_secs(5))
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
        Refused::Stranger(Stranger::NoKey | Stranger::WrongKey) => Outcome::InvalidApiKey,
        Refused::TooManyConnections | Refused::MemoryFull(_) => Outcome::QueueFull,
        Refused::BadRequest(_)
        | Refused::Unsound(_)
        | Refused::BadCall(_)
        | Refused::Stranger(Stranger::Misnamed(_))
        | Refused::NeedsTls
        | Refused::BodyTimeout
        | Refused::Failure(_) => Outcome::BadRequest,
    }
}

/// Answers with the reason, on a connection that stays open if the request was read to its end.
pub(super) async fn refuse(downstream: &mut Downstream<'_>, id: CallId, refused: &Refused, facts: &Facts) -> After {
    let reply = reply(refused);
    let body = reply.body.to_json();
    let mut headers = headers_of(&reply, body.len());
    add_our_fields(&mut headers, id, facts);
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
    for (name, value) in &headers_of(&reply, body.len()) {
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
    for (name, value) in &headers_of(&reply, body.len()) {
        wire.extend([name.as_str().as_bytes(), b": ", value.as_bytes(), b"\r\n"].concat());
    }
    wire.extend(b"\r\n");
    wire.extend(&body);
    wire
}

fn headers_of(reply: &Reply, length: usize) -> HeaderMap {
    let mut headers = HeaderMap::new();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(CONTENT_LENGTH, length.into());
    if reply.status == StatusCode::UNAUTHORIZED {
        headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer")); // RFC 9110, section 15.5.2
    }
    if let Some(after) = reply.retry_after {
        headers.insert(RETRY_AFTER, after.as_secs().max(1).into());
        headers.insert(HeaderName::from_static("retry-after-ms"), millis(after));
    }
    headers
}

/// Names the call and what happened to it.
pub(super) fn add_our_fields(headers: &mut HeaderMap, id: CallId, facts: &Facts) {
    let mut add = |name, value: Result<HeaderValue, _>| {
        if let Ok(value) = value {
            headers.insert(HeaderName::from_static(name), value);
        }
    };
    add("x-tidegate-request-id", HeaderValue::try_from(id.to_string()));
    if let Some(upstream) = &facts.upstream {
        add("x-tidegate-upstream", HeaderValue::try_from(&**upstream));
        add("x-tidegate-attempts", Ok(facts.attempts.into()));
        add("x-tidegate-queue-ms", Ok(millis(facts.waited)));
    }
}

fn millis(duration: Duration) -> HeaderValue {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX).into()
}
