//! Connections that broke: faults, refusals in disguise, and outages.

use super::*;

const COOLDOWN: Cooldown = Cooldown { first: Duration::from_secs(2), max: MINUTE };

impl Story {
    fn lost(&mut self, requests: u32, in_flight: u32) -> Option<(Lesson, bool)> {
        let evidence = self.evidence(requests, in_flight, 0);
        self.learned.lost(self.now, &evidence, COOLDOWN)
    }

    /// For how long the gate is closed by a loss.
    fn cools(&mut self, requests: u32, in_flight: u32) -> u64 {
        let (lesson, _) = self.lost(requests, in_flight).expect("a fault");
        let cools = lesson.closed_until() - self.now;
        self.wait(cools);
        cools.as_secs()
    }
}

#[test]
fn one_broken_connection_is_a_fault_and_two_together_are_a_refusal_of_the_first() {
    let mut story = Story::new(CONFIGURED);
    for _ in 0..3 {
        assert_eq!(story.lost(36, 1), None);
        story.wait(TOGETHER);
    }
    assert_eq!(story.lost(36, 1), None);
    let (lesson, is_new) = story.lost(37, 1).unwrap();
    assert_eq!((lesson, is_new), (Lesson::Lowered(Subject::Requests, story.now + COOLDOWN.first), true));
    assert_eq!(story.limits().0, Some(35));
    assert!(matches!(story.lost(20, 1), Some((Lesson::Nothing(_), true))), "its penalty");
    assert_eq!(story.limits().0, Some(35));
}

#[test]
fn acceptance_of_as_much_refutes_a_loss_and_of_less_does_not() {
    for (requests, in_flight, refutes) in [(36, 3, true), (40, 5, true), (35, 3, false), (36, 2, false)] {
        let mut story = Story::new(CONFIGURED);
        assert_eq!(story.lost(36, 3), None);
        story.accepted(requests, in_flight);
        assert_eq!(story.lost(36, 3).is_none(), refutes, "{requests} {in_flight}");
    }
    // One that was permitted before it says nothing.
    let mut story = Story::new(CONFIGURED);
    let before = story.evidence(40, 5, 0);
    assert_eq!(story.lost(36, 3), None);
    story.learned.accepted(story.now, &before);
    assert!(story.lost(36, 3).is_some());
}

#[test]
fn poison_request_throttles_nobody_whose_calls_succeed_meanwhile() {
    let mut story = Story::new(CONFIGURED);
    for _ in 0..8 {
        assert_eq!(story.lost(20, 3), None);
        story.accepted(21, 3);
    }
    assert_eq!(story.learned.figures(), CONFIGURED);
}

#[test]
fn loss_soon_after_a_refusal_is_one() {
    let mut story = Story::new(CONFIGURED);
    story.refused(36, 1);
    assert!(matches!(story.lost(20, 1), Some((Lesson::Nothing(_), true))));
    let mut story = Story::new(CONFIGURED);
    story.refused(36, 1);
    story.wait(TOGETHER);
    assert_eq!(story.lost(20, 1), None);
}

#[test]
fn cooldown_doubles_with_each_in_a_row_and_begins_anew_after_an_acceptance() {
    let mut story = Story::new(CONFIGURED);
    assert_eq!(story.lost(5, 2), None);
    let seconds: Vec<u64> = (0..8).map(|_| story.cools(5, 2)).collect();
    assert_eq!(seconds, [2, 4, 8, 16, 32, 60, 60, 60]);
    // How long a penalty was is remembered: here nobody was accepted for minutes.
    story.accepted(1, 1);
    story.learned.penalty = Duration::ZERO;
    assert_eq!(story.lost(5, 2), None);
    assert_eq!(story.cools(5, 2), 2);
}

#[test]
fn no_cooldown_is_longer_than_it_may_be_whatever_a_penalty_was() {
    let mut story = Story::new(CONFIGURED);
    story.learned.penalty = 30 * Duration::from_secs(1);
    for (max, seconds) in [(5, 5), (60, 30)] {
        let cooldown = Cooldown { max: Duration::from_secs(max), ..COOLDOWN };
        let evidence = story.evidence(5, 2, 0);
        let (lesson, _) = (0..2).find_map(|_| story.learned.lost(story.now, &evidence, cooldown)).unwrap();
        assert_eq!((lesson.closed_until() - story.now).as_secs(), seconds);
    }
}

#[test]
fn those_that_break_together_are_one_signal() {
    let mut story = Story::new(CONFIGURED);
    let together: Vec<Evidence> = (1..6).map(|in_flight| story.evidence(10, in_flight, 0)).collect();
    let news: Vec<Option<bool>> = together
        .iter()
        .map(|evidence| {
            story.learned.lost(story.now, evidence, COOLDOWN).map(|(lesson, is_new)| {
                assert_eq!(lesson.closed_until(), story.now + COOLDOWN.first);
                is_new
            })
        })
        .collect();
    assert_eq!(news, [None, Some(true), Some(false), Some(false), Some(false)]);
}

#[test]
fn no_cooldown_closes_no_gate() {
    let mut story = Story::new(CONFIGURED);
    story.learned.penalty = MINUTE;
    let none = Cooldown { first: Duration::ZERO, max: MINUTE };
    for _ in 0..3 {
        let evidence = story.evidence(5, 2, 0);
        let lost = story.learned.lost(story.now, &evidence, none);
        assert!(lost.is_none_or(|(lesson, _)| lesson.closed_until() == story.now));
    }
}

/// An outage by resets, from the first one until the breaker of the upstream opens.
fn goes_down(story: &mut Story, requests: u32) -> bool {
    assert_eq!(story.lost(requests, 1), None);
    let (lesson, _) = story.lost(requests + 1, 1).unwrap();
    assert!(matches!(lesson, Lesson::Lowered(..)), "{lesson:?}");
    for _ in 0..3 {
        story.cools(requests / 2, 1);
    }
    story.learned.outage(story.now)
}

#[test]
fn outage_by_resets_leaves_no_lesson_and_no_penalty() {
    let mut story = Story::new(CONFIGURED);
    (10..30).for_each(|requests| story.accepted(requests, 5));
    assert!(goes_down(&mut story, 36));
    assert_eq!((story.learned.figures(), story.learned.lessons().count()), (CONFIGURED, 0));
    story.wait(MINUTE);
    story.accepted(3, 1);
    assert_eq!(story.learned.penalty, Duration::ZERO);
    assert_eq!(story.lost(3, 1), None, "and no longer row either");
    assert_eq!(story.cools(3, 1), 2);
}

#[test]
fn lesson_from_before_an_outage_stays() {
    let mut story = Story::new(CONFIGURED);
    story.refused(36, 1);
    story.accepted(30, 1);
    assert!(story.lost(35, 5).is_none() && story.lost(35, 5).is_some());
    story.learned.outage(story.now);
    assert_eq!(story.limits().0, Some(35));
    // What the provider has said itself is no matter of an outage.
    let mut story = Story::new(CONFIGURED);
    assert!(story.lost(5, 2).is_none() && story.lost(5, 2).is_some());
    story.accepted(5, 1);
    story.refused_saying(30, 1, &saying(Some(About::Requests), Some(20)));
    story.learned.outage(story.now);
    assert_eq!(story.limits().0, Some(20));
}

#[test]
fn what_looks_like_an_outage_each_time_at_the_same_count_is_a_limit() {
    let mut story = Story::new(CONFIGURED);
    (10..36).for_each(|requests| story.accepted(requests, 3));
    assert!(goes_down(&mut story, 36));
    assert_eq!(story.limits().0, Some(40));
    (10..36).for_each(|requests| story.accepted(requests, 3));
    assert!(!goes_down(&mut story, 36));
    assert_eq!(story.limits().0, Some(35));
    // Two outages at any counts are not.
    let mut story = Story::new(CONFIGURED);
    (10..30).for_each(|requests| story.accepted(requests, 3));
    assert!(goes_down(&mut story, 38));
    (10..39).for_each(|requests| story.accepted(requests, 3));
    assert!(goes_down(&mut story, 39));
    assert_eq!(story.limits().0, Some(40));
}
