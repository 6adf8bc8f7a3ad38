//! What an answer tells of the provider's limits, for the permit that it was asked with.

use std::time::SystemTime;

use http::StatusCode;

use crate::admission::Permit;
use crate::answer::Head;
use crate::limits::learned::Signal;
use crate::openai::{self, Complaint, RateLimits};
use crate::time::Duration;

/// Of an answer that is no refusal.
pub(super) fn listen(head: &Head, permit: &Permit) {
    if let Some(limits) = RateLimits::of(&head.headers, SystemTime::now) {
        permit.heard(&limits);
    }
    // Other errors say nothing: a provider may look at the key, or at the body, before it counts.
    if head.status.is_success() || head.status == StatusCode::SWITCHING_PROTOCOLS {
        permit.accepted();
    }
}

/// Of a refusal. `body`: what could be read of it; `backoff`: how long to leave the provider alone if it does not say.
pub(super) fn of_refusal(head: &Head, body: &[u8], backoff: Duration) -> Signal {
    let now = SystemTime::now();
    Signal {
        limits: RateLimits::of(&head.headers, || now),
        complaint: Complaint::of(body, now),
        retry_after: openai::parse_retry_after(&head.headers, now),
        backoff,
    }
}
