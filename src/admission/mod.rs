//! Who goes next.
//!
//! One decision over everything that counts, under one short lock: the limits of a *lane* (one key of one upstream, with
//! its [`Allowance`](crate::limits::Allowance)) and the client's own, all or nothing. A call that finds nobody waiting
//! takes its permit without a task switch; else it stands in line, and the winner is chosen when a permit exists, never
//! before (*late binding*):
//!
//! - between classes by strict order and floors (`floors`),
//! - between the clients of a class by weighted fair sharing (`fair`),
//! - between the calls of a client by arrival (`ranked`).
//!
//! The same three tell each call its position, and its lane tells when that many permits will have existed (`outlook`);
//! so a call whose turn cannot come in time is refused when it comes, and not when it has waited.
//!
//! Invariants: a refused or abandoned call spends nothing; a permit whose call has gone serves the next; no waiting class
//! gets less than its floor; the cost of a decision does not depend on how many wait. This room never speaks to an
//! upstream and knows no transport.

mod breakers;
mod caution;
mod choice;
mod clients;
mod dispatch;
mod elsewhere;
mod estimate;
mod fair;
mod floors;
mod hopeless;
mod lane;
mod line;
mod lines;
mod listing;
mod outlook;
mod permit;
mod place;
mod ranked;
mod refusal;
pub mod settings;
mod settle;
mod standing;
mod state;
mod status;
#[cfg(test)]
mod tests;
mod timers;
mod ways;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

pub use self::caution::Caution;
pub use self::choice::{Blame, Choice};
pub use self::clients::ClientQuota;
pub use self::estimate::Estimate;
pub use self::permit::Permit;
pub use self::place::{Demand, Place};
pub use self::refusal::{Full, Refusal};
pub use self::state::Bounds;
use self::state::State;
pub use self::status::{BreakerStatus, ClientStatus, LaneStatus, Queue, Queued};
use crate::ids::{KeyId, LaneId};
use crate::limits::journal::{Journal, Recovered};
use crate::limits::settings::Scope;
use crate::limits::{Quota, Usage};
use crate::time::{self, Duration, Instant};

/// Says whether an upstream serves a model; `None` is a call that names no model.
pub type Matcher = Arc<dyn Fn(Option<&str>) -> bool + Send + Sync>;

/// An upstream as this room sees it: whom it serves, and the limits of each of its keys.
#[derive(Clone)]
pub struct Way {
    /// The upstream's name.
    pub upstream: Arc<str>,
    /// Which models it serves.
    pub serves: Matcher,
    /// Its keys; each has an allowance of its own.
    pub keys: Vec<KeyId>,
    /// The limits of each key, or of all together.
    pub quota: Quota,
    /// How long exchanges that a kill has cut hold their slots after the restart.
    pub orphan_hold: Duration,
    /// Whom the limits bind.
    pub scope: Scope,
    /// It has no key of ours: each call goes with its client's own.
    pub passes_keys: bool,
}

impl std::fmt::Debug for Way {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Way").field("upstream", &self.upstream).field("quota", &self.quota).finish_non_exhaustive()
    }
}

/// What waits and what is used, for metrics and admin.
#[derive(Debug, Clone, PartialEq)]
pub struct Snapshot {
    /// Calls waiting, by class as in [`Priority::ALL`](crate::units::Priority::ALL).
    pub waiting: [u32; 3],
    /// How long the oldest of each class has been waiting.
    pub oldest: [Duration; 3],
    /// Bytes of the bodies that wait.
    pub bytes: u64,
    /// The lanes in use by the present settings.
    pub lanes: Vec<(LaneId, Usage)>,
}

/// The doorway: cheap to clone, one for the whole process.
#[derive(Debug, Clone)]
pub struct Admission(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    /// What is sent is in it before it is sent. Never written to under the lock.
    journal: Journal,
    /// Tells the timer that something could be granted sooner than it will wake.
    sooner: Notify,
    arrivals: AtomicU64,
    /// Cancelled once nobody is served any more.
    closed: CancellationToken,
}

impl Admission {
    /// Admission to `ways`, preferred in their order, for anybody, without a past and without a memory.
    #[must_use]
    pub fn new(ways: Vec<Way>, bounds: Bounds) -> Self {
        let admission = Self::remembering(Journal::off(), Recovered::default(), bounds);
        admission.reconfigure(ways, Vec::new(), bounds);
        admission
    }

    /// Admission that writes what it sends into `journal`, and begins with what earlier processes spent. Nobody is served
    /// before [`Admission::reconfigure`].
    #[must_use]
    pub fn remembering(journal: Journal, recovered: Recovered, bounds: Bounds) -> Self {
        Self(Arc::new(Shared {
            state: Mutex::new(State::new(bounds, recovered)),
            journal,
            sooner: Notify::new(),
            arrivals: AtomicU64::new(0),
            closed: CancellationToken::new(),
        }))
    }

    /// Other ways, clients or limits from the next decision on. Nothing that waits is lost and what was spent stays
    /// spent; who waits for a model that nobody serves any more is refused.
    pub fn reconfigure(&self, ways: Vec<Way>, clients: Vec<ClientQuota>, bounds: Bounds) {
        self.0.with(|state, now| state.reconfigure(&self.0, now, ways, clients, bounds));
    }

    /// Other settings of how failing upstreams are treated, from the next outcome on. What was counted stays.
    pub fn set_caution(&self, caution: Caution) {
        self.0.with(|state, now| state.set_caution(&self.0, now, caution));
    }

    /// A place for a call that is to go upstream. It costs nothing and is not yet in line.
    #[must_use]
    pub fn place(&self, demand: Demand) -> Place {
        Place::new(Arc::clone(&self.0), demand)
    }

    /// Refuses everybody who waits and everybody who comes ([`Refusal::ShuttingDown`]), at once also those who pause.
    pub fn close(&self) {
        self.0.with(|state, now| state.close(now));
        self.0.closed.cancel();
    }

    /// What waits and what is used.
    #[must_use]
    pub fn snapshot(&self) -> Snapshot {
        self.0.state.lock().snapshot(time::now())
    }

    /// How many calls wait.
    #[must_use]
    pub fn waiting(&self) -> u32 {
        self.0.state.lock().totals().0.into_iter().sum()
    }

    /// Who waits, in the order of service, `most` of them at the most.
    #[must_use]
    pub fn queue(&self, most: usize) -> Queue {
        self.0.state.lock().queue(time::now(), most)
    }

    /// Whom we know, by name, and what each waits for and uses.
    #[must_use]
    pub fn clients(&self) -> Vec<ClientStatus> {
        self.0.state.lock().clients.status(time::now())
    }

    /// The lanes in use by the present settings.
    #[must_use]
    pub fn lanes(&self) -> Vec<LaneStatus> {
        self.0.state.lock().lanes_status(time::now())
    }

    /// The breakers of the present upstreams.
    #[must_use]
    pub fn breakers(&self) -> Vec<BreakerStatus> {
        self.0.state.lock().breakers.status(time::now())
    }

    /// Whether calls wait because an upstream fails: by its breaker, or because resets of it are taken for a refusal.
    #[must_use]
    pub fn is_failing(&self) -> bool {
        self.0.state.lock().breakers.is_failing(time::now())
    }

    /// The upstreams that are paused.
    #[must_use]
    pub fn paused(&self) -> Vec<Arc<str>> {
        self.0.state.lock().ways.paused()
    }

    /// Pauses an upstream, or lets it go on: while it is paused its calls wait, and what runs ends. Says whether there
    /// is such an upstream.
    pub fn pause(&self, upstream: &str, paused: bool) -> bool {
        self.0.with(|state, now| state.pause(&self.0, now, upstream, paused))
    }

    /// The timer: grants when a limit lets the next one go. It runs for ever, as one task of the process; dropping it
    /// stops all granting that is not caused by an arrival or a release.
    pub async fn keep_time(self) {
        loop {
            let next = {
                let mut state = self.0.state.lock();
                state.dispatch_due(&self.0, time::now());
                state.armed = state.timers.first();
                state.armed
            };
            tokio::select! {
                () = sleep_until(next) => {}
                () = self.0.sooner.notified() => {}
            }
        }
    }
}

impl Shared {
    /// Changes the state; the timer is told if something could be granted sooner than it will wake.
    fn with<T>(&self, change: impl FnOnce(&mut State, Instant) -> T) -> T {
        let mut state = self.state.lock();
        let now = time::now();
        let result = change(&mut state, now);
        if let Some(next) = state.timers.first()
            && state.armed.is_none_or(|armed| next < armed)
        {
            state.armed = Some(next);
            self.sooner.notify_one();
        }
        result
    }

    fn arrive(&self) -> u64 {
        self.arrivals.fetch_add(1, Ordering::Relaxed)
    }
}

async fn sleep_until(instant: Option<Instant>) {
    match instant {
        Some(instant) => tokio::time::sleep_until(instant).await,
        None => std::future::pending().await,
    }
}
