//! What a permit asks for, and what was taken for it.

use super::learned::Evidence;
use super::meter::GrainId;
use super::ramp::RampId;
use crate::units::Priority;

/// What one permit asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ask {
    /// Whose slots it may use.
    pub class: Priority,
    /// Tokens it is expected to use at the most.
    pub tokens: u64,
}

/// Whether calls wait for this allowance: bursts are for the idle.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Backlog {
    /// Nobody waits: the bucket alone paces.
    Empty,
    /// Somebody waits: permits leave in even steps.
    Waiting,
}

/// What was taken for one permit. It goes back into [`Allowance::refund`](super::Allowance::refund) or [`Allowance::release`](super::Allowance::release).
#[derive(Debug)]
#[must_use = "what was taken has to be given back or spent"]
pub struct Taken {
    pub(super) class: Priority,
    pub(super) tokens: u64,
    pub(super) used: Option<u64>,
    /// How things stood when it was taken.
    pub(super) evidence: Evidence,
    /// Where its tokens were stamped.
    pub(super) stamped: Option<GrainId>,
    /// Where it counts among those that go a few at a time.
    pub(super) ramp: Option<RampId>,
    /// It is the first after its lane was left alone.
    pub(super) is_probe: bool,
}

impl Taken {
    /// Whether it is the first after its lane was left alone, which tells whether others may follow.
    #[must_use]
    pub fn is_probe(&self) -> bool {
        self.is_probe
    }

    /// The tokens it reserves.
    #[must_use]
    pub fn tokens(&self) -> u64 {
        self.tokens
    }

    /// Its exchange has used so many tokens.
    pub fn note_used(&mut self, tokens: u64) {
        self.used = Some(tokens);
    }

    /// The tokens its exchange has used, where the answer told.
    #[must_use]
    pub fn used(&self) -> Option<u64> {
        self.used
    }
}
