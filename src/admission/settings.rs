//! The settings of this room: `[admission]` and `[[clients]]`.

use std::num::NonZeroU32;
use std::time::Duration;

use crate::units::{Priority, Secret};

/// `[admission]`: how many calls may wait, how long, and who goes next.
#[derive(Debug, Clone, PartialEq)]
pub struct Admission {
    /// Calls that may wait, for all upstreams together; beyond it they get `queue_full`.
    pub queue_max: usize,
    /// Bytes of bodies that may wait; beyond it calls get `queue_full`.
    pub queue_bytes_max: u64,
    /// The longest wait of a call that names no deadline of its own.
    pub wait_max: Duration,
    /// How long a streaming client waits in silence before it gets SSE comments; absent: it gets none.
    pub keepalive_after: Option<Duration>,
    /// The share of the permits that each class (`Priority as usize`) is never under while it waits.
    pub floors: [f64; 3],
    /// Believe `x-tidegate-client`, as a gateway of ours in front of this one sets it.
    pub trust_client_header: bool,
}

impl Default for Admission {
    fn default() -> Self {
        Self {
            queue_max: 10_000,
            queue_bytes_max: 256 << 20,
            wait_max: Duration::from_secs(600),
            keepalive_after: Some(Duration::from_secs(10)),
            floors: [0.0, 0.10, 0.05],
            trust_client_header: false,
        }
    }
}

/// One of `[[clients]]`: who may call, how urgently, and how much. With none configured, anyone may call in any class.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Client {
    /// Its name in logs and on the dashboard; no two are alike.
    pub name: String,
    /// What it authenticates with.
    pub key: ClientKey,
    /// The class of its calls that name none.
    pub class: Priority,
    /// The most urgent class it may ask for.
    pub class_max: Priority,
    /// Its share of a class beside other clients.
    pub weight: NonZeroU32,
    /// Its own limits, below the provider's.
    pub limits: ClientLimits,
    /// What happens at its own limits.
    pub on_limit: OnLimit,
}

impl Client {
    /// A client with nothing but what it must have.
    #[must_use]
    pub fn new(name: String, key: ClientKey) -> Self {
        Self {
            name,
            key,
            class: Priority::default(),
            class_max: Priority::default(),
            weight: NonZeroU32::MIN,
            limits: ClientLimits::default(),
            on_limit: OnLimit::Wait,
        }
    }
}

/// How a client's key is known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ClientKey {
    /// The key itself.
    Plain(Secret),
    /// The blake3 hash of the key, so that the file holds no secret.
    Blake3([u8; 32]),
}

/// A client's own limits. An absent one does not bind.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ClientLimits {
    /// Requests a minute.
    pub requests_per_minute: Option<NonZeroU32>,
    /// Tokens a minute.
    pub tokens_per_minute: Option<NonZeroU32>,
    /// Exchanges at a time.
    pub concurrency: Option<NonZeroU32>,
}

/// What happens to a call over its client's own limits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum OnLimit {
    /// It waits its turn.
    Wait,
    /// It is refused with `rate_limit_exceeded`.
    Refuse,
}
