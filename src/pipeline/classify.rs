//! What a request is: which endpoint, which model, which class, until when.

use http::{HeaderMap, Method};

use super::{Caller, Rules};
use crate::call::{Call, CallBody, Upgrade};
use crate::headers;
use crate::ids::CallId;
use crate::openai::{Route, ServiceTier, Sniff};
use crate::time::{self, Duration, Instant};
use crate::units::Priority;

const PRIORITY: &str = "x-tidegate-priority";
const DEADLINE_MS: &str = "x-tidegate-deadline-ms";
/// The longest model name that is looked at, in bytes.
const MODEL_MAX: usize = 256;

/// A request as a transport brings it.
#[derive(Debug)]
pub struct Incoming {
    /// Names it; chosen by the transport, which tells it to the client also when nothing else can be said.
    pub id: CallId,
    /// When its first byte came.
    pub received: Instant,
    /// Who calls, as [`Pipeline::identify`](super::Pipeline::identify) told.
    pub caller: Caller,
    /// Its method.
    pub method: Method,
    /// Path and query as they came.
    pub target: String,
    /// All header fields as they came.
    pub headers: HeaderMap,
    /// Its body: whole on generation routes, and where there is none.
    pub body: CallBody,
}

/// One of our own header fields says something that cannot be meant.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{field} = {found:?}: expected {expected}")]
pub struct BadCall {
    /// The field.
    pub field: &'static str,
    /// What it says.
    pub found: String,
    /// What it should say.
    pub expected: &'static str,
}

impl Incoming {
    pub(super) fn classify(self, rules: &Rules) -> Result<Call, BadCall> {
        let Self { id, received, caller, method, target, mut headers, body } = self;
        let route = Route::of(&method, &target);
        let sniff = match &body {
            CallBody::Whole(bytes) if route.is_generation() => Sniff::of(bytes),
            CallBody::Whole(_) | CallBody::Stream(_) => Sniff::default(),
        };
        let priority = priority(&headers, &sniff, &caller)?;
        let deadline = received + deadline(&headers, rules.wait_max)?;
        let upgrade = match headers::is_websocket_handshake(&method, &headers) {
            true => Upgrade::WebSocket,
            false => Upgrade::None,
        };
        headers::strip_hop_by_hop(&mut headers);
        Ok(Call {
            id,
            client: caller.client,
            key: caller.key,
            method,
            target,
            headers,
            body,
            upgrade,
            route,
            stream: sniff.stream,
            choices: sniff.n.unwrap_or(1),
            max_tokens: sniff.max_tokens,
            include_usage: sniff.include_usage,
            // A name no provider has: it would only be carried around.
            model: sniff.model.filter(|model| model.len() <= MODEL_MAX).map(Into::into),
            priority,
            received,
            deadline: deadline.max(time::now()),
            read_timeout: None,
        })
    }
}

/// The header's word, else the service tier's, else the client's; never above what the client may ask for.
fn priority(headers: &HeaderMap, sniff: &Sniff, caller: &Caller) -> Result<Priority, BadCall> {
    let asked = if let Some(word) = text(headers, PRIORITY) {
        let expected = "high, normal or low";
        Priority::parse(&word).ok_or(BadCall { field: PRIORITY, found: word, expected })?
    } else {
        match sniff.service_tier {
            Some(ServiceTier::Priority) => Priority::High,
            Some(ServiceTier::Flex) => Priority::Low,
            Some(ServiceTier::Other) | None => caller.class,
        }
    };
    // The most urgent class is the least value.
    Ok(asked.max(caller.class_max))
}

fn deadline(headers: &HeaderMap, wait_max: Duration) -> Result<Duration, BadCall> {
    let Some(word) = text(headers, DEADLINE_MS) else { return Ok(wait_max) };
    // A day is more than anybody waits, and safe to add to an instant.
    let ms = word.trim().parse::<u64>().ok().filter(|ms| *ms <= 86_400_000);
    let expected = "milliseconds, up to a day of them (86400000)";
    ms.map(Duration::from_millis).ok_or(BadCall { field: DEADLINE_MS, found: word, expected })
}

fn text(headers: &HeaderMap, name: &str) -> Option<String> {
    headers.get(name).map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned())
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;
    use crate::ids::KeyId;

    fn incoming(headers: &[(&'static str, &'static str)], body: &'static str) -> Incoming {
        let fields =
            headers.iter().map(|(name, value)| (http::HeaderName::from_static(name), HeaderValue::from_static(value)));
        Incoming {
            id: CallId::random(),
            received: time::now(),
            caller: Caller::anyone(KeyId::PASS_THROUGH),
            method: Method::POST,
            target: "/v1/chat/completions".to_owned(),
            headers: fields.collect(),
            body: CallBody::Whole(body.into()),
        }
    }

    const RULES: Rules = Rules { wait_max: Duration::from_secs(600) };

    #[test]
    fn the_class_is_the_headers_word_then_the_service_tiers() {
        for (headers, body, class) in [
            (&[("x-tidegate-priority", "High")][..], r#"{"service_tier":"flex"}"#, Priority::High),
            (&[], r#"{"service_tier":"flex"}"#, Priority::Low),
            (&[], r#"{"service_tier":"priority"}"#, Priority::High),
            (&[], r#"{"service_tier":"auto"}"#, Priority::Normal),
            (&[], "{}", Priority::Normal),
        ] {
            assert_eq!(incoming(headers, body).classify(&RULES).unwrap().priority, class);
        }
    }

    #[test]
    fn nobody_gets_a_class_above_what_its_client_may_ask_for() {
        let (normal, low) = (Priority::Normal, Priority::Low);
        for (headers, body, class) in [
            (&[][..], "{}", low),
            (&[("x-tidegate-priority", "high")], "{}", normal),
            (&[("x-tidegate-priority", "normal")], "{}", normal),
            (&[("x-tidegate-priority", "low")], r#"{"service_tier":"priority"}"#, low),
            (&[], r#"{"service_tier":"priority"}"#, normal),
            (&[], r#"{"service_tier":"auto"}"#, low),
        ] {
            let caller = Caller { class: low, class_max: normal, ..Caller::anyone(KeyId::PASS_THROUGH) };
            let incoming = Incoming { caller, ..incoming(headers, body) };
            assert_eq!(incoming.classify(&RULES).unwrap().priority, class, "{headers:?} {body}");
        }
    }

    #[test]
    fn the_deadline_is_the_headers_else_wait_max() {
        let call = incoming(&[("x-tidegate-deadline-ms", "1500")], "{}").classify(&RULES).unwrap();
        assert_eq!(call.deadline - call.received, Duration::from_millis(1_500));
        let call = incoming(&[], "{}").classify(&RULES).unwrap();
        assert_eq!(call.deadline - call.received, RULES.wait_max);
    }

    #[test]
    fn a_word_that_cannot_be_meant_is_named_with_its_fix() {
        let refused = incoming(&[("x-tidegate-priority", "urgent")], "{}").classify(&RULES).unwrap_err();
        assert_eq!(refused.to_string(), r#"x-tidegate-priority = "urgent": expected high, normal or low"#);
        assert!(incoming(&[("x-tidegate-deadline-ms", "-1")], "{}").classify(&RULES).is_err());
        assert!(incoming(&[("x-tidegate-deadline-ms", "1e99")], "{}").classify(&RULES).is_err());
    }

    #[test]
    fn our_own_fields_do_not_go_upstream() {
        let call = incoming(&[("x-tidegate-priority", "low"), ("x-mine", "1")], "{}").classify(&RULES).unwrap();
        assert!(!call.headers.contains_key("x-tidegate-priority"));
        assert!(call.headers.contains_key("x-mine"));
    }
}
