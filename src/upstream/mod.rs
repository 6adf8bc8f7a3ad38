//! The conversation with a provider.
//!
//! An exchange is all tries of a call: each takes a permit of admission, connects, writes, and is judged by one pure
//! function; one part *judges* (`verdict`), another *paces* (`backoff`), and nobody else retries. The exchange runs in a
//! task of its own, the *flight*; whoever asked holds an [`Answer`] and cancels the flight by dropping it.
//!
//! Invariants: nothing is sent without a permit; nothing is sent twice that is not repeatable; nothing is retried after
//! a byte of its answer was passed on; an answer that broke off is never passed on as complete.

mod attempt;
mod backoff;
mod budget;
mod connect;
mod conversation;
mod exchange;
mod fallen;
mod gauges;
mod hold;
mod idle;
mod outlet;
mod recovery;
mod rest;
mod send;
pub mod settings;
mod signal;
mod strict;
mod target;
mod upgraded;
mod verdict;

use std::sync::Arc;

use arc_swap::ArcSwap;
use http::Method;

use self::budget::Budget;
use self::connect::Connector;
use self::exchange::Flight;
use self::fallen::Fallen;
use self::gauges::Shown;
use self::settings::{Continuation, Recovery, Retry, Upstream};
use self::target::Target;
use crate::admission::{Place, Refusal, Way};
use crate::answer::{Answer, Trace};
use crate::call::Call;
use crate::ids::{KeyId, LaneId};
use crate::memory::Memory;
use crate::metrics::Metrics;
use crate::time::{Duration, Tasks};

/// Why there is no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    /// Admission turned it away before anything was sent.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// The last attempt was reset or cut (1006).
    #[error("upstream disconnected, attempt {attempts}: {detail}")]
    Disconnected {
        /// Attempts made.
        attempts: u32,
        /// What the wire showed.
        detail: String,
        /// An agent may have worked on it, and not even its client should send it again.
        is_once: bool,
    },
    /// No answer began within `first_byte_timeout`.
    #[error("upstream timed out, attempt {attempts}")]
    TimedOut {
        /// Attempts made.
        attempts: u32,
        /// As in [`Failure::Disconnected`].
        is_once: bool,
    },
    /// No connection could be made.
    #[error("upstream unavailable, attempt {attempts}: {detail}")]
    Unavailable {
        /// Attempts made.
        attempts: u32,
        /// What the last one failed of.
        detail: String,
    },
    /// The client left in the middle of its body.
    #[error("client left")]
    ClientLeft,
    /// The flight is gone: our mistake.
    #[error("internal error")]
    Internal,
}

/// Why settings cannot be put to use.
#[derive(Debug, thiserror::Error)]
#[error("upstream {name:?}: its host or a key cannot stand in a header field")]
pub struct UnusableUpstream {
    name: String,
}

/// All upstreams. One for the whole process.
#[derive(Debug, Clone)]
pub struct Upstreams(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    connector: Connector,
    present: ArcSwap<Present>,
    budget: Budget,
    fallen: Fallen,
    tasks: Tasks,
    metrics: Arc<Metrics>,
    memory: Memory,
    shown: Shown,
}

/// What a reload changes.
#[derive(Debug)]
struct Present {
    targets: Vec<Arc<Target>>,
    retry: Arc<Retry>,
    recovery: Recovery,
    write_timeout: Duration,
}

impl Present {
    fn new(config: &Config<'_>, metrics: &Metrics) -> Result<Self, UnusableUpstream> {
        let target = |upstream: &Upstream| match Target::new(upstream.clone(), config.upstreams, metrics) {
            Ok(target) => Ok(Arc::new(target)),
            Err(_) => Err(UnusableUpstream { name: upstream.name.clone() }),
        };
        let targets = config.upstreams.iter().map(target).collect::<Result<_, _>>()?;
        let (retry, recovery) = (Arc::new(config.retry.clone()), config.recovery.clone());
        Ok(Self { targets, retry, recovery, write_timeout: config.write_timeout })
    }
}

/// The settings that this room goes by.
#[derive(Debug, Clone, Copy)]
pub struct Config<'a> {
    /// `[[upstreams]]`, at least one.
    pub upstreams: &'a [Upstream],
    /// `[retry]`.
    pub retry: &'a Retry,
    /// `[recovery]`.
    pub recovery: &'a Recovery,
    /// How long a single write may make no progress.
    pub write_timeout: Duration,
}

impl Upstreams {
    /// The upstreams of the settings; flights run on `tasks`, and what they hold back is within `memory`.
    ///
    /// # Errors
    /// When one cannot be used.
    pub fn new(
        config: &Config<'_>,
        tasks: Tasks,
        metrics: Arc<Metrics>,
        memory: Memory,
    ) -> Result<Self, UnusableUpstream> {
        let present = ArcSwap::from_pointee(Present::new(config, &metrics)?);
        let (connector, budget, fallen) = (Connector::new(), Budget::new(), Fallen::default());
        let shown = Shown::default();
        shown.note(config.upstreams);
        Ok(Self(Arc::new(Shared { connector, present, budget, fallen, tasks, metrics, memory, shown })))
    }

    /// Other settings from the next attempt on; attempts under way keep theirs.
    ///
    /// # Errors
    /// When one cannot be used; then nothing has changed.
    pub fn reconfigure(&self, config: &Config<'_>) -> Result<(), UnusableUpstream> {
        self.0.shown.note(config.upstreams);
        self.0.present.store(Arc::new(Present::new(config, &self.0.metrics)?));
        Ok(())
    }

    /// Closes idle connections in time. Runs for ever, once for the process; dropping the future leaves them open.
    pub async fn sweep_idle(&self) {
        self.0.connector.sweep().await;
    }

    /// The upstreams as admission sees them.
    #[must_use]
    pub fn ways(&self) -> Vec<Way> {
        self.0.present.load().targets.iter().map(|target| target.way()).collect()
    }

    /// Whether the provider of a call does not count it.
    #[must_use]
    pub fn is_exempt(&self, method: &Method, path: &str, model: Option<&str>) -> bool {
        let present = self.0.present.load();
        present.targets.iter().find(|target| target.serves(model)).is_some_and(|target| target.is_exempt(method, path))
    }

    /// Whether a call may go with its client's own key: an upstream that serves it has none of ours.
    #[must_use]
    pub fn passes_keys(&self, model: Option<&str>) -> bool {
        self.0.present.load().targets.iter().any(|target| target.passes_keys() && target.serves(model))
    }

    /// Brings the answer of a call: each attempt with a permit for `place`. What happens is noted in `trace`. Dropping
    /// the future, or later the answer, cancels the exchange within the time it takes to close a connection.
    ///
    /// # Errors
    /// When neither waiting nor retrying helped, or the call was turned away.
    pub async fn exchange(&self, call: Call, place: Place, trace: Trace) -> Result<Answer, Failure> {
        Flight::new(Arc::clone(&self.0), call, place, trace).depart().await
    }
}

impl Shared {
    /// Where a call goes on a lane; its own key is `theirs`.
    fn target(&self, lane: &LaneId, theirs: KeyId) -> Option<Arc<Target>> {
        let present = self.present.load();
        let named = present.targets.iter().find(|target| target.name == lane.upstream);
        named.filter(|target| target.has_key(lane.key, theirs)).map(Arc::clone)
    }

    fn retry(&self) -> Arc<Retry> {
        Arc::clone(&self.present.load().retry)
    }

    fn recovery(&self) -> Recovery {
        self.present.load().recovery.clone()
    }

    /// How the rest of an answer of `target` can be asked for: in its own manner, else in that of another upstream that
    /// serves the model.
    fn continuation(&self, target: &Target, model: Option<&str>) -> Option<Continuation> {
        let present = self.present.load();
        let others = present.targets.iter().filter(|target| target.serves(model)).map(|it| it.settings.continuation);
        std::iter::once(target.settings.continuation).chain(others).find(|&manner| manner != Continuation::Off)
    }

    /// The upstreams that continue in this manner.
    fn continuing(&self, manner: Continuation) -> Vec<Arc<str>> {
        let present = self.present.load();
        let fit = present.targets.iter().filter(|target| target.settings.continuation == manner);
        fit.map(|target| Arc::clone(&target.name)).collect()
    }

    fn write_timeout(&self) -> Duration {
        self.present.load().write_timeout
    }
}
