//! The data of an event, taken out and put back.

use std::borrow::Cow;

use bytes::{BufMut, Bytes, BytesMut};
use serde::de::IgnoredAny;

use super::Misfit;
use crate::openai::Event;

/// Without the byte order mark that a stream may begin with: what continues a stream begins none.
pub(super) fn without_bom(mut bytes: Bytes) -> Bytes {
    if bytes.starts_with(b"\xEF\xBB\xBF") {
        drop(bytes.split_to(3));
    }
    bytes
}

/// The data in one line. The line ends between its pieces are white space to JSON, which has none inside of strings.
pub(super) fn data(event: &[u8]) -> Result<Cow<'_, str>, Misfit> {
    match Event::new(event).data() {
        Cow::Borrowed(data) => std::str::from_utf8(data).map(Cow::Borrowed).map_err(|_| Misfit::Unreadable),
        Cow::Owned(data) => {
            // Unless it stands in a string, which would be none to the client.
            serde_json::from_slice::<IgnoredAny>(&data).map_err(|_| Misfit::Unreadable)?;
            String::from_utf8(data).map(|data| Cow::Owned(data.replace('\n', " "))).map_err(|_| Misfit::Unreadable)
        }
    }
}

/// The event with other data, in the place of the first of its data lines; its other fields and its line ends stay.
pub(super) fn with_data(event: &[u8], data: &str) -> Bytes {
    let mut out = BytesMut::with_capacity(event.len() + data.len());
    let mut is_written = false;
    let mut rest = event;
    while !rest.is_empty() {
        let end = rest.iter().position(|byte| matches!(byte, b'\n' | b'\r')).unwrap_or(rest.len());
        let line_end = match rest.get(end..) {
            Some([b'\r', b'\n', ..]) => end + 2,
            Some([_, ..]) => end + 1,
            _ => end,
        };
        let (line, next) = rest.split_at(line_end);
        rest = next;
        let is_data = line.strip_prefix(b"data").is_some_and(|after| matches!(after, [b':' | b'\r' | b'\n', ..] | []));
        if !is_data {
            out.put_slice(line);
        } else if !is_written {
            is_written = true;
            out.put_slice(if line.get(4..6) == Some(b": ") || line.get(4) != Some(&b':') {
                b"data: "
            } else {
                b"data:"
            });
            out.put_slice(data.as_bytes());
            out.put_slice(line.get(end..).unwrap_or_default());
        }
    }
    out.freeze()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_and_line_ends_stay() {
        for (event, expected) in [
            ("data: {}\n\n", "data: [1]\n\n"),
            ("data:{}\r\n\r\n", "data:[1]\r\n\r\n"),
            ("id: 1\rdata: {}\rretry: 5\r\r", "id: 1\rdata: [1]\rretry: 5\r\r"),
            (": hi\nevent: x\ndata: {\ndata: }\ndatax: 1\n\n", ": hi\nevent: x\ndata: [1]\ndatax: 1\n\n"),
            ("data\ndata: {}\n\n", "data: [1]\n\n"),
        ] {
            assert_eq!(with_data(event.as_bytes(), "[1]"), expected, "{event:?}");
        }
    }

    #[test]
    fn data_of_several_lines_comes_as_one() {
        assert_eq!(data(b"data: {\ndata: \"a\":1}\n\n").unwrap(), "{ \"a\":1}");
        assert_eq!(data(b"data: \xFF\n\n"), Err(Misfit::Unreadable));
        assert_eq!(data(b"data: {\"a\":\"b\ndata: c\"}\n\n"), Err(Misfit::Unreadable));
        assert_eq!(without_bom(Bytes::from_static(b"\xEF\xBB\xBFdata")), "data");
    }
}
