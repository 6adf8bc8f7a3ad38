use proptest::prelude::*;

use super::*;

const WINDOW: Duration = Duration::from_secs(60);

fn judge(requests: u32, concurrency: u32, penalty_s: u64) -> Judge {
    let limits = Limits { requests: Some(requests), concurrency: Some(concurrency), tokens: None, window: WINDOW };
    Judge::new(limits, Duration::from_secs(penalty_s))
}

/// A request that arrives, counts and leaves in one instant.
fn pass(judge: &mut Judge, now: Instant) -> Ruling {
    let arrival = judge.arrive(0, now);
    let ruling = judge.count(0, arrival, 0, now);
    judge.leave(0, now);
    ruling
}

fn after(start: Instant, seconds: f64) -> Instant {
    start + Duration::from_secs_f64(seconds)
}

#[test]
fn request_leaves_the_window_exactly_one_window_later() {
    let start = crate::time::now();
    let mut judge = judge(1, 9, 0);
    assert_eq!(pass(&mut judge, start), Ruling::Admitted);
    assert_eq!(pass(&mut judge, start + WINDOW), Ruling::Admitted);
    let short = start + WINDOW * 2 - Duration::from_nanos(1);
    assert_eq!(pass(&mut judge, short), Ruling::Violation(Exceeded::Window));
}

#[test]
fn penalty_refuses_everything_and_is_never_prolonged() {
    let start = crate::time::now();
    let mut judge = judge(1, 9, 100);
    assert_eq!(pass(&mut judge, start), Ruling::Admitted);
    assert_eq!(pass(&mut judge, after(start, 1.0)), Ruling::Violation(Exceeded::Window));
    assert_eq!(pass(&mut judge, after(start, 2.0)), Ruling::InPenalty);
    assert_eq!(judge.penalty_left(0, after(start, 2.0)), Duration::from_secs(99));
    assert_eq!(pass(&mut judge, after(start, 100.9)), Ruling::InPenalty);
    assert_eq!(pass(&mut judge, after(start, 101.0)), Ruling::Violation(Exceeded::Window), "refused requests count");
    assert_eq!(pass(&mut judge, after(start, 201.0)), Ruling::Admitted);
}

#[test]
fn request_that_arrived_before_a_penalty_and_counts_within_is_refused() {
    let start = crate::time::now();
    let mut judge = judge(9, 1, 10);
    let early = judge.arrive(0, start);
    assert_eq!(early, Ruling::Admitted);
    assert_eq!(judge.arrive(0, start), Ruling::Violation(Exceeded::Concurrency));
    assert_eq!(judge.count(0, early, 0, after(start, 1.0)), Ruling::InPenalty);
}

#[test]
fn slot_is_taken_until_it_is_given_back() {
    let start = crate::time::now();
    let mut judge = judge(9, 1, 0);
    assert_eq!(judge.arrive(0, start), Ruling::Admitted);
    assert_eq!(judge.arrive(0, after(start, 1.0)), Ruling::Violation(Exceeded::Concurrency));
    judge.leave(0, after(start, 2.0));
    assert_eq!(judge.arrive(0, after(start, 2.0)), Ruling::Violation(Exceeded::Concurrency));
    judge.leave(0, after(start, 3.0));
    judge.leave(0, after(start, 3.0));
    assert_eq!(judge.arrive(0, after(start, 3.0)), Ruling::Admitted);
    assert_eq!(judge.tally(after(start, 4.0)).in_flight_max, 2);
    assert_eq!(judge.tally(after(start, 4.0)).in_full, Duration::from_secs(4));
}

#[test]
fn tokens_are_limited_by_window() {
    let start = crate::time::now();
    let limits = Limits { tokens: Some(100), window: WINDOW, ..Limits::default() };
    let mut judge = Judge::new(limits, Duration::ZERO);
    assert_eq!(judge.count(0, Ruling::Admitted, 60, start), Ruling::Admitted);
    assert_eq!(judge.count(0, Ruling::Admitted, 40, after(start, 1.0)), Ruling::Admitted);
    assert_eq!(judge.count(0, Ruling::Admitted, 1, after(start, 2.0)), Ruling::Violation(Exceeded::Tokens));
    assert_eq!(judge.count(0, Ruling::Admitted, 59, after(start, 60.0)), Ruling::Admitted);
}

#[test]
fn changed_limits_judge_what_was_counted_before() {
    let start = crate::time::now();
    let mut judge = judge(5, 9, 0);
    for second in 0..3 {
        assert_eq!(pass(&mut judge, start + Duration::from_secs(second)), Ruling::Admitted);
    }
    let lowered = Limits { requests: Some(2), ..judge.limits() };
    judge.set_limits(lowered, after(start, 3.0));
    assert_eq!(pass(&mut judge, after(start, 3.0)), Ruling::Violation(Exceeded::Window));
    let shorter = Limits { window: Duration::from_secs(1), ..lowered };
    judge.set_limits(shorter, after(start, 4.0));
    assert_eq!(pass(&mut judge, after(start, 4.0)), Ruling::Admitted);
}

#[test]
fn each_key_has_an_allowance_of_its_own() {
    let start = crate::time::now();
    let mut judge = judge(1, 1, 10);
    for key in 0..3 {
        let arrival = judge.arrive(key, start);
        assert_eq!(judge.count(key, arrival, 0, start), Ruling::Admitted);
    }
    assert!(matches!(judge.arrive(0, start), Ruling::Violation(_)));
    assert_eq!(judge.penalty_left(1, start), Duration::ZERO);
    assert_eq!(judge.tally(start).in_flight_max, 2);
}

#[test]
fn fresh_tally_forgets_records_but_nothing_counted() {
    let start = crate::time::now();
    let mut judge = judge(9, 9, 0);
    (0..4).for_each(|_| assert_eq!(pass(&mut judge, start), Ruling::Admitted));
    judge.reset_tally(after(start, 59.0));
    assert_eq!(judge.tally(after(start, 59.0)).window_max, 4);
    judge.reset_tally(after(start, 60.0));
    assert_eq!(judge.tally(after(start, 60.0)).window_max, 0);
    assert_eq!(judge.counted_since(start).len(), 4);
}

/// The largest number in any window, found the slow way: a window is fullest when it ends at an arrival.
fn fullest_window(instants: &[Instant], window: Duration) -> usize {
    let within = |end: Instant| instants.iter().filter(|at| **at <= end && end - **at < window).count();
    instants.iter().map(|end| within(*end)).max().unwrap_or(0)
}

proptest! {
    #[test]
    fn window_max_equals_brute_force(gaps in proptest::collection::vec(0_u64..30_000, 0..200), limit in 1_u32..20) {
        let start = crate::time::now();
        let mut judge = judge(limit, 9, 0);
        let (mut instants, mut now) = (Vec::new(), start);
        for gap in gaps {
            now += Duration::from_millis(gap);
            instants.push(now);
            let in_window = instants.iter().filter(|at| now - **at < WINDOW).count();
            let ruling = pass(&mut judge, now);
            prop_assert_eq!(ruling == Ruling::Admitted, in_window <= limit as usize);
            prop_assert_eq!(judge.tally(now).window_now, in_window);
        }
        prop_assert_eq!(judge.tally(now).window_max, fullest_window(&instants, WINDOW));
        prop_assert_eq!(judge.counted_since(start), instants);
    }

    #[test]
    fn tokens_of_a_window_are_the_sum_of_its_requests(
        calls in proptest::collection::vec((0_u64..30_000, 0_u32..1_000), 1..200),
    ) {
        let mut judge = judge(9, 9, 0);
        let (mut counted, mut now) = (Vec::new(), crate::time::now());
        for (gap, tokens) in calls {
            now += Duration::from_millis(gap);
            counted.push((now, u64::from(tokens)));
            judge.count(0, Ruling::Admitted, tokens, now);
            let sum: u64 = counted.iter().filter(|(at, _)| now - *at < WINDOW).map(|(_, tokens)| tokens).sum();
            prop_assert_eq!(judge.tally(now).tokens_now, sum);
        }
    }
}
