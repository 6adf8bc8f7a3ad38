//! One decision: may this call go, and if not, who goes next.

use std::collections::VecDeque;
use std::future::Future;
use std::hint::black_box;
use std::num::NonZeroU32;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};
use std::thread;

use criterion::{BenchmarkId, Criterion};
use tidegate::admission::{Admission, Bounds, Demand, Permit, Refusal, Way};
use tidegate::ids::KeyId;
use tidegate::limits::Quota;
use tidegate::limits::settings::Scope;
use tidegate::time::{self, Duration, Instant};
use tidegate::units::Priority;

pub(crate) type Waiting = Pin<Box<dyn Future<Output = Result<Permit, Refusal>> + Send>>;

/// Limits that are checked on every decision and never in the way; of slots as many as `concurrency` says.
pub(crate) fn quota(concurrency: u32) -> Quota {
    Quota {
        requests: NonZeroU32::new(1_000_000_000),
        window: Duration::from_secs(1),
        window_margin: Duration::from_millis(10),
        burst: NonZeroU32::new(1_000_000),
        concurrency: NonZeroU32::new(concurrency),
        slot_release_delay: Duration::ZERO,
        slot_release_delay_aborted: Duration::ZERO,
        ..Quota::default()
    }
}

fn admission(keys: usize, concurrency: u32) -> Admission {
    let keys = (0..keys).map(|key| KeyId::of(&key.to_string())).collect();
    let way = Way {
        upstream: "up".into(),
        serves: Arc::new(|_| true),
        keys,
        quota: quota(concurrency),
        orphan_hold: Duration::ZERO,
        scope: Scope::Key,
        passes_keys: false,
    };
    let bounds = Bounds { queue_max: 1_000_000, queue_bytes_max: u64::MAX, floors: [0.0, 0.10, 0.05] };
    Admission::new(vec![way], bounds)
}

fn ask(admission: &Admission, priority: Priority) -> Waiting {
    let deadline = time::now() + Duration::from_secs(3_600);
    let mut place = admission.place(Demand { bytes: 2_048, ..Demand::new(priority, deadline) });
    Box::pin(async move { place.permit().await })
}

pub(crate) fn poll(waiting: &mut Waiting) -> Option<Permit> {
    match waiting.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(permit) => Some(permit.unwrap()),
        Poll::Pending => None,
    }
}

pub(crate) fn take_and_end(admission: &Admission) {
    let mut permit = poll(&mut ask(admission, Priority::Normal)).unwrap();
    permit.writing();
    permit.ended();
}

/// What one would write first: a vector of stamps, cleaned and counted on each decision; a vector of who waits, searched
/// for the best on each decision.
#[derive(Default)]
struct Naive {
    stamps: Vec<Instant>,
    waiting: Vec<(Priority, u64)>,
}

impl Naive {
    fn admit(&mut self) -> bool {
        let now = time::now();
        self.stamps.retain(|stamp| now.duration_since(*stamp) < Duration::from_millis(1));
        self.stamps.push(now);
        self.stamps.len() < 1_000_000
    }

    fn next(&mut self) -> Option<(Priority, u64)> {
        let best = self.waiting.iter().enumerate().min_by_key(|(_, waiting)| **waiting)?.0;
        Some(self.waiting.remove(best))
    }
}

pub(crate) fn benches(criterion: &mut Criterion) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    let _entered = runtime.enter();
    uncontended(criterion);
    for waiting in [100, 10_000] {
        with_waiting(criterion, waiting);
    }
    for keys in [1, 4] {
        many_threads(criterion, keys);
    }
}

/// A permit taken, its request written, its exchange ended: three critical sections.
fn uncontended(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("admission/uncontended");
    let ours = admission(1, 1_000);
    group.bench_function("take_and_end", |bench| bench.iter(|| take_and_end(&ours)));
    let naive = Mutex::new(Naive::default());
    group.bench_function("naive", |bench| bench.iter(|| black_box(naive.lock().unwrap().admit())));
    group.finish();
}

/// An exchange ends, the best of those who wait goes, another lines up.
fn with_waiting(criterion: &mut Criterion, count: u64) {
    let mut group = criterion.benchmark_group("admission/next_of_waiting");
    group.bench_function(BenchmarkId::new("grant_and_line_up", count), |bench| {
        let ours = admission(1, 1);
        let mut running = poll(&mut ask(&ours, Priority::Normal));
        let mut line = VecDeque::new();
        for _ in 0..count {
            let mut waiting = ask(&ours, Priority::Normal);
            assert!(poll(&mut waiting).is_none());
            line.push_back(waiting);
        }
        bench.iter(|| {
            let mut late = ask(&ours, Priority::Normal);
            assert!(poll(&mut late).is_none());
            line.push_back(late);
            let mut ended = running.take().unwrap();
            ended.writing();
            ended.ended();
            running = poll(&mut line.pop_front().unwrap());
        });
    });
    group.bench_function(BenchmarkId::new("naive", count), |bench| {
        let mut naive = Naive { waiting: (0..count).map(|n| (Priority::Normal, n)).collect(), ..Naive::default() };
        let mut arrival = count;
        bench.iter(|| {
            naive.waiting.push((Priority::Normal, arrival));
            arrival += 1;
            black_box(naive.admit());
            black_box(naive.next())
        });
    });
    group.finish();
}

/// Four threads on the lanes of so many keys.
fn many_threads(criterion: &mut Criterion, keys: usize) {
    const THREADS: u32 = 4;
    let ours = admission(keys, 1_000);
    let mut group = criterion.benchmark_group("admission/four_threads");
    group.bench_function(BenchmarkId::new("take_and_end", format!("{keys}_keys")), |bench| {
        bench.iter_custom(|calls| {
            let each = calls.div_ceil(u64::from(THREADS));
            let start = time::now();
            thread::scope(|scope| {
                for _ in 0..THREADS {
                    scope.spawn(|| (0..each).for_each(|_| take_and_end(&ours)));
                }
            });
            start.elapsed()
        });
    });
    group.finish();
}
