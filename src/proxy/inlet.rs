//! A client's connection as pingora sees it: every byte that comes is checked first, and small writes leave together.
//!
//! pingora reads what others refuse: bare line feeds, for one. Here a second, strict reader looks at each byte before it
//! does; what the two could understand differently never reaches it.

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, RawFd};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll, ready};

use async_trait::async_trait;
use bytes::{Buf, Bytes, BytesMut};
use pingora_core::protocols::raw_connect::ProxyDigest;
use pingora_core::protocols::{
    GetProxyDigest, GetSocketDigest, GetTimingDigest, Peek, Shutdown, SocketDigest, Ssl, TimingDigest, UniqueID,
    UniqueIDType,
};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::server::TlsStream;

use super::strict::{Strict, Violation};

/// So much is read at once when a request begins: most heads and many bodies.
const AHEAD: usize = 4 * 1024;
/// So much of what a client sends ahead of its turn is read.
const NEXT_MAX: usize = 64 * 1024;
/// Writes up to this size wait for the next flush; head and body of an answer are two.
const COALESCED: usize = 16 * 1024;
/// What an HTTP/2 client begins with (RFC 9113, section 3.4).
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// A transport that clients come by.
pub(super) trait Transport: AsyncRead + AsyncWrite + std::fmt::Debug + Send + Sync + Unpin + 'static {
    fn fd(&self) -> RawFd;

    /// Has the connection be reset when it is dropped, so that nobody takes its end for a proper one.
    fn reset_on_drop(&self);
}

impl Transport for TcpStream {
    fn fd(&self) -> RawFd {
        self.as_raw_fd()
    }

    fn reset_on_drop(&self) {
        // A connection that has gone needs no reset.
        drop(socket2::SockRef::from(self).set_linger(Some(std::time::Duration::ZERO)));
    }
}

impl Transport for TlsStream<TcpStream> {
    fn fd(&self) -> RawFd {
        self.get_ref().0.as_raw_fd()
    }

    fn reset_on_drop(&self) {
        self.get_ref().0.reset_on_drop();
    }
}

/// What a connection and the request that it serves tell each other.
#[derive(Debug, Default)]
pub(super) struct Watch {
    /// What the connection was found guilty of, if anything.
    violation: OnceLock<Violation>,
    /// The request was read to its end: what follows belongs to the next one, and waits.
    keeps_back: AtomicBool,
}

pub(super) type Verdict = Arc<Watch>;

impl Watch {
    /// Why the connection is not to be trusted any more.
    pub(super) fn violation(&self) -> Option<&Violation> {
        self.violation.get()
    }

    /// From here on whoever reads learns only of the end of the connection. Until then pingora would take the first byte
    /// of a next request for all there is to learn.
    pub(super) fn keep_back(&self) {
        self.keeps_back.store(true, Ordering::Relaxed);
    }
}

/// One client's connection.
#[derive(Debug)]
pub(super) struct Inlet<T> {
    transport: T,
    /// Read and checked, and not handed on yet.
    ahead: Bytes,
    /// Reads along, while the connection speaks HTTP/1.1.
    strict: Option<Box<Strict>>,
    verdict: Verdict,
    /// Written, and not sent yet.
    unsent: BytesMut,
}

impl<T: Transport> Inlet<T> {
    /// A connection of which nothing was read.
    pub(super) fn new(transport: T) -> Self {
        Self { transport, ahead: Bytes::new(), strict: None, verdict: Verdict::default(), unsent: BytesMut::new() }
    }

    /// Why it is not to be trusted any more.
    pub(super) fn verdict(&self) -> Verdict {
        Arc::clone(&self.verdict)
    }

    /// Reads until it is clear whether the client speaks HTTP/2 at once (*prior knowledge*). What was read is kept.
    ///
    /// # Errors
    /// When the connection breaks. Dropping the future loses nothing.
    pub(super) async fn begins_with_http2(&mut self) -> io::Result<bool> {
        loop {
            let begun = &self.ahead[..self.ahead.len().min(PREFACE.len())];
            if begun == PREFACE || !PREFACE.starts_with(begun) {
                return Ok(begun == PREFACE);
            }
            if !self.read_ahead().await? {
                return Ok(false);
            }
        }
    }

    /// From here on the connection speaks HTTP/1.1, and is watched.
    pub(super) fn watch(&mut self) {
        let mut strict = Box::new(Strict::default());
        let seen = strict.push(&self.ahead);
        self.strict = Some(strict);
        if let Err((passed, violation)) = seen {
            self.ahead.truncate(passed);
            self.accuse(violation);
        }
    }

    /// Closes the connection as one that broke.
    pub(super) fn reset(self) {
        self.transport.reset_on_drop();
    }

    /// From here on nobody reads along: a tunnel, or what nobody will read.
    pub(super) fn unwatch(&mut self) {
        self.verdict.keeps_back.store(false, Ordering::Relaxed);
        self.strict = None;
    }

    /// The request was answered: another one may follow, and what pingora has read of it is given back.
    pub(super) fn next_request(&mut self, prefix: &[u8]) {
        self.verdict.keeps_back.store(false, Ordering::Relaxed);
        if let Some(strict) = &mut self.strict {
            strict.declined(); // if it was a handshake, it was not answered with 101
        }
        self.ahead =
            if self.ahead.is_empty() { Bytes::copy_from_slice(prefix) } else { [prefix, &self.ahead].concat().into() };
    }

    /// Completes when the client has begun a request: `false` when it has left instead, or sent what cannot be one and
    /// is told so when it is read. Dropping the future loses nothing.
    pub(super) async fn has_begun(&mut self) -> bool {
        !self.ahead.is_empty() || matches!(self.read_ahead().await, Ok(true)) || self.verdict.violation().is_some()
    }

    /// Reads what is there. `false`: nothing any more.
    async fn read_ahead(&mut self) -> io::Result<bool> {
        std::future::poll_fn(|cx| {
            // On the stack of the poll: who idles holds no buffer.
            let mut bytes = [MaybeUninit::uninit(); AHEAD];
            let mut buffer = ReadBuf::uninit(&mut bytes);
            ready!(self.poll_checked(cx, &mut buffer))?;
            if !buffer.filled().is_empty() {
                self.ahead = [&self.ahead, buffer.filled()].concat().into();
            }
            Poll::Ready(Ok(!buffer.filled().is_empty()))
        })
        .await
    }

    /// Reads from the transport, and shows the strict reader what came.
    fn poll_checked(&mut self, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let refused = || Poll::Ready(Err(io::Error::new(io::ErrorKind::InvalidData, "not sound HTTP")));
        if self.strict.is_some() && self.verdict.violation().is_some() {
            return refused();
        }
        let before = buffer.filled().len();
        ready!(Pin::new(&mut self.transport).poll_read(cx, buffer))?;
        let Some(strict) = &mut self.strict else { return Poll::Ready(Ok(())) };
        let Err((passed, violation)) = strict.push(&buffer.filled()[before..]) else { return Poll::Ready(Ok(())) };
        self.accuse(violation);
        buffer.set_filled(before + passed);
        if passed == 0 { refused() } else { Poll::Ready(Ok(())) }
    }

    /// Keeps what comes for the next request, and completes only at the end of the connection. Nothing is passed on that
    /// is not sound, but for bytes behind a handshake that nobody can answer any more.
    fn poll_end(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.ahead.len() < NEXT_MAX {
            let is_handshake = self.strict.as_ref().is_some_and(|strict| strict.is_handshake());
            let mut bytes = [MaybeUninit::uninit(); AHEAD];
            let mut buffer = ReadBuf::uninit(&mut bytes);
            if self.verdict.violation().is_some() {
                // It will be refused in its turn; what follows it is of no interest.
                ready!(Pin::new(&mut self.transport).poll_read(cx, &mut buffer))?;
            } else {
                match ready!(self.poll_checked(cx, &mut buffer)) {
                    Err(error) if is_handshake || self.verdict.violation().is_none() => return Poll::Ready(Err(error)),
                    Err(_) => continue,
                    Ok(()) => self.ahead = [&self.ahead, buffer.filled()].concat().into(),
                }
            }
            if buffer.filled().is_empty() {
                return Poll::Ready(Ok(()));
            }
        }
        // It has to wait until its next requests are read; until then nobody looks whether it is there.
        Poll::Pending
    }

    fn accuse(&self, violation: Violation) {
        self.verdict.violation.get_or_init(|| violation);
    }

    /// Sends what was held back.
    fn poll_send(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.unsent.is_empty() {
            match ready!(Pin::new(&mut self.transport).poll_write(cx, &self.unsent))? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                sent => self.unsent.advance(sent),
            }
        }
        // Whoever idles next holds no buffer.
        self.unsent = BytesMut::new();
        Poll::Ready(Ok(()))
    }
}

impl<T: Transport> AsyncRead for Inlet<T> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.verdict.keeps_back.load(Ordering::Relaxed) {
            return self.poll_end(cx);
        }
        if self.ahead.is_empty() {
            return self.poll_checked(cx, buffer);
        }
        let length = self.ahead.len().min(buffer.remaining());
        buffer.put_slice(&self.ahead.split_to(length));
        if self.ahead.is_empty() {
            self.ahead = Bytes::new();
        }
        Poll::Ready(Ok(()))
    }
}

impl<T: Transport> AsyncWrite for Inlet<T> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        // HTTP/2 and tunnels write what belongs together in one piece.
        if self.strict.is_some() && self.unsent.len() + bytes.len() <= COALESCED {
            self.unsent.extend_from_slice(bytes);
            return Poll::Ready(Ok(bytes.len()));
        }
        ready!(self.poll_send(cx))?;
        Pin::new(&mut self.transport).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        ready!(self.poll_send(cx))?;
        Pin::new(&mut self.transport).poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.strict.is_none() && self.transport.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_send(cx))?;
        Pin::new(&mut self.transport).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_send(cx))?;
        Pin::new(&mut self.transport).poll_shutdown(cx)
    }
}

#[async_trait]
impl<T: Transport> Shutdown for Inlet<T> {
    async fn shutdown(&mut self) {
        // A client that has gone cannot be told.
        drop(AsyncWriteExt::shutdown(self).await);
    }
}

impl<T: Transport> UniqueID for Inlet<T> {
    fn id(&self) -> UniqueIDType {
        self.transport.fd()
    }
}

// What pingora would like to know of a connection, and nobody of ours asks it for.
impl<T: Transport> Ssl for Inlet<T> {}
impl<T: Transport> Peek for Inlet<T> {}

impl<T: Transport> GetTimingDigest for Inlet<T> {
    fn get_timing_digest(&self) -> Vec<Option<TimingDigest>> {
        Vec::new()
    }
}

impl<T: Transport> GetProxyDigest for Inlet<T> {
    fn get_proxy_digest(&self) -> Option<Arc<ProxyDigest>> {
        None
    }
}

impl<T: Transport> GetSocketDigest for Inlet<T> {
    fn get_socket_digest(&self) -> Option<Arc<SocketDigest>> {
        None
    }
}
