//! Idle connections of HTTP/1.1, kept for the next call.
//!
//! pingora's own pool starts a task for each connection that is given back, and fetching one takes it away from that
//! task: a switch to another thread more often than not, and when that thread is slow the connection is lost and another
//! one opened. Here a connection only lies in a list. It is looked at when it is taken, and now and then by one sweep for
//! all.

use std::collections::{HashMap, VecDeque};
use std::net::SocketAddr;
use std::pin::pin;
use std::task::{Context, Poll, Waker};

use parking_lot::Mutex;
use pingora_core::protocols::Stream;
use tokio::io::AsyncReadExt as _;

use crate::time::{self, Duration, Instant};

/// How often the sweep looks: a provider that has closed is closed in turn, and what is too old goes.
const SWEEP: Duration = Duration::from_secs(5);

/// Whom a connection leads to.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Peer {
    pub(super) address: SocketAddr,
    /// The name that its certificate was checked for; `None` in clear.
    pub(super) tls_name: Option<Box<str>>,
}

/// Connections nobody uses. The longest idle of each peer stand first.
pub(super) struct Idle {
    lists: Mutex<HashMap<Peer, VecDeque<(Instant, Stream)>>>,
    /// How many are kept for each peer; beyond that the longest idle is closed.
    max: usize,
    kept: Duration,
}

impl Idle {
    pub(super) fn new(max: usize, kept: Duration) -> Self {
        Self { lists: Mutex::default(), max, kept }
    }

    /// The one used last, if it still lives: the others may then grow old and be closed.
    pub(super) fn take(&self, peer: &Peer) -> Option<Stream> {
        loop {
            let (since, mut stream) = self.lists.lock().get_mut(peer)?.pop_back()?;
            if since.elapsed() < self.kept && is_quiet(&mut stream) {
                return Some(stream);
            }
        }
    }

    /// Keeps one that has served. It is closed if it has something to say, which nobody asked it.
    pub(super) fn give(&self, peer: Peer, mut stream: Stream) {
        if is_quiet(&mut stream) {
            let mut lists = self.lists.lock();
            let list = lists.entry(peer).or_default();
            list.push_back((time::now(), stream));
            if list.len() > self.max {
                list.pop_front();
            }
        }
    }

    /// Closes what is too old, or was closed by its provider, while no call comes. Runs for ever; dropping it leaves the
    /// connections to those who take them.
    pub(super) async fn sweep(&self) {
        loop {
            tokio::time::sleep(SWEEP).await;
            self.sweep_once();
        }
    }

    fn sweep_once(&self) {
        self.lists.lock().retain(|_, list| {
            list.retain_mut(|(since, stream)| since.elapsed() < self.kept && is_quiet(stream));
            !list.is_empty()
        });
    }
}

/// Whether nothing can be read: neither bytes nor the end.
fn is_quiet(stream: &mut Stream) -> bool {
    let mut byte = [0];
    // Unconstrained, because a task that has used up its turn would be told that there is nothing.
    let read = pin!(tokio::task::unconstrained(stream.read(&mut byte)));
    let mut nobody = Context::from_waker(Waker::noop());
    matches!(read.poll(&mut nobody), Poll::Pending)
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncWriteExt, DuplexStream, duplex};

    use super::*;

    fn peer(port: u16) -> Peer {
        Peer { address: SocketAddr::from(([127, 0, 0, 1], port)), tls_name: None }
    }

    fn connection() -> (Stream, DuplexStream) {
        let (near, far) = duplex(64);
        (Box::new(near), far)
    }

    /// Which connection it is: what its far end sends comes out of it.
    async fn assert_leads_to(mut stream: Stream, far: &mut DuplexStream) {
        far.write_all(b"!").await.unwrap();
        let mut byte = [0];
        stream.read_exact(&mut byte).await.unwrap();
        assert_eq!(&byte, b"!");
    }

    #[tokio::test(start_paused = true)]
    async fn the_last_used_is_taken_first_and_only_for_its_peer() {
        let idle = Idle::new(8, Duration::from_secs(30));
        let ((first, mut first_far), (second, mut second_far)) = (connection(), connection());
        idle.give(peer(1), first);
        idle.give(peer(1), second);
        let named = Peer { tls_name: Some("a".into()), ..peer(1) };
        assert!(idle.take(&peer(2)).is_none() && idle.take(&named).is_none());
        assert_leads_to(idle.take(&peer(1)).unwrap(), &mut second_far).await;
        assert_leads_to(idle.take(&peer(1)).unwrap(), &mut first_far).await;
        assert!(idle.take(&peer(1)).is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn one_that_was_closed_or_speaks_unasked_or_is_too_old_is_not_taken() {
        let idle = Idle::new(8, Duration::from_secs(30));
        let ((closed, far), (speaks, mut speaker), (old, _old_far)) = (connection(), connection(), connection());
        idle.give(peer(1), old);
        tokio::time::advance(Duration::from_secs(30)).await;
        idle.give(peer(1), closed);
        idle.give(peer(1), speaks);
        drop(far);
        speaker.write_all(b"HTTP/1.1 408 Request Timeout\r\n\r\n").await.unwrap();
        assert!(idle.take(&peer(1)).is_none());
        // Nor kept in the first place.
        let (late, mut far) = connection();
        far.write_all(b"!").await.unwrap();
        idle.give(peer(1), late);
        assert!(idle.take(&peer(1)).is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn sweep_closes_what_nobody_comes_for() {
        let idle = Idle::new(8, Duration::from_secs(30));
        let (stream, mut far) = connection();
        idle.give(peer(1), stream);
        tokio::select! {
            () = idle.sweep() => {}
            read = far.read_u8() => assert!(read.is_err(), "closed"),
        }
        assert!(idle.lists.lock().is_empty());
    }

    #[tokio::test]
    async fn no_more_than_max_are_kept_for_a_peer() {
        let idle = Idle::new(2, Duration::from_secs(30));
        let mut fars: Vec<DuplexStream> = Vec::new();
        for _ in 0..3 {
            let (stream, far) = connection();
            idle.give(peer(1), stream);
            fars.push(far);
        }
        assert!(fars[0].read_u8().await.is_err(), "the longest idle is closed");
        assert_eq!(idle.lists.lock()[&peer(1)].len(), 2);
    }
}
