//! What is left of a limit, as clients and operators are told.

use crate::answer::Standing;
use crate::limits::Allowance;
use crate::time::Instant;

/// Requests and tokens of an allowance, where they are limited.
pub(super) fn standing(allowance: &mut Allowance, now: Instant) -> (Option<Standing>, Option<Standing>) {
    let usage = allowance.usage(now);
    let (requests_reset, tokens_reset) = allowance.resets(now);
    let of = |used: u64, limit: u64, reset| Standing { limit, left: limit.saturating_sub(used), reset };
    (
        usage.window.map(|(used, limit)| of(used.into(), limit.into(), requests_reset)),
        usage.tokens.map(|(used, limit)| of(used, limit, tokens_reset)),
    )
}
