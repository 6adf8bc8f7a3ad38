//! Providers that are down: who waits, and who goes first when they are back.

use parking_lot::Mutex;

use super::*;
use crate::breaker::Position;
use crate::breaker::settings::Breaker;

pub(super) const SECOND: Duration = Duration::from_secs(1);

fn unlimited() -> Quota {
    Quota { requests: None, concurrency: None, ..quota(1, 1) }
}

fn fail(mut permit: Permit) -> bool {
    permit.writing();
    let is_probe = permit.is_probe();
    permit.failed();
    permit.ended();
    is_probe
}

pub(super) fn answer(mut permit: Permit) {
    permit.writing();
    permit.answered();
    permit.accepted();
    permit.ended();
}

pub(super) async fn permit(admission: &Admission) -> Permit {
    admission.place(demand(Priority::Normal)).permit().await.unwrap()
}

/// Fails until the breaker opens.
async fn open(admission: &Admission) {
    for _ in 0..5 {
        assert!(!fail(permit(admission).await));
    }
    assert_eq!(position(admission), Position::Open);
}

pub(super) fn position(admission: &Admission) -> Position {
    admission.breakers()[0].breaker.position
}

pub(super) fn waits(admission: &Admission, demand: Demand) -> tokio::task::JoinHandle<Result<Permit, Refusal>> {
    let mut place = admission.place(demand);
    tokio::task::spawn(async move { place.permit().await })
}

pub(super) fn at_a_time(admission: &Admission) -> Option<u32> {
    admission.lanes()[0].usage.at_a_time
}

#[tokio::test(start_paused = true)]
async fn calls_wait_while_the_breaker_is_open_then_one_goes_and_then_the_others() {
    let admission = one(quota(40, 5));
    let start = time::now();
    open(&admission).await;
    let waiting: Vec<_> = (0..4).map(|_| waits(&admission, demand(Priority::Normal))).collect();
    wait_for(&admission, 4).await;
    tokio::time::sleep_until(start + 10 * SECOND - SECOND / 100).await;
    assert_eq!((admission.waiting(), position(&admission)), (4, Position::Open));
    tokio::time::sleep(9 * SECOND).await;
    assert_eq!((admission.waiting(), position(&admission)), (3, Position::HalfOpen));
    let mut waiting = waiting.into_iter();
    let probe = waiting.next().unwrap().await.unwrap().unwrap();
    assert!(probe.is_probe());
    answer(probe);
    assert_eq!(position(&admission), Position::Closed);
    for next in waiting {
        let next = next.await.unwrap().unwrap();
        assert!(!next.is_probe());
        answer(next);
    }
    assert!(start.elapsed() < 50 * SECOND, "{:?}", start.elapsed());
}

#[tokio::test(start_paused = true)]
async fn probe_that_fails_is_told_so_and_opens_it_for_twice_as_long() {
    let admission = one(quota(40, 5));
    open(&admission).await;
    let mut waited = Vec::new();
    for _ in 0..4 {
        let start = time::now();
        assert!(fail(permit(&admission).await));
        waited.push(start.elapsed().as_secs());
    }
    assert_eq!(waited, [10, 20, 40, 60]);
    assert_eq!(admission.breakers()[0].breaker.opens, 5);
}

#[tokio::test(start_paused = true)]
async fn probe_whose_client_leaves_makes_room_for_the_next_at_once() {
    for has_written in [true, false] {
        let admission = one(unlimited());
        open(&admission).await;
        let mut probe = permit(&admission).await;
        let next = waits(&admission, demand(Priority::Normal));
        wait_for(&admission, 1).await;
        let start = time::now();
        if has_written {
            probe.writing();
        }
        drop(probe);
        let next = next.await.unwrap().unwrap();
        assert!(next.is_probe());
        assert_eq!(start.elapsed(), Duration::ZERO, "{has_written}");
        answer(next);
    }
}

#[tokio::test(start_paused = true)]
async fn probe_that_reached_nobody_makes_room_for_the_next() {
    let admission = one(quota(40, 5));
    open(&admission).await;
    let gone = waits(&admission, demand(Priority::Normal));
    let next = waits(&admission, demand(Priority::Normal));
    wait_for(&admission, 2).await;
    // At the very moment of its turn.
    tokio::time::advance(10 * SECOND).await;
    gone.abort();
    assert!(next.await.unwrap().unwrap().is_probe());
}

#[tokio::test(start_paused = true)]
async fn who_cannot_wait_until_the_probe_is_told_so_at_once() {
    let admission = one(quota(40, 5));
    let breaker = Breaker { open: 30 * SECOND, ..Breaker::default() };
    admission.set_caution(Caution { breaker, ..Caution::default() });
    let until = |seconds| Demand { deadline: time::now() + seconds * SECOND, ..demand(Priority::Normal) };
    for _ in 0..4 {
        fail(permit(&admission).await);
    }
    let last = permit(&admission).await;
    let mut running = Vec::new();
    for _ in 0..4 {
        running.push(permit(&admission).await);
    }
    let (hasty, patient) = (waits(&admission, until(20)), waits(&admission, until(100)));
    wait_for(&admission, 2).await;
    let start = time::now();
    fail(last);
    let turn = Some(30 * SECOND);
    assert_eq!(
        hasty.await.unwrap().map(drop),
        Err(Refusal::DeadlineUnreachable { turn, left: until(20).deadline - start })
    );
    // Behind the patient one.
    let late = admission.place(until(25)).permit().await.unwrap_err();
    assert!(matches!(late, Refusal::DeadlineUnreachable { turn: Some(turn), .. } if turn > 30 * SECOND), "{late:?}");
    assert_eq!(start.elapsed(), Duration::ZERO);
    drop(running);
    answer(patient.await.unwrap().unwrap());
    assert_eq!(start.elapsed(), 30 * SECOND);
}

#[tokio::test(start_paused = true)]
async fn while_one_upstream_is_down_the_line_goes_on_at_the_other() {
    let admission = admission(vec![way("a", &["k"], quota(40, 10)), way("b", &["k"], quota(40, 2))], BOUNDS);
    for _ in 0..5 {
        let failed = permit(&admission).await;
        assert_eq!(&*failed.lane().upstream, "a");
        fail(failed);
    }
    let held = [permit(&admission).await, permit(&admission).await];
    assert!(held.iter().all(|permit| &*permit.lane().upstream == "b"));
    let waiting = waits(&admission, demand(Priority::Normal));
    wait_for(&admission, 1).await;
    let start = time::now();
    held.into_iter().for_each(answer);
    let next = waiting.await.unwrap().unwrap();
    assert_eq!(&*next.lane().upstream, "b");
    assert!(start.elapsed() < 2 * SECOND, "{:?}", start.elapsed());
    assert_eq!(admission.breakers().iter().map(|status| status.breaker.opens).collect::<Vec<_>>(), [1, 0]);
}

#[tokio::test(start_paused = true)]
async fn all_keys_of_an_upstream_obey_one_breaker_and_one_of_them_probes() {
    let admission = admission(vec![way("up", &["a", "b"], quota(40, 5))], BOUNDS);
    let start = time::now();
    open(&admission).await;
    let waiting: Vec<_> = (0..6).map(|_| waits(&admission, demand(Priority::Normal))).collect();
    wait_for(&admission, 6).await;
    let mut waiting = waiting.into_iter();
    tokio::time::sleep_until(start + 9 * SECOND).await;
    assert_eq!(admission.waiting(), 6);
    let mut silent = waiting.next().unwrap().await.unwrap().unwrap();
    // It holds its place until it is written. Then, silent for as long as it was open, it is taken for slow, and another
    // one goes.
    tokio::time::sleep_until(start + 29 * SECOND).await;
    assert_eq!(admission.waiting(), 5);
    silent.writing();
    silent.written();
    for (seconds, left) in [(38, 5), (40, 4), (60, 4)] {
        tokio::time::sleep_until(start + seconds * SECOND).await;
        assert_eq!(admission.waiting(), left);
    }
    answer(silent);
    for next in waiting {
        answer(next.await.unwrap().unwrap());
    }
}

#[tokio::test(start_paused = true)]
async fn an_upstream_that_nobody_calls_is_not_said_to_fail_for_ever() {
    let admission = one(quota(40, 5));
    open(&admission).await;
    assert!(admission.is_failing());
    tokio::time::sleep(10 * SECOND).await;
    assert!(!admission.is_failing(), "the next one can go");
    let probe = permit(&admission).await;
    assert!(admission.is_failing(), "others wait for what comes of it");
    drop(probe);
    assert!(!admission.is_failing());
}

#[tokio::test(start_paused = true)]
async fn an_operators_pause_holds_the_probe_too() {
    let admission = one(quota(40, 5));
    open(&admission).await;
    let waiting = waits(&admission, demand(Priority::Normal));
    wait_for(&admission, 1).await;
    admission.pause("up", true);
    tokio::time::sleep(60 * SECOND).await;
    assert_eq!(admission.waiting(), 1);
    let start = time::now();
    admission.pause("up", false);
    answer(waiting.await.unwrap().unwrap());
    assert_eq!((start.elapsed(), position(&admission)), (Duration::ZERO, Position::Closed));
}

#[tokio::test(start_paused = true)]
async fn a_reload_keeps_the_breaker_open_and_forgets_one_whose_upstream_is_gone() {
    let ways = |name: &'static str| vec![way(name, &["k"], quota(40, 5))];
    let admission = admission(ways("up"), BOUNDS);
    open(&admission).await;
    let old = waits(&admission, demand(Priority::Normal));
    wait_for(&admission, 1).await;
    admission.reconfigure(ways("up"), Vec::new(), BOUNDS);
    assert_eq!(position(&admission), Position::Open);
    tokio::time::sleep(11 * SECOND).await;
    let probe = old.await.unwrap().unwrap();
    admission.reconfigure(ways("other"), Vec::new(), BOUNDS);
    assert_eq!(position(&admission), Position::Closed);
    admission.reconfigure(ways("up"), Vec::new(), BOUNDS);
    // What comes of a probe of long ago is nobody's business.
    fail(probe);
    assert_eq!((position(&admission), admission.breakers()[0].breaker.failures), (Position::Closed, 0));
}

#[tokio::test(start_paused = true)]
async fn what_the_provider_does_not_count_says_nothing_of_it() {
    let admission = one(quota(40, 5));
    let exempt = || Demand { exempt: true, ..demand(Priority::Normal) };
    for _ in 0..10 {
        assert!(!fail(admission.place(exempt()).permit().await.unwrap()));
    }
    assert_eq!(position(&admission), Position::Closed);
    open(&admission).await;
    answer(poll_once(admission.place(exempt()).permit()).unwrap().unwrap());
    assert_eq!(position(&admission), Position::Open);
}

/// 500 wait for a provider without limits that was down for a minute.
#[tokio::test(start_paused = true)]
async fn those_who_waited_for_an_outage_to_end_do_not_come_as_a_herd() {
    let admission = one(unlimited());
    let back = time::now() + 60 * SECOND;
    let (sent, answered) = (Arc::new(Mutex::new(Vec::new())), Arc::new(Mutex::new(Vec::new())));
    let calls: Vec<_> = (0..500)
        .map(|_| {
            let (admission, sent, answered) = (admission.clone(), Arc::clone(&sent), Arc::clone(&answered));
            tokio::task::spawn(async move {
                let mut place = admission.place(demand(Priority::Normal));
                loop {
                    let mut permit = place.permit().await.unwrap();
                    permit.writing();
                    permit.written();
                    sent.lock().push(time::now());
                    tokio::time::sleep(if time::now() < back { SECOND / 100 } else { SECOND }).await;
                    if time::now() >= back + SECOND {
                        answered.lock().push(time::now());
                        permit.answered();
                        return permit.ended();
                    }
                    place.failed(&permit.lane().clone(), Blame::Upstream);
                    permit.failed();
                    permit.ended();
                }
            })
        })
        .collect();
    for call in calls {
        call.await.unwrap();
    }
    let (sent, answered) = (sent.lock(), answered.lock());
    let first_answer = answered[0];
    // All were under way when it went down; after that there were only probes.
    let down: Vec<u64> =
        sent.iter().filter(|&&at| at < back).map(|&at| (at - (back - 60 * SECOND)).as_secs()).collect();
    assert_eq!(down.iter().filter(|&&second| second > 0).copied().collect::<Vec<_>>(), [10, 30]);
    let mut seconds = Vec::new();
    for second in 0..20 {
        let (from, to) = (first_answer + second * SECOND - SECOND, first_answer + second * SECOND);
        let now = sent.iter().filter(|&&at| at >= from && at < to).count();
        let before = answered.iter().filter(|&&at| at < to).count();
        assert!(now <= before + 1, "second {second}: {now} sent, {before} answered before");
        seconds.push(now);
    }
    println!("sent by the second: {seconds:?}");
    assert_eq!(seconds.iter().sum::<usize>(), 500, "{seconds:?}");
    assert!(answered[499] - first_answer < 12 * SECOND, "and nobody waits for longer than that takes");
    drop((sent, answered));
    assert_eq!(at_a_time(&admission), None);
}

#[tokio::test(start_paused = true)]
async fn open_sockets_do_not_hold_up_who_comes_after_an_outage() {
    let admission = one(unlimited());
    let mut sockets = Vec::new();
    for _ in 0..1_000 {
        let mut socket = permit(&admission).await;
        socket.writing();
        socket.answered();
        sockets.push(socket);
    }
    open(&admission).await;
    let waiting: Vec<_> = (0..3).map(|_| waits(&admission, demand(Priority::Normal))).collect();
    wait_for(&admission, 3).await;
    for next in waiting {
        answer(next.await.unwrap().unwrap());
    }
    drop(sockets);
}

/// Without patience the next one after the probe would hold up everybody for as long as it thinks.
#[tokio::test(start_paused = true)]
async fn one_that_thinks_for_long_after_an_outage_holds_nobody_up() {
    let admission = one(unlimited());
    open(&admission).await;
    let waiting: Vec<_> = (0..33).map(|_| waits(&admission, demand(Priority::Normal))).collect();
    wait_for(&admission, 33).await;
    let mut waiting = waiting.into_iter();
    answer(waiting.next().unwrap().await.unwrap().unwrap());
    let start = time::now();
    let (mut out, mut left) = (Vec::new(), Vec::new());
    for round in 0..6 {
        tokio::time::sleep_until(start + round * 10 * SECOND + SECOND).await;
        left.push(admission.waiting());
    }
    for silent in waiting {
        let mut silent = silent.await.unwrap().unwrap();
        silent.writing();
        silent.written();
        out.push(silent);
    }
    assert_eq!(left, [31, 30, 28, 24, 16, 0]);
}

/// A probe that fails is an error for the client of a call that cannot be sent again, and one that fails everywhere would
/// keep everybody waiting.
#[tokio::test(start_paused = true)]
async fn who_probes_is_a_call_that_can_be_sent_again_and_has_not_failed() {
    let admission = one(quota(40, 5));
    open(&admission).await;
    let upload = || Demand { repeatable: false, ..demand(Priority::Normal) };
    let uploads = [waits(&admission, upload()), waits(&admission, upload())];
    wait_for(&admission, 2).await;
    let mut failed = admission.place(demand(Priority::Normal));
    failed.failed(&LaneId { upstream: "up".into(), key: KeyId::of("k") }, Blame::Upstream);
    let failed = tokio::task::spawn(async move { failed.permit().await });
    wait_for(&admission, 3).await;
    let other = Demand { client: ClientId::Named("other".into()), ..demand(Priority::Normal) };
    let fresh = waits(&admission, other);
    wait_for(&admission, 4).await;
    assert!(fail(fresh.await.unwrap().unwrap()));
    assert!(fail(failed.await.unwrap().unwrap()));
    // Where there is no other.
    let [first, second] = uploads;
    let probe = first.await.unwrap().unwrap();
    assert!(probe.is_probe());
    answer(probe);
    answer(second.await.unwrap().unwrap());
}
