mod losses;
mod properties;
mod told;

use super::*;
use crate::openai::complaint::About;
use crate::openai::{Complaint, RateLimits};

const SECOND: Duration = Duration::from_secs(1);
const CONFIGURED: Figures = Figures {
    window: MINUTE,
    margin: Duration::from_millis(500),
    requests: Some(40),
    tokens: Some(10_000),
    concurrency: Some(5),
};

/// A story: time goes on a second with each thing that happens.
struct Story {
    learned: Learned,
    now: Instant,
}

impl Story {
    fn new(configured: Figures) -> Self {
        Self { learned: Learned::new(configured), now: crate::time::now() }
    }

    fn wait(&mut self, time: Duration) {
        self.now += time;
    }

    fn evidence(&mut self, requests: u32, in_flight: u32, tokens: u64) -> Evidence {
        self.wait(SECOND);
        let permitted = self.now;
        self.wait(SECOND);
        Evidence { permitted, requests, in_flight, tokens }
    }

    fn accepted(&mut self, requests: u32, in_flight: u32) {
        let evidence = self.evidence(requests, in_flight, 0);
        self.learned.accepted(self.now, &evidence);
    }

    fn refused(&mut self, requests: u32, in_flight: u32) -> Lesson {
        self.refused_saying(requests, in_flight, &Signal::default())
    }

    fn refused_saying(&mut self, requests: u32, in_flight: u32, signal: &Signal) -> Lesson {
        let evidence = self.evidence(requests, in_flight, 0);
        self.learned.refused(self.now, &evidence, signal)
    }

    fn limits(&self) -> (Option<u32>, Option<u32>) {
        let figures = self.learned.figures();
        (figures.requests, figures.concurrency)
    }

    /// Probes as soon as it is time.
    fn probe(&mut self) {
        let next = self.learned.next_probe().expect("nothing to probe");
        assert!(!self.learned.probe(next - Duration::from_nanos(1)), "probes too soon");
        self.now = self.now.max(next);
        assert!(self.learned.probe(self.now));
    }
}

fn saying(about: Option<About>, limit: Option<u32>) -> Signal {
    Signal { complaint: Complaint { about, limit, ..Complaint::default() }, ..Signal::default() }
}

fn told(pairs: &[(&'static str, &str)]) -> RateLimits {
    let headers = pairs.iter().map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap())).collect();
    RateLimits::of(&headers, || std::time::UNIX_EPOCH).unwrap()
}

#[test]
fn refusal_of_a_request_that_was_alone_says_too_fast() {
    let mut story = Story::new(CONFIGURED);
    assert!(matches!(story.refused(22, 1), Lesson::Lowered(Subject::Requests, _)));
    assert_eq!(story.limits(), (Some(21), Some(5)));
    let mut story = Story::new(Figures { concurrency: Some(1), ..CONFIGURED });
    story.refused(22, 1);
    assert_eq!(story.limits(), (Some(21), Some(1)));
}

#[test]
fn what_was_lately_accepted_is_not_at_fault() {
    let mut story = Story::new(CONFIGURED);
    story.accepted(3, 5);
    assert!(matches!(story.refused(20, 5), Lesson::Lowered(Subject::Requests, _)));
    let mut story = Story::new(CONFIGURED);
    story.accepted(30, 2);
    assert!(matches!(story.refused(30, 3), Lesson::Lowered(Subject::Concurrency, _)));
    assert_eq!(story.limits(), (Some(40), Some(2)));
}

#[test]
fn nearest_to_its_limit_is_at_fault_where_nothing_else_tells() {
    let mut story = Story::new(CONFIGURED);
    assert!(matches!(story.refused(36, 3), Lesson::Lowered(Subject::Requests, _)));
    let mut story = Story::new(CONFIGURED);
    assert!(matches!(story.refused(4, 4), Lesson::Lowered(Subject::Concurrency, _)));
    assert_eq!(story.limits(), (Some(40), Some(3)));
}

#[test]
fn what_the_provider_says_decides() {
    let mut story = Story::new(CONFIGURED);
    story.accepted(3, 5);
    story.refused_saying(36, 5, &saying(Some(About::Concurrency), None));
    assert_eq!(story.limits(), (Some(40), Some(4)));
    story.accepted(3, 2);
    story.refused_saying(20, 3, &saying(Some(About::Requests), Some(15)));
    assert_eq!(story.limits(), (Some(15), Some(4)));
    // The limit that it names is not exceeded by our count: somebody else uses the key.
    story.accepted(3, 2);
    story.refused_saying(10, 3, &saying(Some(About::Requests), Some(15)));
    assert_eq!(story.limits(), (Some(9), Some(4)));
}

#[test]
fn provider_that_is_merely_busy_teaches_nothing() {
    let mut story = Story::new(CONFIGURED);
    let busy = saying(Some(About::Requests), None);
    for _ in 0..20 {
        story.accepted(12, 3);
        assert!(matches!(story.refused_saying(10, 3, &busy), Lesson::Nothing(_)), "it has accepted as much");
        story.accepted(12, 3);
    }
    assert_eq!(story.limits(), (Some(40), Some(5)));
    // But when nothing is accepted any more that was as much, it is true.
    story.refused_saying(10, 3, &busy);
    story.accepted(3, 1);
    assert!(matches!(story.refused_saying(10, 3, &busy), Lesson::Lowered(Subject::Requests, _)));
    assert_eq!(story.limits(), (Some(9), Some(5)));
}

#[test]
fn one_event_is_one_lesson() {
    let mut story = Story::new(CONFIGURED);
    let together: Vec<Evidence> = (30..34).map(|requests| story.evidence(requests, 1, 0)).collect();
    let lessons = together.iter().map(|evidence| story.learned.refused(story.now, evidence, &Signal::default()));
    assert_eq!(lessons.filter(|lesson| matches!(lesson, Lesson::Lowered(..))).count(), 1);
    assert_eq!(story.limits().0, Some(29));
    // Nor do those teach anything that come in the penalty.
    assert!(matches!(story.refused(5, 1), Lesson::Nothing(_)));
    assert!(matches!(story.refused(5, 1), Lesson::Nothing(_)));
    assert_eq!(story.limits().0, Some(29));
    story.accepted(5, 1);
    assert!(matches!(story.refused(20, 1), Lesson::Lowered(Subject::Requests, _)));
}

#[test]
fn late_refusal_of_what_was_in_flight_with_the_last_one_teaches_nothing() {
    let mut story = Story::new(CONFIGURED);
    let (first, slow) = (story.evidence(36, 2, 0), story.evidence(30, 2, 0));
    story.learned.refused(story.now, &first, &Signal::default());
    story.accepted(20, 1);
    assert!(matches!(story.learned.refused(story.now, &slow, &Signal::default()), Lesson::Nothing(_)));
    assert_eq!(story.limits().0, Some(35));
}

#[test]
fn one_limit_is_tried_at_a_time_and_ten_minutes_after_the_last_lesson() {
    let mut story = Story::new(CONFIGURED);
    story.refused(36, 1);
    story.accepted(20, 1);
    story.wait(9 * MINUTE);
    assert!(matches!(story.refused(20, 4), Lesson::Lowered(Subject::Concurrency, _)));
    let lesson = story.now;
    story.accepted(20, 1);
    story.probe();
    assert!(story.now - lesson >= assumed::PROBE_AFTER);
    assert_eq!(story.limits(), (Some(38), Some(3)));
    story.wait(30 * MINUTE);
    assert!(!story.learned.probe(story.now), "the first is not decided");
}

#[test]
fn full_window_lets_the_margin_be_suspected_first() {
    let mut story = Story::new(CONFIGURED);
    for millis in [850, 1_200] {
        story.accepted(40, 2);
        assert!(matches!(story.refused(40, 2), Lesson::Lowered(Subject::Margin, _)));
        assert_eq!(story.learned.figures().margin, Duration::from_millis(millis));
    }
    // The margin was not it.
    story.accepted(40, 2);
    assert!(matches!(story.refused(40, 2), Lesson::Lowered(Subject::Requests, _)));
    let figures = story.learned.figures();
    assert_eq!((figures.requests, figures.margin), (Some(39), CONFIGURED.margin));
}

#[test]
fn refusal_that_nothing_explains_lowers_nothing_unless_it_comes_twice() {
    let mut story = Story::new(CONFIGURED);
    story.accepted(30, 4);
    assert!(matches!(story.refused(20, 3), Lesson::Nothing(_)));
    assert_eq!(story.limits(), (Some(40), Some(5)));
    story.accepted(5, 1);
    assert!(matches!(story.refused(20, 1), Lesson::Lowered(Subject::Requests, _)));
    assert_eq!(story.limits(), (Some(19), Some(5)));
}

#[test]
fn nothing_falls_under_its_floor() {
    let mut story = Story::new(CONFIGURED);
    assert!(matches!(story.refused(2, 1), Lesson::Nothing(_)), "far from any limit: it may just be busy");
    story.accepted(1, 1);
    story.refused(2, 1);
    assert_eq!(story.limits().0, Some(4));
    story.accepted(1, 1);
    assert!(matches!(
        story.refused_saying(4, 1, &saying(Some(About::Requests), None)),
        Lesson::Lowered(Subject::Margin, _) | Lesson::Nothing(_)
    ));
    story.accepted(1, 1);
    story.refused_saying(3, 2, &saying(Some(About::Concurrency), None));
    story.accepted(1, 1);
    assert!(matches!(story.refused_saying(3, 1, &saying(Some(About::Concurrency), None)), Lesson::Nothing(_)));
    assert_eq!(story.limits(), (Some(4), Some(1)));
}

#[test]
fn tokens_go_down_by_a_twentieth_but_not_below_what_was_accepted() {
    let mut story = Story::new(CONFIGURED);
    let signal = saying(Some(About::Tokens), None);
    let evidence = story.evidence(5, 1, 8_000);
    story.learned.refused(story.now, &evidence, &signal);
    assert_eq!(story.learned.figures().tokens, Some(7_600));
    let evidence = story.evidence(5, 1, 7_500);
    story.learned.accepted(story.now, &evidence);
    let evidence = story.evidence(5, 1, 7_600);
    story.learned.refused(story.now, &evidence, &signal);
    assert_eq!(story.learned.figures().tokens, Some(7_500));
}

#[test]
fn where_nothing_is_configured_only_words_teach_and_only_of_concurrency() {
    let none = Figures { requests: None, tokens: None, concurrency: None, ..CONFIGURED };
    let mut story = Story::new(none);
    story.refused(500, 9);
    story.accepted(1, 1);
    story.refused(500, 9);
    story.accepted(1, 1);
    story.refused_saying(500, 9, &saying(Some(About::Requests), Some(20)));
    story.accepted(1, 1);
    assert_eq!(story.learned.figures(), none);
    story.refused_saying(500, 9, &saying(Some(About::Concurrency), None));
    assert_eq!(story.limits(), (None, Some(8)));
}

#[test]
fn probe_that_is_refused_waits_twice_as_long_and_one_that_is_used_and_accepted_stands() {
    let mut story = Story::new(CONFIGURED);
    story.refused(36, 1);
    let mut waited = Vec::new();
    for _ in 0..3 {
        story.accepted(30, 1);
        let before = story.now;
        story.probe();
        waited.push((story.now - before).as_secs().div_ceil(60));
        assert_eq!(story.limits().0, Some(38));
        assert!(matches!(story.refused(36, 1), Lesson::ProbeFailed(Subject::Requests, _)));
        assert_eq!(story.limits().0, Some(35));
    }
    assert_eq!(waited, [10, 20, 40]);
    story.accepted(30, 1);
    story.probe();
    for _ in 0..40 {
        story.accepted(38, 1);
    }
    let stood = story.now;
    story.probe();
    assert!(story.now - stood <= assumed::PROBE_AFTER, "stands, so that the next comes soon");
    assert_eq!(story.limits().0, Some(39));
}

#[test]
fn what_the_provider_let_pass_in_a_failed_probe_is_kept() {
    let mut story = Story::new(CONFIGURED);
    story.refused(21, 1);
    story.accepted(20, 1);
    story.probe();
    assert_eq!(story.limits().0, Some(30));
    (21..=27).for_each(|requests| story.accepted(requests, 1));
    assert!(matches!(story.refused(28, 1), Lesson::ProbeFailed(..)));
    assert_eq!(story.limits().0, Some(27));
}

#[test]
fn refusal_for_a_day_benches_and_lowers_nothing() {
    let mut story = Story::new(CONFIGURED);
    let day = Signal { complaint: Complaint { daily: true, ..Complaint::default() }, ..Signal::default() };
    let first = story.refused_saying(36, 3, &day).closed_until();
    assert_eq!(first - story.now, BENCH);
    assert_eq!(story.limits(), (Some(40), Some(1)), "one call at a time tries");
    // In flight together with it.
    let late = Evidence { permitted: first - BENCH - SECOND, requests: 1, in_flight: 1, tokens: 0 };
    assert_eq!(story.learned.refused(story.now, &late, &day).closed_until(), first);
    story.wait(BENCH);
    let second = story.refused_saying(1, 1, &day).closed_until();
    assert_eq!(second - story.now, 2 * BENCH);
    story.wait(30 * BENCH);
    for _ in 0..8 {
        let until = story.refused_saying(1, 1, &day).closed_until();
        assert!(until - story.now <= BENCH_MAX);
        story.wait(BENCH_MAX);
    }
    story.accepted(1, 1);
    assert_eq!(story.limits(), (Some(40), Some(5)));
}

#[test]
fn long_wait_is_a_bench_and_as_long_as_it_is_told() {
    let mut story = Story::new(CONFIGURED);
    let wait = Duration::from_secs(4_000);
    let long = Signal { retry_after: Some(wait), ..Signal::default() };
    let lesson = story.refused_saying(36, 3, &long);
    assert_eq!(lesson, Lesson::Bench(story.now + wait));
    let day = told(&[("x-ratelimit-remaining-requests-day", "0"), ("x-ratelimit-reset-requests-day", "33011.5")]);
    let mut story = Story::new(CONFIGURED);
    let lesson = story.refused_saying(36, 3, &Signal { limits: Some(day), ..Signal::default() });
    assert_eq!(lesson, Lesson::Bench(story.now + Duration::from_millis(33_011_500)));
}

#[test]
fn lessons_outlive_a_restart() {
    let mut story = Story::new(CONFIGURED);
    story.refused(36, 1);
    story.accepted(20, 1);
    story.probe();
    let json = serde_json::to_string(&story.learned.save(story.now, None)).unwrap();
    let saved: Saved = serde_json::from_str(&json).unwrap();
    let mut after = Learned::new(CONFIGURED);
    after.restore(&saved, Duration::ZERO, story.now);
    assert_eq!(after.figures().requests, Some(35), "what was only tried is not kept");
    assert_eq!(after.next_probe(), Some(story.now + assumed::PROBE_AFTER));
    let mut lower = Learned::new(Figures { requests: Some(30), ..CONFIGURED });
    lower.restore(&saved, Duration::ZERO, story.now);
    assert_eq!(lower.figures().requests, Some(30), "what is configured wins");
    let newer = Saved { version: 99, ..saved };
    let mut older = Learned::new(CONFIGURED);
    older.restore(&newer, Duration::ZERO, story.now);
    assert_eq!(older.figures(), CONFIGURED);
}

#[test]
fn reload_never_lifts_a_lesson_above_what_is_configured() {
    let mut story = Story::new(CONFIGURED);
    story.refused(36, 1);
    for (configured, in_force) in [(60, 35), (20, 20), (60, 60)] {
        story.learned.reconfigure(Figures { requests: Some(configured), ..CONFIGURED });
        assert_eq!(story.limits().0, Some(in_force), "{configured}");
    }
}
