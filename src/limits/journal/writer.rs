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
/// No single append is longer, so no kill cuts more.
pub(super) const WRITE_MAX: usize = 512 << 10;

/// The file, what it says, and what is not yet in it.
///
/// Two locks, so that who only notes something waits for a write only where too much waits for it already. Of both, that of
/// the file is taken first.
#[derive(Debug)]
pub(super) struct Writer {
    folder: Folder,
    clock: Arc<dyn Clock>,
    file: Mutex<Log>,
    state: Mutex<State>,
    /// Tells the thread that there is something to do.
    wake: Condvar,
    failing: AtomicBool,
    /// The file is longer than it should be.
    is_long: AtomicBool,
}

/// What is said, and waits to be written.
#[derive(Debug)]
struct State {
    ledger: Ledger,
    /// Records that are to be written, in the order in which the ledger has them.
    buffer: Vec<u8>,
    /// Something was written, or is being written, that the disk may not have.
    unsynced: bool,
    stopping: bool,
    /// Whether the thread waits for something to do.
    asleep: bool,
}

/// The file.
#[derive(Debug)]
struct Log {
    file: Arc<File>,
    /// Where the next record goes. Whatever stands behind it is not ours.
    length: u64,
    compact_at: u64,
    /// What is being written; empty between writes.
    outgoing: Vec<u8>,
    /// What was recorded since the next file was begun.
    tail: Option<Vec<u8>>,
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
        let log =
            Log { file: Arc::new(file), length, compact_at: compact_at(length), outgoing: Vec::new(), tail: None };
        let state = State { ledger, buffer: Vec::new(), unsynced: false, stopping: false, asleep: false };
        Ok(Self {
            folder,
            clock,
            file: Mutex::new(log),
            state: Mutex::new(state),
            wake: Condvar::new(),
            failing: AtomicBool::new(false),
            is_long: AtomicBool::new(false),
        })
    }

    pub(super) fn is_failing(&self) -> bool {
        self.failing.load(Ordering::Relaxed)
    }

    pub(super) fn keep(&self, keep: i64) {
        self.state.lock().ledger.keep(keep);
    }

    /// A request is about to leave: it is in the file when this returns.
    pub(super) fn writing(&self, lane: &LaneId, tokens: u64) -> (u64, u32) {
        let (entry, lane) = {
            let mut state = self.state.lock();
            let moment = self.clock.moment();
            let lane = state.lane(lane, moment);
            let entry = state.ledger.next_entry();
            state.record(moment, &Record::Writing { entry, lane, tokens });
            self.rouse(&mut state);
            (entry, lane)
        };
        self.flush();
        (entry, lane)
    }

    /// Something that nobody waits for.
    pub(super) fn note(&self, record: &Record<'_>) {
        let mut state = self.state.lock();
        let moment = self.clock.moment();
        state.record(moment, record);
        self.noted(state, false);
    }

    /// An exchange has ended. If it used more than it had reserved, that is in the file when this returns.
    pub(super) fn ended(&self, entry: u64, lane: u32, used: Option<u64>, cools: i64) {
        let mut state = self.state.lock();
        let owes = used > state.ledger.reserved(entry);
        let moment = self.clock.moment();
        state.record(moment, &Record::Ended { entry, lane, used, cools });
        self.noted(state, owes);
    }

    /// What a lane has learned; nobody waits for that either.
    pub(super) fn learned(&self, lane: &LaneId, blob: &[u8]) {
        let mut state = self.state.lock();
        let moment = self.clock.moment();
        let lane = state.lane(lane, moment);
        state.record(moment, &Record::Learned { lane, blob });
        self.noted(state, false);
    }

    fn noted(&self, mut state: MutexGuard<'_, State>, is_urgent: bool) {
        self.rouse(&mut state);
        // When the thread has ended, nobody comes to write what waits.
        let is_urgent = is_urgent || state.buffer.len() >= BUFFER_MAX || state.stopping;
        drop(state);
        if is_urgent {
            self.flush();
        }
    }

    fn rouse(&self, state: &mut State) {
        if std::mem::take(&mut state.asleep) {
            self.wake.notify_one();
        }
    }

    /// Writes what waits, unless somebody else has done so meanwhile. When this returns it is in the file: who writes it
    /// holds the file until it has.
    fn flush(&self) {
        self.flush_into(&mut self.file.lock());
    }

    fn flush_into(&self, log: &mut Log) {
        log.take(&mut self.state.lock());
        self.write(log);
    }

    /// Writes what was taken. While that fails nothing is kept for later: the ledger has it.
    fn write(&self, log: &mut Log) {
        if let Some(tail) = &mut log.tail {
            tail.extend(&log.outgoing);
        }
        if !self.is_failing()
            && let Err(error) = log.write()
        {
            self.fail(log, &error);
        }
        log.outgoing.clear();
        self.is_long.store(log.length > log.compact_at, Ordering::Relaxed);
    }

    fn fail(&self, log: &Log, error: &io::Error) {
        if self.failing.swap(true, Ordering::Relaxed) {
            return;
        }
        // A byte that the file already has: there is room for it even on a full disk.
        let marked = log.file.write_all_at(&[1], INCOMPLETE_AT).and_then(|()| log.file.set_len(log.length));
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
        while self.wait_for_work() {
            self.flush();
            if self.is_failing() || self.is_long(&self.state.lock()) {
                self.write_anew();
            } else if synced.elapsed() >= SYNC_EVERY {
                self.sync();
                synced = time::now();
            }
        }
        if self.is_failing() {
            self.write_anew();
        }
        {
            let mut state = self.state.lock();
            let moment = self.clock.moment();
            state.record(moment, &Record::Closed);
        }
        self.flush();
        self.sync();
    }

    /// Waits until there is something to do, and a moment more for what comes with it. `false`: the thread is to end.
    fn wait_for_work(&self) -> bool {
        let mut state = self.state.lock();
        while !state.stopping && !self.has_work(&state) {
            state.asleep = true;
            self.wake.wait(&mut state);
        }
        if !state.stopping {
            let pause = if self.is_failing() { RETRY_EVERY } else { FLUSH_AFTER };
            self.wake.wait_for(&mut state, pause);
            return true;
        }
        false
    }

    /// Tells the thread to end.
    pub(super) fn stop(&self) {
        self.state.lock().stopping = true;
        self.wake.notify_one();
    }

    fn has_work(&self, state: &State) -> bool {
        !state.buffer.is_empty() || state.unsynced || self.is_long(state) || self.is_failing()
    }

    fn is_long(&self, state: &State) -> bool {
        self.is_long.load(Ordering::Relaxed) || state.ledger.is_crowded()
    }

    /// Waits for the disk, if it may lack something.
    fn sync(&self) {
        if !std::mem::take(&mut self.state.lock().unsynced) {
            return;
        }
        // Whatever was taken before now is in the file once that is free.
        let file = Arc::clone(&self.file.lock().file);
        if let Err(error) = file.sync_data() {
            self.fail(&self.file.lock(), &error);
        }
    }

    /// Writes the file anew, with what still counts, and logs what comes of it.
    pub(super) fn write_anew(&self) {
        match self.try_write_anew() {
            Ok(true) => tracing::info!(file = ?self.folder.journal(), "the journal is written again, and complete"),
            Ok(false) => {}
            Err(_) if self.is_failing() => {} // it was said
            Err(error) => {
                let mut log = self.file.lock();
                log.compact_at = log.length + COMPACT_AT;
                self.is_long.store(false, Ordering::Relaxed);
                tracing::warn!(%error, bytes = log.length, "the journal cannot be written anew; it grows on");
            }
        }
    }

    /// Calls wait for it while memory is copied, and while what came meanwhile is written; not for the disk. Says whether
    /// that ended a time in which the journal could not be written.
    fn try_write_anew(&self) -> io::Result<bool> {
        let bytes = {
            let mut log = self.file.lock();
            let bytes = {
                let mut state = self.state.lock();
                log.take(&mut state);
                let moment = self.clock.moment();
                state.ledger.forget(moment.boot);
                written_anew(&state.ledger, &*self.clock, moment)
            };
            self.write(&mut log);
            log.tail = Some(Vec::new());
            bytes
        };
        let file = self.folder.next().and_then(|file| {
            file.write_all_at(&bytes, 0)?;
            file.sync_data()?;
            Ok(file)
        });
        let mut log = self.file.lock();
        self.flush_into(&mut log);
        let tail = log.tail.take().unwrap_or_default();
        let (file, length) = (file?, bytes.len() as u64);
        file.write_all_at(&tail, length)?;
        self.folder.replace()?;
        log.file = Arc::new(file);
        log.length = length + tail.len() as u64;
        log.compact_at = compact_at(log.length);
        self.is_long.store(false, Ordering::Relaxed);
        self.state.lock().unsynced = true;
        // Under the lock: whatever comes next goes into this file.
        let mended = self.failing.swap(false, Ordering::Relaxed);
        drop(log);
        self.folder.sync()?;
        Ok(mended)
    }

    /// Writes what waits, now.
    #[cfg(test)]
    pub(super) fn flush_now(&self) -> u64 {
        let mut log = self.file.lock();
        self.flush_into(&mut log);
        log.length
    }

    /// Nothing is written until this is dropped.
    #[cfg(test)]
    pub(super) fn stall(&self) -> impl Drop {
        self.file.lock()
    }

    /// So many bytes of records wait for a write.
    #[cfg(test)]
    pub(super) fn waiting(&self) -> usize {
        self.state.lock().buffer.len()
    }

    /// Everything goes into another file from now on.
    #[cfg(test)]
    pub(super) fn write_into(&self, file: File) {
        self.file.lock().file = Arc::new(file);
    }
}

impl Log {
    /// Takes what waits, to be written.
    fn take(&mut self, state: &mut State) {
        std::mem::swap(&mut state.buffer, &mut self.outgoing);
        state.unsynced |= !self.outgoing.is_empty();
    }

    /// Writes what was taken, in pieces of which a kill cuts one at most.
    fn write(&mut self) -> io::Result<()> {
        for piece in self.outgoing.chunks(WRITE_MAX) {
            self.file.write_all_at(piece, self.length)?;
            self.length += piece.len() as u64;
        }
        Ok(())
    }
}

impl State {
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
