//! How much may pass, and when.
//!
//! One [`Allowance`] is what one key of one upstream may use: an exact sliding [`Window`], a [`Pace`] inside it and
//! [`Slots`]. It decides over all of them at once, all or nothing, and says *when* the next permit can exist.
//!
//! Invariants: whatever the arrivals, durations, refunds and abandonments, the provider never counts more than the
//! window's allowance in any window, as long as it counts a request within `window_margin` of our last write, and never
//! more exchanges at once than there are slots. This room never waits, spawns, or locks: it is arithmetic over instants
//! that it is handed.

mod allowance;
pub mod journal;
mod pace;
pub mod settings;
mod slots;
mod window;

pub use allowance::{Allowance, Backlog, Quota, Usage};
pub use pace::Pace;
pub use slots::Slots;
pub use window::Window;

use crate::time::Instant;

/// What a limit counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Dimension {
    /// Requests in one window.
    Requests,
    /// Tokens in one window, prompt and completion together.
    Tokens,
    /// Requests in a rolling 24 hours.
    RequestsPerDay,
    /// Exchanges at a time.
    Concurrency,
}

impl Dimension {
    /// The setting that limits it, as in `[upstreams.limits]` and `clients.limits`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Requests => "requests_per_minute",
            Self::Tokens => "tokens_per_minute",
            Self::RequestsPerDay => "requests_per_day",
            Self::Concurrency => "concurrency",
        }
    }
}

/// When something can be had.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ready {
    /// At once.
    Now,
    /// Not before this instant, which is exact if nothing else is taken or given back until then.
    At(Instant),
    /// Not before something that runs has ended: there is no instant to tell.
    OnRelease,
}

impl Ready {
    /// The later of two: what is needed of both.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        match (self, other) {
            (Self::OnRelease, _) | (_, Self::OnRelease) => Self::OnRelease,
            (Self::Now, ready) | (ready, Self::Now) => ready,
            (Self::At(a), Self::At(b)) => Self::At(a.max(b)),
        }
    }

    /// `At(instant)`, or `Now` when that instant has come.
    #[must_use]
    pub fn at(instant: Instant, now: Instant) -> Self {
        if instant <= now { Self::Now } else { Self::At(instant) }
    }
}
