//! What still counts, by lane. Records make it; a compaction turns it into records again.
//!
//! Wherever something is rounded, it is rounded to the later time: what is remembered never counts for less long than
//! what happened.

use std::collections::{BTreeMap, HashMap, HashSet};

use super::clock::Moment;
use super::record::{self, Record};
use crate::ids::{KeyId, LaneId};

const MS: i64 = 1_000_000;
const MINUTE: i64 = 60_000 * MS;
const HOUR: i64 = 60 * MINUTE;
const DAY: i64 = 24 * HOUR;
/// So many grains has the time for which stamps are exact: no lane holds more of them.
const GRAINS: i64 = 1 << 16;
/// How long orphans are remembered: no slot may be held for longer.
const ORPHANS_KEPT: i64 = HOUR;
/// So many lanes are remembered; of those with nothing in the window the longest unused are forgotten first.
const LANES_MAX: usize = 20_000;
/// With more minutes than this, over all lanes, the day is remembered by the hour.
const MINUTES_MAX: usize = 500_000;

/// Requests that count from the same time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Spent {
    pub(super) at: i64,
    pub(super) requests: u32,
    pub(super) tokens: u64,
}

/// By the beginning of the grain they fall in.
type Stamps = BTreeMap<i64, Spent>;

fn add(stamps: &mut Stamps, grain: i64, spent: Spent) {
    let entry = stamps.entry(spent.at - spent.at.rem_euclid(grain));
    let sum = entry.or_insert(Spent { requests: 0, tokens: 0, ..spent });
    sum.at = sum.at.max(spent.at);
    sum.requests = sum.requests.saturating_add(spent.requests);
    sum.tokens = sum.tokens.saturating_add(spent.tokens);
}

/// What is remembered of a lane.
#[derive(Debug)]
pub(super) struct Lane {
    pub(super) id: LaneId,
    /// Exact, for as long as a window may be.
    pub(super) recent: Stamps,
    /// By the minute, for a day.
    pub(super) day: Stamps,
    /// Since when so many exchanges are nobody's.
    pub(super) orphans: Vec<(i64, u32)>,
    /// When slots of ended exchanges are free.
    pub(super) cooling: Vec<i64>,
    pub(super) learned: Option<Box<[u8]>>,
    last: i64,
    /// With so many that cool, those that have cooled are let go of.
    swept_at: usize,
}

impl Lane {
    fn new(id: LaneId, last: i64) -> Self {
        let (recent, day, orphans, cooling) = <_>::default();
        Self { id, recent, day, orphans, cooling, learned: None, last, swept_at: 0 }
    }

    /// An exchange has ended. Sweeping at doubled lengths keeps it cheap whatever the rate.
    fn end(&mut self, now: i64, cools: i64) {
        self.last = now;
        if self.cooling.len() >= self.swept_at {
            self.cooling.retain(|&until| until > now);
            self.swept_at = 2 * self.cooling.len().max(32);
        }
        if cools > 0 {
            self.cooling.push(now.saturating_add(cools));
        }
    }

    fn is_quiet(&self) -> bool {
        self.recent.is_empty() && self.orphans.is_empty() && self.cooling.is_empty()
    }

    fn is_blank(&self) -> bool {
        self.is_quiet() && self.day.is_empty() && self.learned.is_none()
    }
}

/// An exchange that has not ended.
#[derive(Debug, Clone, Copy)]
struct Open {
    lane: u32,
    tokens: u64,
    written: Option<i64>,
}

/// Everything that still counts. Times are nanoseconds of one boot's clock; they may lie before that boot.
#[derive(Debug)]
pub(super) struct Ledger {
    keep: i64,
    lanes: BTreeMap<u32, Lane>,
    numbers: HashMap<LaneId, u32>,
    open: BTreeMap<u64, Open>,
    unknown_until: Option<i64>,
    lanes_made: u32,
    entries_made: u64,
    crowded_at: usize,
}

impl Ledger {
    /// An empty one that keeps stamps exact for so long.
    pub(super) fn new(keep: i64) -> Self {
        let (lanes, numbers, open) = <_>::default();
        Self {
            keep,
            lanes,
            numbers,
            open,
            unknown_until: None,
            lanes_made: 0,
            entries_made: 0,
            crowded_at: 2 * LANES_MAX,
        }
    }

    pub(super) fn keep(&mut self, keep: i64) {
        self.keep = keep;
    }

    fn grain(&self) -> i64 {
        (self.keep / GRAINS).max(MS)
    }

    /// The number of a lane, where it has one.
    pub(super) fn number(&self, lane: &LaneId) -> Option<u32> {
        self.numbers.get(lane).copied()
    }

    /// A number for a lane that has none.
    pub(super) fn next_lane(&self) -> u32 {
        self.lanes_made.wrapping_add(1)
    }

    /// A number for an exchange.
    pub(super) fn next_entry(&self) -> u64 {
        self.entries_made + 1
    }

    /// The tokens that an exchange has reserved.
    pub(super) fn reserved(&self, entry: u64) -> Option<u64> {
        self.open.get(&entry).map(|open| open.tokens)
    }

    /// Takes a record in. Says whether its lane was known.
    pub(super) fn apply(&mut self, now: i64, record: &Record<'_>) -> bool {
        match *record {
            Record::Lane { lane, key, upstream } => {
                let id = LaneId { upstream: upstream.into(), key: KeyId::from_bits(key) };
                self.numbers.insert(id.clone(), lane);
                self.lanes.entry(lane).or_insert_with(|| Lane::new(id, now));
                self.lanes_made = self.lanes_made.max(lane);
                true
            }
            Record::Writing { entry, lane, tokens } => self.open(entry, Open { lane, tokens, written: None }),
            Record::Open { entry, lane, tokens, written } => self.open(entry, Open { lane, tokens, written }),
            Record::Written { entry, lane } => {
                // One of which the beginning was lost: it counts all the same.
                let open = self.open.get(&entry).copied().unwrap_or(Open { lane, tokens: 0, written: None });
                self.open(entry, Open { written: open.written.or(Some(now)), ..open })
            }
            Record::Ended { entry, lane, used, cools } => {
                let open = self.open.remove(&entry).unwrap_or(Open { lane, tokens: 0, written: None });
                let (at, tokens) = (open.written.unwrap_or(now), used.unwrap_or(open.tokens));
                self.spend(open.lane, Spent { at, requests: 1, tokens })
                    && self.with(open.lane, |lane| lane.end(now, cools))
            }
            Record::Refunded { entry } => {
                self.open.remove(&entry);
                true
            }
            Record::Learned { lane, blob } => self.with(lane, |lane| lane.learned = Some(blob.into())),
            Record::Spent { lane, at, requests, tokens } => self.spend(lane, Spent { at, requests, tokens }),
            Record::Orphans { lane, since, slots } => self.with(lane, |lane| lane.orphans.push((since, slots))),
            Record::Cooling { lane, until } => self.with(lane, |lane| lane.cooling.push(until)),
            Record::Unknown { until } => {
                self.forgot(until);
                true
            }
            Record::Closed => true,
        }
    }

    fn with(&mut self, lane: u32, act: impl FnOnce(&mut Lane)) -> bool {
        self.lanes.get_mut(&lane).map(act).is_some()
    }

    fn open(&mut self, entry: u64, open: Open) -> bool {
        self.entries_made = self.entries_made.max(entry);
        self.open.insert(entry, open);
        self.lanes.contains_key(&open.lane)
    }

    fn spend(&mut self, lane: u32, spent: Spent) -> bool {
        let grain = self.grain();
        self.with(lane, |lane| {
            lane.last = lane.last.max(spent.at);
            add(&mut lane.recent, grain, spent);
        })
    }

    /// Until `until` requests may have left that nothing here tells of.
    pub(super) fn forgot(&mut self, until: i64) {
        self.unknown_until = self.unknown_until.max(Some(until));
    }

    /// The clock is another one, on which everything is `by` later; nothing is later than `now`.
    pub(super) fn shift(&mut self, by: i64, now: i64) {
        let grain = self.grain();
        let shifted = |at: i64| at.saturating_add(by).min(now);
        for lane in self.lanes.values_mut() {
            let stamps =
                std::mem::take(&mut lane.recent).into_values().chain(std::mem::take(&mut lane.day).into_values());
            stamps.for_each(|spent| add(&mut lane.recent, grain, Spent { at: shifted(spent.at), ..spent }));
            lane.orphans.iter_mut().for_each(|(since, _)| *since = shifted(*since));
            lane.cooling.iter_mut().for_each(|until| *until = until.saturating_add(by));
            lane.last = shifted(lane.last);
        }
        self.open.values_mut().for_each(|open| open.written = open.written.map(shifted));
        self.unknown_until = self.unknown_until.map(shifted);
    }

    /// The process that had these exchanges is no more: what was not known to be written counts from now, and the slot
    /// of each is an orphan's.
    pub(super) fn orphan(&mut self, now: i64) {
        let mut slots: BTreeMap<u32, u32> = BTreeMap::new();
        for open in std::mem::take(&mut self.open).into_values() {
            self.spend(open.lane, Spent { at: open.written.unwrap_or(now), requests: 1, tokens: open.tokens });
            *slots.entry(open.lane).or_default() += 1;
        }
        for (lane, slots) in slots {
            self.with(lane, |lane| lane.orphans.push((now, slots)));
        }
    }

    /// Lets go of what counts no more, or is beyond what may be remembered.
    pub(super) fn forget(&mut self, now: i64) {
        let crowded = self.lanes.values().map(|lane| lane.day.len()).sum::<usize>() > MINUTES_MAX;
        let coarse = if crowded { HOUR } else { MINUTE };
        for lane in self.lanes.values_mut() {
            let keep = self.keep;
            if crowded {
                std::mem::take(&mut lane.day).into_values().for_each(|spent| add(&mut lane.day, HOUR, spent));
            }
            let day = &mut lane.day;
            lane.recent.retain(|_, spent| {
                let counts = spent.at.saturating_add(keep) >= now;
                if !counts {
                    add(day, coarse, *spent);
                }
                counts
            });
            day.retain(|_, spent| spent.at.saturating_add(DAY) >= now);
            lane.orphans.retain(|(since, _)| since.saturating_add(ORPHANS_KEPT) >= now);
            lane.cooling.retain(|&until| until > now);
        }
        self.unknown_until = self.unknown_until.filter(|until| until.saturating_add(DAY) >= now);
        self.forget_lanes();
    }

    fn forget_lanes(&mut self) {
        let running: HashSet<u32> = self.open.values().map(|open| open.lane).collect();
        self.lanes.retain(|number, lane| running.contains(number) || !lane.is_blank());
        let excess = self.lanes.len().saturating_sub(LANES_MAX);
        if excess > 0 {
            let quiet = self.lanes.iter().filter(|(number, lane)| lane.is_quiet() && !running.contains(number));
            let mut quiet: Vec<_> = quiet.map(|(&number, lane)| (lane.last, number)).collect();
            quiet.sort_unstable();
            for (_, number) in quiet.into_iter().take(excess) {
                self.lanes.remove(&number);
            }
        }
        self.numbers.retain(|_, number| self.lanes.contains_key(number));
        self.crowded_at = 2 * LANES_MAX.max(self.lanes.len());
    }

    /// Whether there are so many lanes that some should be let go of.
    pub(super) fn is_crowded(&self) -> bool {
        self.lanes.len() > self.crowded_at
    }

    /// Appends the records that make this ledger.
    pub(super) fn write(&self, out: &mut Vec<u8>, moment: Moment) {
        let mut put = |record: Record<'_>| record::put(out, moment, &record);
        if let Some(until) = self.unknown_until {
            put(Record::Unknown { until });
        }
        for (&number, lane) in &self.lanes {
            put(Record::Lane { lane: number, key: lane.id.key.bits(), upstream: &lane.id.upstream });
            if let Some(blob) = &lane.learned {
                put(Record::Learned { lane: number, blob });
            }
            for &Spent { at, requests, tokens } in lane.day.values().chain(lane.recent.values()) {
                put(Record::Spent { lane: number, at, requests, tokens });
            }
            for &(since, slots) in &lane.orphans {
                put(Record::Orphans { lane: number, since, slots });
            }
            lane.cooling.iter().for_each(|&until| put(Record::Cooling { lane: number, until }));
        }
        for (&entry, &Open { lane, tokens, written }) in &self.open {
            put(Record::Open { entry, lane, tokens, written });
        }
    }

    /// The lanes that are remembered.
    pub(super) fn lanes(&self) -> impl Iterator<Item = &Lane> {
        self.lanes.values()
    }

    /// Until when requests may have left that nothing here tells of.
    pub(super) fn unknown_until(&self) -> Option<i64> {
        self.unknown_until
    }
}
