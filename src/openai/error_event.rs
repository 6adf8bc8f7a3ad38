//! A provider's error answer as an event of a stream that has begun: its client was told 200 already.

use std::collections::BTreeMap;

use bytes::Bytes;
use serde_json::value::RawValue;

use super::error::{ErrorBody, sse_error_event};
use super::route::Route;

/// A message that is no JSON is quoted up to so many characters.
const QUOTED_MAX: usize = 500;

/// `data: {"error":{…,"status":N}}` with all that the provider says: the members of its `error`, under whichever of the
/// usual shapes, byte for byte; what every SDK expects is added where it is missing. `body`: `None` where it cannot be
/// read.
#[must_use]
pub fn provider_error_event(status: u16, body: Option<&[u8]>) -> Bytes {
    let members = body.and_then(members).filter(|members| !members.is_empty());
    let Some(mut members) = members else {
        let body = ErrorBody::new(unnamed(status, body), "upstream_error", format!("status_{status}"));
        return sse_error_event(&body, status);
    };
    let Ok(status_told) = RawValue::from_string(status.to_string()) else { return Bytes::new() };
    let message = serde_json::value::to_raw_value(&unnamed(status, None)).ok();
    if let Some(message) = &message {
        members.entry("message").or_insert(message);
    }
    for name in ["type", "param", "code"] {
        members.entry(name).or_insert(RawValue::NULL);
    }
    members.insert("status", &status_told);
    let json = serde_json::to_string(&BTreeMap::from([("error", members)])).unwrap_or_default();
    format!("data: {}\n\n", one_line(json)).into()
}

/// An error event as clients of a route understand it: those of Anthropic's Messages go by the names of events, and pass
/// over one that has none.
#[must_use]
pub fn error_event_on(route: Route, event: Bytes) -> Bytes {
    match event.strip_prefix(b"data: {") {
        Some(rest) if route == Route::Messages => [b"event: error\ndata: {\"type\":\"error\",", rest].concat().into(),
        Some(_) | None => event,
    }
}

/// Whether a body that came with a good status says that it is an error.
#[must_use]
pub fn is_error(body: &[u8]) -> bool {
    object(body).is_some_and(|answer| answer.get("error").is_some_and(|error| error.get() != "null"))
}

/// The members of an error answer: OpenAI nests them, older vLLM has them at the top, Ollama's own API has a bare string,
/// FastAPI a `detail`.
fn members(body: &[u8]) -> Option<BTreeMap<&str, &RawValue>> {
    let mut answer = object(body)?;
    match answer.get("error") {
        Some(error) => match serde_json::from_str(error.get()) {
            Ok(members) => Some(members),
            Err(_) => error.get().starts_with('"').then(|| BTreeMap::from([("message", *error)])),
        },
        None if answer.contains_key("message") => {
            answer.retain(|name, _| ["message", "type", "param", "code"].contains(name));
            Some(answer)
        }
        None => {
            let detail = answer.get("detail").filter(|detail| detail.get().starts_with('"'))?;
            Some(BTreeMap::from([("message", *detail)]))
        }
    }
}

fn object(body: &[u8]) -> Option<BTreeMap<&str, &RawValue>> {
    serde_json::from_slice(body).ok()
}

/// What to say where the provider says nothing that can be read as an error.
fn unnamed(status: u16, body: Option<&[u8]>) -> String {
    let text = String::from_utf8_lossy(body.unwrap_or_default());
    let quoted: String = text.trim().chars().take(QUOTED_MAX).collect();
    // A page for people says nothing in a log.
    if quoted.is_empty() || quoted.starts_with('<') {
        format!("the upstream answered with status {status}")
    } else {
        format!("the upstream answered with status {status}: {quoted}")
    }
}

/// Values are as the provider wrote them, and JSON may be written on several lines; inside of strings there are none.
fn one_line(json: String) -> String {
    if json.contains(['\n', '\r']) { json.replace(['\n', '\r'], " ") } else { json }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(status: u16, body: &str) -> serde_json::Value {
        let event = provider_error_event(status, Some(body.as_bytes()));
        let event = std::str::from_utf8(&event).unwrap();
        let data = event.strip_prefix("data: ").unwrap().strip_suffix("\n\n").unwrap();
        assert!(!data.contains(['\n', '\r']), "{data:?}");
        serde_json::from_str::<serde_json::Value>(data).unwrap()["error"].take()
    }

    #[test]
    fn the_providers_own_words_are_kept_whatever_their_shape() {
        let nested = r#"{"error":{"message":"Incorrect API key","type":"invalid_request_error","param":null,
            "code":"invalid_api_key","metadata":{"n":12345678901234567890123}}}"#;
        let error = told(401, nested);
        assert_eq!(error["message"], "Incorrect API key");
        assert_eq!(error["code"], "invalid_api_key");
        assert_eq!(error["status"], 401);
        let event = provider_error_event(401, Some(nested.as_bytes()));
        assert!(event.windows(23).any(|part| part == b"12345678901234567890123"), "{event:?}");
        for (body, message, code) in [
            (r#"{"object":"error","message":"no","type":"NotFoundError","code":404}"#, "no", "404"),
            (r#"{"error":"model not found"}"#, "model not found", "null"),
            (r#"{"detail":"Not authenticated"}"#, "Not authenticated", "null"),
            (r#"{"error":{"code":7}}"#, "the upstream answered with status 404", "7"),
        ] {
            let error = told(404, body);
            assert_eq!((error["message"].as_str(), error["code"].to_string().as_str()), (Some(message), code));
            assert_eq!(error["status"], 404);
            assert!(error.get("param").is_some() && error.get("type").is_some(), "{error}");
        }
    }

    #[test]
    fn what_is_no_error_of_a_known_shape_is_quoted_or_named() {
        for (body, message) in [
            ("upstream connect error\n", "the upstream answered with status 503: upstream connect error"),
            ("<html>Bad gateway</html>", "the upstream answered with status 503"),
            ("", "the upstream answered with status 503"),
            ("[]", "the upstream answered with status 503: []"),
            (r#"{"error":{}}"#, r#"the upstream answered with status 503: {"error":{}}"#),
            (r#"{"error":null}"#, r#"the upstream answered with status 503: {"error":null}"#),
        ] {
            let error = told(503, body);
            assert_eq!((error["message"].as_str(), &error["status"]), (Some(message), &serde_json::json!(503)));
        }
        let long = told(500, &"x".repeat(10_000));
        assert!(long["message"].as_str().unwrap().len() < 600);
        assert!(provider_error_event(502, None).starts_with(b"data: {"));
    }

    #[test]
    fn where_events_have_names_an_error_has_one() {
        let event = sse_error_event(&ErrorBody::new("no", "requests", "queue_full"), 429);
        assert_eq!(error_event_on(Route::ChatCompletions, event.clone()), event);
        let named = error_event_on(Route::Messages, event);
        let named = std::str::from_utf8(&named).unwrap();
        let data = named.strip_prefix("event: error\ndata: ").unwrap().strip_suffix("\n\n").unwrap();
        let json: serde_json::Value = serde_json::from_str(data).unwrap();
        assert_eq!(
            (&json["type"], &json["error"]["code"], &json["error"]["status"]),
            (&"error".into(), &"queue_full".into(), &429.into())
        );
    }

    #[test]
    fn an_error_may_come_with_a_good_status() {
        assert!(is_error(br#"{"error":{"message":"out of credits","code":402}}"#));
        for no in [&br#"{"id":"x","error":null}"#[..], br#"{"id":"x"}"#, b"", b"[1]"] {
            assert!(!is_error(no));
        }
    }
}
