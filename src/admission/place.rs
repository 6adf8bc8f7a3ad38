//! A call's place: kept over its first retries, gone when it is dropped.

use std::sync::Arc;

use tokio::sync::oneshot;

use super::line::{Told, Waiting};
use super::{Permit, Refusal, Shared};
use crate::answer::Outlook;
use crate::ids::{CallId, ClientId, KeyId};
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
    /// Bytes its body holds while it waits.
    pub bytes: u64,
    /// The tokens it is expected to use at the most, prompt and answer together: reserved, and settled by its usage.
    pub tokens: u64,
    /// When waiting is over.
    pub deadline: Instant,
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
            bytes: 0,
            tokens: 0,
            deadline,
            exempt: false,
        }
    }
}

/// A call's place in the order of arrival.
#[derive(Debug)]
pub struct Place {
    shared: Arc<Shared>,
    demand: Demand,
    arrival: u64,
    /// Whether a permit was granted before: then `queue_max` no longer turns it away.
    admitted: bool,
    failures: u32,
}

impl Place {
    pub(super) fn new(shared: Arc<Shared>, demand: Demand) -> Self {
        let arrival = shared.arrive();
        Self { shared, demand, arrival, admitted: false, failures: 0 }
    }

    /// Waits for a permit, for each attempt one. Dropping the future leaves the line at once and costs nothing.
    ///
    /// # Errors
    /// When the call cannot wait, has waited until its deadline, or nobody serves it.
    pub async fn permit(&mut self) -> Result<Permit, Refusal> {
        let came = time::now();
        let mut told = match self.ask()? {
            Asked::Granted(permit) => return Ok(permit),
            Asked::InLine(told) => told,
        };
        let in_line = InLine { shared: &self.shared, class: self.demand.priority, arrival: self.arrival };
        let answer = tokio::time::timeout_at(self.demand.deadline, &mut told).await;
        drop(in_line);
        let told = match answer {
            Ok(told) => told.ok(),
            Err(_elapsed) => told.try_recv().ok(), // granted at the very last moment
        };
        let waited = came.elapsed();
        self.admitted = true;
        told.unwrap_or(Err(Refusal::QueueTimeout { waited, turn: None })).map(|permit| permit.after(waited))
    }

    /// Looks where the call stands, from anywhere and for as long as it likes; `None` while it is not in line.
    pub fn outlook(&self) -> impl Fn() -> Option<Outlook> + Send + Sync + 'static {
        || None
    }

    /// An attempt has failed and another one will follow.
    pub fn failed(&mut self) {
        self.failures += 1;
        if self.failures > FAILURES_FORGIVEN {
            self.arrival = self.shared.arrive();
        }
    }

    /// When waiting is over.
    #[must_use]
    pub fn deadline(&self) -> Instant {
        self.demand.deadline
    }

    /// Takes a permit if nobody waits and there is one, else stands in line. A permit that comes free in between is
    /// granted as soon as the call is in line.
    fn ask(&mut self) -> Result<Asked, Refusal> {
        let Demand { priority, bytes, exempt, .. } = self.demand;
        let model = self.demand.model.as_deref();
        let (arrival, admitted) = (self.arrival, self.admitted);
        let mut state = self.shared.state.lock();
        if exempt {
            return state.exempt(model).map(|lane| Asked::Granted(Permit::exempt(lane)));
        }
        let now = time::now();
        if let Some(permit) = state.take_if_idle(&self.shared, now, model)? {
            self.admitted = true;
            return Ok(Asked::Granted(permit));
        }
        if !admitted {
            state.room_for(bytes)?;
        }
        drop(state);
        let (tell, told) = oneshot::channel();
        let waiting = Waiting { model: self.demand.model.clone(), bytes, tell };
        self.shared.with(|state, _| state.line_up(priority, arrival, waiting))?;
        Ok(Asked::InLine(told))
    }
}

enum Asked {
    Granted(Permit),
    InLine(oneshot::Receiver<Told>),
}

/// A call in line; it leaves the line when dropped.
struct InLine<'a> {
    shared: &'a Shared,
    class: Priority,
    arrival: u64,
}

impl Drop for InLine<'_> {
    fn drop(&mut self) {
        self.shared.state.lock().leave(self.class, self.arrival);
    }
}
