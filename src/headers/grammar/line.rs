//! Where a line ends: at CRLF, and nothing else may look like an end.

use std::borrow::Cow;

use super::first_control;

/// How long the end of a line is.
pub(crate) const CRLF: usize = 2;

/// A line of which the beginning may have come before; that is all that is ever copied.
#[derive(Debug, Default)]
pub(crate) struct Line(Vec<u8>);

/// What [`Line::take`] made of the bytes.
pub(crate) enum Taken<'a> {
    /// The line is whole, CRLF included; so many of the bytes belong to it.
    Whole(Cow<'a, [u8]>, usize),
    /// All that was looked at, so many bytes, belongs to a line whose end has not come.
    Part(usize),
    /// It is longer than it may be.
    TooLong,
}

impl Line {
    /// Whether nothing of the next line has come.
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// What it holds, also when nothing of the next line has come.
    #[cfg(test)]
    pub(crate) fn capacity(&self) -> usize {
        self.0.capacity()
    }

    /// Takes in bytes up to the end of the line, which may have `max` bytes.
    ///
    /// # Errors
    /// As [`end`].
    pub(crate) fn take<'a>(&mut self, bytes: &'a [u8], max: usize) -> Result<Taken<'a>, &'static str> {
        let room = max - self.0.len();
        let within = &bytes[..bytes.len().min(room)];
        let Some(used) = end(&self.0, within)? else {
            if within.len() == room {
                return Ok(Taken::TooLong);
            }
            self.0.extend_from_slice(within);
            return Ok(Taken::Part(within.len()));
        };
        if self.0.is_empty() {
            return Ok(Taken::Whole(Cow::Borrowed(&within[..used]), used));
        }
        let mut line = std::mem::take(&mut self.0);
        line.extend_from_slice(&within[..used]);
        Ok(Taken::Whole(Cow::Owned(line), used))
    }
}

/// How many of `bytes` belong to the line that began with `carried`; `None` when its end has not come.
///
/// # Errors
/// When a control byte stands in it, which some would take for its end, and others not.
fn end(carried: &[u8], bytes: &[u8]) -> Result<Option<usize>, &'static str> {
    const BARE_CR: &str = "a CR without LF: lines end with CRLF";
    if carried.last() == Some(&b'\r') {
        return match bytes.first() {
            Some(b'\n') => Ok(Some(1)),
            Some(_) => Err(BARE_CR),
            None => Ok(None),
        };
    }
    let Some(at) = first_control(bytes) else { return Ok(None) };
    match (bytes[at], bytes.get(at + 1)) {
        (b'\r', Some(b'\n')) => Ok(Some(at + CRLF)),
        (b'\r', None) => Ok(None),
        (b'\r', Some(_)) => Err(BARE_CR),
        (b'\n', _) => Err("an LF without CR: lines end with CRLF"),
        _ => Err("a control character stands where text is expected"),
    }
}
