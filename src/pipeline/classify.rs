//! What a request is: which endpoint, which model, which class, until when.

use http::{HeaderMap, Method};

use super::{Caller, Rules};
use crate::call::{Call, CallBody, MidStream, Upgrade};
use crate::headers;
use crate::ids::CallId;
use crate::openai::{Route, ServiceTier, Sniff};
use crate::time::{self, Duration, Instant};
use crate::units::Priority;

const PRIORITY: &str = "x-tidegate-priority";
const DEADLINE_MS: &str = "x-tidegate-deadline-ms";
const MID_STREAM: &str = "x-tidegate-mid-stream";
/// Where the official SDKs tell after how many seconds they give up: of each read, or of all of a call.
const TIMEOUTS: [&str; 2] = ["x-stainless-read-timeout", "x-stainless-timeout"];
/// The setting that bounds the wait of who names no deadline.
pub const WAIT_MAX: &str = "admission.wait_max";
/// A day is more than anybody waits, and safe to add to an instant.
const DAY: Duration = Duration::from_secs(86_400);
/// So much sooner than its client gives up is a call told that its turn does not come, so that it hears it.
const HEARING_MAX: Duration = Duration::from_millis(500);
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
    /// How long its client may hear nothing of us while it waits, if it expects a stream; `None`: it cannot be kept
    /// company.
    pub keepalive_after: Option<Duration>,
}

/// What a model's answers are known for.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Expected {
    /// How long it usually takes to answer.
    pub(super) usual: Duration,
    /// It lately gave something else to who asked for a stream.
    pub(super) ignores_stream: bool,
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
    pub(super) fn classify(self, rules: &Rules, expected: impl Fn(Option<&str>) -> Expected) -> Result<Call, BadCall> {
        let Self { id, received, caller, method, target, mut headers, body, keepalive_after } = self;
        let route = Route::of(&method, &target);
        let sniff = match &body {
            CallBody::Whole(bytes) if route.is_generation() => Sniff::of(bytes),
            CallBody::Whole(_) | CallBody::Stream(_) => Sniff::default(),
        };
        let priority = priority(&headers, &sniff, &caller)?;
        let answers = sniff.answers();
        // A name no provider has would only be carried around.
        let model = sniff.model.filter(|model| model.len() <= MODEL_MAX);
        let read_timeout = TIMEOUTS.into_iter().find_map(|name| Some((name, seconds(&headers, name)?)));
        let now = time::now();
        let expected = expected(model.as_deref());
        let answers_in_events = route.is_generation() && route != Route::Embeddings;
        let read_time = read_timeout.map(|(_, timeout)| timeout);
        let is_kept_company = sniff.stream && answers_in_events && !expected.ignores_stream;
        let company = keepalive_after.filter(|_| is_kept_company).map(|after| pace(after, read_time));
        let at_most = (received + rules.wait_max, WAIT_MAX);
        let (deadline, deadline_from) = match (deadline(&headers)?, read_timeout) {
            (Some(told), _) => (received + told, DEADLINE_MS),
            (None, Some((name, timeout))) if route.is_generation() && company.is_none() => {
                // A client listens, and counts, from when it has sent its body: now.
                let patience = patience(timeout, expected.usual);
                at_most.min((now + patience, name))
            }
            (None, _) => at_most,
        };
        let upgrade = match headers::is_websocket_handshake(&method, &headers) {
            true => Upgrade::WebSocket,
            false => Upgrade::None,
        };
        let mid_stream = mid_stream(&headers)?;
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
            company,
            mid_stream,
            choices: sniff.n.unwrap_or(1),
            answers,
            max_tokens: sniff.max_tokens,
            include_usage: sniff.include_usage,
            model: model.map(Into::into),
            priority,
            received,
            deadline: deadline.max(now),
            deadline_from,
            read_timeout: read_time,
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

fn deadline(headers: &HeaderMap) -> Result<Option<Duration>, BadCall> {
    let Some(word) = text(headers, DEADLINE_MS) else { return Ok(None) };
    let told = word.trim().parse::<u64>().ok().map(Duration::from_millis).filter(|told| *told <= DAY);
    let expected = "milliseconds, up to a day of them (86400000)";
    told.map(Some).ok_or(BadCall { field: DEADLINE_MS, found: word, expected })
}

fn mid_stream(headers: &HeaderMap) -> Result<Option<MidStream>, BadCall> {
    let Some(word) = text(headers, MID_STREAM) else { return Ok(None) };
    let expected = "error, continue or restart";
    MidStream::parse(&word).map(Some).ok_or(BadCall { field: MID_STREAM, found: word, expected })
}

/// However impatient a client says it is, it hears no more than this: each time costs a look at the queue. SDKs count in
/// seconds, so that half of one is soon enough for all of them.
const PACE_MIN: Duration = Duration::from_millis(500);

/// How often a client has to hear of us: after so long, or a third of its read time-out, whichever is first.
fn pace(after: Duration, read_timeout: Option<Duration>) -> Duration {
    read_timeout.map_or(after, |timeout| (timeout / 3).max(PACE_MIN).min(after))
}

/// A time-out in seconds. The SDKs write them by themselves, and mean none by 0: what cannot be read is not known.
fn seconds(headers: &HeaderMap, name: &str) -> Option<Duration> {
    let seconds: f64 = headers.get(name)?.to_str().ok()?.trim().parse().ok()?;
    (seconds > 0.0).then(|| Duration::from_secs_f64(seconds.min(DAY.as_secs_f64())))
}

/// How long a call can wait whose whole answer has to be there when its client gives up. What is usual need not be so
/// for this call: one that is usually too slow waits for a tenth of its time all the same, since it may be a short one.
fn patience(timeout: Duration, usual: Duration) -> Duration {
    let hearing = (timeout / 10).min(HEARING_MAX);
    timeout.saturating_sub(usual).saturating_sub(hearing).max(timeout / 10)
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
            keepalive_after: Some(Duration::from_secs(10)),
        }
    }

    const RULES: Rules = Rules { wait_max: Duration::from_secs(600) };

    fn unknown(_: Option<&str>) -> Expected {
        Expected::default()
    }

    fn waits(headers: &[(&'static str, &'static str)], body: &'static str, usual: u64) -> (u128, &'static str) {
        let usual = Duration::from_secs(usual);
        let expected = |model: Option<&str>| match model {
            Some("m") => Expected { usual, ignores_stream: false },
            Some("deaf") => Expected { usual, ignores_stream: true },
            _ => Expected::default(),
        };
        let call = incoming(headers, body).classify(&RULES, expected).unwrap();
        ((call.deadline - call.received).as_millis(), call.deadline_from)
    }

    #[test]
    fn a_plain_call_waits_until_its_answer_would_come_too_late() {
        let (read, all, wait_max) = (TIMEOUTS[0], TIMEOUTS[1], "admission.wait_max");
        let (plain, stream) = (r#"{"model":"m"}"#, r#"{"model":"m","stream":true}"#);
        for (headers, body, usual, expected) in [
            (&[(read, "5")][..], plain, 2, (2_500, read)),
            (&[(all, "60"), (read, "30.5")], plain, 2, (28_000, read)),
            (&[(all, "60")], plain, 2, (57_500, all)),
            (&[(read, "60")], r#"{"model":"other"}"#, 2, (59_500, read)),
            // Usually too slow, and still worth a try.
            (&[(read, "5")], plain, 20, (500, read)),
            (&[(read, "5")], plain, 5, (500, read)),
            // A stream is kept alive meanwhile.
            (&[(read, "5")], stream, 2, (600_000, wait_max)),
            // This one would not be: its model ignores that a stream was asked for.
            (&[(read, "5")], r#"{"model":"deaf","stream":true}"#, 2, (2_500, read)),
            // The operator's bound holds for who is more patient.
            (&[(read, "3600")], plain, 2, (600_000, wait_max)),
            (&[(DEADLINE_MS, "700000"), (read, "5")], plain, 2, (700_000, DEADLINE_MS)),
        ] {
            assert_eq!(waits(headers, body, usual), expected, "{headers:?} {body} {usual}");
        }
    }

    #[test]
    fn only_who_listens_to_a_stream_of_events_is_kept_company() {
        let (stream, read) = (r#"{"model":"m","stream":true}"#, [(TIMEOUTS[0], "5")]);
        let after = Some(Duration::from_secs(10));
        for (keepalive_after, target, body, company) in [
            (after, "/v1/chat/completions", stream, Some(Duration::from_secs(5) / 3)),
            (after, "/v1/chat/completions", "{}", None),
            (None, "/v1/chat/completions", stream, None),
            (after, "/v1/embeddings", stream, None),
        ] {
            let incoming = Incoming { keepalive_after, target: target.to_owned(), ..incoming(&read, body) };
            let call = incoming.classify(&RULES, unknown).unwrap();
            assert_eq!(call.company, company, "{keepalive_after:?} {target} {body}");
            let waits_long = call.deadline - call.received > Duration::from_secs(5);
            assert_eq!(waits_long, company.is_some(), "{keepalive_after:?} {target} {body}");
        }
    }

    #[test]
    fn no_client_hears_more_than_twice_a_second_unless_the_operator_says_so() {
        let ms = Duration::from_millis;
        for (after, timeout, expected) in [
            (10_000, None, 10_000),
            (10_000, Some(60_000), 10_000),
            (10_000, Some(2_100), 700),
            (10_000, Some(1), 500),
            (200, Some(1), 200),
        ] {
            assert_eq!(pace(ms(after), timeout.map(ms)), ms(expected), "{after} {timeout:?}");
        }
    }

    #[test]
    fn what_a_client_wants_when_its_stream_breaks_is_its_own_word() {
        let wants = |word| incoming(&[(MID_STREAM, word)], "{}").classify(&RULES, unknown).map(|call| call.mid_stream);
        assert_eq!(wants("continue"), Ok(Some(MidStream::Continue)));
        assert_eq!(wants(" restart"), Ok(Some(MidStream::Restart)));
        let refused = wants("retry").unwrap_err().to_string();
        assert_eq!(refused, r#"x-tidegate-mid-stream = "retry": expected error, continue or restart"#);
        assert_eq!(incoming(&[], "{}").classify(&RULES, unknown).unwrap().mid_stream, None);
    }

    #[test]
    fn a_time_out_that_cannot_be_read_is_unknown() {
        for word in ["0", "0.0", "-5", "NaN", "soon", "", "None"] {
            let call = incoming(&[("x-stainless-read-timeout", word)], "{}").classify(&RULES, unknown).unwrap();
            assert_eq!((call.deadline - call.received, call.read_timeout), (RULES.wait_max, None), "{word}");
        }
        for (word, seconds) in [("2.5", 2.5), (" 10 ", 10.0), ("1e300", 86_400.0), ("inf", 86_400.0)] {
            let call = incoming(&[("x-stainless-timeout", word)], "{}").classify(&RULES, unknown).unwrap();
            assert_eq!(call.read_timeout, Some(Duration::from_secs_f64(seconds)), "{word}");
        }
    }

    #[test]
    fn the_class_is_the_headers_word_then_the_service_tiers() {
        for (headers, body, class) in [
            (&[("x-tidegate-priority", "High")][..], r#"{"service_tier":"flex"}"#, Priority::High),
            (&[], r#"{"service_tier":"flex"}"#, Priority::Low),
            (&[], r#"{"service_tier":"priority"}"#, Priority::High),
            (&[], r#"{"service_tier":"auto"}"#, Priority::Normal),
            (&[], "{}", Priority::Normal),
        ] {
            assert_eq!(incoming(headers, body).classify(&RULES, unknown).unwrap().priority, class);
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
            assert_eq!(incoming.classify(&RULES, unknown).unwrap().priority, class, "{headers:?} {body}");
        }
    }

    #[test]
    fn the_deadline_is_the_headers_else_wait_max() {
        let call = incoming(&[("x-tidegate-deadline-ms", "1500")], "{}").classify(&RULES, unknown).unwrap();
        assert_eq!(call.deadline - call.received, Duration::from_millis(1_500));
        let call = incoming(&[], "{}").classify(&RULES, unknown).unwrap();
        assert_eq!(call.deadline - call.received, RULES.wait_max);
    }

    #[test]
    fn a_word_that_cannot_be_meant_is_named_with_its_fix() {
        let refused = incoming(&[("x-tidegate-priority", "urgent")], "{}").classify(&RULES, unknown).unwrap_err();
        assert_eq!(refused.to_string(), r#"x-tidegate-priority = "urgent": expected high, normal or low"#);
        assert!(incoming(&[("x-tidegate-deadline-ms", "-1")], "{}").classify(&RULES, unknown).is_err());
        assert!(incoming(&[("x-tidegate-deadline-ms", "1e99")], "{}").classify(&RULES, unknown).is_err());
    }

    #[test]
    fn our_own_fields_do_not_go_upstream() {
        let call =
            incoming(&[("x-tidegate-priority", "low"), ("x-mine", "1")], "{}").classify(&RULES, unknown).unwrap();
        assert!(!call.headers.contains_key("x-tidegate-priority"));
        assert!(call.headers.contains_key("x-mine"));
    }
}
