//! `GET /admin/v1/upstreams`: what is used of each provider. `POST /admin/v1/upstreams/NAME/pause` and `…/resume`.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::extract::{Path, State};
use axum::response::Response;
use http::StatusCode;
use serde::Serialize;

use super::json::{Balance, Shown, answer, ms};
use super::{Admin, error};
use crate::admission::{BreakerStatus, LaneStatus};
use crate::breaker::{self, Position};
use crate::ids::{ClientId, KeyId};
use crate::limits::learned::LessonStatus;
use crate::metrics::{BreakerState, DisconnectPhase, Metrics};
use crate::time::{self, Instant};
use crate::upstream::settings::{BaseUrl, Kind, Upstream};

/// So many keys of clients are shown of an upstream, the fullest first.
const KEYS_SHOWN: usize = 100;

pub(super) async fn upstreams(State(admin): State<Admin>) -> Response {
    let (settings, lanes, paused) = (admin.hooks.upstreams(), admin.hooks.lanes(), admin.hooks.paused());
    let breakers = admin.hooks.breakers();
    let troubles = |upstream| Troubles::of(upstream, &breakers, &admin.metrics);
    let one = |upstream| One::new(upstream, &lanes, &paused, troubles(upstream));
    answer(&View { upstreams: settings.iter().map(one).collect() })
}

pub(super) async fn pause(State(admin): State<Admin>, Path(name): Path<String>) -> Response {
    set_paused(&admin, &name, true)
}

pub(super) async fn resume(State(admin): State<Admin>, Path(name): Path<String>) -> Response {
    set_paused(&admin, &name, false)
}

fn set_paused(admin: &Admin, name: &str, paused: bool) -> Response {
    #[derive(Serialize)]
    struct Paused<'a> {
        upstream: &'a str,
        paused: bool,
    }
    match admin.hooks.pause(name, paused) {
        Ok(()) => answer(&Paused { upstream: name, paused }),
        Err(names) => {
            let message = format!("there is no upstream {name:?}; there are {}", names.join(", "));
            error(StatusCode::NOT_FOUND, "not_found", message)
        }
    }
}

#[derive(Debug, Serialize)]
struct View<'a> {
    upstreams: Vec<One<'a>>,
}

#[derive(Debug, Serialize)]
struct One<'a> {
    name: &'a str,
    kind: &'static str,
    base_url: Shown<&'a BaseUrl>,
    models: Vec<&'a str>,
    paused: bool,
    #[serde(flatten)]
    troubles: Troubles,
    /// How many keys count by themselves, and the fullest of them.
    keys_total: usize,
    keys: Vec<Key>,
}

impl<'a> One<'a> {
    fn new(upstream: &'a Upstream, lanes: &[LaneStatus], paused: &[Arc<str>], troubles: Troubles) -> Self {
        let mut own: Vec<&LaneStatus> = lanes.iter().filter(|lane| *lane.id.upstream == *upstream.name).collect();
        let ours: Vec<KeyId> = upstream.api_keys.iter().map(|key| KeyId::of(key.expose())).collect();
        let index = |lane: &LaneStatus| ours.iter().position(|key| *key == lane.id.key);
        own.sort_by_cached_key(|lane| (index(lane).unwrap_or(usize::MAX), std::cmp::Reverse(used_in_1000(lane))));
        Self {
            name: &upstream.name,
            kind: match upstream.kind {
                Kind::Model => "model",
                Kind::Agent => "agent",
            },
            base_url: Shown(&upstream.base_url),
            models: upstream.models.iter().map(|model| model.as_str()).collect(),
            paused: paused.iter().any(|name| **name == *upstream.name),
            troubles,
            keys_total: own.len(),
            keys: own.into_iter().take(KEYS_SHOWN).map(|lane| Key::new(lane, index(lane))).collect(),
        }
    }
}

/// What went wrong with an upstream.
#[derive(Debug, Default, Serialize)]
struct Troubles {
    breaker: Option<Breaker>,
    /// How often its resets were taken for a refusal.
    limit_signals_total: u64,
    /// Connections lost since the start, by when.
    disconnects: BTreeMap<&'static str, u64>,
}

#[derive(Debug, Serialize)]
struct Breaker {
    state: &'static str,
    /// In a row.
    failures: u32,
    opens_total: u64,
    /// Until one call may try, while it is open.
    probe_in_ms: Option<u64>,
}

impl Troubles {
    fn of(upstream: &Upstream, breakers: &[BreakerStatus], metrics: &Metrics) -> Self {
        let status = breakers.iter().find(|status| *status.upstream == *upstream.name);
        let measures = metrics.upstream(&upstream.name, 0);
        let lost = DisconnectPhase::ALL.iter().map(|&phase| (phase.as_str(), measures.disconnects(phase)));
        Self {
            breaker: status.map(|status| Breaker::new(&status.breaker)),
            limit_signals_total: status.map_or(0, |status| status.limit_signals),
            disconnects: lost.collect(),
        }
    }
}

impl Breaker {
    fn new(status: &breaker::Status) -> Self {
        Self {
            state: match status.position {
                Position::Closed => BreakerState::Closed.as_str(),
                Position::HalfOpen => BreakerState::HalfOpen.as_str(),
                Position::Open => BreakerState::Open.as_str(),
            },
            failures: status.failures,
            opens_total: status.opens,
            probe_in_ms: status.probe_at.map(|at| ms(at.saturating_duration_since(time::now()))),
        }
    }
}

/// How full a lane is, so that the fullest can be shown first.
fn used_in_1000(lane: &LaneStatus) -> u32 {
    let share = |used: u32, limit: u32| used.saturating_mul(1_000) / limit.max(1);
    let window = lane.usage.window.map_or(0, |(used, limit)| share(used, limit));
    window.max(lane.usage.slots_cap.map_or(0, |cap| share(lane.usage.slots_in_use, cap)))
}

/// One key, and what is used of its allowance. The figures are those in force.
#[derive(Debug, Serialize)]
struct Key {
    /// Its place in the settings, or the digest of a client's.
    key: String,
    waiting: u32,
    /// Until the gate opens again that a refusal has closed.
    closed_for_ms: Option<u64>,
    /// How much of that is because of resets that look like a limit.
    cooling_for_ms: Option<u64>,
    /// How many may go at a time for now, after an outage or such resets.
    at_a_time: Option<u32>,
    requests: Option<Balance>,
    tokens: Option<Balance>,
    requests_per_day: Option<Balance>,
    slots: Slots,
    window_margin_ms: u64,
    /// What is assumed otherwise than configured, and why.
    learned: Vec<Lesson>,
}

/// A figure of the settings that was learned to be another.
#[derive(Debug, Serialize)]
struct Lesson {
    /// The setting in `[upstreams.limits]`; the figures are in its unit, of durations in milliseconds.
    setting: &'static str,
    configured: Option<u64>,
    assumed: u64,
    reason: String,
    /// How long ago; not there where the headers of the answers rule.
    since_ms: Option<u64>,
    /// Until more is tried.
    next_probe_ms: Option<u64>,
    probing: bool,
}

impl Lesson {
    fn new(lesson: &LessonStatus) -> Self {
        let now = time::now();
        Self {
            setting: lesson.subject.as_str(),
            configured: lesson.configured,
            assumed: lesson.assumed,
            reason: lesson.why.to_string(),
            since_ms: lesson.since.map(|since| ms(now.saturating_duration_since(since))),
            next_probe_ms: lesson.next_probe.map(|probe| ms(probe.saturating_duration_since(now))),
            probing: lesson.is_probing,
        }
    }
}

#[derive(Debug, Serialize)]
struct Slots {
    limit: Option<u32>,
    in_use: u32,
}

impl Key {
    fn new(lane: &LaneStatus, index: Option<usize>) -> Self {
        let LaneStatus { id, usage, lessons, waiting, .. } = lane;
        let shared = matches!(id.key, KeyId::PASS_THROUGH | KeyId::ALL).then(|| "all".to_owned());
        let left = |until: Instant| ms(until.saturating_duration_since(time::now()));
        let digest = || shared.unwrap_or_else(|| ClientId::Key(id.key).to_string());
        Self {
            key: index.map_or_else(digest, |index| index.to_string()),
            waiting: *waiting,
            closed_for_ms: usage.closed_until.map(left),
            cooling_for_ms: usage.cooling_until.map(left),
            at_a_time: usage.at_a_time,
            requests: usage.window.map(|(used, limit)| Balance::new(limit, used)),
            tokens: usage.tokens.map(|(used, limit)| Balance::new(limit, used)),
            requests_per_day: usage.day.map(|(used, limit)| Balance::new(limit, used)),
            window_margin_ms: ms(usage.window_margin),
            learned: lessons.iter().map(Lesson::new).collect(),
            slots: Slots { limit: usage.slots_cap, in_use: usage.slots_in_use },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::LaneId;
    use crate::limits::Usage;
    use crate::limits::learned::{Subject, Why};
    use crate::time::Duration;

    use crate::units::Secret;

    fn lane(upstream: &str, key: KeyId, used: u32) -> LaneStatus {
        let usage = Usage {
            window: Some((used, 40)),
            slots_in_use: 2,
            slots_cap: Some(5),
            window_margin: Duration::from_millis(500),
            ..Usage::default()
        };
        LaneStatus { id: LaneId { upstream: upstream.into(), key }, usage, lessons: Vec::new(), waiting: 3 }
    }

    fn upstream(name: &str, keys: &[&str]) -> Upstream {
        let mut upstream = Upstream::new(name.to_owned(), "https://api.example.com/v1".parse().unwrap());
        upstream.api_keys = keys.iter().map(|key| Secret::new((*key).to_owned())).collect();
        upstream
    }

    #[tokio::test(start_paused = true)]
    async fn each_key_of_ours_is_told_by_its_place_and_never_by_itself() {
        let mut second = lane("main", KeyId::of("sk-secret-2"), 40);
        second.usage.closed_until = Some(time::now() + Duration::from_secs(12));
        (second.usage.slots_cap, second.usage.at_a_time) = (None, Some(2));
        second.usage.cooling_until = Some(time::now() + Duration::from_secs(4));
        second.lessons.push(LessonStatus {
            subject: Subject::Requests,
            configured: Some(40),
            assumed: 35,
            why: Why::RefusedWith(36),
            since: Some(time::now()),
            next_probe: Some(time::now() + Duration::from_secs(600)),
            is_probing: false,
        });
        let lanes = [second, lane("other", KeyId::PASS_THROUGH, 1), lane("main", KeyId::of("sk-secret-1"), 12)];
        let upstream = upstream("main", &["sk-secret-1", "sk-secret-2"]);
        let metrics = Metrics::new();
        metrics.disconnect(Some("main"), DisconnectPhase::BeforeHead);
        let probe_at = Some(time::now() + Duration::from_secs(10));
        let status = breaker::Status { position: Position::Open, failures: 5, opens: 1, probe_at };
        let breakers = [BreakerStatus { upstream: "main".into(), breaker: status, limit_signals: 2 }];
        let troubles = Troubles::of(&upstream, &breakers, &metrics);
        let view = View { upstreams: vec![One::new(&upstream, &lanes, &["main".into()], troubles)] };
        let json = serde_json::to_value(&view).unwrap();
        let expected = serde_json::json!({ "upstreams": [{
            "name": "main", "kind": "model", "base_url": "https://api.example.com/v1", "models": ["*"],
            "paused": true, "keys_total": 2, "limit_signals_total": 2,
            "breaker": { "state": "open", "failures": 5, "opens_total": 1, "probe_in_ms": 10_000 },
            "disconnects": { "before_head": 1, "before_first_event": 0, "mid_stream": 0, "websocket": 0, "client": 0 },
            "keys": [
                {
                    "key": "0", "waiting": 3, "closed_for_ms": null, "cooling_for_ms": null, "at_a_time": null,
                    "requests": { "limit": 40, "used": 12, "left": 28 }, "tokens": null, "requests_per_day": null,
                    "slots": { "limit": 5, "in_use": 2 }, "window_margin_ms": 500, "learned": [],
                },
                {
                    "key": "1", "waiting": 3, "closed_for_ms": 12_000, "cooling_for_ms": 4_000, "at_a_time": 2,
                    "requests": { "limit": 40, "used": 40, "left": 0 }, "tokens": null, "requests_per_day": null,
                    "slots": { "limit": null, "in_use": 2 }, "window_margin_ms": 500,
                    "learned": [{
                        "setting": "requests_per_minute", "configured": 40, "assumed": 35,
                        "reason": "a request was refused with 36 counted, itself included",
                        "since_ms": 0, "next_probe_ms": 600_000, "probing": false,
                    }],
                },
            ],
        }] });
        assert_eq!(json, expected);
        assert!(!json.to_string().contains("sk-secret"));
    }

    #[test]
    fn of_many_keys_of_clients_the_fullest_are_shown() {
        let key = |n: u32| KeyId::of(&format!("sk-{n}"));
        let lanes: Vec<_> = (0..300).map(|n| lane("main", key(n), n % 40)).collect();
        let upstream = upstream("main", &[]);
        let one = One::new(&upstream, &lanes, &[], Troubles::default());
        assert_eq!((one.keys_total, one.keys.len()), (300, KEYS_SHOWN));
        assert_eq!(one.keys[0].key, format!("key-{}", key(39)));
        assert!(one.keys.iter().all(|key| key.requests.as_ref().is_some_and(|requests| requests.used >= 25)));
    }
}
