//! What a waiting call is promised is what happens, if nothing else does.

use proptest::prelude::*;
use proptest::strategy::ValueTree as _;

use super::shares::{by, client};
use super::*;

/// Calls of one client in one class that come together.
type Group = (usize, usize, usize);

#[derive(Debug, Clone)]
struct World {
    requests: u32,
    burst: u32,
    weights: Vec<u32>,
    /// Seconds at which single calls went before, alone.
    before: Vec<u64>,
    groups: Vec<Group>,
    floors: [f64; 3],
}

fn any_world() -> impl Strategy<Value = World> {
    (
        1_u32..60,
        1_u32..8,
        proptest::collection::vec(1_u32..5, 1..5),
        proptest::collection::vec(0_u64..50, 0..20),
        proptest::collection::vec((0_usize..5, 0_usize..3, 1_usize..12), 1..12),
        (0.0..0.4, 0.0..0.3),
    )
        .prop_map(|(requests, burst, weights, mut before, groups, (normal, low))| {
            before.sort_unstable();
            World { requests, burst, weights, before, groups, floors: [0.0, normal, low] }
        })
}

/// Lines everybody up, asks each what it is promised, and lets them go: how far off each promise was, in intervals.
async fn errors_of(world: World) -> Vec<f64> {
    let quota = Quota { burst: NonZeroU32::new(world.burst), ..quota(world.requests, 1_000) };
    let bounds = Bounds { floors: world.floors, ..BOUNDS };
    let admission = admission(vec![way("up", &["k"], quota)], bounds);
    let clients = world.weights.iter().enumerate().map(|(number, weight)| client(number, *weight)).collect();
    admission.reconfigure(vec![way("up", &["k"], quota)], clients, bounds);
    let start = time::now();
    for second in world.before {
        tokio::time::sleep_until(start + Duration::from_secs(second)).await;
        spend(admission.place(demand(Priority::Normal)).permit().await.unwrap());
    }
    let mut waiting = Vec::new();
    for (number, class, calls) in world.groups {
        for _ in 0..calls {
            let mut place = admission.place(by(number % world.weights.len(), Priority::ALL[class]));
            let look = place.outlook();
            let went = tokio::task::spawn(async move {
                spend(place.permit().await.unwrap());
                time::now()
            });
            tokio::task::yield_now().await;
            waiting.push((look, went));
        }
    }
    // Whoever found a permit has gone by now.
    let asked = time::now();
    let promised: Vec<_> = waiting.into_iter().map(|(look, went)| (look(), went)).collect();
    let interval = (quota.window + quota.window_margin).as_secs_f64() / f64::from(world.requests);
    let (mut errors, mut order) = (Vec::new(), Vec::new());
    for (outlook, went) in promised {
        let Some(outlook) = outlook else { continue };
        let took = went.await.unwrap() - asked;
        errors.push((outlook.eta.unwrap().as_secs_f64() - took.as_secs_f64()) / interval);
        order.push((took, outlook.position));
    }
    order.sort_unstable();
    for ((_, position), place) in order.into_iter().zip(1_u32..) {
        assert!(position.abs_diff(place) <= 1, "position {position} went as {place}");
    }
    errors
}

#[test]
fn a_promise_is_kept_to_an_interval_in_99_of_100() {
    let mut errors = Vec::new();
    let mut runner = proptest::test_runner::TestRunner::deterministic();
    for _ in 0..400 {
        let world = any_world().new_tree(&mut runner).unwrap().current();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        errors.extend(runtime.block_on(errors_of(world)).into_iter().map(f64::abs));
    }
    errors.sort_unstable_by(f64::total_cmp);
    assert!(errors.len() > 10_000, "{} promises", errors.len());
    let p99 = errors[errors.len() * 99 / 100];
    println!("{} promises, p99 of the error {p99:.3} intervals, largest {:?}", errors.len(), errors.last());
    assert!(p99 <= 1.0, "p99 of the error: {p99} intervals");
}

#[tokio::test(start_paused = true)]
async fn a_call_whose_turn_cannot_come_in_time_is_told_so_at_once() {
    let admission = one(quota(40, 100));
    let waiting: Vec<_> = (0..45)
        .map(|_| {
            let mut place = admission.place(demand(Priority::Normal));
            tokio::task::spawn(async move { place.permit().await.map(spend) })
        })
        .collect();
    wait_for(&admission, 40).await;
    let within = |seconds| Demand { deadline: time::now() + Duration::from_secs(seconds), ..demand(Priority::Normal) };
    let began = time::now();
    let refusal = admission.place(within(5)).permit().await.unwrap_err();
    let Refusal::DeadlineUnreachable { turn: Some(turn), left } = refusal else { panic!("{refusal:?}") };
    assert_eq!((began.elapsed(), left), (Duration::ZERO, Duration::from_secs(5)));
    assert!(turn > Duration::from_secs(67) && turn < Duration::from_secs(69), "{turn:?}");
    let chat = Demand { deadline: time::now() + Duration::from_secs(5), ..demand(Priority::High) };
    spend(admission.place(chat).permit().await.unwrap());
    spend(admission.place(within(70)).permit().await.unwrap());
    for call in waiting {
        call.await.unwrap().unwrap();
    }
}
