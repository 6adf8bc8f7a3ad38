//! The decision: which call gets the permit that can exist now.
//!
//! A lane that has one asks its classes, of those that wait and can have a slot; the class asks its clients, of those
//! whose own limits have room; the client sends its first. Nothing here looks at more than one call of each client, so
//! the cost does not depend on how many wait. A client whose own limits are reached stands aside with all its calls, and
//! is looked at again when they have room.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::choice::Choice;
use super::clients::ClientNumber;
use super::fair::Tag;
use super::line::{Line, Turn};
use super::permit::Held;
use super::settings::OnLimit;
use super::state::State;
use super::timers::Wake;
use super::{Permit, Refusal, Shared};
use crate::limits::{Ask, Backlog, Dimension, Ready, Taken};
use crate::time::Instant;
use crate::units::Priority;

/// Why a permit cannot be taken now.
#[derive(Debug)]
pub(super) enum Missing {
    /// The lane has none.
    Lane(Ready),
    /// The client's own limits are reached.
    Own(Ready),
}

/// The call that goes next.
#[derive(Debug, Clone, Copy)]
struct Next {
    line: usize,
    class: Priority,
    turn: Turn,
}

impl State {
    /// Looks at all lanes: after what may have changed any of them.
    pub(super) fn dispatch_all(&mut self, shared: &Arc<Shared>, now: Instant) {
        let lanes: Vec<usize> = self.lanes.iter().map(|(index, _)| index).collect();
        for lane in lanes {
            self.dispatch(shared, now, lane, Backlog::Waiting);
        }
    }

    /// Looks at what is due.
    pub(super) fn dispatch_due(&mut self, shared: &Arc<Shared>, now: Instant) {
        while let Some(wake) = self.timers.due(now) {
            match wake {
                Wake::Lane(lane) => {
                    if let Some(known) = self.lanes.get_mut(lane) {
                        known.wake = None;
                    }
                    self.dispatch(shared, now, lane, Backlog::Waiting);
                }
                Wake::Client(client) => {
                    if let Some(known) = self.clients.of(client) {
                        known.wake = None;
                    }
                    self.unpark(shared, now, client);
                }
            }
        }
    }

    /// Grants all that a lane can grant now, and sets its timer for the next. `first`: how the first of them is paced;
    /// one that replaces a permit that came back takes its place.
    pub(super) fn dispatch(&mut self, shared: &Arc<Shared>, now: Instant, lane: usize, first: Backlog) {
        let mut backlog = first;
        let next = loop {
            let Some(known) = self.lanes.get_mut(lane).filter(|lane| lane.is_open() && lane.is_wanted()) else {
                break Ready::OnRelease;
            };
            let breaker = self.breakers.ready(known.breaker, now);
            if breaker == Ready::OnRelease {
                break breaker;
            }
            let opens = breaker.and(known.allowance.opens(now, backlog));
            if opens != Ready::Now {
                break opens;
            }
            let next = match self.next_for(now, lane) {
                Ok(next) => next,
                Err(ready) => break ready,
            };
            let Next { line, class, turn: Turn { client, arrival, .. } } = next;
            let Some(waiting) = self.lines.get(line).and_then(|line| line.class(class).call(client, arrival)) else {
                break Ready::OnRelease;
            };
            let (ask, has_own) = (Ask { class, tokens: waiting.tokens.tokens() }, waiting.own.is_some());
            let choice = waiting.choice.clone();
            match self.take(shared, now, (lane, client), (ask, choice.as_deref()), backlog, has_own) {
                Ok(permit) => self.grant(now, lane, next, permit),
                Err(Missing::Own(ready)) => self.park(client, ready),
                Err(Missing::Lane(ready)) => break ready,
            }
            backlog = Backlog::Waiting;
        };
        let at = if let Ready::At(at) = next { Some(at) } else { None };
        if let Some(known) = self.lanes.get_mut(lane) {
            if !known.is_wanted() {
                known.allowance.nobody_waits();
            }
            self.timers.set(Wake::Lane(lane), &mut known.wake, at);
        }
    }

    /// Takes all that a permit needs, of the lane and of the client's own limits, or nothing. `has_own`: its call has the
    /// client's part already.
    pub(super) fn take(
        &mut self,
        shared: &Arc<Shared>,
        now: Instant,
        (lane, client): (usize, ClientNumber),
        (ask, choice): (Ask, Option<&Choice>),
        backlog: Backlog,
        has_own: bool,
    ) -> Result<Permit, Missing> {
        let (Some(known), Some(whose)) = (self.lanes.get_mut(lane), self.clients.of(client)) else {
            return Err(Missing::Lane(Ready::OnRelease));
        };
        match self.breakers.ready(known.breaker, now) {
            Ready::Now => {}
            missing @ (Ready::At(_) | Ready::OnRelease) => return Err(Missing::Lane(missing)),
        }
        let mut own = whose.own.as_mut();
        if let Some(own) = own.as_mut().filter(|_| !has_own) {
            match own.ready(now, ask, Backlog::Empty) {
                Ready::Now => {}
                missing @ (Ready::At(_) | Ready::OnRelease) => return Err(Missing::Own(missing)),
            }
        }
        let taken = known.allowance.take(now, ask, backlog).map_err(Missing::Lane)?;
        let of_own = match &mut own {
            Some(own) if !has_own => own.take(now, ask, Backlog::Empty).ok(), // seen to be ready
            Some(_) | None => None,
        };
        whose.granted();
        let pass = self.breakers.take(known.breaker, now);
        Ok(Permit::new(
            shared,
            known.next_id(now, choice),
            Held {
                lane,
                client,
                is_probe: taken.is_probe() || pass.is_some_and(|pass| pass.is_probe),
                taken,
                own: of_own,
                key: known.id.key,
                pass,
            },
        ))
    }

    /// The client's part of its own limits, for a call that is to wait in line, where the client wants to be refused
    /// rather than to wait for them.
    pub(super) fn reserve_own(
        &mut self,
        now: Instant,
        client: ClientNumber,
        ask: Ask,
    ) -> Result<Option<Taken>, Refusal> {
        let Some(whose) = self.clients.of(client).filter(|client| client.on_limit == OnLimit::Refuse) else {
            return Ok(None);
        };
        let Some(own) = &mut whose.own else { return Ok(None) };
        own.take(now, ask, Backlog::Empty).map(Some).map_err(|ready| {
            let (dimension, limit) = own.lacks(now, ask).unwrap_or((Dimension::Requests, 0));
            let retry_after = if let Ready::At(at) = ready { Some(at.saturating_duration_since(now)) } else { None };
            Refusal::LimitExceeded { dimension, limit, retry_after }
        })
    }

    /// The best call for a lane, of the class whose permit it is.
    fn next_for(&mut self, now: Instant, lane: usize) -> Result<Next, Ready> {
        let Some(known) = self.lanes.get_mut(lane) else { return Err(Ready::OnRelease) };
        let waiting = known.waiting.map(|count| count > 0);
        let slots = Priority::ALL.map(|class| match waiting[class as usize] {
            true => known.allowance.slot_ready(now, class),
            false => Ready::OnRelease,
        });
        let Some(class) = known.floors.next(waiting, slots.map(|ready| ready == Ready::Now), &self.bounds.floors)
        else {
            return Err(slots.into_iter().reduce(Ready::or).unwrap_or(Ready::OnRelease));
        };
        let mut best: Option<(usize, Next)> = None;
        for &line in &known.lines {
            let Some(waits) = self.lines.get(line) else { continue };
            let Some(turn) = waits.class(class).first() else { continue };
            // Tags are of one virtual time only; between two, who came first goes first.
            let is_better = best.is_none_or(|(domain, best)| match domain == waits.domain() {
                true => turn < best.turn,
                false => turn.arrival < best.turn.arrival,
            });
            if is_better {
                best = Some((waits.domain(), Next { line, class, turn }));
            }
        }
        let Some((_, next)) = best else { return Err(Ready::OnRelease) };
        let is_probe = known.allowance.is_probing() || !self.breakers.is_closed(known.breaker);
        Ok(if is_probe { self.least_at_risk(lane, next) } else { next })
    }

    /// Who probes for all: where the next in line had better not, the first of its class that may. It looks at all of them,
    /// and that is seldom.
    fn least_at_risk(&self, lane: usize, next: Next) -> Next {
        let Next { line, class, turn } = next;
        let call = self.lines.get(line).and_then(|line| line.class(class).call(turn.client, turn.arrival));
        let (Some(call), Some(lane)) = (call, self.lanes.get(lane)) else { return next };
        let mut best = (call.risk, next);
        for &line in &lane.lines {
            let least = self.lines.get(line).and_then(|line| line.class(class).least_at_risk());
            if let Some((risk, turn)) = least.filter(|(risk, _)| *risk < best.0) {
                best = (risk, Next { line, class, turn });
            }
        }
        best.1
    }

    /// Gives a permit to the call it was taken for.
    fn grant(&mut self, now: Instant, lane: usize, next: Next, mut permit: Permit) {
        let Next { line, class, turn: Turn { tag, client, arrival } } = next;
        if let Some(known) = self.lanes.get_mut(lane) {
            let waiting = known.waiting.map(|count| count > 0);
            known.floors.grant(waiting, class, &self.bounds.floors);
        }
        self.serve(line, class, client, tag);
        let Some(waiting) = self.remove(arrival) else {
            if let Some(held) = permit.into_held() {
                self.give_back(now, held);
            }
            return;
        };
        permit.hold_own(waiting.own);
        // Nobody leaves without taking the call out of line first; if it did, the permit would serve the next.
        if let Err(Ok(permit)) = waiting.tell.send(Ok(permit))
            && let Some(held) = permit.into_held()
        {
            self.give_back(now, held);
        }
    }

    /// Moves a client on in its class, in all lines that share its virtual time.
    fn serve(&mut self, line: usize, class: Priority, client: ClientNumber, tag: Tag) {
        let Some(domain) = self.lines.get(line).map(Line::domain) else { return };
        let weight = self.clients.weight(client);
        let Some(lane) = self.lanes.get_mut(domain) else { return };
        let next = lane.fair[class as usize].serve(client, tag, weight);
        for &other in &lane.lines {
            if let Some(line) = self.lines.get_mut(other).filter(|line| line.domain() == domain) {
                line.class_mut(class).reorder(client, Some(next));
            }
        }
    }

    /// A client whose own limits are reached need not be asked before they have room.
    pub(super) fn park_if_over(&mut self, now: Instant, client: ClientNumber, ask: Ask) {
        let own = self.clients.of(client).filter(|client| !client.is_parked).and_then(|client| client.own.as_mut());
        match own.map_or(Ready::Now, |own| own.ready(now, ask, Backlog::Empty)) {
            Ready::Now => {}
            ready @ (Ready::At(_) | Ready::OnRelease) => self.park(client, ready),
        }
    }

    /// A client's calls stand aside until its own limits have room.
    fn park(&mut self, client: ClientNumber, ready: Ready) {
        let Some(whose) = self.clients.of(client) else { return };
        whose.is_parked = true;
        let at = if let Ready::At(at) = ready { Some(at) } else { None };
        self.timers.set(Wake::Client(client), &mut whose.wake, at);
        for (line, class) in whose.places.clone() {
            self.stand(line, class, client, None);
        }
    }

    /// A client whose calls stand aside is looked at again.
    pub(super) fn unpark(&mut self, shared: &Arc<Shared>, now: Instant, client: ClientNumber) {
        for lane in self.rejoin(client) {
            self.dispatch(shared, now, lane, Backlog::Waiting);
        }
    }

    /// Has all calls of a client that stands aside in line again. Says which lanes can serve them: those are to be looked
    /// at.
    pub(super) fn rejoin(&mut self, client: ClientNumber) -> BTreeSet<usize> {
        let mut lanes = BTreeSet::new();
        let Some(whose) = self.clients.of(client).filter(|client| client.is_parked) else { return lanes };
        whose.is_parked = false;
        self.timers.set(Wake::Client(client), &mut whose.wake, None);
        for (line, class) in whose.places.clone() {
            let Some(waits) = self.lines.get(line) else { continue };
            lanes.extend(&waits.lanes);
            let tag = self.lanes.get(waits.domain()).map(|lane| lane.fair[class as usize].tag(client));
            self.stand(line, class, client, tag);
        }
        lanes
    }

    /// Has a client's calls in one place stand aside (`None`), or in line.
    fn stand(&mut self, line: usize, class: Priority, client: ClientNumber, tag: Option<Tag>) {
        let Some(waits) = self.lines.get_mut(line) else { return };
        let calls = u32::try_from(waits.class(class).len_of(client)).unwrap_or(u32::MAX);
        waits.class_mut(class).reorder(client, tag);
        for &lane in &waits.lanes {
            if let Some(lane) = self.lanes.get_mut(lane) {
                let waiting = &mut lane.waiting[class as usize];
                *waiting = if tag.is_some() { waiting.saturating_add(calls) } else { waiting.saturating_sub(calls) };
            }
        }
    }
}
