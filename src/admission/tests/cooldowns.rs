//! Providers that break connections instead of refusing, and those that seem to.

use super::outages::{SECOND, answer, at_a_time, permit, position, waits};
use super::*;
use crate::breaker::Position;
use crate::limits::journal::rehearsal::{Death, Machine};

/// The connection is lost before the answer, and the upstream fails by that.
fn lose(mut permit: Permit) -> Option<Instant> {
    permit.writing();
    let until = permit.lost();
    permit.failed();
    permit.ended();
    until
}

#[tokio::test(start_paused = true)]
async fn two_resets_together_cool_the_lane_down_for_twice_as_long_each_time() {
    let admission = one(quota(40, 5));
    assert_eq!(lose(permit(&admission).await), None);
    let mut cools = Vec::new();
    for _ in 0..3 {
        let lost = permit(&admission).await;
        assert_eq!(lost.is_probe(), !cools.is_empty());
        let until = lose(lost).unwrap();
        assert_eq!(admission.lanes()[0].usage.cooling_until, Some(until));
        cools.push((until - time::now()).as_secs());
    }
    assert_eq!((cools, admission.breakers()[0].limit_signals), (vec![2, 4, 8], 3));
    let start = time::now();
    answer(permit(&admission).await);
    assert_eq!(start.elapsed(), 8 * SECOND);
}

#[tokio::test(start_paused = true)]
async fn after_a_cooldown_one_goes_then_half_and_then_one_more_at_a_time() {
    let admission = one(Quota { requests: None, ..quota(1, 8) });
    let mut running = Vec::new();
    for _ in 0..8 {
        running.push(permit(&admission).await);
    }
    running.iter_mut().for_each(Permit::writing);
    let waiting: Vec<_> = (0..40).map(|_| waits(&admission, demand(Priority::Normal))).collect();
    wait_for(&admission, 40).await;
    assert!(running.pop().map(lose).unwrap().is_none());
    // Whose place was free by that is lost, too.
    tokio::time::sleep(SECOND).await;
    assert!(running.pop().map(lose).unwrap().is_some());
    drop(running);
    let mut waiting = waiting.into_iter();
    let mut early = waiting.next().unwrap().await.unwrap().unwrap();
    early.writing();
    early.ended();
    let (mut rounds, mut shown) = (Vec::new(), Vec::new());
    while at_a_time(&admission).is_some() {
        tokio::time::sleep(10 * SECOND).await;
        shown.push(at_a_time(&admission).unwrap());
        let round = waiting.len() - usize::try_from(admission.waiting()).unwrap();
        rounds.push(round);
        for _ in 0..round {
            let next = waiting.next().unwrap().await.unwrap().unwrap();
            assert_eq!(next.is_probe(), rounds.len() == 1);
            answer(next);
        }
    }
    // Seven were in flight. The eighth was lost, too, and is learned to be one too many.
    assert_eq!((rounds, shown), (vec![1, 3, 4, 5, 6], vec![1, 3, 4, 5, 6]));
    assert_eq!(admission.lanes()[0].usage.slots_cap, Some(7));
}

#[tokio::test(start_paused = true)]
async fn outage_by_resets_leaves_no_lesson_and_closes_no_gate_afterwards() {
    let admission = one(quota(40, 5));
    for _ in 0..36 {
        answer(permit(&admission).await);
    }
    for _ in 0..2 {
        lose(permit(&admission).await);
    }
    assert_eq!(admission.lanes()[0].lessons.len(), 1, "it looks like a limit");
    for _ in 0..3 {
        lose(permit(&admission).await);
    }
    assert_eq!((position(&admission), admission.lanes()[0].lessons.len()), (Position::Open, 0));
    assert_eq!(lose(permit(&admission).await), None, "what a probe loses is the outage's, too");
    answer(permit(&admission).await);
    lose(permit(&admission).await);
    let until = lose(permit(&admission).await).unwrap();
    assert_eq!(until - time::now(), 2 * SECOND);
}

#[tokio::test(start_paused = true)]
async fn one_key_that_cools_down_leaves_the_others_alone() {
    let admission = admission(vec![way("up", &["a", "b"], quota(40, 5))], BOUNDS);
    let first = permit(&admission).await;
    let lane = first.lane().clone();
    lose(first);
    loop {
        let next = permit(&admission).await;
        if *next.lane() == lane {
            assert!(lose(next).is_some());
            break;
        }
        answer(next);
    }
    let start = time::now();
    for _ in 0..3 {
        let next = permit(&admission).await;
        assert_ne!(*next.lane(), lane);
        answer(next);
    }
    assert_eq!(start.elapsed(), Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn a_restart_keeps_the_cooldown_and_not_what_an_outage_has_taught() {
    let mut machine = Machine::new();
    for down in [false, true] {
        let (journal, recovered) = machine.start(WINDOW);
        let admission = Admission::remembering(journal.clone(), recovered, BOUNDS);
        admission.reconfigure(vec![way("up", &["k"], quota(40, 5))], Vec::new(), BOUNDS);
        let timer = tokio::task::spawn(admission.clone().keep_time());
        lose(permit(&admission).await);
        let mut until = lose(permit(&admission).await).unwrap();
        for _ in 0..if down { 3 } else { 0 } {
            until = lose(permit(&admission).await).unwrap_or(until);
        }
        timer.abort();
        machine.kill(&journal, Death { flushed: true, compacted: false, torn: 0 });
        let (_, recovered) = machine.start(WINDOW);
        let after = Admission::remembering(Journal::off(), recovered, BOUNDS);
        after.reconfigure(vec![way("up", &["k"], quota(40, 5))], Vec::new(), BOUNDS);
        let lane = &after.lanes()[0];
        if down {
            assert_eq!(lane.lessons, []);
        } else {
            let closed = lane.usage.closed_until.unwrap();
            assert!(closed <= until + SECOND && closed + SECOND >= until, "{closed:?} {until:?}");
            assert_eq!(lane.usage.at_a_time, Some(1), "and then one goes to see");
        }
        tokio::time::sleep(600 * SECOND).await;
    }
}

#[tokio::test(start_paused = true)]
async fn who_wants_no_cooldown_has_none() {
    let admission = one(quota(40, 5));
    admission.set_caution(Caution { cooldown: Duration::ZERO, ..Caution::default() });
    let start = time::now();
    for _ in 0..4 {
        lose(permit(&admission).await);
    }
    assert_eq!(start.elapsed(), Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn probe_that_is_refused_lets_no_more_go() {
    let admission = one(Quota { requests: None, ..quota(1, 10) });
    let mut held = Vec::new();
    for _ in 0..10 {
        held.push(permit(&admission).await);
    }
    assert!(held.pop().map(lose).unwrap().is_none());
    assert!(held.pop().map(lose).unwrap().is_some());
    drop(held);
    for _ in 0..3 {
        let mut probe = permit(&admission).await;
        assert!(probe.is_probe());
        probe.writing();
        probe.written();
        probe.refused(&Signal::default());
        probe.answered();
        probe.ended();
        assert_eq!(at_a_time(&admission), Some(1));
    }
    answer(permit(&admission).await);
    assert!(at_a_time(&admission).is_some_and(|more| more > 1));
}

/// Some providers break all connections of who has too many.
#[tokio::test(start_paused = true)]
async fn an_outage_that_began_with_resets_does_not_end_the_caution() {
    let admission = one(quota(1_000, 40));
    let mut held = Vec::new();
    for _ in 0..5 {
        held.push(permit(&admission).await);
    }
    held.iter_mut().for_each(Permit::writing);
    for permit in held.into_iter().rev() {
        lose(permit);
    }
    assert_eq!((position(&admission), at_a_time(&admission)), (Position::Open, Some(1)));
    answer(permit(&admission).await);
    assert_eq!((position(&admission), at_a_time(&admission)), (Position::Closed, Some(1)));
    // Those who waited do not come all at once, and beyond half of those before one more goes each round.
    let mut more = Vec::new();
    for _ in 0..6 {
        answer(permit(&admission).await);
        more.push(at_a_time(&admission));
    }
    assert_eq!(more, [2, 2, 3, 3, 3, 4].map(Some));
}

#[tokio::test(start_paused = true)]
async fn cooldown_is_shown_for_itself_beside_what_the_provider_said() {
    let admission = one(quota(40, 5));
    let (mut refused, first, second) = (permit(&admission).await, permit(&admission).await, permit(&admission).await);
    refused.writing();
    let closed = refused.refused(&Signal { retry_after: Some(30 * SECOND), ..Signal::default() });
    let until = [first, second].map(lose)[1].unwrap();
    let usage = admission.lanes()[0].usage;
    assert_eq!((usage.cooling_until, usage.closed_until), (Some(until), closed));
}
