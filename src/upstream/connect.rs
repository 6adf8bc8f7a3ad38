//! The pooled connector. This file, `conversation`, `send`, `outlet`, `idle` and `upgraded` know pingora; nobody else in this
//! room does.

use std::net::SocketAddr;
use std::sync::Arc;

use pingora_core::connectors::ConnectorOptions;
use pingora_core::connectors::http::Connector as Pool;
use pingora_core::protocols::TcpKeepalive;
use pingora_core::protocols::http::client::HttpSession;
use pingora_core::protocols::http::v1::client::HttpSession as Http1Session;
use pingora_core::upstreams::peer::{HttpPeer, Peer as _};
use pingora_error::BError;
use tokio::net::TcpSocket;

use super::conversation::{Conversation, Loss};
use super::idle::{self, Idle};
use super::outlet;
use super::settings::HttpVersion;
use super::target::Target;
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

/// A WebSocket may be silent for hours and holds a slot meanwhile: a provider whose machine has gone is noticed within
/// two minutes.
const TCP_KEEPALIVE: TcpKeepalive = TcpKeepalive {
    idle: Duration::from_secs(60),
    interval: Duration::from_secs(15),
    count: 4,
    #[cfg(target_os = "linux")]
    user_timeout: Duration::ZERO,
};

/// Connections to all upstreams. One for the whole process.
pub(super) struct Connector(Arc<Connections>);

/// pingora connects, and keeps connections of HTTP/2; those of HTTP/1.1 are kept here.
pub(super) struct Connections {
    pool: Pool,
    idle: Idle,
}

impl Connections {
    /// Keeps a connection whose answer was read to its end, if both sides do and every call may use it.
    pub(super) async fn keep(&self, session: HttpSession, peer: &HttpPeer) {
        match session {
            HttpSession::H1(mut session) => {
                session.respect_keepalive();
                if let Some(stream) = session.reuse().await
                    && let Some(peer) = idle_peer(peer)
                {
                    self.idle.give(peer, stream);
                }
            }
            session @ HttpSession::H2(_) if peer.group_key == SHARED => {
                // Boxed, as below: most connections go the other way.
                Box::pin(self.pool.release_http_session(session, peer, Some(IDLE_KEPT))).await;
            }
            HttpSession::H2(_) | HttpSession::Custom(()) => {}
        }
    }

    /// Remembers that a provider wants HTTP/1.1, for those connections that every call may use.
    pub(super) fn prefer_http1(&self, peer: &HttpPeer) {
        if peer.group_key == SHARED {
            self.pool.prefer_h1(peer);
        }
    }
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
        match tokio::time::timeout(limit, self.try_addresses(target, wanted)).await {
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
            if let Some(session) = self.idle(&peer, wanted) {
                return Ok(self.conversation(session, peer, true));
            }
            // Boxed: else the future of each call had room for it, 9 KB, and most calls find an idle connection.
            match Box::pin(self.pooled(&peer, wanted)).await {
                Ok((session, reused)) if session.as_http2().is_some() || !wanted.is_http2_only(target) => {
                    let session = outlet::watched(session, &peer);
                    return Ok(self.conversation(session, peer, reused));
                }
                Ok(_) => last = Loss::new("the upstream does not speak HTTP/2 (upstreams.http)"),
                Err(error) => last = Loss::from(error),
            }
        }
        Err(last)
    }

    /// One that pingora keeps, or a new one. Says which.
    async fn pooled(&self, peer: &HttpPeer, wanted: Wanted) -> Result<(HttpSession, bool), BError> {
        let got = self.0.pool.get_http_session(peer).await;
        if got.is_err() && !wanted.fresh && peer.options.alpn.get_max_http_version() == 2 {
            // It may have been a pooled connection that was dead: it is out of the pool by now.
            return self.0.pool.get_http_session(peer).await;
        }
        got
    }

    /// One of HTTP/1.1 that has served before.
    fn idle(&self, peer: &HttpPeer, wanted: Wanted) -> Option<HttpSession> {
        if wanted.fresh || peer.options.alpn.get_min_http_version() > 1 {
            return None;
        }
        let stream = self.0.idle.take(&idle_peer(peer)?)?;
        Some(HttpSession::H1(Http1Session::new_with_options(stream, peer)))
    }

    /// What begins on a connection, with nothing written yet.
    fn conversation(&self, session: HttpSession, peer: Box<HttpPeer>, reused: bool) -> Conversation {
        let (session, home) = (Box::new(session), Arc::clone(&self.0));
        Conversation { session, peer, reused, home, is_written: false, is_bodiless: false }
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
