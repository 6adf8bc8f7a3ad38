use proptest::prelude::*;

use super::*;
use crate::time;

fn asked(model: &str, bytes: u64) -> Asked {
    let (model, answer) = (Some(model.into()), Answered::Tokens);
    Asked { model, bytes, text: bytes, answers: 1, max_tokens: None, answer, is_read: true }
}

fn usual(habits: &Habits, model: Option<&str>) -> Duration {
    habits.expected(model, time::now()).usual
}

fn seen(prompt: u64, completion: u64, took: Duration) -> Seen {
    let usage = Usage { prompt_tokens: Some(prompt), completion_tokens: Some(completion) };
    Seen { usage, took, streamed: None }
}

const SECOND: Duration = Duration::from_secs(1);

#[test]
fn what_nobody_knows_is_reserved_on_the_safe_side() {
    let habits = Habits::default();
    assert_eq!(habits.tokens(&asked("m", 300)), 100 + UNKNOWN_ANSWER);
    assert_eq!(habits.tokens(&Asked { max_tokens: Some(50), answers: 3, ..asked("m", 300) }), 100 + 150);
    assert_eq!(habits.tokens(&Asked { answer: Answered::Vectors, ..asked("m", 300) }), 100);
    assert_eq!(habits.tokens(&Asked { answer: Answered::Nothing, ..asked("m", 300) }), 0);
    // 20 MB are images.
    assert_eq!(habits.tokens(&Asked { max_tokens: Some(0), ..asked("m", 20 << 20) }), UNKNOWN_QUESTION_MAX);
    assert_eq!(usual(&habits, Some("m")), Duration::ZERO);
}

#[test]
fn an_absurd_request_does_not_overflow() {
    let habits = Habits::default();
    let absurd = Asked { max_tokens: Some(u64::MAX), answers: 128, ..asked("m", u64::MAX) };
    assert_eq!(habits.tokens(&absurd), u64::MAX);
    habits.learn(&absurd, &seen(u64::MAX, u64::MAX, Duration::MAX), time::now());
    habits.learn(&asked("m", 1), &seen(u64::MAX, u64::MAX, Duration::MAX), time::now());
    assert_eq!(habits.tokens(&asked("m", u64::MAX)), u64::MAX);
}

#[test]
fn images_do_not_make_text_look_small_nor_text_images_large() {
    let (habits, now) = (Habits::default(), time::now());
    let limited = |bytes| Asked { max_tokens: Some(0), ..asked("m", bytes) };
    let image = |bytes, text| Asked { text, ..limited(bytes) };
    for _ in 0..ENOUGH {
        habits.learn(&image(1 << 20, 100), &seen(1_500, 1, SECOND), now);
        habits.learn(&limited(3_000), &seen(900, 1, SECOND), now);
    }
    assert!(habits.tokens(&image(2 << 20, 100)) <= 3_100);
    assert_eq!(habits.tokens(&limited(2_000)), 600);
    assert_eq!(habits.tokens(&limited(1 << 20)), UNKNOWN_QUESTION_MAX);
    assert_eq!(habits.tokens(&image(1 << 20, 60_000)), 20_000);
}

#[test]
fn one_sparse_question_does_not_prove_that_all_are_sparse() {
    let (habits, now) = (Habits::default(), time::now());
    let limited = Asked { max_tokens: Some(0), ..asked("m", 3_000) };
    for known in 0..2 * ENOUGH {
        assert_eq!(habits.tokens(&limited), if known < ENOUGH { 1_000 } else { 30 });
        habits.learn(&limited, &seen(30, 1, SECOND), now);
    }
}

/// A ping now and then through the night, and no other call: by the morning nothing is known any more.
#[test]
fn a_few_short_answers_an_hour_never_prove_that_all_are_short() {
    let (habits, mut now) = (Habits::default(), time::now());
    let free = asked("m", 0);
    for _ in 0..100 {
        habits.learn(&free, &seen(1, 5, SECOND), now);
        now += EPOCH / 4;
        assert_eq!(habits.tokens(&free), UNKNOWN_ANSWER);
    }
}

#[test]
fn a_prompt_that_the_provider_adds_is_not_multiplied() {
    let (habits, now) = (Habits::default(), time::now());
    let limited = |bytes| Asked { max_tokens: Some(0), ..asked("agent", bytes) };
    habits.learn(&limited(100), &seen(5_000, 1, SECOND), now);
    assert_eq!(habits.tokens(&limited(3_000)), 5_000 + 1_000);
}

#[test]
fn a_few_short_answers_do_not_prove_that_all_are_short() {
    let (habits, now) = (Habits::default(), time::now());
    let free = asked("m", 0);
    let limited = Asked { max_tokens: Some(16), ..free.clone() };
    for _ in 0..100 {
        habits.learn(&limited, &seen(1, 16, SECOND), now); // cut off at its limit
    }
    assert_eq!(habits.tokens(&free), UNKNOWN_ANSWER);
    for _ in 1..ENOUGH {
        habits.learn(&free, &seen(1, 200, SECOND), now);
        assert_eq!(habits.tokens(&free), UNKNOWN_ANSWER);
    }
    habits.learn(&free, &seen(1, 150, SECOND), now);
    assert_eq!(habits.tokens(&free), 200);
    assert_eq!(habits.tokens(&Asked { answers: 3, ..free }), 600);
}

#[test]
fn what_was_once_large_is_forgotten_after_two_epochs() {
    let (mut largest, start) = (Largest::default(), time::now());
    largest.note(1_000, start);
    largest.note(10, start + EPOCH);
    assert_eq!(largest.lately(), Some(1_000));
    largest.note(10, start + 2 * EPOCH);
    assert_eq!(largest.lately(), Some(10));
    // With many answers it goes faster.
    largest.note(1_000, start + 2 * EPOCH);
    for _ in 0..2 * EPOCH_ANSWERS {
        largest.note(7, start + 2 * EPOCH);
    }
    assert_eq!(largest.lately(), Some(7));
}

#[test]
fn one_slow_answer_does_not_change_what_is_usual() {
    let (habits, now) = (Habits::default(), time::now());
    for _ in 0..20 {
        habits.learn(&asked("m", 1), &seen(1, 1, SECOND), now);
    }
    habits.learn(&asked("m", 1), &seen(1, 1, 600 * SECOND), now);
    assert!(usual(&habits, Some("m")) < 2 * SECOND);
    for _ in 0..60 {
        habits.learn(&asked("m", 1), &seen(1, 1, 20 * SECOND), now);
    }
    assert_eq!(usual(&habits, Some("m")), 20 * SECOND);
}

#[test]
fn how_long_streams_take_says_nothing_of_plain_answers() {
    let (habits, now) = (Habits::default(), time::now());
    habits.learn(&asked("m", 1), &seen(1, 1, SECOND), now);
    for _ in 0..20 {
        habits.learn(&asked("m", 1), &Seen { streamed: Some(true), ..seen(1, 1, 60 * SECOND) }, now);
    }
    assert_eq!(usual(&habits, Some("m")), SECOND);
}

#[test]
fn models_beyond_the_bound_share_an_entry() {
    let (habits, now) = (Habits::default(), time::now());
    for number in 0..MODELS_MAX + 50 {
        habits.learn(&asked(&format!("m{number}"), 1), &seen(1, 1, SECOND), now);
    }
    assert_eq!(habits.0.lock().models.len(), MODELS_MAX);
    assert_eq!(usual(&habits, Some("never seen")), SECOND);
    assert_eq!(usual(&habits, None), SECOND);
}

#[test]
fn a_model_that_ignores_stream_is_known_until_it_streams() {
    let (habits, now) = (Habits::default(), time::now());
    let answer = |streamed| Seen { streamed, ..seen(1, 1, SECOND) };
    for (streamed, ignores) in [(Some(false), true), (None, true), (Some(true), false)] {
        habits.learn(&asked("m", 1), &answer(streamed), now);
        assert_eq!(habits.expected(Some("m"), now).ignores_stream, ignores);
    }
    habits.learn(&asked("m", 1), &answer(Some(false)), now);
    assert!(habits.expected(Some("m"), now + IGNORES_STREAM - SECOND).ignores_stream);
    assert!(!habits.expected(Some("m"), now + IGNORES_STREAM).ignores_stream);
}

proptest! {
    #[test]
    fn a_question_like_one_lately_seen_is_never_estimated_below_it(
        calls in prop::collection::vec((1u64..1 << 21, 0u64..200_000, 0u64..5_000), 1..40),
    ) {
        let (habits, now) = (Habits::default(), time::now());
        for (bytes, prompt, completion) in &calls {
            habits.learn(&asked("m", *bytes), &seen(*prompt, *completion, SECOND), now);
        }
        for (bytes, prompt, completion) in calls {
            prop_assert!(habits.tokens(&asked("m", bytes)) >= prompt + completion);
        }
    }

    #[test]
    fn more_bytes_of_a_size_never_mean_fewer_tokens(
        calls in prop::collection::vec((1u64..4_096, 0u64..5_000), 1..20),
        fewer in 0u64..4_095,
    ) {
        let (habits, now) = (Habits::default(), time::now());
        for (bytes, prompt) in calls {
            habits.learn(&asked("m", bytes), &seen(prompt, 1, SECOND), now);
        }
        prop_assert!(habits.tokens(&asked("m", fewer)) <= habits.tokens(&asked("m", fewer + 1)));
    }

    #[test]
    fn the_usual_duration_is_among_those_seen(
        durations in prop::collection::vec(0u64..600_000, 1..60),
    ) {
        let (habits, now) = (Habits::default(), time::now());
        for ms in &durations {
            habits.learn(&asked("m", 1), &seen(1, 1, Duration::from_millis(*ms)), now);
        }
        let usual = usual(&habits, Some("m")).as_nanos();
        let (least, most) = (durations.iter().min().unwrap(), durations.iter().max().unwrap());
        prop_assert!((u128::from(*least) * 1_000_000..=u128::from(*most) * 1_000_000).contains(&usual));
    }

    #[test]
    fn the_largest_of_the_present_epoch_is_remembered(
        figures in prop::collection::vec((0u64..1_000, 0u64..300), 1..100),
    ) {
        let (mut largest, mut now) = (Largest::default(), time::now());
        let mut all: Vec<(Instant, u64)> = Vec::new();
        for (figure, pause) in figures {
            now += Duration::from_secs(pause);
            largest.note(figure, now);
            all.push((now, figure));
            let recent = all.iter().filter(|(at, _)| *at + EPOCH > now).map(|(_, figure)| *figure).max();
            let not_forgotten = all.iter().filter(|(at, _)| *at + 3 * EPOCH > now).map(|(_, figure)| *figure).max();
            prop_assert!(largest.lately() >= recent);
            prop_assert!(largest.lately() <= not_forgotten);
        }
    }
}
