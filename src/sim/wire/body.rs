//! Bodies, taken apart as their bytes come.

use bytes::{Buf, Bytes, BytesMut};

use super::WireError;

const LINE_BYTES_MAX: usize = 4 * 1024;

/// How a body ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::sim) enum Framing {
    /// There is none.
    Empty,
    /// After so many bytes.
    Length(u64),
    /// With the chunk of length zero and its trailers.
    Chunked,
    /// With the connection.
    UntilClose,
}

/// A body that is being read.
#[derive(Debug)]
pub(in crate::sim) struct Body(State);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Plain(u64),
    UntilClose,
    ChunkSize,
    ChunkData(u64),
    ChunkEnd,
    Trailers,
    Done,
}

/// What the bytes at hand gave.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// Some of the body.
    Piece(Bytes),
    /// Nothing yet: more bytes are needed.
    More,
    /// The body is complete.
    Done,
}

impl Body {
    pub(in crate::sim) fn new(framing: Framing) -> Self {
        Self(match framing {
            Framing::Empty => State::Done,
            Framing::Length(length) => State::Plain(length),
            Framing::Chunked => State::ChunkSize,
            Framing::UntilClose => State::UntilClose,
        })
    }

    /// Whether the end of the connection is a proper end of this body.
    pub(super) fn ends_with_connection(&self) -> bool {
        self.0 == State::UntilClose
    }

    /// Takes the next piece out of what was read, leaving there what follows the body.
    pub(super) fn take(&mut self, ahead: &mut BytesMut) -> Result<Step, WireError> {
        loop {
            self.0 = match self.0 {
                State::Done | State::Plain(0) => return Ok(Step::Done),
                State::ChunkData(0) => State::ChunkEnd,
                State::Plain(_) | State::ChunkData(_) | State::UntilClose if ahead.is_empty() => return Ok(Step::More),
                State::UntilClose => return Ok(Step::Piece(ahead.split().freeze())),
                State::Plain(left) => {
                    let piece = split_at_most(ahead, left);
                    self.0 = State::Plain(left - piece.len() as u64);
                    return Ok(Step::Piece(piece));
                }
                State::ChunkData(left) => {
                    let piece = split_at_most(ahead, left);
                    self.0 = State::ChunkData(left - piece.len() as u64);
                    return Ok(Step::Piece(piece));
                }
                State::ChunkSize => {
                    let Some(line) = line(ahead)? else { return Ok(Step::More) };
                    match chunk_size(&line)? {
                        0 => State::Trailers,
                        size => State::ChunkData(size),
                    }
                }
                State::ChunkEnd => match line(ahead)? {
                    None => return Ok(Step::More),
                    Some(line) if line.is_empty() => State::ChunkSize,
                    Some(_) => return Err(WireError::Malformed("a chunk is longer than its size")),
                },
                State::Trailers => match line(ahead)? {
                    None => return Ok(Step::More),
                    Some(line) if line.is_empty() => State::Done,
                    Some(_) => State::Trailers,
                },
            };
        }
    }
}

fn split_at_most(ahead: &mut BytesMut, most: u64) -> Bytes {
    let length = usize::try_from(most).map_or(ahead.len(), |most| most.min(ahead.len()));
    ahead.split_to(length).freeze()
}

/// The next line without its CRLF, if it is complete.
fn line(ahead: &mut BytesMut) -> Result<Option<Bytes>, WireError> {
    let Some(end) = ahead.iter().position(|byte| *byte == b'\n') else {
        return if ahead.len() > LINE_BYTES_MAX { Err(WireError::TooLarge("a chunk's line")) } else { Ok(None) };
    };
    let Some(line) = ahead[..end].strip_suffix(b"\r") else { return Err(WireError::Malformed("a bare line feed")) };
    let line = Bytes::copy_from_slice(line);
    ahead.advance(end + 1);
    Ok(Some(line))
}

fn chunk_size(line: &[u8]) -> Result<u64, WireError> {
    let digits = line.split(|byte| *byte == b';').next().unwrap_or(line).trim_ascii();
    let digits = std::str::from_utf8(digits).ok().filter(|text| text.bytes().all(|byte| byte.is_ascii_hexdigit()));
    let size = digits.and_then(|digits| u64::from_str_radix(digits, 16).ok());
    size.ok_or(WireError::Malformed("a chunk's size is not a number"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const CHUNKED: &[u8] = b"4\r\nWiki\r\n6;x=y\r\npedia \r\nD\r\nin\r\n\r\nchunks.\r\n0\r\nTrailer: 1\r\n\r\nNEXT";

    fn read_in_pieces_of(size: usize) -> (Vec<u8>, Vec<u8>) {
        let (mut body, mut ahead, mut whole) = (Body::new(Framing::Chunked), BytesMut::new(), Vec::new());
        let mut pieces = CHUNKED.chunks(size);
        loop {
            match body.take(&mut ahead).expect("well formed") {
                Step::Piece(piece) => whole.extend_from_slice(&piece),
                Step::More => ahead.extend_from_slice(pieces.next().expect("the body ends before its bytes do")),
                Step::Done => break,
            }
        }
        pieces.for_each(|piece| ahead.extend_from_slice(piece));
        (whole, ahead.to_vec())
    }

    #[test]
    fn chunks_read_the_same_wherever_the_bytes_are_split() {
        for size in 1..=CHUNKED.len() {
            let (whole, rest) = read_in_pieces_of(size);
            assert_eq!((whole.as_slice(), rest.as_slice()), (&b"Wikipedia in\r\n\r\nchunks."[..], &b"NEXT"[..]));
        }
    }

    #[test]
    fn malformed_chunks_are_refused() {
        for wrong in ["x\r\n", "-1\r\n", "\r\n", "1\nab", "2\r\nabc\r\n", "fffffffffffffffff\r\n"] {
            let (mut body, mut ahead) = (Body::new(Framing::Chunked), BytesMut::from(wrong));
            let outcome = std::iter::repeat_with(|| body.take(&mut ahead)).take(3).find(Result::is_err);
            assert!(outcome.is_some(), "{wrong:?}");
        }
    }

    #[test]
    fn plain_body_leaves_what_follows_it() {
        let (mut body, mut ahead) = (Body::new(Framing::Length(3)), BytesMut::from("abcdef"));
        assert_eq!(body.take(&mut ahead).unwrap(), Step::Piece(Bytes::from_static(b"abc")));
        assert_eq!(body.take(&mut ahead).unwrap(), Step::Done);
        assert_eq!(&ahead[..], b"def");
    }
}
