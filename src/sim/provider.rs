//! The provider's one book: the judge, the statistics and what is set now, behind one lock.

use std::collections::{HashSet, VecDeque};
use std::io;
use std::sync::Arc;

use parking_lot::Mutex;

use super::content;
use super::fault::{Fault, FaultKind};
use super::judge::{Judge, Ruling};
use super::outage::{Outage, Outages, Watch};
use super::settings::{Limits, Settings};
use super::stats::Stats;
use super::wire::{Connection, RequestHead};
use crate::time::{Duration, Instant, now};

/// What all connections share.
#[derive(Debug)]
pub(super) struct Provider {
    pub(super) settings: Settings,
    started: Instant,
    book: Mutex<Book>,
    outages: Outages,
}

#[derive(Debug)]
struct Book {
    judge: Judge,
    faults: Vec<Fault>,
    stats: Stats,
    stats_since: Instant,
    arrived: u64,
    faulted: Faulted,
    /// What is no key any more.
    revoked: HashSet<String>,
}

impl Provider {
    pub(super) fn new(settings: Settings) -> Arc<Self> {
        let started = now();
        let judge = Judge::new(settings.limits, settings.penalty);
        let faults = settings.faults.clone();
        let book = Book {
            judge,
            faults,
            stats: Stats::default(),
            stats_since: started,
            arrived: 0,
            faulted: Faulted::default(),
            revoked: HashSet::new(),
        };
        Arc::new(Self { settings, started, book: Mutex::new(book), outages: Outages::default() })
    }

    /// A head was read: the request is in flight until its slot is dropped or given back.
    pub(super) fn arrive(self: &Arc<Self>, head: &RequestHead) -> Slot {
        let authorization = head.headers.first("authorization").unwrap_or("");
        let key = if self.settings.per_key { content::hash(authorization.as_bytes()) } else { 0 };
        let mut book = self.book.lock();
        let ruling = book.judge.arrive(key, now());
        book.arrived += 1;
        book.stats.requests += 1;
        book.stats.note_path(head.path());
        book.stats.note_ruling(ruling);
        book.stats.requests_while_down += u64::from(self.down().is_some());
        let ordinal = book.arrived;
        drop(book);
        Slot { provider: Arc::clone(self), key, ordinal, arrival: ruling, taken: true, completes: false }
    }

    /// The request of this slot counts from now on.
    pub(super) fn count(&self, slot: &Slot, tokens: u32) -> Ruling {
        let mut book = self.book.lock();
        let now = now();
        let ruling = book.judge.count(slot.key, slot.arrival, tokens, now);
        book.stats.counted += 1;
        book.stats.first_arrival.get_or_insert_with(|| self.seconds(now));
        book.stats.last_arrival = Some(self.seconds(now));
        if slot.arrival == Ruling::Admitted {
            book.stats.note_ruling(ruling);
        }
        ruling
    }

    pub(super) fn penalty_left(&self, slot: &Slot) -> Duration {
        self.book.lock().judge.penalty_left(slot.key, now())
    }

    pub(super) fn draw_fault(&self, luck: f64) -> Option<FaultKind> {
        FaultKind::draw(&self.book.lock().faults, luck)
    }

    pub(super) fn note_fault(&self, kind: FaultKind) {
        *self.book.lock().stats.faults.entry(kind.to_string()).or_default() += 1;
    }

    /// Whether this is the first request for the same that is to meet this fault, as far as is remembered.
    pub(super) fn is_first(&self, identity: u64, fault: FaultKind) -> bool {
        self.book.lock().faulted.insert((identity, fault))
    }

    pub(super) fn down(&self) -> Option<Outage> {
        self.outages.now()
    }

    /// Goes down for so long; what runs is reset where new requests are.
    pub(super) fn go_down(&self, outage: Outage, lasts: Duration) {
        self.outages.begin(outage, lasts);
    }

    pub(super) fn come_back(&self) {
        self.outages.end();
    }

    /// Returns while, or as soon as, connections are refused.
    pub(super) async fn refuses(&self) {
        self.outages.refuses().await;
    }

    pub(super) fn watch_outages(&self) -> Watch {
        self.outages.watch()
    }

    pub(super) fn note_refused(&self) {
        self.book.lock().stats.connections_refused += 1;
    }

    pub(super) fn revoke(&self, authorization: &str) {
        self.book.lock().revoked.insert(authorization.to_owned());
    }

    pub(super) fn is_revoked(&self, head: &RequestHead) -> bool {
        head.headers.first("authorization").is_some_and(|key| self.book.lock().revoked.contains(key))
    }

    pub(super) fn note_hangup(&self) {
        self.book.lock().stats.hangups += 1;
    }

    pub(super) fn note_malformed(&self) {
        self.book.lock().stats.malformed += 1;
    }

    pub(super) fn limits(&self) -> Limits {
        self.book.lock().judge.limits()
    }

    pub(super) fn set_limits(&self, limits: Limits) {
        self.book.lock().judge.set_limits(limits, now());
    }

    pub(super) fn faults(&self) -> Vec<Fault> {
        self.book.lock().faults.clone()
    }

    pub(super) fn set_faults(&self, faults: Vec<Fault>) {
        self.book.lock().faults = faults;
    }

    pub(super) fn reset_stats(&self) {
        let mut book = self.book.lock();
        let now = now();
        book.stats = Stats::default();
        book.stats_since = now;
        book.judge.reset_tally(now);
    }

    pub(super) fn stats(&self) -> Stats {
        let book = self.book.lock();
        let now = now();
        let tally = book.judge.tally(now);
        Stats {
            uptime_seconds: self.seconds(now),
            in_flight: tally.in_flight,
            in_flight_max: tally.in_flight_max,
            window_now: tally.window_now,
            window_max: tally.window_max,
            tokens_now: tally.tokens_now,
            tokens_max: tally.tokens_max,
            in_full_seconds: tally.in_full.as_secs_f64(),
            ..book.stats.clone()
        }
    }

    /// Every counted instant in seconds since the start, oldest first.
    pub(super) fn arrivals(&self) -> Vec<f64> {
        let book = self.book.lock();
        let instants = book.judge.counted_since(book.stats_since);
        drop(book);
        instants.into_iter().map(|at| self.seconds(at)).collect()
    }

    fn seconds(&self, at: Instant) -> f64 {
        at.saturating_duration_since(self.started).as_secs_f64()
    }
}

/// So many requests that have had their fault are remembered; the oldest are forgotten.
const FAULTED_MAX: usize = 10_000;

/// Which requests have had the fault they wished for once.
#[derive(Debug, Default)]
struct Faulted {
    known: HashSet<(u64, FaultKind)>,
    oldest: VecDeque<(u64, FaultKind)>,
}

impl Faulted {
    /// Whether it was not known.
    fn insert(&mut self, request: (u64, FaultKind)) -> bool {
        if !self.known.insert(request) {
            return false;
        }
        self.oldest.push_back(request);
        if self.oldest.len() > FAULTED_MAX
            && let Some(oldest) = self.oldest.pop_front()
        {
            self.known.remove(&oldest);
        }
        true
    }
}

/// A request in flight. Given back when dropped.
#[derive(Debug)]
pub(super) struct Slot {
    provider: Arc<Provider>,
    key: u64,
    arrival: Ruling,
    taken: bool,
    /// Counts requests since the start; with the seed it decides their luck.
    pub(super) ordinal: u64,
    /// Whether the last byte completes an answer, rather than a refusal or a fault.
    pub(super) completes: bool,
}

impl Slot {
    /// Writes as much as goes at once, and gives the slot back in the same locked step when that was all. So nobody who
    /// has read the last byte can arrive before the slot is free, however threads are scheduled.
    pub(super) fn write_and_give_back(&mut self, connection: &Connection, bytes: &[u8]) -> io::Result<usize> {
        let mut book = self.provider.book.lock();
        let written = connection.try_write(bytes)?;
        if written == bytes.len() && self.taken {
            self.taken = false;
            book.judge.leave(self.key, now());
            book.stats.completed += u64::from(self.completes);
        }
        Ok(written)
    }

    /// Gives the slot back now.
    pub(super) fn give_back(&mut self) {
        if std::mem::take(&mut self.taken) {
            self.provider.book.lock().judge.leave(self.key, now());
        }
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.give_back();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_those_that_had_their_fault_the_oldest_are_forgotten() {
        let mut faulted = Faulted::default();
        for identity in 0..=FAULTED_MAX as u64 {
            assert!(faulted.insert((identity, FaultKind::Stall)));
        }
        assert!(!faulted.insert((1, FaultKind::Stall)) && faulted.insert((1, FaultKind::ResetLate)));
        assert!(faulted.insert((0, FaultKind::Stall)), "forgotten");
        assert_eq!((faulted.known.len(), faulted.oldest.len()), (FAULTED_MAX, FAULTED_MAX));
    }
}
