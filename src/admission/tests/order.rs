//! Who goes next: classes, floors, first come first served, places kept.

use parking_lot::Mutex;
use proptest::prelude::*;

use super::*;

type Log = Arc<Mutex<Vec<(Priority, u32)>>>;

/// Lines up `calls` in this order behind a spent window and logs the order in which they go.
async fn order_of(calls: &[Priority], bounds: Bounds) -> Vec<(Priority, u32)> {
    let admission = admission(vec![way("up", &["k"], quota(1, 1))], bounds);
    spend(admission.place(demand(Priority::High)).permit().await.unwrap());
    let log = Log::default();
    let mut waiting = Vec::new();
    for (number, &priority) in calls.iter().enumerate() {
        let (log, number) = (Arc::clone(&log), u32::try_from(number).unwrap());
        let mut place = admission.place(Demand { deadline: time::now() + 1_000 * WINDOW, ..demand(priority) });
        waiting.push(tokio::task::spawn(async move {
            let permit = place.permit().await.unwrap();
            log.lock().push((priority, number));
            spend(permit);
        }));
        wait_for(&admission, waiting.len()).await;
    }
    for call in waiting {
        call.await.unwrap();
    }
    let log = log.lock();
    log.clone()
}

#[tokio::test(start_paused = true)]
async fn classes_are_strict_and_inside_a_class_first_come_is_first_served() {
    use Priority::{High, Low, Normal};
    let calls = [Low, Normal, High, Low, High, Normal];
    let order = order_of(&calls, Bounds { floors: [0.0; 3], ..BOUNDS }).await;
    assert_eq!(order, [(High, 2), (High, 4), (Normal, 1), (Normal, 5), (Low, 0), (Low, 3)]);
}

#[tokio::test(start_paused = true)]
async fn the_winner_is_chosen_when_the_permit_exists() {
    let admission = one(quota(1, 1));
    spend(admission.place(demand(Priority::Normal)).permit().await.unwrap());
    let log = Log::default();
    let ask = |priority| {
        let log = Arc::clone(&log);
        let mut place = admission.place(demand(priority));
        tokio::task::spawn(async move {
            let permit = place.permit().await.unwrap();
            log.lock().push((priority, 0));
            spend(permit);
        })
    };
    let low = ask(Priority::Low);
    wait_for(&admission, 1).await;
    tokio::time::sleep(WINDOW - Duration::from_millis(1)).await;
    let high = ask(Priority::High); // at the last moment
    for call in [high, low] {
        call.await.unwrap();
    }
    assert_eq!(*log.lock(), [(Priority::High, 0), (Priority::Low, 0)]);
}

#[tokio::test(start_paused = true)]
async fn a_retried_call_keeps_its_place_three_times() {
    let admission = one(quota(1, 5));
    let mut first = admission.place(demand(Priority::Normal));
    let second = admission.place(demand(Priority::Normal));
    let mut places = [Some(second)];
    for failures in 1..=4 {
        let permit = first.permit().await.unwrap();
        first.failed(permit.lane(), Blame::Upstream);
        spend(permit);
        let log = Log::default();
        let (rival_log, own_log) = (Arc::clone(&log), Arc::clone(&log));
        let mut rival = places[0].take().unwrap();
        let rival = tokio::task::spawn(async move {
            drop(rival.permit().await.unwrap());
            rival_log.lock().push((Priority::Normal, 2));
            rival
        });
        wait_for(&admission, 1).await;
        let own = tokio::task::spawn(async move {
            let permit = first.permit().await.unwrap();
            own_log.lock().push((Priority::Normal, 1));
            drop(permit);
            first
        });
        wait_for(&admission, 2).await;
        first = own.await.unwrap();
        places = [Some(rival.await.unwrap())];
        let winner = log.lock()[0].1;
        assert_eq!(winner, if failures <= 3 { 1 } else { 2 }, "after {failures} failures");
        tokio::time::sleep(2 * WINDOW).await;
    }
}

fn any_calls() -> impl Strategy<Value = Vec<Priority>> {
    let class = prop_oneof![Just(Priority::High), Just(Priority::Normal), Just(Priority::Low)];
    proptest::collection::vec(class, 1..120)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    /// Inside a class the order is that of arrival; a class that waits is never under its floor; and but for the floors
    /// nobody goes while a higher class waits.
    #[test]
    fn floors_and_class_order_hold(calls in any_calls(), normal in 0.0..0.4, low in 0.0..0.4) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        let floors = [0.0, normal, low];
        let order = runtime.block_on(order_of(&calls, Bounds { floors, ..BOUNDS }));
        for class in Priority::ALL {
            let own: Vec<u32> = order.iter().filter(|(priority, _)| *priority == class).map(|(_, number)| *number).collect();
            prop_assert!(own.is_sorted(), "{class}: {own:?}");
        }
        let mut left = Priority::ALL.map(|class| calls.iter().filter(|call| **call == class).count());
        let (mut earned, mut out_of_order) = ([0.0; 3], [0_usize; 3]);
        for (class, _) in &order {
            for waiting in Priority::ALL {
                earned[waiting as usize] += if left[waiting as usize] > 0 { floors[waiting as usize] } else { 0.0 };
            }
            let higher_waits = Priority::ALL.iter().any(|higher| higher < class && left[*higher as usize] > 0);
            out_of_order[*class as usize] += usize::from(higher_waits);
            left[*class as usize] -= 1;
            let got = |class: Priority| calls.iter().filter(|call| **call == class).count() - left[class as usize];
            for waiting in Priority::ALL {
                if left[waiting as usize] > 0 {
                    let floor = earned[waiting as usize];
                    let got = f64::from(u32::try_from(got(waiting)).unwrap());
                    // Two classes can be due at the same moment; then one of them is served one permit later.
                    prop_assert!(got + 2.0 > floor, "{waiting} got {got}, its floor is {floor}");
                }
            }
        }
        for class in Priority::ALL {
            let allowed = earned[class as usize] + 1.0;
            prop_assert!(f64::from(u32::try_from(out_of_order[class as usize]).unwrap()) <= allowed, "{class}");
        }
    }
}
