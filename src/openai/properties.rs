//! What holds for all bytes: whatever a client or a provider sends, reading it neither panics nor hangs, and what is read
//! is what is there.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use http::header::{HeaderMap, HeaderName, HeaderValue};
use proptest::prelude::*;
use serde_json::Value;

use super::sse::{Event, Framer};
use super::terminal::Terminal;
use super::{
    Complaint, Counted, RateLimits, Route, Sniff, Usage, is_model_not_found, parse_retry_after, upstream_path,
};

/// Pieces of which right and wrong JSON is made, beside names and values that mean something.
pub(super) const JSON: &[&str] = &[
    "{",
    "}",
    "[",
    "]",
    ",",
    ":",
    "\"",
    "\\",
    "\\u",
    "d800",
    " ",
    "\n",
    "null",
    "true",
    "false",
    "0",
    "1",
    "-1",
    "2.5",
    "1e400",
    "18446744073709551616",
    "é",
];

const MEMBERS: &[&str] = &[
    "\"model\":",
    "\"m\"",
    "\"stream\":true",
    "\"n\":3",
    "\"max_tokens\":7",
    "\"usage\":",
    "{\"prompt_tokens\":1,\"completion_tokens\":2}",
    "\"stream_options\":{\"include_usage\":true}",
    "\"error\":",
    "{\"code\":\"model_not_found\"}",
    "\"response\":",
    "\"service_tier\":\"flex\"",
    "\u{feff}",
    "\"mod\\u0065l\":\"x\"",
];

const LINES: &[&str] = &[
    "data: ",
    "data:",
    "data",
    "event: ",
    "id: 1",
    ":",
    "retry: 5",
    "[DONE]",
    "\n",
    "\r\n",
    "\r",
    "\n\n",
    "\u{feff}",
    "{}",
    "{\"choices\":[{\"index\":0,\"delta\":{\"content\":\"a\"}}]}",
    "{\"choices\":[{\"index\":0,\"finish_reason\":\"stop\"}]}",
    "event: message_stop",
    "{\"type\":\"response.completed\"}",
    "{\"usage\":{\"prompt_tokens\":1}}",
    "{\"error\":{}}",
];

fn any_bytes(pieces: &[&'static str]) -> impl Strategy<Value = Vec<u8>> + use<> {
    let piece = prop_oneof![
        12 => prop::sample::select(pieces.to_vec()).prop_map(|piece| piece.as_bytes().to_vec()),
        1 => any::<u8>().prop_map(|byte| vec![byte]),
    ];
    prop_oneof![
        1 => prop::collection::vec(any::<u8>(), 0..120),
        6 => prop::collection::vec(piece, 0..16).prop_map(|pieces| pieces.concat()),
    ]
}

/// A JSON object with the fields that we read, of whatever type.
fn object() -> impl Strategy<Value = String> {
    let name = prop::sample::select(vec!["model", "stream", "n", "max_tokens", "service_tier", "x", "mod\\u0065l"]);
    let value = prop::sample::select(vec![
        "\"m\"",
        "\"a\\u00e9\\n\"",
        "true",
        "false",
        "null",
        "3",
        "-3",
        "2.5",
        "1e3",
        "[]",
        "{\"model\":\"inner\"}",
        "\"flex\"",
    ]);
    prop::collection::vec((name, value, "[ \n\t\r]{0,2}"), 0..6).prop_map(|fields| {
        let fields: Vec<_> = fields
            .iter()
            .map(|(name, value, blank)| format!("{blank}\"{name}\"{blank}:{blank}{value}{blank}"))
            .collect();
        format!("{{{}}}", fields.join(","))
    })
}

fn route() -> impl Strategy<Value = Route> {
    let path =
        prop::sample::select(vec!["chat/completions", "completions", "responses", "messages", "embeddings", "x"]);
    path.prop_map(|path| Route::of(&http::Method::POST, &format!("/v1/{path}")))
}

proptest! {
    #[test]
    fn any_body_can_be_read(bytes in any_bytes(&[JSON, MEMBERS].concat())) {
        drop(Sniff::of(&bytes));
        let (_usage, _is_missing) = (Usage::of_body(&bytes), is_model_not_found(&bytes));
    }

    #[test]
    fn request_is_read_as_any_json_reader_reads_it(body in object()) {
        let (sniff, value): (_, Value) = (Sniff::of(body.as_bytes()), serde_json::from_str(&body).unwrap());
        prop_assert_eq!(sniff.model.as_deref(), value["model"].as_str());
        prop_assert_eq!(sniff.stream, value["stream"].as_bool().unwrap_or(false));
        prop_assert_eq!(sniff.n, value["n"].as_u64());
        prop_assert_eq!(sniff.max_tokens, value["max_tokens"].as_u64());
        prop_assert_eq!(sniff.service_tier.is_some(), value["service_tier"].is_string());
    }

    #[test]
    fn any_stream_can_be_framed_and_judged(
        bytes in any_bytes(LINES),
        step in 1..20_usize,
        route in route(),
        answers in 0..4_u64,
    ) {
        let (mut framer, mut terminal) = (Framer::default(), Terminal::for_route(route).expecting(answers));
        let mut out = Vec::new();
        for chunk in bytes.chunks(step) {
            for frame in framer.push(Bytes::copy_from_slice(chunk)) {
                terminal.observe(&frame);
                out.push(frame);
            }
        }
        out.extend(framer.finish());
        let mut joined = Vec::new();
        for frame in out {
            let bytes = frame.into_bytes();
            let event = Event::new(&bytes);
            prop_assert!(event.data().len() <= bytes.len());
            let _read = (event.event_type(), event.is_comment_only());
            joined.extend_from_slice(&bytes);
        }
        prop_assert_eq!(joined, bytes);
        let _read = (terminal.ending(), terminal.usage(), terminal.is_complete(), terminal.is_done());
    }

    #[test]
    fn any_retry_after_is_bounded(
        name in prop::sample::select(vec!["retry-after", "retry-after-ms", "x-ms-retry-after-ms"]),
        value in prop_oneof![
            prop::collection::vec(any::<u8>(), 0..40),
            "[-+0-9.eEinfaN]{0,25}".prop_map(String::into_bytes),
            "[A-Z][a-z]{2}, [0-9]{1,20} (Jan|Feb|Dec|Foo) [0-9]{1,20} [0-9]{1,3}:[0-9]{1,3}:[0-9]{1,20} GMT"
                .prop_map(String::into_bytes),
        ],
        now in 0..10_000_000_000_u64,
    ) {
        let Ok(value) = HeaderValue::from_bytes(&value) else { return Ok(()) };
        let headers: HeaderMap = [(HeaderName::from_static(name), value)].into_iter().collect();
        let now: SystemTime = UNIX_EPOCH + Duration::from_secs(now);
        prop_assert!(parse_retry_after(&headers, now).is_none_or(|wait| wait <= Duration::from_secs(24 * 60 * 60)));
    }

    #[test]
    fn any_rate_limits_can_be_read_and_are_bounded(
        fields in prop::collection::vec(
            (
                "(x-ratelimit|x-rate-limit|anthropic-ratelimit|ratelimit)\
                 (-(limit|remaining|reset|requests|tokens|input|output|req|minute|day|policy|odd)){0,4}",
                prop_oneof![
                    prop::collection::vec(any::<u8>(), 0..40),
                    "[-+0-9.eE:TZhmsd ]{0,30}".prop_map(String::into_bytes),
                    "[0-9]{1,30}(ms|s|m|h|d)?".prop_map(String::into_bytes),
                    "(\"?[a-z]?\"?;?(r|t|q|w|limit|remaining|reset)=[0-9]{0,25}[;,] ?){0,4}".prop_map(String::into_bytes),
                ],
            ),
            0..6,
        ),
        now in 0..10_000_000_000_u64,
    ) {
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            if let (Ok(name), Ok(value)) = (name.parse::<HeaderName>(), HeaderValue::from_bytes(&value)) {
                headers.append(name, value);
            }
        }
        let now: SystemTime = UNIX_EPOCH + Duration::from_secs(now);
        if let Some(limits) = RateLimits::of(&headers, || now) {
            for counted in [Counted::Requests, Counted::Tokens, Counted::InputTokens, Counted::OutputTokens] {
                for told in [limits.in_window(counted), limits.in_long(counted)] {
                    prop_assert!(told.reset.is_none_or(|reset| reset <= Duration::from_secs(24 * 60 * 60)));
                }
            }
        }
    }

    #[test]
    fn any_complaint_can_be_read_and_is_bounded(
        body in prop_oneof![
            any_bytes(&[JSON, MEMBERS].concat()),
            "([a-zé并 ]{0,5}(limit|rpm|tpm|try again in|retrydelay|x-ratelimit-reset)[: \"of]{0,5}[0-9.,]{0,25}\
              (ms|s|m|h|d| seconds)?){0,4}"
                .prop_map(String::into_bytes),
        ],
    ) {
        let complaint = Complaint::of(&body, UNIX_EPOCH);
        prop_assert!(complaint.retry_after.is_none_or(|wait| wait <= Duration::from_secs(24 * 60 * 60)));
        prop_assert!(complaint.limit != Some(0));
    }

    #[test]
    fn any_path_has_its_place_upstream(path in "/[!-~]{0,40}", base in "(/[a-z0-9]{1,5}){0,3}") {
        let _route = Route::of(&http::Method::POST, &path);
        let upstream = upstream_path(&path, &base);
        prop_assert!(upstream.starts_with('/'), "{upstream}");
        // Nothing is invented, and a query stays what it is.
        let query = |target: &str| target.split_once('?').map(|(_, query)| query.to_owned());
        prop_assert_eq!(query(&upstream), query(&path));
    }
}
