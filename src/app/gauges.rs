//! Gauges that mirror the state.

use crate::admission::Admission;
use crate::limits::journal::Journal;
use crate::memory::Memory;
use crate::metrics::{MemoryKind, Metrics};
use crate::units::Priority;
use crate::upstream::Upstreams;

/// Gauges mirror the state; they are set when somebody looks.
pub(super) fn show_at_scrapes(
    metrics: &Metrics,
    admission: &Admission,
    upstreams: &Upstreams,
    memory: &Memory,
    journal: &Journal,
) {
    let (admission, upstreams, memory, journal) =
        (admission.clone(), upstreams.clone(), memory.clone(), journal.clone());
    metrics.on_scrape(move |metrics| {
        let snapshot = admission.snapshot();
        for class in Priority::ALL {
            let waiting = snapshot.waiting[class as usize];
            metrics.set_queue_depth(class, usize::try_from(waiting).unwrap_or(usize::MAX));
        }
        metrics.set_queue_bytes(snapshot.bytes);
        for class in Priority::ALL {
            metrics.set_queue_oldest(class, snapshot.oldest[class as usize]);
        }
        metrics.set_journal_failing(journal.is_failing());
        let clients = admission.clients();
        metrics.set_clients_waiting(clients.iter().map(|client| (&client.id, client.waiting.iter().sum())));
        for &kind in MemoryKind::ALL {
            metrics.set_memory(kind, memory.held(kind));
        }
        upstreams.show_lanes(&snapshot.lanes);
        upstreams.show_paused(&admission.paused());
    });
}
