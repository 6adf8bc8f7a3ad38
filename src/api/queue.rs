//! `GET /admin/v1/queue`: who waits, in the order of service.

use axum::extract::State;
use axum::response::Response;
use http::{StatusCode, Uri};
use serde::Serialize;
use serde::ser::{SerializeSeq, Serializer};

use super::json::{ByClass, Shown, answer, ms};
use super::{Admin, error};
use crate::admission::{Queue, Queued};
use crate::ids::{CallId, ClientId};
use crate::units::Priority;

/// So many are shown unless `?limit=` says otherwise, and so many at the most.
const SHOWN: usize = 100;
const SHOWN_MAX: usize = 10_000;

pub(super) async fn queue(State(admin): State<Admin>, uri: Uri) -> Response {
    match limit(&uri, SHOWN) {
        Ok(most) => answer(&View::from(&admin.hooks.queue(most))),
        Err(refused) => *refused,
    }
}

/// The figure behind `?limit=`.
pub(super) fn limit(uri: &Uri, default: usize) -> Result<usize, Box<Response>> {
    let pairs = uri.query().unwrap_or_default().split('&').filter(|pair| !pair.is_empty());
    let mut limit = default;
    for pair in pairs {
        let asked = pair.strip_prefix("limit=").and_then(|number| number.parse().ok());
        limit = asked.filter(|limit| (1..=SHOWN_MAX).contains(limit)).ok_or_else(|| {
            let message = format!("the query {pair:?} is not known here: expected limit=1 to limit={SHOWN_MAX}");
            Box::new(error(StatusCode::BAD_REQUEST, "bad_request", message))
        })?;
    }
    Ok(limit)
}

#[derive(Debug, Serialize)]
struct View<'a> {
    waiting: ByClass,
    bytes: u64,
    #[serde(serialize_with = "calls")]
    calls: &'a [Queued],
}

impl<'a> From<&'a Queue> for View<'a> {
    fn from(queue: &'a Queue) -> Self {
        Self { waiting: queue.waiting.into(), bytes: queue.bytes, calls: &queue.calls }
    }
}

fn calls<S: Serializer>(calls: &[Queued], serializer: S) -> Result<S::Ok, S::Error> {
    let mut list = serializer.serialize_seq(Some(calls.len()))?;
    for call in calls {
        list.serialize_element(&Entry::from(call))?;
    }
    list.end()
}

#[derive(Debug, Serialize)]
struct Entry<'a> {
    id: Shown<CallId>,
    client: Shown<&'a ClientId>,
    class: Priority,
    model: Option<&'a str>,
    #[serde(serialize_with = "names")]
    upstreams: &'a [std::sync::Arc<str>],
    position: u32,
    eta_ms: Option<u64>,
    waited_ms: u64,
    deadline_in_ms: u64,
    tokens: u64,
    bytes: u64,
}

impl<'a> From<&'a Queued> for Entry<'a> {
    fn from(call: &'a Queued) -> Self {
        Self {
            id: Shown(call.id),
            client: Shown(&call.client),
            class: call.class,
            model: call.model.as_deref(),
            upstreams: &call.upstreams,
            position: call.outlook.position,
            eta_ms: call.outlook.eta.map(ms),
            waited_ms: ms(call.waited),
            deadline_in_ms: ms(call.left),
            tokens: call.tokens,
            bytes: call.bytes,
        }
    }
}

fn names<S: Serializer>(names: &[std::sync::Arc<str>], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_seq(names.iter().map(|name| &**name))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::answer::Outlook;
    use crate::time::Duration;

    fn queued(position: u32) -> Queued {
        Queued {
            id: CallId::random(),
            client: ClientId::Named("chat".into()),
            class: Priority::High,
            model: Some("m \"1\"".into()),
            upstreams: vec!["main".into(), "spare".into()],
            outlook: Outlook { position, eta: Some(Duration::from_millis(1_500)) },
            waited: Duration::from_micros(2_500_900),
            left: Duration::from_secs(600),
            tokens: 1_200,
            bytes: 4_096,
        }
    }

    #[test]
    fn who_waits_is_told_in_the_order_of_service() {
        let mut second = queued(2);
        (second.model, second.outlook.eta, second.client) = (None, None, ClientId::Everybody);
        let queue = Queue { waiting: [2, 0, 40], bytes: 8_192, calls: vec![queued(1), second] };
        let json = serde_json::to_value(View::from(&queue)).unwrap();
        let ids: Vec<_> = queue.calls.iter().map(|call| call.id.to_string()).collect();
        let expected = serde_json::json!({
            "waiting": { "total": 42, "high": 2, "normal": 0, "low": 40 },
            "bytes": 8_192,
            "calls": [
                {
                    "id": ids[0], "client": "chat", "class": "high", "model": "m \"1\"",
                    "upstreams": ["main", "spare"], "position": 1, "eta_ms": 1_500, "waited_ms": 2_500,
                    "deadline_in_ms": 600_000, "tokens": 1_200, "bytes": 4_096,
                },
                {
                    "id": ids[1], "client": "-", "class": "high", "model": null,
                    "upstreams": ["main", "spare"], "position": 2, "eta_ms": null, "waited_ms": 2_500,
                    "deadline_in_ms": 600_000, "tokens": 1_200, "bytes": 4_096,
                },
            ],
        });
        assert_eq!(json, expected);
    }

    #[test]
    fn limit_is_a_number_in_its_range() {
        let limit = |target: &str| limit(&target.parse().unwrap(), SHOWN).ok();
        assert_eq!(limit("/admin/v1/queue"), Some(SHOWN));
        assert_eq!(limit("/admin/v1/queue?"), Some(SHOWN));
        assert_eq!(limit("/admin/v1/queue?limit=1"), Some(1));
        assert_eq!(limit("/admin/v1/queue?limit=10000"), Some(SHOWN_MAX));
        for wrong in ["limit=0", "limit=10001", "limit=-1", "limit=", "limit=all", "most=5", "limit=5&x=1"] {
            assert_eq!(limit(&format!("/admin/v1/queue?{wrong}")), None, "{wrong}");
        }
    }
}
