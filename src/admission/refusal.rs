//! Why a call is turned away, and when to come back.

use crate::limits::Dimension;
use crate::time::Duration;

/// Which bound of the queue is reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Full {
    /// `admission.queue_max` calls wait.
    Calls(usize),
    /// The bodies that wait hold `admission.queue_bytes_max` bytes.
    Bytes(u64),
    /// So many keys of clients are in use at one upstream that no other can be counted.
    Keys(usize),
}

/// A call is turned away. It spent nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// Nobody more can wait.
    #[error("the queue is full: {full:?}")]
    QueueFull {
        /// Which bound is reached.
        full: Full,
        /// When the next place is expected to be free.
        retry_after: Duration,
    },
    /// Its turn cannot come before its deadline.
    #[error("its turn is expected in {turn:?}, its deadline is in {left:?}")]
    DeadlineUnreachable {
        /// How long until its turn; `None`: for longer than anybody can tell.
        turn: Option<Duration>,
        /// How long it can wait.
        left: Duration,
    },
    /// Its deadline came before its turn.
    #[error("waited {waited:?} until the deadline")]
    QueueTimeout {
        /// How long it stood in line, for its last attempt.
        waited: Duration,
        /// How much longer it would have taken, if that can be told.
        turn: Option<Duration>,
    },
    /// Its client is over a limit of its own, and says `on_limit = "refuse"`.
    #[error("over the client's own {} of {limit}", .dimension.as_str())]
    LimitExceeded {
        /// Which of its limits.
        dimension: Dimension,
        /// The limit.
        limit: u64,
        /// When there is room again; of slots nobody can tell.
        retry_after: Option<Duration>,
    },
    /// No configured upstream serves the model.
    #[error("no upstream serves {model:?}")]
    NoUpstream {
        /// The model that was asked for, if any.
        model: Option<String>,
    },
    /// The process ends.
    #[error("shutting down")]
    ShuttingDown,
}
