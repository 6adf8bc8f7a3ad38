//! The calls that wait for the same lanes: by class, in it by client, and of a client by arrival.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use tokio::sync::oneshot;

use super::choice::Choice;
use super::choice::Wanted;
use super::clients::ClientNumber;
use super::fair::Tag;
use super::ranked::Ranked;
use super::{Estimate, Permit, Refusal};
use crate::ids::{CallId, KeyId};
use crate::limits::Taken;
use crate::time::Instant;
use crate::units::Priority;

/// What a waiting call is told: its permit, or why there will be none.
pub(super) type Told = Result<Permit, Refusal>;

/// How little a call is suited to be a probe: the least first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Risk {
    /// If it fails its client fails.
    pub(super) is_final: bool,
    /// It may be the call that is at fault.
    pub(super) has_failed: bool,
}

/// A call in line.
#[derive(Debug)]
pub(super) struct Waiting {
    pub(super) id: CallId,
    pub(super) key: KeyId,
    pub(super) model: Option<Arc<str>>,
    pub(super) choice: Option<Arc<Choice>>,
    pub(super) bytes: u64,
    pub(super) tokens: Estimate,
    pub(super) since: Instant,
    pub(super) deadline: Instant,
    pub(super) risk: Risk,
    /// What it has reserved of its client's own limits already, where those refuse at once.
    pub(super) own: Option<Taken>,
    pub(super) tell: oneshot::Sender<Told>,
}

impl Waiting {
    /// What it asks of whoever is to serve it.
    pub(super) fn wanted(&self) -> Wanted<'_> {
        Wanted { model: self.model.as_deref(), key: self.key, choice: self.choice.as_deref() }
    }
}

/// Whose turn it is: the smallest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Turn {
    pub(super) tag: Tag,
    /// When the first call of the client came, which goes next.
    pub(super) arrival: u64,
    pub(super) client: ClientNumber,
}

/// What became of a client's calls by taking one out.
#[derive(Debug)]
pub(super) struct Removed {
    pub(super) waiting: Waiting,
    /// None of its calls is left here.
    pub(super) was_last: bool,
}

/// Calls that wait for the same lanes.
#[derive(Debug)]
pub(super) struct Line {
    /// The lanes that can serve them, preferred first.
    pub(super) lanes: Vec<usize>,
    classes: [Class; 3],
}

/// Those of one class.
#[derive(Debug, Default)]
pub(super) struct Class {
    /// The clients whose turn can come, in order.
    turns: BTreeSet<Turn>,
    queues: HashMap<ClientNumber, Queue>,
    /// How many calls wait, and how many of them stand aside.
    len: u32,
    aside: u32,
}

/// Those of one client.
#[derive(Debug, Default)]
struct Queue {
    calls: Ranked<Waiting>,
    /// `None`: it stands aside.
    turn: Option<Turn>,
}

impl Line {
    pub(super) fn new(lanes: Vec<usize>) -> Self {
        Self { lanes, classes: Default::default() }
    }

    /// The lane whose virtual time orders the clients.
    pub(super) fn domain(&self) -> usize {
        self.lanes.first().copied().unwrap_or_default()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.classes.iter().all(|class| class.len == 0)
    }

    pub(super) fn class(&self, class: Priority) -> &Class {
        &self.classes[class as usize]
    }

    pub(super) fn class_mut(&mut self, class: Priority) -> &mut Class {
        &mut self.classes[class as usize]
    }

    /// Everybody who waits.
    pub(super) fn into_waiting(self) -> impl Iterator<Item = (Priority, ClientNumber, u64, Waiting)> {
        Priority::ALL.into_iter().zip(self.classes).flat_map(|(class, queues)| {
            queues.queues.into_iter().flat_map(move |(client, queue)| {
                queue.calls.into_iter().map(move |(arrival, waiting)| (class, client, arrival, waiting))
            })
        })
    }
}

impl Class {
    pub(super) fn len(&self) -> u32 {
        self.len
    }

    /// How many of them do not stand aside.
    pub(super) fn len_in_line(&self) -> u32 {
        self.len.saturating_sub(self.aside)
    }

    /// Whose turn it is.
    pub(super) fn first(&self) -> Option<Turn> {
        self.turns.first().copied()
    }

    /// The clients whose turn can come, in order.
    pub(super) fn turns(&self) -> impl Iterator<Item = &Turn> {
        self.turns.iter()
    }

    /// The arrivals of those that cannot wait until then.
    pub(super) fn arrivals_before(&self, deadline: Instant) -> Vec<u64> {
        let all = self.queues.values().flat_map(|queue| queue.calls.iter());
        all.filter(|(_, waiting)| waiting.deadline < deadline).map(|(arrival, _)| arrival).collect()
    }

    /// All that wait, in no order.
    pub(super) fn waiting(&self) -> impl Iterator<Item = &Waiting> {
        self.queues.values().flat_map(|queue| queue.calls.iter()).map(|(_, waiting)| waiting)
    }

    /// The clients that have calls here, and whether they stand aside.
    pub(super) fn clients(&self) -> impl Iterator<Item = (ClientNumber, bool)> {
        self.queues.iter().map(|(client, queue)| (*client, queue.turn.is_none()))
    }

    /// How many calls of a client wait.
    pub(super) fn len_of(&self, client: ClientNumber) -> usize {
        self.queues.get(&client).map_or(0, |queue| queue.calls.len())
    }

    /// The call of a client before which `index` others of its are.
    pub(super) fn nth(&self, client: ClientNumber, index: usize) -> Option<(u64, &Waiting)> {
        self.queues.get(&client)?.calls.nth(index)
    }

    /// A call of a client.
    pub(super) fn call(&self, client: ClientNumber, arrival: u64) -> Option<&Waiting> {
        let calls = &self.queues.get(&client)?.calls;
        calls.nth(calls.rank(arrival)).filter(|(found, _)| *found == arrival).map(|(_, waiting)| waiting)
    }

    /// The first call of those least at risk, among the clients whose turn can come.
    pub(super) fn least_at_risk(&self) -> Option<(Risk, Turn)> {
        let calls = self.turns.iter().filter_map(|turn| Some((turn, self.queues.get(&turn.client)?)));
        let all = calls.flat_map(|(turn, queue)| {
            queue.calls.iter().map(move |(arrival, waiting)| (waiting.risk, Turn { arrival, ..*turn }))
        });
        all.min_by_key(|(risk, _)| *risk)
    }

    /// How many calls of a client came before `arrival`.
    pub(super) fn rank(&self, client: ClientNumber, arrival: u64) -> usize {
        self.queues.get(&client).map_or(0, |queue| queue.calls.rank(arrival))
    }

    /// Lets a call line up. `tag`: when the client's turn is due, where it has none here yet; `None`: it stands aside.
    /// Says whether it is the first of its client here.
    pub(super) fn insert(&mut self, client: ClientNumber, arrival: u64, waiting: Waiting, tag: Option<Tag>) -> bool {
        self.len += 1;
        let queue = self.queues.entry(client).or_default();
        let is_first = queue.calls.len() == 0;
        queue.calls.insert(arrival, waiting);
        let due = if is_first { tag } else { queue.turn.map(|turn| turn.tag) };
        self.aside += u32::from(due.is_none());
        self.put(client, due);
        is_first
    }

    /// Takes a call out, if it is still here.
    pub(super) fn remove(&mut self, client: ClientNumber, arrival: u64) -> Option<Removed> {
        let queue = self.queues.get_mut(&client)?;
        let waiting = queue.calls.remove(arrival)?;
        self.len -= 1;
        let (was_last, tag) = (queue.calls.len() == 0, queue.turn.map(|turn| turn.tag));
        self.aside -= u32::from(tag.is_none());
        self.put(client, tag);
        if was_last {
            self.queues.remove(&client);
        }
        Some(Removed { waiting, was_last })
    }

    /// Says when a client's turn is due now; `None`: it stands aside.
    pub(super) fn reorder(&mut self, client: ClientNumber, tag: Option<Tag>) {
        let Some(queue) = self.queues.get(&client) else { return };
        let calls = u32::try_from(queue.calls.len()).unwrap_or(u32::MAX);
        match (queue.turn.is_none(), tag.is_none()) {
            (false, true) => self.aside = self.aside.saturating_add(calls),
            (true, false) => self.aside = self.aside.saturating_sub(calls),
            (true, true) | (false, false) => {}
        }
        self.put(client, tag);
    }

    fn put(&mut self, client: ClientNumber, tag: Option<Tag>) {
        let Some(queue) = self.queues.get_mut(&client) else { return };
        let first = queue.calls.first().map(|(arrival, _)| arrival);
        let turn = tag.zip(first).map(|(tag, arrival)| Turn { tag, arrival, client });
        if queue.turn == turn {
            return;
        }
        if let Some(old) = std::mem::replace(&mut queue.turn, turn) {
            self.turns.remove(&old);
        }
        self.turns.extend(turn);
    }

    /// Whether a client stands aside here.
    pub(super) fn is_parked(&self, client: ClientNumber) -> bool {
        self.queues.get(&client).is_some_and(|queue| queue.turn.is_none())
    }
}
