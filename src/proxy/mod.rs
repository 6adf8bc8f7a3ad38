//! The client's side of the wire.
//!
//! Reads requests from pingora's server session, hands each in as a call, and relays its answer. Here, and nowhere else,
//! causes become statuses (`reply`); a client that streams is kept company while it waits (`keepalive`). A client that
//! leaves only drops its answer; everything else follows from that.
//!
//! Invariants: bytes go through unchanged; whatever ended abnormally upstream never looks complete downstream; whatever
//! could be understood in two ways is refused.

mod accept;
mod cause;
mod connection;
mod descriptors;
mod downstream;
mod fields;
mod frames;
mod inlet;
mod keepalive;
mod listen;
mod relay;
mod reply;
pub mod settings;
mod strict;
mod tls;
mod tunnel;

use std::sync::Arc;

use arc_swap::ArcSwap;
use tokio::sync::{Notify, Semaphore};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

pub use self::descriptors::raise_descriptor_limit;
pub use self::listen::{bind, serve};
pub use self::tls::{TlsError, server_config};
use crate::memory::Memory;
use crate::metrics::Metrics;
use crate::pipeline::Pipeline;
use crate::time::{Duration, Tasks};

/// What a reload changes in this room.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bounds {
    /// The largest body that is buffered.
    pub body_max: u64,
    /// How many connections are served at once.
    pub connections_max: usize,
    /// How long the head of a request may take.
    pub header_timeout: Duration,
    /// How long a body may make no progress.
    pub body_timeout: Duration,
    /// How long a reader may make no progress.
    pub write_timeout: Duration,
    /// How long a connection may idle between requests.
    pub idle_timeout: Duration,
    /// How long a streaming client waits in silence; `None`: until its answer begins.
    pub keepalive_after: Option<Duration>,
}

impl Bounds {
    /// The bounds of the settings.
    #[must_use]
    pub fn new(server: &settings::Server, keepalive_after: Option<Duration>) -> Self {
        Self {
            body_max: server.body_max,
            connections_max: connections_max(server.connections_max),
            header_timeout: server.header_timeout,
            body_timeout: server.body_timeout,
            write_timeout: server.write_timeout,
            idle_timeout: server.idle_timeout,
            keepalive_after,
        }
    }
}

/// As many as are wanted, if the descriptors are enough.
fn connections_max(wanted: usize) -> usize {
    let fit = descriptors::connections_that_fit();
    if wanted > fit {
        tracing::warn!(
            wanted,
            fit,
            "server.connections_max is more than the limit of open files allows; raise that limit (ulimit -n)"
        );
    }
    wanted.min(fit)
}

/// The client port. Cheap to clone, one for the whole process.
#[derive(Debug, Clone)]
pub struct Proxy(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    pipeline: Pipeline,
    metrics: Arc<Metrics>,
    memory: Memory,
    bounds: ArcSwap<Bounds>,
    /// Calls that are being served; a drain waits for them.
    calls: TaskTracker,
    /// Runs connections, and the streams of HTTP/2.
    connections: Tasks,
    /// Asks the connection that has been idle for longest to make room.
    wanted: Notify,
    /// Tells that a connection was closed.
    left: Notify,
    /// Bounds how many are told at a time that there is no room.
    few: Semaphore,
    /// The time to drain is over: open tunnels are closed.
    cut: CancellationToken,
}

impl Proxy {
    /// A port to `pipeline`.
    #[must_use]
    pub fn new(pipeline: Pipeline, metrics: Arc<Metrics>, memory: Memory, bounds: Bounds) -> Self {
        Self(Arc::new(Shared {
            pipeline,
            metrics,
            memory,
            bounds: ArcSwap::from_pointee(bounds),
            calls: TaskTracker::new(),
            connections: Tasks::default(),
            wanted: Notify::new(),
            left: Notify::new(),
            few: listen::few(),
            cut: CancellationToken::new(),
        }))
    }

    /// Other bounds for the requests to come.
    pub fn reconfigure(&self, bounds: Bounds) {
        self.0.bounds.store(Arc::new(bounds));
    }

    /// Closes the tunnels that are still open: their clients are told to connect again.
    pub fn close_tunnels(&self) {
        self.0.cut.cancel();
    }

    /// Waits until no call is being served. Dropping the future stops nothing.
    pub async fn drained(&self) {
        self.0.calls.close();
        self.0.calls.wait().await;
    }
}
