//! The right to go upstream now.

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use super::Shared;
use super::breakers::Opened;
use super::clients::ClientNumber;
use crate::answer::Standing;
use crate::breaker::Pass;
use crate::ids::{KeyId, LaneId};
use crate::limits::journal::Entry;
use crate::limits::learned::{Saved, Signal};
use crate::limits::{LimitSignal, Taken};
use crate::openai::RateLimits;
use crate::time::{self, Duration, Instant};

/// How far the request of a permit has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// Not a byte has left.
    Unused,
    /// Bytes may have left: the provider may count it from now on.
    Writing,
    /// Completely written and stamped.
    Written,
}

/// What a permit holds, of a lane and of its client's own limits.
#[derive(Debug)]
pub(super) struct Held {
    pub(super) lane: usize,
    pub(super) client: ClientNumber,
    pub(super) taken: Taken,
    /// Of the client's own limits, if it has any.
    pub(super) own: Option<Taken>,
    /// The key of the lane, as the journal knows it.
    pub(super) key: KeyId,
    /// Of the upstream's breaker, until it is known what comes of it.
    pub(super) pass: Option<Pass>,
    pub(super) is_probe: bool,
}

/// The right to send one request on one lane now. It holds a request of the window and of the day, its tokens and a slot,
/// the same of its client's own limits, and gives back by itself what can be given back when it is dropped:
///
/// - before [`Permit::writing`]: everything returns, and the next call in line goes;
/// - before [`Permit::ended`]: the request counts from now at the latest, and the slot cools as after an abort.
#[derive(Debug)]
#[must_use = "a permit that is dropped serves somebody else"]
pub struct Permit {
    shared: Arc<Shared>,
    /// `None` for a route that the provider does not count.
    held: Option<Box<Held>>,
    lane: LaneId,
    stage: Stage,
    waited: Duration,
    /// Its request in the journal, from its first byte on.
    entry: Option<Entry>,
    /// The provider has refused the request: it answers, but lets no more go by that.
    is_refused: bool,
}

impl Permit {
    pub(super) fn new(shared: &Arc<Shared>, lane: LaneId, held: Held) -> Self {
        let mut permit = Self::exempt(shared, lane);
        permit.held = Some(Box::new(held));
        permit
    }

    pub(super) fn exempt(shared: &Arc<Shared>, lane: LaneId) -> Self {
        let (shared, stage, waited) = (Arc::clone(shared), Stage::Unused, Duration::ZERO);
        Self { shared, held: None, lane, stage, waited, entry: None, is_refused: false }
    }

    pub(super) fn after(mut self, waited: Duration) -> Self {
        self.waited = waited;
        self
    }

    /// It holds this part of its client's own limits, too.
    pub(super) fn hold_own(&mut self, own: Option<Taken>) {
        if let (Some(held), Some(own)) = (&mut self.held, own) {
            held.own = Some(own);
        }
    }

    /// Takes out what it holds: whoever has it gives it back.
    pub(super) fn into_held(mut self) -> Option<Held> {
        self.held.take().map(|held| *held)
    }

    /// The upstream and key to use.
    #[must_use]
    pub fn lane(&self) -> &LaneId {
        &self.lane
    }

    /// How long its call stood in line for it.
    #[must_use]
    pub fn waited(&self) -> Duration {
        self.waited
    }

    /// What is left of requests and of tokens: of the client's own limits, else of the lane's.
    #[must_use]
    pub fn standing(&self) -> (Option<Standing>, Option<Standing>) {
        let Some(held) = &self.held else { return (None, None) };
        self.shared.state.lock().standing(time::now(), held.client, Some(held.lane))
    }

    /// The first byte of the request is about to leave: from now on it costs. When this returns it is in the journal.
    pub fn writing(&mut self) {
        if self.stage != Stage::Unused {
            return;
        }
        self.stage = Stage::Writing;
        if let Some(held) = &self.held {
            let lane = self.lane_of(held);
            self.entry = Some(self.shared.journal.writing(&lane, held.taken.tokens()));
        }
    }

    /// The request is completely written: the window counts from this instant.
    pub fn written(&mut self) {
        if self.stage != Stage::Written {
            self.stage = Stage::Written;
            if let Some(held) = &mut self.held {
                self.shared.with(|state, now| state.stamp(&self.shared, now, held));
            }
            if let Some(entry) = &self.entry {
                self.shared.journal.written(entry);
            }
        }
    }

    /// The answer says that so many tokens were used, prompt and answer together: the reservation is settled by it when
    /// the exchange ends. Unknown usage is never given back.
    pub fn used(&mut self, tokens: u64) {
        if let Some(held) = &mut self.held {
            held.taken.note_used(tokens);
            if let Some(own) = &mut held.own {
                own.note_used(tokens);
            }
        }
    }

    /// The exchange has ended by itself: the slot returns after the short delay.
    pub fn ended(mut self) {
        self.written();
        self.release(true);
    }

    /// The provider has refused the request: nobody goes on its lane until it wants us again. Says until when; `None` where
    /// there is no lane that could be closed.
    pub fn refused(&mut self, signal: &Signal) -> Option<Instant> {
        self.is_refused = true;
        let held = self.held.as_deref()?;
        let (until, learned) = self.shared.with(|state, now| state.refused(&self.shared, now, held, signal))?;
        self.remember(&self.lane_of(held), Some(learned));
        Some(until)
    }

    /// The upstream has answered properly, whatever it said; a refusal is an answer. Its breaker counts from zero again,
    /// and who probed lets the next ones go, but for one that was [`Permit::refused`] before. Once for a permit: what is
    /// told later changes nothing.
    ///
    /// A permit that is dropped without this and without [`Permit::failed`] says nothing of the upstream: the place of a
    /// probe is free for the next. One of a request that the provider does not count says nothing in any case.
    pub fn answered(&mut self) {
        let Some(held) = &mut self.held else { return };
        let is_refused = self.is_refused;
        if self.shared.with(|state, now| state.answered(&self.shared, now, held, is_refused)) {
            tracing::info!(upstream = &*self.lane.upstream, "a probe was answered: calls go again, a few at first");
        }
    }

    /// The upstream has failed the request: a 5xx, no connection, a reset, a cut, a time-out; never a mistake of ours or of
    /// the client. Its breaker counts that. Once for a permit, as [`Permit::answered`].
    pub fn failed(&mut self) {
        let Some(held) = &mut self.held else { return };
        if let Some(opened) = self.shared.with(|state, now| state.failed(&self.shared, now, held)) {
            let Opened { length, failures, learned } = opened;
            let upstream = &*self.lane.upstream;
            tracing::warn!(upstream, failures, open_for = ?length, "it fails again and again: its calls wait");
            learned.into_iter().for_each(|(lane, learned)| self.remember(&lane, Some(learned)));
        }
    }

    /// The connection was reset, or ended, before the head of the answer (1006), and was not dead before. Besides
    /// [`Permit::failed`], before or after it: some providers do so instead of refusing. Says until when nobody goes on its
    /// lane, if this was taken for a refusal; else it is a fault.
    pub fn lost(&mut self) -> Option<Instant> {
        let held = self.held.as_deref()?;
        let (signal, learned) = self.shared.with(|state, now| state.lost(&self.shared, now, held))?;
        self.remember(&self.lane_of(held), Some(learned));
        let LimitSignal { until, lesson } = signal;
        if let Some(lesson) = lesson {
            let closed_for = until.saturating_duration_since(time::now());
            let upstream = &*self.lane.upstream;
            tracing::warn!(upstream, ?closed_for, concluded = %lesson, "resets before the answer look like a limit");
        }
        Some(until)
    }

    /// Whether everybody waits for what comes of it: it is the first after its upstream's breaker was open, or after a
    /// cooldown.
    #[must_use]
    pub fn is_probe(&self) -> bool {
        self.held.as_ref().is_some_and(|held| held.is_probe)
    }

    /// What the headers of an answer tell that is no refusal.
    pub fn heard(&self, limits: &RateLimits) {
        if let Some(held) = &self.held {
            let learned = self.shared.with(|state, now| state.heard(&self.shared, now, held, limits));
            self.remember(&self.lane_of(held), learned);
        }
    }

    /// The provider has accepted the request: so much at a time, and in a window, it allows.
    pub fn accepted(&self) {
        if let Some(held) = &self.held {
            let learned = self.shared.with(|state, now| state.accepted(&self.shared, now, held));
            self.remember(&self.lane_of(held), learned);
        }
    }

    /// What was learned outlives a restart.
    fn remember(&self, lane: &LaneId, mut learned: Option<Saved>) {
        if let Some(learned) = &mut learned {
            learned.saved_at = SystemTime::now().duration_since(UNIX_EPOCH).ok();
        }
        // Numbers and names: it can be written as JSON.
        if let Some(blob) = learned.and_then(|learned| serde_json::to_vec(&learned).ok()) {
            self.shared.journal.learned(lane, &blob);
        }
    }

    /// The lane as the journal knows it.
    fn lane_of(&self, held: &Held) -> LaneId {
        LaneId { upstream: Arc::clone(&self.lane.upstream), key: held.key }
    }

    /// Whether the provider had no reason to refuse this request: the lane has limits, and we keep them.
    #[must_use]
    pub fn is_within_limits(&self) -> bool {
        self.held.as_ref().is_some_and(|held| self.shared.state.lock().is_limited(held.lane))
    }

    fn release(&mut self, clean: bool) {
        let Some(held) = self.held.take() else { return };
        let used = held.taken.used();
        let cools = self.shared.with(|state, now| state.release(&self.shared, now, *held, clean));
        if let Some(entry) = self.entry.take() {
            self.shared.journal.ended(entry, used, cools);
        }
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        if self.stage == Stage::Unused {
            if let Some(held) = self.held.take() {
                self.shared.with(|state, now| state.hand_over(&self.shared, now, *held));
            }
        } else if self.held.is_some() {
            self.written();
            self.release(false);
        }
    }
}
