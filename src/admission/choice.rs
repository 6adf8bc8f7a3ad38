//! Which lanes will do for a call: those that serve its model, but for where it has failed, or cannot go on.

use std::sync::Arc;

use crate::ids::{KeyId, LaneId};

/// What a call asks of whoever is to serve it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Wanted<'a> {
    pub(super) model: Option<&'a str>,
    /// The key in its own Authorization.
    pub(super) key: KeyId,
    /// Which of them will do, if not all.
    pub(super) choice: Option<&'a Choice>,
}

/// What an attempt failed of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Blame {
    /// The upstream: its other keys would not help.
    Upstream,
    /// Only the key that the attempt went with.
    Key,
}

/// Which lanes will do for a call, of those that serve its model.
#[derive(Debug, Clone, Default)]
pub struct Choice {
    /// Only those of these upstreams.
    pub(super) only: Option<Vec<Arc<str>>>,
    /// None of these.
    pub(super) not: Vec<LaneId>,
    /// For now none on which it has failed.
    pub(super) avoid: Avoids,
}

impl Choice {
    pub(super) fn has_upstream(&self, upstream: &Arc<str>) -> bool {
        self.only.as_ref().is_none_or(|only| only.contains(upstream))
    }

    /// Whether a key of an upstream will do.
    pub(super) fn has_key(&self, upstream: &Arc<str>, key: KeyId) -> bool {
        !self.not.iter().any(|not| not.upstream == *upstream && not.key == key)
    }

    /// A key will not do from now on.
    pub(super) fn exclude(&mut self, lane: &LaneId) {
        if !self.not.contains(lane) {
            self.not.push(lane.clone());
        }
    }
}

/// The lanes on which a call has failed.
#[derive(Debug, Clone, Default)]
pub(super) struct Avoids(Vec<(LaneId, Blame)>);

impl Avoids {
    pub(super) fn add(&mut self, lane: &LaneId, blame: Blame) {
        match self.0.iter_mut().find(|(known, _)| known == lane) {
            Some((_, known)) if blame == Blame::Upstream => *known = blame,
            Some(_) => {}
            None => self.0.push((lane.clone(), blame)),
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether a call has failed on a lane. One that all keys share is the lane of each.
    pub(super) fn has(&self, lane: &LaneId) -> bool {
        self.0.iter().any(|(failed, blame)| {
            let is_key = failed.key == lane.key || lane.key == KeyId::ALL;
            failed.upstream == lane.upstream && (*blame == Blame::Upstream || is_key)
        })
    }
}
