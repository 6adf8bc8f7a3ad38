//! The exact sliding window: no more than N requests in any span of time, as the provider sees it.
//!
//! From the moment a permit exists until its request is completely written it counts as *pending*; from then on as a
//! stamp, for `window + margin`. Why that is exact: let p be the permit, s the stamp and a the instant at which the
//! provider counts, so p ≤ a ≤ s + d with d the delay to its counting. Of any N + 1 requests let k be the one
//! permitted last. When it was, fewer than N others were unexpired, so some i among them has
//! p(k) ≥ s(i) + window + margin, hence a(k) − a(i) ≥ window + margin − d ≥ window as long as d ≤ margin.

use std::collections::VecDeque;
use std::num::NonZeroU32;

use super::{FAR, Ready};
use crate::time::{Duration, Instant};

/// How many expired stamps are remembered, so that a window made longer by a reload still knows what was spent.
const PAST_MAX: usize = 65_536;

/// The sliding log of one allowance. It holds one stamp for each request of the last `span`; a decision costs
/// amortised O(1).
#[derive(Debug)]
pub struct Window {
    allowance: NonZeroU32,
    /// The provider's window plus our margin.
    span: Duration,
    /// Permits whose request is not yet completely written. They never expire by themselves.
    pending: u32,
    /// Stamps that still count, oldest first.
    live: VecDeque<Instant>,
    /// Stamps that count no more, oldest first.
    past: VecDeque<Instant>,
    /// The latest stamp that is remembered no more.
    forgotten: Option<Instant>,
}

impl Window {
    /// A window of `span` (the provider's window and our margin) in which nothing was spent yet.
    #[must_use]
    pub fn new(allowance: NonZeroU32, span: Duration) -> Self {
        Self { allowance, span, pending: 0, live: VecDeque::new(), past: VecDeque::new(), forgotten: None }
    }

    /// Other limits from now on. What was spent stays spent; a lowered limit holds at once.
    pub fn reconfigure(&mut self, now: Instant, allowance: NonZeroU32, span: Duration) {
        self.allowance = allowance;
        self.span = span;
        while self.past.back().is_some_and(|&stamp| stamp + span > now) {
            if let Some(stamp) = self.past.pop_back() {
                self.live.push_front(stamp);
            }
        }
        self.expire(now);
    }

    /// How much is left to take now.
    pub fn left(&mut self, now: Instant) -> u32 {
        self.expire(now);
        if self.unknown_until(now).is_some() {
            return 0;
        }
        self.allowance.get().saturating_sub(self.used())
    }

    /// How many requests count now: pending and stamped.
    #[must_use]
    pub fn used(&self) -> u32 {
        self.pending.saturating_add(u32::try_from(self.live.len()).unwrap_or(u32::MAX))
    }

    /// The limit in force.
    #[must_use]
    pub fn allowance(&self) -> u32 {
        self.allowance.get()
    }

    /// Something was spent until `last` that no stamp tells of: as long as it might count, nothing is left.
    pub fn forget_until(&mut self, last: Instant) {
        self.forgotten = self.forgotten.max(Some(last));
    }

    /// When the oldest stamp expires.
    #[must_use]
    pub fn oldest_expires(&self) -> Option<Instant> {
        self.live.front().map(|&stamp| stamp + self.span)
    }

    /// When one more can be taken.
    pub fn ready(&mut self, now: Instant) -> Ready {
        self.expire(now);
        let known = self.unknown_until(now).map_or(Ready::Now, |until| Ready::at(until, now));
        let Some(excess) = self.used().checked_sub(self.allowance.get()) else { return known };
        // `excess + 1` stamps have to expire first; pending ones do not expire.
        let opens = usize::try_from(excess).ok().and_then(|index| self.live.get(index));
        known.and(opens.map_or(Ready::OnRelease, |&stamp| Ready::at(stamp + self.span, now)))
    }

    /// When the `n`-th from now, from 1, finds room, if all before it are taken as soon as they do; `None`: at once. What
    /// is pending counts as if it were written now. A pattern repeats each span.
    #[must_use]
    pub fn nth_opens(&self, now: Instant, n: u32) -> Option<Instant> {
        let allowance = self.allowance.get();
        let ahead = n.saturating_sub(1);
        let in_span = ahead % allowance;
        let opens = in_span.checked_add(self.used())?.checked_sub(allowance);
        let opens = opens.map(|index| {
            let stamp = usize::try_from(index).ok().and_then(|index| self.live.get(index));
            stamp.map_or(now + self.span, |&stamp| (stamp + self.span).max(now))
        });
        match (ahead / allowance, opens) {
            (0, opens) => opens,
            (spans, opens) => Some(opens.unwrap_or(now) + self.span.saturating_mul(spans).min(FAR)),
        }
    }

    /// How long a request counts.
    pub(super) fn span(&self) -> Duration {
        self.span
    }

    /// The stamp before which `index` others expire.
    pub(super) fn stamp_at(&self, index: usize) -> Option<Instant> {
        self.live.get(index).copied()
    }

    /// When everything that counts will have expired.
    #[must_use]
    pub fn empty_at(&self) -> Option<Instant> {
        self.live.back().map(|&stamp| stamp + self.span)
    }

    /// A request was sent at `at`, before this window was there; later ones come later.
    pub fn spend(&mut self, at: Instant) {
        self.live.push_back(at);
    }

    /// Takes one: it is pending until [`Window::stamp`] or [`Window::refund`]. The caller has seen [`Ready::Now`].
    pub fn take(&mut self) {
        self.pending += 1;
    }

    /// The request of a pending permit is completely written, or given up after a byte of it had left.
    pub fn stamp(&mut self, now: Instant) {
        self.pending = self.pending.saturating_sub(1);
        self.live.push_back(now);
    }

    /// Nothing of a pending permit's request has left: it costs nothing.
    pub fn refund(&mut self) {
        self.pending = self.pending.saturating_sub(1);
    }

    /// Until when a longer window might hold stamps that were already forgotten.
    fn unknown_until(&self, now: Instant) -> Option<Instant> {
        self.forgotten.map(|stamp| stamp + self.span).filter(|&until| until > now)
    }

    fn expire(&mut self, now: Instant) {
        while self.live.front().is_some_and(|&stamp| stamp + self.span <= now) {
            self.past.extend(self.live.pop_front());
        }
        while self.past.len() > PAST_MAX {
            self.forgotten = self.past.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SPAN: Duration = Duration::from_secs(60);

    fn window(allowance: u32) -> (Window, Instant) {
        (Window::new(NonZeroU32::new(allowance).unwrap(), SPAN), crate::time::now())
    }

    fn spend(window: &mut Window, at: Instant) {
        assert_eq!(window.ready(at), Ready::Now);
        window.take();
        window.stamp(at);
    }

    #[test]
    fn a_stamp_counts_for_exactly_the_span() {
        let (mut window, start) = window(1);
        spend(&mut window, start);
        assert_eq!(window.ready(start + SPAN - Duration::from_nanos(1)), Ready::At(start + SPAN));
        assert_eq!(window.ready(start + SPAN), Ready::Now);
    }

    #[test]
    fn a_pending_permit_never_expires() {
        let (mut window, start) = window(1);
        window.take();
        assert_eq!(window.ready(start + 100 * SPAN), Ready::OnRelease);
        window.stamp(start + 100 * SPAN);
        assert_eq!(window.ready(start + 100 * SPAN), Ready::At(start + 101 * SPAN));
    }

    #[test]
    fn a_refund_costs_nothing() {
        let (mut window, start) = window(1);
        window.take();
        window.refund();
        assert_eq!(window.ready(start), Ready::Now);
    }

    #[test]
    fn a_lowered_limit_waits_for_as_many_stamps_as_are_too_many() {
        let (mut window, start) = window(4);
        for second in 0..4 {
            spend(&mut window, start + Duration::from_secs(second));
        }
        let now = start + Duration::from_secs(10);
        window.reconfigure(now, NonZeroU32::new(2).unwrap(), SPAN);
        assert_eq!(window.left(now), 0);
        assert_eq!(window.ready(now), Ready::At(start + Duration::from_secs(2) + SPAN));
    }

    #[test]
    fn a_longer_window_remembers_what_the_shorter_one_had_let_go() {
        let (mut window, start) = window(2);
        spend(&mut window, start);
        spend(&mut window, start + Duration::from_secs(30));
        let now = start + Duration::from_secs(100);
        assert_eq!(window.left(now), 2);
        window.reconfigure(now, NonZeroU32::new(2).unwrap(), 3 * SPAN);
        assert_eq!(window.left(now), 0);
        assert_eq!(window.ready(now), Ready::At(start + 3 * SPAN));
    }

    #[test]
    fn a_longer_window_stays_shut_while_it_could_hold_forgotten_stamps() {
        let allowance = u32::try_from(PAST_MAX).unwrap();
        let (mut window, start) = window(allowance);
        for _ in 0..=PAST_MAX {
            window.take();
            window.stamp(start);
        }
        let now = start + 2 * SPAN;
        assert_eq!(window.left(now), allowance);
        window.reconfigure(now, NonZeroU32::MAX, 4 * SPAN);
        assert_eq!(window.ready(now), Ready::At(start + 4 * SPAN));
        assert_eq!(window.left(start + 4 * SPAN), u32::MAX);
    }
}
