//! Errors: the shape we write them in, and what providers tell in theirs.

use std::borrow::Cow;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use http::HeaderMap;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::reset;

/// An error in OpenAI's shape. Every member is always written: SDKs expect `null` rather than nothing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ErrorBody {
    /// For people: which setting or limit was hit, and what to do.
    pub message: Cow<'static, str>,
    /// The family, such as `requests` or `invalid_request_error`.
    #[serde(rename = "type")]
    pub kind: Cow<'static, str>,
    /// The request parameter at fault, if one is.
    pub param: Option<Cow<'static, str>>,
    /// For programs: one of the codes of the README.
    pub code: Option<Cow<'static, str>>,
}

impl ErrorBody {
    /// An error with a code and no parameter, as most are.
    pub fn new(
        message: impl Into<Cow<'static, str>>,
        kind: impl Into<Cow<'static, str>>,
        code: impl Into<Cow<'static, str>>,
    ) -> Self {
        Self { message: message.into(), kind: kind.into(), param: None, code: Some(code.into()) }
    }

    /// The body of an error answer: `{"error":{…}}`.
    #[must_use]
    pub fn to_json(&self) -> Bytes {
        #[derive(Serialize)]
        struct Envelope<'a> {
            error: &'a ErrorBody,
        }
        // Strings and options always serialise; an empty body would still be an error to every client.
        serde_json::to_vec(&Envelope { error: self }).unwrap_or_default().into()
    }
}

/// An error inside a stream that has begun: `data: {"error":{…,"status":N}}` and a blank line. SDKs raise an error for
/// a top-level `error` member and for nothing else.
#[must_use]
pub fn sse_error_event(body: &ErrorBody, status: u16) -> Bytes {
    #[derive(Serialize)]
    struct Envelope<'a> {
        error: WithStatus<'a>,
    }
    #[derive(Serialize)]
    struct WithStatus<'a> {
        #[serde(flatten)]
        body: &'a ErrorBody,
        status: u16,
    }
    let json = serde_json::to_string(&Envelope { error: WithStatus { body, status } }).unwrap_or_default();
    format!("data: {json}\n\n").into()
}

/// How long a provider asks to be left alone: `retry-after-ms`, else `x-ms-retry-after-ms`, else `retry-after` in whole
/// or decimal seconds or as a date. A date that has passed is zero; what cannot be read is passed over.
#[must_use]
pub fn parse_retry_after(headers: &HeaderMap, now: SystemTime) -> Option<Duration> {
    let text = |name| headers.get(name).and_then(|value| value.to_str().ok()).map(str::trim);
    let ms = |name| text(name).and_then(milliseconds);
    ms("retry-after-ms")
        .or_else(|| ms("x-ms-retry-after-ms"))
        .or_else(|| text("retry-after").and_then(|text| reset::parse(text, now)))
        .map(|wait| wait.min(reset::LONGEST))
}

fn milliseconds(text: &str) -> Option<Duration> {
    Duration::try_from_secs_f64(text.parse::<f64>().ok()? * 1e-3).ok()
}

/// The provider says that the *model* does not exist. Where 404 is configured as a refusal, such an answer is none: no
/// waiting will make the model appear.
#[must_use]
pub fn is_model_not_found(body: &[u8]) -> bool {
    let Ok(answer) = serde_json::from_slice::<ErrorAnswer<'_>>(body) else { return false };
    let inner = answer.error.and_then(|raw| serde_json::from_str::<ErrorFields<'_>>(raw.get()).ok());
    let text = |raw: &RawValue| serde_json::from_str::<String>(raw.get()).ok();
    let (code, message) = match inner {
        Some(inner) => (inner.code, inner.message.and_then(text)),
        None => (answer.code, answer.message.or(answer.error).and_then(text)),
    };
    code.and_then(text).is_some_and(|code| code == "model_not_found")
        || message.is_some_and(|message| {
            let message = message.to_ascii_lowercase();
            message.contains("model") && (message.contains("not found") || message.contains("not exist"))
        })
}

/// An error answer: OpenAI nests it, older vLLM has the fields at the top, Ollama's own API has a bare string.
#[derive(Deserialize)]
struct ErrorAnswer<'a> {
    #[serde(borrow)]
    error: Option<&'a RawValue>,
    #[serde(borrow)]
    code: Option<&'a RawValue>,
    #[serde(borrow)]
    message: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct ErrorFields<'a> {
    #[serde(borrow)]
    code: Option<&'a RawValue>,
    #[serde(borrow)]
    message: Option<&'a RawValue>,
}

#[cfg(test)]
mod tests {
    use std::time::UNIX_EPOCH;

    use super::*;

    #[test]
    fn errors_have_the_shape_sdks_parse() {
        let body = ErrorBody::new("the queue holds 10 calls", "requests", "queue_full");
        let json =
            r#"{"error":{"message":"the queue holds 10 calls","type":"requests","param":null,"code":"queue_full"}}"#;
        assert_eq!(body.to_json(), json);
        let event = sse_error_event(&body, 429);
        let expected = json.replace("}}", ",\"status\":429}}");
        assert_eq!(event, format!("data: {expected}\n\n"));
    }

    fn retry_after(pairs: &[(&'static str, &'static str)]) -> Option<Duration> {
        let headers =
            pairs.iter().map(|(name, value)| ((*name).parse().unwrap(), value.parse().unwrap())).collect::<HeaderMap>();
        parse_retry_after(&headers, UNIX_EPOCH + Duration::from_secs(1_700_000_000))
    }

    #[test]
    fn the_most_precise_readable_header_rules() {
        assert_eq!(retry_after(&[("retry-after", "3"), ("retry-after-ms", "250")]), Some(Duration::from_millis(250)));
        assert_eq!(retry_after(&[("x-ms-retry-after-ms", "1500")]), Some(Duration::from_millis(1500)));
        assert_eq!(
            retry_after(&[("retry-after-ms", "soon"), ("retry-after", " 1.5 ")]),
            Some(Duration::from_millis(1500))
        );
        assert_eq!(retry_after(&[("retry-after", "0")]), Some(Duration::ZERO));
        assert_eq!(retry_after(&[]), None);
    }

    #[test]
    fn dates_and_epochs_are_instants() {
        let ten = Some(Duration::from_secs(10));
        assert_eq!(retry_after(&[("retry-after", "Tue, 14 Nov 2023 22:13:30 GMT")]), ten);
        assert_eq!(retry_after(&[("retry-after", "1700000010")]), ten);
        assert_eq!(retry_after(&[("retry-after", "Mon, 13 Nov 2023 22:13:20 GMT")]), Some(Duration::ZERO));
    }

    #[test]
    fn nonsense_is_clamped_or_passed_over() {
        assert_eq!(retry_after(&[("retry-after", "900000")]), Some(reset::LONGEST));
        for nonsense in ["-1", "NaN", "inf", "", "tomorrow", "1e999"] {
            assert_eq!(retry_after(&[("retry-after", nonsense)]), None, "{nonsense}");
        }
        assert_eq!(retry_after(&[("retry-after", "1e300")]), None);
    }

    #[test]
    fn a_missing_model_is_told_from_other_refusals() {
        for yes in [
            r#"{"error":{"message":"The model `x` does not exist","type":"invalid_request_error","code":"model_not_found"}}"#,
            r#"{"error":{"message":"model 'x' not found, try pulling it first","code":null}}"#,
            r#"{"object":"error","message":"The model `x` does not exist.","type":"NotFoundError","code":404}"#,
            r#"{"error":"model 'x' not found"}"#,
        ] {
            assert!(is_model_not_found(yes.as_bytes()), "{yes}");
        }
        for no in [
            "",
            "404 page not found",
            r#"{"error":{"message":"Not found","code":404}}"#,
            r#"{"error":{"message":"rate limited","code":"rate_limit_exceeded"}}"#,
        ] {
            assert!(!is_model_not_found(no.as_bytes()), "{no}");
        }
    }
}
