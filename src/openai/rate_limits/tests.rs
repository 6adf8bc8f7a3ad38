use std::time::UNIX_EPOCH;

use super::*;

/// 2023-11-14T22:13:20Z.
const NOW: u64 = 1_700_000_000;

fn read(pairs: &[(&'static str, &'static str)]) -> Option<RateLimits> {
    let headers: HeaderMap =
        pairs.iter().map(|(name, value)| ((*name).parse().unwrap(), value.parse().unwrap())).collect();
    RateLimits::of(&headers, || UNIX_EPOCH + Duration::from_secs(NOW))
}

fn told(limit: u32, remaining: u32, millis: u64) -> Told {
    Told { limit: Some(limit), remaining: Some(remaining), reset: Some(Duration::from_millis(millis)), window: None }
}

fn a_minute(told: Told) -> Told {
    Told { window: Some(MINUTE), ..told }
}

#[test]
fn every_provider_is_understood() {
    use Counted::{InputTokens, OutputTokens, Requests, Tokens};
    let nothing = Told::default();
    for (who, pairs, in_window, in_long) in [
        (
            "OpenAI",
            &[
                ("x-ratelimit-limit-requests", "60"),
                ("x-ratelimit-remaining-requests", "59"),
                ("x-ratelimit-reset-requests", "1s"),
                ("x-ratelimit-limit-tokens", "150000"),
                ("x-ratelimit-remaining-tokens", "149984"),
                ("x-ratelimit-reset-tokens", "6m0s"),
                ("x-ratelimit-limit-project-tokens", "5"),
            ][..],
            vec![(Requests, told(60, 59, 1_000)), (Tokens, told(150_000, 149_984, 360_000))],
            vec![],
        ),
        (
            "Azure",
            &[
                ("x-ratelimit-remaining-requests", "119"),
                ("x-ratelimit-remaining-tokens", "0"),
                ("x-ratelimit-reset-tokens", "24"),
            ],
            vec![
                (Requests, Told { remaining: Some(119), ..nothing }),
                (Tokens, Told { remaining: Some(0), reset: Some(Duration::from_secs(24)), ..nothing }),
            ],
            vec![],
        ),
        (
            "Anthropic",
            &[
                ("anthropic-ratelimit-requests-limit", "50"),
                ("anthropic-ratelimit-requests-remaining", "49"),
                ("anthropic-ratelimit-requests-reset", "2023-11-14T22:13:21Z"),
                ("anthropic-ratelimit-input-tokens-limit", "40000"),
                ("anthropic-ratelimit-input-tokens-remaining", "39000"),
                ("anthropic-ratelimit-input-tokens-reset", "2023-11-14T22:13:22Z"),
                ("anthropic-ratelimit-output-tokens-limit", "8000"),
                ("anthropic-ratelimit-output-tokens-remaining", "0"),
                ("anthropic-ratelimit-output-tokens-reset", "2023-11-14T22:14:20Z"),
                ("anthropic-ratelimit-unified-reset", "1700003600"),
            ],
            vec![
                (Requests, told(50, 49, 1_000)),
                (InputTokens, told(40_000, 39_000, 2_000)),
                (OutputTokens, told(8_000, 0, 60_000)),
                (Tokens, nothing),
            ],
            vec![],
        ),
        (
            "Groq, whose requests are those of a day",
            &[
                ("x-ratelimit-limit-requests", "1000"),
                ("x-ratelimit-remaining-requests", "990"),
                ("x-ratelimit-reset-requests", "14m24s"),
                ("x-ratelimit-limit-tokens", "18000"),
                ("x-ratelimit-remaining-tokens", "17997"),
                ("x-ratelimit-reset-tokens", "7.66s"),
            ],
            vec![(Requests, nothing), (Tokens, told(18_000, 17_997, 7_660))],
            vec![(Requests, told(1_000, 990, 864_000))],
        ),
        (
            "Cerebras",
            &[
                ("x-ratelimit-limit-requests-day", "14400"),
                ("x-ratelimit-remaining-requests-day", "0"),
                ("x-ratelimit-reset-requests-day", "33011.5"),
                ("x-ratelimit-limit-tokens-minute", "60000"),
                ("x-ratelimit-remaining-tokens-minute", "59000"),
                ("x-ratelimit-reset-tokens-minute", "11.5"),
            ],
            vec![(Requests, nothing), (Tokens, a_minute(told(60_000, 59_000, 11_500)))],
            vec![(Requests, told(14_400, 0, 33_011_500))],
        ),
        (
            "Mistral",
            &[
                ("x-ratelimit-limit-req-minute", "720"),
                ("x-ratelimit-remaining-req-minute", "717"),
                ("x-ratelimit-limit-tokens-minute", "5000000"),
                ("x-ratelimit-remaining-tokens-minute", "4999911"),
                ("x-ratelimit-tokens-query-cost", "52"),
            ],
            vec![
                (Requests, Told { limit: Some(720), remaining: Some(717), reset: None, window: Some(MINUTE) }),
                (
                    Tokens,
                    Told { limit: Some(5_000_000), remaining: Some(4_999_911), reset: None, window: Some(MINUTE) },
                ),
            ],
            vec![],
        ),
        (
            "OpenRouter, a day",
            &[("x-ratelimit-limit", "50"), ("x-ratelimit-remaining", "0"), ("x-ratelimit-reset", "1700040000000")],
            vec![(Requests, nothing)],
            vec![(Requests, told(50, 0, 40_000_000))],
        ),
        (
            "gateways, seconds since 1970",
            &[("x-ratelimit-limit", "20"), ("x-ratelimit-remaining", "3"), ("x-ratelimit-reset", "1700000030")],
            vec![(Requests, told(20, 3, 30_000))],
            vec![],
        ),
        (
            "IETF draft 6",
            &[("ratelimit-limit", "100, 100;w=60"), ("ratelimit-remaining", "50"), ("ratelimit-reset", "30")],
            vec![(Requests, a_minute(told(100, 50, 30_000)))],
            vec![],
        ),
        (
            "IETF draft 7",
            &[("ratelimit", "limit=100, remaining=50, reset=5"), ("ratelimit-policy", "100;w=60")],
            vec![(Requests, a_minute(told(100, 50, 5_000)))],
            vec![],
        ),
        (
            "IETF draft 8 and later",
            &[("ratelimit-policy", r#""day";q=1000;w=86400"#), ("ratelimit", r#""day";r=10;t=30"#)],
            vec![(Requests, nothing)],
            vec![(Requests, Told { window: Some(Duration::from_secs(86_400)), ..told(1_000, 10, 30_000) })],
        ),
        (
            "IETF, several policies: the one with the least left",
            &[("ratelimit-policy", r#""a";q=9;w=1, "b";q=99;w=60"#), ("ratelimit", r#""a";r=7;t=1, "b";r=2;t=30"#)],
            vec![(Requests, Told { remaining: Some(2), reset: Some(Duration::from_secs(30)), ..nothing })],
            vec![],
        ),
    ] {
        let limits = read(pairs).unwrap_or_else(|| panic!("{who}"));
        for (counted, expected) in in_window {
            assert_eq!(limits.in_window(counted), expected, "{who}, {counted:?}");
        }
        for (counted, expected) in in_long {
            assert_eq!(limits.in_long(counted), expected, "{who}, {counted:?}");
        }
    }
}

#[test]
fn nothing_left_of_a_day_is_said_so() {
    let day = [("x-ratelimit-remaining-requests-day", "0"), ("x-ratelimit-remaining-tokens-minute", "0")];
    let exhausted = read(&day).unwrap().long_exhausted();
    assert_eq!(exhausted.map(|(counted, _)| counted), Some(Counted::Requests));
    assert_eq!(read(&day[1..]).unwrap().long_exhausted(), None);
}

#[test]
fn answers_that_tell_nothing_do_not_even_ask_for_the_time() {
    let headers: HeaderMap = [("content-type", "application/json"), ("x-request-id", "r"), ("age", "1")]
        .into_iter()
        .map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap()))
        .collect();
    assert_eq!(RateLimits::of(&headers, || panic!("asked for the time")), None);
}

#[test]
fn nonsense_is_passed_over() {
    for pairs in [
        &[("x-ratelimit-limit-requests", "many")][..],
        &[("x-ratelimit-limit-requests", "-5")],
        &[("x-ratelimit-limit-requests", "40/min")],
        &[("x-ratelimit-limit-audio-seconds", "40")],
        &[("x-ratelimit-requests", "40")],
        &[("x-ratelimit-limit-requests-second", "1")],
        &[("x-ratelimitbysize-limit", "40")],
        &[("ratelimit", "40")],
        &[("ratelimit-policy", r#""a";q=1, "b";q=2"#)],
        &[("x-ratelimit-reset", "whenever")],
    ] {
        assert_eq!(read(pairs), None, "{pairs:?}");
    }
    let limit = read(&[("x-ratelimit-limit-tokens", "99999999999")]).unwrap().in_window(Counted::Tokens).limit;
    assert_eq!(limit, Some(u32::MAX));
}
