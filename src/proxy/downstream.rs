//! One request on pingora's server session: reading it, noticing that its client has left, writing to it.

use bytes::Bytes;
use http::header::{CONTENT_LENGTH, COOKIE, EXPECT, HeaderValue, TRANSFER_ENCODING, UPGRADE};
use http::{HeaderMap, Method, Version};
use pingora_core::protocols::http::{HttpTask, ServerSession};
use pingora_error::{Error, ErrorType};
use pingora_http::ResponseHeader;
use tokio::sync::mpsc;

use super::Bounds;
use super::cause::{Gone, NotTaken, Refused};
use super::inlet::Verdict;
use super::strict::{Kind, Violation, check_target};
use crate::answer::Head;
use crate::call::BodyPart;
use crate::headers;
use crate::memory::{self, Held, Memory};
use crate::metrics::MemoryKind;
use crate::time::Duration;

/// A body is written in pieces, so that the write time-out bounds the lack of progress and not the size.
const PIECE: usize = 64 * 1024;
/// What is allocated for a body of which something has come. Little: a crowd of bodies that have only begun must not take
/// all of `server.memory_max`.
const BODY_AT_FIRST: usize = 16 * 1024;
/// A body that is too large is read up to so many times `body_max`, to keep the connection usable.
const DRAIN_FACTOR: u64 = 4;
/// So much of a body is read only to be thrown away.
const DISCARDED_MAX: u64 = 64 * 1024;
/// Header fields of one request. HTTP/1.1 is held to it before anything is parsed.
const FIELDS_MAX: usize = 100;

/// A request and the way back to its client.
pub(super) struct Downstream<'a> {
    session: &'a mut ServerSession,
    /// pingora bounds writes by it, but not flushes.
    write_timeout: Duration,
    /// Bounds each read of a body; pingora's own bound is for HTTP/1.1 only.
    body_timeout: Duration,
    /// What the connection was found guilty of.
    verdict: Option<&'a Verdict>,
    /// The body is not framed as the head says, or stopped coming.
    is_broken: bool,
}

impl<'a> Downstream<'a> {
    pub(super) fn new(session: &'a mut ServerSession, bounds: &Bounds, verdict: Option<&'a Verdict>) -> Self {
        let Bounds { write_timeout, body_timeout, .. } = *bounds;
        Self { session, write_timeout, body_timeout, verdict, is_broken: false }
    }

    /// What makes the connection unsound, if anything does.
    fn unsound(&self) -> Option<Refused> {
        self.verdict?.violation().map(|violation| Refused::Unsound(*violation))
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
        if head.headers.len() > FIELDS_MAX {
            let kind = Kind::HeadTooLarge;
            return Err(Refused::Unsound(Violation { reason: "the request has more than 100 header fields", kind }));
        }
        let has_body =
            self.content_length().is_some_and(|length| length > 0) || head.headers.contains_key(TRANSFER_ENCODING);
        if has_body && self.is_handshake() {
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
        if self.session.is_http2() {
            check_target(head.method.as_str(), target).map_err(Refused::bad_request)?;
        }
        Ok((head.method.clone(), target.to_owned()))
    }

    pub(super) fn headers(&self) -> HeaderMap {
        let head = self.session.req_header();
        let mut headers = head.headers.clone();
        if head.version != Version::HTTP_11 {
            headers.remove(UPGRADE); // only HTTP/1.1 can switch (RFC 9110, section 7.8)
        }
        if self.session.is_http2() {
            join_cookies(&mut headers);
        }
        headers
    }

    pub(super) fn is_head(&self) -> bool {
        self.session.req_header().method == Method::HEAD
    }

    pub(super) fn is_http_1_0(&self) -> bool {
        self.session.req_header().version == Version::HTTP_10
    }

    pub(super) fn is_http2(&self) -> bool {
        self.session.is_http2()
    }

    fn is_http_1_1(&self) -> bool {
        self.session.req_header().version == Version::HTTP_11
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

    /// Reads the whole body, which `share` pays for.
    ///
    /// # Errors
    /// When it is larger than `body_max`; then it was drained where that keeps the connection usable. When there is no
    /// room for it, it is broken, or the client has left.
    pub(super) async fn read_body(&mut self, body_max: u64, mut share: Held) -> Result<Bytes, NotTaken> {
        let length = self.content_length();
        let too_large = || NotTaken::Refused(Refused::TooLarge { body_max });
        if length.is_some_and(|length| length > body_max.saturating_mul(DRAIN_FACTOR))
            || (length.is_some_and(|length| length > body_max) && self.expects_continue())
        {
            return Err(too_large()); // unread, so the connection will be closed
        }
        self.invite_body().await?;
        let most = length.unwrap_or(body_max).min(body_max);
        let (mut body, mut seen) = (Vec::new(), 0_u64);
        while let Some(bytes) = self.read_part().await? {
            seen = seen.saturating_add(u64::try_from(bytes.len()).unwrap_or(u64::MAX));
            if seen <= body_max {
                make_room(&mut body, bytes.len(), most, &mut share).map_err(Refused::MemoryFull)?;
                body.extend_from_slice(&bytes);
            } else if seen > body_max.saturating_mul(DRAIN_FACTOR) {
                break;
            } else {
                body = Vec::new();
                share.clear();
            }
        }
        if seen > body_max { Err(too_large()) } else { Ok(share.keep(body)) }
    }

    /// Reads a short body whose request is refused anyway, to keep the connection usable. A long one, or one that waits
    /// to be invited, stays unread: the connection will be closed.
    pub(super) async fn discard_short_body(&mut self) -> Result<(), NotTaken> {
        let is_long = |length| length > DISCARDED_MAX;
        if self.content_length().is_some_and(is_long) || self.expects_continue() {
            return Ok(());
        }
        let mut seen = 0;
        while let Some(bytes) = self.read_part().await? {
            seen += u64::try_from(bytes.len()).unwrap_or(u64::MAX);
            if is_long(seen) {
                break;
            }
        }
        Ok(())
    }

    async fn read_part(&mut self) -> Result<Option<Bytes>, NotTaken> {
        let error = match tokio::time::timeout(self.body_timeout, self.session.read_request_body()).await {
            Ok(Ok(read)) => return Ok(read),
            Ok(Err(error)) => error,
            Err(_elapsed) => Error::new(ErrorType::ReadTimedout),
        };
        // Nobody knows where the next request would begin; pingora takes the body for done.
        self.is_broken = true;
        self.session.set_keepalive(None);
        if let Some(unsound) = self.unsound() {
            return Err(unsound.into());
        }
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
        if self.expects_continue() && self.is_http_1_1() {
            // pingora closes the connection after an answer that comes before the body is read, and takes this for one.
            let keepalive = self.session.get_keepalive();
            timed(self.write_timeout, self.session.write_continue_response()).await?.map_err(|_| Gone)?;
            self.session.set_keepalive(keepalive);
        }
        Ok(())
    }

    /// Passes on the parts of a body that streams, and completes when the client has left or its body turns out to be
    /// broken; that drops `parts`, which ends the call. Dropping the future loses nothing but what is left of the body.
    pub(super) async fn pump_until_gone(&mut self, parts: Option<mpsc::Sender<BodyPart>>, memory: &Memory) -> NotTaken {
        if let Some(parts) = parts {
            if let Err(gone) = self.invite_body().await {
                return gone.into();
            }
            loop {
                // Whoever asks has an early answer, or failed: what is left of the body is not wanted.
                let Ok(place) = parts.reserve().await else { return std::future::pending().await };
                match self.read_part().await {
                    Ok(Some(bytes)) if bytes.is_empty() => {}
                    Ok(Some(bytes)) => match memory.pay(MemoryKind::Bodies, bytes) {
                        Ok(bytes) => place.send(BodyPart::Data(bytes)),
                        Err(bytes) => {
                            // No room to read ahead: it waits until nothing does that came before it.
                            drop(place);
                            let Ok(mut places) = parts.reserve_many(parts.max_capacity()).await else {
                                return std::future::pending().await;
                            };
                            if let Some(place) = places.next() {
                                place.send(BodyPart::Data(bytes));
                            }
                        }
                    },
                    Ok(None) => {
                        place.send(BodyPart::End);
                        break;
                    }
                    Err(not_taken) => return not_taken,
                }
            }
        }
        match self.hang_up().await {
            // Bytes that belong to neither protocol: nobody knows what their sender takes this for.
            Some(unsound) => unsound.into(),
            None => Gone.into(),
        }
    }

    /// Completes when the client has left. What it sends meanwhile waits for its turn.
    pub(super) async fn gone(&mut self) -> Gone {
        match self.hang_up().await {
            // The handshake has its answer already.
            Some(_) => std::future::pending().await,
            None => Gone,
        }
    }

    /// Completes when nothing more can be read: the client has left, or sent something behind a handshake.
    async fn hang_up(&mut self) -> Option<Refused> {
        if let Some(verdict) = self.verdict {
            verdict.keep_back();
        }
        while self.session.read_body_or_idle(true).await.is_ok() {}
        self.unsound().filter(|_| self.is_handshake())
    }

    fn is_handshake(&self) -> bool {
        let head = self.session.req_header();
        head.version == Version::HTTP_11 && headers::is_websocket_handshake(&head.method, &head.headers)
    }

    /// Whether the body was read to its end, so that the connection can be used again.
    pub(super) fn is_body_read(&mut self) -> bool {
        !self.is_broken && self.session.is_body_done()
    }

    /// Writes the head of an answer. Never drop this future: half a head may be on the wire.
    pub(super) async fn write_head(&mut self, head: Head) -> Result<(), Gone> {
        // From parts: pingora's own way to add a field writes out its name and parses it again.
        let (mut parts, ()) = http::Response::new(()).into_parts();
        (parts.status, parts.headers) = (head.status, head.headers);
        let response = ResponseHeader::from(parts);
        timed(self.write_timeout, self.session.write_response_header(Box::new(response))).await?.map_err(|_| Gone)
    }

    /// Writes a part of a body. Never drop this future.
    pub(super) async fn write_part(&mut self, bytes: Bytes) -> Result<(), Gone> {
        self.write(bytes, false).await
    }

    /// Writes the last part of a body, which has still to be finished. Never drop this future.
    pub(super) async fn write_last(&mut self, bytes: Bytes) -> Result<(), Gone> {
        // In HTTP/2 the end goes with the last bytes: of many short frames that are not the last, clients think ill.
        let ends = self.session.is_http2();
        self.write(bytes, ends).await
    }

    async fn write(&mut self, mut bytes: Bytes, ends: bool) -> Result<(), Gone> {
        while !bytes.is_empty() {
            let piece = bytes.split_to(bytes.len().min(PIECE));
            self.session.write_response_body(piece, ends && bytes.is_empty()).await.map_err(|_| Gone)?;
        }
        Ok(())
    }

    /// Sends what was written so far. pingora keeps a body that has a length in its buffer until it is complete, and the
    /// one call of its that flushes and does nothing else is that for an answer that has failed.
    pub(super) async fn flush(&mut self) -> Result<(), Gone> {
        if self.session.is_http2() {
            return Ok(()); // nothing is kept back there
        }
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

/// Makes room for so many bytes more, twice as much each time, but never for more than `most`.
fn make_room(body: &mut Vec<u8>, more: usize, most: u64, share: &mut Held) -> Result<(), memory::Full> {
    let needed = body.len() + more;
    if needed <= body.capacity() {
        return Ok(());
    }
    let most = usize::try_from(most).unwrap_or(usize::MAX);
    let capacity = body.capacity().saturating_mul(2).max(BODY_AT_FIRST).min(most).max(needed);
    share.grow(u64::try_from(capacity - body.capacity()).unwrap_or(u64::MAX))?;
    body.reserve_exact(capacity - body.len());
    Ok(())
}

/// HTTP/2 may send each cookie in a field of its own; outside they are one (RFC 9113, section 8.2.3).
fn join_cookies(headers: &mut HeaderMap) {
    let crumbs: Vec<&[u8]> = headers.get_all(COOKIE).iter().map(HeaderValue::as_bytes).collect();
    if crumbs.len() > 1
        && let Ok(joined) = HeaderValue::from_bytes(&crumbs.join(&b"; "[..]))
    {
        headers.insert(COOKIE, joined);
    }
}

/// A client that takes nothing for so long has gone.
async fn timed<T>(limit: Duration, write: impl Future<Output = T>) -> Result<T, Gone> {
    tokio::time::timeout(limit, write).await.map_err(|_elapsed| Gone)
}
