//! Slots: how many exchanges may run at once, as the provider sees it.
//!
//! The provider notices the end of an exchange later than we do, so a slot *cools* for a while before it can be taken
//! again: shortly after a clean end, longer after an abort. Some slots can be reserved for a class; what a class holds
//! counts towards its own reservation first.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::num::NonZeroU32;

use super::Ready;
use crate::time::Instant;
use crate::units::Priority;

/// The slots of one allowance.
#[derive(Debug)]
pub struct Slots {
    /// How many there are; `None`: as many as are asked for.
    cap: Option<NonZeroU32>,
    /// How many only a class may use.
    reserved: [u32; 3],
    /// How many a class holds, running or cooling.
    held: [u32; 3],
    /// When the slots of ended exchanges return, soonest first.
    cooling: BinaryHeap<Reverse<(Instant, Priority)>>,
}

impl Slots {
    /// All free.
    #[must_use]
    pub fn new(cap: Option<NonZeroU32>, reserved: [u32; 3]) -> Self {
        Self { cap, reserved, held: [0; 3], cooling: BinaryHeap::new() }
    }

    /// Another cap from now on. Above a lowered one nothing is taken until enough have returned.
    pub fn reconfigure(&mut self, cap: Option<NonZeroU32>, reserved: [u32; 3]) {
        (self.cap, self.reserved) = (cap, reserved);
    }

    /// The cap in force.
    #[must_use]
    pub fn cap(&self) -> Option<u32> {
        self.cap.map(NonZeroU32::get)
    }

    /// Slots that cannot be taken now: running and cooling.
    pub fn in_use(&mut self, now: Instant) -> u32 {
        self.expire(now);
        total(self.held)
    }

    /// Exchanges that run.
    #[must_use]
    pub fn running(&self) -> u32 {
        total(self.held).saturating_sub(u32::try_from(self.cooling.len()).unwrap_or(u32::MAX))
    }

    /// When a class can take one more.
    pub fn ready(&mut self, now: Instant, class: Priority) -> Ready {
        let Some(cap) = self.cap() else { return Ready::Now };
        self.expire(now);
        if self.has_room(cap, self.held, class) {
            return Ready::Now;
        }
        if self.cooling.is_empty() {
            return Ready::OnRelease;
        }
        // As many have to return as are too many; the cooling ones do so in their order. Nearly always it is the first.
        let mut held = self.held;
        let mut returns = self.cooling.clone();
        while let Some(Reverse((at, of))) = returns.pop() {
            held[of as usize] = held[of as usize].saturating_sub(1);
            if self.has_room(cap, held, class) {
                return Ready::At(at);
            }
        }
        Ready::OnRelease
    }

    /// Whether there is one that is not set aside for others.
    fn has_room(&self, cap: u32, held: [u32; 3], class: Priority) -> bool {
        let others = Priority::ALL.into_iter().filter(|other| *other != class);
        let set_aside: u32 =
            others.map(|other| self.reserved[other as usize].saturating_sub(held[other as usize])).sum();
        total(held).saturating_add(set_aside) < cap
    }

    /// Takes one. The caller has seen [`Ready::Now`].
    pub fn take(&mut self, class: Priority) {
        self.held[class as usize] += 1;
    }

    /// Gives one back, to be taken again from `at` on.
    pub fn release(&mut self, class: Priority, at: Instant, now: Instant) {
        self.expire(now);
        // Without a cap, too: a reload may bring one.
        if at > now {
            self.cooling.push(Reverse((at, class)));
        } else {
            self.give_back(class);
        }
    }

    fn give_back(&mut self, class: Priority) {
        let held = &mut self.held[class as usize];
        *held = held.saturating_sub(1);
    }

    fn expire(&mut self, now: Instant) {
        while let Some(&Reverse((at, class))) = self.cooling.peek()
            && at <= now
        {
            self.cooling.pop();
            self.give_back(class);
        }
    }
}

fn total(held: [u32; 3]) -> u32 {
    held.into_iter().fold(0, u32::saturating_add)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::time::Duration;

    const NORMAL: Priority = Priority::Normal;

    #[test]
    fn a_slot_returns_when_it_has_cooled_and_not_before() {
        let now = crate::time::now();
        let later = now + Duration::from_millis(50);
        let mut slots = Slots::new(NonZeroU32::new(1), [0; 3]);
        slots.take(NORMAL);
        assert_eq!(slots.ready(now, NORMAL), Ready::OnRelease);
        slots.release(NORMAL, later, now);
        assert_eq!(slots.ready(now, NORMAL), Ready::At(later));
        assert_eq!(slots.ready(later, NORMAL), Ready::Now);
    }

    #[test]
    fn a_lowered_cap_waits_for_as_many_as_are_too_many() {
        let now = crate::time::now();
        let mut slots = Slots::new(NonZeroU32::new(3), [0; 3]);
        for _ in 0..3 {
            slots.take(NORMAL);
        }
        slots.reconfigure(NonZeroU32::new(1), [0; 3]);
        for second in [3, 1, 2] {
            assert_eq!(slots.ready(now, NORMAL), Ready::OnRelease);
            slots.release(NORMAL, now + Duration::from_secs(second), now);
        }
        assert_eq!(slots.ready(now, NORMAL), Ready::At(now + Duration::from_secs(3)));
    }

    #[test]
    fn reserved_slots_are_for_their_class_and_it_may_use_others_too() {
        let now = crate::time::now();
        let mut slots = Slots::new(NonZeroU32::new(3), [1, 0, 0]);
        slots.take(NORMAL);
        slots.take(NORMAL);
        assert_eq!(slots.ready(now, NORMAL), Ready::OnRelease);
        assert_eq!(slots.ready(now, Priority::High), Ready::Now);
        slots.take(Priority::High);
        assert_eq!(slots.ready(now, Priority::High), Ready::OnRelease);
        let later = now + Duration::from_millis(50);
        slots.release(NORMAL, later, now);
        assert_eq!((slots.ready(now, NORMAL), slots.ready(now, Priority::High)), (Ready::At(later), Ready::At(later)));
        // The second that high holds is not of its own: what it holds counts towards its reservation first.
        slots.take(Priority::High);
        assert_eq!(slots.ready(later, NORMAL), Ready::OnRelease);
    }
}
