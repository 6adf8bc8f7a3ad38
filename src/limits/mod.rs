//! How much may pass, and when.
//!
//! One [`Allowance`] is what one key of one upstream may use: an exact sliding [`Window`] of requests, a [`Pace`] inside
//! it, a [`Meter`] of tokens and one of the requests of a day, and [`Slots`]. It decides over all of them at once, all or
//! nothing, and says *when* the next permit can exist, and the n-th after it.
//!
//! Invariants: whatever the arrivals, durations, refunds and abandonments, the provider never counts more than the
//! window's allowance in any window, as long as it counts a request within `window_margin` of our last write, and never
//! more exchanges at once than there are slots.
//!
//! What the provider really allows is [`learned`] from its refusals, and what was sent is in the [`journal`] before it is
//! sent. But for the journal, which has a file and a thread, this room never waits, spawns, or locks: it is arithmetic
//! over instants that it is handed.

mod allowance;
mod forecast;
pub mod journal;
pub mod learned;
mod meter;
mod pace;
mod quota;
mod ramp;
pub mod settings;
mod slots;
mod taken;
mod window;

pub use allowance::{Allowance, LimitSignal, Usage};
pub use meter::{GrainId, Meter};
pub use pace::Pace;
pub use quota::Quota;
pub use slots::Slots;
pub use taken::{Ask, Backlog, Taken};
pub use window::Window;

use crate::time::Duration;
pub use crate::time::Ready;

/// Farther than anybody waits, and safe to add to an instant.
const FAR: Duration = Duration::from_secs(366 * 24 * 60 * 60);

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
