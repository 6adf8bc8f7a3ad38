//! A sliding window over amounts: tokens in a window, requests in a day.
//!
//! Like [`Window`](super::Window), but what is spent has a size, may turn out smaller or larger than was reserved, and is
//! remembered in *grains*: what was spent within one grain of time expires together, when the last of it does. So the
//! memory is bounded whatever the traffic, and the error is on the safe side.
//!
//! An amount counts from the permit on, and from the end of writing for one span; its size is what was reserved until
//! the answer tells what was used. That is exact for providers that count a request when it arrives, as OpenAI documents
//! it ("rate limits", the larger of `max_tokens` and an estimate of the prompt); one that counts when the answer ends
//! sees the same pattern later.

use std::collections::VecDeque;

use super::{FAR, Ready};
use crate::time::{Duration, Instant};

/// How many grains that count no more are remembered, so that a window made longer by a reload knows what was spent.
const PAST_MAX: usize = 4_096;

/// The log of one allowance. It counts also while there is no limit: a reload may bring one.
#[derive(Debug)]
pub struct Meter {
    limit: Option<u64>,
    span: Duration,
    grain: Duration,
    /// Reserved by permits whose request is not yet completely written.
    pending: u64,
    /// Grains that still count, oldest first.
    live: VecDeque<Grain>,
    /// What they amount to.
    spent: u64,
    /// Grains that count no more, oldest first.
    past: VecDeque<Grain>,
    /// The number of the oldest live grain.
    oldest: GrainId,
}

/// What was spent within one grain of time.
#[derive(Debug, Clone, Copy)]
struct Grain {
    first: Instant,
    last: Instant,
    amount: u64,
}

/// Which grain an amount went into. Grains are numbered as they come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct GrainId(u64);

impl Meter {
    /// A meter over `span` in which nothing was spent yet.
    #[must_use]
    pub fn new(limit: Option<u64>, span: Duration, grain: Duration) -> Self {
        Self {
            limit,
            span,
            grain,
            pending: 0,
            live: VecDeque::new(),
            spent: 0,
            past: VecDeque::new(),
            oldest: GrainId::default(),
        }
    }

    /// Other limits from now on. What was spent stays spent; a lowered limit holds at once.
    pub fn reconfigure(&mut self, now: Instant, limit: Option<u64>, span: Duration, grain: Duration) {
        (self.limit, self.span, self.grain) = (limit, span, grain);
        while self.past.back().is_some_and(|grain| grain.last + span > now) {
            let Some(grain) = self.past.pop_back() else { break };
            self.spent = self.spent.saturating_add(grain.amount);
            self.live.push_front(grain);
            self.oldest.0 = self.oldest.0.saturating_sub(1);
        }
        self.expire(now);
    }

    /// The limit in force.
    #[must_use]
    pub fn limit(&self) -> Option<u64> {
        self.limit
    }

    /// What counts now: reserved and spent.
    pub fn used(&mut self, now: Instant) -> u64 {
        self.expire(now);
        self.pending.saturating_add(self.spent)
    }

    /// When everything that was spent will have expired.
    #[must_use]
    pub fn empty_at(&self) -> Option<Instant> {
        self.live.back().map(|grain| grain.last + self.span)
    }

    /// When `amount` more can be taken. More than the limit itself is a guess that cannot be right: it waits until
    /// nothing else counts, and passes.
    pub fn ready(&mut self, now: Instant, amount: u64) -> Ready {
        let Some(limit) = self.limit else { return Ready::Now };
        let wanted = self.used(now).saturating_add(amount.min(limit));
        let Some(mut excess) = wanted.checked_sub(limit).filter(|excess| *excess > 0) else { return Ready::Now };
        for grain in &self.live {
            excess = excess.saturating_sub(grain.amount);
            if excess == 0 {
                return Ready::at(grain.last + self.span, now);
            }
        }
        Ready::OnRelease
    }

    /// Reserves an amount: it is pending until [`Meter::stamp`] or [`Meter::refund`].
    pub fn take(&mut self, amount: u64) {
        self.pending = self.pending.saturating_add(amount);
    }

    /// Nothing has left: it costs nothing.
    pub fn refund(&mut self, amount: u64) {
        self.pending = self.pending.saturating_sub(amount);
    }

    /// What was reserved has left, and is spent from this instant. Says into which grain it went.
    pub fn stamp(&mut self, now: Instant, amount: u64) -> GrainId {
        self.pending = self.pending.saturating_sub(amount);
        self.spend(now, amount)
    }

    /// Spends what was never reserved, as of `at`; later instants come later.
    pub fn spend(&mut self, at: Instant, amount: u64) -> GrainId {
        self.spent = self.spent.saturating_add(amount);
        match self.live.back_mut() {
            Some(grain) if at.saturating_duration_since(grain.first) < self.grain => {
                grain.last = grain.last.max(at);
                grain.amount = grain.amount.saturating_add(amount);
            }
            Some(_) | None => self.live.push_back(Grain { first: at, last: at, amount }),
        }
        GrainId(self.oldest.0 + (self.live.len() as u64).saturating_sub(1))
    }

    /// What went into a grain as `reserved` was `used` in truth. Of a grain that counts no more that is remembered: a
    /// reload may make it count again.
    pub fn settle(&mut self, id: GrainId, reserved: u64, used: u64) {
        let settled = |amount: u64| amount.saturating_sub(reserved).saturating_add(used);
        let index = |ahead: Option<u64>| ahead.and_then(|ahead| usize::try_from(ahead).ok());
        if let Some(grain) = index(id.0.checked_sub(self.oldest.0)).and_then(|index| self.live.get_mut(index)) {
            grain.amount = settled(grain.amount);
            self.spent = settled(self.spent);
        } else if let Some(before) = index(self.oldest.0.checked_sub(id.0))
            && let Some(grain) = self.past.len().checked_sub(before).and_then(|index| self.past.get_mut(index))
        {
            grain.amount = settled(grain.amount);
        }
    }

    /// When `amount` will have fitted in, if what is granted until then is spent as soon as it fits; `None` where it has
    /// to wait for nothing.
    pub fn fits_at(&mut self, now: Instant, amount: u64) -> Option<Instant> {
        let limit = self.limit?;
        let used = self.used(now);
        let mut excess = used.saturating_add(amount).checked_sub(limit).filter(|excess| *excess > 0)?;
        for grain in &self.live {
            if excess <= grain.amount {
                return Some(grain.last + self.span);
            }
            excess -= grain.amount;
        }
        // What is pending counts as if it left now; then the pattern repeats, a limit in each span.
        let spans = excess.saturating_sub(self.pending).div_ceil(limit.max(1)).saturating_add(1);
        Some(now + self.span.saturating_mul(u32::try_from(spans).unwrap_or(u32::MAX)).min(FAR))
    }

    fn expire(&mut self, now: Instant) {
        while self.live.front().is_some_and(|grain| grain.last + self.span <= now) {
            let Some(grain) = self.live.pop_front() else { break };
            self.oldest.0 += 1;
            self.spent = self.spent.saturating_sub(grain.amount);
            self.past.push_back(grain);
        }
        let forgotten = self.past.len().saturating_sub(PAST_MAX);
        self.past.drain(..forgotten);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SPAN: Duration = Duration::from_secs(60);

    fn meter(limit: u64) -> (Meter, Instant) {
        (Meter::new(Some(limit), SPAN, Duration::from_secs(1)), crate::time::now())
    }

    fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn an_amount_counts_from_its_permit_until_a_span_after_it_was_written() {
        let (mut meter, start) = meter(100);
        meter.take(100);
        assert_eq!(meter.ready(start + 10 * SPAN, 1), Ready::OnRelease);
        meter.stamp(start + seconds(5), 100);
        assert_eq!(meter.ready(start + seconds(5), 1), Ready::At(start + seconds(5) + SPAN));
        assert_eq!(meter.ready(start + seconds(5) + SPAN, 100), Ready::Now);
    }

    #[test]
    fn usage_settles_what_was_reserved_and_a_refund_costs_nothing() {
        let (mut meter, start) = meter(100);
        meter.take(80);
        let grain = meter.stamp(start, 80);
        meter.take(20);
        meter.refund(20);
        meter.settle(grain, 80, 30);
        assert_eq!((meter.used(start), meter.ready(start, 70)), (30, Ready::Now));
        meter.settle(grain, 30, 150);
        assert_eq!(meter.used(start), 150, "a debt");
        assert_eq!(meter.ready(start, 1), Ready::At(start + SPAN));
    }

    #[test]
    fn what_settles_after_its_span_changes_nothing_as_long_as_it_does_not_count() {
        let (mut meter, start) = meter(100);
        meter.take(50);
        let grain = meter.stamp(start, 50);
        meter.take(10);
        meter.stamp(start + SPAN, 10);
        meter.settle(grain, 50, 90);
        assert_eq!(meter.used(start + SPAN), 10);
        meter.reconfigure(start + SPAN, Some(100), 2 * SPAN, Duration::from_secs(1));
        assert_eq!(meter.used(start + SPAN), 100, "unless a longer one has it count again");
    }

    #[test]
    fn a_grain_expires_with_the_last_of_it() {
        let (mut meter, start) = meter(100);
        for millis in [0, 400, 900] {
            meter.spend(start + Duration::from_millis(millis), 10);
        }
        let last = start + Duration::from_millis(900);
        assert_eq!(meter.used(last + SPAN - Duration::from_nanos(1)), 30);
        assert_eq!(meter.used(last + SPAN), 0);
    }

    #[test]
    fn more_than_the_limit_passes_alone() {
        let (mut meter, start) = meter(100);
        meter.spend(start, 1);
        assert_eq!(meter.ready(start, 1_000), Ready::At(start + SPAN));
        assert_eq!(meter.ready(start + SPAN, 1_000), Ready::Now);
    }

    #[test]
    fn a_longer_span_remembers_what_the_shorter_one_had_let_go_and_a_new_limit_what_was_spent_without_one() {
        let mut meter = Meter::new(None, SPAN, Duration::from_secs(1));
        let start = crate::time::now();
        let grain = meter.spend(start, 70);
        let now = start + 2 * SPAN;
        assert_eq!(meter.used(now), 0);
        meter.reconfigure(now, Some(100), 3 * SPAN, Duration::from_secs(1));
        assert_eq!(meter.used(now), 70);
        meter.settle(grain, 70, 60);
        assert_eq!(meter.ready(now, 41), Ready::At(start + 3 * SPAN));
    }

    #[test]
    fn the_promised_instant_is_when_it_fits() {
        let (mut meter, start) = meter(100);
        for second in 0..10 {
            meter.spend(start + seconds(2 * second), 10);
        }
        let now = start + seconds(20);
        assert_eq!(meter.fits_at(now, 10), Some(start + SPAN));
        assert_eq!(meter.fits_at(now, 11), Some(start + SPAN + seconds(2)));
        assert_eq!(meter.fits_at(now, 101), Some(now + 2 * SPAN));
    }
}
