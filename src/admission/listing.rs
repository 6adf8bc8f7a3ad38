//! Everybody who waits, in the order of service: what operators are shown.

use std::cmp::{Ordering, Reverse};
use std::collections::{BTreeMap, BinaryHeap};

use super::clients::ClientNumber;
use super::fair::{Tag, stride};
use super::floors::Floors;
use super::state::State;
use super::status::{LaneStatus, Queue, Queued};
use crate::answer::Outlook;
use crate::time::{Duration, Instant};
use crate::units::Priority;

/// A client's next call in the order of its class.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Next {
    due: Tag,
    arrival: u64,
    client: ClientNumber,
    line: usize,
    rank: usize,
}

/// The lines that share a virtual time, merged class by class.
struct Merge {
    classes: [BinaryHeap<Reverse<Next>>; 3],
    floors: Floors,
    /// How many were listed.
    listed: u32,
}

/// The next call of one merge, ordered by when its turn is expected.
struct Soonest {
    queued: Queued,
    merge: usize,
}

impl Soonest {
    fn new(queued: Queued, merge: usize) -> Self {
        Self { queued, merge }
    }

    fn key(&self) -> (Duration, u32, usize) {
        let Outlook { position, eta } = self.queued.outlook;
        (eta.unwrap_or(Duration::MAX), position, self.merge)
    }
}

impl PartialEq for Soonest {
    fn eq(&self, other: &Self) -> bool {
        self.key() == other.key()
    }
}

impl Eq for Soonest {}

impl PartialOrd for Soonest {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Soonest {
    fn cmp(&self, other: &Self) -> Ordering {
        self.key().cmp(&other.key())
    }
}

impl State {
    /// The first `most` of who waits. The order is played through as it would be if all stayed and nobody came.
    pub(super) fn queue(&mut self, now: Instant, most: usize) -> Queue {
        let mut domains: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
        for (index, line) in &self.lines {
            domains.entry(line.domain()).or_default().push(index);
        }
        let mut merges: Vec<Merge> = Vec::new();
        let mut nexts = BinaryHeap::new();
        for (domain, lines) in domains {
            let Some(mut merge) = self.merge(domain, &lines) else { continue };
            if let Some(queued) = self.next_of(now, &mut merge) {
                nexts.push(Reverse(Soonest::new(queued, merges.len())));
            }
            merges.push(merge);
        }
        let mut calls = Vec::new();
        while calls.len() < most
            && let Some(Reverse(Soonest { queued, merge })) = nexts.pop()
        {
            calls.push(queued);
            if let Some(queued) = self.next_of(now, &mut merges[merge]) {
                nexts.push(Reverse(Soonest::new(queued, merge)));
            }
        }
        let (waiting, bytes) = self.totals();
        Queue { waiting, bytes, calls }
    }

    /// The next call of those who share a virtual time.
    fn next_of(&mut self, now: Instant, merge: &mut Merge) -> Option<Queued> {
        let (class, next) = self.step(merge)?;
        merge.listed = merge.listed.saturating_add(1);
        self.describe(now, class, &next, merge.listed)
    }

    fn merge(&self, domain: usize, lines: &[usize]) -> Option<Merge> {
        let lane = self.lanes.get(domain)?;
        let mut merge = Merge { classes: Default::default(), floors: lane.floors, listed: 0 };
        for &line in lines {
            let waits = self.lines.get(line)?;
            for class in Priority::ALL {
                for (client, _) in waits.class(class).clients() {
                    let due = lane.fair[class as usize].tag(client);
                    if let Some((arrival, _)) = waits.class(class).nth(client, 0) {
                        let next = Next { due, arrival, client, line, rank: 0 };
                        merge.classes[class as usize].push(Reverse(next));
                    }
                }
            }
        }
        Some(merge)
    }

    /// Whoever goes next.
    fn step(&self, merge: &mut Merge) -> Option<(Priority, Next)> {
        let waiting = [0, 1, 2].map(|class: usize| !merge.classes[class].is_empty());
        let class = merge.floors.next(waiting, [true; 3], &self.bounds.floors)?;
        merge.floors.grant(waiting, class, &self.bounds.floors);
        let Reverse(next) = merge.classes[class as usize].pop()?;
        let rank = next.rank + 1;
        let line = self.lines.get(next.line)?;
        if let Some((arrival, _)) = line.class(class).nth(next.client, rank) {
            let due = next.due + stride(self.clients.weight(next.client));
            merge.classes[class as usize].push(Reverse(Next { due, arrival, rank, ..next }));
        }
        Some((class, next))
    }

    fn describe(&mut self, now: Instant, class: Priority, next: &Next, position: u32) -> Option<Queued> {
        let line = self.lines.get(next.line)?;
        let lanes = line.lanes.clone();
        let (_, waiting) = line.class(class).nth(next.client, next.rank)?;
        let has_own = waiting.own.is_some();
        let mut upstreams: Vec<_> =
            lanes.iter().filter_map(|lane| self.lanes.get(*lane)).map(|lane| lane.id.upstream.clone()).collect();
        upstreams.dedup();
        let mut queued = Queued {
            id: waiting.id,
            client: self.clients.name(next.client),
            class,
            model: waiting.model.clone(),
            upstreams,
            outlook: Outlook { position, eta: None },
            waited: now.saturating_duration_since(waiting.since),
            left: waiting.deadline.saturating_duration_since(now),
            tokens: waiting.tokens.tokens(),
            bytes: waiting.bytes,
        };
        let nth = u32::try_from(next.rank).unwrap_or(u32::MAX).saturating_add(1);
        queued.outlook.eta = self.expected_with_own(now, &lanes, position, (!has_own).then_some((next.client, nth)));
        Some(queued)
    }

    /// The lanes in use, in the order of the settings.
    pub(super) fn lanes_status(&mut self, now: Instant) -> Vec<LaneStatus> {
        let lines = &self.lines;
        let waiting = |lane: &super::lane::Lane| -> u32 {
            let lines = lane.lines.iter().filter_map(|line| lines.get(*line));
            lines.map(|line| Priority::ALL.map(|class| line.class(class).len()).iter().sum::<u32>()).sum()
        };
        let in_use = self.lanes.iter_mut().map(|(_, lane)| lane).filter(|lane| lane.in_use);
        in_use
            .map(|lane| {
                let waiting = waiting(lane);
                lane.status(now, waiting)
            })
            .collect()
    }
}
