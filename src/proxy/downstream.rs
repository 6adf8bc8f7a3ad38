//! One request on pingora's server session: reading it, noticing that its client has left, writing to it.

use bytes::{Bytes, BytesMut};
use http::header::{CONTENT_LENGTH, EXPECT, TRANSFER_ENCODING, UPGRADE};
use http::{HeaderMap, Method, Version};
use pingora_core::protocols::http::{HttpTask, ServerSession};
use pingora_error::{Error, ErrorType};
use pingora_http::ResponseHeader;
use tokio::sync::mpsc;

use super::cause::{Gone, NotTaken, Refused};
use crate::answer::Head;
use crate::call::BodyPart;
use crate::headers;
use crate::time::Duration;

/// A body is written in pieces, so that the write time-out bounds the lack of progress and not the size.
const PIECE: usize = 64 * 1024;
/// What is allocated for a body before any of it has come.
const BODY_AT_FIRST: u64 = 256 * 1024;
/// A body that is too large is read up to so many times `body_max`, to keep the connection usable.
const DRAIN_FACTOR: u64 = 4;

/// How long what is left of a body is taken after its answer.
const DISCARD_TIME: Duration = Duration::from_secs(1);

/// A request and the way back to its client.
pub(super) struct Downstream<'a> {
    session: &'a mut ServerSession,
    /// pingora bounds writes by it, but not flushes.
    write_timeout: Duration,
    /// The body is not framed as the head says, or stopped coming.
    is_broken: bool,
}

impl<'a> Downstream<'a> {
    pub(super) fn new(session: &'a mut ServerSession, write_timeout: Duration) -> Self {
        Self { session, write_timeout, is_broken: false }
    }

    /// Method and target. The target of a proxy request (absolute form) is reduced to its path.
    ///
    /// # Errors
    /// When it cannot be forwarded safely.
    pub(super) fn request_line(&self) -> Result<(Method, String), Refused> {
        let head = self.session.req_header();
        if head.method == Method::CONNECT {
            return Err(Refused::bad_request(
                "CONNECT is not for this port: it forwards to configured upstreams only; open WebSockets over HTTP/1.1",
            ));
        }
        if self.has_doubtful_framing() {
            return Err(Refused::bad_request("the body must be framed by one Content-Length or by chunked, not both"));
        }
        let has_body =
            self.content_length().is_some_and(|length| length > 0) || head.headers.contains_key(TRANSFER_ENCODING);
        if has_body && head.version == Version::HTTP_11 && headers::is_websocket_handshake(&head.method, &head.headers)
        {
            return Err(Refused::bad_request("a WebSocket handshake has no body: leave Content-Length out"));
        }
        let target = head.uri.path_and_query().map_or("", http::uri::PathAndQuery::as_str);
        let is_plain = target.bytes().all(|byte| byte.is_ascii_graphic());
        // pingora makes a path of anything, a bare host name included.
        let raw = head.raw_path();
        let is_known_form = raw.starts_with(b"/") || raw == b"*" || raw.windows(3).any(|part| part == b"://");
        if !is_plain || !is_known_form || !(target.starts_with('/') || target == "*") || !head.raw_path_is_utf8() {
            return Err(Refused::bad_request("the request target must be a path of visible ASCII characters"));
        }
        Ok((head.method.clone(), target.to_owned()))
    }

    /// Whether another reader might see another body: pingora takes the length out where there is a transfer coding, and
    /// accepts codings that it does not undo.
    fn has_doubtful_framing(&self) -> bool {
        let mut codings = self.session.req_header().headers.get_all(TRANSFER_ENCODING).iter();
        match (codings.next(), codings.next()) {
            (None, _) => false,
            (Some(only), None) => !only.as_bytes().eq_ignore_ascii_case(b"chunked") || self.came_with_length(),
            (Some(_), Some(_)) => true,
        }
    }

    fn came_with_length(&self) -> bool {
        let head = self.session.to_h1_raw();
        let names = head.split(|byte| *byte == b'\n').filter_map(|line| line.split(|byte| *byte == b':').next());
        names.into_iter().any(|name| name.eq_ignore_ascii_case(CONTENT_LENGTH.as_str().as_bytes()))
    }

    pub(super) fn headers(&self) -> HeaderMap {
        let head = self.session.req_header();
        let mut headers = head.headers.clone();
        if head.version != Version::HTTP_11 {
            headers.remove(UPGRADE); // only HTTP/1.1 can switch (RFC 9110, section 7.8)
        }
        headers
    }

    pub(super) fn is_http_1_0(&self) -> bool {
        self.session.req_header().version == Version::HTTP_10
    }

    pub(super) fn has_no_body(&mut self) -> bool {
        self.session.is_body_empty()
    }

    pub(super) fn content_length(&self) -> Option<u64> {
        let headers = &self.session.req_header().headers;
        if headers.contains_key(TRANSFER_ENCODING) {
            return None;
        }
        headers.get(CONTENT_LENGTH)?.to_str().ok()?.trim().parse().ok()
    }

    /// Reads the whole body.
    ///
    /// # Errors
    /// When it is larger than `body_max`; then it was drained where that keeps the connection usable. When it is
    /// broken, or the client has left.
    pub(super) async fn read_body(&mut self, body_max: u64) -> Result<Bytes, NotTaken> {
        let length = self.content_length();
        let too_large = || NotTaken::Refused(Refused::TooLarge { body_max });
        if length.is_some_and(|length| length > body_max.saturating_mul(DRAIN_FACTOR))
            || (length.is_some_and(|length| length > body_max) && self.expects_continue())
        {
            return Err(too_large()); // unread, so the connection will be closed
        }
        self.invite_body().await?;
        let at_first = length.unwrap_or(0).min(body_max).min(BODY_AT_FIRST);
        let mut body = BytesMut::with_capacity(usize::try_from(at_first).unwrap_or(0));
        let mut seen = 0_u64;
        while let Some(bytes) = self.read_part().await? {
            seen = seen.saturating_add(u64::try_from(bytes.len()).unwrap_or(u64::MAX));
            if seen <= body_max {
                body.extend_from_slice(&bytes);
            } else if seen > body_max.saturating_mul(DRAIN_FACTOR) {
                break;
            } else {
                body = BytesMut::new();
            }
        }
        if seen > body_max { Err(too_large()) } else { Ok(body.freeze()) }
    }

    async fn read_part(&mut self) -> Result<Option<Bytes>, NotTaken> {
        let error = match self.session.read_request_body().await {
            Ok(read) => return Ok(read),
            Err(error) => error,
        };
        // Nobody knows where the next request would begin; pingora takes the body for done.
        self.is_broken = true;
        self.session.set_keepalive(None);
        Err(match error.etype() {
            ErrorType::ReadTimedout => NotTaken::Refused(Refused::BodyTimeout),
            ErrorType::ConnectionClosed | ErrorType::ReadError => NotTaken::Gone(Gone),
            _ => NotTaken::Refused(Refused::bad_request("the request body is not framed as its head says")),
        })
    }

    fn expects_continue(&self) -> bool {
        let expect = self.session.req_header().headers.get(EXPECT);
        expect.is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"100-continue"))
    }

    /// Answers `Expect: 100-continue`: we want the body.
    async fn invite_body(&mut self) -> Result<(), Gone> {
        if self.expects_continue() && !self.is_http_1_0() {
            self.session.write_continue_response().await.map_err(|_| Gone)?;
        }
        Ok(())
    }

    /// Passes on the parts of a body that streams, and completes when the client has left or its body turns out to be
    /// broken; that drops `parts`, which ends the call. Dropping the future loses nothing but what is left of the body.
    pub(super) async fn pump_until_gone(&mut self, parts: Option<mpsc::Sender<BodyPart>>) -> NotTaken {
        if let Some(parts) = parts {
            if let Err(gone) = self.invite_body().await {
                return gone.into();
            }
            loop {
                // Whoever asks has an early answer, or failed: what is left of the body is not wanted.
                let Ok(place) = parts.reserve().await else { return std::future::pending().await };
                match self.read_part().await {
                    Ok(Some(bytes)) if bytes.is_empty() => {}
                    Ok(Some(bytes)) => place.send(BodyPart::Data(bytes)),
                    Ok(None) => {
                        place.send(BodyPart::End);
                        break;
                    }
                    Err(not_taken) => return not_taken,
                }
            }
        }
        self.gone().await.into()
    }

    /// Completes when the client has left. Its next request may come meanwhile; it is kept.
    pub(super) async fn gone(&mut self) -> Gone {
        loop {
            if self.session.read_body_or_idle(true).await.is_err() {
                return Gone;
            }
        }
    }

    /// Takes what is left of a body that nobody wants, for a moment: to close with unread bytes is to reset, and that can
    /// overtake the answer.
    pub(super) async fn discard_body(&mut self) {
        let rest = async { while let Ok(Some(_)) = self.read_part().await {} };
        let _over = timed(DISCARD_TIME, rest).await;
    }

    /// Whether the body was read to its end, so that the connection can be used again.
    pub(super) fn is_body_read(&mut self) -> bool {
        !self.is_broken && self.session.is_body_done()
    }

    /// Writes the head of an answer. Never drop this future: half a head may be on the wire.
    pub(super) async fn write_head(&mut self, head: Head) -> Result<(), Gone> {
        let mut response = ResponseHeader::build_no_case(head.status, Some(head.headers.len())).map_err(|_| Gone)?;
        for (name, value) in &head.headers {
            response.append_header(name, value).map_err(|_| Gone)?;
        }
        timed(self.write_timeout, self.session.write_response_header(Box::new(response))).await?.map_err(|_| Gone)
    }

    /// Writes a part of a body. Never drop this future.
    pub(super) async fn write_part(&mut self, mut bytes: Bytes) -> Result<(), Gone> {
        while !bytes.is_empty() {
            let piece = bytes.split_to(bytes.len().min(PIECE));
            self.session.write_response_body(piece, false).await.map_err(|_| Gone)?;
        }
        Ok(())
    }

    /// Sends what was written so far. pingora keeps a body that has a length in its buffer until it is complete, and the
    /// one call of its that flushes and does nothing else is that for an answer that has failed.
    pub(super) async fn flush(&mut self) -> Result<(), Gone> {
        let failed = HttpTask::Failed(Error::new(ErrorType::InternalError));
        let flush = self.session.response_duplex_vec(vec![HttpTask::Body(None, false), failed]);
        match timed(self.write_timeout, flush).await? {
            Err(error) if *error.etype() != ErrorType::InternalError => Err(Gone),
            Ok(_) | Err(_) => Ok(()),
        }
    }

    /// Ends the body.
    pub(super) async fn finish(&mut self) -> Result<(), Gone> {
        timed(self.write_timeout, self.session.finish_body()).await?.map_err(|_| Gone)
    }
}

/// A client that takes nothing for so long has gone.
async fn timed<T>(limit: Duration, write: impl Future<Output = T>) -> Result<T, Gone> {
    tokio::time::timeout(limit, write).await.map_err(|_elapsed| Gone)
}
