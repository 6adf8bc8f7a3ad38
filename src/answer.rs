//! An answer on its way to whoever asked, and those who watch it pass.

use std::future::poll_fn;
use std::pin::pin;
use std::sync::{Arc, OnceLock};
use std::task::Poll;

use bytes::Bytes;
use http::header::{CONTENT_ENCODING, CONTENT_TYPE};
use http::{HeaderMap, StatusCode};
use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::mpsc;
use tokio_util::task::AbortOnDropHandle;

use crate::metrics::Outcome;
use crate::openai::Usage;
use crate::time::{Duration, Instant};

/// The media type of a stream of events.
pub const EVENT_STREAM: &str = "text/event-stream";

/// An error is read up to this size and for so long before it is judged, or told in other words.
pub const ERROR_MAX: usize = 256 * 1024;
/// See [`ERROR_MAX`].
pub const ERROR_TIME: Duration = Duration::from_secs(10);

/// Status and header fields of an answer; hop-by-hop fields are taken out.
#[derive(Debug, Clone)]
pub struct Head {
    /// The provider's status.
    pub status: StatusCode,
    /// The provider's end-to-end header fields.
    pub headers: HeaderMap,
}

impl Head {
    /// Whether its body is a stream of events that we can read.
    #[must_use]
    pub fn is_event_stream(&self) -> bool {
        self.status == StatusCode::OK && self.is_readable(EVENT_STREAM)
    }

    /// Whether its body is of a media type, and not encoded.
    #[must_use]
    pub fn is_readable(&self, media_type: &str) -> bool {
        self.is_of(media_type) && !self.is_encoded()
    }

    /// Whether its body is of a media type, readable or not.
    #[must_use]
    pub fn is_of(&self, media_type: &str) -> bool {
        let value = self.headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
        let essence = value.split(';').next().unwrap_or_default();
        essence.trim().eq_ignore_ascii_case(media_type)
    }

    /// Whether its body is encoded, such as by gzip.
    #[must_use]
    pub fn is_encoded(&self) -> bool {
        self.headers.contains_key(CONTENT_ENCODING)
    }
}

/// How an answer ended. Each has exactly one ending.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// It came to its proper end.
    Complete,
    /// The provider broke it off after a part of it had been passed on.
    Truncated(Cut),
    /// Whoever asked has left before the end.
    Abandoned,
    /// We ended it ourselves, because we shut down.
    ShutDown,
}

/// How a provider broke an answer off.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cut {
    /// Reset, or EOF inside the framing: abnormal closure (1006).
    Disconnected,
    /// A clean EOF, but the stream never said that it was over.
    Unfinished,
    /// No byte for longer than `upstreams.idle_timeout`.
    Stalled,
}

impl Cut {
    /// What to tell the client.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Disconnected => "the upstream connection broke in the middle of the answer",
            Self::Unfinished => "the upstream ended the stream before the answer was finished",
            Self::Stalled => "the upstream stopped sending in the middle of the answer",
        }
    }
}

/// Somebody who watches an answer pass: an account, later a cache or a flight.
pub trait Observer: Send {
    /// The next bytes of the body.
    fn chunk(&mut self, bytes: &Bytes);
    /// The ending, exactly once, also when the answer is merely dropped.
    fn end(self: Box<Self>, ending: Ending);
}

/// What has happened to a call so far; shared by its flight and its account.
#[derive(Debug, Clone, Default)]
pub struct Trace(Arc<Traced>);

#[derive(Default)]
struct Traced {
    facts: Mutex<Facts>,
    /// Looks where the call stands in line, once it has a place.
    look: OnceLock<Look>,
}

type Look = Box<dyn Fn() -> Option<Outlook> + Send + Sync>;

impl std::fmt::Debug for Traced {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Traced").field("facts", &self.facts).finish_non_exhaustive()
    }
}

/// What a waiting call can look forward to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Outlook {
    /// Its place in the order of service, from 1.
    pub position: u32,
    /// How long until its turn, if everything stays as it is; `None`: nobody can tell, since the upstream is paused.
    pub eta: Option<Duration>,
}

/// One limit and what is left of it, as clients are told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Standing {
    /// How much one period allows.
    pub limit: u64,
    /// How much could be used at once.
    pub left: u64,
    /// Until all of it is there again.
    pub reset: Duration,
}

/// The facts of a [`Trace`].
#[derive(Debug, Clone, Default)]
pub struct Facts {
    /// The upstream of the last attempt.
    pub upstream: Option<Arc<str>>,
    /// Attempts so far.
    pub attempts: u32,
    /// How often its stream went on after it had broken.
    pub recovered: u32,
    /// How long the exchanges took of which the stream broke before.
    pub broke_after: Duration,
    /// It did not get every permit at once.
    pub stood_in_line: bool,
    /// Time spent in line, over all attempts.
    pub waited: Duration,
    /// Time spent backing off, over all attempts.
    pub backed_off: Duration,
    /// When the last request was sent.
    pub sent: Option<Instant>,
    /// When the head of the delivered answer came.
    pub first_byte: Option<Instant>,
    /// When the exchange ended.
    pub upstream_ended: Option<Instant>,
    /// The tokens that the client was told the answer used: of one that was continued the question once, and all parts of
    /// the answer together; of one that began anew those of the last. What was billed is counted in the metrics, each part
    /// by itself. Habits learn from neither.
    pub usage: Option<Usage>,
    /// Requests of the client's scope when the last permit was granted, and tokens.
    pub requests: Option<Standing>,
    /// Tokens of the same.
    pub tokens: Option<Standing>,
    /// The status its client was told before there was an answer, so that it knows that somebody is working on it.
    pub told: Option<StatusCode>,
    /// What the client's side of the wire has to say of how it ended, where neither answer nor failure tell: then this
    /// is so.
    pub verdict: Option<(Outcome, String)>,
}

impl Trace {
    /// The facts as they stand.
    #[must_use]
    pub fn facts(&self) -> Facts {
        self.0.facts.lock().clone()
    }

    /// Notes a fact.
    pub fn note(&self, note: impl FnOnce(&mut Facts)) {
        note(&mut self.0.facts.lock());
    }

    /// Waits for a permit, and notes if it does not come at once. Dropping the future drops `permit`.
    pub async fn in_line<P: Future>(&self, permit: P) -> P::Output {
        let mut permit = pin!(permit);
        let at_once = poll_fn(|context| Poll::Ready(permit.as_mut().poll(context))).await;
        match at_once {
            Poll::Ready(told) => told,
            Poll::Pending => {
                self.note(|facts| facts.stood_in_line = true);
                permit.await
            }
        }
    }

    /// Whether its client was told a status before there was an answer.
    #[must_use]
    pub fn is_told(&self) -> bool {
        self.0.facts.lock().told.is_some()
    }

    /// Says how to look where the call stands in line. Once for a call: it has one place.
    pub fn watch(&self, look: impl Fn() -> Option<Outlook> + Send + Sync + 'static) {
        self.0.look.get_or_init(|| Box::new(look));
    }

    /// Where the call stands in line; `None` when it is in none.
    #[must_use]
    pub fn outlook(&self) -> Option<Outlook> {
        self.0.look.get().and_then(|look| look())
    }
}

/// What a flight sends to its subscriber.
#[derive(Debug)]
pub enum Chunk {
    /// The next bytes.
    Data(Bytes),
    /// The ending; nothing follows. A flight that is gone without one has been cut.
    End(Ending),
}

/// A connection on which a provider has switched protocols: bytes both ways until both sides are done. Dropping it closes
/// the connection, and counts as an abort.
pub trait Upgraded: AsyncRead + AsyncWrite + Send + Unpin {
    /// Both sides have said that they are done: closes the connection in order.
    fn closed(self: Box<Self>);
}

/// An answer. Dropping it cancels the exchange that still brings it, and tells the observers that it was abandoned.
pub struct Answer {
    /// Status and header fields.
    pub head: Head,
    /// What has happened to its call.
    pub trace: Trace,
    body: Body,
    ending: Option<Ending>,
    observers: Vec<Box<dyn Observer>>,
}

enum Body {
    Whole(Bytes),
    Stream {
        chunks: mpsc::Receiver<Chunk>,
        _flight: AbortOnDropHandle<()>,
    },
    /// `None` once it was taken.
    Upgraded(Option<Box<dyn Upgraded>>),
}

impl Answer {
    /// An answer of which everything has come.
    #[must_use]
    pub fn whole(head: Head, body: Bytes, trace: Trace) -> Self {
        Self { head, trace, body: Body::Whole(body), ending: None, observers: Vec::new() }
    }

    /// An answer whose flight still brings it.
    #[must_use]
    pub fn stream(head: Head, chunks: mpsc::Receiver<Chunk>, flight: AbortOnDropHandle<()>, trace: Trace) -> Self {
        let body = Body::Stream { chunks, _flight: flight };
        Self { head, trace, body, ending: None, observers: Vec::new() }
    }

    /// An answer that is a connection from here on.
    #[must_use]
    pub fn upgraded(head: Head, connection: Box<dyn Upgraded>, trace: Trace) -> Self {
        Self { head, trace, body: Body::Upgraded(Some(connection)), ending: None, observers: Vec::new() }
    }

    /// The connection that it is, once. Whoever takes it says with [`Answer::ended`] how it ended; what passes on it is
    /// not shown to the observers.
    pub fn take_upgraded(&mut self) -> Option<Box<dyn Upgraded>> {
        match &mut self.body {
            Body::Upgraded(connection) => connection.take(),
            Body::Whole(_) | Body::Stream { .. } => None,
        }
    }

    /// The connection that was taken has ended.
    pub fn ended(mut self, ending: Ending) {
        self.end(ending);
    }

    /// Adds an observer; it sees everything from here on.
    #[must_use]
    pub fn observed_by(mut self, observer: impl Observer + 'static) -> Self {
        self.observers.push(Box::new(observer));
        self
    }

    /// The length of the body, where all of it is at hand.
    #[must_use]
    pub fn length(&self) -> Option<usize> {
        match &self.body {
            Body::Whole(bytes) => Some(bytes.len()),
            Body::Stream { .. } | Body::Upgraded(_) => None,
        }
    }

    /// The next bytes; `None` at the end, which [`Answer::ending`] then tells. Dropping the future loses nothing.
    pub async fn next(&mut self) -> Option<Bytes> {
        if self.ending.is_some() {
            return None;
        }
        let chunk = match &mut self.body {
            Body::Whole(bytes) if bytes.is_empty() => Chunk::End(Ending::Complete),
            Body::Whole(bytes) => Chunk::Data(std::mem::take(bytes)),
            // It has no body: only what takes the connection can bring it to its end.
            Body::Upgraded(_) => Chunk::End(Ending::Abandoned),
            Body::Stream { chunks, .. } => {
                let lost = Chunk::End(Ending::Truncated(Cut::Disconnected));
                chunks.recv().await.unwrap_or(lost)
            }
        };
        match chunk {
            Chunk::Data(bytes) => {
                self.observers.iter_mut().for_each(|observer| observer.chunk(&bytes));
                Some(bytes)
            }
            Chunk::End(ending) => {
                self.end(ending);
                None
            }
        }
    }

    /// How it ended, once [`Answer::next`] has said that there is no more.
    #[must_use]
    pub fn ending(&self) -> Option<Ending> {
        self.ending
    }

    fn end(&mut self, ending: Ending) {
        self.ending = Some(ending);
        for observer in self.observers.drain(..) {
            observer.end(ending);
        }
    }
}

impl Drop for Answer {
    fn drop(&mut self) {
        if self.ending.is_none() {
            self.end(Ending::Abandoned);
        }
    }
}

impl std::fmt::Debug for Answer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Answer").field("head", &self.head).field("ending", &self.ending).finish_non_exhaustive()
    }
}
