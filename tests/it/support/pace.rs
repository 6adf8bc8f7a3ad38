//! Time without that in which the machine had no processor for us. A busy one stops a test now and then, and with it all
//! that runs in its process; bounds that are promises of ours hold for the rest.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use rustix::time::{ClockId, clock_gettime};
use tidegate::time::{Instant, Tasks, now};
use tokio_util::task::AbortOnDropHandle;

/// How often we look whether we were stopped.
const TICK: Duration = Duration::from_millis(10);
/// How late a tick comes where nobody else wants the processor.
const LATE: Duration = Duration::from_millis(3);

/// When somebody looked, and the processor time that this process had used by then.
#[derive(Debug, Clone, Copy)]
struct Glance {
    at: Instant,
    worked: Duration,
}

impl Glance {
    fn now() -> Self {
        let worked = clock_gettime(ClockId::ProcessCPUTime);
        let worked = Duration::new(
            worked.tv_sec.try_into().expect("it only grows"),
            worked.tv_nsec.try_into().expect("less than a second"),
        );
        Self { at: now(), worked }
    }

    /// What of the time between two glances, which were to be a tick apart, was ours: in what came on top of the tick we
    /// were stopped, unless we worked.
    fn ours_until(self, next: Self) -> Duration {
        (next.at - self.at).min(TICK + LATE + next.worked.saturating_sub(self.worked))
    }
}

/// Waits for what must happen in a time that is a promise.
pub(crate) async fn within<T>(limit: Duration, what: &str, happens: impl Future<Output = T>) -> T {
    let (mut happens, mut ours) = (pin!(happens), Duration::ZERO);
    while ours < limit {
        let glance = Glance::now();
        if let Ok(happened) = tokio::time::timeout(TICK.min(limit - ours), happens.as_mut()).await {
            return happened;
        }
        ours += glance.ours_until(Glance::now());
    }
    panic!("{what}: not within {limit:?}");
}

/// Tells afterwards what of a time was ours.
pub(crate) struct Pace {
    glances: Arc<Mutex<Vec<Glance>>>,
    _looking: AbortOnDropHandle<()>,
}

impl Pace {
    /// From now on.
    pub(crate) fn watch() -> Self {
        let glances = Arc::new(Mutex::new(vec![Glance::now()]));
        let taken = Arc::clone(&glances);
        let looking = Tasks::default().spawn(async move {
            loop {
                tokio::time::sleep(TICK).await;
                taken.lock().push(Glance::now());
            }
        });
        Self { glances, _looking: AbortOnDropHandle::new(looking) }
    }

    /// What was ours since then.
    pub(crate) fn since(&self, then: Instant) -> Duration {
        self.between(then, now())
    }

    pub(crate) fn between(&self, from: Instant, to: Instant) -> Duration {
        let mut glances = self.glances.lock().clone();
        glances.push(Glance::now());
        let ours = glances.windows(2).map(|pair| {
            let (one, next) = (pair[0], pair[1]);
            let overlap = to.min(next.at).saturating_duration_since(from.max(one.at));
            overlap.min(one.ours_until(next))
        });
        ours.sum()
    }
}

#[tokio::test]
async fn what_was_not_ours_does_not_count() {
    let (pace, began) = (Pace::watch(), now());
    tokio::time::sleep(Duration::from_millis(200)).await;
    let idle = pace.since(began);
    assert!(idle <= began.elapsed() && idle >= TICK, "{idle:?}");
    // Who holds up the thread without work is stopped, as far as anybody can tell.
    let stopped = now();
    std::thread::sleep(Duration::from_millis(300));
    assert!(pace.since(stopped) < Duration::from_millis(200), "{:?}", pace.since(stopped));
    let worked = now();
    let before = Glance::now();
    while Glance::now().worked - before.worked < Duration::from_millis(100) {}
    assert!(pace.since(worked) >= Duration::from_millis(100), "{:?}", pace.since(worked));
}

#[tokio::test]
#[should_panic(expected = "never: not within 50ms")]
async fn what_does_not_happen_in_time_is_told() {
    within(Duration::from_millis(50), "never", std::future::pending::<()>()).await;
}
