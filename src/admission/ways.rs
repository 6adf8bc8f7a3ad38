//! Which lanes can serve a call.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use slab::Slab;

use super::breakers::{BreakerIndex, Breakers, GONE};
use super::choice::{Avoids, Choice, Wanted};
use super::lane::Lane;
use super::{Full, Refusal, Way};
use crate::ids::{KeyId, LaneId};
use crate::limits::journal::{Recovered, RecoveredLane};
use crate::limits::settings::Scope;
use crate::time::{Duration, Instant};

/// So many keys of clients have an allowance each at a time.
const KEYS_MAX: usize = 10_000;
/// So many lanes there are before those of keys that were not used for long are looked for.
const LANES_MIN: usize = 256;
/// All of them are looked through no more often than this.
const SWEEP_PAUSE: Duration = Duration::from_secs(1);

/// The upstreams, in the order of preference.
#[derive(Debug, Default)]
pub(super) struct Ways {
    ways: Vec<Known>,
    lane_of: HashMap<LaneId, usize>,
    paused: HashSet<Arc<str>>,
    /// What earlier processes spent of lanes that have not been there since.
    past: HashMap<LaneId, RecoveredLane>,
    /// Until then earlier processes may have sent what nobody remembers.
    unknown_until: Option<Instant>,
    /// How many lanes there may be before they are looked through, and when they last were.
    sweep_at: usize,
    swept: Option<Instant>,
}

/// An upstream, with the indexes of its lanes.
#[derive(Debug)]
struct Known {
    way: Way,
    /// One for each key, or one for all; none where each client's key has its own.
    lanes: Vec<usize>,
}

impl Known {
    fn has_lanes_of_clients(&self) -> bool {
        self.way.passes_keys && self.way.scope == Scope::Key
    }
}

impl Ways {
    pub(super) fn remembering(recovered: Recovered) -> Self {
        let Recovered { lanes, unknown_until } = recovered;
        let past = lanes.into_iter().map(|lane| (lane.id.clone(), lane)).collect();
        Self { past, unknown_until, ..Self::default() }
    }

    /// A lane of which earlier processes may have spent something.
    fn new_lane(&mut self, lanes: &Slab<Lane>, now: Instant, way: &Way, id: LaneId) -> Lane {
        let mut lane = Lane::new(id, way.quota);
        if let Some(past) = self.past.remove(&lane.id) {
            lane.allowance.restore(now, &past, way.orphan_hold);
        }
        if let Some(until) = self.unknown_until {
            lane.allowance.forget_until(now, until, way.orphan_hold);
        }
        // Where keys begin to share one allowance, or end to, nobody knows which of them had sent what.
        let others = lanes.iter().map(|(_, lane)| lane).filter(|lane| lane.id.upstream == way.upstream);
        let shared = others.filter(|other| (other.id.key == KeyId::ALL) != (lane.id.key == KeyId::ALL));
        if let Some(last) = shared.filter_map(|other| other.allowance.last_stamp()).max() {
            lane.allowance.count_as_full(now, last);
        }
        lane
    }

    /// Other ways from now on. Lanes that none of them has are kept: what was spent of them counts when they come back.
    pub(super) fn reconfigure(&mut self, lanes: &mut Slab<Lane>, now: Instant, ways: Vec<Way>) {
        for (_, lane) in lanes.iter_mut() {
            (lane.in_use, lane.breaker) = (false, GONE);
        }
        self.ways = ways.into_iter().map(|way| Known { way, lanes: Vec::new() }).collect();
        for index in 0..self.ways.len() {
            let way = self.ways[index].way.clone();
            self.ways[index].lanes = match (way.scope, way.passes_keys) {
                (Scope::Key, true) => {
                    let of_one_key = |lane: &Lane| lane.id.upstream == way.upstream && lane.id.key != KeyId::ALL;
                    let own = lanes.iter_mut().map(|(_, lane)| lane).filter(|lane| of_one_key(lane));
                    own.for_each(|lane| {
                        (lane.in_use, lane.is_passing, lane.breaker) = (true, true, index);
                        lane.allowance.reconfigure(now, way.quota);
                    });
                    Vec::new()
                }
                (Scope::Key, false) => {
                    way.keys.iter().map(|&key| self.lane_of(lanes, now, (index, &way), key)).collect()
                }
                (Scope::Upstream, _) => {
                    let lane = self.lane_of(lanes, now, (index, &way), KeyId::ALL);
                    if let Some(lane) = lanes.get_mut(lane) {
                        lane.share(&way.keys);
                    }
                    vec![lane]
                }
            };
        }
        self.sweep(lanes, now);
        self.apply_pauses(lanes);
    }

    fn lane_of(
        &mut self,
        lanes: &mut Slab<Lane>,
        now: Instant,
        (breaker, way): (BreakerIndex, &Way),
        key: KeyId,
    ) -> usize {
        let id = LaneId { upstream: Arc::clone(&way.upstream), key };
        if let Some(index) = self.lane_of.get(&id)
            && let Some(lane) = lanes.get_mut(*index)
        {
            lane.allowance.reconfigure(now, way.quota);
            (lane.in_use, lane.is_passing, lane.breaker) = (true, false, breaker);
            return *index;
        }
        let mut lane = self.new_lane(lanes, now, way, id.clone());
        lane.breaker = breaker;
        let index = lanes.insert(lane);
        self.lane_of.insert(id, index);
        index
    }

    /// The lanes that can serve a call, preferred first: of the first upstream that serves its model the fullest key,
    /// then the others, then those of the next.
    ///
    /// # Errors
    /// When nobody serves it, or too many keys are in use for one more.
    pub(super) fn serving(
        &mut self,
        lanes: &mut Slab<Lane>,
        now: Instant,
        wanted: Wanted<'_>,
    ) -> Result<Vec<usize>, Refusal> {
        let Wanted { model, key, choice } = wanted;
        // Before any index is handed out.
        if lanes.len() >= self.sweep_at.clamp(LANES_MIN, KEYS_MAX)
            && self.swept.is_none_or(|at| now >= at + SWEEP_PAUSE)
        {
            self.sweep(lanes, now);
        }
        let mut serving = Vec::with_capacity(1);
        for index in 0..self.ways.len() {
            let known = &self.ways[index];
            let is_wanted = choice.is_none_or(|choice| choice.has_upstream(&known.way.upstream));
            if !is_wanted || !(known.way.serves)(model) {
                continue;
            }
            if known.has_lanes_of_clients() {
                serving.push(self.passing(lanes, now, index, key)?);
            } else {
                serving.extend_from_slice(&known.lanes);
            }
        }
        if let Some(choice) = choice {
            serving.retain(|lane| lanes.get(*lane).is_some_and(|lane| lane.serves(choice)));
        }
        if serving.is_empty() { Err(no_upstream(model)) } else { Ok(serving) }
    }

    /// The lane of a client's own key.
    fn passing(
        &mut self,
        lanes: &mut Slab<Lane>,
        now: Instant,
        breaker: BreakerIndex,
        key: KeyId,
    ) -> Result<usize, Refusal> {
        let way = self.ways[breaker].way.clone();
        let id = LaneId { upstream: Arc::clone(&way.upstream), key };
        if let Some(index) = self.lane_of.get(&id) {
            return Ok(*index);
        }
        if lanes.len() >= KEYS_MAX {
            return Err(Refusal::QueueFull { full: Full::Keys(KEYS_MAX), retry_after: Duration::from_secs(10) });
        }
        let mut lane = self.new_lane(lanes, now, &way, id.clone());
        (lane.is_passing, lane.breaker) = (true, breaker);
        lane.is_paused = self.paused.contains(&way.upstream);
        let index = lanes.insert(lane);
        self.lane_of.insert(id, index);
        Ok(index)
    }

    /// Forgets lanes of which nothing is used: those of clients' keys, and those that the settings have no more.
    fn sweep(&mut self, lanes: &mut Slab<Lane>, now: Instant) {
        lanes.retain(|_, lane| (lane.in_use && !lane.is_passing) || !lane.is_untouched(now));
        self.lane_of.retain(|_, index| lanes.contains(*index));
        (self.sweep_at, self.swept) = (2 * lanes.len(), Some(now));
    }

    /// The lane of a request that is not counted: the first that serves it, of those whose key the provider knows, where it
    /// has not failed, and whose upstream is not left alone, as far as there are such.
    ///
    /// # Errors
    /// When nobody serves it.
    pub(super) fn first(
        &self,
        lanes: &Slab<Lane>,
        now: Instant,
        breakers: &Breakers,
        (wanted, avoids): (Wanted<'_>, &Avoids),
    ) -> Result<LaneId, Refusal> {
        let Wanted { model, key, choice } = wanted;
        let mut best: Option<((bool, bool, bool), LaneId)> = None;
        for (index, known) in self.ways.iter().enumerate().filter(|(_, known)| (known.way.serves)(model)) {
            let keys = if known.has_lanes_of_clients() { &[key] } else { &known.way.keys[..] };
            for id in keys.iter().map(|&key| LaneId { upstream: Arc::clone(&known.way.upstream), key }) {
                let will_do =
                    |choice: &Choice| choice.has_upstream(&id.upstream) && choice.has_key(&id.upstream, id.key);
                if !choice.is_none_or(will_do) {
                    continue;
                }
                let lane = known.lanes.iter().filter_map(|lane| lanes.get(*lane)).find(|lane| lane.has_key(&id));
                let is_unknown = lane.is_some_and(|lane| !lane.is_known(now, id.key));
                let against = (is_unknown, avoids.has(&id), !breakers.is_closed(index));
                if best.as_ref().is_none_or(|(least, _)| against < *least) {
                    best = Some((against, id));
                }
            }
        }
        best.map(|(_, id)| id).ok_or_else(|| no_upstream(model))
    }

    /// Pauses an upstream, or lets it go on. Says whether there is one of that name.
    pub(super) fn pause(&mut self, lanes: &mut Slab<Lane>, upstream: &str, paused: bool) -> bool {
        let Some(known) = self.ways.iter().find(|known| *known.way.upstream == *upstream) else { return false };
        match paused {
            true => self.paused.insert(Arc::clone(&known.way.upstream)),
            false => self.paused.remove(upstream),
        };
        self.apply_pauses(lanes);
        true
    }

    pub(super) fn paused(&self) -> Vec<Arc<str>> {
        self.paused.iter().cloned().collect()
    }

    fn apply_pauses(&self, lanes: &mut Slab<Lane>) {
        for (_, lane) in lanes {
            lane.is_paused = self.paused.contains(&lane.id.upstream);
        }
    }
}

fn no_upstream(model: Option<&str>) -> Refusal {
    Refusal::NoUpstream { model: model.map(str::to_owned) }
}
