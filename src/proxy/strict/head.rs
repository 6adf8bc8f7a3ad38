//! What a head has said so far, as far as its later lines can contradict it.

use super::target::{host, request_line};
use super::{FIELDS_MAX, Kind, TRAILER_FIELDS_MAX, Violation};
use crate::headers::grammar::{field, is_blank, length, names, resembles};

/// Fields that speak of framing, of routing or of how to read the content: they come too late in a trailer
/// (RFC 9110, section 6.5.1), and whoever merges trailers into the head would be told two things.
const NOT_IN_TRAILERS: [&[u8]; 12] = [
    b"content-length",
    b"transfer-encoding",
    b"host",
    b"connection",
    b"upgrade",
    b"te",
    b"trailer",
    b"expect",
    b"authorization",
    b"content-type",
    b"content-encoding",
    b"content-range",
];

/// A head, or the trailers, so far.
#[derive(Debug, Default)]
pub(super) struct Head {
    /// Bytes of the lines that have come to their end.
    pub(super) size: usize,
    fields: usize,
    /// Of a target in absolute form.
    authority: Option<Box<[u8]>>,
    length: Option<u64>,
    is_http_1_0: bool,
    is_chunked: bool,
    has_host: bool,
    is_handshake: bool,
}

/// What follows a head.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Body {
    Length(u64),
    Chunked,
    /// Nothing, before a WebSocket handshake is answered.
    Handshake,
}

impl Head {
    pub(super) fn begin(line: &[u8]) -> Result<Self, Violation> {
        let line = request_line(line)?;
        let authority = line.authority.map(Box::from);
        Ok(Self { is_http_1_0: line.is_http_1_0, authority, ..Self::default() })
    }

    pub(super) fn take_field(&mut self, line: &[u8]) -> Result<(), Violation> {
        if self.fields == 0 && line.first().is_some_and(|byte| is_blank(*byte)) {
            return Err("white space stands before the first header field".into());
        }
        let (name, value) = field(line)?;
        self.fields += 1;
        if self.fields > FIELDS_MAX {
            return Err(Violation { reason: "the head has more than 100 header fields", kind: Kind::HeadTooLarge });
        }
        match name.len() {
            4 if resembles(name, b"host") => self.take_host(value)?,
            // To HTTP/1.0 it means nothing (RFC 9110, section 7.8).
            7 if resembles(name, b"upgrade") => self.is_handshake |= !self.is_http_1_0 && names(value, b"websocket"),
            14 if resembles(name, b"content-length") => self.take_length(name, value)?,
            17 if resembles(name, b"transfer-encoding") => self.take_coding(name, value)?,
            _ => {}
        }
        Ok(())
    }

    fn take_host(&mut self, value: &[u8]) -> Result<(), Violation> {
        if self.has_host {
            return Err("the head has several Host fields: send one".into());
        }
        host(value)?;
        // To the letter: pingora, too, would refuse what differs in case only.
        if self.authority.as_ref().is_some_and(|authority| **authority != *value) {
            return Err("Host and the request target name different hosts; send the same in both".into());
        }
        self.has_host = true;
        Ok(())
    }

    fn take_length(&mut self, name: &[u8], value: &[u8]) -> Result<(), Violation> {
        if name.contains(&b'_') {
            return Err("Content_Length is taken for Content-Length by some: leave it out".into());
        }
        if self.length.is_some() {
            return Err("the head has several Content-Length fields: send one".into());
        }
        self.length = Some(length(value)?);
        Ok(())
    }

    fn take_coding(&mut self, name: &[u8], value: &[u8]) -> Result<(), Violation> {
        if name.contains(&b'_') {
            return Err("Transfer_Encoding is taken for Transfer-Encoding by some: leave it out".into());
        }
        if self.is_chunked {
            return Err("the head has several Transfer-Encoding fields: send one".into());
        }
        if self.is_http_1_0 {
            return Err("HTTP/1.0 knows no Transfer-Encoding: send a Content-Length, or speak HTTP/1.1".into());
        }
        if !value.eq_ignore_ascii_case(b"chunked") {
            return Err("Transfer-Encoding must be chunked and nothing else".into());
        }
        self.is_chunked = true;
        Ok(())
    }

    /// What the complete head says that follows it.
    pub(super) fn body(&self) -> Result<Body, Violation> {
        if !self.has_host && !self.is_http_1_0 {
            return Err("an HTTP/1.1 request needs a Host field".into());
        }
        match (self.is_chunked, self.length, self.is_handshake) {
            (true, Some(_), _) => Err("the body must be framed by one Content-Length or by chunked, not both".into()),
            (true, _, true) | (_, Some(1..), true) => Err("a WebSocket handshake must have no body".into()),
            (false, _, true) => Ok(Body::Handshake),
            (true, None, false) => Ok(Body::Chunked),
            (false, length, false) => Ok(Body::Length(length.unwrap_or(0))),
        }
    }

    pub(super) fn take_trailer(&mut self, line: &[u8]) -> Result<(), Violation> {
        let (name, _) = field(line)?;
        self.fields += 1;
        if self.fields > TRAILER_FIELDS_MAX {
            return Err(Violation { reason: "there are more than 32 trailers", kind: Kind::HeadTooLarge });
        }
        if NOT_IN_TRAILERS.iter().any(|late| resembles(name, late)) {
            return Err("a trailer has a name that must stand in the head".into());
        }
        Ok(())
    }
}
