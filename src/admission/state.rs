//! All lanes, all lines, all clients: what changes, and what follows from it.

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::Arc;

use slab::Slab;
use tokio::sync::oneshot;

use super::breakers::Breakers;
use super::choice::{Avoids, Choice};
use super::clients::{ClientNumber, ClientQuota, Clients};
use super::floors::Shares;
use super::lane::Lane;
use super::line::{Line, Risk, Waiting};
use super::place::Asked;
use super::settings::OnLimit;
use super::timers::Timers;
use super::ways::Ways;
use super::{Caution, Demand, Full, Permit, Refusal, Shared, Snapshot, Way};
use crate::limits::journal::Recovered;
use crate::limits::{Ask, Backlog, Taken};
use crate::time::{Duration, Instant};
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

/// Where a waiting call is.
#[derive(Debug, Clone, Copy)]
pub(super) struct Spot {
    pub(super) line: usize,
    pub(super) class: Priority,
    pub(super) client: ClientNumber,
}

/// Everything behind the one lock.
#[derive(Debug)]
pub(super) struct State {
    pub(super) bounds: Bounds,
    pub(super) breakers: Breakers,
    pub(super) ways: Ways,
    pub(super) lanes: Slab<Lane>,
    /// None is empty.
    pub(super) lines: Slab<Line>,
    /// The line of those who wait for the same lanes.
    pub(super) line_by_lanes: HashMap<Vec<usize>, usize>,
    /// Where each call waits, by its number of arrival.
    pub(super) spots: HashMap<u64, Spot>,
    pub(super) clients: Clients,
    pub(super) timers: Timers,
    /// How many wait, by class.
    pub(super) waiting: [u32; 3],
    /// What their bodies hold.
    pub(super) bytes: u64,
    pub(super) closed: bool,
    /// When the timer will wake; `None`: not before it is told.
    pub(super) armed: Option<Instant>,
}

impl State {
    pub(super) fn new(bounds: Bounds, recovered: Recovered) -> Self {
        Self {
            bounds,
            breakers: Breakers::default(),
            ways: Ways::remembering(recovered),
            lanes: Slab::new(),
            lines: Slab::new(),
            line_by_lanes: HashMap::new(),
            spots: HashMap::new(),
            clients: Clients::default(),
            timers: Timers::default(),
            waiting: [0; 3],
            bytes: 0,
            closed: false,
            armed: None,
        }
    }

    pub(super) fn reconfigure(
        &mut self,
        shared: &Arc<Shared>,
        now: Instant,
        ways: Vec<Way>,
        clients: Vec<ClientQuota>,
        bounds: Bounds,
    ) {
        self.bounds = bounds;
        let waiting = self.take_all_waiting();
        self.breakers.reconfigure(ways.iter().map(|way| &way.upstream));
        self.ways.reconfigure(&mut self.lanes, now, ways);
        self.clients.reconfigure(now, clients);
        // Everybody who waits lines up again: other lanes may serve them now.
        for (class, client, arrival, mut waiting) in waiting {
            if let Err(refusal) = self.reserve_as_configured(now, client, class, &mut waiting) {
                self.turn_away(now, client, waiting, refusal);
                continue;
            }
            match self.ways.serving(&mut self.lanes, now, waiting.wanted()) {
                Ok(lanes) => self.insert(lanes, class, client, arrival, waiting),
                Err(refusal) => self.turn_away(now, client, waiting, refusal),
            }
        }
        self.dispatch_all(shared, now);
    }

    pub(super) fn set_caution(&mut self, shared: &Arc<Shared>, now: Instant, caution: Caution) {
        self.breakers.set_caution(now, caution);
        self.dispatch_all(shared, now);
    }

    pub(super) fn close(&mut self, now: Instant) {
        self.closed = true;
        for (_, client, _, waiting) in self.take_all_waiting() {
            self.turn_away(now, client, waiting, Refusal::ShuttingDown);
        }
    }

    /// A call wants to go: a permit at once, or a place in line.
    pub(super) fn ask(
        &mut self,
        shared: &Arc<Shared>,
        now: Instant,
        (demand, avoids): (&Demand, &Avoids),
        arrival: u64,
        admitted: bool,
    ) -> Result<Asked, Refusal> {
        if self.closed {
            return Err(Refusal::ShuttingDown);
        }
        if demand.exempt {
            let lane = self.ways.first(&self.lanes, now, &self.breakers, (demand.wanted(), avoids))?;
            return Ok(Asked::Granted(Permit::exempt(shared, lane)));
        }
        let lanes = self.ways.serving(&mut self.lanes, now, demand.wanted())?;
        let client = self.clients.key_of(&demand.client);
        let ask = Ask { class: demand.priority, tokens: demand.tokens.tokens() };
        let is_first = !self.has_waiting(&lanes, client, demand.priority);
        let preferred = self.preferred(&lanes, avoids);
        if is_first
            && let Some(permit) = self.take_if_idle(shared, now, &preferred, client, (ask, demand.choice.as_deref()))
        {
            return Ok(Asked::Granted(permit));
        }
        let own = self.reserve_own(now, client, ask)?;
        let needs_own = own.is_none();
        if let Err(refusal) = self.may_wait(now, &lanes, (client, needs_own), demand, (arrival, admitted)) {
            self.refund_own(now, client, own);
            return Err(refusal);
        }
        let (tell, told) = oneshot::channel();
        let waiting = Waiting {
            id: demand.id,
            key: demand.key,
            model: demand.model.clone(),
            choice: demand.choice.clone(),
            bytes: demand.bytes,
            tokens: demand.tokens.clone(),
            since: now,
            deadline: demand.deadline,
            risk: Risk { is_final: !demand.repeatable, has_failed: !avoids.is_empty() },
            own,
            tell,
        };
        let preferred = preferred.into_owned();
        self.insert(lanes, demand.priority, client, arrival, waiting);
        if needs_own && self.has_one_waiting(client) {
            self.park_if_over(now, client, ask);
        } else if is_first {
            // It may need less than the one for which its client stands aside.
            self.unpark(shared, now, client);
        }
        for lane in preferred {
            self.dispatch(shared, now, lane, Backlog::Waiting);
        }
        Ok(Asked::InLine(told))
    }

    /// The same lanes, last those on which the call has failed.
    fn preferred<'a>(&self, lanes: &'a [usize], avoids: &Avoids) -> Cow<'a, [usize]> {
        if avoids.is_empty() || lanes.len() == 1 {
            return Cow::Borrowed(lanes);
        }
        let has_failed = |lane: &usize| self.lanes.get(*lane).is_some_and(|lane| avoids.has(&lane.id));
        let (failed, others): (Vec<_>, Vec<_>) = lanes.iter().copied().partition(has_failed);
        Cow::Owned([others, failed].concat())
    }

    /// Whether a client has calls in this class that came before: they go first, also where they stand aside.
    fn has_waiting(&self, lanes: &[usize], client: ClientNumber, class: Priority) -> bool {
        self.line_of(lanes).is_some_and(|line| line.class(class).len_of(client) > 0)
    }

    /// A permit, where nobody waits for the lane whose turn can come.
    pub(super) fn take_if_idle(
        &mut self,
        shared: &Arc<Shared>,
        now: Instant,
        lanes: &[usize],
        client: ClientNumber,
        ask: (Ask, Option<&Choice>),
    ) -> Option<Permit> {
        let mut rest = lanes;
        while let Some(&first) = rest.first() {
            let upstream = self.lanes.get(first).map(|lane| Arc::clone(&lane.id.upstream));
            let is_key =
                |lane: &&usize| self.lanes.get(**lane).is_some_and(|lane| Some(&lane.id.upstream) == upstream.as_ref());
            let (keys, others) = rest.split_at(rest.iter().take_while(is_key).count().max(1));
            rest = others;
            // Of several keys of one upstream the fullest goes first.
            let fullest = if keys.len() > 1 { self.fullest(now, keys) } else { None };
            for &lane in fullest.iter().chain(keys) {
                let idle = self.lanes.get(lane).is_some_and(|lane| lane.is_open() && !lane.is_wanted());
                if idle && let Ok(permit) = self.take(shared, now, (lane, client), ask, Backlog::Empty, false) {
                    return Some(permit);
                }
            }
        }
        None
    }

    fn fullest(&mut self, now: Instant, keys: &[usize]) -> Option<usize> {
        let mut best: Option<(usize, f64)> = None;
        for &key in keys {
            let left = self.lanes.get_mut(key)?.allowance.share_left(now);
            if best.is_none_or(|(_, most)| left > most) {
                best = Some((key, left));
            }
        }
        best.map(|(key, _)| key)
    }

    /// Whether a call may wait, and there is hope for it.
    fn may_wait(
        &mut self,
        now: Instant,
        lanes: &[usize],
        client: (ClientNumber, bool),
        demand: &Demand,
        (arrival, admitted): (u64, bool),
    ) -> Result<(), Refusal> {
        if !admitted {
            self.room_for(now, demand.bytes, lanes)?;
        }
        self.in_time(now, lanes, client, demand, arrival)
    }

    fn has_one_waiting(&mut self, client: ClientNumber) -> bool {
        self.clients.of(client).is_some_and(|client| client.waiting.iter().sum::<u32>() == 1)
    }

    fn refund_own(&mut self, now: Instant, client: ClientNumber, own: Option<Taken>) {
        if let Some(own) = own
            && let Some(allowance) = self.clients.own_of(client)
        {
            allowance.refund(now, own);
        }
    }

    /// Of a client that is refused at its own limits every call in line has its part of them, of others none has: a
    /// client stands aside with all its calls, and those that have a part would wait for each other.
    fn reserve_as_configured(
        &mut self,
        now: Instant,
        client: ClientNumber,
        class: Priority,
        waiting: &mut Waiting,
    ) -> Result<(), Refusal> {
        if self.clients.of(client).is_some_and(|client| client.on_limit == OnLimit::Refuse) {
            if waiting.own.is_none() {
                waiting.own = self.reserve_own(now, client, Ask { class, tokens: waiting.tokens.tokens() })?;
            }
        } else {
            let own = waiting.own.take();
            self.refund_own(now, client, own);
        }
        Ok(())
    }

    /// Whether one more may wait.
    fn room_for(&mut self, now: Instant, bytes: u64, lanes: &[usize]) -> Result<(), Refusal> {
        let waiting: u32 = self.waiting.iter().sum();
        let full = if usize::try_from(waiting).unwrap_or(usize::MAX) >= self.bounds.queue_max {
            Full::Calls(self.bounds.queue_max)
        } else if self.bytes.saturating_add(bytes) > self.bounds.queue_bytes_max {
            Full::Bytes(self.bounds.queue_bytes_max)
        } else {
            return Ok(());
        };
        let retry_after = self.expected_after(now, lanes, 1).unwrap_or(LONG);
        Err(Refusal::QueueFull { full, retry_after })
    }

    /// A call leaves the line, if it is still in it.
    pub(super) fn leave(&mut self, shared: &Arc<Shared>, now: Instant, arrival: u64) {
        let Some(Spot { line, class, client }) = self.spots.get(&arrival).copied() else { return };
        let first = self.lines.get(line).and_then(|line| line.class(class).nth(client, 0));
        let was_first = first.is_some_and(|(first, _)| first == arrival);
        let lanes = self.lines.get(line).filter(|_| was_first).map(|line| line.lanes.clone());
        let Some(waiting) = self.remove(arrival) else { return };
        let had_own = waiting.own.is_some();
        self.refund_own(now, client, waiting.own);
        // What those behind it need may be there already.
        if had_own || was_first {
            self.unpark(shared, now, client);
        }
        for lane in lanes.into_iter().flatten() {
            self.dispatch(shared, now, lane, Backlog::Waiting);
        }
    }

    /// Pauses an upstream, or lets it go on.
    pub(super) fn pause(&mut self, shared: &Arc<Shared>, now: Instant, upstream: &str, paused: bool) -> bool {
        let known = self.ways.pause(&mut self.lanes, upstream, paused);
        self.dispatch_all(shared, now);
        known
    }

    pub(super) fn turn_away(&mut self, now: Instant, client: ClientNumber, waiting: Waiting, refusal: Refusal) {
        self.refund_own(now, client, waiting.own);
        // The receiver may have gone at this moment; then there is nobody to tell.
        drop(waiting.tell.send(Err(refusal)));
    }

    pub(super) fn snapshot(&mut self, now: Instant) -> Snapshot {
        let mut oldest = [Duration::ZERO; 3];
        for (_, line) in &self.lines {
            for class in Priority::ALL {
                let since = line.class(class).waiting().map(|waiting| waiting.since).min();
                let waited = since.map_or(Duration::ZERO, |since| now.saturating_duration_since(since));
                oldest[class as usize] = oldest[class as usize].max(waited);
            }
        }
        let lanes = self.lanes.iter_mut().map(|(_, lane)| lane).filter(|lane| lane.in_use);
        Snapshot {
            waiting: self.waiting,
            oldest,
            bytes: self.bytes,
            lanes: lanes.map(|lane| (lane.id.clone(), lane.allowance.usage(now))).collect(),
        }
    }

    pub(super) fn totals(&self) -> ([u32; 3], u64) {
        (self.waiting, self.bytes)
    }
}

/// What is said where nobody can tell.
const LONG: Duration = Duration::from_secs(60);
