//! Who waits in vain is told so before its deadline.

use std::sync::Arc;

use super::line::Line;
use super::state::{Spot, State};
use super::{Refusal, Shared};
use crate::time::{Duration, Instant};
use crate::units::Priority;

/// Who waits is looked through only when a lane is closed for longer.
const HOPELESS_FROM: Duration = Duration::from_secs(10);

impl State {
    /// Lanes are closed: who waits for none but such, and not until the first of them opens, is told so at once. That
    /// looks at all who wait for them, but then there is nothing else to do.
    pub(super) fn turn_away_hopeless(&mut self, shared: &Arc<Shared>, now: Instant, lanes: &[usize]) {
        let opens = |line: &Line| line.lanes.iter().filter_map(|lane| self.opens(now, *lane)).min();
        let closed = self.lines_beside(lanes).filter_map(|line| Some((line, opens(line)?)));
        let hopeless: Vec<_> = closed
            .filter(|(_, opens)| *opens >= now + HOPELESS_FROM)
            .flat_map(|(line, opens)| {
                let arrivals =
                    Priority::ALL.into_iter().flat_map(move |class| line.class(class).arrivals_before(opens));
                arrivals.map(move |arrival| (arrival, opens))
            })
            .collect();
        for (arrival, opens) in hopeless {
            let Some(Spot { client, .. }) = self.spots.get(&arrival).copied() else { continue };
            if let Some(waiting) = self.remove(arrival) {
                let left = waiting.deadline.saturating_duration_since(now);
                let turn = Some(opens.saturating_duration_since(now));
                self.turn_away(now, client, waiting, Refusal::DeadlineUnreachable { turn, left });
                self.unpark(shared, now, client);
            }
        }
    }

    /// When a lane may grant again that is closed, or at once; `None`: nobody can tell.
    fn opens(&self, now: Instant, lane: usize) -> Option<Instant> {
        let lane = self.lanes.get(lane).filter(|lane| lane.is_open())?;
        let closed = lane.allowance.closed_until().max(self.breakers.open_until(lane.breaker));
        Some(closed.map_or(now, |until| until.max(now)))
    }
}
