//! What follows from how a permit was used: written, refused, accepted, ended, or given back.

use std::sync::Arc;

use super::clients::ClientNumber;
use super::permit::Held;
use super::standing::standing;
use super::state::State;
use super::{Demand, Shared};
use crate::answer::Standing;
use crate::limits::Backlog;
use crate::limits::learned::{Saved, Signal};
use crate::openai::RateLimits;
use crate::time::{Duration, Instant};

impl State {
    /// A request is completely written.
    pub(super) fn stamp(&mut self, shared: &Arc<Shared>, now: Instant, held: &mut Held) {
        if let Some(lane) = self.lanes.get_mut(held.lane) {
            lane.allowance.stamp(now, &mut held.taken);
        }
        if let Some(own) = &mut held.own
            && let Some(allowance) = self.clients.own_of(held.client)
        {
            allowance.stamp(now, own);
            self.unpark(shared, now, held.client);
        }
        // What was pending has an end now.
        self.dispatch(shared, now, held.lane, Backlog::Waiting);
        let breaker = self.lanes.get(held.lane).map(|lane| lane.breaker);
        if let (Some(breaker), Some(pass)) = (breaker, held.pass)
            && self.breakers.written(breaker, now, pass)
        {
            // How long they wait for it at the most is known now.
            self.dispatch_beside(shared, now, held.lane);
        }
    }

    /// An exchange has ended. Says how long its slot cools.
    pub(super) fn release(&mut self, shared: &Arc<Shared>, now: Instant, held: Held, clean: bool) -> Duration {
        let lane = self.lanes.get_mut(held.lane);
        let cools = lane.map_or(Duration::ZERO, |lane| lane.allowance.release(now, &held.taken, clean));
        if let Some(client) = self.clients.of(held.client) {
            client.running = client.running.saturating_sub(1);
            if let (Some(own), Some(allowance)) = (held.own, &mut client.own) {
                allowance.release(now, &own, clean);
            }
        }
        self.unpark(shared, now, held.client);
        let was_probe = self.abandon(held.lane, held.pass);
        self.dispatch(shared, now, held.lane, Backlog::Waiting);
        if was_probe {
            self.dispatch_beside(shared, now, held.lane);
        }
        cools
    }

    /// A permit came back unused: the next in line goes at once, at its place in the pace, or everything returns.
    pub(super) fn hand_over(&mut self, shared: &Arc<Shared>, now: Instant, held: Held) {
        let Held { lane, client, .. } = held;
        let was_probe = self.give_back(now, held);
        // Its client may have stood aside for just what came back.
        let lanes = self.rejoin(client);
        self.dispatch(shared, now, lane, Backlog::Empty);
        if was_probe {
            self.dispatch_beside(shared, now, lane);
        }
        for other in lanes.into_iter().filter(|other| *other != lane) {
            self.dispatch(shared, now, other, Backlog::Waiting);
        }
    }

    /// Nothing of a permit was used. Says whether another one of its upstream can probe now.
    pub(super) fn give_back(&mut self, now: Instant, held: Held) -> bool {
        let was_probe = self.abandon(held.lane, held.pass);
        if let Some(lane) = self.lanes.get_mut(held.lane) {
            lane.allowance.refund(now, held.taken);
        }
        if let Some(client) = self.clients.of(held.client) {
            client.running = client.running.saturating_sub(1);
            if let (Some(own), Some(allowance)) = (held.own, &mut client.own) {
                allowance.refund(now, own);
            }
        }
        was_probe
    }

    /// A request was refused. Says until when its lane is closed, and what is to be remembered of it.
    pub(super) fn refused(
        &mut self,
        shared: &Arc<Shared>,
        now: Instant,
        held: &Held,
        signal: &Signal,
    ) -> Option<(Instant, Saved)> {
        let allowance = &mut self.lanes.get_mut(held.lane)?.allowance;
        let until = allowance.refused(now, &held.taken, signal);
        let learned = allowance.save_learned(now);
        self.turn_away_hopeless(shared, now, &[held.lane]);
        self.dispatch(shared, now, held.lane, Backlog::Waiting);
        Some((until, learned))
    }

    /// A request was accepted. Says what is to be remembered of it.
    pub(super) fn accepted(&mut self, shared: &Arc<Shared>, now: Instant, held: &Held) -> Option<Saved> {
        let allowance = &mut self.lanes.get_mut(held.lane)?.allowance;
        let learned = allowance.accepted(now, &held.taken).then(|| allowance.save_learned(now))?;
        self.dispatch(shared, now, held.lane, Backlog::Waiting);
        Some(learned)
    }

    /// An answer told of limits. Says what is to be remembered of it.
    pub(super) fn heard(
        &mut self,
        shared: &Arc<Shared>,
        now: Instant,
        held: &Held,
        limits: &RateLimits,
    ) -> Option<Saved> {
        let allowance = &mut self.lanes.get_mut(held.lane)?.allowance;
        let learned = allowance.heard(now, &held.taken, limits).then(|| allowance.save_learned(now));
        self.dispatch(shared, now, held.lane, Backlog::Waiting);
        learned
    }

    /// What is left, of the client's own limits where it has some.
    pub(super) fn standing(
        &mut self,
        now: Instant,
        client: ClientNumber,
        lane: Option<usize>,
    ) -> (Option<Standing>, Option<Standing>) {
        let own = self.clients.own_of(client);
        let own = own.map_or((None, None), |own| standing(own, now));
        let lane = lane.and_then(|lane| self.lanes.get_mut(lane));
        let lane = lane.map_or((None, None), |lane| standing(&mut lane.allowance, now));
        (own.0.or(lane.0), own.1.or(lane.1))
    }

    /// The same for a call that has no permit.
    pub(super) fn standing_of(&mut self, now: Instant, demand: &Demand) -> (Option<Standing>, Option<Standing>) {
        let lanes = self.ways.serving(&mut self.lanes, now, demand.wanted());
        let client = self.clients.key_of(&demand.client);
        self.standing(now, client, lanes.ok().and_then(|lanes| lanes.first().copied()))
    }

    pub(super) fn is_limited(&self, lane: usize) -> bool {
        self.lanes.get(lane).is_some_and(|lane| lane.allowance.is_limited())
    }
}
