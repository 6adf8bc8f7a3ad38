//! The file of this process: records are appended to it, and now and then it is written anew.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::{Condvar, Mutex, MutexGuard};

use super::clock::{Clock, Moment};
use super::folder::Folder;
use super::ledger::Ledger;
use super::record::{self, INCOMPLETE_AT, Record};
use crate::ids::LaneId;
use crate::time::{self, Duration};

/// How long a record that nobody waits for stays in memory.
const FLUSH_AFTER: Duration = Duration::from_millis(20);
/// How often the disk is waited for, while there is something to wait for.
const SYNC_EVERY: Duration = Duration::from_millis(100);
/// How often a journal that could not be written is tried anew.
const RETRY_EVERY: Duration = Duration::from_secs(1);
/// A file shorter than this is not written anew.
const COMPACT_AT: u64 = 4 << 20;
/// So many bytes of records may wait for a write.
const BUFFER_MAX: usize = 64 << 10;
/// No single write is longer, so no kill cuts more: what waits, a lane, and what it learned.
pub(super) const WRITE_MAX: usize = 512 << 10;

/// The file, what it says, and what is not yet in it.
#[derive(Debug)]
pub(super) struct Writer {
    folder: Folder,
    clock: Arc<dyn Clock>,
    state: Mutex<State>,
    /// Tells the thread that there is something to do.
    wake: Condvar,
    failing: AtomicBool,
}

#[derive(Debug)]
struct State {
    ledger: Ledger,
    file: Arc<File>,
    /// Where the next record goes. Whatever stands behind it is not ours.
    length: u64,
    compact_at: u64,
    /// Records that are to be written.
    buffer: Vec<u8>,
    /// What was recorded since the next file was begun.
    tail: Option<Vec<u8>>,
    unsynced: bool,
    stopping: bool,
    /// Whether the thread waits for something to do.
    asleep: bool,
}

impl Writer {
    /// Begins a file with a ledger.
    pub(super) fn begin(folder: Folder, clock: Arc<dyn Clock>, ledger: Ledger) -> io::Result<Self> {
        let moment = clock.moment();
        let bytes = written_anew(&ledger, &*clock, moment);
        let file = folder.next()?;
        file.write_all_at(&bytes, 0)?;
        file.sync_data()?;
        folder.replace()?;
        folder.sync()?;
        let length = bytes.len() as u64;
        let state = State {
            ledger,
            file: Arc::new(file),
            length,
            compact_at: compact_at(length),
            buffer: Vec::new(),
            tail: None,
            unsynced: false,
            stopping: false,
            asleep: false,
        };
        Ok(Self { folder, clock, state: Mutex::new(state), wake: Condvar::new(), failing: AtomicBool::new(false) })
    }

    pub(super) fn is_failing(&self) -> bool {
        self.failing.load(Ordering::Relaxed)
    }

    pub(super) fn keep(&self, keep: i64) {
        self.state.lock().ledger.keep(keep);
    }

    /// A request is about to leave: it is in the file when this returns.
    pub(super) fn writing(&self, lane: &LaneId, tokens: u64) -> (u64, u32) {
        let mut state = self.state.lock();
        let moment = self.clock.moment();
        let lane = state.lane(lane, moment);
        let entry = state.ledger.next_entry();
        state.record(moment, &Record::Writing { entry, lane, tokens });
        self.flush(&mut state);
        self.rouse(&mut state);
        (entry, lane)
    }

    /// Something that nobody waits for.
    pub(super) fn note(&self, record: &Record<'_>) {
        let mut state = self.state.lock();
        let moment = self.clock.moment();
        state.record(moment, record);
        self.noted(&mut state);
    }

    /// An exchange has ended. If it used more than it had reserved, that is in the file when this returns.
    pub(super) fn ended(&self, entry: u64, lane: u32, used: Option<u64>, cools: i64) {
        let mut state = self.state.lock();
        let owes = used > state.ledger.reserved(entry);
        let moment = self.clock.moment();
        state.record(moment, &Record::Ended { entry, lane, used, cools });
        if owes {
            self.flush(&mut state);
        }
        self.noted(&mut state);
    }

    /// What a lane has learned; nobody waits for that either.
    pub(super) fn learned(&self, lane: &LaneId, blob: &[u8]) {
        let mut state = self.state.lock();
        let moment = self.clock.moment();
        let lane = state.lane(lane, moment);
        state.record(moment, &Record::Learned { lane, blob });
        self.noted(&mut state);
    }

    fn noted(&self, state: &mut State) {
        // When the thread has ended, nobody comes to write what waits.
        if state.buffer.len() >= BUFFER_MAX || state.stopping {
            self.flush(state);
        }
        self.rouse(state);
    }

    fn rouse(&self, state: &mut State) {
        if std::mem::take(&mut state.asleep) {
            self.wake.notify_one();
        }
    }

    /// Writes what waits. While that fails nothing is kept for later: the ledger has it.
    fn flush(&self, state: &mut State) {
        if let Some(tail) = &mut state.tail {
            tail.extend(&state.buffer);
        }
        if !state.buffer.is_empty() && !self.is_failing() {
            match state.file.write_all_at(&state.buffer, state.length) {
                Ok(()) => {
                    state.length += state.buffer.len() as u64;
                    state.unsynced = true;
                }
                Err(error) => self.fail(state, &error),
            }
        }
        state.buffer.clear();
    }

    fn fail(&self, state: &State, error: &io::Error) {
        if self.failing.swap(true, Ordering::Relaxed) {
            return;
        }
        // A byte that the file already has: there is room for it even on a full disk.
        let marked = state.file.write_all_at(&[1], INCOMPLETE_AT).and_then(|()| state.file.set_len(state.length));
        tracing::error!(
            %error,
            marked = marked.is_ok(),
            file = ?self.folder.journal(),
            "the journal cannot be written; serving goes on, but a kill now would forget what is sent"
        );
    }

    /// The thread's life: writes what waits, waits for the disk, keeps the file short. Ends when told to, with a journal
    /// that says that it is complete.
    pub(super) fn run(&self) {
        let mut synced = time::now();
        let mut state = self.state.lock();
        loop {
            while !state.stopping && !self.has_work(&state) {
                state.asleep = true;
                self.wake.wait(&mut state);
            }
            if state.stopping {
                break;
            }
            let pause = if self.is_failing() { RETRY_EVERY } else { FLUSH_AFTER };
            self.wake.wait_for(&mut state, pause);
            self.flush(&mut state);
            if self.is_failing() || state.is_long() {
                MutexGuard::unlocked(&mut state, || self.write_anew());
            } else if state.unsynced && synced.elapsed() >= SYNC_EVERY {
                self.sync(&mut state);
                synced = time::now();
            }
        }
        if self.is_failing() {
            MutexGuard::unlocked(&mut state, || self.write_anew());
        }
        let moment = self.clock.moment();
        state.record(moment, &Record::Closed);
        self.flush(&mut state);
        self.sync(&mut state);
    }

    /// Tells the thread to end.
    pub(super) fn stop(&self) {
        self.state.lock().stopping = true;
        self.wake.notify_one();
    }

    fn has_work(&self, state: &State) -> bool {
        !state.buffer.is_empty() || state.unsynced || state.is_long() || self.is_failing()
    }

    fn sync(&self, state: &mut MutexGuard<'_, State>) {
        state.unsynced = false;
        let file = Arc::clone(&state.file);
        if let Err(error) = MutexGuard::unlocked(state, || file.sync_data()) {
            self.fail(state, &error);
        }
    }

    /// Writes the file anew, with what still counts, and logs what comes of it.
    pub(super) fn write_anew(&self) {
        match self.try_write_anew() {
            Ok(true) => tracing::info!(file = ?self.folder.journal(), "the journal is written again, and complete"),
            Ok(false) => {}
            Err(_) if self.is_failing() => {} // it was said
            Err(error) => {
                let mut state = self.state.lock();
                state.compact_at = state.length + COMPACT_AT;
                tracing::warn!(%error, bytes = state.length, "the journal cannot be written anew; it grows on");
            }
        }
    }

    /// Calls wait for it while memory is copied, and while what came meanwhile is written; not for the disk. Says whether
    /// that ended a time in which the journal could not be written.
    fn try_write_anew(&self) -> io::Result<bool> {
        let bytes = {
            let mut state = self.state.lock();
            self.flush(&mut state);
            let moment = self.clock.moment();
            state.ledger.forget(moment.boot);
            state.tail = Some(Vec::new());
            written_anew(&state.ledger, &*self.clock, moment)
        };
        let file = self.folder.next().and_then(|file| {
            file.write_all_at(&bytes, 0)?;
            file.sync_data()?;
            Ok(file)
        });
        let mut state = self.state.lock();
        self.flush(&mut state);
        let tail = state.tail.take().unwrap_or_default();
        let (file, length) = (file?, bytes.len() as u64);
        file.write_all_at(&tail, length)?;
        self.folder.replace()?;
        state.file = Arc::new(file);
        state.length = length + tail.len() as u64;
        state.compact_at = compact_at(state.length);
        state.unsynced = true;
        // Under the lock: whatever comes next goes into this file.
        let mended = self.failing.swap(false, Ordering::Relaxed);
        drop(state);
        self.folder.sync()?;
        Ok(mended)
    }

    /// Writes what waits, now.
    #[cfg(test)]
    pub(super) fn flush_now(&self) -> u64 {
        let mut state = self.state.lock();
        self.flush(&mut state);
        state.length
    }

    /// Everything goes into another file from now on.
    #[cfg(test)]
    pub(super) fn write_into(&self, file: File) {
        self.state.lock().file = Arc::new(file);
    }
}

impl State {
    fn is_long(&self) -> bool {
        self.length > self.compact_at || self.ledger.is_crowded()
    }

    fn record(&mut self, moment: Moment, record: &Record<'_>) {
        self.ledger.apply(moment.boot, record);
        record::put(&mut self.buffer, moment, record);
    }

    /// The number of a lane; one that has none is declared.
    fn lane(&mut self, id: &LaneId, moment: Moment) -> u32 {
        if let Some(number) = self.ledger.number(id) {
            return number;
        }
        let lane = self.ledger.next_lane();
        self.record(moment, &Record::Lane { lane, key: id.key.bits(), upstream: &id.upstream });
        lane
    }
}

fn written_anew(ledger: &Ledger, clock: &dyn Clock, moment: Moment) -> Vec<u8> {
    let mut bytes = Vec::new();
    record::put_head(&mut bytes, clock.boot_id());
    ledger.write(&mut bytes, moment);
    bytes
}

/// Doubling: all the rewriting together costs no more than the appending.
fn compact_at(length: u64) -> u64 {
    COMPACT_AT.max(2 * length)
}
