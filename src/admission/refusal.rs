//! Why a call is turned away, and when to come back.

use crate::time::Duration;

/// Which bound of the queue is reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Full {
    /// `admission.queue_max` calls wait.
    Calls(usize),
    /// The bodies that wait hold `admission.queue_bytes_max` bytes.
    Bytes(u64),
}

/// A call is turned away. It spent nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// Nobody more can wait.
    #[error("the queue is full: {0:?}")]
    QueueFull(Full),
    /// Its deadline came before its turn.
    #[error("waited {0:?} until the deadline")]
    QueueTimeout(Duration),
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
