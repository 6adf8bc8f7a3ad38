//! How carefully a failing upstream is treated: what its breaker and its lanes make of each outcome.

use std::sync::Arc;

use super::Shared;
use super::breakers::{BreakerIndex, Opened};
use super::permit::Held;
use super::state::State;
use crate::breaker::Pass;
use crate::breaker::settings::Breaker;
use crate::limits::learned::{Cooldown, Saved};
use crate::limits::{Backlog, LimitSignal};
use crate::time::{Duration, Instant};

/// How carefully failing upstreams are treated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Caution {
    /// When an upstream is left alone.
    pub breaker: Breaker,
    /// How long a lane is left alone after resets that look like a limit; zero: it is not.
    pub cooldown: Duration,
    /// Where the doubling of `cooldown` ends.
    pub cooldown_max: Duration,
}

impl Default for Caution {
    fn default() -> Self {
        let (cooldown, cooldown_max) = (Duration::from_secs(2), Duration::from_secs(60));
        Self { breaker: Breaker::default(), cooldown, cooldown_max }
    }
}

impl State {
    /// The upstream has answered a request, perhaps by refusing it. Says whether that has closed its breaker.
    pub(super) fn answered(&mut self, shared: &Arc<Shared>, now: Instant, held: &mut Held, is_refused: bool) -> bool {
        let (Some(pass), Some(lane)) = (held.pass.take(), self.lanes.get_mut(held.lane)) else { return false };
        let breaker = lane.breaker;
        let more = !is_refused && lane.allowance.answered(now, &held.taken);
        let closes = self.breakers.answered(breaker, pass);
        if closes {
            let patience = self.breakers.caution().breaker.open;
            let lanes = self.lanes.iter_mut().map(|(_, lane)| lane);
            lanes.filter(|lane| lane.breaker == breaker).for_each(|lane| lane.allowance.ease_in(now, patience));
            self.dispatch_upstream(shared, now, breaker);
        } else if more {
            self.dispatch(shared, now, held.lane, Backlog::Waiting);
        }
        closes
    }

    /// The upstream has failed a request. Says whether that has opened its breaker.
    pub(super) fn failed(&mut self, shared: &Arc<Shared>, now: Instant, held: &mut Held) -> Option<Opened> {
        let pass = held.pass.take()?;
        let breaker = self.lanes.get(held.lane)?.breaker;
        let length = self.breakers.failed(breaker, now, pass)?;
        let failures = self.breakers.failures(breaker, now);
        let (mut lanes, mut learned) = (Vec::new(), Vec::new());
        for (index, lane) in self.lanes.iter_mut().filter(|(_, lane)| lane.breaker == breaker) {
            lanes.push(index);
            if lane.allowance.outage(now) {
                learned.push((lane.id.clone(), lane.allowance.save_learned(now)));
            }
        }
        self.turn_away_hopeless(shared, now, &lanes);
        self.dispatch_upstream(shared, now, breaker);
        Some(Opened { length, failures, learned })
    }

    /// The connection of a request was lost before its answer. Says what that was taken for, if for more than a fault, and
    /// what is to be remembered of it. What is lost while the breaker is not closed says nothing of limits.
    pub(super) fn lost(&mut self, shared: &Arc<Shared>, now: Instant, held: &Held) -> Option<(LimitSignal, Saved)> {
        let &Caution { cooldown: first, cooldown_max: max, .. } = self.breakers.caution();
        let lane = self.lanes.get_mut(held.lane).filter(|lane| self.breakers.is_closed(lane.breaker))?;
        let signal = lane.allowance.lost(now, &held.taken, Cooldown { first, max })?;
        let learned = lane.allowance.save_learned(now);
        if signal.lesson.is_some() {
            self.breakers.note_limit_signal(lane.breaker);
        }
        self.breakers.leave_alone(lane.breaker, signal.until);
        self.turn_away_hopeless(shared, now, &[held.lane]);
        self.dispatch(shared, now, held.lane, Backlog::Waiting);
        Some((signal, learned))
    }

    /// Nothing has come of a grant. Says whether another one of its upstream can probe now.
    pub(super) fn abandon(&mut self, lane: usize, pass: Option<Pass>) -> bool {
        let lane = pass.zip(self.lanes.get(lane));
        lane.is_some_and(|(pass, lane)| self.breakers.abandoned(lane.breaker, pass))
    }

    /// Looks at all lanes of the upstream of one.
    pub(super) fn dispatch_beside(&mut self, shared: &Arc<Shared>, now: Instant, lane: usize) {
        if let Some(lane) = self.lanes.get(lane) {
            self.dispatch_upstream(shared, now, lane.breaker);
        }
    }

    fn dispatch_upstream(&mut self, shared: &Arc<Shared>, now: Instant, breaker: BreakerIndex) {
        let lanes: Vec<usize> =
            self.lanes.iter().filter(|(_, lane)| lane.breaker == breaker).map(|(index, _)| index).collect();
        for lane in lanes {
            self.dispatch(shared, now, lane, Backlog::Waiting);
        }
    }
}
