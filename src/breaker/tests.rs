use std::num::NonZeroU32;

use proptest::collection::vec;
use proptest::prelude::*;

use super::*;

const SECOND: Duration = Duration::from_secs(1);

fn settings() -> Settings {
    Settings { failures: NonZeroU32::new(3).unwrap(), open: 10 * SECOND, open_max: 60 * SECOND }
}

/// A breaker that has opened, and until when.
fn opened() -> (Breaker, Instant) {
    let now = crate::time::now();
    let mut breaker = Breaker::new(settings(), 0);
    for _ in 0..3 {
        let pass = breaker.take(now).unwrap();
        breaker.failed(now, pass);
    }
    (breaker, now + 10 * SECOND)
}

fn position(breaker: &Breaker, now: Instant) -> Position {
    breaker.status(now).position
}

#[test]
fn so_many_failures_in_a_row_open_it() {
    use Outcome::{Answered, Failed, Left};
    enum Outcome {
        Answered,
        Failed,
        Left,
    }
    for (outcomes, opens) in [
        (vec![Failed, Failed], false),
        (vec![Failed, Failed, Failed], true),
        (vec![Failed, Failed, Answered, Failed, Failed], false),
        (vec![Failed, Failed, Left, Failed], true),
        (vec![Answered, Failed, Failed, Failed], true),
    ] {
        let now = crate::time::now();
        let mut breaker = Breaker::new(settings(), 0);
        for outcome in outcomes {
            let pass = breaker.take(now).unwrap();
            match outcome {
                Answered => assert!(!breaker.answered(pass)),
                Failed => {
                    breaker.failed(now, pass);
                }
                Left => assert!(!breaker.abandoned(pass)),
            }
        }
        assert_eq!(breaker.status(now).opens, u64::from(opens));
        assert_eq!(breaker.open_until(), opens.then_some(now + 10 * SECOND));
    }
}

#[test]
fn while_it_is_open_nobody_goes_and_then_one() {
    let (mut breaker, until) = opened();
    let before = until - Duration::from_nanos(1);
    assert_eq!((breaker.ready(before), breaker.take(before)), (Ready::At(until), None));
    assert_eq!(position(&breaker, before), Position::Open);
    let probe = breaker.take(until).unwrap();
    assert!(probe.is_probe);
    assert_eq!((breaker.ready(until), breaker.take(until)), (Ready::OnRelease, None));
    assert!(breaker.written(until, probe));
    assert_eq!((breaker.ready(until), breaker.take(until)), (Ready::At(until + 10 * SECOND), None));
    assert_eq!(position(&breaker, until), Position::HalfOpen);
    assert!(breaker.answered(probe));
    assert_eq!((breaker.ready(until), position(&breaker, until)), (Ready::Now, Position::Closed));
    assert!(!breaker.take(until).unwrap().is_probe);
}

#[test]
fn probe_that_fails_opens_it_for_twice_as_long_up_to_the_most() {
    let (mut breaker, mut until) = opened();
    let lengths = [20, 40, 60, 60].map(|expected| {
        let probe = breaker.take(until).unwrap();
        let length = breaker.failed(until, probe).unwrap();
        until += length;
        (length.as_secs(), expected)
    });
    assert!(lengths.iter().all(|(length, expected)| length == expected), "{lengths:?}");
}

#[test]
fn probe_that_nothing_came_of_makes_room_for_the_next() {
    let (mut breaker, until) = opened();
    let first = breaker.take(until).unwrap();
    assert!(breaker.holds_up(until) && breaker.abandoned(first) && !breaker.holds_up(until));
    let second = breaker.take(until).unwrap();
    assert!(second.is_probe);
    // The first is late.
    assert!(!breaker.written(until, first));
    assert_eq!((breaker.ready(until), breaker.take(until)), (Ready::OnRelease, None));
    assert!(breaker.answered(second));
}

/// It may be an answer that takes minutes, or a provider that hangs: nobody can tell.
#[test]
fn probe_that_is_silent_lets_another_one_go_and_both_decide() {
    for (which, closes) in [(0, true), (1, true), (0, false), (1, false)] {
        let (mut breaker, until) = opened();
        let first = breaker.take(until).unwrap();
        // To connect may take a while, too.
        let later = until + 17 * SECOND;
        assert!(breaker.take(later).is_none() && breaker.written(until + 7 * SECOND, first));
        assert_eq!(breaker.take(later - Duration::from_nanos(1)), None);
        let second = breaker.take(later).unwrap();
        assert!(second.is_probe && breaker.take(later).is_none());
        // That the first leaves is no reason for a third.
        assert!(!breaker.abandoned(first) && breaker.take(later).is_none());
        let pass = [first, second][which];
        match closes {
            true => assert!(breaker.answered(pass)),
            false => assert_eq!(breaker.failed(later, pass), Some(20 * SECOND)),
        }
        assert_eq!(breaker.is_closed(), closes);
    }
}

/// A client's patience has an end; what it leaves behind still decides.
#[test]
fn newer_probe_that_is_abandoned_leaves_the_older_one_its_say() {
    for closes in [true, false] {
        let (mut breaker, until) = opened();
        let first = breaker.take(until).unwrap();
        breaker.written(until, first);
        let later = until + 10 * SECOND;
        let second = breaker.take(later).unwrap();
        assert!(breaker.abandoned(second) && breaker.holds_up(later));
        match closes {
            true => assert!(breaker.answered(first)),
            false => assert_eq!(breaker.failed(later, first), Some(20 * SECOND)),
        }
        assert_eq!(breaker.is_closed(), closes);
    }
}

#[test]
fn no_more_than_a_few_probes_are_silent_at_a_time() {
    let (mut breaker, mut now) = opened();
    let mut silent = Vec::new();
    for _ in 0..SILENT_MAX {
        let probe = breaker.take(now).unwrap();
        breaker.written(now, probe);
        silent.push(probe);
        now += 10 * SECOND;
    }
    now += 600 * SECOND;
    assert_eq!((breaker.ready(now), breaker.take(now)), (Ready::OnRelease, None));
    // One of them, and not the latest, leaves.
    assert!(breaker.abandoned(silent.remove(0)));
    let next = breaker.take(now).unwrap();
    assert!(next.is_probe && breaker.take(now).is_none());
    assert!(breaker.answered(silent[0]));
}

#[test]
fn who_was_granted_before_it_opened_changes_nothing_after() {
    let now = crate::time::now();
    let mut breaker = Breaker::new(settings(), 0);
    let passes: Vec<Pass> = (0..6).map(|_| breaker.take(now).unwrap()).collect();
    for &pass in &passes[..3] {
        breaker.failed(now, pass);
    }
    let until = breaker.open_until().unwrap();
    assert!(!breaker.answered(passes[3]) && breaker.failed(now + SECOND, passes[4]).is_none());
    assert_eq!(breaker.open_until(), Some(until));
    let probe = breaker.take(until).unwrap();
    assert!(!breaker.answered(passes[5]));
    assert!(breaker.answered(probe));
    assert!(breaker.failed(until, passes[5]).is_none());
    assert_eq!(breaker.status(until).failures, 0);
}

#[test]
fn one_that_opens_again_and_again_opens_for_long_until_it_has_held() {
    let (mut breaker, mut now) = opened();
    let probe = breaker.take(now).unwrap();
    now += breaker.failed(now, probe).unwrap();
    for (answers, length) in [(2, 20), (3, 10)] {
        let probe = breaker.take(now).unwrap();
        assert!(breaker.answered(probe));
        for _ in 0..answers {
            let pass = breaker.take(now).unwrap();
            breaker.answered(pass);
        }
        let opened = (0..3).filter_map(|_| {
            let pass = breaker.take(now)?;
            breaker.failed(now, pass)
        });
        assert_eq!(opened.last(), Some(length * SECOND), "after {answers} answers");
        now += length * SECOND;
    }
}

#[test]
fn reload_keeps_the_state_within_the_new_bounds() {
    let (mut breaker, until) = opened();
    let opened_at = until - 10 * SECOND;
    breaker.reconfigure(opened_at, &Settings { open: SECOND, open_max: 4 * SECOND, ..settings() });
    assert_eq!(breaker.open_until(), Some(opened_at + 4 * SECOND));
    let probe = breaker.take(opened_at + 4 * SECOND).unwrap();
    assert_eq!(breaker.failed(opened_at + 4 * SECOND, probe), Some(4 * SECOND));
}

#[derive(Debug, Clone)]
enum Step {
    Take,
    /// The latest grant is written.
    Written,
    /// Of the grants that are out, this one.
    Answered(usize),
    Failed(usize),
    Left(usize),
    Wait(u64),
    Reload(u64, u64),
}

fn any_step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => Just(Step::Take),
        3 => Just(Step::Written),
        2 => any::<usize>().prop_map(Step::Answered),
        4 => any::<usize>().prop_map(Step::Failed),
        1 => any::<usize>().prop_map(Step::Left),
        3 => (0_u64..20_000).prop_map(Step::Wait),
        1 => (1_u64..20, 0_u64..60).prop_map(|(open, more)| Step::Reload(open, open + more)),
    ]
}

proptest! {
    /// Whatever is granted, comes of it, and in which order: open it grants nothing, half-open one at a time; it closes only
    /// by a probe; and it is open for no less and no more than it may.
    #[test]
    fn never_more_than_one_probe_and_nothing_while_it_is_open(steps in vec(any_step(), 0..300)) {
        let mut now = crate::time::now();
        let mut settings = settings();
        let mut breaker = Breaker::new(settings, 7 * Breaker::EPOCHS);
        let mut out: Vec<Pass> = Vec::new();
        // Probes of this very half-opening: those of earlier ones have nothing to say.
        let mut probes: Vec<Pass> = Vec::new();
        // Since when the latest is written, and whether it has left.
        let (mut latest, mut left) = (None, false);
        for step in steps {
            let (before, opens) = (position(&breaker, now), breaker.status(now).opens);
            let mut pick = |index: usize| (!out.is_empty()).then(|| out.swap_remove(index % out.len()));
            let mut probed = None;
            match step {
                Step::Take => match breaker.take(now) {
                    None => prop_assert!(before != Position::Closed),
                    Some(pass) => {
                        prop_assert!(before != Position::Open);
                        prop_assert_eq!(pass.is_probe, before == Position::HalfOpen);
                        if pass.is_probe {
                            prop_assert!(probes.is_empty() || left || latest.is_some_and(|latest| now >= latest + settings.open), "two probes at a time");
                            probes.push(pass);
                            left = false;
                            latest = None;
                            prop_assert!(probes.len() <= SILENT_MAX as usize);
                        }
                        out.push(pass);
                    }
                },
                Step::Written => if let Some(&pass) = out.last()
                    && breaker.written(now, pass)
                {
                    latest.get_or_insert(now);
                },
                Step::Answered(index) => probed = pick(index).inspect(|&pass| {
 breaker.answered(pass); }),
                Step::Failed(index) => if let Some(pass) = pick(index) {
                    if let Some(length) = breaker.failed(now, pass) {
                        prop_assert!(length >= settings.open && length <= settings.open_max, "{length:?} {settings:?}");
                        prop_assert_eq!(breaker.open_until(), Some(now + length));
                    }
                    probed = Some(pass);
                },
                Step::Left(index) => if let Some(pass) = pick(index) {
                    let is_latest = probes.last() == Some(&pass);
                    breaker.abandoned(pass);
                    prop_assert!(!is_latest || breaker.ready(now) == Ready::Now, "nobody can probe");
                    left |= is_latest;
                    probes.retain(|probe| *probe != pass);
                },
                Step::Wait(millis) => now += Duration::from_millis(millis),
                Step::Reload(open, most) => {
                    settings = Settings { open: u32::try_from(open).unwrap() * SECOND, open_max: u32::try_from(most).unwrap() * SECOND, ..settings };
                    breaker.reconfigure(now, &settings);
                }
            }
            let after = breaker.status(now);
            if before != Position::Closed && after.position == Position::Closed {
                prop_assert!(probed.is_some_and(|pass| probes.contains(&pass)), "closed by somebody else");
            }
            probes.retain(|probe| Some(*probe) != probed);
            if after.position != Position::HalfOpen || after.opens > opens {
                probes.clear();
            }
            prop_assert!(after.opens - opens <= 1);
            prop_assert!(breaker.open_until().is_none_or(|until| until <= now + settings.open_max));
        }
    }
}
