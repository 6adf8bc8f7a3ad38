//! The calls that wait for the same lanes.

use std::collections::BTreeMap;
use std::sync::Arc;

use tokio::sync::oneshot;

use super::{Permit, Refusal};
use crate::units::Priority;

/// What a waiting call is told: its permit, or why there will be none.
pub(super) type Told = Result<Permit, Refusal>;

/// A call in line.
#[derive(Debug)]
pub(super) struct Waiting {
    pub(super) model: Option<Arc<str>>,
    pub(super) bytes: u64,
    pub(super) tell: oneshot::Sender<Told>,
}

/// Calls that wait for the same lanes, by class and arrival.
#[derive(Debug)]
pub(super) struct Line {
    /// Indexes of the lanes that can serve them, preferred first.
    pub(super) lanes: Vec<usize>,
    classes: [BTreeMap<u64, Waiting>; 3],
}

impl Line {
    pub(super) fn new(lanes: Vec<usize>) -> Self {
        Self { lanes, classes: Default::default() }
    }

    pub(super) fn insert(&mut self, class: Priority, arrival: u64, waiting: Waiting) {
        self.classes[class as usize].insert(arrival, waiting);
    }

    pub(super) fn remove(&mut self, class: Priority, arrival: u64) -> Option<Waiting> {
        self.classes[class as usize].remove(&arrival)
    }

    /// When the first of a class came.
    pub(super) fn first(&self, class: Priority) -> Option<u64> {
        self.classes[class as usize].keys().next().copied()
    }

    /// Everybody who waits.
    pub(super) fn into_waiting(self) -> impl Iterator<Item = (Priority, u64, Waiting)> {
        Priority::ALL
            .into_iter()
            .zip(self.classes)
            .flat_map(|(class, waiting)| waiting.into_iter().map(move |(arrival, waiting)| (class, arrival, waiting)))
    }
}
