//! What a restart knows.

use std::path::PathBuf;

use super::JournalError;
use super::clock::{Clock, Moment};
use super::ledger::Ledger;
use super::record::{self, FORMAT, HEAD, Head, Record};
use super::writer::WRITE_MAX;
use crate::ids::LaneId;
use crate::time::{self, Duration, Instant};

/// What earlier processes spent that may still count.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Recovered {
    /// By lane.
    pub lanes: Vec<RecoveredLane>,
    /// Until then requests may have left that nobody remembers, on any lane: the window of each is to be taken as full,
    /// as by [`Window::forget_until`](crate::limits::Window::forget_until). After a power failure, damage to the file,
    /// or a kill while it could not be written.
    pub unknown_until: Option<Instant>,
}

/// What a lane spent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RecoveredLane {
    /// Whose it is. The settings may not know it any more.
    pub id: LaneId,
    /// Requests by the end of their writing, oldest first, of the last day: exact (to the grain, later rather than
    /// earlier) as far back as was asked for, by the minute before. Requests that were not known to be written count
    /// from now, and what runs is among them.
    pub spent: Vec<Spent>,
    /// Exchanges that a kill cut: the provider may still have them, so each holds its slot for `orphan_hold` from then.
    pub orphans: Vec<Orphans>,
    /// When slots of exchanges that had ended are free.
    pub cooling: Vec<Instant>,
    /// What [`Journal::learned`](super::Journal::learned) was last told.
    pub learned: Option<Vec<u8>>,
}

/// Requests that count from the same instant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Spent {
    /// When they were completely written.
    pub at: Instant,
    /// How many.
    pub requests: u32,
    /// Their tokens: used, or reserved where nobody said.
    pub tokens: u64,
}

/// Exchanges that a kill cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Orphans {
    /// When the process was back.
    pub since: Instant,
    /// How many.
    pub slots: u32,
}

/// What the file says, on the clock of now. `file` is its name, for messages.
pub(super) fn read(bytes: &[u8], file: PathBuf, keep: i64, clock: &dyn Clock) -> Result<Ledger, JournalError> {
    let (boot, incomplete) = match record::read_head(bytes) {
        Head::Known { boot, incomplete } => (boot, incomplete),
        Head::Newer { found } => return Err(JournalError::Newer { file, found, known: FORMAT }),
        Head::Foreign => return Err(JournalError::Foreign { file }),
    };
    let mut ledger = Ledger::new(keep);
    let read = replay(&bytes[HEAD..], &mut ledger);
    let (now, same) = (clock.moment(), clock.boot_id().is_same(boot));
    ledger.shift(if same { 0 } else { later(read.last, now) }, now.boot);
    let unsynced = !same && !read.closed;
    if read.damaged > 0 || incomplete || unsynced {
        tracing::error!(
            ?file,
            bytes = read.damaged,
            incomplete,
            power_failure = unsynced,
            "the journal may lack requests that were sent: every window is taken as full"
        );
        ledger.forgot(now.boot);
    } else if read.torn > 0 {
        tracing::warn!(
            ?file,
            bytes = read.torn,
            "the journal ended in the middle of a write, of which nothing was sent"
        );
    }
    ledger.orphan(now.boot);
    ledger.forget(now.boot);
    Ok(ledger)
}

/// How much later things are on the clock of this boot than on that of the one whose last record this is: the time from
/// there to here is the wall clock's to tell. If that went back, no time has passed.
fn later(last: Moment, now: Moment) -> i64 {
    let passed = now.wall.saturating_sub(last.wall).max(0);
    now.boot.saturating_sub(passed).saturating_sub(last.boot)
}

#[derive(Debug, Default)]
struct Replay {
    last: Moment,
    /// Bytes at the end that are no record: those of a write that a kill cut.
    torn: usize,
    /// Bytes that are no record, and cannot be such an end; or records of a lane that nothing declares.
    damaged: usize,
    closed: bool,
}

fn replay(mut bytes: &[u8], ledger: &mut Ledger) -> Replay {
    let mut replay = Replay::default();
    let mut gap = 0;
    while !bytes.is_empty() {
        let Some((moment, record, length)) = record::read(bytes) else {
            gap += 1;
            bytes = &bytes[1..];
            continue;
        };
        replay.damaged += std::mem::take(&mut gap);
        if moment.boot >= replay.last.boot || replay.last == Moment::default() {
            replay.last = moment;
        }
        if !ledger.apply(moment.boot, &record) {
            replay.damaged += length;
        }
        replay.closed = record == Record::Closed;
        bytes = &bytes[length..];
    }
    if gap > WRITE_MAX {
        replay.damaged += gap
    } else {
        replay.torn = gap
    }
    replay
}

/// The ledger in instants of this process.
pub(super) fn recovered(ledger: &Ledger, clock: &dyn Clock) -> Recovered {
    let (now, boot) = (time::now(), clock.moment().boot);
    // Where an instant cannot be so old, it counts from now.
    let instant = |at: i64| {
        let nanos = |nanos: i64| Duration::from_nanos(u64::try_from(nanos).unwrap_or_default());
        if at > boot { now + nanos(at - boot) } else { now.checked_sub(nanos(boot.saturating_sub(at))).unwrap_or(now) }
    };
    let lanes = ledger.lanes().map(|lane| {
        let mut spent: Vec<_> = lane.day.values().chain(lane.recent.values()).collect();
        spent.sort_by_key(|spent| spent.at);
        RecoveredLane {
            id: lane.id.clone(),
            spent: spent
                .into_iter()
                .map(|spent| Spent { at: instant(spent.at), requests: spent.requests, tokens: spent.tokens })
                .collect(),
            orphans: lane.orphans.iter().map(|&(since, slots)| Orphans { since: instant(since), slots }).collect(),
            cooling: lane.cooling.iter().map(|&until| instant(until)).collect(),
            learned: lane.learned.as_deref().map(<[u8]>::to_vec),
        }
    });
    Recovered { lanes: lanes.collect(), unknown_until: ledger.unknown_until().map(instant) }
}
