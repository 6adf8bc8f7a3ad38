//! Where one server-sent event ends and the next begins, without touching a byte.

use std::borrow::Cow;
use std::mem;

use bytes::{Bytes, BytesMut};

/// An event longer than this is passed on in parts as it comes, rather than held until whole.
pub const EVENT_MAX: usize = 1 << 20;

const BOM: &[u8] = b"\xEF\xBB\xBF";

/// What a [`Framer`] yields. All bytes yielded, one after the other, are the bytes pushed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Frame {
    /// A whole event with the blank line that ends it; or a comment line or blank line outside of any event.
    Event(Bytes),
    /// A piece of an event that is too long to be held, possibly empty; `last` when the event ends with it.
    Part {
        /// The piece.
        bytes: Bytes,
        /// The event ends with this piece.
        last: bool,
    },
}

impl Frame {
    /// The original bytes.
    #[must_use]
    pub const fn bytes(&self) -> &Bytes {
        match self {
            Self::Event(bytes) | Self::Part { bytes, .. } => bytes,
        }
    }

    /// The original bytes, to keep or send.
    #[must_use]
    pub fn into_bytes(self) -> Bytes {
        match self {
            Self::Event(bytes) | Self::Part { bytes, .. } => bytes,
        }
    }
}

/// Cuts a byte stream into events as the HTML standard defines them: lines end with LF, CR or CRLF, a blank line ends
/// an event, a byte order mark may come first. Where the chunks of the network end makes no difference to the events.
///
/// A comment line between events is yielded by itself, so that a heartbeat is not held back until the next event. An
/// event that lies in one chunk is a slice of it; only what straddles chunks is copied, and no more than [`EVENT_MAX`]
/// bytes are ever held.
#[derive(Debug)]
pub struct Framer {
    /// The unread rest of the last chunk pushed.
    chunk: Bytes,
    /// The beginning of the current event, from earlier chunks.
    held: BytesMut,
    /// The current event has outgrown `event_max` and parts of it have been yielded.
    in_parts: bool,
    event_max: usize,
    scan: Scan,
}

impl Default for Framer {
    fn default() -> Self {
        Self::with_event_max(EVENT_MAX)
    }
}

impl Framer {
    fn with_event_max(event_max: usize) -> Self {
        Self { chunk: Bytes::new(), held: BytesMut::new(), in_parts: false, event_max, scan: Scan::default() }
    }

    /// Takes the next chunk and yields what it completes. Whoever stops early loses nothing: the next call goes on.
    pub fn push(&mut self, chunk: Bytes) -> Frames<'_> {
        if self.chunk.is_empty() {
            self.chunk = chunk;
        } else {
            self.chunk = [mem::take(&mut self.chunk), chunk].concat().into();
        }
        Frames(self)
    }

    /// The stream has ended: what is left over. An event that lacks its blank line comes as a part that is not the
    /// last one, since clients do not dispatch it.
    #[must_use]
    pub fn finish(&mut self) -> Option<Frame> {
        let whole = self.scan.ends_here() && !self.in_parts;
        let mut rest = self.held.split();
        rest.extend_from_slice(&mem::take(&mut self.chunk));
        let rest = rest.freeze();
        match (rest.is_empty(), whole) {
            (true, _) => None,
            (false, true) => Some(Frame::Event(rest)),
            (false, false) => Some(Frame::Part { bytes: rest, last: false }),
        }
    }

    fn next_frame(&mut self) -> Option<Frame> {
        let mut at = 0;
        while let Some(unread) = self.chunk.get(at..).filter(|unread| !unread.is_empty()) {
            at += self.scan.skippable(unread);
            let Some(byte) = self.chunk.get(at) else { break };
            match self.scan.step(*byte) {
                Step::Inside => at += 1,
                Step::EndsAfter => return Some(self.cut(at + 1)),
                Step::EndedBefore => return Some(self.cut(at)),
            }
        }
        self.hold()
    }

    /// The event that ends `at` bytes into the chunk.
    fn cut(&mut self, at: usize) -> Frame {
        let tail = self.chunk.split_to(at);
        let bytes = if self.held.is_empty() {
            tail
        } else {
            self.held.extend_from_slice(&tail);
            self.held.split().freeze()
        };
        if mem::take(&mut self.in_parts) || bytes.len() > self.event_max {
            return Frame::Part { bytes, last: true };
        }
        Frame::Event(bytes)
    }

    /// The chunk ends inside an event: keeps what came of it, or passes it on when it is too long.
    fn hold(&mut self) -> Option<Frame> {
        let rest = mem::take(&mut self.chunk);
        if rest.is_empty() {
            return None;
        }
        if self.in_parts {
            return Some(Frame::Part { bytes: rest, last: false });
        }
        self.held.extend_from_slice(&rest);
        self.in_parts = self.held.len() > self.event_max;
        self.in_parts.then(|| Frame::Part { bytes: self.held.split().freeze(), last: false })
    }
}

/// The events that a push completed.
#[derive(Debug)]
pub struct Frames<'a>(&'a mut Framer);

impl Iterator for Frames<'_> {
    type Item = Frame;

    fn next(&mut self) -> Option<Frame> {
        self.0.next_frame()
    }
}

/// What a byte means for the event it stands in.
enum Step {
    Inside,
    EndsAfter,
    /// The event ended one byte earlier. The byte belongs to the next one and is to be fed again.
    EndedBefore,
}

/// The state of the scan, fed byte by byte and therefore blind to chunks.
///
/// A CR is the difficulty: an LF after it belongs to the same line end, but may come much later or never. Waiting for
/// it is right for CRLF, where it is already under way. A stream that has ended its last line with a bare CR is not
/// made to wait.
#[derive(Debug, Default)]
struct Scan {
    line: Line,
    /// The current event has a line that is no comment.
    has_field: bool,
    /// The last byte was a CR.
    cr: Option<Cr>,
    /// The last line end that is known in full was a CR alone.
    bare_cr: bool,
    /// How much of a byte order mark has been seen at the start of the stream; past its length: none is looked for.
    bom_seen: usize,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum Line {
    #[default]
    Blank,
    Comment,
    Field,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Cr {
    EndsLine,
    /// The event ends here, unless an LF follows and is part of it.
    EndsEvent,
}

impl Scan {
    fn step(&mut self, byte: u8) -> Step {
        if let Some(cr) = self.cr.take() {
            self.bare_cr = byte != b'\n';
            match (cr, self.bare_cr) {
                (Cr::EndsLine, false) => return Step::Inside,
                (Cr::EndsEvent, false) => return Step::EndsAfter,
                (Cr::EndsEvent, true) => return Step::EndedBefore,
                (Cr::EndsLine, true) => {}
            }
        }
        if self.is_bom(byte) {
            return Step::Inside;
        }
        match byte {
            b'\n' if self.end_line() => Step::EndsAfter,
            b'\n' => Step::Inside,
            b'\r' => {
                let (cr, step) = match (self.end_line(), self.bare_cr) {
                    (true, true) => (Cr::EndsLine, Step::EndsAfter),
                    (true, false) => (Cr::EndsEvent, Step::Inside),
                    (false, _) => (Cr::EndsLine, Step::Inside),
                };
                self.cr = Some(cr);
                step
            }
            _ => {
                if self.line == Line::Blank {
                    self.line = if byte == b':' { Line::Comment } else { Line::Field };
                }
                Step::Inside
            }
        }
    }

    /// How many bytes at the front of `unread` cannot change anything: those of a line that has begun, up to its end.
    fn skippable(&self, unread: &[u8]) -> usize {
        if self.line == Line::Blank || self.cr.is_some() {
            return 0;
        }
        unread.iter().position(|byte| matches!(byte, b'\n' | b'\r')).unwrap_or(unread.len())
    }

    /// The event is complete but for an LF that might have followed.
    fn ends_here(&self) -> bool {
        self.cr == Some(Cr::EndsEvent)
    }

    /// A line has ended. Does the event, or the comment outside of any event, end with it?
    fn end_line(&mut self) -> bool {
        match mem::take(&mut self.line) {
            Line::Blank => {
                self.has_field = false;
                true
            }
            Line::Comment => !self.has_field,
            Line::Field => {
                self.has_field = true;
                false
            }
        }
    }

    fn is_bom(&mut self, byte: u8) -> bool {
        if BOM.get(self.bom_seen) == Some(&byte) {
            self.bom_seen += 1;
            return true;
        }
        if (1..BOM.len()).contains(&self.bom_seen) {
            self.line = Line::Field; // half a mark is no mark but the beginning of a line
        }
        self.bom_seen = BOM.len();
        false
    }
}

/// A read-only view of one event's bytes.
#[derive(Debug, Clone, Copy)]
pub struct Event<'a>(&'a [u8]);

impl<'a> Event<'a> {
    /// Views the bytes of an event, as a [`Framer`] yields them.
    #[must_use]
    pub fn new(bytes: &'a [u8]) -> Self {
        Self(bytes.strip_prefix(BOM).unwrap_or(bytes))
    }

    /// The values of all `data` fields, joined by LF. Borrowed where there is only one, as nearly always.
    #[must_use]
    pub fn data(self) -> Cow<'a, [u8]> {
        let mut values = self.values(b"data");
        let mut data = Cow::Borrowed(values.next().unwrap_or_default());
        for value in values {
            let data = data.to_mut();
            data.push(b'\n');
            data.extend_from_slice(value);
        }
        data
    }

    /// The value of the last `event` field, unless it is empty.
    #[must_use]
    pub fn event_type(self) -> Option<&'a str> {
        let value = self.values(b"event").last()?;
        std::str::from_utf8(value).ok().filter(|value| !value.is_empty())
    }

    /// There is no field in it: only comments and blank lines. A client sees nothing of it.
    #[must_use]
    pub fn is_comment_only(self) -> bool {
        self.lines().all(|line| line.is_empty() || line.starts_with(b":"))
    }

    fn values(self, field: &'static [u8]) -> impl Iterator<Item = &'a [u8]> {
        self.lines().filter_map(move |line| match line.strip_prefix(field)? {
            [] => Some(&[][..]),
            [b':', b' ', value @ ..] | [b':', value @ ..] => Some(value),
            _ => None,
        })
    }

    /// The lines without their ends. A CRLF gives an empty line more, which means nothing here.
    fn lines(self) -> impl Iterator<Item = &'a [u8]> {
        self.0.split(|byte| matches!(byte, b'\n' | b'\r'))
    }
}

#[cfg(test)]
mod tests;
