//! What operators are shown, and what outlives a restart.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::time::{Duration, Instant};

/// What can be learned.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Subject {
    /// Requests in one window.
    Requests,
    /// Tokens in one window.
    Tokens,
    /// Exchanges at a time.
    Concurrency,
    /// How much later than our last write the provider may count a request.
    Margin,
}

impl Subject {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Requests, Self::Tokens, Self::Concurrency, Self::Margin];

    /// The setting that it corrects, as in `[upstreams.limits]`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Requests => "requests_per_minute",
            Self::Tokens => "tokens_per_minute",
            Self::Concurrency => "concurrency",
            Self::Margin => "window_margin",
        }
    }
}

/// Why something is assumed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Why {
    /// A request was refused with so many counted, itself included.
    RefusedWith(u64),
    /// A refusal named this limit.
    Named(u64),
    /// A request was refused though the window held no more than is allowed.
    WindowFull(u64),
    /// The headers of the answers say so.
    Told(u64),
}

impl Why {
    /// The name of the reason, without its figure.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::RefusedWith(_) => "refused",
            Self::Named(_) => "named",
            Self::WindowFull(_) => "window_full",
            Self::Told(_) => "told",
        }
    }
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::RefusedWith(count) => write!(f, "a request was refused with {count} counted, itself included"),
            Self::Named(limit) => write!(f, "a refusal named the limit {limit}"),
            Self::WindowFull(count) => write!(f, "a request was refused though only {count} were in the window"),
            Self::Told(limit) => write!(f, "the headers of answers tell the limit {limit}"),
        }
    }
}

/// A lesson that is in force.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LessonStatus {
    /// What it corrects.
    pub subject: Subject,
    /// What is configured; of the margin, milliseconds. `None`: no limit.
    pub configured: Option<u64>,
    /// What is assumed instead.
    pub assumed: u64,
    /// Why.
    pub why: Why,
    /// Since when; `None`: as long as the headers say so.
    pub since: Option<Instant>,
    /// When more is tried next; `None` while it is being tried, and where the headers rule.
    pub next_probe: Option<Instant>,
    /// More is being tried now than what held before.
    pub is_probing: bool,
}

/// What outlives a restart: ages, since instants mean nothing afterwards. Of a bench and a closed gate the time for which
/// the process was down is taken off; of probes it is not, so that one comes later rather than sooner.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Saved {
    pub(super) version: u32,
    pub(super) lessons: Vec<SavedLesson>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) bench: Option<SavedBench>,
    #[serde(default)]
    pub(super) penalty: Duration,
    /// For how long nothing was permitted then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) closed_for: Option<Duration>,
    /// When it was saved, since 1970 by the wall clock: whoever writes it down says so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub saved_at: Option<Duration>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct SavedLesson {
    pub(super) subject: Subject,
    pub(super) level: u64,
    pub(super) why: Why,
    pub(super) age: Duration,
    pub(super) probe_in: Duration,
    pub(super) interval: Duration,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct SavedBench {
    pub(super) left: Duration,
    pub(super) length: Duration,
}
