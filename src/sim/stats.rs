//! What the provider saw, as `GET /sim/stats` tells it.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::judge::{Exceeded, Ruling};

/// So many different paths are counted by name; the rest together as `other`.
const PATHS_MAX: usize = 1_000;

/// Statistics since the start, or since the last `POST /sim/reset`. Requests to `/sim/…` are in none of them.
///
/// Where each key has an allowance of its own, figures of slots, windows and tokens are those of the key with the most.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Stats {
    /// Seconds since the provider started; a reset does not change it.
    pub uptime_seconds: f64,
    /// Requests that arrived: their head was read.
    pub requests: u64,
    /// Requests that were counted in the window: read completely, and their jitter passed.
    pub counted: u64,
    /// Answers written to their last byte; refusals and faults are not among them.
    pub completed: u64,
    /// Clients that left before their answer was complete.
    pub hangups: u64,
    /// Requests that were no HTTP one can answer; those with a readable head are also in `requests`.
    pub malformed: u64,
    /// Requests that exceeded a limit, by the first limit they exceeded.
    pub violations: Violations,
    /// Requests refused only because a penalty ran.
    pub refused_in_penalty: u64,
    /// Requests that arrived while the provider was down; they are in `requests`, too, and in `counted`.
    #[serde(default)]
    pub requests_while_down: u64,
    /// Connections that were refused while the provider was down. What they asked for was not read, and is not counted.
    #[serde(default)]
    pub connections_refused: u64,
    /// Requests in flight now.
    pub in_flight: u32,
    /// Most requests in flight at any moment.
    pub in_flight_max: u32,
    /// Requests in the window that ends now.
    pub window_now: usize,
    /// Most requests in any window, of the length in force when it ended.
    pub window_max: usize,
    /// Tokens in the window that ends now.
    pub tokens_now: u64,
    /// Most tokens in any window.
    pub tokens_max: u64,
    /// How long all slots were taken.
    pub in_full_seconds: f64,
    /// When the first request was counted, in seconds since the start.
    pub first_arrival: Option<f64>,
    /// When the last request was counted, in seconds since the start.
    pub last_arrival: Option<f64>,
    /// Faults that happened, by kind.
    pub faults: BTreeMap<String, u64>,
    /// Requests by path.
    pub paths: BTreeMap<String, u64>,
}

/// Requests that exceeded a limit, by limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Violations {
    /// More requests in a window than allowed.
    pub window: u64,
    /// More requests in flight than allowed.
    pub concurrency: u64,
    /// More tokens in a window than allowed.
    pub tokens: u64,
}

impl Violations {
    /// All of them.
    #[must_use]
    pub const fn total(&self) -> u64 {
        self.window + self.concurrency + self.tokens
    }
}

impl Stats {
    pub(super) fn note_path(&mut self, path: &str) {
        let known = self.paths.contains_key(path) || self.paths.len() < PATHS_MAX;
        let name = if known { path } else { "other" };
        *self.paths.entry(name.to_owned()).or_default() += 1;
    }

    pub(super) fn note_ruling(&mut self, ruling: Ruling) {
        match ruling {
            Ruling::Admitted => {}
            Ruling::Violation(Exceeded::Window) => self.violations.window += 1,
            Ruling::Violation(Exceeded::Concurrency) => self.violations.concurrency += 1,
            Ruling::Violation(Exceeded::Tokens) => self.violations.tokens += 1,
            Ruling::InPenalty => self.refused_in_penalty += 1,
        }
    }
}
