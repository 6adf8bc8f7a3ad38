//! Slots: how many exchanges may run at once, as the provider sees it.
//!
//! The provider notices the end of an exchange later than we do, so a slot *cools* for a while before it can be taken
//! again: shortly after a clean end, longer after an abort.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::num::NonZeroU32;

use super::Ready;
use crate::time::Instant;

/// The slots of one allowance.
#[derive(Debug)]
pub struct Slots {
    /// How many there are; `None`: as many as are asked for.
    cap: Option<NonZeroU32>,
    running: u32,
    /// When the slots of ended exchanges return, soonest first.
    cooling: BinaryHeap<Reverse<Instant>>,
}

impl Slots {
    /// All free.
    #[must_use]
    pub fn new(cap: Option<NonZeroU32>) -> Self {
        Self { cap, running: 0, cooling: BinaryHeap::new() }
    }

    /// Another cap from now on. Above a lowered one nothing is taken until enough have returned.
    pub fn set_cap(&mut self, cap: Option<NonZeroU32>) {
        self.cap = cap;
    }

    /// The cap in force.
    #[must_use]
    pub fn cap(&self) -> Option<u32> {
        self.cap.map(NonZeroU32::get)
    }

    /// Slots that cannot be taken now: running and cooling.
    pub fn in_use(&mut self, now: Instant) -> u32 {
        self.expire(now);
        self.running.saturating_add(u32::try_from(self.cooling.len()).unwrap_or(u32::MAX))
    }

    /// When one more can be taken.
    pub fn ready(&mut self, now: Instant) -> Ready {
        let Some(cap) = self.cap else { return Ready::Now };
        let in_use = self.in_use(now);
        let Some(excess) = in_use.checked_sub(cap.get()) else { return Ready::Now };
        if excess == 0 {
            return self.cooling.peek().map_or(Ready::OnRelease, |Reverse(at)| Ready::At(*at));
        }
        // Only after a lowered cap: `excess + 1` have to return, and the cooling ones do so in their order.
        let mut returns: Vec<Instant> = self.cooling.iter().map(|Reverse(at)| *at).collect();
        returns.sort_unstable();
        let returned = usize::try_from(excess).ok().and_then(|index| returns.get(index));
        returned.map_or(Ready::OnRelease, |&at| Ready::At(at))
    }

    /// Takes one. The caller has seen [`Ready::Now`].
    pub fn take(&mut self) {
        self.running += 1;
    }

    /// Gives one back, to be taken again from `at` on.
    pub fn release(&mut self, at: Instant, now: Instant) {
        self.running = self.running.saturating_sub(1);
        self.expire(now);
        // Without a cap, too: a reload may bring one.
        if at > now {
            self.cooling.push(Reverse(at));
        }
    }

    fn expire(&mut self, now: Instant) {
        while self.cooling.peek().is_some_and(|Reverse(at)| *at <= now) {
            self.cooling.pop();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::time::Duration;

    #[test]
    fn a_slot_returns_when_it_has_cooled_and_not_before() {
        let now = crate::time::now();
        let later = now + Duration::from_millis(50);
        let mut slots = Slots::new(NonZeroU32::new(1));
        slots.take();
        assert_eq!(slots.ready(now), Ready::OnRelease);
        slots.release(later, now);
        assert_eq!(slots.ready(now), Ready::At(later));
        assert_eq!(slots.ready(later), Ready::Now);
    }

    #[test]
    fn a_lowered_cap_waits_for_as_many_as_are_too_many() {
        let now = crate::time::now();
        let mut slots = Slots::new(NonZeroU32::new(3));
        for _ in 0..3 {
            slots.take();
        }
        slots.set_cap(NonZeroU32::new(1));
        for second in [3, 1, 2] {
            assert_eq!(slots.ready(now), Ready::OnRelease);
            slots.release(now + Duration::from_secs(second), now);
        }
        assert_eq!(slots.ready(now), Ready::At(now + Duration::from_secs(3)));
    }
}
