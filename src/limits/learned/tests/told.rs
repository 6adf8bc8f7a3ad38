//! What the headers of answers tell.

use super::*;

#[test]
fn told_limits_hold_while_they_are_told_and_never_raise_anything() {
    let mut story = Story::new(CONFIGURED);
    let evidence = story.evidence(10, 1, 0);
    for (limit, in_force) in [("35", 35), ("60", 40)] {
        let limits = told(&[("x-ratelimit-limit-requests", limit), ("x-ratelimit-remaining-requests", "5")]);
        assert_eq!(story.learned.heard(story.now, &evidence, &limits), None);
        assert_eq!(story.limits().0, Some(in_force), "{limit}; of two models the larger");
    }
    let day = told(&[("x-ratelimit-limit-requests-day", "20"), ("x-ratelimit-remaining-requests-day", "5")]);
    story.learned.heard(story.now, &evidence, &day);
    assert_eq!(story.limits().0, Some(40));
}

#[test]
fn told_limit_is_shown_with_its_reason() {
    let mut story = Story::new(CONFIGURED);
    let evidence = story.evidence(10, 1, 0);
    story.learned.heard(story.now, &evidence, &told(&[("x-ratelimit-limit-requests", "35")]));
    let lessons: Vec<LessonStatus> = story.learned.lessons().collect();
    assert_eq!(lessons.len(), 1);
    assert_eq!((lessons[0].configured, lessons[0].assumed, lessons[0].why), (Some(40), 35, Why::Told(35)));
}

#[test]
fn nothing_left_closes_the_gate_only_if_we_have_counted_less() {
    let mut story = Story::new(CONFIGURED);
    let empty = |reset| {
        told(&[
            ("x-ratelimit-limit-requests", "40"),
            ("x-ratelimit-remaining-requests", "0"),
            ("x-ratelimit-reset-requests", reset),
        ])
    };
    let full = story.evidence(39, 1, 0);
    assert_eq!(story.learned.heard(story.now, &full, &empty("20s")), None, "it counts as we do");
    let little = story.evidence(10, 1, 0);
    assert_eq!(story.learned.heard(story.now, &little, &empty("20s")), Some(story.now + 20 * SECOND));
    // A bucket is full again after a minute, but the next one is back after its share of it.
    let one = story.now + Duration::from_millis(1_500);
    assert_eq!(story.learned.heard(story.now, &little, &empty("1m0s")), Some(one));
    story.wait(10 * SECOND);
    assert_eq!(story.learned.heard(story.now, &little, &empty("20s")), None, "what it tells is old");
}
