//! The settings of this room: `[breaker]`.

use std::num::NonZeroU32;
use std::time::Duration;

/// `[breaker]`: when an upstream is left alone for a while.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Breaker {
    /// Consecutive failures that open it.
    pub failures: NonZeroU32,
    /// How long it stays open the first time.
    pub open: Duration,
    /// Where the doubling of `open` ends.
    pub open_max: Duration,
}

impl Default for Breaker {
    fn default() -> Self {
        Self {
            failures: NonZeroU32::MIN.saturating_add(4),
            open: Duration::from_secs(10),
            open_max: Duration::from_secs(60),
        }
    }
}
