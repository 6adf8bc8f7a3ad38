//! What the head of an answer must be before anyone believes it: pingora reads heads that others refuse, folded fields and
//! two framings among them, and whoever disagrees with it takes the end of one answer for the beginning of the next.
//!
//! More is let through than of requests: a provider is not our adversary, and its odd ways are its clients' business. But
//! what makes the length of an answer doubtful makes the answer a lost one.

use http::StatusCode;

use crate::headers::grammar::{field, first_control, length};

/// What a head may have in all.
const HEAD_MAX: usize = 64 * 1024;
/// How many fields a head may have.
const FIELDS_MAX: usize = 128;

/// Checks the bytes of a head, the empty line at its end included.
///
/// # Errors
/// What is wrong with it; for the log, and says nothing of the content.
pub(super) fn check_head(bytes: &[u8]) -> Result<(), &'static str> {
    if bytes.len() > HEAD_MAX {
        return Err("a head of more than 64 KiB");
    }
    let (line, mut rest) = first_line(bytes)?;
    let mut head = Head::begin(line)?;
    for _ in 0..=FIELDS_MAX {
        let (line, behind) = first_line(rest)?;
        if line.is_empty() {
            return if behind.is_empty() { head.check() } else { Err("a head with something behind its end") };
        }
        head.take_field(line)?;
        rest = behind;
    }
    Err("a head of more than 128 fields")
}

/// A line without its CRLF, and what stands behind it.
fn first_line(bytes: &[u8]) -> Result<(&[u8], &[u8]), &'static str> {
    let at = first_control(bytes).ok_or("a head without an end")?;
    match &bytes[at..] {
        [b'\r', b'\n', behind @ ..] => Ok((&bytes[..at], behind)),
        [b'\r', ..] => Err("a CR without LF in the head"),
        [b'\n', ..] => Err("an LF without CR in the head"),
        _ => Err("a control character in the head"),
    }
}

/// What a head has said of framing so far.
struct Head {
    status: StatusCode,
    is_http_1_0: bool,
    length: Option<u64>,
    is_chunked: bool,
}

impl Head {
    fn begin(line: &[u8]) -> Result<Self, &'static str> {
        let is_http_1_0 = line.starts_with(b"HTTP/1.0 ");
        let Some((b"HTTP/1.1 " | b"HTTP/1.0 ", rest)) = line.split_at_checked(9) else {
            return Err("a status line that is none of HTTP/1.1");
        };
        let (code, reason) = rest.split_at_checked(3).ok_or("a status line without a status")?;
        // The space behind the status may be missing where no reason follows, as it often is.
        if !matches!(reason, [] | [b' ', ..]) {
            return Err("a status of more than three digits");
        }
        let status = StatusCode::from_bytes(code).map_err(|_| "a status that is no number from 100 on")?;
        Ok(Self { status, is_http_1_0, length: None, is_chunked: false })
    }

    fn take_field(&mut self, line: &[u8]) -> Result<(), &'static str> {
        let (name, value) = field(line)?;
        if name.eq_ignore_ascii_case(b"content-length") {
            if self.length.replace(length(value)?).is_some() {
                return Err("several Content-Length fields");
            }
        } else if name.eq_ignore_ascii_case(b"transfer-encoding") {
            if !value.eq_ignore_ascii_case(b"chunked") {
                return Err("a Transfer-Encoding other than chunked");
            }
            if std::mem::replace(&mut self.is_chunked, true) {
                return Err("several Transfer-Encoding fields");
            }
        }
        Ok(())
    }

    fn check(&self) -> Result<(), &'static str> {
        let announces_body = self.is_chunked || self.length.is_some_and(|length| length > 0);
        if self.is_chunked && self.length.is_some() {
            return Err("Content-Length and Transfer-Encoding together");
        }
        if self.is_chunked && self.is_http_1_0 {
            return Err("Transfer-Encoding in HTTP/1.0");
        }
        if announces_body && (self.status.is_informational() || self.status == StatusCode::NO_CONTENT) {
            return Err("a body announced by a status that has none");
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(head: &str) -> Result<(), &'static str> {
        check_head(head.as_bytes())
    }

    #[test]
    fn sound_heads_pass() {
        for head in [
            "HTTP/1.1 200 OK\r\n\r\n",
            "HTTP/1.1 200 \r\nA:\r\n\r\n",
            "HTTP/1.1 200\r\nContent-Length: 0\r\n\r\n",
            "HTTP/1.0 999 What\tever \u{e9}\r\ncontent-LENGTH:5\r\n\r\n",
            "HTTP/1.1 204 No Content\r\nContent-Length: 0\r\n\r\n",
            "HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\n",
            "HTTP/1.1 304 Not Modified\r\nTransfer-Encoding: chunked\r\n\r\n",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding:\t Chunked \r\nX-A: \u{e9}\tb\r\nX-A: c\r\n\r\n",
        ] {
            assert_eq!(check(head), Ok(()), "{head:?}");
        }
    }

    #[test]
    fn doubtful_heads_are_refused() {
        let lines = |lines: &str| format!("HTTP/1.1 200 OK\r\n{lines}\r\n\r\n");
        for head in [
            String::new(),
            "HTTP/1.1 200 OK\r\n".to_owned(),
            "HTTP/1.1 200 OK\n\n".to_owned(),
            "HTTP/2 200 OK\r\n\r\n".to_owned(),
            "HTTP/1.1 2000 OK\r\n\r\n".to_owned(),
            "HTTP/1.1 20\r\n\r\n".to_owned(),
            "HTTP/1.1 099 OK\r\n\r\n".to_owned(),
            "HTTP/1.1  200 OK\r\n\r\n".to_owned(),
            "HTTP/1.1 200 O\rK\r\n\r\n".to_owned(),
            "HTTP/1.1 204 No\r\nContent-Length: 1\r\n\r\n".to_owned(),
            "HTTP/1.1 103 Early\r\nTransfer-Encoding: chunked\r\n\r\n".to_owned(),
            "HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n".to_owned(),
            "HTTP/1.1 200 OK\r\n\r\nx".to_owned(),
            lines("Content-Length: 5\r\nTransfer-Encoding: chunked"),
            lines("Content-Length: 5\r\nContent-Length: 5"),
            lines("Content-Length: 5, 5"),
            lines("Transfer-Encoding: gzip, chunked"),
            lines("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked"),
            lines("X: 1\r\n 2"),
            lines("X : 1"),
            lines("X: 1\0"),
            lines("X"),
        ] {
            assert!(check(&head).is_err(), "{head:?}");
        }
    }

    #[test]
    fn heads_are_bounded() {
        assert_eq!(check(&format!("HTTP/1.1 200 OK\r\n{}\r\n", "A:\r\n".repeat(FIELDS_MAX))), Ok(()));
        assert!(check(&format!("HTTP/1.1 200 OK\r\n{}\r\n", "A:\r\n".repeat(FIELDS_MAX + 1))).is_err());
        let long = |length: usize| format!("HTTP/1.1 200 OK\r\nA:{}\r\n\r\n", "v".repeat(length - 23));
        assert_eq!(check(&long(HEAD_MAX)), Ok(()));
        assert!(check(&long(HEAD_MAX + 1)).is_err());
    }

    proptest::proptest! {
        #[test]
        fn no_bytes_are_too_odd_to_be_judged(bytes: Vec<u8>, at in 0..40_usize) {
            let mut head = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nX: y\r\n\r\n".to_vec();
            let verdict = check_head(&bytes);
            proptest::prop_assert!(verdict.is_err() || bytes.ends_with(b"\r\n\r\n"));
            head.splice(at..at, bytes);
            let _verdict = check_head(&head);
        }
    }
}
