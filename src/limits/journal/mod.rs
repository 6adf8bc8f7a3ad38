//! The memory that survives a kill: what was sent is in `server.state_dir` before it is sent.
//!
//! One append-only file. [`Journal::writing`] puts a request into it, and has done so when it returns; that a request
//! is written, and that its exchange has ended, follows with the next write, 20 ms later at most, or as soon as a disk
//! that stalls takes it. A kill loses nothing that was written; if it loses one of the latter, the request counts from
//! the restart, or its slot is held for `orphan_hold`: later than true, never earlier. Only an end that tells of more
//! tokens than were reserved is written at once, since a reservation alone would be too little. A call costs one
//! `write(2)` and no waiting for the disk, which a thread of its own does every 100 ms at most. That thread also
//! writes the file anew when it has grown, with what still counts.
//!
//! What is promised, and what is not:
//!
//! - **Kill**: nothing that the provider may have counted is forgotten.
//! - **Clocks**: on the same boot of the same machine ages are exact, whatever the wall clock does, and sleep counts.
//!   After another boot, on another machine, or on a system that cannot tell, the wall clock says how long ago the last
//!   record was. If it went back, no time has passed; if it was set *forward* meanwhile, that much is forgotten too
//!   early.
//! - **Power failure**: the last moments may be missing. Unless the journal was closed, every window is taken as full
//!   after another boot: see [`Recovered::unknown_until`]. On a system that cannot tell boots apart a kill looks the
//!   same.
//! - **Full disk**: serving goes on, [`Journal::is_failing`] says so, and the log once. The file is marked, so that a
//!   kill in that state makes the restart take every window as full. As soon as a whole new file can be written, about
//!   once a second, all is well again.
//! - **Bounds**: a stamp for each 65,536th of the window at most, a day by the minute, 20,000 lanes; the file is at most
//!   twice what counts, or 4 MiB.
//!
//! Times are rounded to the later side. Keys are never in the file, only their ids.

mod clock;
mod error;
mod folder;
mod ledger;
mod record;
mod recovered;
#[cfg(test)]
pub(crate) mod rehearsal;
#[cfg(test)]
mod tests;
mod writer;

use std::path::Path;
use std::sync::Arc;
use std::thread::JoinHandle;

use parking_lot::Mutex;

use self::clock::{Clock, SystemClock};
use self::folder::Folder;
use self::ledger::Ledger;
use self::record::{LEARNED_MAX, Record};
use self::writer::Writer;
use crate::ids::LaneId;
use crate::time::Duration;

pub use error::JournalError;
pub use recovered::{Orphans, Recovered, RecoveredLane, Spent};

/// An exchange in the journal: from its first byte until it has ended or was refunded. One that is merely dropped runs
/// until the process ends, and is an orphan then.
#[derive(Debug, PartialEq, Eq)]
#[must_use = "an exchange that is not ended holds a slot after a restart"]
pub struct Entry {
    number: u64,
    lane: u32,
}

/// The journal of this process. Cheap to clone; the last one that is dropped closes it.
#[derive(Debug, Clone)]
pub struct Journal(Option<Arc<Owner>>);

/// The file, and the thread that looks after it.
#[derive(Debug)]
struct Owner {
    writer: Arc<Writer>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl Journal {
    /// A journal that remembers nothing.
    #[must_use]
    pub const fn off() -> Self {
        Self(None)
    }

    /// Makes the directory where there is none, locks it, reads what is there, and begins a new file with it. Stamps are
    /// kept exact for `keep`: the longest window with its margin.
    ///
    /// # Errors
    /// When the directory cannot be used or is another process's, and when its journal is a newer version's or none.
    pub fn open(dir: &Path, keep: Duration) -> Result<(Self, Recovered), JournalError> {
        Self::open_at(dir, keep, Arc::new(SystemClock))
    }

    fn open_at(dir: &Path, keep: Duration, clock: Arc<dyn Clock>) -> Result<(Self, Recovered), JournalError> {
        let (writer, recovered) = begin(dir, keep, clock)?;
        let thread = {
            let (writer, name) = (Arc::clone(&writer), "journal".to_owned());
            let spawned = std::thread::Builder::new().name(name).spawn(move || writer.run());
            spawned.map_err(|source| JournalError::Unusable {
                dir: dir.to_owned(),
                action: "start a thread for it",
                source,
            })?
        };
        let owner = Owner { writer, thread: Mutex::new(Some(thread)) };
        Ok((Self(Some(Arc::new(owner))), recovered))
    }

    /// Other limits: from now on stamps are kept exact for so long.
    pub fn keep(&self, keep: Duration) {
        if let Some(owner) = &self.0 {
            owner.writer.keep(nanos(keep));
        }
    }

    /// A request is about to leave, with so many tokens reserved. When this returns it is with the system, and no kill
    /// makes us forget it; so it comes before the first byte.
    pub fn writing(&self, lane: &LaneId, tokens: u64) -> Entry {
        let (number, lane) = self.0.as_ref().map_or((0, 0), |owner| owner.writer.writing(lane, tokens));
        Entry { number, lane }
    }

    /// The request is completely written: it counts from now. Only the first time says something.
    pub fn written(&self, entry: &Entry) {
        self.note(&Record::Written { entry: entry.number, lane: entry.lane });
    }

    /// The exchange has ended, and its slot is free when it has cooled for `cools`. `used` settles its tokens; unknown
    /// usage is what was reserved. A request that was not written counts from now.
    pub fn ended(&self, entry: Entry, used: Option<u64>, cools: Duration) {
        if let Some(owner) = &self.0 {
            owner.writer.ended(entry.number, entry.lane, used, nanos(cools));
        }
    }

    /// Nothing of the request has left: it never was.
    pub fn refunded(&self, entry: Entry) {
        self.note(&Record::Refunded { entry: entry.number });
    }

    /// What the lane has learned, which replaces what it had; at most 64 KiB.
    pub fn learned(&self, lane: &LaneId, blob: &[u8]) {
        match &self.0 {
            Some(_) if blob.len() > LEARNED_MAX => {
                tracing::warn!(upstream = &*lane.upstream, bytes = blob.len(), "too much was learned to remember it");
            }
            Some(owner) => owner.writer.learned(lane, blob),
            None => {}
        }
    }

    /// Whether the file cannot be written now: a kill would forget what is sent.
    #[must_use]
    pub fn is_failing(&self) -> bool {
        self.0.as_ref().is_some_and(|owner| owner.writer.is_failing())
    }

    /// Writes what is left, waits for the disk, and marks the file as complete; blocks for as long as that takes. What
    /// comes later is still written, but nothing waits for the disk any more.
    pub fn close(&self) {
        if let Some(owner) = &self.0 {
            owner.close();
        }
    }

    fn note(&self, record: &Record<'_>) {
        if let Some(owner) = &self.0 {
            owner.writer.note(record);
        }
    }
}

impl Owner {
    fn close(&self) {
        if let Some(thread) = self.thread.lock().take() {
            self.writer.stop();
            if thread.join().is_err() {
                tracing::error!("the journal's thread panicked");
            }
        }
    }
}

impl Drop for Owner {
    fn drop(&mut self) {
        self.close();
    }
}

/// Reads what is there, and begins a new file with it.
fn begin(dir: &Path, keep: Duration, clock: Arc<dyn Clock>) -> Result<(Arc<Writer>, Recovered), JournalError> {
    let folder = Folder::take(dir)?;
    let ledger = match folder.read().map_err(folder.unusable("read its journal"))? {
        Some(bytes) => recovered::read(&bytes, folder.journal(), nanos(keep), &*clock)?,
        None => Ledger::new(nanos(keep)),
    };
    let recovered = recovered::recovered(&ledger, &*clock);
    let unusable = folder.unusable("write its journal");
    Ok((Arc::new(Writer::begin(folder, clock, ledger).map_err(unusable)?), recovered))
}

fn nanos(duration: Duration) -> i64 {
    i64::try_from(duration.as_nanos()).unwrap_or(i64::MAX)
}
