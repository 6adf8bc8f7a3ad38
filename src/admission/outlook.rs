//! How long it will take: the position of each waiting call in the order of service, and the time until its turn.
//!
//! Nobody is looked at who waits behind. Inside a client it is its rank; between clients the virtual times say how many
//! calls of each go before it; between classes the floors do; and the lane says when its n-th permit from now can exist.
//! What cannot be known is left out: who will leave, and who will come.

use std::sync::Arc;

use super::clients::ClientNumber;
use super::fair::stride;
use super::state::{Spot, State};
use super::{Demand, Refusal, Shared};
use crate::answer::Outlook;
use crate::time::{Duration, Instant};
use crate::units::Priority;

/// A call in line, or one that is about to be.
#[derive(Debug, Clone, Copy)]
struct Stand<'a> {
    lanes: &'a [usize],
    class: Priority,
    client: ClientNumber,
    arrival: u64,
    /// How many of its client's calls go before it, in its line.
    rank: usize,
    /// Whether it needs a part of its client's own limits.
    needs_own: bool,
}

impl Shared {
    /// Where a call stands, by its number of arrival.
    pub(super) fn outlook(self: &Arc<Self>, arrival: u64) -> Option<Outlook> {
        self.state.lock().outlook(crate::time::now(), arrival)
    }
}

impl State {
    fn outlook(&mut self, now: Instant, arrival: u64) -> Option<Outlook> {
        let Spot { line, class, client } = *self.spots.get(&arrival)?;
        let line = self.lines.get(line)?;
        let rank = line.class(class).rank(client, arrival);
        let needs_own = line.class(class).nth(client, rank).is_none_or(|(_, waiting)| waiting.own.is_none());
        let lanes = line.lanes.clone();
        Some(self.look(now, Stand { lanes: &lanes, class, client, arrival, rank, needs_own }))
    }

    /// Whether a call that lines up now can have its turn before its deadline, as far as anybody can tell.
    pub(super) fn in_time(
        &mut self,
        now: Instant,
        lanes: &[usize],
        (client, needs_own): (ClientNumber, bool),
        demand: &Demand,
        arrival: u64,
    ) -> Result<(), Refusal> {
        let left = demand.deadline.saturating_duration_since(now);
        if self.is_surely_in_time(now, lanes, client, now + left) {
            return Ok(());
        }
        let class = demand.priority;
        let rank = self.line_of(lanes).map_or(0, |line| line.class(class).rank(client, arrival));
        let stand = Stand { lanes, class, client, arrival, rank, needs_own };
        match self.look(now, stand).eta {
            Some(turn) if turn > left => Err(Refusal::DeadlineUnreachable { turn: Some(turn), left }),
            Some(_) | None => Ok(()),
        }
    }

    /// Nearly always there is time even for who goes last, which costs less to know.
    fn is_surely_in_time(&mut self, now: Instant, lanes: &[usize], client: ClientNumber, deadline: Instant) -> bool {
        let waiting: u32 = self.totals().0.iter().sum();
        let has_own = self.clients.of(client).is_some_and(|client| client.own.is_some());
        let first = lanes.first().and_then(|lane| self.lanes.get_mut(*lane)).filter(|lane| lane.is_open());
        let last = first.map(|lane| {
            let not_before = self.breakers.open_until(lane.breaker).unwrap_or(now);
            lane.allowance.nth_permit_at_last(now, not_before, waiting.saturating_add(1))
        });
        !has_own && last.is_some_and(|last| last <= deadline)
    }

    fn look(&mut self, now: Instant, stand: Stand<'_>) -> Outlook {
        let position = self.position(stand);
        let nth = u32::try_from(stand.rank).unwrap_or(u32::MAX).saturating_add(1);
        let own = stand.needs_own.then_some((stand.client, nth));
        Outlook { position, eta: self.expected_with_own(now, stand.lanes, position, own) }
    }

    /// When the `position`-th permit of these lanes can be expected, and the n-th of a client by its own limits.
    pub(super) fn expected_with_own(
        &mut self,
        now: Instant,
        lanes: &[usize],
        position: u32,
        own: Option<(ClientNumber, u32)>,
    ) -> Option<Duration> {
        let lane = self.expected_after(now, lanes, position)?;
        let own = own.and_then(|(client, nth)| Some((self.clients.own_of(client)?, nth)));
        Some(own.map_or(lane, |(own, nth)| lane.max(own.nth_permit(now, now, nth).saturating_duration_since(now))))
    }

    /// Its place in the order of service, from 1.
    fn position(&self, stand: Stand<'_>) -> u32 {
        let Some(lane) = stand.lanes.first().and_then(|lane| self.lanes.get(*lane)) else { return 1 };
        let class = stand.class as usize;
        let weight = self.clients.weight(stand.client);
        let moved = stride(weight).saturating_mul(u64::try_from(stand.rank).unwrap_or(u64::MAX));
        let due = lane.fair[class].tag(stand.client).saturating_add(moved);
        let mut waiting = [0_u32; 3];
        let mut ahead = u32::try_from(stand.rank).unwrap_or(u32::MAX);
        for line in self.lines_beside(stand.lanes) {
            for class in Priority::ALL {
                waiting[class as usize] = waiting[class as usize].saturating_add(line.class(class).len_in_line());
            }
            let queues = line.class(stand.class);
            for turn in queues.turns() {
                if turn.tag > due {
                    break;
                }
                if turn.client == stand.client {
                    continue;
                }
                let (step, len) = (stride(self.clients.weight(turn.client)), queues.len_of(turn.client));
                let before = usize::try_from((due - turn.tag).div_ceil(step)).unwrap_or(usize::MAX);
                // At equal times who came first goes first.
                let level = (due - turn.tag).is_multiple_of(step)
                    && queues.nth(turn.client, before).is_some_and(|(arrival, _)| arrival < stand.arrival);
                let before = before.saturating_add(usize::from(level)).min(len);
                ahead = ahead.saturating_add(u32::try_from(before).unwrap_or(u32::MAX));
            }
        }
        lane.floors.position(stand.class, ahead, waiting, &self.bounds.floors)
    }

    /// When the `n`-th permit from now, from 1, of any of these lanes can be expected; `None`: all of them are paused.
    pub(super) fn expected_after(&mut self, now: Instant, lanes: &[usize], n: u32) -> Option<Duration> {
        let open = |lane: &&usize| self.lanes.get(**lane).is_some_and(super::lane::Lane::is_open);
        let open: Vec<usize> = lanes.iter().filter(open).copied().collect();
        if let [lane] = open[..] {
            return Some(self.nth_permit(now, lane, n)?.saturating_duration_since(now));
        }
        // As many lanes share the permits as make it soonest, those first that have one first.
        let mut firsts: Vec<(Instant, usize)> = Vec::new();
        for lane in open {
            firsts.push((self.nth_permit(now, lane, 1)?, lane));
        }
        firsts.sort_unstable();
        let mut soonest: Option<Instant> = None;
        for (index, (first, _)) in firsts.iter().enumerate() {
            // Of many lanes not every number of them is tried.
            if index > 3 && !(index + 1).is_power_of_two() && index + 1 < firsts.len() {
                continue;
            }
            if soonest.is_some_and(|soonest| *first >= soonest) {
                break;
            }
            let share = n.div_ceil(u32::try_from(index + 1).unwrap_or(u32::MAX));
            let mut last = now;
            for (_, lane) in &firsts[..=index] {
                last = last.max(self.nth_permit(now, *lane, share)?);
            }
            soonest = Some(soonest.map_or(last, |soonest| soonest.min(last)));
        }
        soonest.map(|soonest| soonest.saturating_duration_since(now))
    }

    fn nth_permit(&mut self, now: Instant, lane: usize, n: u32) -> Option<Instant> {
        let lane = self.lanes.get_mut(lane)?;
        let not_before = self.breakers.open_until(lane.breaker).unwrap_or(now);
        Some(lane.allowance.nth_permit(now, not_before, n))
    }
}
