//! Heads and error bodies as the provider words them.

use std::fmt::Write as _;

use bytes::Bytes;
use serde_json::json;

use super::wire::{Framing, RequestHead};

/// A whole answer.
#[derive(Debug)]
pub(super) struct Reply {
    pub(super) status: u16,
    pub(super) retry_after: Option<u64>,
    pub(super) body: Bytes,
}

impl Reply {
    pub(super) fn json(status: u16, body: &serde_json::Value) -> Self {
        Self { status, retry_after: None, body: Bytes::from(body.to_string()) }
    }

    /// An error in OpenAI's shape.
    pub(super) fn error(status: u16, kind: &str, code: Option<&str>, message: &str) -> Self {
        let error = json!({ "error": { "message": message, "type": kind, "param": null, "code": code } });
        Self::json(status, &error)
    }

    pub(super) fn too_many(retry_after: u64) -> Self {
        let message = "Rate limit reached for requests. Please slow down.";
        let reply = Self::error(429, "requests", Some("rate_limit_exceeded"), message);
        Self { retry_after: Some(retry_after), ..reply }
    }

    pub(super) fn not_found() -> Self {
        Self::error(404, "invalid_request_error", None, "Not Found")
    }

    pub(super) fn unknown_key() -> Self {
        Self::error(401, "invalid_request_error", Some("invalid_api_key"), "Incorrect API key provided.")
    }

    pub(super) fn bad_request(message: &str) -> Self {
        Self::error(400, "invalid_request_error", None, message)
    }

    /// Head and body as they go on the wire; a HEAD request gets no body.
    pub(super) fn bytes(&self, request: &RequestHead, ordinal: u64) -> Bytes {
        let mut head = Head::new(self.status, "application/json", request, ordinal);
        if let Some(seconds) = self.retry_after {
            head.line("retry-after", &seconds.to_string());
        }
        let mut bytes = head.end(Framing::Length(self.body.len() as u64));
        if request.method != "HEAD" {
            bytes.extend_from_slice(&self.body);
        }
        Bytes::from(bytes)
    }
}

/// A response head that is being put together.
#[derive(Debug)]
pub(super) struct Head {
    text: String,
    keeps_alive: bool,
    http_1_0: bool,
}

impl Head {
    pub(super) fn new(status: u16, content_type: &str, request: &RequestHead, ordinal: u64) -> Self {
        let reason = http::StatusCode::from_u16(status).ok().and_then(|status| status.canonical_reason());
        let text = format!("HTTP/1.1 {status} {}\r\n", reason.unwrap_or("Unknown"));
        let mut head = Self { text, keeps_alive: request.keeps_alive(), http_1_0: request.http_1_0 };
        head.line("content-type", content_type);
        head.line("x-request-id", &format!("sim-{ordinal}"));
        head
    }

    fn line(&mut self, name: &str, value: &str) {
        // Writing to a String cannot fail.
        let _infallible = write!(self.text, "{name}: {value}\r\n");
    }

    pub(super) fn end(mut self, framing: Framing) -> Vec<u8> {
        match framing {
            Framing::Length(length) => self.line("content-length", &length.to_string()),
            Framing::Chunked => self.line("transfer-encoding", "chunked"),
            Framing::Empty | Framing::UntilClose => {}
        }
        match (self.keeps_alive && framing != Framing::UntilClose, self.http_1_0) {
            (false, _) => self.line("connection", "close"),
            (true, true) => self.line("connection", "keep-alive"),
            (true, false) => {}
        }
        self.text.push_str("\r\n");
        self.text.into_bytes()
    }
}
