//! Ten thousand wait: what a decision costs then, a look at where one stands, an early refusal, a thousand who leave at
//! once, and the whole list; each also as a ratio to a decision with nobody else there, taken in the same run.
#![expect(clippy::print_stdout, reason = "ratios, which criterion does not know")]

use std::cell::RefCell;
use std::collections::VecDeque;
use std::hint::black_box;
use std::num::NonZeroU32;
use std::sync::Arc;

use criterion::Criterion;
use tidegate::admission::settings::OnLimit;
use tidegate::admission::{Admission, Bounds, ClientQuota, Demand, Refusal, Way};
use tidegate::ids::{ClientId, KeyId};
use tidegate::limits::Quota;
use tidegate::limits::settings::Scope;
use tidegate::time::{self, Duration};
use tidegate::units::Priority;

use super::admission::{Waiting, poll, quota, take_and_end};

const WAITING: usize = 10_000;
const LEAVING: usize = 1_000;
/// Nobody's wait ends while this lasts.
const LONG: Duration = Duration::from_secs(24 * 3_600);

/// Who waits.
#[derive(Debug, Clone, Copy)]
struct Crowd {
    name: &'static str,
    /// Each client's weight.
    weights: fn(usize) -> u32,
    clients: usize,
    /// Whose the n-th call is: each has as many as its share.
    whose: fn(usize) -> usize,
}

const CROWDS: [Crowd; 3] = [
    Crowd { name: "1_client", weights: |_| 1, clients: 1, whose: |_| 0 },
    Crowd { name: "1000_clients", weights: |_| 1, clients: 1_000, whose: |number| number % 1_000 },
    Crowd {
        name: "5_weights",
        weights: |client| [1, 1, 1, 1, 4][client],
        clients: 5,
        whose: |number| [0, 4, 1, 4, 2, 4, 3, 4][number % 8],
    },
];

impl Crowd {
    fn id(client: usize) -> ClientId {
        ClientId::Named(format!("client-{client}").into())
    }

    /// Admission with these clients, by limits that let one call go when another ends.
    fn admission(self, quota: Quota) -> Admission {
        let way = Way {
            upstream: "up".into(),
            serves: Arc::new(|_| true),
            keys: vec![KeyId::PASS_THROUGH],
            quota,
            orphan_hold: Duration::ZERO,
            scope: Scope::Upstream,
            passes_keys: false,
        };
        let bounds = Bounds { queue_max: 1_000_000, queue_bytes_max: u64::MAX, floors: [0.0, 0.10, 0.05] };
        let client = |client| ClientQuota {
            id: Self::id(client),
            weight: NonZeroU32::new((self.weights)(client)).unwrap(),
            quota: Quota::unlimited(),
            on_limit: OnLimit::Wait,
        };
        let admission = Admission::new(vec![way.clone()], bounds);
        admission.reconfigure(vec![way], (0..self.clients).map(client).collect(), bounds);
        admission
    }

    fn demand(self, number: usize) -> Demand {
        let client = Self::id((self.whose)(number));
        Demand { client, bytes: 2_048, ..Demand::new(Priority::Normal, time::now() + LONG) }
    }

    fn ask(self, admission: &Admission, number: usize) -> Waiting {
        let mut place = admission.place(self.demand(number));
        Box::pin(async move { place.permit().await })
    }

    /// So many who wait, by number.
    fn line_up(self, admission: &Admission, count: usize) -> VecDeque<Waiting> {
        let wait = |number| {
            let mut waiting = self.ask(admission, number);
            assert!(poll(&mut waiting).is_none());
            waiting
        };
        (0..count).map(wait).collect()
    }
}

/// Criterion, and the medians of what it measured.
struct Bench<'a> {
    criterion: &'a mut Criterion,
    medians: Vec<(String, f64)>,
}

impl Bench<'_> {
    /// Measures what takes so long for so many.
    fn measure(&mut self, name: &str, mut takes: impl FnMut(u64) -> Duration) {
        let each = RefCell::new(Vec::new());
        self.criterion.bench_function(&format!("admission/10_000_waiting/{name}"), |bench| {
            bench.iter_custom(|count| {
                let took = takes(count);
                each.borrow_mut().push(took.as_secs_f64() * 1e9 / count as f64);
                took
            });
        });
        let mut each = each.into_inner();
        each.sort_unstable_by(f64::total_cmp);
        if let Some(median) = each.get(each.len() / 2) {
            self.medians.push((name.to_owned(), *median));
        }
    }

    fn tell_ratios(&self) {
        let Some((_, alone)) = self.medians.first() else { return };
        for (name, median) in &self.medians {
            println!("{name:<34}{median:>14.0} ns {:>12.2} × alone", median / alone);
        }
    }
}

pub(crate) fn benches(criterion: &mut Criterion) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    let _entered = runtime.enter();
    let mut bench = Bench { criterion, medians: Vec::new() };
    let alone = CROWDS[0].admission(quota(1_000));
    bench.measure("alone", |count| timed(|| (0..count).for_each(|_| take_and_end(&alone))));
    for crowd in CROWDS {
        next(&mut bench, crowd);
        look(&mut bench, crowd);
        leave(&mut bench, crowd);
    }
    bench.tell_ratios();
}

/// An exchange ends, whoever is next goes, and another lines up.
fn next(bench: &mut Bench<'_>, crowd: Crowd) {
    let admission = crowd.admission(quota(1));
    let mut running = poll(&mut crowd.ask(&admission, 0));
    let mut line = crowd.line_up(&admission, WAITING);
    let mut number = WAITING;
    bench.measure(&format!("next/{}", crowd.name), |count| {
        timed(|| {
            for _ in 0..count {
                let mut late = crowd.ask(&admission, number);
                assert!(poll(&mut late).is_none());
                line.push_back(late);
                number += 1;
                let mut ended = running.take().unwrap();
                ended.writing();
                ended.ended();
                // Weights change the order, so the next need not be the first; it is near.
                let at = line.iter_mut().position(|waiting| {
                    running = poll(waiting);
                    running.is_some()
                });
                drop(line.remove(at.unwrap()));
            }
        })
    });
}

/// By a rate at which the last of them waits for hours: where the last stands, who cannot wait that long, all of them.
fn look(bench: &mut Bench<'_>, crowd: Crowd) {
    let slow = Quota {
        requests: NonZeroU32::new(40),
        window: Duration::from_secs(60),
        window_margin: Duration::from_millis(500),
        ..quota(1_000)
    };
    let admission = crowd.admission(slow);
    let mut burst: Vec<_> = (0..40).map_while(|_| poll(&mut crowd.ask(&admission, 0))).collect();
    for permit in &mut burst {
        permit.writing();
        permit.written();
    }
    let line = crowd.line_up(&admission, WAITING);
    let mut place = admission.place(crowd.demand(WAITING));
    let outlook = place.outlook();
    let mut last: Waiting = Box::pin(async move { place.permit().await });
    assert!(poll(&mut last).is_none());
    assert!(outlook().is_some_and(|outlook| outlook.position > 9_000));
    bench.measure(&format!("outlook/{}", crowd.name), |count| {
        timed(|| (0..count).for_each(|_| assert!(black_box(outlook()).is_some())))
    });
    bench.measure(&format!("early_refusal/{}", crowd.name), |count| {
        timed(|| {
            for number in 0..count {
                let mut demand = crowd.demand(usize::try_from(number).unwrap());
                demand.deadline = time::now() + Duration::from_secs(5);
                let mut place = admission.place(demand);
                let mut asked = Box::pin(place.permit());
                let waker = std::task::Waker::noop();
                let refused = asked.as_mut().poll(&mut std::task::Context::from_waker(waker));
                assert!(matches!(refused, std::task::Poll::Ready(Err(Refusal::DeadlineUnreachable { .. }))));
            }
        })
    });
    bench.measure(&format!("list_all/{}", crowd.name), |count| {
        timed(|| (0..count).for_each(|_| assert!(black_box(admission.queue(WAITING)).calls.len() == WAITING)))
    });
    drop((burst, line, last));
}

/// A thousand calls leave at once; per call.
fn leave(bench: &mut Bench<'_>, crowd: Crowd) {
    let admission = crowd.admission(quota(1));
    let running = poll(&mut crowd.ask(&admission, 0));
    let mut line = crowd.line_up(&admission, WAITING);
    bench.measure(&format!("leave_of_1000/{}", crowd.name), |count| {
        let (mut took, mut left) = (Duration::ZERO, count);
        while left > 0 {
            let now = left.min(LEAVING as u64);
            let leaving: Vec<_> = line.drain(..usize::try_from(now).unwrap()).collect();
            took += timed(|| drop(leaving));
            line.extend(crowd.line_up(&admission, usize::try_from(now).unwrap()));
            left -= now;
        }
        took
    });
    drop(running);
}

fn timed(run: impl FnOnce()) -> Duration {
    let begun = time::now();
    run();
    begun.elapsed()
}
