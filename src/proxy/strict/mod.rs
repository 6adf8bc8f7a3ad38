//! What a client's bytes must be before anyone reads them as HTTP/1.1: a strict checker, no parser.
//!
//! It sees every byte of a connection before pingora does, and refuses whatever two readers could understand differently
//! (RFC 9112 on framing, RFC 9110 on fields). What it lets through has one reading, so that nothing behind it can disagree
//! about where a request ends. It repairs nothing and copies nothing, but for a line that comes in parts.
//!
//! Invariants:
//! - The verdict depends on the bytes, not on how they were cut into reads.
//! - Once refused, always refused: nobody knows where the next request would begin.
//! - A body of known length costs nothing per byte. Between requests a connection holds no memory but the state itself.

mod head;
mod target;
#[cfg(test)]
mod tests;

use self::head::{Body, Head};
use crate::headers::grammar::line::{self, Line, Taken};
use crate::headers::grammar::{chunk, skip};

/// What a request line may have, its CRLF included: longer ones are cut down by common servers, too.
const REQUEST_LINE_MAX: usize = 16 * 1024;
/// What a head may have in all.
const HEAD_MAX: usize = 64 * 1024;
/// How many fields a head may have.
const FIELDS_MAX: usize = 100;
/// What the trailers may have in all.
const TRAILERS_MAX: usize = 8 * 1024;
/// How many trailers there may be.
const TRAILER_FIELDS_MAX: usize = 32;

/// Checks a request target that did not come by HTTP/1.1, and will go on by it.
///
/// # Errors
/// What is wrong with it.
pub(super) fn check_target(method: &str, target: &str) -> Result<(), &'static str> {
    target::authority_of(method.as_bytes(), target.as_bytes()).map(|_| ())
}

/// Why the bytes are refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Violation {
    /// For the client: what is wrong.
    pub(super) reason: &'static str,
    pub(super) kind: Kind,
}

/// Which status tells it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// 400.
    BadRequest,
    /// 414.
    UriTooLong,
    /// 431.
    HeadTooLarge,
}

impl From<&'static str> for Violation {
    fn from(reason: &'static str) -> Self {
        Self { reason, kind: Kind::BadRequest }
    }
}

/// The checker of one connection.
#[derive(Debug, Default)]
pub(super) struct Strict {
    state: State,
    /// The beginning of a line whose end has not come.
    line: Line,
    head: Head,
}

/// What the next byte belongs to.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum State {
    #[default]
    RequestLine,
    /// One empty line came before the request line, as some old clients end their bodies with it (RFC 9112, 2.2).
    RequestLineAfterBlank,
    Fields,
    Body {
        left: u64,
    },
    ChunkSize,
    ChunkData {
        left: u64,
    },
    ChunkEnd {
        has_cr: bool,
    },
    Trailers,
    /// A handshake waits for its answer: what comes before it belongs to neither protocol.
    Handshake,
    Refused(Violation),
}

impl Strict {
    /// Looks at the next bytes of the connection. Whatever follows a violation is refused as well.
    ///
    /// # Errors
    /// How many of `bytes` belong to earlier, sound messages, and what is wrong with those behind them.
    pub(super) fn push(&mut self, bytes: &[u8]) -> Result<(), (usize, Violation)> {
        let (mut seen, mut passed) = (0, 0);
        while seen < bytes.len() {
            match self.step(&bytes[seen..]) {
                Ok(used) => seen += used,
                Err(violation) => {
                    *self = Self { state: State::Refused(violation), ..Self::default() };
                    return Err((passed, violation));
                }
            }
            if self.is_between_requests() {
                passed = seen;
            }
        }
        if let State::Refused(violation) = self.state { Err((0, violation)) } else { Ok(()) }
    }

    /// Whether the next byte begins a new request.
    pub(super) fn is_between_requests(&self) -> bool {
        matches!(self.state, State::RequestLine | State::RequestLineAfterBlank) && self.line.is_empty()
    }

    /// Whether a WebSocket handshake waits for its answer. No byte may come before [`Self::declined`];
    /// after a 101 nobody asks this reader any more.
    pub(super) fn is_handshake(&self) -> bool {
        self.state == State::Handshake
    }

    /// The handshake was answered, and not with 101: requests may follow.
    pub(super) fn declined(&mut self) {
        if self.is_handshake() {
            self.state = State::RequestLine;
        }
    }

    /// Takes in at least one of the bytes, of which there is at least one.
    fn step(&mut self, bytes: &[u8]) -> Result<usize, Violation> {
        match self.state {
            State::Body { left } => {
                let (used, left) = skip(bytes, left);
                self.state = if left == 0 { State::RequestLine } else { State::Body { left } };
                Ok(used)
            }
            State::ChunkData { left } => {
                let (used, left) = skip(bytes, left);
                self.state = if left == 0 { State::ChunkEnd { has_cr: false } } else { State::ChunkData { left } };
                Ok(used)
            }
            State::ChunkEnd { has_cr } => {
                self.state = match (has_cr, bytes.first()) {
                    (false, Some(b'\r')) => State::ChunkEnd { has_cr: true },
                    (true, Some(b'\n')) => State::ChunkSize,
                    _ => return Err("a chunk has more or less bytes than its size says, or no CRLF after them".into()),
                };
                Ok(1)
            }
            State::Handshake => Err("bytes came behind a WebSocket handshake before it was answered".into()),
            State::Refused(violation) => Err(violation),
            State::RequestLine | State::RequestLineAfterBlank | State::Fields | State::ChunkSize | State::Trailers => {
                self.line(bytes)
            }
        }
    }

    /// Takes in bytes up to the end of the line, and judges the line when it has come to its end.
    fn line(&mut self, bytes: &[u8]) -> Result<usize, Violation> {
        match self.line.take(bytes, self.line_max())? {
            Taken::Whole(line, used) => self.judge(&line).map(|()| used),
            Taken::Part(used) => Ok(used),
            Taken::TooLong => Err(self.too_long()),
        }
    }

    /// How long the line at hand may be, its CRLF included.
    fn line_max(&self) -> usize {
        match self.state {
            State::Fields => HEAD_MAX - self.head.size,
            State::Trailers => TRAILERS_MAX - self.head.size,
            State::ChunkSize => chunk::LINE_MAX,
            _ => REQUEST_LINE_MAX,
        }
    }

    fn too_long(&self) -> Violation {
        match self.state {
            State::Fields => Violation { reason: "the request head is larger than 64 KiB", kind: Kind::HeadTooLarge },
            State::Trailers => Violation { reason: "the trailers are larger than 8 KiB", kind: Kind::HeadTooLarge },
            State::ChunkSize => "the line of a chunk size is too long".into(),
            _ => Violation { reason: "the request line is longer than 16 KiB", kind: Kind::UriTooLong },
        }
    }

    /// Judges a line, CRLF included.
    fn judge(&mut self, line: &[u8]) -> Result<(), Violation> {
        let text = &line[..line.len() - line::CRLF];
        match self.state {
            State::ChunkSize => {
                self.state = match chunk::size(text)? {
                    0 => State::Trailers,
                    left => State::ChunkData { left },
                };
            }
            State::Trailers if text.is_empty() => self.end_of_request(State::RequestLine),
            State::Trailers => {
                self.head.size += line.len();
                self.head.take_trailer(text)?;
            }
            State::Fields if text.is_empty() => match self.head.body()? {
                Body::Length(0) => self.end_of_request(State::RequestLine),
                Body::Length(left) => self.end_of_request(State::Body { left }),
                Body::Chunked => self.end_of_request(State::ChunkSize),
                Body::Handshake => self.end_of_request(State::Handshake),
            },
            State::Fields => {
                self.head.size += line.len();
                self.head.take_field(text)?;
            }
            State::RequestLine if text.is_empty() => self.state = State::RequestLineAfterBlank,
            _ if text.is_empty() => return Err("more than one empty line stands before the request line".into()),
            _ => {
                self.head = Head::begin(text)?;
                self.head.size = line.len();
                self.state = State::Fields;
            }
        }
        Ok(())
    }

    /// Nothing that the head said is needed any more.
    fn end_of_request(&mut self, next: State) {
        self.head = Head::default();
        self.state = next;
    }
}
