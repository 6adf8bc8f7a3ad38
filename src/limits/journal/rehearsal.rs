//! Kills as other rooms rehearse them: a machine in tokio's time, whose wall clock can be set, which boots, and on which a
//! journal can be killed at any moment.

use std::sync::Arc;

use parking_lot::Mutex;

use super::clock::{BootId, Clock, Moment};
use super::{Journal, Owner, Recovered, begin, nanos};
use crate::time::{self, Duration, Instant};

/// How a process ends that does not end by itself.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Death {
    /// What nobody waits for was written just before; else it is lost.
    pub(crate) flushed: bool,
    /// The file was just written anew.
    pub(crate) compacted: bool,
    /// So many bytes of a write came through that was under way.
    pub(crate) torn: usize,
}

/// A machine and its disk.
#[derive(Debug)]
pub(crate) struct Machine {
    clock: Arc<Hands>,
    /// The disk, as the last kill has left it.
    disk: tempfile::TempDir,
}

/// Its clocks.
#[derive(Debug)]
struct Hands(Mutex<Set>);

#[derive(Debug, Clone, Copy)]
struct Set {
    booted: Instant,
    boots: u128,
    /// What the wall clock shows at `booted`.
    wall: i64,
}

impl Clock for Hands {
    fn moment(&self) -> Moment {
        let Set { booted, wall, .. } = *self.0.lock();
        let boot = nanos(booted.elapsed());
        // Whatever runs here began after the boot.
        Moment { boot: boot + 1, wall: wall + boot }
    }

    fn boot_id(&self) -> BootId {
        BootId(self.0.lock().boots)
    }
}

impl Machine {
    /// With an empty disk.
    pub(crate) fn new() -> Self {
        let set = Set { booted: time::now(), boots: 1, wall: 1_700_000_000_000_000_000 };
        Self { clock: Arc::new(Hands(Mutex::new(set))), disk: disk() }
    }

    /// A process starts. Its journal has no thread: what nobody waits for stays in memory until the next request.
    pub(crate) fn start(&self, keep: Duration) -> (Journal, Recovered) {
        let (writer, recovered) = begin(self.disk.path(), keep, Arc::clone(&self.clock) as Arc<dyn Clock>).unwrap();
        (Journal(Some(Arc::new(Owner { writer, thread: Mutex::new(None) }))), recovered)
    }

    /// The process with this journal is killed. Whatever is still done to the journal then reaches nobody.
    pub(crate) fn kill(&mut self, journal: &Journal, death: Death) {
        let writer = &journal.0.as_ref().expect("a journal that is on").writer;
        if death.flushed {
            writer.flush_now();
        }
        if death.compacted {
            writer.write_anew();
        }
        let mut bytes = std::fs::read(self.disk.path().join("journal")).unwrap();
        bytes.resize(bytes.len() + death.torn, 0xff);
        self.disk = disk();
        std::fs::write(self.disk.path().join("journal"), bytes).unwrap();
    }

    /// Somebody sets the wall clock.
    pub(crate) fn step(&self, nanos: i64) {
        self.clock.0.lock().wall += nanos;
    }

    /// The machine boots, in no time.
    pub(crate) fn boot(&self) {
        let wall = self.clock.moment().wall;
        let mut set = self.clock.0.lock();
        *set = Set { booted: time::now(), boots: set.boots + 1, wall };
    }
}

/// In memory where that can be had: nothing here waits for a disk that is true.
fn disk() -> tempfile::TempDir {
    tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap()
}
