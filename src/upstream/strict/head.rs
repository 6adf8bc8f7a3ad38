//! What the head of an answer has said of framing so far.

use http::StatusCode;

use super::{Doubt, FIELDS_MAX};
use crate::headers::grammar::{field, length, line};

/// A head, or the trailers, so far.
#[derive(Debug, Default)]
pub(super) struct Head {
    /// Bytes of the lines that have come to their end.
    pub(super) size: usize,
    fields: usize,
    status: StatusCode,
    is_http_1_0: bool,
    length: Option<u64>,
    is_chunked: bool,
}

/// What follows a head.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Body {
    /// Another head.
    Interim,
    Length(u64),
    Chunked,
    /// All that comes.
    Rest,
}

impl Head {
    /// Reads a status line.
    pub(super) fn begin(line: &[u8]) -> Result<Self, Doubt> {
        let Some((version @ (b"HTTP/1.1 " | b"HTTP/1.0 "), rest)) = without_end(line).split_at_checked(9) else {
            return Err("a status line that is none of HTTP/1.1".into());
        };
        let (code, reason) = rest.split_at_checked(3).ok_or("a status line without a status")?;
        // The space behind the status may be missing where no reason follows, as it often is.
        if !matches!(reason, [] | [b' ', ..]) {
            return Err("a status of more than three digits".into());
        }
        let status = StatusCode::from_bytes(code).map_err(|_| "a status that is no number from 100 on")?;
        Ok(Self { size: line.len(), status, is_http_1_0: version == b"HTTP/1.0 ", ..Self::default() })
    }

    pub(super) fn take_field(&mut self, line: &[u8]) -> Result<(), Doubt> {
        let (name, value) = self.count(line)?;
        if name.eq_ignore_ascii_case(b"content-length") {
            if self.length.replace(length(value)?).is_some() {
                return Err("several Content-Length fields".into());
            }
        } else if name.eq_ignore_ascii_case(b"transfer-encoding") {
            if !value.eq_ignore_ascii_case(b"chunked") {
                return Err("a Transfer-Encoding other than chunked".into());
            }
            if std::mem::replace(&mut self.is_chunked, true) {
                return Err("several Transfer-Encoding fields".into());
            }
        }
        Ok(())
    }

    /// Trailers are not passed on, so they need only be what they seem.
    pub(super) fn take_trailer(&mut self, line: &[u8]) -> Result<(), Doubt> {
        self.count(line).map(|_| ())
    }

    fn count<'a>(&mut self, line: &'a [u8]) -> Result<(&'a [u8], &'a [u8]), Doubt> {
        self.size += line.len();
        self.fields += 1;
        if self.fields > FIELDS_MAX {
            return Err("more than 128 fields".into());
        }
        Ok(field(without_end(line))?)
    }

    /// What the complete head says that follows it (RFC 9112, section 6.3).
    pub(super) fn body(&self, is_head_request: bool) -> Result<Body, Doubt> {
        let announces_body = self.is_chunked || self.length.is_some_and(|length| length > 0);
        let has_none = self.status.is_informational() || self.status == StatusCode::NO_CONTENT;
        if self.is_chunked && self.length.is_some() {
            return Err("Content-Length and Transfer-Encoding together".into());
        }
        if self.is_chunked && self.is_http_1_0 {
            return Err("Transfer-Encoding in HTTP/1.0".into());
        }
        if announces_body && has_none {
            return Err("a body announced by a status that has none".into());
        }
        Ok(match self.status {
            // Whether it was asked for is not for this checker to know.
            StatusCode::SWITCHING_PROTOCOLS => Body::Rest,
            status if status.is_informational() => Body::Interim,
            StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED => Body::Length(0),
            _ if is_head_request => Body::Length(0),
            _ if self.is_chunked => Body::Chunked,
            _ => self.length.map_or(Body::Rest, Body::Length),
        })
    }
}

fn without_end(line: &[u8]) -> &[u8] {
    &line[..line.len() - line::CRLF]
}
