//! One request and its answer on one connection to a provider.

use std::future::poll_fn;
use std::pin::pin;
use std::sync::{Arc, Weak};
use std::task::Poll;

use bytes::Bytes;
use http::header::{CONTENT_LENGTH, HOST, TRANSFER_ENCODING};
use http::{HeaderMap, StatusCode, Uri};
use pingora_core::protocols::http::client::HttpSession;
use pingora_core::protocols::{SocketDigest, Stream};
use pingora_core::upstreams::peer::HttpPeer;
use pingora_error::ErrorType::{H2Downgrade, H2Error, InvalidHTTPHeader};
use pingora_error::{BError, RetryType};
use pingora_http::RequestHeader;

use super::connect::Connections;
use super::outlet;
use super::strict::Doubt;
use crate::answer::Head;
use crate::headers;
use crate::time::Duration;

/// How long to look for an answer after the provider stopped reading the request.
const LAST_WORD: Duration = Duration::from_secs(1);

/// Why a conversation ended before its time.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{detail}")]
pub(super) struct Loss {
    /// For the log; says nothing of the content.
    pub(super) detail: String,
    /// The provider says that it did nothing with the request: GOAWAY or REFUSED_STREAM.
    pub(super) is_untouched: bool,
    /// This machine has run out of something, such as descriptors or ports: it is no fault of the provider's.
    pub(super) is_ours: bool,
    /// It has befallen a whole connection of HTTP/2, not one stream of it.
    of_connection: bool,
    /// A connection that had died in the pool shows so: one whose peer resets a stream, or says something wrong, is alive.
    pub(super) may_be_stale: bool,
    /// That connection: whatever else it carried is lost, too.
    pub(super) connection: Option<Carrier>,
}

/// A connection that carries several calls. It is told from every later one, too: while somebody knows it, nothing else
/// takes its place in memory.
#[derive(Debug, Clone)]
pub(super) struct Carrier(Weak<SocketDigest>);

impl Carrier {
    fn of(session: &HttpSession) -> Option<Self> {
        session.as_http2()?.digest()?.socket_digest.as_ref().map(|socket| Self(Arc::downgrade(socket)))
    }

    #[cfg(test)]
    pub(super) fn for_tests() -> Self {
        Self(Arc::downgrade(&Arc::new(SocketDigest::from_raw_fd(0))))
    }
}

impl PartialEq for Carrier {
    fn eq(&self, other: &Self) -> bool {
        Weak::ptr_eq(&self.0, &other.0)
    }
}

impl Loss {
    pub(super) fn new(detail: impl Into<String>) -> Self {
        Self {
            detail: detail.into(),
            is_untouched: false,
            is_ours: false,
            of_connection: false,
            may_be_stale: true,
            connection: None,
        }
    }

    /// Of a connection that is alive, whatever it says.
    fn of_living(detail: impl Into<String>) -> Self {
        Self { may_be_stale: false, ..Self::new(detail) }
    }
}

/// Whether an error says that this machine lacks something.
fn is_ours(error: &std::io::Error) -> bool {
    use rustix::io::Errno;
    let known =
        [Errno::AGAIN, Errno::NOMEM, Errno::NFILE, Errno::MFILE, Errno::ADDRNOTAVAIL, Errno::NETDOWN, Errno::NOBUFS];
    error.raw_os_error().is_some_and(|code| known.contains(&Errno::from_raw_os_error(code)))
}

impl From<BError> for Loss {
    fn from(error: BError) -> Self {
        // pingora also calls a provider that breaks the protocol safe to ask again; it may have done the work.
        let is_untouched =
            matches!(error.retry, RetryType::Decided(true)) && matches!(error.etype(), H2Error | H2Downgrade);
        // A context can quote the wire ("buf: …"); the type never does, nor does what our own checker says.
        let cause = error.root_cause().downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref);
        let doubt = cause.and_then(|cause| cause.downcast_ref::<Doubt>());
        let detail = match doubt {
            Some(doubt) => doubt.to_string(),
            None => error.etype().as_str().to_owned(),
        };
        let is_ours = error.root_cause().downcast_ref::<std::io::Error>().is_some_and(is_ours);
        let http2 = error.root_cause().downcast_ref::<h2::Error>();
        let of_connection = http2.is_some_and(|error| error.is_io() || error.is_go_away());
        let may_be_stale = match http2 {
            Some(error) => error.is_io() || (error.is_go_away() && error.is_remote()),
            None => doubt.is_none() && *error.etype() != InvalidHTTPHeader,
        };
        Self { detail, is_untouched, is_ours, of_connection, may_be_stale, connection: None }
    }
}

/// A request head as it goes on the wire.
#[derive(Debug)]
pub(super) struct RequestHead {
    pub(super) method: http::Method,
    /// Path and query at the provider.
    pub(super) target: String,
    pub(super) headers: HeaderMap,
}

/// One request and its answer on one connection. Dropped before [`Conversation::release`] it closes the connection,
/// which tells the provider to stop.
pub(super) struct Conversation {
    // Boxed, because both are large and many futures hold a conversation.
    pub(super) session: Box<HttpSession>,
    pub(super) peer: Box<HttpPeer>,
    pub(super) reused: bool,
    pub(super) home: Arc<Connections>,
    /// The whole request was written.
    pub(super) is_written: bool,
    /// The answer is to a HEAD, and its session does not know that.
    pub(super) is_bodiless: bool,
}

impl std::fmt::Debug for Conversation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Conversation").field("reused", &self.reused).finish_non_exhaustive()
    }
}

impl Conversation {
    /// Whether the connection had served before: then it may have died in the pool.
    pub(super) fn is_reused(&self) -> bool {
        self.reused
    }

    pub(super) fn speaks_http2(&self) -> bool {
        self.session.as_http2().is_some()
    }

    /// The loss with the connection it has befallen, if that may carry other calls.
    pub(super) fn locate(&self, loss: Loss) -> Loss {
        let connection = loss.of_connection.then(|| Carrier::of(&self.session)).flatten();
        Loss { connection, ..loss }
    }

    /// Bounds each write of a body; a head fits into the socket.
    pub(super) fn set_write_timeout(&mut self, limit: Duration) {
        self.session.set_write_timeout(Some(limit));
    }

    /// Writes a head that says how its body is framed; `ends`: there is none.
    pub(super) async fn write_head(&mut self, head: RequestHead, ends: bool) -> Result<(), Loss> {
        let RequestHead { method, target, mut headers } = head;
        // From parts: pingora's own way to add a field writes out its name and parses it again.
        let request = RequestHeader::build_no_case(method, target.as_bytes(), None)?;
        let mut parts = http::request::Parts::from(request);
        match &mut *self.session {
            HttpSession::H2(session) => {
                // HTTP/2 has `:authority` for the one and its own framing for the other.
                let host = headers.remove(HOST);
                headers.remove(TRANSFER_ENCODING);
                let authority = host.as_ref().map_or(&b""[..], |host| host.as_bytes());
                let uri = Uri::builder().scheme(if self.peer.is_tls() { "https" } else { "http" }).authority(authority);
                let uri = uri.path_and_query(target).build();
                parts.uri = uri.map_err(|_| Loss::new("a target that HTTP/2 cannot carry"))?;
                parts.headers = headers;
                session.write_request_header(Box::new(parts.into()), ends)?;
            }
            session => {
                parts.headers = headers;
                session.write_request_header(Box::new(parts.into())).await?;
            }
        }
        Ok(())
    }

    /// The head of the final answer; 1xx are passed over.
    pub(super) async fn read_head(&mut self) -> Result<Head, Loss> {
        loop {
            // An early answer of HTTP/2 was read already, and pingora panics when it is asked for another.
            if self.session.as_http2().is_none_or(|session| session.response_header().is_none()) {
                self.session.read_response_header().await.inspect_err(|error| self.fall_back(error))?;
            }
            let Some(head) = self.session.response_header() else { return Err(Loss::of_living("no head")) };
            if head.status == StatusCode::SWITCHING_PROTOCOLS {
                return self.switched();
            }
            if head.status.is_informational() && self.session.as_http2().is_some() {
                return Err(Loss::of_living("an interim answer in place of one"));
            }
            if !head.status.is_informational() {
                let mut fields = head.headers.clone();
                headers::strip_hop_by_hop(&mut fields);
                return Ok(Head { status: head.status, headers: fields });
            }
        }
    }

    /// A provider that wants HTTP/1.1 for what it agreed to speak HTTP/2 for gets it the next time.
    fn fall_back(&self, error: &BError) {
        if *error.etype() == H2Downgrade {
            self.home.prefer_http1(&self.peer);
        }
    }

    /// The head of a 101, if it was asked for and switches to what was asked for.
    fn switched(&self) -> Result<Head, Loss> {
        let asked = matches!(&*self.session, HttpSession::H1(session) if session.was_upgraded());
        match self.session.response_header() {
            Some(head) if asked && headers::names_websocket(&head.headers) => {
                let mut fields = head.headers.clone();
                headers::strip_hop_by_hop(&mut fields);
                fields.remove(CONTENT_LENGTH); // nothing but frames follows
                Ok(Head { status: head.status, headers: fields })
            }
            _ => Err(Loss::of_living("101 to a protocol that was not asked for")),
        }
    }

    /// The connection after a 101, beginning with what came right behind its head. `None` where it is not one of HTTP/1.1.
    pub(super) async fn into_stream(mut self) -> Option<Stream> {
        // pingora has those bytes in its buffer and gives them out as a body, before it reads any more.
        let early = poll_fn(|context| match pin!(self.session.read_response_body()).poll(context) {
            Poll::Ready(Ok(Some(bytes))) => Poll::Ready(bytes),
            // An end, or a reset: whoever reads the connection meets it again.
            Poll::Ready(Ok(None) | Err(_)) | Poll::Pending => Poll::Ready(Bytes::new()),
        });
        let early = early.await;
        match *self.session {
            HttpSession::H1(session) => {
                outlet::rewind(session.stream(), early);
                Some(session.into_inner())
            }
            HttpSession::H2(_) | HttpSession::Custom(()) => None,
        }
    }

    /// The head of an answer that came although the request was cut.
    pub(super) async fn last_word(&mut self) -> Result<Head, Option<Loss>> {
        match tokio::time::timeout(LAST_WORD, self.read_head()).await {
            Ok(read) => read.map_err(Some),
            Err(_elapsed) => Err(None),
        }
    }

    /// Whether the body ends only with the connection, so that its end proves nothing.
    pub(super) fn ends_with_connection(&self) -> bool {
        let is_http2 = self.session.as_http2().is_some();
        self.session.response_header().is_some_and(|head| {
            !is_http2 && !head.headers.contains_key(CONTENT_LENGTH) && !head.headers.contains_key(TRANSFER_ENCODING)
        })
    }

    /// Whether the body was read to its end.
    pub(super) fn is_read(&mut self) -> bool {
        self.is_bodiless || self.session.response_done()
    }

    /// The next bytes of the body; `None` at its end. Dropping the future loses nothing.
    pub(super) async fn read_body(&mut self) -> Result<Option<Bytes>, Loss> {
        if self.is_bodiless {
            return Ok(None);
        }
        loop {
            match self.session.read_response_body().await {
                Ok(Some(bytes)) if bytes.is_empty() => {}
                Ok(Some(bytes)) => return Ok(Some(bytes)),
                Ok(None) => return self.read_end().await.map(|()| None).map_err(|loss| self.locate(loss)),
                // A provider may say so that it wants no more of the request, once its answer is complete.
                Err(_) if self.is_refusal_complete() => return Ok(None),
                Err(error) => return Err(self.locate(error.into())),
            }
        }
    }

    /// Trailers are not passed on, but HTTP/2 ends only behind them.
    async fn read_end(&mut self) -> Result<(), Loss> {
        match &mut *self.session {
            HttpSession::H2(session) if !session.response_finished() => {
                session.read_trailers().await?;
                Ok(())
            }
            _ => Ok(()),
        }
    }

    /// Whether all of an answer is there whose length is known, to a request that was not written to its end.
    fn is_refusal_complete(&self) -> bool {
        let Some(session) = self.session.as_http2().filter(|_| !self.is_written) else { return false };
        let length = session.response_header().and_then(|head| head.headers.get(CONTENT_LENGTH));
        let length = length.and_then(|length| length.to_str().ok()?.parse().ok());
        length == Some(session.body_bytes_received())
    }

    /// The answer was read to its end: the connection goes back to the pool, if both sides keep it and nothing of the
    /// request is left to be written.
    pub(super) async fn release(self) {
        let Self { session, peer, home, is_written, is_bodiless, .. } = self;
        if session.as_http2().is_some() || (is_written && !is_bodiless) {
            home.keep(*session, &peer).await;
        }
    }
}
