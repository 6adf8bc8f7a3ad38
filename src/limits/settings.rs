//! The settings of this room: `[upstreams.limits]`.

use std::num::NonZeroU32;
use std::time::Duration;

/// `[upstreams.limits]`: what the provider allows. An absent limit does not bind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// Requests the provider allows in one `window` (a minute, unless `window` says otherwise).
    pub requests_per_minute: Option<NonZeroU32>,
    /// The period in which the provider counts requests.
    pub window: Duration,
    /// How much longer than `window` a request is counted, for the time it takes to arrive. Learned up to 2 % more.
    pub window_margin: Duration,
    /// Requests that may leave at once after an idle time; never more than `requests_per_minute`.
    pub burst: NonZeroU32,
    /// Tokens the provider allows a minute, prompt and completion together.
    pub tokens_per_minute: Option<NonZeroU32>,
    /// Requests the provider allows in a rolling 24 hours.
    pub requests_per_day: Option<NonZeroU32>,
    /// Exchanges the provider allows at a time.
    pub concurrency: Option<NonZeroU32>,
    /// Slots that only this class (`Priority as usize`) may use; together fewer than `concurrency`.
    pub concurrency_reserved: [u32; 3],
    /// How long a slot stays taken after its exchange ended.
    pub slot_release_delay: Duration,
    /// How long a slot stays taken after its exchange was cut off, since the provider may not have noticed.
    pub slot_release_delay_aborted: Duration,
    /// How long exchanges that were running when the process was killed hold their slots after the restart.
    pub orphan_hold: Duration,
    /// Whom the limits bind.
    pub scope: Scope,
}

/// Whom the provider's limits bind.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Scope {
    /// Each key by itself: ours, or the client's where its Authorization goes through.
    Key,
    /// All keys of the upstream together.
    Upstream,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            requests_per_minute: None,
            window: Duration::from_secs(60),
            window_margin: Duration::from_millis(500),
            burst: BURST,
            tokens_per_minute: None,
            requests_per_day: None,
            concurrency: None,
            concurrency_reserved: [0; 3],
            slot_release_delay: Duration::from_millis(50),
            slot_release_delay_aborted: Duration::from_secs(2),
            orphan_hold: Duration::from_secs(30),
            scope: Scope::Key,
        }
    }
}

const BURST: NonZeroU32 = NonZeroU32::MIN.saturating_add(4);
