//! A lane: one key of one upstream, or all of them where they share one allowance.

use super::breakers::{BreakerIndex, GONE};
use super::choice::Choice;
use super::fair::Fair;
use super::floors::Floors;
use super::status::LaneStatus;
use crate::ids::{KeyId, LaneId};
use crate::limits::{Allowance, Quota};
use crate::time::Instant;

/// What has an allowance of its own.
#[derive(Debug)]
pub(super) struct Lane {
    pub(super) id: LaneId,
    /// The keys that go with its requests, in turn.
    keys: Vec<KeyId>,
    turn: usize,
    pub(super) allowance: Allowance,
    pub(super) floors: Floors,
    /// The order of the clients, by class, in the lines of which this is the first lane.
    pub(super) fair: [Fair; 3],
    /// The lines that it serves.
    pub(super) lines: Vec<usize>,
    /// How many wait for it whose turn can come, by class.
    pub(super) waiting: [u32; 3],
    /// Whether the present settings have it. One that is gone is kept: its spending counts when it comes back.
    pub(super) in_use: bool,
    /// The breaker of its upstream.
    pub(super) breaker: BreakerIndex,
    /// An operator has paused its upstream.
    pub(super) is_paused: bool,
    /// The key is a client's own: it is forgotten when it is untouched.
    pub(super) is_passing: bool,
    /// Keys that the provider does not know: until then nobody goes by them who can go by another.
    unknown: Vec<(KeyId, Instant)>,
    /// When it is looked at next.
    pub(super) wake: Option<Instant>,
}

impl Lane {
    pub(super) fn new(id: LaneId, quota: Quota) -> Self {
        Self {
            keys: vec![id.key],
            turn: 0,
            id,
            allowance: Allowance::new(quota),
            floors: Floors::default(),
            fair: Default::default(),
            lines: Vec::new(),
            waiting: [0; 3],
            in_use: true,
            breaker: GONE,
            is_paused: false,
            is_passing: false,
            unknown: Vec::new(),
            wake: None,
        }
    }

    /// The keys that share it.
    pub(super) fn share(&mut self, keys: &[KeyId]) {
        self.keys = keys.to_vec();
        self.unknown.retain(|(key, _)| keys.contains(key));
    }

    /// Whether a permit of it may name this key.
    pub(super) fn has_key(&self, lane: &LaneId) -> bool {
        self.id.upstream == lane.upstream && self.keys.contains(&lane.key)
    }

    /// Whether it will do, by one of its keys.
    pub(super) fn serves(&self, choice: &Choice) -> bool {
        !choice.avoid.has(&self.id) && self.keys.iter().any(|key| choice.has_key(&self.id.upstream, *key))
    }

    /// Whether the provider knows a key, as far as we have seen.
    pub(super) fn is_known(&self, now: Instant, key: KeyId) -> bool {
        !self.unknown.iter().any(|&(unknown, until)| unknown == key && until > now)
    }

    /// Whether it has a key that the provider knows and that will do.
    pub(super) fn has_known_key(&self, now: Instant, choice: Option<&Choice>) -> bool {
        self.keys.iter().any(|&key| self.will_do(now, key, choice))
    }

    fn will_do(&self, now: Instant, key: KeyId, choice: Option<&Choice>) -> bool {
        self.is_known(now, key) && choice.is_none_or(|choice| choice.has_key(&self.id.upstream, key))
    }

    /// The provider does not know a key. Where it knows none, nobody goes before one of them is to be tried again.
    pub(super) fn set_aside(&mut self, now: Instant, key: KeyId, until: Instant) {
        self.unknown.retain(|&(unknown, until)| unknown != key && until > now);
        self.unknown.push((key, until));
        if !self.has_known_key(now, None)
            && let Some(first) = self.unknown.iter().map(|&(_, until)| until).min()
        {
            self.allowance.set_aside(first);
        }
    }

    /// The lane as the next permit names it: with the key to use, which is one that will do if there is one.
    pub(super) fn next_id(&mut self, now: Instant, choice: Option<&Choice>) -> LaneId {
        let turns = (1..=self.keys.len()).map(|turn| (self.turn + turn) % self.keys.len());
        let is_chosen = |turn: &usize| choice.is_none_or(|choice| choice.has_key(&self.id.upstream, self.keys[*turn]));
        let best = turns.clone().find(|&turn| self.will_do(now, self.keys[turn], choice));
        self.turn = best.or_else(|| turns.clone().find(is_chosen)).or_else(|| turns.clone().next()).unwrap_or(0);
        LaneId { upstream: self.id.upstream.clone(), key: self.keys.get(self.turn).copied().unwrap_or(self.id.key) }
    }

    /// Whether somebody waits whose turn can come.
    pub(super) fn is_wanted(&self) -> bool {
        self.waiting != [0; 3]
    }

    /// Whether it may grant at all.
    pub(super) fn is_open(&self) -> bool {
        self.in_use && !self.is_paused
    }

    /// Whether nothing is lost by forgetting it.
    pub(super) fn is_untouched(&mut self, now: Instant) -> bool {
        self.lines.is_empty() && self.allowance.is_untouched(now)
    }

    pub(super) fn status(&mut self, now: Instant, waiting: u32) -> LaneStatus {
        LaneStatus {
            id: self.id.clone(),
            usage: self.allowance.usage(now),
            lessons: self.allowance.lessons().collect(),
            waiting,
        }
    }
}
