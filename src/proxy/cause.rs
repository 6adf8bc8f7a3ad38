//! Why a request gets no answer of a provider, and what becomes of its connection.

use super::strict::Violation;
use super::tunnel::Tunnel;
use crate::memory;
use crate::pipeline::{BadCall, Stranger};
use crate::upstream::Failure;

/// The client has left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Gone;

/// Why a request gets an answer of ours.
#[derive(Debug)]
pub(super) enum Refused {
    /// Not HTTP that can be forwarded safely.
    BadRequest(&'static str),
    /// What came is no HTTP that all readers understand alike.
    Unsound(Violation),
    /// One of our own header fields cannot be meant.
    BadCall(BadCall),
    /// Clients are configured, and this is none of them.
    Stranger(Stranger),
    /// The body is larger than `server.body_max`.
    TooLarge { body_max: u64 },
    /// There is no room for the body (`server.memory_max`).
    MemoryFull(memory::Full),
    /// The body made no progress for `server.body_timeout`.
    BodyTimeout,
    /// `server.connections_max` is reached.
    TooManyConnections,
    /// The client does not speak TLS, and the port speaks nothing else.
    NeedsTls,
    /// The pipeline has no answer.
    Failure(Failure, Asker),
}

/// Whose call failed: what to do about it depends on that.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Asker {
    /// It asked for a stream.
    pub(super) stream: bool,
    /// What its deadline was found by.
    pub(super) deadline_from: &'static str,
    /// How many calls waited when it was turned away.
    pub(super) waiting: u32,
    /// An operator has paused an upstream.
    pub(super) paused: bool,
    /// An upstream fails, so that calls wait for it to come back.
    pub(super) failing: bool,
}

impl Asker {
    /// Before it is known what stands in its way.
    pub(super) const fn of(stream: bool, deadline_from: &'static str) -> Self {
        Self { stream, deadline_from, waiting: 0, paused: false, failing: false }
    }
}

impl Refused {
    pub(super) const fn bad_request(why: &'static str) -> Self {
        Self::BadRequest(why)
    }

    /// What pingora could not parse. Its message quotes the wire and stays out.
    pub(super) const NOT_HTTP: Self =
        Self::BadRequest("the request head is not valid HTTP/1.1, or could be understood in two ways");
}

/// Why a request did not become a call.
pub(super) enum NotTaken {
    Gone(Gone),
    Refused(Refused),
}

impl From<Gone> for NotTaken {
    fn from(gone: Gone) -> Self {
        Self::Gone(gone)
    }
}

impl From<Refused> for NotTaken {
    fn from(refused: Refused) -> Self {
        Self::Refused(refused)
    }
}

/// What becomes of the connection.
#[derive(Debug)]
pub(super) enum After {
    /// It serves the next request.
    Keep,
    /// It is closed; what was written so far is all there is.
    Close,
    /// Its answer is complete, but the client still sends: it is closed when the client has heard us.
    Linger,
    /// It is a tunnel from here on; its 101 was written.
    Tunnel(Tunnel),
}
