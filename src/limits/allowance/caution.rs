//! An allowance when something goes wrong: resets that may be refusals, and outages.

use super::Allowance;
use crate::limits::Taken;
use crate::limits::learned::{Cooldown, Lesson};
use crate::limits::ramp::Ramp;
use crate::time::{Duration, Instant};

/// Resets were taken for a refusal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LimitSignal {
    /// Until when nothing is permitted.
    pub until: Instant,
    /// What was concluded; `None`: it belongs to what is known already.
    pub lesson: Option<Lesson>,
}

impl Allowance {
    /// The upstream has answered the permit's request, and not refused it. Says whether more may go by that.
    pub fn answered(&mut self, now: Instant, taken: &Taken) -> bool {
        let (Some(id), Some(ramp)) = (taken.ramp, &mut self.ramp) else { return false };
        ramp.answered(now, id);
        if ramp.is_over(self.slots.cap()) {
            self.ramp = None;
        }
        true
    }

    /// The connection of the permit's request was lost before its answer.
    pub fn lost(&mut self, now: Instant, taken: &Taken, cooldown: Cooldown) -> Option<LimitSignal> {
        let (lesson, is_new) = self.learned.lost(now, &taken.evidence, cooldown)?;
        let until = lesson.closed_until();
        self.close_until(until);
        self.cooling_until = Some(until);
        self.obey_learned(now);
        if !cooldown.first.is_zero() && (is_new || self.ramp.is_none()) {
            self.ramps += 1;
            self.ramp = Some(Ramp::after_resets(self.ramps, until, taken.evidence.in_flight, self.ramp));
        }
        Some(LimitSignal { until, lesson: is_new.then_some(lesson) })
    }

    /// The upstream was found to be out of order: what its resets have taught was not about limits. Says whether that has
    /// changed what is to be remembered.
    pub fn outage(&mut self, now: Instant) -> bool {
        let is_news = self.learned.outage(now);
        self.obey_learned(now);
        is_news
    }

    /// The upstream is in order again: those who waited go one by one, then two by two.
    /// Who is silent for `patience` holds nobody up any longer.
    pub fn ease_in(&mut self, now: Instant, patience: Duration) {
        match &mut self.ramp {
            // One that is there for another reason goes on: it ends by what is accepted.
            Some(ramp) if !ramp.is_for_the_crowd() => ramp.ease_in(now, patience),
            _ => {
                self.ramps += 1;
                self.ramp = Some(Ramp::after_outage(self.ramps, now, patience));
            }
        }
    }

    /// Nothing is permitted until then, and then one goes to see.
    pub fn set_aside(&mut self, until: Instant) {
        self.close_until(until);
        self.ramps += 1;
        self.ramp = Some(Ramp::to_see(self.ramps, until));
    }

    /// Whether the next one goes to see whether others may follow.
    #[must_use]
    pub fn is_probing(&self) -> bool {
        self.ramp.is_some_and(|ramp| ramp.is_probing())
    }

    /// Nobody waits any more who could come as a herd.
    pub fn nobody_waits(&mut self) {
        if self.ramp.is_some_and(|ramp| ramp.is_for_the_crowd()) {
            self.ramp = None;
        }
    }

    /// A permit has ended, or was not used.
    pub(super) fn leave_ramp(&mut self, taken: &Taken) {
        if let (Some(id), Some(ramp)) = (taken.ramp, &mut self.ramp) {
            ramp.release(id);
        }
    }

    /// Until when nothing is permitted, as far as the provider said so.
    #[must_use]
    pub fn closed_until(&self) -> Option<Instant> {
        self.closed_until
    }
}
