//! The pooled connector and one conversation on it: the only part of this room that knows pingora.

mod outlet;

use std::future::poll_fn;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;

use bytes::Bytes;
use http::header::CONTENT_LENGTH;
use http::{HeaderMap, StatusCode};
use pingora_core::connectors::ConnectorOptions;
use pingora_core::connectors::http::Connector as Pool;
use pingora_core::protocols::TcpKeepalive;
use pingora_core::protocols::http::client::HttpSession;
use pingora_core::upstreams::peer::HttpPeer;
use pingora_error::BError;
use pingora_http::RequestHeader;
use tokio::io::{AsyncRead, AsyncWrite};

use super::strict::Doubt;
use super::target::Target;
use crate::answer::Head;
use crate::call::{BodyPart, BodyStream};
use crate::headers;
use crate::time::Duration;

/// How many idle connections are kept, over all upstreams.
const IDLE_MAX: usize = 1_024;
/// How long an idle connection is kept: well under the 60 s after which common servers close theirs.
const IDLE_KEPT: Duration = Duration::from_secs(30);
/// The group of connections that every call may use.
const SHARED: u64 = 0;
/// A large body is written in pieces, so that the write time-out bounds the lack of progress and not the size.
const PIECE: usize = 64 * 1024;
/// How long to look for an answer after the provider stopped reading the request.
const LAST_WORD: Duration = Duration::from_secs(1);

/// A WebSocket may be silent for hours and holds a slot meanwhile: a provider whose machine has gone is noticed within
/// two minutes.
const TCP_KEEPALIVE: TcpKeepalive = TcpKeepalive {
    idle: Duration::from_secs(60),
    interval: Duration::from_secs(15),
    count: 4,
    #[cfg(target_os = "linux")]
    user_timeout: Duration::ZERO,
};

/// Why a conversation ended before its time.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{detail}")]
pub(super) struct Loss {
    /// For the log; says nothing of the content.
    pub(super) detail: String,
}

impl Loss {
    pub(super) fn new(detail: impl Into<String>) -> Self {
        Self { detail: detail.into() }
    }
}

impl From<BError> for Loss {
    fn from(error: BError) -> Self {
        // A context can quote the wire ("buf: …"); the type never does, nor does what our own checker says.
        let cause = error.root_cause().downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref);
        match cause.and_then(|cause| cause.downcast_ref::<Doubt>()) {
            Some(doubt) => Self::new(doubt.to_string()),
            None => Self::new(error.etype().as_str()),
        }
    }
}

/// How writing a request ended.
#[derive(Debug)]
pub(super) enum Sent {
    /// Completely.
    Written,
    /// The client left in the middle of its body.
    ClientLeft,
    /// The provider stopped reading; it may have said why.
    Cut(Loss),
}

/// Connections to all upstreams. One for the whole process.
pub(super) struct Connector(Arc<Pool>);

impl std::fmt::Debug for Connector {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Connector")
    }
}

impl Connector {
    pub(super) fn new() -> Self {
        Self(Arc::new(Pool::new(Some(ConnectorOptions::new(IDLE_MAX)))))
    }

    /// A connection, pooled or new; or always a `fresh` one, for a request that cannot be sent again when the pooled one
    /// turns out to be dead. `connect_timeout` bounds the look-up and all addresses together.
    ///
    /// # Errors
    /// When there is none. Nothing was sent.
    pub(super) async fn connect(&self, target: &Target, fresh: bool) -> Result<Conversation, Loss> {
        let limit = target.settings.connect_timeout;
        // Boxed: connecting is short, waiting for the answer is long, and one future holds room for both.
        match tokio::time::timeout(limit, Box::pin(self.try_addresses(target, fresh))).await {
            Ok(result) => result,
            Err(_elapsed) => Err(Loss::new(format!("no connection within {limit:?}"))),
        }
    }

    async fn try_addresses(&self, target: &Target, fresh: bool) -> Result<Conversation, Loss> {
        let found = target.addresses().await;
        let addresses = found.map_err(|error| Loss::new(format!("name look-up failed: {error}")))?;
        let mut last = Loss::new("the name has no address");
        // One address that swallows everything must not use up the time of the others.
        let each = target.settings.connect_timeout / u32::try_from(addresses.len()).unwrap_or(u32::MAX).max(1);
        for address in addresses {
            let sni = target.settings.base_url.host.clone();
            let mut peer = Box::new(HttpPeer::new(address, target.is_tls(), sni));
            peer.options.set_http_version(1, 1);
            peer.options.total_connection_timeout = Some(each);
            peer.options.tcp_keepalive = Some(TCP_KEEPALIVE);
            // The pool never has a connection of a group that nobody else is in.
            peer.group_key = if fresh { fastrand::u64(1..) } else { SHARED };
            match self.0.get_http_session(&*peer).await {
                Ok((session, reused)) => {
                    peer.group_key = SHARED;
                    let session = Box::new(outlet::watched(session, &peer));
                    let pool = Arc::clone(&self.0);
                    return Ok(Conversation { session, peer, reused, pool });
                }
                Err(error) => last = Loss::from(error),
            }
        }
        Err(last)
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
    session: Box<HttpSession>,
    peer: Box<HttpPeer>,
    reused: bool,
    pool: Arc<Pool>,
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

    /// Bounds each write.
    pub(super) fn set_write_timeout(&mut self, limit: Duration) {
        self.session.set_write_timeout(Some(limit));
    }

    /// Writes a head that says how its body is framed.
    pub(super) async fn write_head(&mut self, head: RequestHead) -> Result<(), Loss> {
        let fields = head.headers.len();
        let mut request = RequestHeader::build_no_case(head.method, head.target.as_bytes(), Some(fields))?;
        for (name, value) in &head.headers {
            request.append_header(name, value)?;
        }
        Ok(self.session.write_request_header(Box::new(request)).await?)
    }

    /// Writes a body that is at hand.
    pub(super) async fn write_whole(&mut self, mut body: Bytes) -> Sent {
        while body.len() > PIECE {
            if let Err(error) = self.session.write_request_body(body.split_to(PIECE), false).await {
                return Sent::Cut(error.into());
            }
        }
        self.write_last(body).await
    }

    async fn write_last(&mut self, body: Bytes) -> Sent {
        if !body.is_empty()
            && let Err(error) = self.session.write_request_body(body, true).await
        {
            return Sent::Cut(error.into());
        }
        match self.session.finish_request_body().await {
            Ok(()) => Sent::Written,
            Err(error) => Sent::Cut(error.into()),
        }
    }

    /// Writes a body as it comes.
    pub(super) async fn write_stream(&mut self, body: &mut BodyStream) -> Sent {
        loop {
            match body.parts.recv().await {
                Some(BodyPart::Data(bytes)) => {
                    if let Err(error) = self.session.write_request_body(bytes, false).await {
                        return Sent::Cut(error.into());
                    }
                }
                Some(BodyPart::End) => return self.write_last(Bytes::new()).await,
                None => return Sent::ClientLeft,
            }
        }
    }

    /// The head of the final answer; 1xx are passed over.
    pub(super) async fn read_head(&mut self) -> Result<Head, Loss> {
        loop {
            self.session.read_response_header().await?;
            let Some(head) = self.session.response_header() else { return Err(Loss::new("no head")) };
            if head.status == StatusCode::SWITCHING_PROTOCOLS {
                return self.switched();
            }
            if !head.status.is_informational() {
                let mut fields = head.headers.clone();
                headers::strip_hop_by_hop(&mut fields);
                return Ok(Head { status: head.status, headers: fields });
            }
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
            _ => Err(Loss::new("101 to a protocol that was not asked for")),
        }
    }

    /// After a 101: what came right behind its head, and the connection. `None` where it is not one of HTTP/1.1.
    pub(super) async fn into_stream(mut self) -> Option<(Bytes, impl AsyncRead + AsyncWrite + Send + Unpin + use<>)> {
        // pingora has those bytes in its buffer and gives them out as a body, before it reads any more.
        let early = poll_fn(|context| match pin!(self.session.read_response_body()).poll(context) {
            Poll::Ready(Ok(Some(bytes))) => Poll::Ready(bytes),
            // An end, or a reset: whoever reads the connection meets it again.
            Poll::Ready(Ok(None) | Err(_)) | Poll::Pending => Poll::Ready(Bytes::new()),
        });
        let early = early.await;
        match *self.session {
            HttpSession::H1(session) => Some((early, session.into_inner())),
            HttpSession::H2(_) | HttpSession::Custom(()) => None,
        }
    }

    /// The head of an answer that came although the request was cut.
    pub(super) async fn last_word(&mut self) -> Option<Head> {
        tokio::time::timeout(LAST_WORD, self.read_head()).await.ok()?.ok()
    }

    /// Whether the body ends only with the connection, so that its end proves nothing.
    pub(super) fn ends_with_connection(&self) -> bool {
        self.session.response_header().is_some_and(|head| {
            !head.headers.contains_key(CONTENT_LENGTH) && !head.headers.contains_key(http::header::TRANSFER_ENCODING)
        })
    }

    /// Whether the body was read to its end.
    pub(super) fn is_read(&mut self) -> bool {
        self.session.response_done()
    }

    /// The next bytes of the body; `None` at its end. Dropping the future loses nothing.
    pub(super) async fn read_body(&mut self) -> Result<Option<Bytes>, Loss> {
        loop {
            match self.session.read_response_body().await? {
                Some(bytes) if bytes.is_empty() => {}
                read => return Ok(read),
            }
        }
    }

    /// The answer was read to its end: the connection goes back to the pool, if both sides keep it.
    pub(super) async fn release(self) {
        self.pool.release_http_session(*self.session, &*self.peer, Some(IDLE_KEPT)).await;
    }
}
