//! All lanes, all lines, one decision.

use std::sync::Arc;

use super::floors::{Floors, Shares};
use super::line::{Line, Waiting};
use super::{Full, Permit, Refusal, Shared, Snapshot, Way};
use crate::ids::LaneId;
use crate::limits::{Allowance, Backlog, Ready};
use crate::time::Instant;
use crate::units::Priority;

/// How many may wait, and what each class is sure of.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Bounds {
    /// Calls that may wait.
    pub queue_max: usize,
    /// Bytes that their bodies may hold.
    pub queue_bytes_max: u64,
    /// The least share of the permits of each class while it waits, as in [`Priority::ALL`].
    pub floors: Shares,
}

/// One key of one upstream.
#[derive(Debug)]
pub(super) struct Lane {
    id: LaneId,
    pub(super) allowance: Allowance,
    floors: Floors,
    /// How many wait in lines that this lane serves.
    waiting: usize,
    /// Whether the present settings have it. One that is gone is kept: its spending counts when it comes back.
    in_use: bool,
}

#[derive(Debug)]
pub(super) struct State {
    bounds: Bounds,
    /// Each with the indexes of its lanes.
    ways: Vec<(Way, Vec<usize>)>,
    /// Never shortened: permits know their lane by its index.
    lanes: Vec<Lane>,
    lines: Vec<Line>,
    waiting: [u32; 3],
    bytes: u64,
    closed: bool,
    /// When the timer will wake; `None`: not before it is told.
    pub(super) armed: Option<Instant>,
}

impl State {
    pub(super) fn new(bounds: Bounds) -> Self {
        Self {
            bounds,
            ways: Vec::new(),
            lanes: Vec::new(),
            lines: Vec::new(),
            waiting: [0; 3],
            bytes: 0,
            closed: false,
            armed: None,
        }
    }

    pub(super) fn lane(&mut self, index: usize) -> &mut Lane {
        &mut self.lanes[index]
    }

    pub(super) fn reconfigure(&mut self, now: Instant, ways: Vec<Way>, bounds: Bounds) {
        self.bounds = bounds;
        for lane in &mut self.lanes {
            (lane.in_use, lane.waiting) = (false, 0);
        }
        self.ways = ways
            .into_iter()
            .map(|way| {
                let lanes = way.keys.iter().map(|&key| self.lane_of(now, &way, key)).collect();
                (way, lanes)
            })
            .collect();
        // Everybody who waits lines up again, by arrival: other lanes may serve them now.
        for line in std::mem::take(&mut self.lines) {
            for (class, arrival, waiting) in line.into_waiting() {
                self.forget(class, &waiting);
                match self.line_for(waiting.model.as_deref()) {
                    Ok(line) => self.insert(line, class, arrival, waiting),
                    // The receiver may have gone at this moment; then there is nobody to tell.
                    Err(refusal) => drop(waiting.tell.send(Err(refusal))),
                }
            }
        }
    }

    fn lane_of(&mut self, now: Instant, way: &Way, key: crate::ids::KeyId) -> usize {
        let id = LaneId { upstream: Arc::clone(&way.upstream), key };
        if let Some(index) = self.lanes.iter().position(|lane| lane.id == id) {
            let lane = &mut self.lanes[index];
            lane.allowance.reconfigure(now, way.quota);
            lane.in_use = true;
            return index;
        }
        let allowance = Allowance::new(way.quota);
        self.lanes.push(Lane { id, allowance, floors: Floors::default(), waiting: 0, in_use: true });
        self.lanes.len() - 1
    }

    pub(super) fn close(&mut self) {
        self.closed = true;
        for line in std::mem::take(&mut self.lines) {
            line.lanes.iter().for_each(|&lane| self.lanes[lane].waiting = 0);
            for (class, _, waiting) in line.into_waiting() {
                self.forget(class, &waiting);
                drop(waiting.tell.send(Err(Refusal::ShuttingDown)));
            }
        }
    }

    /// The lane of a request that is not counted: the first that serves the model.
    pub(super) fn exempt(&self, model: Option<&str>) -> Result<LaneId, Refusal> {
        let mut lanes = self.serving(model)?.flat_map(|(_, lanes)| lanes);
        lanes.next().map(|&lane| self.lanes[lane].id.clone()).ok_or(Refusal::NoUpstream { model: None })
    }

    /// A permit, where nobody waits for the lane: of the first upstream that has one, and of its keys from the fullest.
    pub(super) fn take_if_idle(
        &mut self,
        shared: &Arc<Shared>,
        now: Instant,
        model: Option<&str>,
    ) -> Result<Option<Permit>, Refusal> {
        if self.closed {
            return Err(Refusal::ShuttingDown);
        }
        let mut served = false;
        for (way, keys) in &self.ways {
            if !(way.serves)(model) {
                continue;
            }
            served = true;
            let lanes = &mut self.lanes;
            let fullest = (keys.len() > 1).then(|| fullest(lanes, keys, now)).flatten();
            for &index in fullest.iter().chain(keys) {
                let lane = &mut lanes[index];
                if lane.waiting == 0 && lane.allowance.take(now, Backlog::Empty).is_ok() {
                    return Ok(Some(Permit::new(shared, index, lane.id.clone())));
                }
            }
        }
        if served { Ok(None) } else { Err(no_upstream(model)) }
    }

    /// Whether one more may wait.
    pub(super) fn room_for(&self, bytes: u64) -> Result<(), Refusal> {
        let waiting: u32 = self.waiting.iter().sum();
        if usize::try_from(waiting).unwrap_or(usize::MAX) >= self.bounds.queue_max {
            return Err(full(Full::Calls(self.bounds.queue_max)));
        }
        if self.bytes.saturating_add(bytes) > self.bounds.queue_bytes_max {
            return Err(full(Full::Bytes(self.bounds.queue_bytes_max)));
        }
        Ok(())
    }

    pub(super) fn line_up(&mut self, class: Priority, arrival: u64, waiting: Waiting) -> Result<(), Refusal> {
        if self.closed {
            return Err(Refusal::ShuttingDown);
        }
        let line = self.line_for(waiting.model.as_deref())?;
        self.insert(line, class, arrival, waiting);
        Ok(())
    }

    /// A call leaves the line, if it is still in it.
    pub(super) fn leave(&mut self, class: Priority, arrival: u64) {
        for line in 0..self.lines.len() {
            if self.remove(line, class, arrival).is_some() {
                return;
            }
        }
    }

    /// Grants all that can be granted now; says when the next could be.
    pub(super) fn dispatch(&mut self, shared: &Arc<Shared>, now: Instant) -> Option<Instant> {
        let mut next: Option<Instant> = None;
        for index in 0..self.lanes.len() {
            while self.lanes[index].waiting > 0 {
                match self.lanes[index].allowance.take(now, Backlog::Waiting) {
                    Ok(()) => self.grant(shared, index, now),
                    Err(Ready::At(at)) => {
                        next = Some(next.map_or(at, |sooner| sooner.min(at)));
                        break;
                    }
                    Err(Ready::Now | Ready::OnRelease) => break,
                }
            }
        }
        next
    }

    /// A permit came back unused: it serves the next in line, or everything returns.
    pub(super) fn hand_over(&mut self, shared: &Arc<Shared>, index: usize, now: Instant) {
        let lane = &mut self.lanes[index];
        if lane.in_use && lane.waiting > 0 && lane.allowance.holds(now) {
            self.grant(shared, index, now);
        } else {
            lane.allowance.refund(now);
        }
    }

    /// Gives a permit that was taken from lane `index` to the best call that waits for it.
    fn grant(&mut self, shared: &Arc<Shared>, index: usize, now: Instant) {
        while let Some(waiting) = self.next_for(index) {
            let permit = Permit::new(shared, index, self.lanes[index].id.clone());
            match waiting.tell.send(Ok(permit)) {
                Ok(()) => return,
                Err(unheard) => {
                    if let Ok(permit) = unheard {
                        permit.defuse();
                    }
                }
            }
        }
        self.lanes[index].allowance.refund(now);
    }

    /// Takes the best call out of the lines that a lane serves.
    fn next_for(&mut self, index: usize) -> Option<Waiting> {
        let serving = |lines: &[Line], class| {
            let lines = lines.iter().enumerate().filter(|(_, line)| line.lanes.contains(&index));
            lines.filter_map(|(number, line)| line.first(class).map(|arrival| (arrival, number))).min()
        };
        let firsts = Priority::ALL.map(|class| serving(&self.lines, class));
        let class = self.lanes[index].floors.choose(firsts.map(|first| first.is_some()), &self.bounds.floors)?;
        let (arrival, line) = firsts[class as usize]?;
        self.remove(line, class, arrival)
    }

    fn insert(&mut self, line: usize, class: Priority, arrival: u64, waiting: Waiting) {
        self.waiting[class as usize] += 1;
        self.bytes += waiting.bytes;
        for &lane in &self.lines[line].lanes {
            self.lanes[lane].waiting += 1;
        }
        self.lines[line].insert(class, arrival, waiting);
    }

    fn remove(&mut self, line: usize, class: Priority, arrival: u64) -> Option<Waiting> {
        let waiting = self.lines[line].remove(class, arrival)?;
        for &lane in &self.lines[line].lanes {
            self.lanes[lane].waiting -= 1;
        }
        self.forget(class, &waiting);
        Some(waiting)
    }

    fn forget(&mut self, class: Priority, waiting: &Waiting) {
        self.waiting[class as usize] -= 1;
        self.bytes -= waiting.bytes;
    }

    /// The line of the calls that all upstreams which serve `model` can serve.
    fn line_for(&mut self, model: Option<&str>) -> Result<usize, Refusal> {
        let lanes: Vec<usize> = self.serving(model)?.flat_map(|(_, lanes)| lanes.iter().copied()).collect();
        if let Some(line) = self.lines.iter().position(|line| line.lanes == lanes) {
            return Ok(line);
        }
        self.lines.push(Line::new(lanes));
        Ok(self.lines.len() - 1)
    }

    fn serving(&self, model: Option<&str>) -> Result<impl Iterator<Item = &(Way, Vec<usize>)>, Refusal> {
        let mut ways = self.ways.iter().filter(move |(way, _)| (way.serves)(model)).peekable();
        if ways.peek().is_some() { Ok(ways) } else { Err(no_upstream(model)) }
    }

    pub(super) fn snapshot(&mut self, now: Instant) -> Snapshot {
        let lanes = self.lanes.iter_mut().filter(|lane| lane.in_use);
        Snapshot {
            waiting: self.waiting,
            bytes: self.bytes,
            lanes: lanes.map(|lane| (lane.id.clone(), lane.allowance.usage(now))).collect(),
        }
    }
}

/// Of several keys the one with the largest share of its allowance left.
fn fullest(lanes: &mut [Lane], keys: &[usize], now: Instant) -> Option<usize> {
    let shares = keys.iter().map(|&key| (key, lanes[key].allowance.share_left(now)));
    shares
        .fold(None, |best, (key, share)| match best {
            Some((_, most)) if most >= share => best,
            Some(_) | None => Some((key, share)),
        })
        .map(|(key, _)| key)
}

fn full(full: Full) -> Refusal {
    Refusal::QueueFull { full, retry_after: crate::time::Duration::from_secs(10) }
}

fn no_upstream(model: Option<&str>) -> Refusal {
    Refusal::NoUpstream { model: model.map(str::to_owned) }
}
