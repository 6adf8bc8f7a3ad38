//! What a lesson is drawn from: how things stood, and what the provider says.

use crate::limits::Dimension;
use crate::openai::complaint::About;
use crate::openai::{Complaint, Counted, RateLimits};
use crate::time::{Duration, Instant};

/// How things stood when a request was permitted: what the provider may have objected to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Evidence {
    /// When its permit was granted.
    pub permitted: Instant,
    /// Requests in the window, itself included.
    pub requests: u32,
    /// Slots taken, its own included.
    pub in_flight: u32,
    /// Tokens in the window, those reserved for itself included.
    pub tokens: u64,
}

/// All that a refusal says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Signal {
    /// What its headers tell of the limits.
    pub limits: Option<RateLimits>,
    /// What its body complains of.
    pub complaint: Complaint,
    /// `Retry-After` and its kin.
    pub retry_after: Option<Duration>,
    /// How long to leave it alone where it does not say.
    pub backoff: Duration,
}

/// What a refusal comes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Hints {
    /// What it is about, where that is said.
    pub dimension: Option<Dimension>,
    /// It is about a day or a month.
    pub daily: bool,
    /// The limit that it names.
    pub limit: Option<u32>,
    /// How long it says to wait.
    pub wait: Option<Duration>,
}

impl Signal {
    /// What it comes to: the body's own words first, then what the headers tell.
    #[must_use]
    pub fn hints(&self) -> Hints {
        let limits = self.limits.unwrap_or_default();
        let left = |counted| limits.in_window(counted).remaining;
        let tokens = [Counted::Tokens, Counted::InputTokens, Counted::OutputTokens];
        let empty = tokens.into_iter().find(|&counted| left(counted) == Some(0));
        let about = self.complaint.about.or_else(|| match (left(Counted::Requests), empty) {
            (Some(0), None) => Some(About::Requests),
            (None | Some(1..), Some(_)) => Some(About::Tokens),
            _ => None,
        });
        let (dimension, counted) = match about {
            Some(About::Requests) => (Some(Dimension::Requests), Some(Counted::Requests)),
            Some(About::Tokens) => (Some(Dimension::Tokens), Some(empty.unwrap_or(Counted::Tokens))),
            Some(About::Concurrency) => (Some(Dimension::Concurrency), None),
            None => (None, None),
        };
        let told = counted.map(|counted| limits.in_window(counted)).unwrap_or_default();
        let long = limits.long_exhausted().map(|(_, told)| told);
        let wait = self
            .retry_after
            .or_else(|| long.and_then(|long| long.reset))
            .or_else(|| told.reset.filter(|_| told.remaining == Some(0)))
            .or(self.complaint.retry_after);
        // Input tokens alone are no limit of all tokens.
        let is_whole = matches!(counted, Some(Counted::Requests | Counted::Tokens));
        Hints {
            dimension,
            daily: self.complaint.daily || long.is_some(),
            limit: self.complaint.limit.or_else(|| told.limit.filter(|_| is_whole)),
            wait,
        }
    }
}
