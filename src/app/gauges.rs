//! Gauges that mirror the state.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;

use crate::admission::{Admission, BreakerStatus};
use crate::breaker::Position;
use crate::limits::journal::Journal;
use crate::memory::Memory;
use crate::metrics::{BreakerState, MemoryKind, Metrics};
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
    let counted = Counted::default();
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
        counted.show(metrics, &admission.breakers());
    });
}

/// What was counted of each upstream when somebody looked last: how often its breaker has opened, and its limit signals.
#[derive(Debug, Default)]
struct Counted(Mutex<HashMap<Arc<str>, (u64, u64)>>);

impl Counted {
    fn show(&self, metrics: &Metrics, breakers: &[BreakerStatus]) {
        let mut counted = self.0.lock();
        for BreakerStatus { upstream, breaker, limit_signals } in breakers {
            let measures = metrics.upstream(upstream, 0);
            measures.set_breaker(match breaker.position {
                Position::Closed => BreakerState::Closed,
                Position::HalfOpen => BreakerState::HalfOpen,
                Position::Open => BreakerState::Open,
            });
            let (opens, signals) =
                counted.insert(Arc::clone(upstream), (breaker.opens, *limit_signals)).unwrap_or_default();
            // An upstream that was gone for a while counts from zero.
            let more = |now: u64, before: u64| now.checked_sub(before).unwrap_or(now);
            measures.breaker_opened(more(breaker.opens, opens));
            measures.limit_signals(more(*limit_signals, signals));
        }
        counted.retain(|upstream, _| breakers.iter().any(|status| status.upstream == *upstream));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::breaker::Status;

    #[test]
    fn what_was_counted_by_admission_is_counted_once() {
        let (metrics, counted) = (Metrics::new(), Counted::default());
        let status = |opens, limit_signals| BreakerStatus {
            upstream: "main".into(),
            breaker: Status { position: Position::Open, failures: 5, opens, probe_at: None },
            limit_signals,
        };
        // Then it is gone, and is back.
        for seen in [vec![status(2, 1)], vec![status(2, 1)], vec![status(3, 1)], vec![], vec![status(1, 0)]] {
            counted.show(&metrics, &seen);
        }
        let text = metrics.render();
        for line in [
            r#"tidegate_breaker_opened_total{upstream="main"} 4"#,
            r#"tidegate_limit_signals_total{upstream="main"} 1"#,
            r#"tidegate_breaker_state{upstream="main"} 2"#,
        ] {
            assert!(text.lines().any(|found| found == line), "no {line} in\n{text}");
        }
    }
}
