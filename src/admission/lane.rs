//! A lane: one key of one upstream, or all of them where they share one allowance.

use super::breakers::{BreakerIndex, GONE};
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
    /// The provider does not know its key: until then nobody goes by it who can go by another.
    pub(super) unknown_until: Option<Instant>,
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
            unknown_until: None,
            wake: None,
        }
    }

    /// How many keys take turns on it.
    pub(super) fn keys(&self) -> usize {
        self.keys.len()
    }

    /// The keys that share it.
    pub(super) fn share(&mut self, keys: &[KeyId]) {
        self.keys = keys.to_vec();
    }

    /// The lane as the next permit names it: with the key to use.
    pub(super) fn next_id(&mut self) -> LaneId {
        self.turn = (self.turn + 1) % self.keys.len().max(1);
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
