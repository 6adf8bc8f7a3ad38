//! The settings of this room: `[server]`.

use std::net::{Ipv4Addr, SocketAddr};
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::time::Duration;

use crate::units::Secret;

/// `[server]`: where clients and operators reach us, and how much of us one of them may take.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Server {
    /// The client port. Cannot change while running.
    pub listen: SocketAddr,
    /// The operators' port: metrics, probes, dashboard. Cannot change while running.
    pub admin_listen: SocketAddr,
    /// Protects the operators' port, but for its probes; without one that port binds to loopback only.
    pub admin_token: Option<Secret>,
    /// Serves the client port over TLS. Cannot change while running.
    pub tls: Option<Tls>,
    /// Where the journal and the tasks live; one process owns it. Cannot change while running.
    pub state_dir: PathBuf,
    /// The largest body of a generation route, in bytes; larger ones get 413.
    pub body_max: u64,
    /// What bodies that wait, flights and the cache may hold together, in bytes; beyond it calls are shed.
    pub memory_max: u64,
    /// Client connections at a time; for one more the one that idles longest is closed, or the new one told 503.
    pub connections_max: usize,
    /// How long a client may take to send a request head.
    pub header_timeout: Duration,
    /// How long a client may make no progress while it sends a body.
    pub body_timeout: Duration,
    /// How long a client may make no progress while it reads an answer.
    pub write_timeout: Duration,
    /// How long a connection may idle between two requests.
    pub idle_timeout: Duration,
    /// How long a shutdown waits for what runs and what is queued.
    pub drain_timeout: Duration,
    /// Worker threads; one a core when absent. Cannot change while running.
    pub threads: Option<NonZeroUsize>,
}

/// The certificate of the client port, as PEM files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tls {
    /// The certificate chain, leaf first.
    pub cert: PathBuf,
    /// Its private key.
    pub key: PathBuf,
}

impl Default for Server {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 8080)),
            admin_listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 9091)),
            admin_token: None,
            tls: None,
            state_dir: PathBuf::from("state"),
            body_max: 32 << 20,
            memory_max: 512 << 20,
            connections_max: 10_000,
            header_timeout: Duration::from_secs(10),
            body_timeout: Duration::from_secs(60),
            write_timeout: Duration::from_secs(60),
            idle_timeout: Duration::from_secs(75),
            drain_timeout: Duration::from_secs(30),
            threads: None,
        }
    }
}
