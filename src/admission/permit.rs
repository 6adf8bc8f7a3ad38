//! The right to go upstream now.

use std::sync::Arc;

use super::Shared;
use crate::ids::LaneId;
use crate::limits::learned::Signal;
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

/// The right to send one request on one lane now. It holds a request of the window and a slot, and gives back by itself
/// what can be given back when it is dropped:
///
/// - before [`Permit::writing`]: it serves the next call in line, or everything returns;
/// - before [`Permit::ended`]: the request counts from now at the latest, and the slot cools as after an abort.
#[derive(Debug)]
#[must_use = "a permit that is dropped serves somebody else"]
pub struct Permit {
    /// The lane it counts in; `None` for a route that the provider does not count.
    held: Option<(Arc<Shared>, usize)>,
    lane: LaneId,
    stage: Stage,
    waited: Duration,
}

impl Permit {
    pub(super) fn new(shared: &Arc<Shared>, index: usize, lane: LaneId) -> Self {
        Self { held: Some((Arc::clone(shared), index)), lane, stage: Stage::Unused, waited: Duration::ZERO }
    }

    pub(super) fn exempt(lane: LaneId) -> Self {
        Self { held: None, lane, stage: Stage::Unused, waited: Duration::ZERO }
    }

    pub(super) fn after(mut self, waited: Duration) -> Self {
        self.waited = waited;
        self
    }

    /// Forgets the permit without giving anything back: its caller takes the balance over.
    pub(super) fn defuse(mut self) {
        self.held = None;
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

    /// The first byte of the request is about to leave: from now on it costs.
    pub fn writing(&mut self) {
        self.stage = Stage::Writing;
    }

    /// The request is completely written: the window counts from this instant.
    pub fn written(&mut self) {
        if self.stage != Stage::Written {
            self.stage = Stage::Written;
            self.with(|shared, lane| shared.with(|state, now| state.lane(lane).allowance.stamp(now)));
        }
    }

    /// The exchange has ended by itself: the slot returns after the short delay.
    pub fn ended(mut self) {
        self.written();
        self.release(true);
    }

    /// The answer says that so many tokens were used, prompt and answer together: the reservation is settled by it when
    /// the exchange ends. Unknown usage is never given back.
    pub fn used(&mut self, tokens: u64) {
        let _ = tokens;
    }

    /// The provider has refused the request: nobody goes on its lane until it wants us again. Says until when; `None` where
    /// there is no lane that could be closed.
    pub fn refused(&self, signal: &Signal) -> Option<Instant> {
        let until = time::now() + signal.hints().wait.unwrap_or(signal.backoff);
        self.close_lane(until).then_some(until)
    }

    /// What the headers of an answer tell that is no refusal.
    pub fn heard(&self, limits: &RateLimits) {
        let _ = limits;
    }

    /// The provider has accepted the request: so much at a time, and in a window, it allows.
    pub fn accepted(&self) {}

    /// The provider refuses everything until `until`. Says whether the permit has a lane that could be closed: then the
    /// next permit waits.
    pub fn close_lane(&self, until: Instant) -> bool {
        self.with(|shared, lane| shared.with(|state, _| state.lane(lane).allowance.close_until(until)));
        self.held.is_some()
    }

    /// Whether the provider had no reason to refuse this request: the lane has limits, and we keep them.
    #[must_use]
    pub fn is_within_limits(&self) -> bool {
        self.held.as_ref().is_some_and(|(shared, lane)| shared.state.lock().lane(*lane).allowance.is_limited())
    }

    fn release(&mut self, clean: bool) {
        if let Some((shared, lane)) = self.held.take() {
            shared.with(|state, now| state.lane(lane).allowance.release(now, clean));
        }
    }

    fn with(&self, act: impl FnOnce(&Arc<Shared>, usize)) {
        if let Some((shared, lane)) = &self.held {
            act(shared, *lane);
        }
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        if self.stage == Stage::Unused {
            if let Some((shared, lane)) = self.held.take() {
                shared.with(|state, now| state.hand_over(&shared, lane, now));
            }
        } else if self.held.is_some() {
            self.written();
            self.release(false);
        }
    }
}
