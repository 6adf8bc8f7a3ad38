//! One try: connect, write, wait for the head.

use bytes::Bytes;
use http::header::{
    ACCEPT_ENCODING, AUTHORIZATION, CONNECTION, CONTENT_LENGTH, EXPECT, HOST, HeaderValue, TRANSFER_ENCODING, UPGRADE,
};

use super::connect::{Connector, Wanted};
use super::conversation::{Conversation, Loss, RequestHead};
use super::send::{Outgoing, Sent};
use super::target::Target;
use crate::admission::Permit;
use crate::answer::{Head, Trace};
use crate::call::{Call, CallBody, Upgrade};
use crate::openai;
use crate::time::{self, Duration};

/// A connection that had died in the pool says so within a round trip of the first byte. What is lost later had reached
/// the provider.
const DEAD_WITHIN: Duration = Duration::from_secs(1);

/// What came of it.
pub(super) enum Attempted {
    /// Nothing was sent, and the permit serves somebody else when it is dropped.
    NotConnected(Loss, Permit),
    /// No answer: reset or EOF. `stale`: at once, on a pooled connection, which may have been dead already.
    Lost { loss: Loss, stale: bool, permit: Permit },
    /// No head in time.
    NoFirstByte(Permit),
    /// The client left in the middle of its body.
    ClientLeft,
    /// A final head. The body is still to come.
    Answered(Answered),
}

/// An answer of which the head has come.
pub(super) struct Answered {
    pub(super) head: Head,
    pub(super) conversation: Conversation,
    pub(super) permit: Permit,
}

/// How to try.
#[derive(Debug, Clone, Copy)]
pub(super) struct How<'a> {
    /// On what kind of connection.
    pub(super) wanted: Wanted,
    /// How long a single write may make no progress.
    pub(super) write_timeout: Duration,
    /// Its answer must not be encoded: its client has the head of one that is not.
    pub(super) plain: bool,
    /// Where it is noted when the request was sent.
    pub(super) trace: &'a Trace,
}

/// Dropping the future closes the connection, and the permit gives back what it can.
pub(super) async fn attempt(
    call: &mut Call,
    target: &Target,
    connector: &Connector,
    mut permit: Permit,
    how: How<'_>,
) -> Attempted {
    let mut conversation = match connector.connect(target, how.wanted).await {
        Ok(conversation) => conversation,
        Err(loss) => return Attempted::NotConnected(loss, permit),
    };
    conversation.set_write_timeout(how.write_timeout);
    permit.writing();
    let mut head = request_head(call, target, &permit);
    if how.plain && head.headers.contains_key(ACCEPT_ENCODING) {
        // The head that its client was given does not say that anything is encoded.
        head.headers.insert(ACCEPT_ENCODING, HeaderValue::from_static("identity"));
    }
    let body = match &mut call.body {
        CallBody::Whole(bytes) => Outgoing::Whole(Bytes::clone(bytes)),
        CallBody::Stream(body) => Outgoing::Stream(body),
    };
    let ends = matches!(&body, Outgoing::Whole(bytes) if bytes.is_empty());
    conversation.expect_body(&body);
    let may_lag = conversation.may_lag(&body);
    let began = time::now();
    let (mut conversation, sent) = match conversation.write_head(head, ends).await {
        // There is no stream on which an answer could come, and nothing has left.
        Err(mut loss) if conversation.speaks_http2() => {
            loss.is_untouched |= !loss.may_be_stale;
            (conversation, Sent::Lost(loss))
        }
        Err(loss) => (conversation, Sent::Cut(loss)),
        Ok(()) => conversation.write_body(body, &call.method, how.write_timeout).await,
    };
    if !may_lag {
        permit.written();
    }
    let written = time::now();
    how.trace.note(|facts| facts.sent = Some(written));
    let lost = |loss: Loss, conversation: Conversation, permit| {
        let stale = conversation.is_reused() && loss.may_be_stale && began.elapsed() < DEAD_WITHIN;
        let loss = conversation.locate(loss);
        drop(conversation); // closed before anybody gives the slot back
        Attempted::Lost { loss, stale, permit }
    };
    match sent {
        Sent::Written | Sent::Answered => {}
        Sent::ClientLeft => return Attempted::ClientLeft,
        Sent::Lost(loss) => return lost(loss, conversation, permit),
        Sent::Cut(loss) => {
            return match conversation.last_word().await {
                Ok(head) => Attempted::Answered(Answered { head, conversation, permit }),
                Err(later) => lost(later.unwrap_or(loss), conversation, permit),
            };
        }
    }
    match tokio::time::timeout(target.settings.first_byte_timeout, conversation.read_head()).await {
        Ok(Ok(head)) => {
            permit.written();
            Attempted::Answered(Answered { head, conversation, permit })
        }
        Ok(Err(loss)) => lost(loss, conversation, permit),
        Err(_elapsed) => Attempted::NoFirstByte(permit),
    }
}

fn request_head(call: &Call, target: &Target, permit: &Permit) -> RequestHead {
    let mut headers = call.headers.clone();
    headers.remove(EXPECT); // answered by us
    headers.insert(HOST, target.host.clone());
    if let Some(bearer) = target.authorization(permit.lane().key) {
        headers.insert(AUTHORIZATION, bearer.clone());
    }
    frame(&mut headers, call);
    if call.upgrade == Upgrade::WebSocket {
        headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
        headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
    }
    RequestHead {
        method: call.method.clone(),
        target: openai::upstream_path(&call.target, &target.settings.base_url.path),
        headers,
    }
}

/// Says how the body is framed, anew: what the client's hop said holds only there.
fn frame(headers: &mut http::HeaderMap, call: &Call) {
    let had_length = headers.remove(CONTENT_LENGTH).is_some();
    match &call.body {
        // A body of no bytes is framed only where the client framed it, or where servers expect it.
        CallBody::Whole(bytes) if bytes.is_empty() && !had_length && is_bodiless(&call.method) => {}
        CallBody::Whole(bytes) => {
            headers.insert(CONTENT_LENGTH, bytes.len().into());
        }
        CallBody::Stream(body) => match body.length {
            Some(length) => {
                headers.insert(CONTENT_LENGTH, length.into());
            }
            None => {
                headers.insert(TRANSFER_ENCODING, HeaderValue::from_static("chunked"));
            }
        },
    }
}

fn is_bodiless(method: &http::Method) -> bool {
    !matches!(*method, http::Method::POST | http::Method::PUT | http::Method::PATCH)
}
