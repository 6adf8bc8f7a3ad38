//! A call from bytes to answer, whatever transport it came by.
//!
//! The life of a call: its client is *identified*, it is *classified* (which endpoint, which model, which class, until
//! when), takes a *place*, goes *upstream* with a permit for each attempt, and is *accounted* for when its answer has
//! ended; the account teaches *habits* what its model usually does, by which the next call is classified. This room
//! names no transport: the proxy hands calls in for clients, tasks will for themselves, and both drop the answer to
//! cancel.

mod account;
mod classify;
mod clients;
mod habits;

use std::sync::Arc;

use arc_swap::ArcSwap;
use http::HeaderMap;

use self::account::Account;
pub use self::account::TurnedAway;
pub use self::classify::{BadCall, Incoming, WAIT_MAX};
pub use self::clients::{Caller, Clients, Stranger};
use self::habits::{Asked, Habits};
use crate::admission::{Admission, Demand, Estimate};
use crate::answer::{Answer, Trace};
use crate::call::Call;
use crate::ids::{ClientId, KeyId};
use crate::metrics::Metrics;
use crate::time::{self, Duration};
use crate::upstream::{Failure, Upstreams};

/// What a reload changes in this room.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rules {
    /// How long a call may wait that names no deadline.
    pub wait_max: Duration,
}

/// The way through the house. Cheap to clone, one for the whole process.
#[derive(Debug, Clone)]
pub struct Pipeline(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    admission: Admission,
    upstreams: Upstreams,
    metrics: Arc<Metrics>,
    rules: ArcSwap<Rules>,
    clients: ArcSwap<Clients>,
    habits: Arc<Habits>,
}

impl Pipeline {
    /// Connects the rooms. Anyone may call until [`Pipeline::know`] says otherwise.
    #[must_use]
    pub fn new(admission: Admission, upstreams: Upstreams, metrics: Arc<Metrics>, rules: Rules) -> Self {
        let (rules, clients, habits) = (ArcSwap::from_pointee(rules), ArcSwap::default(), Arc::default());
        Self(Arc::new(Shared { admission, upstreams, metrics, rules, clients, habits }))
    }

    /// Who may call from now on.
    pub fn know(&self, clients: Clients) {
        self.0.clients.store(Arc::new(clients));
    }

    /// Other rules for the calls to come.
    pub fn reconfigure(&self, rules: Rules) {
        self.0.rules.store(Arc::new(rules));
    }

    /// Tells who calls by the header fields of a request, and takes the key out of them that is meant for us.
    ///
    /// # Errors
    /// When clients are configured and this is none of them.
    pub fn identify(&self, headers: &mut HeaderMap) -> Result<Caller, Stranger> {
        self.0.clients.load().identify(headers)
    }

    /// Understands what came in.
    ///
    /// # Errors
    /// When one of our own header fields says something that cannot be meant.
    pub fn classify(&self, incoming: Incoming) -> Result<Call, BadCall> {
        let mut call = incoming.classify(&self.0.rules.load(), |model| self.0.habits.expected(model, time::now()))?;
        // Where keys of clients go through, they tell clients apart that nothing else does.
        if call.client == ClientId::Everybody
            && call.key != KeyId::PASS_THROUGH
            && self.0.upstreams.passes_keys(call.model.as_deref())
        {
            call.client = ClientId::Key(call.key);
        }
        Ok(call)
    }

    /// Executes a call, headless: waits for its turn, brings its answer, accounts for it; what happens is noted in
    /// `trace`. Dropping the future, or the answer before its end, cancels the call: its place is free at once, its
    /// exchange is cut.
    ///
    /// # Errors
    /// When it was turned away, or neither waiting nor retrying helped.
    pub async fn execute(&self, call: Call, trace: Trace) -> Result<Answer, Failure> {
        let Shared { admission, upstreams, metrics, habits, .. } = &*self.0;
        let asked = Asked::of(&call);
        let tokens = {
            let (asked, habits) = (asked.clone(), Arc::clone(habits));
            Estimate::asked(move || habits.tokens(&asked))
        };
        let place = admission.place(self.demand(&call, tokens));
        let account = Account::open(&call, trace.clone(), Arc::clone(metrics), (asked, Arc::clone(habits)));
        trace.watch(place.outlook());
        match upstreams.exchange(call, place, trace).await {
            Ok(answer) => {
                let account = account.answered(&answer.head);
                Ok(answer.observed_by(account))
            }
            Err(failure) => {
                account.failed(&failure);
                Err(failure)
            }
        }
    }

    /// Whether an operator has paused an upstream.
    #[must_use]
    pub fn is_paused(&self) -> bool {
        !self.0.admission.paused().is_empty()
    }

    /// Whether calls wait because an upstream fails.
    #[must_use]
    pub fn is_failing(&self) -> bool {
        self.0.admission.is_failing()
    }

    /// Accounts for a request that never became a call.
    pub fn turned_away(&self, request: &TurnedAway) {
        account::turned_away(request, &self.0.metrics);
    }

    /// How many calls wait.
    #[must_use]
    pub fn waiting(&self) -> u32 {
        self.0.admission.waiting()
    }

    fn demand(&self, call: &Call, tokens: Estimate) -> Demand {
        let (path, _) = call.target.split_once('?').unwrap_or((&call.target, ""));
        Demand {
            id: call.id,
            client: call.client.clone(),
            key: call.key,
            tokens,
            priority: call.priority,
            model: call.model.clone(),
            choice: None,
            bytes: call.body.bytes_held(),
            deadline: call.deadline,
            repeatable: call.is_repeatable(),
            exempt: self.0.upstreams.is_exempt(&call.method, path, call.model.as_deref()),
        }
    }
}
