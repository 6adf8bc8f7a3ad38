//! A WebSocket after its 101: bytes both ways, untouched, until both sides are done.
//!
//! Frames are followed only to know where one ends. A client whose upstream is lost gets a Close frame of ours, 1012, if
//! the last frame was passed on whole; else the connection is just cut. 1006 is never put on the wire: it is what a cut
//! looks like to a client.
//!
//! Nothing limits how long an open socket may be silent. It ends when one side ends it; whoever is left has [`LINGER`]
//! between its bytes to finish.

use std::pin::pin;

use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::frames::{Frames, close_frame};
use crate::answer::{Answer, Cut, Ending, Upgraded};
use crate::time::Duration;

/// After one side has ended its direction, how long the other may be silent before it is taken for gone: a TCP client
/// that has closed cannot be told from one that still reads.
const LINGER: Duration = Duration::from_millis(750);
/// Close code "service restart": the client is to connect again.
const SERVICE_RESTART: u16 = 1012;
/// What each direction reads at once: little while it idles, more while there is more.
const READ_AT_FIRST: usize = 4 * 1024;
const READ_MAX: usize = 32 * 1024;

/// A connection whose client has been told that it is switched.
pub(super) struct Tunnel {
    answer: Answer,
    upstream: Box<dyn Upgraded>,
}

impl std::fmt::Debug for Tunnel {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tunnel").field("answer", &self.answer).finish_non_exhaustive()
    }
}

impl Tunnel {
    /// The connection of an answer whose head was passed on.
    pub(super) fn new(answer: Answer, upstream: Box<dyn Upgraded>) -> Self {
        Self { answer, upstream }
    }

    /// Relays until both sides are done, or `cut`. Dropping the future closes both connections; that counts as the
    /// client's leaving.
    pub(super) async fn run<C>(self, client: C, write_timeout: Duration, cut: &CancellationToken)
    where
        C: AsyncRead + AsyncWrite + Send + Unpin,
    {
        let Self { answer, upstream } = self;
        let ending = relay(client, upstream, write_timeout, cut).await;
        answer.ended(ending);
    }
}

/// How the connection of a tunnel ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    /// The provider said Close, and ended its direction.
    InOrder,
    /// The client left first.
    ClientGone,
    /// The provider is lost, and never said Close.
    UpstreamLost(Cut),
    /// The time to drain is over.
    ShutDown,
}

async fn relay<C>(client: C, upstream: Box<dyn Upgraded>, limit: Duration, cut: &CancellationToken) -> Ending
where
    C: AsyncRead + AsyncWrite + Send + Unpin,
{
    let (mut client_reader, mut client_writer) = tokio::io::split(client);
    let (mut upstream_reader, mut upstream_writer) = tokio::io::split(upstream);
    let (out, back) = (Flow::default(), Flow::default());
    let end = {
        let outward = outward(&mut client_reader, &mut upstream_writer, &out, limit);
        let homeward = homeward(&mut upstream_reader, &mut client_writer, &back, limit);
        tokio::select! {
            end = until_the_end(outward, &out, homeward, &back) => end,
            () = cut.cancelled() => End::ShutDown,
        }
    };
    let upstream = upstream_reader.unsplit(upstream_writer);
    // That a provider ends its direction behind its client's end says nothing of when it counts the slot as free.
    if end == End::InOrder || (out.is_closed() && back.is_closed()) {
        upstream.closed();
    } else {
        drop(upstream);
    }
    let why = match end {
        End::InOrder => return Ending::Complete,
        // It went as the client wanted, as far as the client could see.
        End::ClientGone if out.is_closed() => return Ending::Complete,
        End::ClientGone => return Ending::Abandoned,
        End::UpstreamLost(Cut::Stalled) => "the upstream stopped reading",
        End::UpstreamLost(Cut::Disconnected | Cut::Unfinished) => "the upstream connection was lost",
        End::ShutDown => "tidegate restarts",
    };
    if back.may_close() {
        say_close(&mut client_reader, &mut client_writer, why).await;
    }
    match end {
        End::UpstreamLost(cut) if !out.is_closed() => Ending::Truncated(cut),
        End::ShutDown => Ending::ShutDown,
        End::UpstreamLost(_) | End::InOrder | End::ClientGone => Ending::Complete,
    }
}

/// Both directions at once, until nothing more is to be expected of either.
async fn until_the_end(
    outward: impl Future<Output = Stop>,
    out: &Flow,
    homeward: impl Future<Output = Stop>,
    back: &Flow,
) -> End {
    let (mut outward, mut homeward) = (pin!(outward), pin!(homeward));
    let upstream_end = |stop| match stop {
        Stop::Eof | Stop::SpeakerLost if back.is_closed() => End::InOrder,
        Stop::Eof | Stop::SpeakerLost => End::UpstreamLost(Cut::Disconnected),
        Stop::ListenerLost | Stop::ListenerStalled => End::ClientGone,
    };
    tokio::select! {
        biased;
        stop = &mut homeward => {
            let end = upstream_end(stop);
            if end == End::InOrder && !out.is_closed() {
                linger(outward, out).await; // the client's last words
            }
            end
        }
        stop = &mut outward => match stop {
            Stop::Eof => match linger(homeward, back).await.map(upstream_end) {
                Some(End::InOrder) => End::InOrder,
                Some(End::UpstreamLost(_) | End::ClientGone | End::ShutDown) | None => End::ClientGone,
            },
            Stop::SpeakerLost => End::ClientGone,
            // What it has said before may still be on its way.
            Stop::ListenerLost => {
                linger(homeward, back).await.map_or(End::UpstreamLost(Cut::Disconnected), upstream_end)
            }
            Stop::ListenerStalled => End::UpstreamLost(Cut::Stalled),
        },
    }
}

/// Client to provider. The client's end is passed on: the provider may still answer.
async fn outward(
    client: &mut (impl AsyncRead + Unpin),
    upstream: &mut (impl AsyncWrite + Unpin),
    flow: &Flow,
    limit: Duration,
) -> Stop {
    let stop = copy(client, upstream, flow, limit).await;
    if stop == Stop::Eof {
        // A provider that is lost by now is noticed on the way back.
        drop(timeout(limit, upstream.shutdown()).await);
    }
    stop
}

/// Provider to client. The provider's end is passed on if it came in order; else there is more to say.
async fn homeward(
    upstream: &mut (impl AsyncRead + Unpin),
    client: &mut (impl AsyncWrite + Unpin),
    flow: &Flow,
    limit: Duration,
) -> Stop {
    let stop = copy(upstream, client, flow, limit).await;
    if flow.is_closed() && matches!(stop, Stop::Eof | Stop::SpeakerLost) {
        // A client that has left by now has all it needs.
        drop(timeout(limit, client.shutdown()).await);
    }
    stop
}

/// Why a direction goes no further.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stop {
    /// Who speaks has nothing more to say.
    Eof,
    /// Who speaks is lost.
    SpeakerLost,
    /// Who listens is lost.
    ListenerLost,
    /// Who listens has taken nothing for `write_timeout`.
    ListenerStalled,
}

async fn copy(
    from: &mut (impl AsyncRead + Unpin),
    to: &mut (impl AsyncWrite + Unpin),
    flow: &Flow,
    limit: Duration,
) -> Stop {
    let mut buffer = vec![0; READ_AT_FIRST];
    loop {
        let length = match from.read(&mut buffer).await {
            Ok(0) => return Stop::Eof,
            Ok(length) => length,
            Err(_) => return Stop::SpeakerLost,
        };
        flow.begin(&buffer[..length]);
        let write = async {
            to.write_all(&buffer[..length]).await?;
            to.flush().await
        };
        match timeout(limit, write).await {
            Ok(Ok(())) => flow.written(),
            Ok(Err(_)) => return Stop::ListenerLost,
            Err(_elapsed) => return Stop::ListenerStalled,
        }
        let wanted = if length == buffer.len() { READ_MAX } else { READ_AT_FIRST };
        if wanted != buffer.len() {
            buffer = vec![0; wanted];
        }
    }
}

/// What is left of a direction, as long as it is not silent for [`LINGER`]. `None` when it was.
async fn linger(direction: impl Future<Output = Stop>, flow: &Flow) -> Option<Stop> {
    let mut direction = pin!(direction);
    loop {
        tokio::select! {
            biased;
            stop = &mut direction => return Some(stop),
            () = tokio::time::sleep(LINGER) => {
                if !flow.has_moved() {
                    return None;
                }
            }
        }
    }
}

/// Ends a client's connection with a Close frame.
async fn say_close(client: &mut (impl AsyncRead + Unpin), back: &mut (impl AsyncWrite + Unpin), why: &str) {
    let say = async {
        back.write_all(&close_frame(SERVICE_RESTART, why)).await?;
        back.shutdown().await
    };
    if matches!(timeout(LINGER, say).await, Ok(Ok(()))) {
        // What the client has sent, if nobody read it, would make a reset of the end, and that could overtake the frame.
        let mut buffer = vec![0; READ_AT_FIRST];
        let unread = async { while matches!(client.read(&mut buffer).await, Ok(1..)) {} };
        drop(timeout(LINGER, unread).await);
    }
}

/// How far a direction has come.
#[derive(Debug, Default)]
struct Flow(Mutex<Seen>);

#[derive(Debug, Default)]
struct Seen {
    frames: Frames,
    /// What was read last is not yet written.
    is_writing: bool,
    /// Something was read since somebody looked.
    has_moved: bool,
}

impl Flow {
    fn begin(&self, bytes: &[u8]) {
        let mut seen = self.0.lock();
        seen.frames.see(bytes);
        seen.is_writing = true;
        seen.has_moved = true;
    }

    fn written(&self) {
        self.0.lock().is_writing = false;
    }

    /// Whether it went on since this was asked last; a write under way has its own time-out.
    fn has_moved(&self) -> bool {
        let mut seen = self.0.lock();
        std::mem::take(&mut seen.has_moved) || seen.is_writing
    }

    /// Whether Close was said, and nothing after it.
    fn is_closed(&self) -> bool {
        let seen = self.0.lock();
        seen.frames.is_closed() && seen.frames.is_between()
    }

    /// Whether a Close frame of ours can stand here.
    fn may_close(&self) -> bool {
        let seen = self.0.lock();
        !seen.is_writing && seen.frames.is_between() && !seen.frames.is_closed()
    }
}
