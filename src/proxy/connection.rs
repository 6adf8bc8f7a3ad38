//! From a connection to its requests: one after the other over HTTP/1.1, side by side over HTTP/2.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use http::Version;
use pingora_core::protocols::http::ServerSession;
use pingora_core::protocols::http::v1::server::HttpSession as Http1;
use pingora_core::protocols::http::v2::server::{H2Accept, H2Options, HttpSession as Http2, handshake};
use pingora_core::protocols::{Digest, Stream};
use pingora_error::{Error, ErrorType};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::{Notify, watch};
use tokio::time::{timeout, timeout_at};
use tokio_util::task::task_tracker::TaskTrackerToken;

use super::cause::{After, Refused};
use super::downstream::Downstream;
use super::inlet::{Inlet, Transport, Verdict};
use super::{Bounds, Shared, reply};
use crate::ids::{CallId, ClientId};
use crate::time::{self, Duration, Instant};

/// Requests at a time on one HTTP/2 connection: many, since waiting is what they come for. The queue has bounds of its own.
const STREAMS_MAX: u32 = 1_000;
/// What a client may send ahead of our reading, on one stream and on all of a connection.
const STREAM_WINDOW: u32 = 256 * 1024;
const CONNECTION_WINDOW: u32 = 256 * 1024;
/// What is kept for a slow reader of one stream.
const STREAM_UNSENT_MAX: usize = 64 * 1024;
/// The largest header list of HTTP/2, in bytes as RFC 9113 (section 6.5.2) counts them.
const HEADERS_MAX: u32 = 64 * 1024;
/// So many malformed streams, and the connection is closed.
const MALFORMED_MAX: u32 = 32;
/// How often is looked whether what streams have left behind is on the wire.
const GLANCE: Duration = Duration::from_millis(10);
/// A client that is still sending gets so long to read our answer before the connection is reset; so long has one of
/// HTTP/2 to agree that its connection is closed.
const LINGER: Duration = Duration::from_secs(2);
/// How long it has for that when somebody else waits for its room.
const HURRIED: Duration = Duration::from_millis(100);
/// How long saying goodbye to one who idles may take.
const FAREWELL: Duration = Duration::from_secs(1);

/// A connection and those it may have to make room for.
pub(super) struct Connection {
    pub(super) shared: Arc<Shared>,
    pub(super) stop: watch::Receiver<bool>,
}

/// What a request left behind.
enum Left<T> {
    /// The connection can serve the next one.
    Connection(Box<Inlet<T>>),
    /// Nothing.
    Nothing,
}

impl Connection {
    /// Serves a connection in clear: HTTP/1.1, or HTTP/2 if it begins so.
    pub(super) async fn serve_clear<T: Transport>(self, transport: T) {
        let mut inlet = Box::new(Inlet::new(transport));
        let limit = self.shared.bounds.load().header_timeout;
        match self.unless_unwanted(limit, inlet.begins_with_http2()).await {
            Some(Ok(true)) => self.serve_http2(inlet).await,
            Some(Ok(false)) => self.serve_http1(inlet).await,
            Some(Err(_)) | None => {}
        }
    }

    /// Serves requests one after the other.
    pub(super) async fn serve_http1<T: Transport>(self, mut inlet: Box<Inlet<T>>) {
        inlet.watch();
        let mut idle = self.shared.bounds.load().header_timeout;
        loop {
            match self.unless_unwanted(idle, inlet.has_begun()).await {
                Some(true) => {}
                Some(false) => return,
                // Over TLS, an end that is not announced could be an attacker's.
                None => return drop(timeout(FAREWELL, inlet.shutdown()).await),
            }
            let bounds = **self.shared.bounds.load();
            idle = bounds.idle_timeout;
            inlet = match self.serve_one(inlet, &bounds).await {
                Left::Connection(inlet) => inlet,
                Left::Nothing => return,
            };
        }
    }

    /// Serves a request that has begun.
    async fn serve_one<T: Transport>(&self, inlet: Box<Inlet<T>>, bounds: &Bounds) -> Left<T> {
        let verdict = inlet.verdict();
        let mut session = ServerSession::new_http1(inlet);
        session.set_pipelining_enabled(true);
        session.set_read_timeout(None); // ours are around each read
        session.set_write_timeout(Some(bounds.write_timeout));
        match timeout(bounds.header_timeout, session.read_request()).await {
            Ok(Ok(true)) => {}
            Ok(unread) => {
                if let Some(refused) = why_unread(&verdict, unread.err().as_deref()) {
                    self.shared.turned_away(CallId::random(), ClientId::Everybody, time::now(), &refused);
                    let told = timeout(bounds.write_timeout, reply::refuse_connection(&mut session, &refused)).await;
                    if told.is_ok() {
                        linger::<T>(session).await;
                    }
                }
                return Left::Nothing;
            }
            Err(_elapsed) => return Left::Nothing,
        }
        // A client of HTTP/1.0 that does not ask for more reads until we close.
        let keeps = session.get_keepalive().is_some() && !*self.stop.borrow();
        session.set_keepalive(keeps.then(|| bounds.idle_timeout.as_secs().max(1)));
        let serving = self.shared.calls.token();
        let downstream = Downstream::new(&mut session, bounds, Some(&verdict));
        match self.shared.serve(downstream, bounds).await {
            After::Keep => match timeout(bounds.write_timeout, reuse(session, serving)).await {
                Ok(left) => left,
                Err(_elapsed) => Left::Nothing,
            },
            After::Close => {
                // HTTP/1.0 takes the end of the connection for the end of an answer.
                if session.req_header().version == Version::HTTP_10
                    && let Some(inlet) = inlet_of::<T>(session)
                {
                    inlet.reset();
                }
                Left::Nothing
            }
            After::Linger => {
                linger::<T>(session).await;
                Left::Nothing
            }
            After::Tunnel(tunnel) => {
                if let Some(mut inlet) = inlet_of::<T>(session) {
                    inlet.unwatch();
                    tunnel.run(inlet, bounds.write_timeout, &self.shared.cut).await;
                }
                Left::Nothing
            }
        }
    }

    /// Serves requests side by side.
    pub(super) async fn serve_http2<T: Transport>(self, inlet: Box<Inlet<T>>) {
        // So much it has for its first request.
        let mut patience = self.shared.bounds.load().header_timeout;
        let stream: Stream = inlet;
        let Ok(Ok(mut connection)) = timeout(patience, handshake(stream, Some(options()))).await else { return };
        let (running, digest, mut malformed) = (Running::default(), Arc::new(Digest::default()), 0);
        let (mut phase, mut is_closing, mut stop) = (Phase::Idle, false, self.stop.clone());
        loop {
            let accepted = tokio::select! {
                biased;
                () = stopped(&mut stop), if !is_closing => {
                    // The client is told to open no more streams; those it has go on.
                    connection.graceful_shutdown();
                    (is_closing, patience) = (true, LINGER);
                    continue;
                }
                // This moves everything on the connection, what its streams have written included.
                accepted = Http2::from_h2_conn(&mut connection, Arc::clone(&digest)) => accepted,
                () = phase.passes(&running) => {
                    phase = phase.next(is_closing, connection.has_streams());
                    continue;
                }
                is_hurried = self.is_unwanted(patience), if phase.is_quiet() => {
                    if is_closing {
                        return;
                    }
                    // A stream that it has opened meanwhile is served: it learns which was the last.
                    connection.graceful_shutdown();
                    (is_closing, patience) = (true, if is_hurried { HURRIED } else { LINGER });
                    continue;
                }
            };
            match accepted {
                Ok(Some(H2Accept::Session(session))) => {
                    let bounds = self.shared.bounds.load();
                    phase = Phase::Busy(self.shared.calls.token(), bounds.write_timeout);
                    patience = if is_closing { LINGER } else { bounds.idle_timeout };
                    self.begin(ServerSession::new_http2(session), running.one_more());
                }
                Ok(Some(H2Accept::Rejected)) if malformed < MALFORMED_MAX => malformed += 1,
                Ok(Some(H2Accept::Rejected) | None) | Err(_) => return,
            }
        }
    }

    /// Serves one stream, in a task of its own: the connection makes progress only while it is polled.
    fn begin(&self, mut session: ServerSession, running: Run) {
        let (shared, bounds) = (Arc::clone(&self.shared), **self.shared.bounds.load());
        let serving = self.shared.calls.token();
        self.shared.connections.spawn(async move {
            session.set_write_timeout(Some(bounds.write_timeout));
            let after = shared.serve(Downstream::new(&mut session, &bounds, None), &bounds).await;
            if matches!(after, After::Close) {
                session.shutdown().await; // RST_STREAM: what came is not all there is
            }
            drop((session, serving, running));
        });
    }

    /// Waits for a client that holds nothing of us but its connection: no longer than `limit`, and only while we do not
    /// drain and nobody else needs the room. `None`: it has to go.
    pub(super) async fn unless_unwanted<O>(&self, limit: Duration, client: impl Future<Output = O>) -> Option<O> {
        let mut stop = self.stop.clone();
        tokio::select! {
            biased;
            happened = client => Some(happened),
            () = stopped(&mut stop) => None,
            // Those who wait longest are told first.
            () = self.shared.wanted.notified() => None,
            () = tokio::time::sleep(limit) => None,
        }
    }

    /// Completes when a connection without requests has to go: after `limit`, or (`true`) since somebody needs the room.
    async fn is_unwanted(&self, limit: Duration) -> bool {
        tokio::select! {
            () = self.shared.wanted.notified() => true,
            () = tokio::time::sleep(limit) => false,
        }
    }
}

/// Completes when the drain begins.
async fn stopped(stop: &mut watch::Receiver<bool>) {
    if stop.wait_for(|&stopped| stopped).await.is_err() {
        std::future::pending().await
    }
}

/// Why no request could be read, if it was the request's fault. `None`: the client has left.
fn why_unread(verdict: &Verdict, error: Option<&Error>) -> Option<Refused> {
    match verdict.violation() {
        Some(violation) => Some(Refused::Unsound(*violation)),
        None => error.filter(|error| *error.etype() == ErrorType::InvalidHTTPHeader).map(|_| Refused::NOT_HTTP),
    }
}

async fn reuse<T: Transport>(session: ServerSession, serving: TaskTrackerToken) -> Left<T> {
    let reusable = session.finish().await;
    drop(serving);
    let Ok(Some(reusable)) = reusable else { return Left::Nothing };
    let (stream, prefix) = reusable.into_parts();
    let Ok(mut inlet) = stream.into_any().downcast::<Inlet<T>>() else { return Left::Nothing };
    inlet.next_request(&prefix.unwrap_or_default());
    Left::Connection(inlet)
}

/// The raw connection under a session of HTTP/1.1.
fn inlet_of<T: Transport>(session: ServerSession) -> Option<Box<Inlet<T>>> {
    let ServerSession::H1(session) = session else { return None };
    Http1::into_inner(session).into_any().downcast().ok()
}

/// Closes a connection on which the client still sends: closed at once, it would be reset, and the client might never
/// see the answer (RFC 9112, section 9.6).
async fn linger<T: Transport>(session: ServerSession) {
    let Some(mut inlet) = inlet_of::<T>(session) else { return };
    inlet.unwatch(); // whatever it is that comes, nobody will try to understand it
    let until = time::now() + LINGER;
    if !matches!(timeout_at(until, inlet.shutdown()).await, Ok(Ok(()))) {
        return;
    }
    let mut nowhere = [0; 4 * 1024];
    // The time-out alone never ends it: for who sends without a pause there is always something to read.
    while time::now() < until && matches!(timeout_at(until, inlet.read(&mut nowhere)).await, Ok(Ok(1..))) {}
}

fn options() -> H2Options {
    let mut options = H2Options::default();
    options
        .max_concurrent_streams(STREAMS_MAX)
        .initial_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_send_buffer_size(STREAM_UNSENT_MAX)
        .max_header_list_size(HEADERS_MAX);
    options
}

/// Whether a connection of HTTP/2 serves, and whether a drain waits for it.
enum Phase {
    /// Streams run; a client may take so long to read what they leave behind.
    Busy(TaskTrackerToken, Duration),
    /// They have ended; what they wrote last may not be on the wire, and has until then to get there.
    Ended(TaskTrackerToken, Instant),
    /// The client opens no more streams, and has not agreed yet that it has everything.
    Leaving(TaskTrackerToken),
    Idle,
}

impl Phase {
    /// Completes when this phase is over, if that is for us to say.
    async fn passes(&self, running: &Running) {
        match self {
            Self::Busy(..) => running.none().await,
            Self::Ended(..) => tokio::time::sleep(GLANCE).await,
            Self::Leaving(_) | Self::Idle => std::future::pending().await,
        }
    }

    fn next(self, is_closing: bool, has_streams: bool) -> Self {
        match self {
            Self::Busy(serving, limit) => Self::Ended(serving, time::now() + limit),
            Self::Ended(serving, until) if has_streams && time::now() < until => Self::Ended(serving, until),
            Self::Ended(serving, _) | Self::Leaving(serving) if is_closing => Self::Leaving(serving),
            Self::Ended(..) | Self::Leaving(_) | Self::Idle => Self::Idle,
        }
    }

    fn is_quiet(&self) -> bool {
        matches!(self, Self::Leaving(_) | Self::Idle)
    }
}

/// How many streams of a connection are being served.
#[derive(Debug, Clone, Default)]
struct Running(Arc<(AtomicUsize, Notify)>);

/// One of them, while it lives.
struct Run(Running);

impl Running {
    fn one_more(&self) -> Run {
        self.0.0.fetch_add(1, Ordering::Relaxed);
        Run(self.clone())
    }

    /// Completes when none runs.
    async fn none(&self) {
        let (running, ended) = &*self.0;
        while running.load(Ordering::Relaxed) > 0 {
            ended.notified().await;
        }
    }
}

impl Drop for Run {
    fn drop(&mut self) {
        let (running, ended) = &*self.0.0;
        if running.fetch_sub(1, Ordering::Relaxed) == 1 {
            ended.notify_one();
        }
    }
}
