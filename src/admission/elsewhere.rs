//! Where a call goes after it has failed somewhere: with another key, at another upstream.

use std::sync::Arc;

use super::choice::Avoids;
use super::place::Demand;
use super::state::State;
use super::{Permit, Shared};
use crate::ids::LaneId;
use crate::limits::Ask;
use crate::time::{Duration, Instant};

/// So often a key that the provider does not know is tried again.
const UNKNOWN_FOR: Duration = Duration::from_secs(60);

impl State {
    /// A permit at once where the call has not failed, if nobody waits for it.
    pub(super) fn elsewhere(
        &mut self,
        shared: &Arc<Shared>,
        now: Instant,
        demand: &Demand,
        avoids: &Avoids,
    ) -> Option<Permit> {
        if self.closed || demand.exempt {
            return None;
        }
        let mut lanes = self.ways.serving(&mut self.lanes, now, demand.wanted()).ok()?;
        lanes.retain(|lane| self.lanes.get(*lane).is_some_and(|lane| !avoids.has(&lane.id)));
        let client = self.clients.key_of(&demand.client);
        let ask = Ask { class: demand.priority, tokens: demand.tokens.tokens() };
        self.take_if_idle(shared, now, &lanes, client, (ask, demand.choice.as_deref()))
    }

    /// Whether other lanes serve the call than those on which it has failed.
    pub(super) fn has_elsewhere(&mut self, now: Instant, demand: &Demand, avoids: &Avoids) -> bool {
        let lanes = self.ways.serving(&mut self.lanes, now, demand.wanted()).unwrap_or_default();
        lanes.iter().any(|lane| self.lanes.get(*lane).is_some_and(|lane| !avoids.has(&lane.id)))
    }

    /// The provider does not know a key. Says whether another one serves the call; then nobody goes by this one for a while,
    /// but for who has it alone.
    pub(super) fn set_aside(&mut self, now: Instant, demand: &Demand, lane: &LaneId) -> bool {
        let others = self.ways.serving(&mut self.lanes, now, demand.wanted()).unwrap_or_default();
        let choice = demand.choice.as_deref();
        let is_known = |lane: &usize| self.lanes.get(*lane).is_some_and(|lane| lane.has_known_key(now, choice));
        let has_others = others.iter().any(is_known);
        let mut lanes = self.lanes.iter_mut().map(|(_, known)| known);
        if let Some(known) = lanes.find(|known| known.has_key(lane)).filter(|_| has_others) {
            known.set_aside(now, lane.key, now + UNKNOWN_FOR);
        }
        has_others
    }
}
