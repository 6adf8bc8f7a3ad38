//! When the parts of an answer are due.

use crate::time::{Duration, Instant};

/// When the parts of an answer are due.
#[derive(Debug, Clone, Copy)]
pub(super) struct Pace {
    pub(super) start: Instant,
    pub(super) latency: Duration,
}

impl Pace {
    const HEAD_SHARE: f64 = 0.3;

    pub(super) fn head(self) -> Instant {
        self.start + self.latency.mul_f64(Self::HEAD_SHARE)
    }

    pub(super) fn end(self) -> Instant {
        self.start + self.latency
    }

    pub(super) fn event(self, index: usize, count: usize) -> Instant {
        #[expect(clippy::cast_precision_loss, reason = "a stream has far fewer than 2^53 events")]
        let progress = index as f64 / count.saturating_sub(1).max(1) as f64;
        self.head() + self.latency.mul_f64((1.0 - Self::HEAD_SHARE) * progress)
    }
}
