//! A connection to a provider as pingora sees it: every byte that comes is checked first.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use async_trait::async_trait;
use bytes::{Buf, Bytes, BytesMut};
use parking_lot::Mutex;
use pingora_core::protocols::http::client::HttpSession;
use pingora_core::protocols::http::v1::client::HttpSession as Http1Session;
use pingora_core::protocols::raw_connect::ProxyDigest;
use pingora_core::protocols::tls::SslDigest;
use pingora_core::protocols::{
    ALPN, GetProxyDigest, GetSocketDigest, GetTimingDigest, Peek, Shutdown, SocketDigest, Ssl, Stream, TimingDigest,
    UniqueID, UniqueIDType,
};
use pingora_core::upstreams::peer::HttpPeer;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::upstream::strict::{Answers, Doubt};

/// Head and body of a request leave together up to this size.
const TOGETHER_MAX: usize = 80 * 1024;

/// A connection whose answers are checked. It goes to the pool and comes back as one.
#[derive(Debug)]
struct Outlet {
    stream: Stream,
    answers: Answers,
    /// Read and checked, and to be read again.
    ahead: Mutex<Bytes>,
    /// What is written next is a head that waits for its body.
    holds_head: AtomicBool,
    /// That head.
    unsent: BytesMut,
}

/// Has the answers of a session checked, if they come by HTTP/1.1 and nobody checks them yet.
pub(super) fn watched(session: HttpSession, peer: &HttpPeer) -> HttpSession {
    match session {
        HttpSession::H1(session) if !(**session.stream()).as_any().is::<Outlet>() => {
            let outlet = Outlet::new(session.into_inner());
            HttpSession::H1(Http1Session::new_with_options(Box::new(outlet), peer))
        }
        session => session,
    }
}

/// Has something that was read of a connection read again, before anything else.
pub(super) fn rewind(stream: &Stream, first: Bytes) {
    if let Some(outlet) = outlet_of(stream) {
        *outlet.ahead.lock() = first;
    }
}

/// Keeps the head of a request back until the first bytes of its body are written, which follow at once: they leave in
/// one piece.
pub(super) fn hold_head_back(session: &HttpSession) {
    if let HttpSession::H1(session) = session
        && let Some(outlet) = outlet_of(session.stream())
    {
        outlet.holds_head.store(true, Ordering::Relaxed);
    }
}

fn outlet_of(stream: &Stream) -> Option<&Outlet> {
    (**stream).as_any().downcast_ref()
}

impl Outlet {
    fn new(stream: Stream) -> Self {
        Self {
            stream,
            answers: Answers::default(),
            ahead: Mutex::default(),
            holds_head: AtomicBool::new(false),
            unsent: BytesMut::new(),
        }
    }

    /// Sends what was kept back.
    fn poll_send(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        *self.holds_head.get_mut() = false;
        while !self.unsent.is_empty() {
            match ready!(Pin::new(&mut self.stream).poll_write(cx, &self.unsent))? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                sent => self.unsent.advance(sent),
            }
        }
        self.unsent = BytesMut::new(); // who is in the pool holds no buffer
        Poll::Ready(Ok(()))
    }

    fn refused(doubt: Doubt) -> io::Error {
        io::Error::new(io::ErrorKind::InvalidData, doubt)
    }
}

impl AsyncRead for Outlet {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let ahead = self.ahead.get_mut();
        if !ahead.is_empty() {
            let length = ahead.len().min(buffer.remaining());
            buffer.put_slice(&ahead.split_to(length));
            return Poll::Ready(Ok(()));
        }
        if let Some(doubt) = self.answers.doubt() {
            return Poll::Ready(Err(Self::refused(doubt)));
        }
        let before = buffer.filled().len();
        ready!(Pin::new(&mut self.stream).poll_read(cx, buffer))?;
        match self.answers.push(&buffer.filled()[before..]) {
            // Without a byte it would look like the end of the connection, and that can be the end of an answer.
            Err((0, doubt)) => {
                buffer.set_filled(before);
                Poll::Ready(Err(Self::refused(doubt)))
            }
            Err((sound, _)) => {
                buffer.set_filled(before + sound);
                Poll::Ready(Ok(()))
            }
            Ok(()) => Poll::Ready(Ok(())),
        }
    }
}

impl AsyncWrite for Outlet {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.answers.sends(bytes).map_err(Self::refused)?;
        if *self.holds_head.get_mut() || !self.unsent.is_empty() {
            if self.unsent.len() + bytes.len() <= TOGETHER_MAX {
                *self.holds_head.get_mut() = self.unsent.is_empty();
                self.unsent.extend_from_slice(bytes);
                return Poll::Ready(Ok(bytes.len()));
            }
            ready!(self.poll_send(cx))?;
        }
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.answers.sends(slices.first().map_or(b"", |slice| slice)).map_err(Self::refused)?;
        ready!(self.poll_send(cx))?;
        Pin::new(&mut self.stream).poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if *self.holds_head.get_mut() {
            return Poll::Ready(Ok(()));
        }
        ready!(self.poll_send(cx))?;
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.unsent.clear(); // closing never sends a request
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

// The rest is what pingora knows of the connection itself.

#[async_trait]
impl Shutdown for Outlet {
    async fn shutdown(&mut self) {
        self.stream.shutdown().await;
    }
}

impl UniqueID for Outlet {
    fn id(&self) -> UniqueIDType {
        self.stream.id()
    }
}

impl Ssl for Outlet {
    fn get_ssl_digest(&self) -> Option<Arc<SslDigest>> {
        self.stream.get_ssl_digest()
    }

    fn selected_alpn_proto(&self) -> Option<ALPN> {
        self.stream.selected_alpn_proto()
    }
}

impl Peek for Outlet {}

impl GetTimingDigest for Outlet {
    fn get_timing_digest(&self) -> Vec<Option<TimingDigest>> {
        self.stream.get_timing_digest()
    }

    fn get_read_pending_time(&self) -> Duration {
        self.stream.get_read_pending_time()
    }

    fn get_write_pending_time(&self) -> Duration {
        self.stream.get_write_pending_time()
    }
}

impl GetProxyDigest for Outlet {
    fn get_proxy_digest(&self) -> Option<Arc<ProxyDigest>> {
        self.stream.get_proxy_digest()
    }

    fn set_proxy_digest(&mut self, digest: ProxyDigest) {
        self.stream.set_proxy_digest(digest);
    }
}

impl GetSocketDigest for Outlet {
    fn get_socket_digest(&self) -> Option<Arc<SocketDigest>> {
        self.stream.get_socket_digest()
    }

    fn set_socket_digest(&mut self, digest: SocketDigest) {
        self.stream.set_socket_digest(digest);
    }
}
