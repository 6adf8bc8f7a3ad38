//! When the permits to come can be expected.

use super::{Allowance, Rate};
use crate::limits::{FAR, forecast};
use crate::time::Instant;

impl Allowance {
    /// An instant by which the `n`-th permit from now will have existed, if all stays as it is. It is late by up to two
    /// spans, and costs little to know.
    pub fn nth_permit_at_last(&mut self, now: Instant, not_before: Instant, n: u32) -> Instant {
        let first = self.closed_until.map_or(now, |until| until.max(now)).max(not_before);
        let window = self.rate.as_ref().map(|rate| {
            let spans = (n / rate.window.allowance()).saturating_add(2);
            first + self.quota.span().saturating_mul(spans).min(FAR)
        });
        self.nth_by_the_others(now, n, window.unwrap_or(first))
    }

    /// When the `n`-th permit from now, from 1, can be expected to exist under backlog, if everything stays as it is and
    /// permits ask for as many tokens, and hold their slot for as long, as they do on average.
    ///
    /// `not_before`: when the first can exist as far as others decide. That only few go at a time after an outage is left
    /// out, since nobody knows for how long: who is told to come back should never have had a chance.
    pub fn nth_permit(&mut self, now: Instant, not_before: Instant, n: u32) -> Instant {
        let mut expected = self.closed_until.map_or(now, |until| until.max(now)).max(not_before);
        if let Some(Rate { window, pace, played }) = &mut self.rate {
            expected = match pace {
                Some(pace) => forecast::nth_permit(window, pace, now, expected, n, played),
                None => expected.max(window.nth_opens(now, n).unwrap_or(now)),
            };
        }
        self.nth_by_the_others(now, n, expected)
    }

    /// The same by day, tokens and slots, where they make it later.
    fn nth_by_the_others(&mut self, now: Instant, n: u32, mut expected: Instant) -> Instant {
        if let Some(fits) = self.day.fits_at(now, u64::from(n)) {
            expected = expected.max(fits);
        }
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "positive, and saturates")]
        let tokens = (f64::from(n) * self.mean_tokens) as u64;
        if let Some(fits) = self.tokens.fits_at(now, tokens) {
            expected = expected.max(fits);
        }
        if let (Some(cap), Some(held)) = (self.slots.cap(), self.mean_held) {
            let free = cap.saturating_sub(self.slots.in_use(now));
            let turns = f64::from(n.saturating_sub(free)) / f64::from(cap);
            expected = expected.max(now + held.mul_f64(turns));
        }
        expected
    }
}
