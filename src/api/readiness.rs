//! Whether new calls should come here.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

/// Tells load balancers and container runtimes where the process is in its life. Clones share one state.
#[derive(Debug, Clone, Default)]
pub struct Readiness(Arc<AtomicU8>);

/// Where in its life the process is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// Not listening yet.
    Starting,
    /// Calls are taken.
    Ready,
    /// What runs is finished, nothing new is taken.
    Draining,
}

impl Readiness {
    /// The process enters `state`.
    pub fn set(&self, state: State) {
        self.0.store(state as u8, Ordering::Release);
    }

    /// Where it is now; [`State::Starting`] until told otherwise.
    #[must_use]
    pub fn state(&self) -> State {
        const READY: u8 = State::Ready as u8;
        const DRAINING: u8 = State::Draining as u8;
        match self.0.load(Ordering::Acquire) {
            READY => State::Ready,
            DRAINING => State::Draining,
            _ => State::Starting,
        }
    }
}

impl State {
    /// The word in the answer.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Ready => "ready",
            Self::Draining => "draining",
        }
    }

    /// Why no calls are taken, unless they are.
    #[must_use]
    pub const fn reason(self) -> Option<&'static str> {
        match self {
            Self::Starting => Some("the proxy is not listening yet"),
            Self::Ready => None,
            Self::Draining => Some("the proxy is shutting down and takes no new calls"),
        }
    }
}
