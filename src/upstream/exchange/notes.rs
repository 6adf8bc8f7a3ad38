//! What is written down of an attempt: in the trace of its call, and in the metrics.

use std::sync::Arc;

use super::Flight;
use super::judged::Miss;
use crate::admission::Permit;
use crate::metrics::{DisconnectPhase, Recovery, RetryReason};
use crate::time;
use crate::upstream::target::Target;
use crate::upstream::verdict::{Happened, Verdict};

impl Flight {
    pub(super) fn note_first_byte(&self, target: &Target) {
        let now = time::now();
        self.trace.note(|facts| {
            // Of a stream that is continued the client had its first byte long ago.
            if !self.is_passed_on {
                facts.first_byte = Some(now);
            }
            if let Some(sent) = facts.sent {
                target.metrics.first_byte(now - sent);
            }
        });
    }

    pub(super) fn count_disconnect(&self, target: &Target, happened: Happened) {
        match happened {
            Happened::Lost => target.metrics.disconnect(DisconnectPhase::BeforeHead),
            Happened::Cut => target.metrics.disconnect(DisconnectPhase::BeforeFirstEvent),
            Happened::NotConnected { .. }
            | Happened::Stale
            | Happened::Untouched
            | Happened::NoFirstByte
            | Happened::Status { .. }
            | Happened::Broken => {}
        }
    }

    pub(super) fn count_retry(&self, miss: &Miss) {
        let metrics = &self.shared.metrics;
        if miss.happened.is_lost() {
            metrics.duplicate_sent();
        }
        metrics.retry(match miss.happened {
            Happened::NotConnected { .. } | Happened::Untouched | Happened::Stale => RetryReason::Connect,
            Happened::Lost | Happened::NoFirstByte => RetryReason::Disconnect,
            Happened::Cut | Happened::Broken => RetryReason::Truncated,
            Happened::Status { .. } if miss.verdict == Verdict::Refused => RetryReason::Refusal,
            Happened::Status { .. } => RetryReason::Status,
        });
    }

    /// An attempt came through. `after_failures`: its call had failed before.
    pub(super) fn note_recovered(&self, after_failures: bool) {
        if after_failures && !self.is_passed_on {
            self.shared.metrics.recovered(Recovery::Retry, true);
        }
    }

    /// A call has failed in spite of its retries.
    pub(super) fn note_not_recovered(&self) {
        if !self.is_passed_on {
            self.shared.metrics.recovered(Recovery::Retry, false);
        }
    }

    pub(super) fn note_attempt(&self, permit: &Permit) {
        let (upstream, waited) = (Arc::clone(&permit.lane().upstream), permit.waited());
        let (requests, tokens) = permit.standing();
        self.trace.note(|facts| {
            facts.upstream = Some(upstream);
            facts.attempts += 1;
            facts.waited += waited;
            (facts.requests, facts.tokens) = (requests, tokens);
        });
    }
}
