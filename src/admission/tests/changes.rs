//! What a reload, a bench or somebody's leaving changes for those who wait.

use super::*;
use crate::limits::settings::Scope;

fn passing(quota: Quota) -> Way {
    Way { passes_keys: true, keys: vec![KeyId::PASS_THROUGH], ..way("up", &[], quota) }
}

fn with_key(key: &str) -> Demand {
    Demand { key: KeyId::of(key), ..demand(Priority::Normal) }
}

fn waiting(admission: &Admission, demand: Demand) -> tokio::task::JoinHandle<Result<Instant, Refusal>> {
    let mut place = admission.place(demand);
    tokio::task::spawn(async move {
        spend(place.permit().await?);
        Ok(time::now())
    })
}

#[tokio::test(start_paused = true)]
async fn a_key_of_clients_that_becomes_ours_stays_a_lane_and_the_other_way_round() {
    let admission = admission(vec![passing(quota(2, 5))], BOUNDS);
    spend(admission.place(with_key("k")).permit().await.unwrap());
    for ways in [vec![way("up", &["k"], quota(2, 5))], vec![passing(quota(2, 5))]] {
        tokio::time::sleep(2 * WINDOW).await;
        // Once more: what is untouched is looked through at each reload.
        admission.reconfigure(ways.clone(), Vec::new(), BOUNDS);
        admission.reconfigure(ways, Vec::new(), BOUNDS);
        let start = time::now();
        let permit = admission.place(with_key("k")).permit().await.unwrap();
        assert_eq!((permit.lane().key, time::now()), (KeyId::of("k"), start));
        spend(permit);
        assert_eq!(used(&admission), 1);
    }
}

#[tokio::test(start_paused = true)]
async fn keys_that_begin_to_share_an_allowance_do_not_begin_anew() {
    let admission = admission(vec![way("up", &["a", "b"], quota(2, 5))], BOUNDS);
    for _ in 0..4 {
        spend(admission.place(demand(Priority::Normal)).permit().await.unwrap());
    }
    let last = time::now();
    let shared = Way { scope: Scope::Upstream, ..way("up", &["a", "b"], quota(2, 5)) };
    admission.reconfigure(vec![shared], Vec::new(), BOUNDS);
    spend(admission.place(demand(Priority::Normal)).permit().await.unwrap());
    assert!(last.elapsed() >= WINDOW, "{:?}", last.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_bench_leaves_a_slot_to_those_for_whom_none_is_reserved() {
    let reserved = Quota { concurrency_reserved: [1, 0, 0], ..quota(40, 5) };
    let admission = one(reserved);
    let mut permit = admission.place(demand(Priority::Normal)).permit().await.unwrap();
    permit.writing();
    let day = Signal { retry_after: Some(Duration::from_secs(7_200)), ..Signal::default() };
    assert!(permit.refused(&day).is_some());
    permit.ended();
    let start = time::now();
    waiting(&admission, demand(Priority::Low)).await.unwrap().unwrap();
    assert_eq!(start.elapsed().as_secs(), 7_200);
}

/// What was reserved was once lost by the first lesson that left no room for it.
#[tokio::test(start_paused = true)]
async fn when_a_bench_is_over_what_is_reserved_is_so_again() {
    let admission = one(Quota { concurrency_reserved: [1, 0, 0], ..quota(40, 2) });
    let mut permit = admission.place(demand(Priority::Normal)).permit().await.unwrap();
    permit.writing();
    let day = Signal { retry_after: Some(Duration::from_secs(7_200)), ..Signal::default() };
    assert!(permit.refused(&day).is_some());
    permit.ended();
    let first = admission.place(demand(Priority::Normal)).permit().await.unwrap();
    first.accepted();
    assert!(poll_once(admission.place(demand(Priority::Low)).permit()).is_none());
    assert!(poll_once(admission.place(demand(Priority::High)).permit()).is_some());
}

#[tokio::test(start_paused = true)]
async fn when_a_bench_is_over_all_go_on_before_the_first_has_ended() {
    let admission = one(quota(40, 5));
    let mut permit = admission.place(demand(Priority::Normal)).permit().await.unwrap();
    permit.writing();
    let day = Signal { retry_after: Some(Duration::from_secs(7_200)), ..Signal::default() };
    assert!(permit.refused(&day).is_some());
    permit.ended();
    let mut place = admission.place(demand(Priority::Normal));
    let mut first = place.permit().await.unwrap();
    let others: Vec<_> = (0..3).map(|_| waiting(&admission, demand(Priority::Normal))).collect();
    wait_for(&admission, 3).await;
    first.writing();
    first.written();
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(admission.waiting(), 3, "one at a time, until it is known that the bench is over");
    first.accepted();
    let start = time::now();
    for other in others {
        other.await.unwrap().unwrap();
    }
    assert!(start.elapsed() < Duration::from_secs(10), "{:?}", start.elapsed());
    first.ended();
}

#[tokio::test(start_paused = true)]
async fn who_waits_behind_a_large_call_goes_when_that_leaves() {
    let limited = Quota { tokens: NonZeroU32::new(100), ..quota(40, 5) };
    let admission = one(limited);
    let large = |tokens| Demand { tokens: Estimate::known(tokens), ..demand(Priority::Normal) };
    spend(admission.place(large(60)).permit().await.unwrap());
    let leaver = waiting(&admission, large(90));
    wait_for(&admission, 1).await;
    let small = waiting(&admission, large(10));
    wait_for(&admission, 2).await;
    let start = time::now();
    leaver.abort();
    assert!(small.await.unwrap().unwrap() < start + Duration::from_secs(3));
}

#[tokio::test(start_paused = true)]
async fn a_connection_that_is_open_for_hours_does_not_make_others_hopeless() {
    let admission = one(quota(40, 2));
    let mut socket = admission.place(demand(Priority::Normal)).permit().await.unwrap();
    socket.writing();
    tokio::time::sleep(Duration::from_secs(3_600)).await;
    socket.ended();
    let mut running: Vec<_> = Vec::new();
    for _ in 0..2 {
        running.push(admission.place(demand(Priority::Normal)).permit().await.unwrap());
    }
    let soon = Demand { deadline: time::now() + Duration::from_secs(100), ..demand(Priority::Normal) };
    let waits = waiting(&admission, soon);
    wait_for(&admission, 1).await;
    running.into_iter().for_each(spend);
    waits.await.unwrap().unwrap();
}
