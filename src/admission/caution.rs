//! How carefully a failing upstream is treated: what its breaker and its lanes make of each outcome.

use std::sync::Arc;

use super::Shared;
use super::permit::Held;
use super::state::State;
use crate::breaker::settings::Breaker;
use crate::limits::learned::Saved;
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
    /// The upstream has answered a request.
    pub(super) fn answered(&mut self, _shared: &Arc<Shared>, _now: Instant, _held: &mut Held) {}

    /// The upstream has failed a request.
    pub(super) fn failed(&mut self, _shared: &Arc<Shared>, _now: Instant, _held: &mut Held) {}

    /// The connection of a request was lost before its answer.
    pub(super) fn lost(&mut self, _shared: &Arc<Shared>, _now: Instant, _held: &Held) -> Option<(Instant, Saved)> {
        None
    }
}
