//! The limits of an allowance as configured.

use std::num::NonZeroU32;

use super::learned::Figures;
use super::settings::Limits;
use crate::time::Duration;

/// What one key of one upstream, or one client, may use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Quota {
    /// How many requests in one window; `None`: no limit.
    pub requests: Option<NonZeroU32>,
    /// The provider's window.
    pub window: Duration,
    /// How much later than our last write the provider may count a request.
    pub window_margin: Duration,
    /// How many permits may leave at once after idling; `None`: as many as the window lets, whenever it does.
    pub burst: Option<NonZeroU32>,
    /// How many tokens in one window; `None`: no limit.
    pub tokens: Option<NonZeroU32>,
    /// How many requests in a rolling 24 hours; `None`: no limit.
    pub requests_per_day: Option<NonZeroU32>,
    /// How many exchanges at once; `None`: no limit.
    pub concurrency: Option<NonZeroU32>,
    /// Slots that only a class may use (`Priority as usize`).
    pub concurrency_reserved: [u32; 3],
    /// How long a slot cools after an exchange that ended by itself.
    pub slot_release_delay: Duration,
    /// How long a slot cools after an exchange that was cut.
    pub slot_release_delay_aborted: Duration,
}

impl Quota {
    /// How long a request counts.
    pub(super) fn span(&self) -> Duration {
        self.window + self.window_margin
    }

    /// The even step between two permits.
    pub(super) fn step(&self, requests: NonZeroU32) -> Duration {
        self.span() / requests.get()
    }

    /// What can be learned to be lower.
    pub(super) fn figures(&self) -> Figures {
        Figures {
            window: self.window,
            margin: self.window_margin,
            requests: self.requests.map(NonZeroU32::get),
            tokens: self.tokens.map(|tokens| tokens.get().into()),
            concurrency: self.concurrency.map(NonZeroU32::get),
        }
    }

    /// The same with what was learned.
    pub(super) fn limited_to(self, figures: &Figures) -> Self {
        let tokens = |tokens| NonZeroU32::new(u32::try_from(tokens).unwrap_or(u32::MAX)).unwrap_or(NonZeroU32::MIN);
        let at_least_one = |limit| NonZeroU32::new(limit).unwrap_or(NonZeroU32::MIN);
        // One at least is left for the others.
        let mut room = figures.concurrency.map_or(u32::MAX, |cap| cap.saturating_sub(1));
        let concurrency_reserved = self.concurrency_reserved.map(|reserved| {
            let kept = reserved.min(room);
            room -= kept;
            kept
        });
        Self {
            concurrency_reserved,
            window_margin: figures.margin,
            requests: figures.requests.map(at_least_one),
            tokens: figures.tokens.map(tokens),
            concurrency: figures.concurrency.map(at_least_one),
            ..self
        }
    }

    /// No limit at all, over minutes: what a client's own limits are written over.
    #[must_use]
    pub fn unlimited() -> Self {
        Self {
            requests: None,
            window: Duration::from_secs(60),
            window_margin: Duration::ZERO,
            burst: None,
            tokens: None,
            requests_per_day: None,
            concurrency: None,
            concurrency_reserved: [0; 3],
            slot_release_delay: Duration::ZERO,
            slot_release_delay_aborted: Duration::ZERO,
        }
    }
}

impl Default for Quota {
    fn default() -> Self {
        Self::from(&Limits::default())
    }
}

impl From<&Limits> for Quota {
    fn from(limits: &Limits) -> Self {
        Self {
            requests: limits.requests_per_minute,
            window: limits.window,
            window_margin: limits.window_margin,
            burst: Some(limits.burst),
            tokens: limits.tokens_per_minute,
            requests_per_day: limits.requests_per_day,
            concurrency: limits.concurrency,
            concurrency_reserved: limits.concurrency_reserved,
            slot_release_delay: limits.slot_release_delay,
            slot_release_delay_aborted: limits.slot_release_delay_aborted,
        }
    }
}
