//! Fewer at a time, after something went wrong: nobody who waited comes back as a herd.
//!
//! - **After an outage** one exchange goes, then one more at a time for each that was answered: twice as many each round,
//!   until nobody waits any more. What is silent for a while counts as answered: it may be an answer that takes minutes, and
//!   nobody is to wait for that.
//! - **After resets that were taken for a refusal** one goes, the *probe*; then half of what was in flight before; then one
//!   more for each round that was answered, until as many go as before. Where rounds do not end, since connections stay
//!   open, one more goes each minute.
//! - **After both** it begins as after an outage, and goes on as after resets once as many go as that would allow.
//!
//! Only what is permitted after its begin counts: exchanges that were running before hold nobody up.

use super::Ready;
use crate::time::{Duration, Instant};

/// Which ramp a permit counts in.
pub(super) type RampId = u64;

/// A round is no longer than this.
const ROUND_MAX: u32 = 16;
/// Who waits for an answer that does not come gets one more after this.
const PATIENCE: Duration = Duration::from_secs(60);
/// After an outage nobody is taken for silent before this.
const PATIENCE_LEAST: Duration = Duration::from_secs(1);

/// How many may go at a time, and how that grows.
#[derive(Debug, Clone, Copy)]
pub(super) struct Ramp {
    id: RampId,
    at_a_time: u32,
    /// Permitted since its begin, and not yet ended.
    out: u32,
    growth: Growth,
}

#[derive(Debug, Clone, Copy)]
enum Growth {
    /// One more for each answer.
    Doubling(Doubling),
    /// One more for each round.
    Steps(Steps),
}

#[derive(Debug, Clone, Copy)]
struct Doubling {
    /// After so long in silence as many again go.
    patience: Duration,
    /// Since when all that may go are out.
    full: Instant,
    /// It binds also when nobody waits: until the first was accepted.
    is_trial: bool,
}

#[derive(Debug, Clone, Copy)]
struct Steps {
    /// Nothing was answered yet.
    is_probing: bool,
    /// How many go after the probe.
    half: u32,
    /// So many were in flight twice over: where no cap is configured, that is back.
    back: u32,
    /// Of this round.
    answers: u32,
    /// When there was one more the last time.
    stepped: Instant,
    /// There was an outage, too.
    climb: Option<Climb>,
}

#[derive(Debug, Clone, Copy)]
struct Climb {
    /// One more for each answer, until as many go.
    to: u32,
    /// After so long in silence as many again go.
    patience: Duration,
}

impl Ramp {
    /// After an outage. Who is silent for `patience` counts as answered.
    pub(super) fn after_outage(id: RampId, now: Instant, patience: Duration) -> Self {
        let growth = Growth::Doubling(Doubling { patience: patience.max(PATIENCE_LEAST), full: now, is_trial: false });
        Self { id, at_a_time: 1, out: 0, growth }
    }

    /// The same where nobody knows whether anything is accepted: one goes first, also when nobody waits.
    pub(super) fn to_see(id: RampId, now: Instant) -> Self {
        let growth = Growth::Doubling(Doubling { patience: PATIENCE, full: now, is_trial: true });
        Self { id, at_a_time: 1, out: 0, growth }
    }

    /// After resets that were taken for a refusal, from `begins` on; `in_flight`: how many were when the last of them was
    /// permitted. Of several in a row the first counts.
    pub(super) fn after_resets(id: RampId, begins: Instant, in_flight: u32, before: Option<Self>) -> Self {
        let (half, back) = match before.map(|before| before.growth) {
            Some(Growth::Steps(Steps { is_probing: true, half, back, .. })) => (half, back),
            _ => ((in_flight / 2).max(1), in_flight.saturating_mul(2).max(2)),
        };
        let steps = Steps { is_probing: true, half, back, answers: 0, stepped: begins, climb: None };
        Self { id, at_a_time: 1, out: 0, growth: Growth::Steps(steps) }
    }

    /// There was an outage, too, and it is over: what it allows now is allowed step by step.
    pub(super) fn ease_in(&mut self, now: Instant, patience: Duration) {
        if let Growth::Steps(steps) = &mut self.growth {
            steps.climb = Some(Climb { to: self.at_a_time, patience: patience.max(PATIENCE_LEAST) });
            (self.at_a_time, steps.stepped) = (1, now);
        }
    }

    /// When one more may go, as far as can be told.
    pub(super) fn ready(&mut self, now: Instant) -> Ready {
        if self.out < self.at_a_time {
            return Ready::Now;
        }
        let (since, patience, more) = match &mut self.growth {
            Growth::Doubling(Doubling { patience, full, .. }) => (full, *patience, self.at_a_time),
            Growth::Steps(steps) => match steps.climb.filter(|climb| self.at_a_time < climb.to) {
                Some(Climb { to, patience }) => (&mut steps.stepped, patience, self.at_a_time.min(to - self.at_a_time)),
                None => (&mut steps.stepped, PATIENCE, 1),
            },
        };
        if *since + patience > now {
            return Ready::At(*since + patience);
        }
        *since = now;
        self.at_a_time = self.at_a_time.saturating_add(more);
        if self.out < self.at_a_time { Ready::Now } else { Ready::At(now + patience) }
    }

    /// One goes. Says where it counts, and whether it is a probe.
    pub(super) fn take(&mut self, now: Instant) -> (RampId, bool) {
        self.out = self.out.saturating_add(1);
        if let Growth::Doubling(doubling) = &mut self.growth {
            doubling.full = now;
        }
        (self.id, matches!(self.growth, Growth::Steps(Steps { is_probing: true, .. })))
    }

    /// One has ended, or was never used.
    pub(super) fn release(&mut self, id: RampId) {
        if id == self.id {
            self.out = self.out.saturating_sub(1);
        }
    }

    /// One was answered, and not refused.
    pub(super) fn answered(&mut self, now: Instant, id: RampId) {
        if id != self.id {
            return;
        }
        let steps = match &mut self.growth {
            Growth::Steps(steps) => steps,
            Growth::Doubling(doubling) => {
                (self.at_a_time, doubling.is_trial) = (self.at_a_time.saturating_add(1), false);
                return;
            }
        };
        if std::mem::take(&mut steps.is_probing) {
            (self.at_a_time, steps.stepped) = (self.at_a_time.max(steps.half), now);
            return;
        }
        if steps.climb.is_some_and(|climb| self.at_a_time < climb.to) {
            (self.at_a_time, steps.stepped) = (self.at_a_time + 1, now);
            return;
        }
        steps.answers += 1;
        if steps.answers >= self.at_a_time.min(ROUND_MAX) {
            (steps.answers, steps.stepped) = (0, now);
            self.at_a_time = self.at_a_time.saturating_add(1);
        }
    }

    /// Whether as many may go as before. `cap`: how many may go at a time without it, where that is limited.
    pub(super) fn is_over(&self, cap: Option<u32>) -> bool {
        let back = match self.growth {
            Growth::Doubling(_) => cap,
            Growth::Steps(Steps { is_probing: true, .. }) => None,
            Growth::Steps(steps) => Some(cap.unwrap_or(steps.back)),
        };
        back.is_some_and(|back| self.at_a_time >= back)
    }

    /// Whether nothing was accepted yet since something went wrong.
    pub(super) fn is_probing(&self) -> bool {
        match self.growth {
            Growth::Doubling(doubling) => doubling.is_trial,
            Growth::Steps(steps) => steps.is_probing,
        }
    }

    /// Whether it is over when nobody waits.
    pub(super) fn is_for_the_crowd(&self) -> bool {
        matches!(self.growth, Growth::Doubling(Doubling { is_trial: false, .. }))
    }

    /// Whether nobody has gone by it for so long that it says nothing any more.
    pub(super) fn is_forgotten(&self, now: Instant) -> bool {
        match self.growth {
            Growth::Doubling(_) => self.out == 0,
            Growth::Steps(steps) => self.out == 0 && now.saturating_duration_since(steps.stepped) >= PATIENCE * 10,
        }
    }

    pub(super) fn at_a_time(&self) -> u32 {
        self.at_a_time
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn takes_all(ramp: &mut Ramp, now: Instant) -> Vec<RampId> {
        let mut taken = Vec::new();
        while ramp.ready(now) == Ready::Now {
            taken.push(ramp.take(now).0);
        }
        taken
    }

    /// All that may go do, and are answered. Says how many.
    fn round(ramp: &mut Ramp, now: Instant) -> usize {
        let round = takes_all(ramp, now);
        for &id in &round {
            ramp.answered(now, id);
            ramp.release(id);
        }
        round.len()
    }

    #[test]
    fn after_an_outage_each_round_is_twice_the_one_before() {
        let now = crate::time::now();
        let mut ramp = Ramp::after_outage(1, now, 10 * SECOND);
        let rounds: Vec<usize> = (0..6).map(|_| round(&mut ramp, now)).collect();
        assert_eq!(rounds, [1, 2, 4, 8, 16, 32]);
        assert!(!ramp.is_over(Some(100)) && !ramp.is_over(None) && ramp.is_over(Some(64)));
    }

    #[test]
    fn what_fails_makes_room_for_as_many_and_no_more() {
        let now = crate::time::now();
        let mut ramp = Ramp::after_outage(1, now, 10 * SECOND);
        for _ in 0..5 {
            let round = takes_all(&mut ramp, now);
            assert_eq!(round.len(), 1);
            ramp.release(round[0]);
        }
        let (id, _) = ramp.take(now);
        ramp.answered(now, 7);
        ramp.release(7);
        assert_eq!(ramp.ready(now), Ready::At(now + 10 * SECOND), "what counts elsewhere changes nothing");
        ramp.release(id);
        assert_eq!(ramp.ready(now), Ready::Now);
    }

    #[test]
    fn after_resets_one_then_half_then_one_more_each_round() {
        let now = crate::time::now();
        let mut ramp = Ramp::after_resets(1, now, 8, None);
        assert_eq!((takes_all(&mut ramp, now).len(), ramp.is_over(Some(1))), (1, false));
        ramp.answered(now, 1);
        ramp.release(1);
        let mut rounds = Vec::new();
        while !ramp.is_over(Some(8)) {
            rounds.push(round(&mut ramp, now));
        }
        assert_eq!(rounds, [4, 5, 6, 7]);
        assert!(!ramp.is_over(None), "twice as many as before, where nothing is configured");
    }

    /// After resets with so many in flight, which turned out to be an outage: its probe was answered.
    fn eased_in(now: Instant, in_flight: u32) -> Ramp {
        let mut ramp = Ramp::after_resets(1, now, in_flight, None);
        let (id, _) = ramp.take(now);
        ramp.answered(now, id);
        ramp.ease_in(now, 10 * SECOND);
        ramp.release(id);
        ramp
    }

    #[test]
    fn after_an_outage_that_looked_like_a_limit_each_round_is_twice_the_one_before_up_to_half() {
        let now = crate::time::now();
        let mut ramp = eased_in(now, 16);
        let rounds: Vec<usize> = (0..7).map(|_| round(&mut ramp, now)).collect();
        assert_eq!(rounds, [1, 2, 4, 8, 9, 10, 11], "half is eight");
    }

    #[test]
    fn who_is_silent_after_an_outage_that_looked_like_a_limit_holds_nobody_up() {
        let now = crate::time::now();
        let mut ramp = eased_in(now, 12);
        let rounds: Vec<usize> = (0..4).map(|round| takes_all(&mut ramp, now + round * 10 * SECOND).len()).collect();
        assert_eq!(rounds, [1, 1, 2, 2], "half is six");
    }

    #[test]
    fn several_in_a_row_halve_once_and_never_to_nothing() {
        let now = crate::time::now();
        let mut ramp = Ramp::after_resets(1, now, 8, None);
        for id in 2..5 {
            assert!(ramp.take(now).1);
            ramp = Ramp::after_resets(id, now, 1, Some(ramp));
        }
        ramp.take(now);
        ramp.answered(now, 4);
        assert_eq!(ramp.at_a_time(), 4);
        let mut alone = Ramp::after_resets(1, now, 1, Some(ramp));
        alone.take(now);
        alone.answered(now, 1);
        assert_eq!(alone.at_a_time(), 1);
    }

    #[test]
    fn connections_that_stay_open_let_one_more_go_each_minute() {
        let now = crate::time::now();
        let mut ramp = Ramp::after_resets(1, now, 2, None);
        ramp.take(now);
        assert_eq!(ramp.ready(now), Ready::At(now + PATIENCE));
        assert_eq!(ramp.ready(now + PATIENCE), Ready::Now);
        assert!(ramp.take(now).1, "still to see");
        assert_eq!(ramp.ready(now + PATIENCE), Ready::At(now + 2 * PATIENCE));
    }

    #[test]
    fn those_who_are_silent_after_an_outage_let_as_many_again_go() {
        for (patience, each) in [(10 * SECOND, 10 * SECOND), (SECOND / 10, SECOND)] {
            let mut now = crate::time::now();
            let mut ramp = Ramp::after_outage(1, now, patience);
            let mut out = Vec::new();
            for _ in 0..5 {
                out.push(takes_all(&mut ramp, now).len());
                assert_eq!(ramp.ready(now), Ready::At(now + each));
                assert_eq!(ramp.ready(now + each - SECOND / 1000), Ready::At(now + each));
                now += each;
            }
            assert_eq!(out, [1, 1, 2, 4, 8]);
        }
    }
}
