//! The settings of this room: `[tasks]`.

use std::num::NonZeroUsize;
use std::time::Duration;

/// `[tasks]`: work that outlives its client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tasks {
    /// Accept and run tasks.
    pub enabled: bool,
    /// The paths on the client port that we answer ourselves.
    pub routes: Vec<String>,
    /// Tasks that may wait; beyond it they get `queue_full`.
    pub queue_max: usize,
    /// The largest body of a task, in bytes.
    pub body_max: u64,
    /// How long a finished task and its result are kept.
    pub keep: Duration,
    /// How often a failed task is run again.
    pub retries: u32,
    /// How long a task may run.
    pub timeouts: Timeouts,
    /// Tasks that may run at a time.
    pub slots: NonZeroUsize,
    /// How long a worker owns a task without a sign of life.
    pub lease: Duration,
    /// What an acknowledged task survives.
    pub synchronous: Synchronous,
}

/// How long a task of each kind may run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timeouts {
    /// A short one.
    pub short: Duration,
    /// A long one.
    pub long: Duration,
}

/// What an acknowledged task survives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Synchronous {
    /// A power failure.
    Full,
    /// The process being killed.
    Normal,
}

impl Default for Tasks {
    fn default() -> Self {
        Self {
            enabled: true,
            routes: vec!["/v1/tasks".to_owned()],
            queue_max: 10_000,
            body_max: 10 << 20,
            keep: Duration::from_secs(7 * 86_400),
            retries: 3,
            timeouts: Timeouts { short: Duration::from_secs(300), long: Duration::from_secs(86_400) },
            slots: NonZeroUsize::MIN.saturating_add(999),
            lease: Duration::from_secs(8),
            synchronous: Synchronous::Full,
        }
    }
}
