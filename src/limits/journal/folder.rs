//! The directory: whose it is, and its files.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};

use super::JournalError;

const JOURNAL: &str = "journal";
/// A journal that is being written: it counts for nothing until it has the name of the other.
const NEXT: &str = "journal.new";
const LOCK: &str = "lock";

/// `server.state_dir`, which is this process's until this is dropped; the system sees to it, also after a kill.
#[derive(Debug)]
pub(super) struct Folder {
    dir: PathBuf,
    _lock: File,
}

impl Folder {
    /// Makes the directory, where there is none, and locks it.
    pub(super) fn take(dir: &Path) -> Result<Self, JournalError> {
        let fail = |action| move |source| JournalError::Unusable { dir: dir.to_owned(), action, source };
        DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(fail("create it"))?;
        let mut lock = OpenOptions::new();
        let lock = lock.read(true).write(true).create(true).truncate(false).mode(0o600);
        let mut lock = lock.open(dir.join(LOCK)).map_err(fail("open its lock"))?;
        match flock(&lock, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(rustix::io::Errno::WOULDBLOCK) => {
                let mut pid = String::new();
                let said = lock.read_to_string(&mut pid).is_ok_and(|_| !pid.trim().is_empty());
                return Err(JournalError::Locked { dir: dir.to_owned(), pid: said.then(|| pid.trim().to_owned()) });
            }
            Err(error) => return Err(fail("lock it")(error.into())),
        }
        lock.set_len(0).map_err(fail("write its lock"))?;
        lock.write_all(format!("{}\n", std::process::id()).as_bytes()).map_err(fail("write its lock"))?;
        Ok(Self { dir: dir.to_owned(), _lock: lock })
    }

    pub(super) fn journal(&self) -> PathBuf {
        self.dir.join(JOURNAL)
    }

    /// The journal as it stands; `None` when there is none.
    pub(super) fn read(&self) -> io::Result<Option<Vec<u8>>> {
        match std::fs::read(self.journal()) {
            Ok(bytes) => Ok(Some(bytes)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// A file for the next journal.
    pub(super) fn next(&self) -> io::Result<File> {
        let mut options = OpenOptions::new();
        options.write(true).create(true).truncate(true).mode(0o600).open(self.dir.join(NEXT))
    }

    /// The next journal takes the place of the journal, at once.
    pub(super) fn replace(&self) -> io::Result<()> {
        std::fs::rename(self.dir.join(NEXT), self.journal())
    }

    /// Makes the names in the directory survive a power failure.
    pub(super) fn sync(&self) -> io::Result<()> {
        File::open(&self.dir)?.sync_all()
    }

    pub(super) fn unusable(&self, action: &'static str) -> impl FnOnce(io::Error) -> JournalError + use<> {
        let dir = self.dir.clone();
        move |source| JournalError::Unusable { dir, action, source }
    }
}
