//! What one key of one upstream may use: all dimensions in one decision, all or nothing.

use std::num::NonZeroU32;

use super::settings::Limits;
use super::{Pace, Ready, Slots, Window};
use crate::time::{Duration, Instant};

/// The limits of an allowance as configured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Quota {
    /// How many requests in one window; `None`: no limit.
    pub requests: Option<NonZeroU32>,
    /// The provider's window.
    pub window: Duration,
    /// How much later than our last write the provider may count a request.
    pub window_margin: Duration,
    /// How many permits may leave at once after idling.
    pub burst: NonZeroU32,
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
            burst: limits.burst,
            tokens: limits.tokens_per_minute,
            requests_per_day: limits.requests_per_day,
            concurrency: limits.concurrency,
            concurrency_reserved: limits.concurrency_reserved,
            slot_release_delay: limits.slot_release_delay,
            slot_release_delay_aborted: limits.slot_release_delay_aborted,
        }
    }
}

impl Quota {
    fn span(&self) -> Duration {
        self.window + self.window_margin
    }

    fn step(&self, requests: NonZeroU32) -> Duration {
        self.span() / requests.get()
    }
}

/// Whether calls wait for this allowance: bursts are for the idle.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Backlog {
    /// Nobody waits: the bucket alone paces.
    Empty,
    /// Somebody waits: permits leave in even steps.
    Waiting,
}

/// How much of an allowance is used, for metrics and admin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Usage {
    /// Requests that count in the window now, and its limit.
    pub window: Option<(u32, u32)>,
    /// Slots that cannot be taken now: running and cooling.
    pub slots_in_use: u32,
    /// How many slots there are.
    pub slots_cap: Option<u32>,
    /// Until when the gate is closed because the provider said so.
    pub closed_until: Option<Instant>,
}

/// The window with its pace.
#[derive(Debug)]
struct Rate {
    window: Window,
    pace: Pace,
}

impl Rate {
    fn new(quota: &Quota, requests: NonZeroU32) -> Self {
        let burst = quota.burst.min(requests);
        Self { window: Window::new(requests, quota.span()), pace: Pace::new(quota.step(requests), burst) }
    }
}

/// The balance of one key of one upstream.
///
/// A permit is taken with [`Allowance::take`]; then either [`Allowance::refund`] gives all of it back, or
/// [`Allowance::stamp`] says that its request was written and [`Allowance::release`] that its exchange has ended.
#[derive(Debug)]
pub struct Allowance {
    quota: Quota,
    rate: Option<Rate>,
    slots: Slots,
    closed_until: Option<Instant>,
    /// Permits out whose request is not yet written: what a window set up by a reload has to start with.
    pending: u32,
    /// When the last request was stamped, also while there is no window: one set up by a reload has to respect it.
    last_stamp: Option<Instant>,
}

impl Allowance {
    /// An allowance of which nothing was spent.
    #[must_use]
    pub fn new(quota: Quota) -> Self {
        Self {
            quota,
            rate: quota.requests.map(|requests| Rate::new(&quota, requests)),
            slots: Slots::new(quota.concurrency),
            closed_until: None,
            pending: 0,
            last_stamp: None,
        }
    }

    /// Other limits from the next decision on. What was spent stays spent.
    pub fn reconfigure(&mut self, now: Instant, quota: Quota) {
        self.slots.set_cap(quota.concurrency);
        self.rate = quota.requests.map(|requests| match self.rate.take() {
            Some(mut rate) => {
                rate.window.reconfigure(now, requests, quota.span());
                rate.pace.reconfigure(quota.step(requests), quota.burst.min(requests));
                rate
            }
            None => {
                let mut rate = Rate::new(&quota, requests);
                (0..self.pending).for_each(|_| rate.window.take());
                if let Some(last) = self.last_stamp {
                    rate.window.forget_until(last);
                }
                rate
            }
        });
        self.quota = quota;
    }

    /// Takes a permit: one pending request in the window, one cell of the bucket, one slot.
    ///
    /// # Errors
    /// When something is missing: when to ask again. Nothing was taken then.
    pub fn take(&mut self, now: Instant, backlog: Backlog) -> Result<(), Ready> {
        let gate = self.closed_until.map_or(Ready::Now, |until| Ready::at(until, now));
        let mut ready = gate.and(self.slots.ready(now));
        if let Some(rate) = &mut self.rate {
            ready = ready.and(rate.window.ready(now));
            if backlog == Backlog::Waiting {
                ready = ready.and(rate.pace.ready(now, &mut rate.window));
            }
        }
        if ready != Ready::Now {
            return Err(ready);
        }
        if let Some(rate) = &mut self.rate {
            rate.pace.take(now)?; // last, since it is the only one that takes in asking
            rate.window.take();
        }
        self.closed_until = None;
        self.slots.take();
        self.pending += 1;
        Ok(())
    }

    /// Nothing of the permit's request has left: everything returns at once.
    pub fn refund(&mut self, now: Instant) {
        self.pending = self.pending.saturating_sub(1);
        self.slots.release(now, now);
        if let Some(rate) = &mut self.rate {
            rate.window.refund();
            rate.pace.refund();
        }
    }

    /// The permit's request is completely written, or given up after a byte of it had left.
    pub fn stamp(&mut self, now: Instant) {
        self.pending = self.pending.saturating_sub(1);
        self.last_stamp = Some(now);
        if let Some(rate) = &mut self.rate {
            rate.window.stamp(now);
        }
    }

    /// The permit's exchange has ended: by itself (`clean`), or cut by either side.
    pub fn release(&mut self, now: Instant, clean: bool) {
        let delay = if clean { self.quota.slot_release_delay } else { self.quota.slot_release_delay_aborted };
        self.slots.release(now + delay, now);
    }

    /// Whether a permit that was taken earlier may still be used: the gate is open, and no lowered limit is exceeded.
    pub fn holds(&mut self, now: Instant) -> bool {
        let Usage { window, slots_in_use, slots_cap, closed_until } = self.usage(now);
        closed_until.is_none()
            && window.is_none_or(|(used, limit)| used <= limit)
            && slots_cap.is_none_or(|cap| slots_in_use <= cap)
    }

    /// The provider says to come back later: nothing is permitted until then. A later instant wins.
    pub fn close_until(&mut self, until: Instant) {
        self.closed_until = Some(self.closed_until.map_or(until, |earlier| earlier.max(until)));
    }

    /// Whether the provider's refusals should never happen: it has limits here and we keep them.
    #[must_use]
    pub fn is_limited(&self) -> bool {
        self.rate.is_some() || self.slots.cap().is_some()
    }

    /// The share of the window's allowance that is left, 0 to 1; 1 without a limit. Of two keys the fuller goes first.
    pub fn share_left(&mut self, now: Instant) -> f64 {
        self.rate.as_mut().map_or(1.0, |rate| f64::from(rate.window.left(now)) / f64::from(rate.window.allowance()))
    }

    /// What is used now.
    pub fn usage(&mut self, now: Instant) -> Usage {
        Usage {
            window: self.rate.as_mut().map(|rate| {
                rate.window.left(now); // expires what has expired
                (rate.window.used(), rate.window.allowance())
            }),
            slots_in_use: self.slots.in_use(now),
            slots_cap: self.slots.cap(),
            closed_until: self.closed_until.filter(|&until| until > now),
        }
    }
}
