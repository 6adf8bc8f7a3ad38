//! Why there is no journal.

use std::io;
use std::path::PathBuf;

/// What keeps a journal from being opened. All of it is for whoever runs the program to mend.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum JournalError {
    /// The directory or a file in it cannot be used.
    #[error(
        "server.state_dir = {dir:?}: cannot {action}: {source}; let this user write there, free space, \
         or choose another directory"
    )]
    Unusable {
        /// `server.state_dir`.
        dir: PathBuf,
        /// What was tried, such as `create it`.
        action: &'static str,
        /// Why it failed.
        source: io::Error,
    },
    /// Another process has it.
    #[error(
        "server.state_dir = {dir:?} is in use by {}; two processes would each spend the whole allowance: stop the \
         other, or give this one a directory and keys of its own",
        pid.as_deref().map_or_else(|| "another process".to_owned(), |pid| format!("process {pid}"))
    )]
    Locked {
        /// `server.state_dir`.
        dir: PathBuf,
        /// The process that has it, where it said so.
        pid: Option<String>,
    },
    /// A later version wrote it.
    #[error(
        "{file:?} has format {found}, this version of tidegate knows up to {known}: run the version that wrote it, or \
         move the file away and wait for one window of the provider before you start"
    )]
    Newer {
        /// The journal.
        file: PathBuf,
        /// Its format.
        found: u32,
        /// Ours.
        known: u32,
    },
    /// It is something else.
    #[error(
        "{file:?} is not a journal of tidegate, or its head is damaged: move it away, and wait for one window of the \
         provider before you start"
    )]
    Foreign {
        /// What was found where the journal should be.
        file: PathBuf,
    },
}
