//! When to look again.

use std::collections::BTreeSet;

use super::clients::ClientNumber;
use crate::time::Instant;

/// What to look at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Wake {
    /// A lane, by its index: its next permit can exist.
    Lane(usize),
    /// A client whose calls stand aside: its own limits have room.
    Client(ClientNumber),
}

/// One instant at the most for each that waits for one.
#[derive(Debug, Default)]
pub(super) struct Timers(BTreeSet<(Instant, Wake)>);

impl Timers {
    /// Sets another instant, or none; `present` remembers it.
    pub(super) fn set(&mut self, wake: Wake, present: &mut Option<Instant>, at: Option<Instant>) {
        if *present == at {
            return;
        }
        if let Some(old) = std::mem::replace(present, at) {
            self.0.remove(&(old, wake));
        }
        self.0.extend(at.map(|at| (at, wake)));
    }

    /// The soonest.
    pub(super) fn first(&self) -> Option<Instant> {
        self.0.first().map(|(at, _)| *at)
    }

    /// Takes out one that is due.
    pub(super) fn due(&mut self, now: Instant) -> Option<Wake> {
        self.0.first().filter(|(at, _)| *at <= now)?;
        self.0.pop_first().map(|(_, wake)| wake)
    }
}
