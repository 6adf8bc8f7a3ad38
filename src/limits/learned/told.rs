//! What is learned from the headers of answers.

use super::status::Subject;
use super::{BENCH_MAX, Evidence, Learned, MINUTE, closes_for, count_of};
use crate::openai::{Counted, RateLimits};
use crate::time::{Duration, Instant};

impl Learned {
    /// The headers of an answer that is no refusal. Says until when the gate has to close, if it has to: where the provider
    /// has counted more than we have, since somebody else uses the key or we have forgotten something.
    pub fn heard(&mut self, now: Instant, evidence: &Evidence, limits: &RateLimits) -> Option<Instant> {
        self.note_told(now, limits);
        let window = self.configured.window;
        let day = limits.long_exhausted().map(|(_, told)| closes_for(told, told.window.unwrap_or(BENCH_MAX)));
        // An answer that took long tells of a window that has moved on.
        let is_fresh = now.saturating_duration_since(evidence.permitted) <= window / 10;
        let ours = [(Subject::Requests, Counted::Requests), (Subject::Tokens, Counted::Tokens)];
        let empty = ours.into_iter().filter(|_| is_fresh).find_map(|(subject, counted)| {
            let (told, limit) = (limits.in_window(counted), self.in_force(subject)?);
            let left = limit.saturating_sub(count_of(subject, evidence));
            let counts_as_we_do = left <= (limit / 20).max(1);
            (told.remaining == Some(0) && !counts_as_we_do).then(|| closes_for(told, window).min(window))
        });
        day.max(empty).filter(|wait| !wait.is_zero()).map(|wait| now + wait)
    }

    /// The limits that headers name, where they are of our window.
    pub(super) fn note_told(&mut self, now: Instant, limits: &RateLimits) {
        let window = self.configured.window;
        let is_ours = |period: Duration| period.abs_diff(window) <= window / 10;
        for (told, counted) in self.told.iter_mut().zip([Counted::Requests, Counted::Tokens]) {
            let figure = limits.in_window(counted);
            if let Some(limit) = figure.limit.filter(|&limit| limit > 0 && is_ours(figure.window.unwrap_or(MINUTE))) {
                told.note(now, limit.into());
            }
        }
    }
}
