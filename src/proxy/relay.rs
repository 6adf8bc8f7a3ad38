//! Passing an answer on.

use bytes::Bytes;
use http::header::{CONNECTION, CONTENT_LENGTH, HeaderValue, TRANSFER_ENCODING, UPGRADE};
use http::{Method, StatusCode};

use tokio::time::timeout;

use super::cause::{After, Gone};
use super::downstream::Downstream;
use super::reply;
use super::tunnel::Tunnel;
use crate::answer::{Answer, Cut, Ending, Head, Upgraded};
use crate::ids::CallId;
use crate::openai;
use crate::time::Duration;

/// How long the end of an exchange may come after the last byte of its answer.
const LAST_WORD: Duration = Duration::from_secs(1);

/// Relays an answer until it has ended or its client has left, which cancels it.
pub(super) async fn relay(downstream: &mut Downstream<'_>, id: CallId, method: &Method, mut answer: Answer) -> After {
    if let Some(upstream) = answer.take_upgraded() {
        return switch(downstream, id, answer, upstream).await;
    }
    let is_event_stream = answer.head.is_event_stream();
    frame(downstream, method, &mut answer, is_event_stream);
    reply::add_our_fields(&mut answer.head.headers, id, &answer.trace.facts());
    let owed = owed(method, &answer.head);
    match pass_on(downstream, &mut answer, is_event_stream, owed).await {
        Ok(after) => after,
        Err(Gone) => After::Close,
    }
}

/// Tells the client that its connection is switched.
async fn switch(downstream: &mut Downstream<'_>, id: CallId, mut answer: Answer, upstream: Box<dyn Upgraded>) -> After {
    let headers = &mut answer.head.headers;
    headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
    reply::add_our_fields(headers, id, &answer.trace.facts());
    match downstream.write_head(answer.head.clone()).await {
        Ok(()) => After::Tunnel(Tunnel::new(answer, upstream)),
        Err(Gone) => After::Close,
    }
}

async fn pass_on(
    downstream: &mut Downstream<'_>,
    answer: &mut Answer,
    is_event_stream: bool,
    mut owed: Option<u64>,
) -> Result<After, Gone> {
    let is_kept_back = answer.length().is_none() && answer.head.headers.contains_key(CONTENT_LENGTH);
    downstream.write_head(answer.head.clone()).await?;
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
        let Some(bytes) = next else { break };
        owed = owed.map(|owed| owed.saturating_sub(u64::try_from(bytes.len()).unwrap_or(u64::MAX)));
        if is_last { downstream.write_last(bytes).await? } else { downstream.write_part(bytes).await? }
    }
    match answer.ending() {
        Some(Ending::Truncated(cut)) if is_event_stream => downstream.write_part(broken(cut)).await?,
        // Without its last chunk, or short of its length: the client sees that it is broken.
        Some(Ending::Truncated(_) | Ending::Abandoned | Ending::ShutDown) | None => return Ok(After::Close),
        Some(Ending::Complete) => {}
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
fn broken(cut: Cut) -> Bytes {
    let (status, body) = reply::broken_stream(cut);
    openai::sse_error_event(&body, status.as_u16())
}
