//! Header fields of ours, on answers and refusals.

use http::header::{
    CACHE_CONTROL, CONTENT_LENGTH, CONTENT_TYPE, HeaderName, HeaderValue, RETRY_AFTER, WWW_AUTHENTICATE,
};
use http::{HeaderMap, StatusCode};

use crate::answer::{Facts, Head, Standing};
use crate::ids::CallId;
use crate::time::Duration;

/// SDKs obey a `Retry-After` of up to a minute; so never more.
pub(super) const RETRY_AFTER_MAX: Duration = Duration::from_secs(60);
/// What is sooner than this is as good as now, and an invitation to ask in a loop.
const RETRY_AFTER_MIN: Duration = Duration::from_secs(1);
/// SDKs ask twice within two minutes at the most: beyond that they may as well give up at once.
const HOPE_MAX: Duration = Duration::from_secs(120);
/// The family of fields that tell what a provider allows.
const LIMITS: &str = "x-ratelimit-";

/// Of an error of ours: its form, and when to come back; `is_once`: not at all, since it might be done twice.
pub(super) fn of_error(status: StatusCode, length: usize, retry_after: Option<Duration>, is_once: bool) -> HeaderMap {
    let mut headers = HeaderMap::new();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(CONTENT_LENGTH, length.into());
    if status == StatusCode::UNAUTHORIZED {
        headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer")); // RFC 9110, section 15.5.2
    }
    if let Some(after) = retry_after {
        let told = after.clamp(RETRY_AFTER_MIN, RETRY_AFTER_MAX);
        headers.insert(RETRY_AFTER, u64::try_from(told.as_millis().div_ceil(1_000)).unwrap_or(u64::MAX).into());
        headers.insert(HeaderName::from_static("retry-after-ms"), millis(told));
    }
    if is_once || retry_after.is_some_and(|after| after > HOPE_MAX) {
        headers.insert(HeaderName::from_static("x-should-retry"), HeaderValue::from_static("false"));
    }
    headers
}

/// The head that a client gets before there is an answer.
pub(super) fn early_head(id: CallId, facts: &Facts) -> Head {
    let mut headers = HeaderMap::new();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/event-stream; charset=utf-8"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    name_call(&mut headers, id, facts);
    Head { status: StatusCode::OK, headers }
}

/// Names the call, what happened to it, and what its client has left.
pub(super) fn add(headers: &mut HeaderMap, id: CallId, facts: &Facts) {
    name_call(headers, id, facts);
    if headers.keys().any(|name| name.as_str().starts_with(LIMITS)) {
        return; // the provider's own
    }
    if let Some(standing) = &facts.requests {
        let names = ["x-ratelimit-limit-requests", "x-ratelimit-remaining-requests", "x-ratelimit-reset-requests"];
        add_standing(headers, names, standing);
    }
    if let Some(standing) = &facts.tokens {
        let names = ["x-ratelimit-limit-tokens", "x-ratelimit-remaining-tokens", "x-ratelimit-reset-tokens"];
        add_standing(headers, names, standing);
    }
}

fn name_call(headers: &mut HeaderMap, id: CallId, facts: &Facts) {
    let mut add = |name, value: Result<HeaderValue, _>| {
        if let Ok(value) = value {
            headers.insert(HeaderName::from_static(name), value);
        }
    };
    add("x-tidegate-request-id", HeaderValue::try_from(id.to_string()));
    if let Some(upstream) = &facts.upstream {
        add("x-tidegate-upstream", HeaderValue::try_from(&**upstream));
        add("x-tidegate-attempts", Ok(facts.attempts.into()));
    }
    if facts.upstream.is_some() || !facts.waited.is_zero() {
        add("x-tidegate-queue-ms", Ok(millis(facts.waited)));
    }
}

fn add_standing(headers: &mut HeaderMap, [limit, left, reset]: [&'static str; 3], standing: &Standing) {
    headers.insert(HeaderName::from_static(limit), standing.limit.into());
    headers.insert(HeaderName::from_static(left), standing.left.into());
    if let Ok(value) = HeaderValue::try_from(span(standing.reset)) {
        headers.insert(HeaderName::from_static(reset), value);
    }
}

/// A duration as OpenAI writes it: `12ms`, `1s`, `7.66s`, `6m0s`, `1h0m5s`.
fn span(duration: Duration) -> String {
    let ms = duration.as_millis();
    if ms < 1_000 {
        return format!("{ms}ms");
    }
    let (minutes, ms) = (ms / 60_000, ms % 60_000);
    let seconds = match ms % 1_000 {
        0 => format!("{}s", ms / 1_000),
        part => format!("{}.{}s", ms / 1_000, format!("{part:03}").trim_end_matches('0')),
    };
    match (minutes / 60, minutes % 60) {
        (0, 0) => seconds,
        (0, minutes) => format!("{minutes}m{seconds}"),
        (hours, minutes) => format!("{hours}h{minutes}m{seconds}"),
    }
}

fn millis(duration: Duration) -> HeaderValue {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(retry_after: Option<u64>, is_once: bool) -> [Option<String>; 3] {
        let headers = of_error(StatusCode::TOO_MANY_REQUESTS, 0, retry_after.map(Duration::from_millis), is_once);
        ["retry-after", "retry-after-ms", "x-should-retry"]
            .map(|name| headers.get(name).map(|value| value.to_str().unwrap().to_owned()))
    }

    #[test]
    fn when_to_come_back_is_told_so_that_sdks_obey() {
        for (ms, seconds, exact, should) in [
            (0, "1", "1000", None),
            (1_000, "1", "1000", None),
            (1_001, "2", "1001", None),
            (59_999, "60", "59999", None),
            (60_001, "60", "60000", None),
            (120_000, "60", "60000", None),
            (120_001, "60", "60000", Some("false")),
            (u64::MAX, "60", "60000", Some("false")),
        ] {
            let expected = [Some(seconds), Some(exact), should].map(|word| word.map(str::to_owned));
            assert_eq!(told(Some(ms), false), expected, "{ms}");
        }
        assert_eq!(told(None, false), [None, None, None]);
        assert_eq!(told(None, true), [None, None, Some("false".to_owned())]);
    }

    #[test]
    fn spans_are_written_as_openai_writes_them() {
        for (ms, written) in [
            (0, "0ms"),
            (12, "12ms"),
            (1_000, "1s"),
            (7_660, "7.66s"),
            (60_000, "1m0s"),
            (360_000, "6m0s"),
            (3_605_000, "1h0m5s"),
        ] {
            assert_eq!(span(Duration::from_millis(ms)), written);
        }
    }

    #[test]
    fn what_is_left_is_told_only_where_the_provider_does_not() {
        let standing = Standing { limit: 40, left: 3, reset: Duration::from_millis(61_500) };
        let facts = Facts { requests: Some(standing), ..Facts::default() };
        let mut headers = HeaderMap::new();
        add(&mut headers, CallId::random(), &facts);
        let field = |name: &str| headers.get(name).map(|value| value.to_str().unwrap());
        assert_eq!(field("x-ratelimit-limit-requests"), Some("40"));
        assert_eq!(field("x-ratelimit-remaining-requests"), Some("3"));
        assert_eq!(field("x-ratelimit-reset-requests"), Some("1m1.5s"));
        assert_eq!(field("x-ratelimit-limit-tokens"), None);
        let mut headers = HeaderMap::new();
        headers.insert("x-ratelimit-limit-tokens-day", 7.into());
        add(&mut headers, CallId::random(), &facts);
        assert!(!headers.contains_key("x-ratelimit-limit-requests"));
    }
}
