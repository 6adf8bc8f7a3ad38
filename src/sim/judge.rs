//! Who exceeds what, and when. Pure: it is told the time, and knows neither sockets nor tasks.
//!
//! - A request holds a slot from [`Judge::arrive`] to [`Judge::leave`], refused or not.
//! - It is in the window from [`Judge::count`] on, refused or not, for exactly one window length: the window at `t` is
//!   the half-open `(t - window, t]`.
//! - It gets one ruling: the first limit it exceeds. What comes during a penalty is refused and never prolongs it.
//! - Limits are looked up at each step, so a changed limit judges what was counted before the change, too.

use std::collections::{BTreeMap, VecDeque};

use super::settings::Limits;
use crate::time::{Duration, Instant};

/// So many counted requests are remembered for each key; more than a limit this high could not be judged.
const REMEMBERED_MAX: usize = 1_000_000;

/// Which limit a request exceeded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Exceeded {
    /// Requests in a window.
    Window,
    /// Requests in flight.
    Concurrency,
    /// Tokens in a window.
    Tokens,
}

/// What the judge says about a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ruling {
    /// It is within every limit.
    Admitted,
    /// It is the violation, and the penalty starts here.
    Violation(Exceeded),
    /// It came while a penalty ran.
    InPenalty,
}

/// Largest and present figures, of the key that has most of each.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Tally {
    /// Requests in flight now.
    pub in_flight: u32,
    /// Most requests ever in flight.
    pub in_flight_max: u32,
    /// Requests counted in the window that ends now.
    pub window_now: usize,
    /// Most requests ever counted in a window.
    pub window_max: usize,
    /// Tokens counted in the window that ends now.
    pub tokens_now: u64,
    /// Most tokens ever counted in a window.
    pub tokens_max: u64,
    /// How long all slots were taken.
    pub in_full: Duration,
}

/// The judge of one provider.
#[derive(Debug)]
pub struct Judge {
    limits: Limits,
    penalty: Duration,
    allowances: BTreeMap<u64, Allowance>,
}

impl Judge {
    /// A judge who has seen nothing yet.
    #[must_use]
    pub fn new(limits: Limits, penalty: Duration) -> Self {
        Self { limits, penalty, allowances: BTreeMap::new() }
    }

    /// The limits in force.
    #[must_use]
    pub fn limits(&self) -> Limits {
        self.limits
    }

    /// Changes the limits. Nothing that was counted or is in flight is forgotten.
    pub fn set_limits(&mut self, limits: Limits, now: Instant) {
        self.limits = limits;
        for allowance in self.allowances.values_mut() {
            allowance.watch_slots(limits, now);
        }
    }

    /// A request of this key arrived: it holds a slot until [`Judge::leave`].
    pub fn arrive(&mut self, key: u64, now: Instant) -> Ruling {
        let allowance = self.allowances.entry(key).or_default();
        allowance.in_flight += 1;
        allowance.in_flight_max = allowance.in_flight_max.max(allowance.in_flight);
        allowance.watch_slots(self.limits, now);
        if allowance.in_penalty(now) {
            return Ruling::InPenalty;
        }
        match self.limits.concurrency {
            Some(cap) if allowance.in_flight > cap => allowance.punish(Exceeded::Concurrency, now, self.penalty),
            _ => Ruling::Admitted,
        }
    }

    /// The request is complete and counts in the window that ends now. `arrival` is what [`Judge::arrive`] ruled, and
    /// stands unless it was admitted then.
    pub fn count(&mut self, key: u64, arrival: Ruling, tokens: u32, now: Instant) -> Ruling {
        let allowance = self.allowances.entry(key).or_default();
        allowance.remember(now, tokens);
        let (requests, tokens) = allowance.window(self.limits.window, now);
        allowance.window_max = allowance.window_max.max(requests);
        allowance.tokens_max = allowance.tokens_max.max(tokens);
        if arrival != Ruling::Admitted {
            return arrival;
        }
        if allowance.in_penalty(now) {
            return Ruling::InPenalty;
        }
        if self.limits.requests.is_some_and(|limit| requests > limit as usize) {
            return allowance.punish(Exceeded::Window, now, self.penalty);
        }
        if self.limits.tokens.is_some_and(|limit| tokens > u64::from(limit)) {
            return allowance.punish(Exceeded::Tokens, now, self.penalty);
        }
        Ruling::Admitted
    }

    /// A request of this key is over and gives its slot back.
    pub fn leave(&mut self, key: u64, now: Instant) {
        let allowance = self.allowances.entry(key).or_default();
        allowance.in_flight = allowance.in_flight.saturating_sub(1);
        allowance.watch_slots(self.limits, now);
    }

    /// How long the penalty of this key still lasts; zero when there is none.
    #[must_use]
    pub fn penalty_left(&self, key: u64, now: Instant) -> Duration {
        let until = self.allowances.get(&key).and_then(|allowance| allowance.penalty_until);
        until.map_or(Duration::ZERO, |until| until.saturating_duration_since(now))
    }

    /// The figures as of now.
    #[must_use]
    pub fn tally(&self, now: Instant) -> Tally {
        let mut tally = Tally::default();
        for allowance in self.allowances.values() {
            let (requests, tokens) = allowance.window(self.limits.window, now);
            tally.in_flight = tally.in_flight.max(allowance.in_flight);
            tally.in_flight_max = tally.in_flight_max.max(allowance.in_flight_max);
            tally.window_now = tally.window_now.max(requests);
            tally.window_max = tally.window_max.max(allowance.window_max);
            tally.tokens_now = tally.tokens_now.max(tokens);
            tally.tokens_max = tally.tokens_max.max(allowance.tokens_max);
            tally.in_full = tally.in_full.max(allowance.in_full(now));
        }
        tally
    }

    /// The counted instants of all keys since `from`, oldest first.
    #[must_use]
    pub fn counted_since(&self, from: Instant) -> Vec<Instant> {
        let all = self.allowances.values().flat_map(|allowance| &allowance.counted).map(|counted| counted.at);
        let mut instants: Vec<Instant> = all.filter(|at| *at >= from).collect();
        instants.sort_unstable();
        instants
    }

    /// Starts the largest figures afresh from the present ones; nothing counted, in flight or punished is forgotten.
    pub fn reset_tally(&mut self, now: Instant) {
        for allowance in self.allowances.values_mut() {
            let (requests, tokens) = allowance.window(self.limits.window, now);
            allowance.in_flight_max = allowance.in_flight;
            allowance.window_max = requests;
            allowance.tokens_max = tokens;
            allowance.in_full = Duration::ZERO;
            allowance.full_since = allowance.full_since.map(|_| now);
        }
    }
}

/// What one key has used: the only one, unless keys are judged by themselves.
#[derive(Debug, Default)]
struct Allowance {
    counted: VecDeque<Counted>,
    in_flight: u32,
    penalty_until: Option<Instant>,
    full_since: Option<Instant>,
    in_full: Duration,
    in_flight_max: u32,
    window_max: usize,
    tokens_max: u64,
}

/// A counted request. Tokens are a running total, so that a window's sum is one subtraction.
#[derive(Debug, Clone, Copy)]
struct Counted {
    at: Instant,
    tokens_through: u64,
    tokens: u32,
}

impl Allowance {
    fn remember(&mut self, now: Instant, tokens: u32) {
        let before = self.counted.back().map_or(0, |last| last.tokens_through);
        if self.counted.len() == REMEMBERED_MAX {
            self.counted.pop_front();
        }
        self.counted.push_back(Counted { at: now, tokens_through: before + u64::from(tokens), tokens });
    }

    /// Requests and tokens in `(now - window, now]`.
    fn window(&self, window: Duration, now: Instant) -> (usize, u64) {
        let expired = |counted: &Counted| now.saturating_duration_since(counted.at) >= window;
        let first = self.counted.partition_point(expired);
        let (Some(oldest), Some(newest)) = (self.counted.get(first), self.counted.back()) else { return (0, 0) };
        let tokens = newest.tokens_through - oldest.tokens_through + u64::from(oldest.tokens);
        (self.counted.len() - first, tokens)
    }

    fn in_penalty(&self, now: Instant) -> bool {
        self.penalty_until.is_some_and(|until| now < until)
    }

    fn punish(&mut self, exceeded: Exceeded, now: Instant, penalty: Duration) -> Ruling {
        self.penalty_until = Some(now + penalty);
        Ruling::Violation(exceeded)
    }

    fn watch_slots(&mut self, limits: Limits, now: Instant) {
        let full = limits.concurrency.is_some_and(|cap| self.in_flight >= cap);
        match self.full_since {
            None if full => self.full_since = Some(now),
            Some(_) if !full => {
                self.in_full = self.in_full(now);
                self.full_since = None;
            }
            _ => {}
        }
    }

    fn in_full(&self, now: Instant) -> Duration {
        self.in_full + self.full_since.map_or(Duration::ZERO, |since| now.saturating_duration_since(since))
    }
}

#[cfg(test)]
mod tests;
