//! What is assumed of one limit below what is configured, and how it finds its way back.

use super::status::Why;
use crate::time::{Duration, Instant};

/// No probe comes sooner after a lesson or another probe.
pub(super) const PROBE_AFTER: Duration = Duration::from_secs(10 * 60);
const PROBE_AFTER_MAX: Duration = Duration::from_secs(24 * 60 * 60);
/// A higher level that nobody had use for stands after this.
const TRIAL_MAX: Duration = Duration::from_secs(60 * 60);

/// One limit: in force is what is assumed, else what is configured.
#[derive(Debug, Clone)]
pub(super) struct Assumed {
    pub(super) configured: Option<u64>,
    floor: u64,
    lowered: Option<Lowered>,
}

#[derive(Debug, Clone)]
pub(super) struct Lowered {
    pub(super) level: u64,
    pub(super) why: Why,
    pub(super) since: Instant,
    pub(super) next_probe: Instant,
    /// From a probe to the next, if it is refused.
    pub(super) interval: Duration,
    pub(super) trial: Option<Trial>,
}

/// A higher level that is being tried.
#[derive(Debug, Clone)]
pub(super) struct Trial {
    /// What held before, and holds again if it is refused.
    pub(super) before: u64,
    pub(super) begun: Instant,
    /// Since when the level itself is used.
    pub(super) used: Option<Instant>,
}

impl Assumed {
    pub(super) fn new(configured: Option<u64>, floor: u64) -> Self {
        Self { configured, floor, lowered: None }
    }

    /// Other configured figures: what was learned below them stays.
    pub(super) fn reconfigure(&mut self, configured: Option<u64>, floor: u64) {
        (self.configured, self.floor) = (configured, floor);
        if self.lowered.as_ref().is_some_and(|lowered| configured.is_some_and(|limit| lowered.level >= limit)) {
            self.lowered = None;
        }
    }

    pub(super) fn in_force(&self) -> Option<u64> {
        self.lowered.as_ref().map(|lowered| lowered.level).or(self.configured)
    }

    pub(super) fn lowered(&self) -> Option<&Lowered> {
        self.lowered.as_ref()
    }

    pub(super) fn trial(&self) -> Option<&Trial> {
        self.lowered.as_ref()?.trial.as_ref()
    }

    /// Lowers it, but not under its floor. Says whether that changed anything.
    pub(super) fn lower(&mut self, now: Instant, to: u64, why: Why) -> bool {
        let level = to.max(self.floor);
        if self.in_force().is_some_and(|in_force| level >= in_force) {
            return false;
        }
        let (next_probe, interval) = (now + PROBE_AFTER, PROBE_AFTER);
        self.lowered = Some(Lowered { level, why, since: now, next_probe, interval, trial: None });
        true
    }

    /// Back to what is configured, since something else was at fault.
    pub(super) fn acquit(&mut self) {
        self.lowered = None;
    }

    /// Another lesson was learned: no probe soon.
    pub(super) fn postpone(&mut self, now: Instant) {
        if let Some(lowered) = &mut self.lowered {
            lowered.next_probe = lowered.next_probe.max(now + PROBE_AFTER);
        }
    }

    /// The level that was tried was refused: back to what held before, or to `proven` where that is better.
    pub(super) fn fail_trial(&mut self, now: Instant, proven: u64) {
        let Some(lowered) = &mut self.lowered else { return };
        let Some(trial) = lowered.trial.take() else { return };
        lowered.level = proven.min(lowered.level.saturating_sub(1)).max(trial.before);
        lowered.interval = (lowered.interval * 2).min(PROBE_AFTER_MAX);
        lowered.next_probe = now + lowered.interval;
    }

    /// Tries `step` more, if it is time. Says whether it does.
    pub(super) fn try_more(&mut self, now: Instant, step: impl FnOnce(u64, Option<u64>) -> u64) -> bool {
        let configured = self.configured;
        let Some(lowered) = &mut self.lowered else { return false };
        if lowered.trial.is_some() || now < lowered.next_probe {
            return false;
        }
        let before = lowered.level;
        lowered.level = before.saturating_add(step(before, configured).max(1)).min(configured.unwrap_or(u64::MAX));
        lowered.trial = Some(Trial { before, begun: now, used: None });
        true
    }

    /// Something was accepted; `is_used`: with the level that is tried used up. When that has gone well for `long_enough`,
    /// the level stands, and this says so.
    pub(super) fn accepted(&mut self, now: Instant, is_used: bool, long_enough: Duration) -> bool {
        let Some(lowered) = &mut self.lowered else { return false };
        let Some(trial) = &mut lowered.trial else { return false };
        if is_used {
            trial.used.get_or_insert(now);
        }
        let is_proven = trial.used.is_some_and(|since| is_used && now.saturating_duration_since(since) >= long_enough);
        let stands = is_proven || now.saturating_duration_since(trial.begun) >= TRIAL_MAX;
        if stands {
            lowered.trial = None;
            lowered.interval = PROBE_AFTER;
            lowered.next_probe = now + PROBE_AFTER;
            if self.configured.is_some_and(|limit| lowered.level >= limit) {
                self.lowered = None;
            }
        }
        stands
    }

    /// What was learned before a restart.
    pub(super) fn restore(&mut self, lowered: Lowered) {
        let level = lowered.level.max(self.floor);
        if self.configured.is_none_or(|limit| level < limit) {
            self.lowered = Some(Lowered { level, ..lowered });
        }
    }
}

/// The most that was lately seen: over the last five to ten minutes.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Recent {
    turned: Option<Instant>,
    current: Option<u64>,
    previous: Option<u64>,
}

const TURN: Duration = Duration::from_secs(5 * 60);

impl Recent {
    pub(super) fn note(&mut self, now: Instant, value: u64) {
        self.turn(now);
        self.current = self.current.max(Some(value));
    }

    pub(super) fn most(&self) -> Option<u64> {
        self.current.max(self.previous)
    }

    /// More than this is disproved.
    pub(super) fn cut(&mut self, most: u64) {
        self.current = self.current.map(|value| value.min(most));
        self.previous = self.previous.map(|value| value.min(most));
    }

    pub(super) fn turn(&mut self, now: Instant) {
        let age = self.turned.map(|turned| now.saturating_duration_since(turned));
        match age {
            Some(age) if age < TURN => return,
            Some(age) if age < 2 * TURN => self.previous = self.current.take(),
            _ => (self.previous, self.current) = (None, None),
        }
        self.turned = Some(now);
    }
}
