//! An allowance that earlier processes have used.

use std::time::{SystemTime, UNIX_EPOCH};

use super::Allowance;
use crate::limits::journal::{RecoveredLane, Spent};
use crate::limits::learned::Saved;
use crate::time::{Duration, Instant};
use crate::units::Priority;

impl Allowance {
    /// What earlier processes spent and learned. What they ran holds its slots for `orphan_hold`. Only before anything is
    /// taken.
    pub fn restore(&mut self, now: Instant, before: &RecoveredLane, orphan_hold: Duration) {
        let saved = before.learned.as_deref().map(serde_json::from_slice::<Saved>);
        match saved {
            Some(Ok(saved)) => {
                let today = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
                let ago = saved.saved_at.map_or(Duration::ZERO, |then| today.saturating_sub(then));
                self.learned.restore(&saved, ago, now);
            }
            Some(Err(error)) => {
                tracing::warn!(%error, "what was learned of a provider cannot be read, and is forgotten")
            }
            None => {}
        }
        self.obey_learned(now);
        if let Some(until) = self.learned.closed_until().filter(|&until| until > now) {
            // What it was closed for may have been a reset: those who come then are no herd.
            self.set_aside(until);
        }
        for &Spent { at, requests, tokens } in &before.spent {
            self.day.spend(at, requests.into());
            self.tokens.spend(at, tokens);
            match &mut self.rate {
                Some(rate) if at + self.quota.span() > now => (0..requests).for_each(|_| rate.window.spend(at)),
                // What counts no more does so again when a reload makes the window longer.
                Some(rate) => rate.window.forget_until(at),
                None => {}
            }
            self.last_stamp = Some(at);
        }
        let orphans = before.orphans.iter().flat_map(|orphans| {
            std::iter::repeat_n(orphans.since + orphan_hold, usize::try_from(orphans.slots).unwrap_or_default())
        });
        for until in orphans.chain(before.cooling.iter().copied()).filter(|&until| until > now) {
            self.slots.take(Priority::default());
            self.slots.release(Priority::default(), until, now);
        }
    }

    /// Others have sent by what this one now counts, until `last`: as long as that might count, nothing is permitted.
    pub fn count_as_full(&mut self, now: Instant, last: Instant) {
        self.last_stamp = self.last_stamp.max(Some(last));
        if let Some(rate) = &mut self.rate {
            rate.window.forget_until(last);
        }
        if let Some(limit) = self.tokens.limit().filter(|_| last + self.quota.span() > now) {
            self.tokens.spend(last, limit);
        }
    }

    /// Nobody knows what was sent until `last`: as long as it might count, or run, nothing is permitted.
    pub fn forget_until(&mut self, now: Instant, last: Instant, orphan_hold: Duration) {
        self.count_as_full(now, last);
        for _ in 0..self.slots.cap().unwrap_or(0) {
            self.slots.take(Priority::default());
            self.slots.release(Priority::default(), last + orphan_hold, now);
        }
    }
}
