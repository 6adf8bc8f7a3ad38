//! Who waits where: lines come with the first who waits for their lanes, and go with the last.

use super::clients::ClientNumber;
use super::line::{Line, Waiting};
use super::state::{Spot, State};
use super::timers::Timers;
use crate::units::Priority;

impl State {
    /// Puts a call in line.
    pub(super) fn insert(
        &mut self,
        lanes: Vec<usize>,
        class: Priority,
        client: ClientNumber,
        arrival: u64,
        waiting: Waiting,
    ) {
        self.waiting[class as usize] += 1;
        self.bytes += waiting.bytes;
        let index = self.line_for(lanes);
        self.spots.insert(arrival, Spot { line: index, class, client });
        let Some(known) = self.clients.of(client) else { return };
        known.waiting[class as usize] += 1;
        let parked = known.is_parked;
        let Some(line) = self.lines.get_mut(index) else { return };
        let domain = line.domain();
        let tag = self.lanes.get(domain).map(|lane| lane.fair[class as usize].tag(client)).filter(|_| !parked);
        if line.class_mut(class).insert(client, arrival, waiting, tag) {
            known.places.push((index, class));
        }
        if !parked {
            for &lane in &line.lanes {
                if let Some(lane) = self.lanes.get_mut(lane) {
                    lane.waiting[class as usize] += 1;
                }
            }
        }
    }

    /// Takes a call out of its line.
    pub(super) fn remove(&mut self, arrival: u64) -> Option<Waiting> {
        let Spot { line: index, class, client } = self.spots.remove(&arrival)?;
        let line = self.lines.get_mut(index)?;
        let parked = line.class(class).is_parked(client);
        let removed = line.class_mut(class).remove(client, arrival)?;
        if !parked {
            for &lane in &line.lanes {
                if let Some(lane) = self.lanes.get_mut(lane) {
                    lane.waiting[class as usize] = lane.waiting[class as usize].saturating_sub(1);
                }
            }
        }
        if let Some(known) = self.clients.of(client) {
            known.waiting[class as usize] = known.waiting[class as usize].saturating_sub(1);
            if removed.was_last {
                known.places.retain(|place| *place != (index, class));
            }
        }
        if line.is_empty() {
            self.forget_line(index);
        }
        self.waiting[class as usize] = self.waiting[class as usize].saturating_sub(1);
        self.bytes = self.bytes.saturating_sub(removed.waiting.bytes);
        Some(removed.waiting)
    }

    /// The line of those who wait for just these lanes, if anybody does.
    pub(super) fn line_of(&self, lanes: &[usize]) -> Option<&Line> {
        self.line_by_lanes.get(lanes).and_then(|line| self.lines.get(*line))
    }

    /// The lines that some of these lanes serve, each once.
    pub(super) fn lines_beside(&self, lanes: &[usize]) -> impl Iterator<Item = &Line> {
        let mut lines: Vec<usize> =
            lanes.iter().filter_map(|lane| self.lanes.get(*lane)).flat_map(|lane| lane.lines.iter().copied()).collect();
        lines.sort_unstable();
        lines.dedup();
        lines.into_iter().filter_map(|line| self.lines.get(line))
    }

    fn line_for(&mut self, lanes: Vec<usize>) -> usize {
        if let Some(line) = self.line_by_lanes.get(&lanes) {
            return *line;
        }
        let index = self.lines.insert(Line::new(lanes.clone()));
        for &lane in &lanes {
            if let Some(lane) = self.lanes.get_mut(lane) {
                lane.lines.push(index);
            }
        }
        self.line_by_lanes.insert(lanes, index);
        index
    }

    fn forget_line(&mut self, index: usize) {
        let line = self.lines.remove(index);
        for &lane in &line.lanes {
            if let Some(lane) = self.lanes.get_mut(lane) {
                lane.lines.retain(|other| *other != index);
            }
        }
        self.line_by_lanes.remove(&line.lanes);
    }

    /// Empties all lines; who was in them, in the order of arrival.
    pub(super) fn take_all_waiting(&mut self) -> Vec<(Priority, ClientNumber, u64, Waiting)> {
        let lines = std::mem::take(&mut self.lines);
        let mut waiting: Vec<_> = lines.into_iter().flat_map(|(_, line)| line.into_waiting()).collect();
        waiting.sort_unstable_by_key(|(_, _, arrival, _)| *arrival);
        for (_, lane) in &mut self.lanes {
            lane.lines.clear();
            lane.waiting = [0; 3];
        }
        self.line_by_lanes.clear();
        self.spots.clear();
        self.clients.forget_places();
        self.timers = Timers::default();
        self.lanes.iter_mut().for_each(|(_, lane)| lane.wake = None);
        (self.waiting, self.bytes) = ([0; 3], 0);
        waiting
    }
}
