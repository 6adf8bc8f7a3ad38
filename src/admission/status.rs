//! What operators are shown of this room.

use std::num::NonZeroU32;
use std::sync::Arc;

use crate::answer::{Outlook, Standing};
use crate::breaker;
use crate::ids::{CallId, ClientId, LaneId};
use crate::limits::Usage;
use crate::limits::learned::LessonStatus;
use crate::time::Duration;
use crate::units::Priority;

/// Who waits.
#[derive(Debug, Clone, Default)]
pub struct Queue {
    /// How many wait, by class as in [`Priority::ALL`].
    pub waiting: [u32; 3],
    /// Bytes of the bodies that wait.
    pub bytes: u64,
    /// The first of them, in the order of service.
    pub calls: Vec<Queued>,
}

/// A call that waits.
#[derive(Debug, Clone)]
pub struct Queued {
    /// The call.
    pub id: CallId,
    /// Whose it is.
    pub client: ClientId,
    /// Its class.
    pub class: Priority,
    /// The model it names.
    pub model: Option<Arc<str>>,
    /// The upstreams that can serve it, preferred first.
    pub upstreams: Vec<Arc<str>>,
    /// Its position and the time until its turn.
    pub outlook: Outlook,
    /// How long it has been waiting for this attempt.
    pub waited: Duration,
    /// How long it can still wait.
    pub left: Duration,
    /// The tokens it will reserve.
    pub tokens: u64,
    /// The bytes its body holds.
    pub bytes: u64,
}

/// A client, and what it waits for and uses.
#[derive(Debug, Clone)]
pub struct ClientStatus {
    /// Who it is.
    pub id: ClientId,
    /// Its share beside others.
    pub weight: NonZeroU32,
    /// How many of its calls wait, by class as in [`Priority::ALL`].
    pub waiting: [u32; 3],
    /// How many of its exchanges run.
    pub running: u32,
    /// Permits it was granted since the start.
    pub permits: u64,
    /// Its own requests a minute, if limited.
    pub requests: Option<Standing>,
    /// Its own tokens a minute, if limited.
    pub tokens: Option<Standing>,
    /// Its own cap of exchanges at a time.
    pub slots_cap: Option<u32>,
}

/// The breaker of an upstream.
#[derive(Debug, Clone)]
pub struct BreakerStatus {
    /// Whose it is.
    pub upstream: Arc<str>,
    /// How it stands.
    pub breaker: breaker::Status,
    /// How often resets of the upstream were taken for a refusal, since the start.
    pub limit_signals: u64,
}

/// A lane, and what is used of it.
#[derive(Debug, Clone)]
pub struct LaneStatus {
    /// Which key of which upstream.
    pub id: LaneId,
    /// How much of its allowance is used.
    pub usage: Usage,
    /// What is assumed of its limits otherwise than configured.
    pub lessons: Vec<LessonStatus>,
    /// How many calls wait that it serves.
    pub waiting: u32,
}
