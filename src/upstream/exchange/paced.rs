//! When and where the next attempt goes.

use super::Flight;
use super::judged::Miss;
use crate::admission::Permit;
use crate::ids::LaneId;
use crate::time::{self, Duration};
use crate::upstream::backoff;
use crate::upstream::verdict::{Happened, Verdict};

/// What follows an attempt that failed.
pub(super) enum Next {
    /// No other.
    GiveUp,
    /// Another at once, with this permit.
    At(Permit),
    /// Another, which is in line after so long.
    After(Duration),
}

impl Flight {
    pub(super) fn next_after(&mut self, miss: &Miss, lane: &LaneId) -> Next {
        match miss.verdict {
            Verdict::GiveUp => return Next::GiveUp,
            Verdict::Again => {
                // It was not the provider's fault, and does not count.
                self.attempts -= 1;
                return Next::After(Duration::ZERO);
            }
            _ => {}
        }
        self.failures += 1;
        // It was made for everybody. But what was sent is bounded: the provider may have done it, or it may be what fails.
        if miss.was_probe && matches!(miss.happened, Happened::NotConnected { .. }) {
            self.attempts -= 1;
        }
        let left = self.place.deadline().saturating_duration_since(time::now());
        if left.is_zero() {
            return Next::GiveUp;
        }
        if self.attempts >= self.shared.retry().attempts_max.get() {
            return Next::GiveUp;
        }
        if miss.verdict == Verdict::Elsewhere && !self.place.key_is_unknown(lane) {
            return Next::GiveUp;
        }
        self.place.failed(lane, miss.blame());
        // Whoever has room goes on at once; with the same provider it needs a pause.
        if let Some(permit) = self.place.elsewhere() {
            return Next::At(permit);
        }
        match self.pause_after(miss, left) {
            Some(pause) => Next::After(pause),
            // As long as it can wait somebody else may have room.
            None if self.place.has_elsewhere() => Next::After(left),
            None => Next::GiveUp,
        }
    }

    /// Pauses before the next attempt. Whoever serves the call, too, and has not failed it may have room before that is
    /// over; then this is the permit.
    pub(super) async fn pause(&mut self, pause: Duration) -> Option<Permit> {
        let until = time::now() + pause;
        let mut permit = None;
        if self.place.has_elsewhere() {
            self.place.keep_away(true);
            permit = tokio::select! {
                biased;
                permit = self.trace.in_line(self.place.permit()) => permit.ok(),
                () = tokio::time::sleep_until(until) => None,
            };
            self.place.keep_away(false);
        }
        if permit.is_none() {
            self.place.pause(until).await;
            self.trace.note(|facts| facts.backed_off += pause);
        }
        permit
    }

    /// How long to back off; `None`: there is no time for another attempt.
    fn pause_after(&self, miss: &Miss, left: Duration) -> Option<Duration> {
        if miss.waits_in_line || miss.verdict == Verdict::Elsewhere {
            // Another key, or pacing, cures it: it waits in line at its place, and draws on no budget.
            return Some(Duration::ZERO);
        }
        self.back_off(miss.retry_after.filter(|after| !after.is_zero()), left)
    }

    /// A pause before something is sent again, by a call that can wait for `left`: backoff, and what the budget adds.
    pub(in crate::upstream) fn back_off(&self, retry_after: Option<Duration>, left: Duration) -> Option<Duration> {
        let retry = self.shared.retry();
        let pause = backoff::delay(&retry, self.failures.max(1), retry_after, left)?;
        // Nobody fails for the budget's sake: what it adds ends before the deadline.
        let most = retry.cap.min((left - pause) / 2);
        let held_back = self.shared.budget.withdraw(time::now(), pause, most);
        if !held_back.is_zero() {
            self.shared.metrics.retry_delayed();
        }
        Some(pause + held_back)
    }
}
