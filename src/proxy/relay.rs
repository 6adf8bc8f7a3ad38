//! Passing an answer on.

use bytes::{Buf, Bytes, BytesMut};
use http::header::{CONNECTION, CONTENT_LENGTH, HeaderValue, TRANSFER_ENCODING, UPGRADE};
use http::{Method, StatusCode};

use tokio::time::{timeout, timeout_at};

use super::cause::{After, Gone, Refused};
use super::downstream::Downstream;
use super::tunnel::Tunnel;
use super::{fields, reply};
use crate::answer::{Answer, Cut, ERROR_MAX, ERROR_TIME, Ending, Head, Upgraded};
use crate::ids::CallId;
use crate::metrics::Outcome;
use crate::openai::error_event::error_event_on;
use crate::openai::{self, Route};
use crate::time::{self, Duration};

/// How long the end of an exchange may come after the last byte of its answer.
const LAST_WORD: Duration = Duration::from_secs(1);
/// What is logged of an answer that is none.
const NO_STREAM: &str = "the upstream sent no stream, as was asked for and had begun";
const BOM: &[u8] = b"\xEF\xBB\xBF";

/// What was asked for, as far as its answer depends on it.
#[derive(Debug, Clone)]
pub(super) struct Asked {
    pub(super) id: CallId,
    pub(super) method: Method,
    pub(super) route: Route,
}

/// Relays an answer until it has ended or its client has left, which cancels it.
pub(super) async fn relay(downstream: &mut Downstream<'_>, asked: &Asked, mut answer: Answer) -> After {
    let Asked { id, method, route } = asked;
    let id = *id;
    if let Some(upstream) = answer.take_upgraded() {
        return switch(downstream, id, answer, upstream).await;
    }
    let is_event_stream = answer.head.is_event_stream();
    frame(downstream, method, &mut answer, is_event_stream);
    fields::add(&mut answer.head.headers, id, &answer.trace.facts());
    let owed = owed(method, &answer.head);
    match pass_on(downstream, &mut answer, is_event_stream.then_some(*route), owed).await {
        Ok(after) => after,
        Err(Gone) => After::Close,
    }
}

/// Tells the client that its connection is switched.
async fn switch(downstream: &mut Downstream<'_>, id: CallId, mut answer: Answer, upstream: Box<dyn Upgraded>) -> After {
    let headers = &mut answer.head.headers;
    headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
    fields::add(headers, id, &answer.trace.facts());
    match downstream.write_head(answer.head.clone()).await {
        Ok(()) => After::Tunnel(Tunnel::new(answer, upstream)),
        Err(Gone) => After::Close,
    }
}

/// Relays an answer to a client that has the head of a stream already.
pub(super) async fn relay_in_stream(downstream: &mut Downstream<'_>, route: Route, mut answer: Answer) -> After {
    let relayed = async {
        if answer.head.is_event_stream() {
            answer.head.headers.remove(CONTENT_LENGTH); // of less than the client gets
            return pass_body_on(downstream, &mut answer, Some(route), None).await;
        }
        let status = answer.head.status;
        let is_error = status.is_client_error() || status.is_server_error();
        if !is_error {
            answer.trace.note(|facts| facts.verdict = Some((Outcome::Broken, NO_STREAM.to_owned())));
        }
        let body = error_body(downstream, &mut answer).await?;
        let event = if is_error || body.as_deref().is_some_and(openai::is_error) {
            openai::provider_error_event(status.as_u16(), body.as_deref())
        } else {
            let (status, error) = reply::no_stream(&answer.head);
            openai::sse_error_event(&error, status.as_u16())
        };
        // All that there is to tell of it is told, whether there was more of it or not.
        answer.ended(Ending::Complete);
        end_with(downstream, route, event).await
    };
    relayed.await.unwrap_or(After::Close)
}

/// Tells a client that has the head of a stream already why nothing follows.
pub(super) async fn refuse_in_stream(downstream: &mut Downstream<'_>, route: Route, refused: &Refused) -> After {
    let (status, body) = reply::in_stream(refused);
    end_with(downstream, route, openai::sse_error_event(&body, status.as_u16())).await.unwrap_or(After::Close)
}

async fn end_with(downstream: &mut Downstream<'_>, route: Route, event: Bytes) -> Result<After, Gone> {
    downstream.write_last(error_event_on(route, event)).await?;
    downstream.finish().await?;
    Ok(if downstream.is_body_read() { After::Keep } else { After::Linger })
}

/// The body of an answer that is no stream, if it comes soon and is as short as errors are, and can be read.
async fn error_body(downstream: &mut Downstream<'_>, answer: &mut Answer) -> Result<Option<Bytes>, Gone> {
    let (until, mut body) = (time::now() + ERROR_TIME, BytesMut::new());
    while body.len() <= ERROR_MAX {
        match timeout_at(until, next(downstream, answer)).await {
            Ok(next) => match next? {
                Some(bytes) => body.extend_from_slice(&bytes),
                None => break,
            },
            Err(_elapsed) => break,
        }
    }
    Ok((!answer.head.is_encoded()).then(|| body.freeze()))
}

async fn pass_on(
    downstream: &mut Downstream<'_>,
    answer: &mut Answer,
    events_of: Option<Route>,
    owed: Option<u64>,
) -> Result<After, Gone> {
    downstream.write_head(answer.head.clone()).await?;
    pass_body_on(downstream, answer, events_of, owed).await
}

/// `events_of`: it is a stream of events, of that route.
async fn pass_body_on(
    downstream: &mut Downstream<'_>,
    answer: &mut Answer,
    events_of: Option<Route>,
    mut owed: Option<u64>,
) -> Result<After, Gone> {
    // A byte order mark is one at the beginning only; behind our comments it would spoil the first event.
    let mut may_have_mark = answer.trace.is_told();
    let is_kept_back = answer.length().is_none() && answer.head.headers.contains_key(CONTENT_LENGTH);
    loop {
        if is_kept_back {
            downstream.flush().await?;
        }
        let is_last = answer.length().is_some();
        // A client that has all it was promised may leave: it was served.
        let rest = match owed {
            Some(0) => timeout(LAST_WORD, answer.next()).await.ok(),
            _ => None,
        };
        let next = match rest {
            Some(next) => next,
            None => next(downstream, answer).await?,
        };
        let Some(mut bytes) = next else { break };
        if std::mem::take(&mut may_have_mark) && bytes.starts_with(BOM) {
            bytes.advance(BOM.len());
        }
        owed = owed.map(|owed| owed.saturating_sub(u64::try_from(bytes.len()).unwrap_or(u64::MAX)));
        if is_last { downstream.write_last(bytes).await? } else { downstream.write_part(bytes).await? }
    }
    match (answer.ending(), events_of) {
        (Some(Ending::Truncated(cut)), Some(route)) => downstream.write_part(broken(cut, route)).await?,
        // Without its last chunk, or short of its length: the client sees that it is broken.
        (Some(Ending::Truncated(_) | Ending::Abandoned | Ending::ShutDown) | None, _) => return Ok(After::Close),
        (Some(Ending::Complete), _) => {}
    }
    downstream.finish().await?;
    Ok(if downstream.is_body_read() { After::Keep } else { After::Linger })
}

/// The next bytes of the answer. What is there is passed on before anybody looks whether the client is.
async fn next(downstream: &mut Downstream<'_>, answer: &mut Answer) -> Result<Option<Bytes>, Gone> {
    tokio::select! {
        biased;
        bytes = answer.next() => Ok(bytes),
        gone = downstream.gone() => Err(gone),
    }
}

/// How many bytes of a body the head promises, if it tells.
fn owed(method: &Method, head: &Head) -> Option<u64> {
    if has_no_body(method, head.status) {
        return Some(0);
    }
    head.headers.get(CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

fn has_no_body(method: &Method, status: StatusCode) -> bool {
    *method == Method::HEAD || matches!(status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED)
}

/// Says how the body is framed on this hop.
fn frame(downstream: &Downstream<'_>, method: &Method, answer: &mut Answer, is_event_stream: bool) {
    let whole = answer.length();
    let head = &mut answer.head;
    if has_no_body(method, head.status) {
        return; // no body, and what the fields say of one is about another request
    }
    if is_event_stream && whole.is_none() {
        head.headers.remove(CONTENT_LENGTH); // an error event may have to be added
    }
    if let Some(length) = whole {
        head.headers.insert(CONTENT_LENGTH, length.into());
    } else if !head.headers.contains_key(CONTENT_LENGTH) && !downstream.is_http_1_0() {
        head.headers.insert(TRANSFER_ENCODING, HeaderValue::from_static("chunked"));
    }
}

/// The event that tells a client, in the form its SDK raises, that its stream is not complete.
fn broken(cut: Cut, route: Route) -> Bytes {
    let (status, body) = reply::broken_stream(cut);
    error_event_on(route, openai::sse_error_event(&body, status.as_u16()))
}
