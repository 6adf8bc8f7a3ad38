//! What is measured for each client.
//!
//! Only names out of the settings become labels. Everybody else (keys that go through, names that a trusted gateway
//! gives) is counted together as `other`, so that nobody outside can make series.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use prometheus::{Counter, CounterVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec};

use super::family::{Catalogue, certain, figure};
use crate::ids::ClientId;

/// The label of those who have none of their own.
const OTHER: &str = "other";

/// The families that have a `client` label, and who has one.
#[derive(Debug)]
pub(super) struct Clients {
    families: Families,
    other: Child,
    named: ArcSwap<HashMap<Arc<str>, Child>>,
}

#[derive(Debug)]
struct Families {
    permits: IntCounterVec,
    wait: CounterVec,
    waiting: IntGaugeVec,
}

#[derive(Debug, Clone)]
struct Child {
    permits: IntCounter,
    wait: Counter,
    waiting: IntGauge,
}

impl Families {
    fn child(&self, client: &str) -> Child {
        Child {
            permits: certain(self.permits.get_metric_with_label_values(&[client])),
            wait: certain(self.wait.get_metric_with_label_values(&[client])),
            waiting: certain(self.waiting.get_metric_with_label_values(&[client])),
        }
    }

    fn forget(&self, client: &str) {
        // One that was never there is as good as gone.
        drop(self.permits.remove_label_values(&[client]));
        drop(self.wait.remove_label_values(&[client]));
        drop(self.waiting.remove_label_values(&[client]));
    }
}

impl Clients {
    pub(super) fn new(all: &Catalogue) -> Self {
        let label = &["client"];
        let families = Families {
            permits: all.counters("tidegate_client_permits_total", "Permits that calls of a client used.", label),
            wait: all.seconds_counters(
                "tidegate_client_wait_seconds_total",
                "How long calls of a client waited for their permits.",
                label,
            ),
            waiting: all.gauges("tidegate_client_waiting", "Calls of a client that wait for a permit.", label),
        };
        Self { other: families.child(OTHER), families, named: ArcSwap::default() }
    }

    /// The clients of the settings, from now on; who is no more among them is forgotten.
    pub(super) fn declare<'a>(&self, names: impl Iterator<Item = &'a str>) {
        let named: HashMap<Arc<str>, Child> =
            names.filter(|name| *name != OTHER).map(|name| (Arc::from(name), self.families.child(name))).collect();
        let before = self.named.load_full();
        before.keys().filter(|name| !named.contains_key(*name)).for_each(|name| self.families.forget(name));
        self.named.store(Arc::new(named));
    }

    pub(super) fn served(&self, client: &ClientId, permits: u32, wait: Duration) {
        let named = self.named.load();
        let child = of(&named, client).unwrap_or(&self.other);
        child.permits.inc_by(permits.into());
        child.wait.inc_by(wait.as_secs_f64());
    }

    /// How many calls of each client wait now. Who is not named has none.
    pub(super) fn set_waiting<'a>(&self, waiting: impl Iterator<Item = (&'a ClientId, u32)>) {
        let named = self.named.load();
        let mut sums: HashMap<&str, u64> = named.keys().map(|name| (&**name, 0)).collect();
        let mut others = 0_u64;
        for (client, calls) in waiting {
            let sum = match client {
                ClientId::Named(name) => sums.get_mut(&**name),
                ClientId::Everybody | ClientId::Key(_) => None,
            };
            *sum.unwrap_or(&mut others) += u64::from(calls);
        }
        self.other.waiting.set(figure(others));
        for (name, child) in named.iter() {
            child.waiting.set(figure(sums.get(&**name).copied().unwrap_or(0)));
        }
    }
}

fn of<'a>(named: &'a HashMap<Arc<str>, Child>, client: &ClientId) -> Option<&'a Child> {
    match client {
        ClientId::Named(name) => named.get(name),
        ClientId::Everybody | ClientId::Key(_) => None,
    }
}
