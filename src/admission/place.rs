//! A call's place: kept over its first retries, gone when it is dropped.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::sync::oneshot;

use super::choice::Wanted;
use super::choice::{Avoids, Blame, Choice};
use super::line::Told;
use super::{Estimate, Permit, Refusal, Shared};
use crate::answer::{Outlook, Standing};
use crate::ids::{CallId, ClientId, KeyId, LaneId};
use crate::time::{self, Instant};
use crate::units::Priority;

/// A retried call keeps its place for so many failures; then it lines up anew.
const FAILURES_FORGIVEN: u32 = 3;

/// What a call asks for.
#[derive(Debug, Clone)]
pub struct Demand {
    /// The call, as operators see it.
    pub id: CallId,
    /// Whose it is.
    pub client: ClientId,
    /// The key in its own Authorization: the lane of an upstream without a key of ours.
    pub key: KeyId,
    /// Its class.
    pub priority: Priority,
    /// The model it names; chooses the upstream.
    pub model: Option<Arc<str>>,
    /// Which of those that serve the model will do, if not all of them.
    pub choice: Option<Arc<Choice>>,
    /// Bytes its body holds while it waits.
    pub bytes: u64,
    /// The tokens it is expected to use at the most, prompt and answer together: reserved, and settled by its usage.
    pub tokens: Estimate,
    /// When waiting is over.
    pub deadline: Instant,
    /// It can be sent again if it fails: of those who wait such a one is to probe.
    pub repeatable: bool,
    /// A request that the provider does not count: it takes no permit.
    pub exempt: bool,
}

impl Demand {
    /// What everybody's call asks for that names no model and may wait until `deadline`.
    #[must_use]
    pub fn new(priority: Priority, deadline: Instant) -> Self {
        Self {
            id: CallId::random(),
            client: ClientId::Everybody,
            key: KeyId::PASS_THROUGH,
            priority,
            model: None,
            choice: None,
            bytes: 0,
            tokens: Estimate::known(0),
            deadline,
            repeatable: true,
            exempt: false,
        }
    }
}

impl Demand {
    /// What it asks of whoever is to serve it.
    pub(super) fn wanted(&self) -> Wanted<'_> {
        Wanted { model: self.model.as_deref(), key: self.key, choice: self.choice.as_deref() }
    }
}

/// A call's place in the order of arrival.
#[derive(Debug)]
pub struct Place {
    shared: Arc<Shared>,
    demand: Demand,
    /// Its number in the order of arrival, also for those who look where it stands.
    arrival: Arc<AtomicU64>,
    /// Whether it was in line before: then `queue_max` no longer turns it away.
    admitted: bool,
    failures: u32,
    /// Where its attempts have failed.
    avoids: Avoids,
}

impl Place {
    pub(super) fn new(shared: Arc<Shared>, demand: Demand) -> Self {
        let arrival = Arc::new(AtomicU64::new(shared.arrive()));
        Self { shared, demand, arrival, admitted: false, failures: 0, avoids: Avoids::default() }
    }

    /// Waits for a permit, for each attempt one. Dropping the future leaves the line at once and costs nothing. Of the
    /// lanes that have one at once those are preferred on which the call has not failed.
    ///
    /// # Errors
    /// When the call cannot wait, its turn cannot come in time, it has waited until its deadline, or nobody serves it.
    pub async fn permit(&mut self) -> Result<Permit, Refusal> {
        let came = time::now();
        let (shared, arrival) = (&self.shared, self.arrival.load(Ordering::Relaxed));
        let asked =
            shared.with(|state, now| state.ask(shared, now, (&self.demand, &self.avoids), arrival, self.admitted));
        self.admitted = true;
        let mut told = match asked? {
            Asked::Granted(permit) => return Ok(permit),
            Asked::InLine(told) => told,
        };
        let in_line = InLine { shared, arrival };
        let answer = tokio::time::timeout_at(self.demand.deadline, &mut told).await;
        let turn = if answer.is_err() { shared.outlook(arrival).and_then(|outlook| outlook.eta) } else { None };
        drop(in_line);
        let told = match answer {
            Ok(told) => told.ok(),
            Err(_elapsed) => told.try_recv().ok(), // granted at the very last moment
        };
        let waited = came.elapsed();
        told.unwrap_or(Err(Refusal::QueueTimeout { waited, turn })).map(|permit| permit.after(waited))
    }

    /// Looks where the call stands, from anywhere and for as long as it likes; `None` while it is not in line.
    pub fn outlook(&self) -> impl Fn() -> Option<Outlook> + Send + Sync + 'static {
        let (shared, arrival) = (Arc::clone(&self.shared), Arc::clone(&self.arrival));
        move || shared.outlook(arrival.load(Ordering::Relaxed))
    }

    /// What is left of requests and of tokens: of the client's own limits, else of the lane it would go by first.
    #[must_use]
    pub fn standing(&self) -> (Option<Standing>, Option<Standing>) {
        self.shared.state.lock().standing_of(time::now(), &self.demand)
    }

    /// A permit on a lane where the call has not failed yet (of another upstream, or another key), if one is free at once
    /// and nobody waits for it. Never waits.
    #[must_use]
    pub fn elsewhere(&mut self) -> Option<Permit> {
        let shared = &self.shared;
        shared.with(|state, now| state.elsewhere(shared, now, &self.demand, &self.avoids))
    }

    /// Whether it could go where it has not failed, sooner or later.
    #[must_use]
    pub fn has_elsewhere(&self) -> bool {
        if self.avoids.is_empty() || self.demand.exempt {
            return false;
        }
        self.shared.with(|state, now| state.has_elsewhere(now, &self.demand, &self.avoids))
    }

    /// From now on its permits are not for lanes on which it has failed; or, when that is over, for any again.
    pub fn keep_away(&mut self, away: bool) {
        let avoid = if away { self.avoids.clone() } else { Avoids::default() };
        self.choose(|choice| choice.avoid = avoid);
    }

    /// Waiting begins anew, until another deadline: for the rest of a stream that broke.
    pub fn renew(&mut self, deadline: Instant) {
        self.demand.deadline = deadline;
    }

    /// From now on only these upstreams will do: others cannot go on with an answer that was begun.
    pub fn only(&mut self, upstreams: Vec<Arc<str>>) {
        self.choose(|choice| choice.only = Some(upstreams));
    }

    /// The provider does not know the key of this lane: the call does not go by it again. If others serve the call nobody
    /// goes by it for a minute, and the next permit is one of theirs; says whether that is so.
    pub fn key_is_unknown(&mut self, lane: &LaneId) -> bool {
        self.choose(|choice| choice.exclude(lane));
        self.shared.with(|state, now| state.set_aside(now, &self.demand, lane))
    }

    fn choose(&mut self, choose: impl FnOnce(&mut Choice)) {
        choose(Arc::make_mut(self.demand.choice.get_or_insert_default()));
    }

    /// An attempt has failed on this lane, and another one will follow.
    pub fn failed(&mut self, lane: &LaneId, blame: Blame) {
        self.avoids.add(lane, blame);
        self.failures += 1;
        if self.failures > FAILURES_FORGIVEN {
            self.arrival.store(self.shared.arrive(), Ordering::Relaxed);
        }
    }

    /// Pauses before it asks again, not in line; no longer than somebody is served at all. Dropping the future costs
    /// nothing.
    pub async fn pause(&self, until: Instant) {
        tokio::select! {
            biased;
            () = self.shared.closed.cancelled() => {}
            () = tokio::time::sleep_until(until) => {}
        }
    }

    /// When waiting is over.
    #[must_use]
    pub fn deadline(&self) -> Instant {
        self.demand.deadline
    }
}

/// What came of asking.
#[derive(Debug)]
pub(super) enum Asked {
    Granted(Permit),
    InLine(oneshot::Receiver<Told>),
}

/// A call in line; it leaves the line when dropped.
struct InLine<'a> {
    shared: &'a Arc<Shared>,
    arrival: u64,
}

impl Drop for InLine<'_> {
    fn drop(&mut self) {
        self.shared.with(|state, now| state.leave(self.shared, now, self.arrival));
    }
}
