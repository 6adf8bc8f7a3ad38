//! The client port: binding it, and taking connections in as long as there is room.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::pin::pin;
use std::sync::Arc;

use rustls::ServerConfig;
use socket2::{Domain, Protocol, Socket, TcpKeepalive, Type};
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use super::cause::Refused;
use super::connection::Connection;
use super::inlet::Inlet;
use super::{Proxy, Shared, reply};
use crate::ids::{CallId, ClientId};
use crate::metrics::Present;
use crate::time::{self, Duration};

const BACKLOG: i32 = 4_096;
/// How long a newcomer waits for an idle connection to make room for it: several times as long as that has to leave, since
/// on a busy machine all of it takes longer.
const ROOM_WAIT: Duration = Duration::from_millis(500);
/// How long it waits when nobody idles: others are behind it.
const NO_WAIT: Duration = Duration::from_millis(30);
/// How long to wait when the system has nothing left for one more connection.
const EXHAUSTED: Duration = Duration::from_millis(50);
/// So many of those who find no room are told so at a time; the others are just closed.
const TOLD_MAX: usize = 64;
/// How long one who is told may take to hear it.
const TOLD: Duration = Duration::from_secs(1);
/// A client that vanished without a word is noticed within a minute, also while it waits in line.
const KEEPALIVE: TcpKeepalive =
    TcpKeepalive::new().with_time(Duration::from_secs(30)).with_interval(Duration::from_secs(10)).with_retries(3);
/// What HTTP/2 is called in the negotiation of TLS (RFC 9113, section 3.2).
const H2: &[u8] = b"h2";

/// Binds the client port.
///
/// # Errors
/// When the address is in use, or not ours to use.
pub fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    socket.set_nonblocking(true)?;
    Ok(socket.into())
}

/// Serves clients until `stop` says so; then it accepts no more, while calls under way go on. Dropping the future does
/// the same.
///
/// # Errors
/// When the listener cannot be used.
pub async fn serve(
    proxy: Proxy,
    listener: TcpListener,
    tls: Option<Arc<ServerConfig>>,
    mut stop: watch::Receiver<bool>,
) -> io::Result<()> {
    let listener = tokio::net::TcpListener::from_std(listener)?;
    let tls = tls.map(TlsAcceptor::from);
    let shared = proxy.0;
    let mut is_exhausted = false;
    loop {
        let accepted = tokio::select! {
            biased;
            _ = stop.wait_for(|&stopped| stopped) => return Ok(()),
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, _)) => {
                is_exhausted = false;
                shared.welcome(stream, tls.as_ref(), &stop).await;
            }
            Err(error) if is_of_the_client(&error) => {}
            Err(error) => {
                // No descriptor or no memory left: who idles has to go.
                if !std::mem::replace(&mut is_exhausted, true) {
                    tracing::warn!(%error, "cannot accept connections");
                }
                shared.wanted.notify_one();
                tokio::time::sleep(EXHAUSTED).await;
                shared.forget_wish();
            }
        }
    }
}

impl Shared {
    /// Serves a connection in a task of its own, or turns it away when there is no room.
    async fn welcome(self: &Arc<Self>, stream: TcpStream, tls: Option<&TlsAcceptor>, stop: &watch::Receiver<bool>) {
        if !self.has_room().await {
            if tls.is_none() {
                self.turn_away(stream);
            }
            return;
        }
        // A client that has gone already is noticed soon enough.
        drop(stream.set_nodelay(true));
        drop(socket2::SockRef::from(&stream).set_tcp_keepalive(&KEEPALIVE));
        let (shared, stop, tls) = (Arc::clone(self), stop.clone(), tls.cloned());
        let guest = Guest { present: Some(self.metrics.connection()), shared: Arc::clone(self) };
        self.connections.spawn(async move {
            let _guest = guest;
            let connection = Connection { shared, stop };
            match tls {
                None => connection.serve_clear(stream).await,
                Some(tls) => serve_tls(connection, &tls, stream).await,
            }
        });
    }

    /// Whether one more connection fits; if not, the one that has been idle for longest is asked to go.
    async fn has_room(&self) -> bool {
        let is_full = || {
            let open = usize::try_from(self.metrics.connections_open()).unwrap_or(0);
            open >= self.bounds.load().connections_max
        };
        if !is_full() {
            return true;
        }
        self.wanted.notify_one();
        let left = async {
            while is_full() {
                self.left.notified().await;
            }
        };
        // Is the wish still there? Then nobody idles who could hear of it, and only who is just leaving makes room.
        let is_heard = !pin!(self.wanted.notified()).as_mut().enable();
        let wait = if is_heard { ROOM_WAIT } else { NO_WAIT };
        if !is_heard {
            self.wanted.notify_one();
        }
        let has_room = timeout(wait, left).await.is_ok();
        self.forget_wish();
        has_room
    }

    /// Nobody needs room any more: if no one was idle to hear of it, the next to idle must not go for it.
    fn forget_wish(&self) {
        pin!(self.wanted.notified()).as_mut().enable();
    }

    fn turn_away(self: &Arc<Self>, stream: TcpStream) {
        if self.few.available_permits() == 0 {
            return;
        }
        let shared = Arc::clone(self);
        self.connections.spawn(async move {
            let Ok(_one_of_few) = shared.few.try_acquire() else { return };
            let why = Refused::TooManyConnections;
            shared.turned_away(CallId::random(), ClientId::Everybody, time::now(), &why);
            tell(stream, &why).await;
        });
    }
}

/// How many are told at a time that there is no room.
pub(super) fn few() -> tokio::sync::Semaphore {
    tokio::sync::Semaphore::new(TOLD_MAX)
}

/// Says why a connection is not served, and closes it.
async fn tell(stream: TcpStream, why: &Refused) {
    // It is short enough for the socket's buffer; who does not take it has gone.
    if stream.writable().await.is_ok() && stream.try_write(&reply::on_the_wire(why)).is_ok() {
        drop(timeout(TOLD, hear_out(stream)).await);
    }
}

/// Reads what a client sends until it leaves: a connection closed with something unread is reset, and what we said lost.
async fn hear_out(mut stream: TcpStream) {
    let closed = socket2::SockRef::from(&stream).shutdown(std::net::Shutdown::Write);
    let mut nowhere = [0; 1024];
    while closed.is_ok() && matches!(stream.read(&mut nowhere).await, Ok(1..)) {}
}

/// Counts a connection while it is open.
struct Guest {
    present: Option<Present>,
    shared: Arc<Shared>,
}

impl Drop for Guest {
    fn drop(&mut self) {
        self.present = None; // first of all: whoever is notified counts again
        self.shared.left.notify_one();
    }
}

async fn serve_tls(connection: Connection, tls: &TlsAcceptor, stream: TcpStream) {
    let limit = connection.shared.bounds.load().header_timeout;
    let stream = match connection.unless_unwanted(limit, secured(tls, stream)).await {
        Some(Secured::Stream(stream)) => *stream,
        Some(Secured::Plain(stream)) => return tell(stream, &Refused::NeedsTls).await,
        Some(Secured::Failed) | None => return,
    };
    let speaks_http2 = stream.get_ref().1.alpn_protocol() == Some(H2);
    let inlet = Box::new(Inlet::new(stream));
    if speaks_http2 { connection.serve_http2(inlet).await } else { connection.serve_http1(inlet).await }
}

/// What becomes of a handshake.
enum Secured {
    Stream(Box<TlsStream<TcpStream>>),
    /// The client speaks HTTP, without TLS.
    Plain(TcpStream),
    /// It speaks no TLS that we do, which TLS itself has told it, or it has left.
    Failed,
}

async fn secured(tls: &TlsAcceptor, stream: TcpStream) -> Secured {
    let mut first = [0];
    match stream.peek(&mut first).await {
        Ok(1) if first[0].is_ascii_alphabetic() => return Secured::Plain(stream),
        Ok(1..) => {}
        Ok(0) | Err(_) => return Secured::Failed,
    }
    tls.accept(stream).await.map_or(Secured::Failed, |stream| Secured::Stream(Box::new(stream)))
}

/// Whether accepting failed because of the one client that was to be accepted.
fn is_of_the_client(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset, Interrupted, PermissionDenied};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset | Interrupted | PermissionDenied)
}
