//! What is learned from connections that broke before an answer: some providers do so instead of refusing.
//!
//! One loss is a fault, which a later acceptance of as much refutes; two together are a refusal of the first, and so is one
//! together with a refusal. While nothing has been accepted since, every further one is. Then the gate closes for a
//! *cooldown*, twice as long each time in a row.
//!
//! But a provider that is down breaks connections, too. When an [`Learned::outage`] is found out, what its losses have
//! taught is taken back, unless an earlier one within ten minutes began at nearly the same count, and nothing was accepted
//! in between that was as much: that is no chance, but a limit, and a penalty that looks like an outage.

use super::assumed::Assumed;
use super::evidence::Evidence;
use super::status::Subject;
use super::{Learned, Lesson, Signal, TOGETHER, TWICE, count_of, doubled};
use crate::time::{Duration, Instant};

/// How long a lane is left alone after losses that were taken for a refusal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cooldown {
    /// The first time; zero: never.
    pub first: Duration,
    /// Where the doubling ends.
    pub max: Duration,
}

/// What losses have led to since something was last accepted.
#[derive(Debug, Clone, Default)]
pub(super) struct Losses {
    /// The last one, unless it was taken for a refusal.
    single: Option<(Instant, Evidence)>,
    /// So many in a row were taken for a refusal.
    row: u32,
    /// What was assumed before the first of the row, and what that was.
    before: Option<(Box<[Assumed; 4]>, Evidence)>,
    /// By [`Subject`], the count of the last lesson that was taken back.
    taken_back: [Option<(Instant, u64)>; 4],
}

impl Losses {
    /// A request was accepted.
    pub(super) fn accepted(&mut self, evidence: &Evidence) {
        let refutes = |at: Instant, first: &Evidence| {
            evidence.permitted >= at && evidence.in_flight >= first.in_flight && evidence.requests >= first.requests
        };
        self.single = self.single.take().filter(|(at, first)| !refutes(*at, first));
    }

    /// What was concluded stands: something was accepted after it, the provider has said as much, or the settings are
    /// others.
    pub(super) fn settle(&mut self) {
        (self.row, self.before) = (0, None);
    }
}

impl Learned {
    /// The connection of a request was lost before its answer. `None`: a fault, no gate closes. Else what it comes to,
    /// and whether that was not known yet.
    pub fn lost(&mut self, now: Instant, evidence: &Evidence, cooldown: Cooldown) -> Option<(Lesson, bool)> {
        let lately = |at: Instant| now.saturating_duration_since(at) <= TOGETHER;
        let tries_more = Subject::ALL.into_iter().any(|subject| self.is_trial_at_fault(subject, evidence));
        let is_shut = self.is_shut && (self.losses.row > 0 || self.refused.is_some_and(lately));
        let of = if tries_more || is_shut {
            *evidence
        } else {
            let before = self.losses.single.replace((now, *evidence)).filter(|&(at, _)| lately(at));
            before?.1
        };
        self.losses.single = None;
        let is_new = self.refused.is_none_or(|refused| of.permitted > refused);
        if is_new {
            self.losses.row = self.losses.row.saturating_add(1);
            self.losses.before.get_or_insert_with(|| (Box::new(self.assumed.clone()), of));
        }
        // Who wants no cooldown has none, and no penalty either.
        let length = doubled(cooldown.first, self.losses.row).max(self.penalty).min(cooldown.max);
        let length = if cooldown.first.is_zero() { Duration::ZERO } else { length };
        Some((self.conclude(now, &of, &Signal::default(), Some(length)), is_new))
    }

    /// The provider was found to be down: its losses were not about limits. Says whether a lesson was taken back.
    pub fn outage(&mut self, now: Instant) -> bool {
        let before = self.losses.before.take();
        // How long it lasts is no penalty, and whoever was permitted before teaches nothing.
        (self.event, self.losses.single, self.losses.row) = (None, None, 0);
        self.refused = self.refused.max(Some(now));
        let Some((assumed, evidence)) = before else { return false };
        (self.is_shut, self.row) = (false, 0);
        let in_force = |all: &[Assumed; 4], subject: Subject| all[subject as usize].in_force();
        let lowered = |subject: &Subject| in_force(&self.assumed, *subject) < in_force(&assumed, *subject);
        let Some(subject) = Subject::ALL.into_iter().find(lowered) else { return false };
        let count = count_of(subject, &evidence);
        let earlier = self.losses.taken_back[subject as usize].replace((now, count));
        let proven = self.proven[subject as usize].most();
        let is_limit = earlier.is_some_and(|(at, earlier)| {
            now.saturating_duration_since(at) <= TWICE
                && count.abs_diff(earlier) <= earlier / ALIKE
                && proven.is_none_or(|proven| proven < count.min(earlier))
        });
        if !is_limit {
            self.assumed = *assumed;
        }
        !is_limit
    }
}

/// Counts that differ by no more than this part of them are alike.
const ALIKE: u64 = 8;
