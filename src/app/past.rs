//! What earlier processes have sent.

use crate::config::Settings;
use crate::limits::journal::{Journal, JournalError, Recovered};
use crate::time::Duration;

/// What earlier processes have sent, and where this one writes it.
#[derive(Debug)]
pub struct Past {
    pub(super) journal: Journal,
    pub(super) recovered: Recovered,
}

impl Past {
    /// Nothing is known, and nothing is remembered.
    #[must_use]
    pub fn none() -> Self {
        Self { journal: Journal::off(), recovered: Recovered::default() }
    }

    /// Opens `server.state_dir`, which is this process's from then on.
    ///
    /// # Errors
    /// When it cannot be used, or is another process's.
    pub fn open(settings: &Settings) -> Result<Self, JournalError> {
        let (journal, recovered) = Journal::open(&settings.server.state_dir, longest_span(settings))?;
        if !recovered.lanes.is_empty() {
            let orphans = recovered.lanes.iter().flat_map(|lane| &lane.orphans);
            let cut: u32 = orphans.map(|orphans| orphans.slots).sum();
            tracing::info!(keys = recovered.lanes.len(), cut, "what was sent before this start still counts");
        }
        Ok(Self { journal, recovered })
    }
}

/// So long stamps have to be exact, with the most that may be learned.
pub(super) fn longest_span(settings: &Settings) -> Duration {
    let spans = settings.upstreams.iter().map(|upstream| {
        let limits = &upstream.limits;
        limits.window + limits.window_margin.max(limits.window / 50)
    });
    spans.max().unwrap_or_default()
}
