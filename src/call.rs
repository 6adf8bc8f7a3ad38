//! A classified call: what every room is handed, whatever transport it came by.

use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderMap, Method};
use tokio::sync::mpsc;

use crate::ids::{CallId, ClientId, KeyId};
use crate::openai::Route;
use crate::time::{Duration, Instant};
use crate::units::Priority;

/// One request of a client, understood as far as order and recovery need it.
#[derive(Debug)]
pub struct Call {
    /// Names it in headers and logs.
    pub id: CallId,
    /// Who calls.
    pub client: ClientId,
    /// The key in its own Authorization, which goes through where the upstream has none of ours.
    pub key: KeyId,
    /// Its method.
    pub method: Method,
    /// Its target on the client port, path and query as they came.
    pub target: String,
    /// Its end-to-end header fields; hop-by-hop ones, `Host` and ours are taken out.
    pub headers: HeaderMap,
    /// Its body.
    pub body: CallBody,
    /// What else it asks the connection to become.
    pub upgrade: Upgrade,
    /// Its endpoint.
    pub route: Route,
    /// Whether it asks for a stream of events.
    pub stream: bool,
    /// Its client is kept company while it waits: it may be told that a stream follows before there is an answer, and has
    /// to hear of us as often as this.
    pub company: Option<Duration>,
    /// What its client wants if its stream breaks, where it says.
    pub mid_stream: Option<MidStream>,
    /// How many answers it asks for in one (`n`).
    pub choices: u64,
    /// How many answers its tokens are counted for.
    pub answers: u64,
    /// The most tokens one answer may have, if it says.
    pub max_tokens: Option<u64>,
    /// Whether it asks for a usage chunk at the end of its stream.
    pub include_usage: bool,
    /// The model it names.
    pub model: Option<Arc<str>>,
    /// Its class.
    pub priority: Priority,
    /// When it came.
    pub received: Instant,
    /// When it has waited long enough.
    pub deadline: Instant,
    /// What its deadline was found by: a header field or a setting, as its client or operator knows it.
    pub deadline_from: &'static str,
    /// How long its client waits for the next byte before it gives up, if it says.
    pub read_timeout: Option<Duration>,
}

impl Call {
    /// Whether sending it twice is harmless and possible: a generation or a read, and the whole body at hand.
    #[must_use]
    pub fn is_repeatable(&self) -> bool {
        let harmless = self.route.is_generation() || matches!(self.method, Method::GET | Method::HEAD);
        harmless && matches!(self.body, CallBody::Whole(_))
    }
}

/// What a client gets whose stream broke after its first event.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum MidStream {
    /// An SSE error event.
    Error,
    /// The rest, asked for with the partial answer and spliced on.
    Continue,
    /// The answer from its start, if the client asks for that.
    Restart,
}

impl MidStream {
    /// Reads the word for it.
    #[must_use]
    pub fn parse(word: &str) -> Option<Self> {
        match word.trim() {
            "error" => Some(Self::Error),
            "continue" => Some(Self::Continue),
            "restart" => Some(Self::Restart),
            _ => None,
        }
    }
}

/// What a call asks the connection to become.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Upgrade {
    /// Nothing; other offers than WebSocket are ignored.
    None,
    /// It is a WebSocket handshake: after a 101 the connection carries frames both ways.
    WebSocket,
}

/// The body of a call.
#[derive(Debug)]
pub enum CallBody {
    /// All of it, empty where there is none.
    Whole(Bytes),
    /// As it comes from the client, once.
    Stream(BodyStream),
}

impl CallBody {
    /// Bytes it holds while it waits.
    #[must_use]
    pub fn bytes_held(&self) -> u64 {
        match self {
            Self::Whole(bytes) => u64::try_from(bytes.len()).unwrap_or(u64::MAX),
            Self::Stream(_) => 0,
        }
    }
}

/// A request body under way. The sender's end says how it ended: it sends [`BodyPart::End`], or is dropped when the
/// client left in the middle.
#[derive(Debug)]
pub struct BodyStream {
    /// `Content-Length`, where the client told one; else it goes on chunked.
    pub length: Option<u64>,
    /// The parts, in order.
    pub parts: mpsc::Receiver<BodyPart>,
}

/// A part of a request body.
#[derive(Debug)]
pub enum BodyPart {
    /// The next bytes, never empty.
    Data(Bytes),
    /// It came to its end.
    End,
}
