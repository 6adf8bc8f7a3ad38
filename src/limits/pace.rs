//! The pace inside the window: bursts for the idle, even steps under backlog.
//!
//! A token bucket (governor's GCRA) earns one cell each `span / N` and holds `burst` of them. Whoever comes while nobody
//! waits takes a cell and goes. Under backlog a step has to pass between two permits as well:
//!
//! - almost the even step: what a full house or a late timer held up is caught up, but slowly. Catching up leaves a
//!   bunch of stamps behind, and the gap that follows it comes back a window later, for as long as the backlog lasts;
//!   in half steps the person who chats waited for such gaps. Never to catch up would cost each delay for good. A
//!   fiftieth is what both bear: over hours 99.12 % of the rate and more are used at 40 a minute, and chat's p99 is 1.50 s.
//!   A twentieth does no better by the rate, and in the minutes after a burst its p95 once was 1.66 s;
//! - what is left of the allowance is spread until the oldest stamp expires, so that after a burst the window never
//!   shuts on the person who chats for longer than about a step.

use std::num::NonZeroU32;

use governor::clock::Clock;
use governor::middleware::NoOpMiddleware;
use governor::state::{InMemoryState, NotKeyed};
use governor::{Quota, RateLimiter};

use super::{Ready, Window};
use crate::time::{Duration, GovernorClock, Instant};

type Bucket = RateLimiter<NotKeyed, InMemoryState, GovernorClock, NoOpMiddleware<<GovernorClock as Clock>::Instant>>;

/// A timer wakes so much late at the most, on a machine that is not overloaded.
const TIMER_LATENESS: Duration = Duration::from_millis(3);

/// The pace of one allowance.
#[derive(Debug)]
pub struct Pace {
    bucket: Bucket,
    /// The even step: `span / N`.
    step: Duration,
    burst: NonZeroU32,
    /// When the last permit left.
    last: Option<Instant>,
    /// When the bucket will be full again, as far as cells were taken from it. governor knows, but does not tell.
    full_at: Option<Instant>,
    /// Cells of permits that were given back: governor takes none back, so they are kept here, `burst` at the most.
    returned: u32,
}

impl Pace {
    /// A pace of one each `step`, with a full bucket of `burst`.
    #[must_use]
    pub fn new(step: Duration, burst: NonZeroU32) -> Self {
        // governor counts in nanoseconds and knows no step of zero.
        let step = step.max(Duration::from_nanos(1));
        let quota = Quota::with_period(step).unwrap_or_else(|| Quota::per_second(NonZeroU32::MAX)).allow_burst(burst);
        Self {
            bucket: RateLimiter::direct_with_clock(quota, GovernorClock),
            step,
            burst,
            last: None,
            full_at: None,
            returned: 0,
        }
    }

    /// Another pace from now on. When it really is another, the new bucket starts empty: a reload is no gift.
    pub fn reconfigure(&mut self, step: Duration, burst: NonZeroU32) {
        if (step, burst) == (self.step, self.burst) {
            return;
        }
        let last = self.last;
        *self = Self::new(step, burst);
        self.last = last;
        // It is full, and holds so many.
        drop(self.bucket.check_n(burst));
        self.full_at = Some(crate::time::now() + step.saturating_mul(burst.get()));
    }

    /// The even step between two permits under backlog.
    #[must_use]
    pub fn step(&self) -> Duration {
        self.step
    }

    /// When, under backlog, the next step is due; the bucket is asked by [`Pace::take`].
    #[must_use]
    pub fn ready(&self, now: Instant, window: &mut Window) -> Ready {
        let Some(last) = self.last else { return Ready::Now };
        let left = window.left(now);
        Ready::at(last + self.step_since(last, left, window.oldest_expires()), now)
    }

    /// When the bucket has its next cell, and how long it earns one.
    pub(super) fn cells(&self) -> Cells {
        Cells { full_at: self.full_at, step: self.step, burst: self.burst.get(), returned: self.returned }
    }

    /// When the last permit left.
    pub(super) fn last(&self) -> Option<Instant> {
        self.last
    }

    /// The step that has to pass since the last permit, where `left` permits are to be spread until `oldest` expires.
    pub(super) fn step_since(&self, last: Instant, left: u32, oldest: Option<Instant>) -> Duration {
        let spread = match oldest {
            Some(expires) if left > 0 => expires.saturating_duration_since(last) / left.saturating_add(1),
            Some(_) | None => Duration::ZERO,
        };
        spread.max(self.shortest_step())
    }

    /// The step while something is caught up: a fiftieth shorter, but by more than timers are late, which tick in
    /// milliseconds.
    fn shortest_step(&self) -> Duration {
        self.step - (self.step / 50).max(TIMER_LATENESS).min(self.step / 2)
    }

    /// Takes a cell.
    ///
    /// # Errors
    /// When the bucket is empty: when it will have the next cell.
    pub fn take(&mut self, now: Instant) -> Result<(), Ready> {
        if self.returned > 0 {
            self.returned -= 1;
        } else if let Err(not_until) = self.bucket.check() {
            let asked = crate::time::now();
            let wait = not_until.wait_time_from(GovernorClock::at(asked));
            return Err(Ready::At(asked + wait.max(Duration::from_nanos(1))));
        } else {
            self.full_at = Some(self.full_at.map_or(now, |full| full.max(now)) + self.step);
        }
        self.last = Some(now);
        Ok(())
    }

    /// A permit was given back unused.
    pub fn refund(&mut self) {
        self.returned = self.burst.get().min(self.returned + 1);
    }
}

/// A token bucket as [`Pace`] has it, to look ahead with.
#[derive(Debug, Clone, Copy)]
pub(super) struct Cells {
    full_at: Option<Instant>,
    step: Duration,
    burst: u32,
    returned: u32,
}

impl Cells {
    /// When the next cell is there.
    pub(super) fn ready(&self) -> Option<Instant> {
        if self.returned > 0 {
            return None;
        }
        self.full_at?.checked_sub(self.step.saturating_mul(self.burst - 1))
    }

    /// Takes one.
    pub(super) fn take(&mut self, at: Instant) {
        match self.returned {
            0 => self.full_at = Some(self.full_at.map_or(at, |full| full.max(at)) + self.step),
            _ => self.returned -= 1,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn what_was_held_up_is_caught_up_by_a_fiftieth_and_by_what_timers_are_late() {
        for (step, shortest) in [(1_500_000, 1_470_000), (520_000, 509_600), (10_000, 7_000), (2_000, 1_000)] {
            let (step, shortest) = (Duration::from_micros(step), Duration::from_micros(shortest));
            let mut window = Window::new(NonZeroU32::MAX, Duration::from_secs(60));
            let mut pace = Pace::new(step, NonZeroU32::MIN);
            let now = crate::time::now();
            pace.take(now).unwrap();
            assert_eq!(pace.ready(now, &mut window), Ready::At(now + shortest));
        }
    }
}
