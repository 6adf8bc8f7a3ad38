//! The pooled connector and one conversation on it. This file, `send`, `outlet`, `idle` and `upgraded` know pingora; nobody
//! else in this room does.

use std::future::poll_fn;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;

use bytes::Bytes;
use http::header::{CONTENT_LENGTH, HOST, TRANSFER_ENCODING};
use http::{HeaderMap, StatusCode, Uri};
use pingora_core::connectors::ConnectorOptions;
use pingora_core::connectors::http::Connector as Pool;
use pingora_core::protocols::http::client::HttpSession;
use pingora_core::protocols::http::v1::client::HttpSession as Http1Session;
use pingora_core::protocols::{Stream, TcpKeepalive};
use pingora_core::upstreams::peer::{HttpPeer, Peer as _};
use pingora_error::ErrorType::{H2Downgrade, H2Error};
use pingora_error::{BError, RetryType};
use pingora_http::RequestHeader;
use tokio::net::TcpSocket;

use super::idle::{self, Idle};
use super::outlet;
use super::settings::HttpVersion;
use super::strict::Doubt;
use super::target::Target;
use crate::answer::Head;
use crate::headers;
use crate::time::Duration;

/// How many idle connections are kept for an address.
const IDLE_MAX: usize = 1_024;
/// How long an idle connection is kept: well under the 60 s after which common servers close theirs.
const IDLE_KEPT: Duration = Duration::from_secs(30);
/// The group of connections that every call may use.
const SHARED: u64 = 0;
/// Calls on one connection of HTTP/2: so many are lost at most when it is. Together their windows fill that of the
/// connection (8 MiB, pingora's), so that a client who reads slowly holds back no other.
const STREAMS_MAX: usize = 16;
const STREAM_WINDOW: u32 = 512 * 1024;
/// How much of a request may lie unsent in the system. What was written counts as sent ([`crate::limits`]): megabytes on
/// a slow line would be counted by the provider seconds later.
const UNSENT_MAX: u32 = 64 * 1024;
/// How often a connection of HTTP/2 is asked whether it is alive; it has 5 s to answer.
const PING_INTERVAL: Duration = Duration::from_secs(15);
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
    /// The provider says that it did nothing with the request: GOAWAY or REFUSED_STREAM.
    pub(super) is_untouched: bool,
}

impl Loss {
    pub(super) fn new(detail: impl Into<String>) -> Self {
        Self { detail: detail.into(), is_untouched: false }
    }
}

impl From<BError> for Loss {
    fn from(error: BError) -> Self {
        // pingora also calls a provider that breaks the protocol safe to ask again; it may have done the work.
        let is_untouched =
            matches!(error.retry, RetryType::Decided(true)) && matches!(error.etype(), H2Error | H2Downgrade);
        // A context can quote the wire ("buf: …"); the type never does, nor does what our own checker says.
        let cause = error.root_cause().downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref);
        let detail = match cause.and_then(|cause| cause.downcast_ref::<Doubt>()) {
            Some(doubt) => doubt.to_string(),
            None => error.etype().as_str().to_owned(),
        };
        Self { detail, is_untouched }
    }
}

/// Connections to all upstreams. One for the whole process.
pub(super) struct Connector(Arc<Connections>);

/// pingora connects, and keeps connections of HTTP/2; those of HTTP/1.1 are kept here.
pub(super) struct Connections {
    pool: Pool,
    idle: Idle,
}

impl std::fmt::Debug for Connector {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Connector")
    }
}

impl Connector {
    pub(super) fn new() -> Self {
        let (pool, idle) = (Pool::new(Some(ConnectorOptions::new(IDLE_MAX))), Idle::new(IDLE_MAX, IDLE_KEPT));
        Self(Arc::new(Connections { pool, idle }))
    }

    /// Closes idle connections in time. Runs for ever.
    pub(super) async fn sweep(&self) {
        self.0.idle.sweep().await;
    }

    /// A connection, pooled or new. `connect_timeout` bounds the look-up and all addresses together.
    ///
    /// # Errors
    /// When there is none. Nothing was sent.
    pub(super) async fn connect(&self, target: &Target, wanted: Wanted) -> Result<Conversation, Loss> {
        let limit = target.settings.connect_timeout;
        // Boxed: connecting is short, waiting for the answer is long, and one future holds room for both.
        match tokio::time::timeout(limit, Box::pin(self.try_addresses(target, wanted))).await {
            Ok(result) => result,
            Err(_elapsed) => Err(Loss::new(format!("no connection within {limit:?}"))),
        }
    }

    async fn try_addresses(&self, target: &Target, wanted: Wanted) -> Result<Conversation, Loss> {
        let found = target.addresses().await;
        let addresses = found.map_err(|error| Loss::new(format!("name look-up failed: {error}")))?;
        let mut last = Loss::new("the name has no address");
        // One address that swallows everything must not use up the time of the others.
        let each = target.settings.connect_timeout / u32::try_from(addresses.len()).unwrap_or(u32::MAX).max(1);
        for address in addresses {
            let mut peer = Box::new(peer(target, address, wanted));
            peer.options.total_connection_timeout = Some(each);
            if let Some(conversation) = self.idle(&peer, wanted) {
                return Ok(conversation);
            }
            let mut got = self.0.pool.get_http_session(&*peer).await;
            if got.is_err() && !wanted.fresh && peer.options.alpn.get_max_http_version() == 2 {
                // It may have been a pooled connection that was dead: it is out of the pool by now.
                got = self.0.pool.get_http_session(&*peer).await;
            }
            match got {
                Ok((session, reused)) if session.as_http2().is_some() || !wanted.is_http2_only(target) => {
                    let session = Box::new(outlet::watched(session, &peer));
                    let home = Arc::clone(&self.0);
                    return Ok(Conversation { session, peer, reused, home, is_written: false, is_bodiless: false });
                }
                Ok(_) => last = Loss::new("the upstream does not speak HTTP/2 (upstreams.http)"),
                Err(error) => last = Loss::from(error),
            }
        }
        Err(last)
    }

    /// One of HTTP/1.1 that has served before.
    fn idle(&self, peer: &HttpPeer, wanted: Wanted) -> Option<Conversation> {
        if wanted.fresh || peer.options.alpn.get_min_http_version() > 1 {
            return None;
        }
        let stream = self.0.idle.take(&idle_peer(peer)?)?;
        let session = Box::new(HttpSession::H1(Http1Session::new_with_options(stream, peer)));
        let (peer, home) = (Box::new(peer.clone()), Arc::clone(&self.0));
        Some(Conversation { session, peer, reused: true, home, is_written: false, is_bodiless: false })
    }
}

/// Under whom a connection of HTTP/1.1 is kept.
fn idle_peer(peer: &HttpPeer) -> Option<idle::Peer> {
    let address = *peer.address().as_inet()?;
    Some(idle::Peer { address, tls_name: peer.is_tls().then(|| peer.sni().into()) })
}

/// What a connection is for.
#[derive(Debug, Clone, Copy)]
pub(super) struct Wanted {
    /// Not a pooled one: the request cannot be sent again when that turns out to be dead.
    pub(super) fresh: bool,
    /// It is to become a WebSocket, which only HTTP/1.1 can.
    pub(super) switches: bool,
}

impl Wanted {
    fn is_http2_only(self, target: &Target) -> bool {
        !self.switches && target.settings.http == HttpVersion::Http2
    }
}

fn peer(target: &Target, address: SocketAddr, wanted: Wanted) -> HttpPeer {
    let sni = target.settings.base_url.host.clone();
    let mut peer = HttpPeer::new(address, target.is_tls(), sni);
    share(&mut peer);
    if wanted.fresh {
        // The pool never has a connection of a group that nobody else is in, nor one that has no stream to spare.
        peer.group_key = fastrand::u64(1..);
        peer.options.max_h2_streams = 1;
    }
    match target.settings.http {
        _ if wanted.switches => peer.options.set_http_version(1, 1),
        HttpVersion::Http1 => peer.options.set_http_version(1, 1),
        HttpVersion::Http2 => peer.options.set_http_version(2, 2),
        HttpVersion::Auto if target.is_tls() => peer.options.set_http_version(2, 1),
        HttpVersion::Auto => peer.options.set_http_version(1, 1),
    }
    peer.options.tcp_keepalive = Some(TCP_KEEPALIVE);
    peer.options.upstream_tcp_sock_tweak_hook = Some(Arc::new(|socket: &TcpSocket| {
        // Where the system does not let us, its own buffer is the bound.
        drop(socket2::SockRef::from(socket).set_tcp_notsent_lowat(UNSENT_MAX));
        Ok(())
    }));
    peer.options.h2_ping_interval = Some(PING_INTERVAL);
    peer.options.h2_stream_window_size = Some(STREAM_WINDOW);
    peer
}

/// Lets every call use the connections of a peer.
fn share(peer: &mut HttpPeer) {
    peer.group_key = SHARED;
    peer.options.max_h2_streams = STREAMS_MAX;
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
            let Some(head) = self.session.response_header() else { return Err(Loss::new("no head")) };
            if head.status == StatusCode::SWITCHING_PROTOCOLS {
                return self.switched();
            }
            if head.status.is_informational() && self.session.as_http2().is_some() {
                return Err(Loss::new("an interim answer in place of one"));
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
        if *error.etype() == H2Downgrade && self.peer.group_key == SHARED {
            self.home.pool.prefer_h1(&*self.peer);
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
                Ok(None) => return self.read_end().await.map(|()| None),
                // A provider may say so that it wants no more of the request, once its answer is complete.
                Err(_) if self.is_refusal_complete() => return Ok(None),
                Err(error) => return Err(error.into()),
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
        match *session {
            HttpSession::H1(mut session) if is_written && !is_bodiless => {
                session.respect_keepalive();
                if let Some(stream) = session.reuse().await
                    && let Some(peer) = idle_peer(&peer)
                {
                    home.idle.give(peer, stream);
                }
            }
            session @ HttpSession::H2(_) if peer.group_key == SHARED => {
                home.pool.release_http_session(session, &*peer, Some(IDLE_KEPT)).await;
            }
            HttpSession::H1(_) | HttpSession::H2(_) | HttpSession::Custom(()) => {}
        }
    }
}
