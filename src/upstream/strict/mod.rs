//! What a provider's bytes must be before anyone reads them as answers of HTTP/1.1: a strict checker, no parser.
//!
//! pingora reads what others refuse: folded fields, two framings, a chunk size without digits, which it takes for zero and
//! so half an answer for a whole one. Whoever is wrong about where an answer ends takes its rest for the next answer. So
//! what is doubtful counts as lost, and its connection is never used again.
//!
//! More is let through than of requests: a provider is not our adversary, and its odd ways are its clients' business.

mod head;
#[cfg(test)]
mod tests;

use self::head::{Body, Head};
use crate::headers::grammar::line::{self, Line, Taken};
use crate::headers::grammar::{chunk, skip};

/// What a head may have in all.
const HEAD_MAX: usize = 64 * 1024;
/// How many fields a head may have.
const FIELDS_MAX: usize = 128;
/// How many 1xx may come before an answer.
const INTERIM_MAX: usize = 16;

/// Why an answer counts as lost; for the log, and says nothing of the content.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub(super) struct Doubt(&'static str);

impl From<&'static str> for Doubt {
    fn from(reason: &'static str) -> Self {
        Self(reason)
    }
}

/// The checker of one connection to a provider.
#[derive(Debug, Default)]
pub(super) struct Answers {
    state: State,
    /// The beginning of a line whose end has not come.
    line: Line,
    head: Head,
    is_head_request: bool,
    /// The 1xx that came before the answer.
    interim: usize,
}

/// What the next byte belongs to.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum State {
    /// To nothing: no request was sent since the last answer.
    #[default]
    Idle,
    StatusLine,
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
    /// To an answer that ends with the connection, or to another protocol after 101.
    Rest,
    Doubtful(Doubt),
}

impl Answers {
    /// Looks at what is sent. The first bytes after an answer begin a request, with its method.
    ///
    /// # Errors
    /// When nothing that comes could be believed.
    pub(super) fn sends(&mut self, bytes: &[u8]) -> Result<(), Doubt> {
        match self.state {
            State::Idle => {
                let is_head_request = bytes.starts_with(b"HEAD ");
                *self = Self { state: State::StatusLine, is_head_request, ..Self::default() };
                Ok(())
            }
            State::Doubtful(doubt) => Err(doubt),
            _ => Ok(()),
        }
    }

    /// Looks at the next bytes that came. Whatever follows a doubt is doubtful.
    ///
    /// # Errors
    /// How many of `bytes` are sound, and what is wrong with those behind them.
    pub(super) fn push(&mut self, bytes: &[u8]) -> Result<(), (usize, Doubt)> {
        let mut seen = 0;
        while seen < bytes.len() {
            match self.step(&bytes[seen..]) {
                Ok(used) => seen += used,
                Err(doubt) => {
                    *self = Self { state: State::Doubtful(doubt), ..Self::default() };
                    return Err((seen, doubt));
                }
            }
        }
        Ok(())
    }

    /// What was found wrong before.
    pub(super) fn doubt(&self) -> Option<Doubt> {
        if let State::Doubtful(doubt) = self.state { Some(doubt) } else { None }
    }

    /// Takes in at least one of the bytes, of which there is at least one.
    fn step(&mut self, bytes: &[u8]) -> Result<usize, Doubt> {
        match self.state {
            State::Idle => Err("bytes that belong to no answer".into()),
            State::Body { left } => {
                let (used, left) = skip(bytes, left);
                self.state = if left == 0 { State::Idle } else { State::Body { left } };
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
                    _ => return Err("a chunk that does not end where its size says".into()),
                };
                Ok(1)
            }
            State::Rest => Ok(bytes.len()),
            State::Doubtful(doubt) => Err(doubt),
            State::StatusLine | State::Fields | State::ChunkSize | State::Trailers => self.line(bytes),
        }
    }

    /// Takes in bytes up to the end of the line, and judges the line when it has come to its end.
    fn line(&mut self, bytes: &[u8]) -> Result<usize, Doubt> {
        match self.line.take(bytes, self.line_max())? {
            Taken::Whole(line, used) => self.judge(&line).map(|()| used),
            Taken::Part(used) => Ok(used),
            Taken::TooLong => Err(self.too_long()),
        }
    }

    /// How long the line at hand may be, its CRLF included.
    fn line_max(&self) -> usize {
        if self.state == State::ChunkSize { chunk::LINE_MAX } else { HEAD_MAX - self.head.size }
    }

    fn too_long(&self) -> Doubt {
        match self.state {
            State::ChunkSize => "the line of a chunk size is too long".into(),
            State::Trailers => "trailers of more than 64 KiB".into(),
            _ => "a head of more than 64 KiB".into(),
        }
    }

    /// Judges a line, CRLF included.
    fn judge(&mut self, line: &[u8]) -> Result<(), Doubt> {
        let text = &line[..line.len() - line::CRLF];
        match self.state {
            State::ChunkSize => {
                // Some servers fill the line up with spaces.
                let text = text.trim_ascii_end();
                self.state = match chunk::size(text)? {
                    0 => State::Trailers,
                    left => State::ChunkData { left },
                };
            }
            State::Trailers if text.is_empty() => self.ends(State::Idle),
            State::Trailers => self.head.take_trailer(line)?,
            State::Fields if text.is_empty() => self.end_of_head()?,
            State::Fields => self.head.take_field(line)?,
            _ => {
                self.head = Head::begin(line)?;
                self.state = State::Fields;
            }
        }
        Ok(())
    }

    fn end_of_head(&mut self) -> Result<(), Doubt> {
        match self.head.body(self.is_head_request)? {
            Body::Interim => {
                self.interim += 1;
                if self.interim > INTERIM_MAX {
                    return Err("too many interim answers".into());
                }
                self.ends(State::StatusLine);
            }
            Body::Length(0) => self.ends(State::Idle),
            Body::Length(left) => self.ends(State::Body { left }),
            Body::Chunked => self.ends(State::ChunkSize),
            Body::Rest => self.ends(State::Rest),
        }
        Ok(())
    }

    /// Nothing that the head said is needed any more.
    fn ends(&mut self, next: State) {
        self.head = Head::default();
        self.state = next;
    }
}
