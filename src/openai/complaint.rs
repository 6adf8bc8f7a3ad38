//! What the body of a refusal complains of: too fast, too many at once, too many tokens, or enough for today.
//!
//! OpenAI has a type (`requests`, `tokens`) and a code (`rate_limit_exceeded`, `insufficient_quota`); the rest of the
//! field only has words, in JSON of every shape. So the words are looked for in the text as it came, and each has to be
//! one that no other complaint uses: a wrong guess would lower the wrong limit, none costs a refusal more.

use std::time::{Duration, SystemTime};

use serde::Deserialize;

use super::reset::{self, leading_duration, leading_figure};

/// So much of a body is read.
const READ_MAX: usize = 16 * 1024;

/// What a refusal is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum About {
    /// Too many requests in a period.
    Requests,
    /// Too many tokens in a period.
    Tokens,
    /// Too many requests at a time.
    Concurrency,
}

/// What a refusal says of itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Complaint {
    /// What it is about, where it says so without doubt.
    pub about: Option<About>,
    /// Nothing more is to be had today, this month, or until somebody pays.
    pub daily: bool,
    /// The request alone is more than the limit: no waiting will let it pass, and others may go on meanwhile.
    pub hopeless: bool,
    /// The limit that it names.
    pub limit: Option<u32>,
    /// How long it says to wait.
    pub retry_after: Option<Duration>,
}

impl Complaint {
    /// Reads a body, or the beginning of one.
    #[must_use]
    pub fn of(body: &[u8], now: SystemTime) -> Self {
        let body = body.get(..READ_MAX).unwrap_or(body);
        let words = String::from_utf8_lossy(body).to_lowercase();
        let (kind, code) = type_and_code(body);
        let about = about(&words, kind.as_deref());
        let daily = code.as_deref() == Some("insufficient_quota") || is_daily(&words);
        let names_another_period = has_one(&words, &["per second", "persecond", "per hour", "perhour"]);
        let limit = if daily || names_another_period { None } else { limit(&words) };
        Self { about, daily, hopeless: is_hopeless(&words), limit, retry_after: retry_after(&words, now) }
    }
}

/// `Request too large for … Limit 30000, Requested 40000`. Where both figures stand they decide, whatever the words.
fn is_hopeless(words: &str) -> bool {
    let figure = |name| behind(words, name).find_map(leading_count);
    match (figure("limit"), figure("requested")) {
        (Some(limit), Some(requested)) => requested > limit,
        _ => has_one(words, &["request too large", "request is too large"]),
    }
}

fn about(words: &str, kind: Option<&str>) -> Option<About> {
    let concurrency = has_one(words, CONCURRENCY);
    let requests = has_one(words, REQUESTS) || has_word(words, &["rpm", "rpd"]);
    let tokens = has_one(words, TOKENS) || has_word(words, &["tpm", "tpd"]);
    match (concurrency, requests, tokens, kind) {
        (true, false, false, _) => Some(About::Concurrency),
        (false, true, false, _) | (false, _, _, Some("requests")) => Some(About::Requests),
        (false, false, true, _) | (false, _, _, Some("tokens")) => Some(About::Tokens),
        _ => None,
    }
}

const CONCURRENCY: &[&str] = &[
    "concurren",
    "in parallel",
    "parallel requests",
    "at once",
    "at a time",
    "simultaneous",
    "in flight",
    "in-flight",
    "并发",
    "\\u5e76\\u53d1",
];
const REQUESTS: &[&str] =
    &["requests per", "request per", "requests_per", "requestsper", "request rate", "call rate", "requests rate"];
const TOKENS: &[&str] =
    &["tokens per", "tokens_per", "tokensper", "token rate", "tokens rate", "token_count", "token count"];

/// Gemini lists what was exceeded by names such as `GenerateRequestsPerDayPerProjectPerModel`. Other texts that name both
/// a day and a minute tell what is allowed, not what was exceeded, and a plan may be monthly: what is spent for the day
/// or the month is said in one sentence with the limit.
fn is_daily(words: &str) -> bool {
    const DAY: &[&str] = &[
        "per day",
        "per-day",
        "per_day",
        "daily",
        "rpd)",
        "tpd)",
        "rpd:",
        "tpd:",
        "per month",
        "monthly",
        "per-month",
        "per_month",
        "/day",
        "/ day",
        "/month",
        "/ month",
    ];
    const SPENT: &[&str] = &["limit", "quota", "exceed", "reached", "exhausted"];
    const MINUTE: &[&str] =
        &["per min", "per-min", "per_min", "perminute", "rpm)", "tpm)", "rpm:", "tpm:", "per second", "per hour"];
    let is_spent = |sentence: &str| has_one(sentence, DAY) && has_one(sentence, SPENT);
    words.contains("perday") || words.split(SENTENCE_ENDS).any(is_spent) && !has_one(words, MINUTE)
}

/// Where a sentence, or a string of JSON, ends at the latest.
const SENTENCE_ENDS: [char; 6] = ['.', '!', '?', ';', '"', '\n'];

fn has_one(words: &str, of: &[&str]) -> bool {
    of.iter().any(|one| words.contains(one))
}

/// One of these stands by itself: `tpm` is in `httpMethod`, too.
fn has_word(words: &str, of: &[&str]) -> bool {
    words.split(|c: char| !c.is_alphanumeric()).any(|word| of.contains(&word))
}

/// `Limit 3, Used 3`, `rate limit of 40,000 input tokens`, `max RPM: 3`, `max organization concurrency: 1`.
fn limit(words: &str) -> Option<u32> {
    ["limit", "rpm", "tpm", "concurrency"].into_iter().find_map(|name| {
        behind(words, name).find_map(|rest| u32::try_from(leading_count(rest)?).ok().filter(|&limit| limit > 0))
    })
}

/// The whole figure, with or without commas, that stands next.
fn leading_count(rest: &str) -> Option<u64> {
    let rest = rest.trim_start_matches([' ', ':', '=', '"', '\\']);
    let rest = rest.strip_prefix("of ").unwrap_or(rest);
    let end = rest.find(|c: char| !c.is_ascii_digit() && c != ',').unwrap_or(rest.len());
    let digits: String = rest.get(..end)?.chars().filter(char::is_ascii_digit).take(12).collect();
    digits.parse().ok()
}

/// `try again in 7m12s`, `try again after 1 seconds`, `Please retry in 45.57s`, `"retryDelay": "34s"`, and the header that
/// OpenRouter repeats in its body.
fn retry_after(words: &str, now: SystemTime) -> Option<Duration> {
    let spoken = ["try again in", "try again after", "retry in", "retry after", "retrydelay"]
        .into_iter()
        .find_map(|phrase| behind(words, phrase).find_map(spoken_duration));
    spoken.map(|wait| wait.min(reset::LONGEST)).or_else(|| {
        behind(words, "x-ratelimit-reset").find_map(|rest| {
            let rest = rest.trim_start_matches(['"', ':', ' ', '\\']);
            let end = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
            reset::parse(rest.get(..end)?, now)
        })
    })
}

fn spoken_duration(rest: &str) -> Option<Duration> {
    let rest = rest.trim_start_matches([' ', ':', '"', '\\']);
    if let Some((wait, _)) = leading_duration(rest) {
        return Some(wait);
    }
    let (figure, rest) = leading_figure(rest)?;
    let unit = match rest.trim_start().get(..3)? {
        "sec" => 1.0,
        "min" => 60.0,
        "hou" => 3_600.0,
        "mil" => 1e-3,
        _ => return None,
    };
    Duration::try_from_secs_f64(figure * unit).ok()
}

/// What follows each place where `name` stands.
fn behind<'a>(words: &'a str, name: &'a str) -> impl Iterator<Item = &'a str> {
    words.match_indices(name).filter_map(move |(at, _)| words.get(at + name.len()..))
}

/// `error.type` and `error.code` where they are strings; older vLLM has them at the top, Gemini an array around it.
fn type_and_code(body: &[u8]) -> (Option<String>, Option<String>) {
    let body = body.trim_ascii();
    let body = body.strip_prefix(b"[").and_then(|body| body.strip_suffix(b"]")).unwrap_or(body);
    let Ok(answer) = serde_json::from_slice::<Answer>(body) else { return (None, None) };
    let inner = answer.error.and_then(|error| serde_json::from_value::<Fields>(error).ok());
    let Fields { kind, code } = inner.unwrap_or(Fields { kind: answer.kind, code: answer.code });
    let text = |value: Option<serde_json::Value>| value.and_then(|value| value.as_str().map(str::to_owned));
    (text(kind), text(code))
}

#[derive(Deserialize)]
struct Answer {
    error: Option<serde_json::Value>,
    #[serde(rename = "type")]
    kind: Option<serde_json::Value>,
    code: Option<serde_json::Value>,
}

#[derive(Deserialize)]
struct Fields {
    #[serde(rename = "type")]
    kind: Option<serde_json::Value>,
    code: Option<serde_json::Value>,
}

#[cfg(test)]
mod tests {
    use std::time::UNIX_EPOCH;

    use super::*;

    fn read(body: &str) -> Complaint {
        Complaint::of(body.as_bytes(), UNIX_EPOCH + Duration::from_secs(1_700_000_000))
    }

    #[test]
    fn what_providers_complain_of_is_understood() {
        let (requests, tokens, at_once) = (Some(About::Requests), Some(About::Tokens), Some(About::Concurrency));
        let complaint = |about, daily, limit, millis: u64| Complaint {
            about,
            daily,
            hopeless: false,
            limit,
            retry_after: (millis > 0).then(|| Duration::from_millis(millis)),
        };
        for (body, expected) in [
            (
                r#"{"error":{"message":"Rate limit reached for gpt-4o in organization org-x on requests per min (RPM): Limit 3, Used 3, Requested 1. Please try again in 20s.","type":"requests","param":null,"code":"rate_limit_exceeded"}}"#,
                complaint(requests, false, Some(3), 20_000),
            ),
            (
                r#"{"error":{"message":"Request too large for gpt-4o in organization org-x on tokens per min (TPM): Limit 30000, Requested 40000.","type":"tokens","param":null,"code":"rate_limit_exceeded"}}"#,
                Complaint { hopeless: true, ..complaint(tokens, false, Some(30_000), 0) },
            ),
            (
                r#"{"error":{"message":"Rate limit reached for gpt-4o in organization org-x on requests per day (RPD): Limit 200, Used 200, Requested 1. Please try again in 7m12s.","type":"requests","code":"rate_limit_exceeded"}}"#,
                complaint(requests, true, None, 432_000),
            ),
            (
                r#"{"error":{"message":"You exceeded your current quota, please check your plan and billing details.","type":"insufficient_quota","param":null,"code":"insufficient_quota"}}"#,
                complaint(None, true, None, 0),
            ),
            (
                r#"{"error":{"message":"slow down","type":"tokens","code":"rate_limit_exceeded"}}"#,
                complaint(tokens, false, None, 0),
            ),
            (
                r#"{"error":{"code":"429","message":"Requests to the ChatCompletions_Create Operation under Azure OpenAI API version 2023-05-15 have exceeded token rate limit of your current OpenAI S0 pricing tier. Please retry after 24 seconds."}}"#,
                complaint(tokens, false, None, 24_000),
            ),
            (
                r#"{"error":{"code":"429","message":"Requests to the Creation Operation have exceeded call rate limit of your current OpenAI S0 pricing tier. Please retry after 1 second."}}"#,
                complaint(requests, false, None, 1_000),
            ),
            (
                r#"{"type":"error","error":{"type":"rate_limit_error","message":"This request would exceed your organization's rate limit of 40,000 input tokens per minute."}}"#,
                complaint(tokens, false, Some(40_000), 0),
            ),
            (
                r#"{"type":"error","error":{"type":"rate_limit_error","message":"Number of concurrent connections has exceeded your rate limit."}}"#,
                complaint(at_once, false, None, 0),
            ),
            (
                r#"{"error":{"message":"Rate limit reached for model `llama` in organization `org` on tokens per day (TPD): Limit 100000, Used 99336, Requested 821. Please try again in 2m15.648s.","type":"tokens","code":"rate_limit_exceeded"}}"#,
                complaint(tokens, true, None, 135_648),
            ),
            (
                r#"{"error":{"message":"Rate limit exceeded: free-models-per-day. Add 10 credits","code":429,"metadata":{"headers":{"X-RateLimit-Limit":"50","X-RateLimit-Remaining":"0","X-RateLimit-Reset":"1700003600000"}}}}"#,
                complaint(None, true, None, 3_600_000),
            ),
            (
                r#"{"error":{"message":"Rate limit exceeded: free-models-per-min. ","code":429,"metadata":{"headers":{"X-RateLimit-Limit":"20","X-RateLimit-Remaining":"0","X-RateLimit-Reset":"1700000030000"}}}}"#,
                complaint(None, false, Some(20), 30_000),
            ),
            (r#"{"status":429,"title":"Too Many Requests"}"#, complaint(None, false, None, 0)),
            (
                r#"{"object":"error","message":"Requests rate limit exceeded","type":"rate_limited","param":null,"code":"1300"}"#,
                complaint(requests, false, None, 0),
            ),
            (
                r#"[{"error":{"code":429,"message":"You exceeded your current quota, please check your plan.","status":"RESOURCE_EXHAUSTED","details":[{"violations":[{"quotaId":"GenerateRequestsPerMinutePerProjectPerModel-FreeTier"}]},{"@type":"type.googleapis.com/google.rpc.RetryInfo","retryDelay":"34s"}]}}]"#,
                complaint(requests, false, None, 34_000),
            ),
            (
                r#"[{"error":{"code":429,"status":"RESOURCE_EXHAUSTED","details":[{"violations":[{"quotaId":"GenerateRequestsPerMinutePerProjectPerModel-FreeTier"},{"quotaId":"GenerateRequestsPerDayPerProjectPerModel-FreeTier"}]}]}}]"#,
                complaint(requests, true, None, 0),
            ),
            (
                r#"{"error":{"message":"Your account org-x<ak-y> request reached max organization concurrency: 1, please try again after 1 seconds","type":"rate_limit_reached_error"}}"#,
                complaint(at_once, false, Some(1), 1_000),
            ),
            (
                r#"{"error":{"message":"Your account org-x<ak-y> request reached organization max RPM: 3, please try again after 1 seconds","type":"rate_limit_reached_error"}}"#,
                complaint(requests, false, Some(3), 1_000),
            ),
            (
                r#"{"error":"Too many concurrent requests. Limit: 1 concurrent requests"}"#,
                complaint(at_once, false, Some(1), 0),
            ),
            (
                r#"{"error":{"code":"1302","message":"您当前使用该API的并发数过高"}}"#,
                complaint(at_once, false, None, 0),
            ),
            ("too many requests in parallel", complaint(at_once, false, None, 0)),
        ] {
            assert_eq!(read(body), expected, "{body}");
        }
    }

    #[test]
    fn a_request_larger_than_the_limit_is_hopeless_and_one_that_comes_too_soon_is_not() {
        for (hopeless, body) in [
            (true, "Rate limit reached on tokens per min (TPM): Limit 30,000, Used 10, Requested 30,001."),
            (true, r#"{"error":{"message":"Request too large for m."}}"#),
            (false, "Rate limit reached on tokens per min (TPM): Limit 30000, Used 29000, Requested 4000."),
            (false, "Request too large on tokens per min (TPM): Limit 30000, Requested 4000."),
            (false, "Rate limit reached on requests per min (RPM): Limit 3, Used 3, Requested 1."),
            (false, "too many requests"),
        ] {
            assert_eq!(read(body).hopeless, hopeless, "{body}");
        }
    }

    #[test]
    fn what_could_mean_two_things_means_nothing() {
        for body in [
            "",
            "{",
            "rate limit exceeded: 40 requests per minute or 5 concurrent requests",
            "limits: 40 requests per minute, 8000 tokens per minute",
            "Resource has been exhausted (e.g. check quota).",
            r#"{"error":{"type":7,"code":{}}}"#,
        ] {
            let Complaint { about, daily, .. } = read(body);
            assert_eq!((about, daily), (None, false), "{body}");
        }
        for innocent in [
            r#"{"error":{"message":"slow down","httpMethod":"POST","warpMode":"x"}}"#,
            "too many requests. see our monthly plans",
            r#"{"error":{"message":"slow down, or buy a monthly plan","code":"rate_limit_exceeded"}}"#,
        ] {
            let Complaint { about, daily, .. } = read(innocent);
            assert_eq!((about, daily), (None, false), "{innocent}");
        }
        for spent in ["your monthly quota is used up", "limit reached: 200 requests / day", "exceeded 5 USD / month"] {
            assert!(read(spent).daily, "{spent}");
        }
        assert!(!read("allowed are 40 requests per minute and 1000 per day").daily);
        assert_eq!(read("limit: 0, limit 99999999999999").limit, None);
        assert_eq!(read("limit of 5 requests per second").limit, None);
    }
}
