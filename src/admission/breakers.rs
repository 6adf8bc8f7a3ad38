//! The breakers of all upstreams, by the place of each in the settings.

use std::sync::Arc;

use super::Caution;
use super::status::BreakerStatus;
use crate::breaker::{Breaker, Pass};
use crate::ids::LaneId;
use crate::limits::learned::Saved;
use crate::time::Ready;
use crate::time::{Duration, Instant};

/// Which breaker a lane obeys: the place of its upstream.
pub(super) type BreakerIndex = usize;

/// Of a lane whose upstream is gone: it grants nothing, and what its permits tell is of no use.
pub(super) const GONE: BreakerIndex = usize::MAX;

/// A breaker has opened.
#[derive(Debug)]
pub(super) struct Opened {
    pub(super) length: Duration,
    /// Failures in a row.
    pub(super) failures: u32,
    /// What is to be remembered of lanes whose lessons were taken back.
    pub(super) learned: Vec<(LaneId, Saved)>,
}

#[derive(Debug, Default)]
pub(super) struct Breakers {
    all: Vec<Known>,
    /// How many there ever were.
    made: u64,
    caution: Caution,
}

#[derive(Debug)]
struct Known {
    upstream: Arc<str>,
    breaker: Breaker,
    /// How often its resets were taken for a refusal.
    limit_signals: u64,
    /// Until when a key of it is left alone for that.
    left_alone_until: Option<Instant>,
}

impl Breakers {
    /// The upstreams from now on. Those that stay keep their state; those that are gone are forgotten.
    pub(super) fn reconfigure<'a>(&mut self, upstreams: impl Iterator<Item = &'a Arc<str>>) {
        let mut before = std::mem::take(&mut self.all);
        for upstream in upstreams {
            let known = before.iter().position(|known| known.upstream == *upstream);
            let known = known.map(|index| before.swap_remove(index)).unwrap_or_else(|| {
                self.made += 1;
                let breaker = Breaker::new(self.caution.breaker, self.made * Breaker::EPOCHS);
                Known { upstream: Arc::clone(upstream), breaker, limit_signals: 0, left_alone_until: None }
            });
            self.all.push(known);
        }
    }

    pub(super) fn set_caution(&mut self, now: Instant, caution: Caution) {
        self.caution = caution;
        self.all.iter_mut().for_each(|known| known.breaker.reconfigure(now, &caution.breaker));
    }

    pub(super) fn caution(&self) -> &Caution {
        &self.caution
    }

    fn of(&mut self, index: BreakerIndex) -> Option<&mut Breaker> {
        self.all.get_mut(index).map(|known| &mut known.breaker)
    }

    /// When a lane can be granted a permit, as far as its upstream decides.
    pub(super) fn ready(&self, index: BreakerIndex, now: Instant) -> Ready {
        self.all.get(index).map_or(Ready::OnRelease, |known| known.breaker.ready(now))
    }

    /// Until when it is open, if it is.
    pub(super) fn open_until(&self, index: BreakerIndex) -> Option<Instant> {
        self.all.get(index)?.breaker.open_until()
    }

    pub(super) fn is_closed(&self, index: BreakerIndex) -> bool {
        self.all.get(index).is_some_and(|known| known.breaker.is_closed())
    }

    /// Grants. The caller has seen [`Ready::Now`].
    pub(super) fn take(&mut self, index: BreakerIndex, now: Instant) -> Option<Pass> {
        self.of(index)?.take(now)
    }

    pub(super) fn answered(&mut self, index: BreakerIndex, pass: Pass) -> bool {
        self.of(index).is_some_and(|breaker| breaker.answered(pass))
    }

    pub(super) fn failed(&mut self, index: BreakerIndex, now: Instant, pass: Pass) -> Option<Duration> {
        self.of(index)?.failed(now, pass)
    }

    pub(super) fn written(&mut self, index: BreakerIndex, now: Instant, pass: Pass) -> bool {
        self.of(index).is_some_and(|breaker| breaker.written(now, pass))
    }

    pub(super) fn abandoned(&mut self, index: BreakerIndex, pass: Pass) -> bool {
        self.of(index).is_some_and(|breaker| breaker.abandoned(pass))
    }

    /// Resets were taken for a refusal.
    pub(super) fn note_limit_signal(&mut self, index: BreakerIndex) {
        if let Some(known) = self.all.get_mut(index) {
            known.limit_signals += 1;
        }
    }

    /// Nothing more goes with a key until then, since connections were lost.
    pub(super) fn leave_alone(&mut self, index: BreakerIndex, until: Instant) {
        if let Some(known) = self.all.get_mut(index) {
            known.left_alone_until = known.left_alone_until.max(Some(until));
        }
    }

    /// Whether some upstream is left alone, because it fails or seems to refuse.
    pub(super) fn is_failing(&self, now: Instant) -> bool {
        let is_failing =
            |known: &Known| known.breaker.holds_up(now) || known.left_alone_until.is_some_and(|until| until > now);
        self.all.iter().any(is_failing)
    }

    pub(super) fn failures(&self, index: BreakerIndex, now: Instant) -> u32 {
        self.all.get(index).map_or(0, |known| known.breaker.status(now).failures)
    }

    pub(super) fn status(&self, now: Instant) -> Vec<BreakerStatus> {
        let status = |known: &Known| BreakerStatus {
            upstream: Arc::clone(&known.upstream),
            breaker: known.breaker.status(now),
            limit_signals: known.limit_signals,
        };
        self.all.iter().map(status).collect()
    }
}
