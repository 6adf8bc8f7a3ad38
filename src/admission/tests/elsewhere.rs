//! A call that has failed somewhere goes elsewhere, if it can.

use super::*;

fn two() -> Admission {
    admission(vec![way("a", &["k", "l"], quota(40, 2)), way("b", &["k"], quota(40, 1))], BOUNDS)
}

/// Where a permit goes, and back.
fn lane(permit: &Permit) -> (String, KeyId) {
    (permit.lane().upstream.to_string(), permit.lane().key)
}

#[tokio::test(start_paused = true)]
async fn a_call_prefers_where_it_has_not_failed() {
    let admission = two();
    let mut place = admission.place(demand(Priority::Normal));
    let first = place.permit().await.unwrap();
    assert_eq!(&*first.lane().upstream, "a");
    place.failed(first.lane(), Blame::Key);
    let other_key = place.permit().await.unwrap();
    assert_eq!(&*other_key.lane().upstream, "a");
    assert_ne!(other_key.lane().key, first.lane().key);
    place.failed(other_key.lane(), Blame::Upstream);
    let other = place.permit().await.unwrap();
    assert_eq!(lane(&other), ("b".to_owned(), KeyId::of("k")));
    place.failed(other.lane(), Blame::Upstream);
    drop((first, other_key, other));
    // Where it has failed everywhere, all are alike.
    assert_eq!(&*place.permit().await.unwrap().lane().upstream, "a");
}

#[tokio::test(start_paused = true)]
async fn a_call_that_failed_still_goes_back_where_only_that_is_free() {
    let admission = two();
    let _busy = {
        let mut place = admission.place(demand(Priority::Normal));
        let lane = LaneId { upstream: "a".into(), key: KeyId::of("k") };
        place.failed(&lane, Blame::Upstream);
        place.permit().await.unwrap()
    };
    let mut place = admission.place(demand(Priority::Normal));
    let first = place.permit().await.unwrap();
    place.failed(first.lane(), Blame::Upstream);
    assert!(place.elsewhere().is_none());
    assert_eq!(&*poll_once(place.permit()).unwrap().unwrap().lane().upstream, "a");
}

#[tokio::test(start_paused = true)]
async fn elsewhere_is_another_upstream_or_another_key_by_what_is_to_blame() {
    for (blame, upstream) in [(Blame::Key, "a"), (Blame::Upstream, "b")] {
        let admission = two();
        let mut place = admission.place(demand(Priority::Normal));
        let first = place.permit().await.unwrap();
        place.failed(first.lane(), blame);
        let second = place.elsewhere().unwrap();
        assert_eq!(&*second.lane().upstream, upstream, "{blame:?}");
        assert_ne!(second.lane(), first.lane());
    }
    // One that all keys share is the lane of each.
    let shared = Way { scope: Scope::Upstream, ..way("up", &["a", "b"], quota(40, 2)) };
    let admission = admission(vec![shared], BOUNDS);
    let mut place = admission.place(demand(Priority::Normal));
    let first = place.permit().await.unwrap();
    place.failed(first.lane(), Blame::Key);
    assert!(place.elsewhere().is_none());
}

#[tokio::test(start_paused = true)]
async fn elsewhere_takes_nothing_from_those_who_wait() {
    let admission = two();
    let only_b = || Demand { model: Some("b".into()), ..demand(Priority::Normal) };
    let serves_b: Matcher = Arc::new(|_| true);
    let serves_a: Matcher = Arc::new(|model| model != Some("b"));
    admission.reconfigure(
        vec![
            Way { serves: serves_a, ..way("a", &["k"], quota(40, 2)) },
            Way { serves: serves_b, ..way("b", &["k"], quota(40, 1)) },
        ],
        Vec::new(),
        BOUNDS,
    );
    let mut place = admission.place(demand(Priority::Normal));
    let first = place.permit().await.unwrap();
    place.failed(first.lane(), Blame::Upstream);
    let busy = admission.place(only_b()).permit().await.unwrap();
    let mut waiting = admission.place(only_b());
    let waiting = tokio::task::spawn(async move { waiting.permit().await.map(spend) });
    wait_for(&admission, 1).await;
    assert!(place.elsewhere().is_none());
    spend(busy);
    assert!(place.elsewhere().is_none(), "its slot cools, and then it is another's");
    waiting.await.unwrap().unwrap();
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert!(place.elsewhere().is_some());
}

#[tokio::test(start_paused = true)]
async fn waiting_that_begins_anew_has_another_deadline() {
    let admission = one(quota(40, 1));
    let _busy = admission.place(demand(Priority::Normal)).permit().await.unwrap();
    let deadline = time::now() + Duration::from_secs(3);
    let mut place = admission.place(Demand { deadline, ..demand(Priority::Normal) });
    assert!(matches!(place.permit().await, Err(Refusal::QueueTimeout { .. })));
    let deadline = time::now() + Duration::from_secs(7);
    place.renew(deadline);
    assert!(matches!(place.permit().await, Err(Refusal::QueueTimeout { .. })));
    assert_eq!((time::now(), place.deadline()), (deadline, deadline));
}

/// A call that goes and finds that the provider does not know its key. Says which that was, and whether another one serves.
async fn is_unknown(place: &mut Place) -> (KeyId, bool) {
    let permit = place.permit().await.unwrap();
    let lane = permit.lane().clone();
    spend(permit);
    let has_others = place.key_is_unknown(&lane);
    place.failed(&lane, Blame::Key);
    (lane.key, has_others)
}

#[tokio::test(start_paused = true)]
async fn of_keys_that_share_their_limits_one_that_is_unknown_is_left_out_for_a_minute() {
    let shared = Way { scope: Scope::Upstream, ..way("up", &["good", "bad"], quota(400, 20)) };
    let admission = admission(vec![shared], BOUNDS);
    let mut place = admission.place(demand(Priority::Normal));
    let (good, bad) = (KeyId::of("good"), KeyId::of("bad"));
    assert_eq!(is_unknown(&mut place).await, (bad, true));
    let start = time::now();
    let mut keys = Vec::new();
    for _ in 0..4 {
        let permit = admission.place(demand(Priority::Normal)).permit().await.unwrap();
        keys.push(permit.lane().key);
        spend(permit);
    }
    assert_eq!((keys, start.elapsed()), (vec![good; 4], Duration::ZERO));
    tokio::time::sleep(Duration::from_secs(60)).await;
    // For others it is tried again; the call that knows keeps away from it.
    let again = [admission.place(demand(Priority::Normal)).permit().await, place.permit().await];
    assert_eq!(again.map(|permit| permit.unwrap().lane().key), [bad, good]);
    assert_eq!(is_unknown(&mut place).await, (good, false), "there is no third");
    assert!(matches!(place.permit().await.map(drop), Err(Refusal::NoUpstream { .. })));
}

#[tokio::test(start_paused = true)]
async fn what_is_not_counted_asks_no_key_twice_that_is_unknown() {
    let ways = vec![way("a", &["k", "l"], quota(40, 2)), way("b", &["m"], quota(40, 2))];
    let admission = admission(ways, BOUNDS);
    let exempt = || admission.place(Demand { exempt: true, ..demand(Priority::Normal) });
    let mut place = exempt();
    let [k, l, m] = ["k", "l", "m"].map(KeyId::of);
    assert_eq!(is_unknown(&mut place).await, (k, true));
    assert_eq!(exempt().permit().await.unwrap().lane().key, l, "nor does anybody else for a while");
    assert_eq!(is_unknown(&mut place).await, (l, true));
    assert_eq!(is_unknown(&mut place).await, (m, false));
    assert!(matches!(place.permit().await.map(drop), Err(Refusal::NoUpstream { .. })));
}

#[tokio::test(start_paused = true)]
async fn what_is_not_counted_goes_where_it_has_not_failed_and_where_nobody_waits_for_a_probe() {
    let admission = two();
    let exempt = || admission.place(Demand { exempt: true, ..demand(Priority::Normal) });
    let mut place = exempt();
    let first = place.permit().await.unwrap().lane().clone();
    place.failed(&first, Blame::Upstream);
    assert_eq!((&*first.upstream, &*place.permit().await.unwrap().lane().upstream), ("a", "b"));
    // One of them finds no slot of that one.
    for _ in 0..6 {
        let mut permit = admission.place(demand(Priority::Normal)).permit().await.unwrap();
        permit.writing();
        permit.failed();
        permit.ended();
    }
    assert_eq!(&*exempt().permit().await.unwrap().lane().upstream, "b");
    place.failed(&LaneId { upstream: "b".into(), key: KeyId::of("k") }, Blame::Upstream);
    assert_eq!(&*place.permit().await.unwrap().lane().upstream, "b", "it has failed at both");
}
