//! `/sim/…`: what the people who run the simulation ask and change. Not judged, not counted.

use std::sync::Arc;

use serde_json::{Value, json};

use super::fault::{Fault, FaultKind};
use super::outage::Outage;
use super::provider::Provider;
use super::reply::Reply;
use super::settings::Limits;
use super::wire::{Connection, RequestHead};
use crate::time::Duration;
use crate::units::parse_duration;

const BODY_BYTES_MAX: usize = 64 * 1024;
/// The longest a provider is down: a day.
const DOWN_MS_MAX: u64 = 86_400_000;

/// Whether a request is for us rather than for the provider.
pub(super) fn is_ours(head: &RequestHead) -> bool {
    head.path().starts_with("/sim/")
}

/// Answers a request; the connection comes back if another may follow.
pub(super) async fn serve(
    provider: &Arc<Provider>,
    mut connection: Connection,
    head: &RequestHead,
) -> Option<Connection> {
    let body = connection.whole_body(head.framing, BODY_BYTES_MAX).await.ok()?;
    let reply = match (head.method.as_str(), head.path()) {
        ("GET", "/sim/stats") => stats(provider),
        ("GET", "/sim/arrivals") => Reply::json(200, &json!(provider.arrivals())),
        ("POST", "/sim/limits") => change(&body, |wishes| set_limits(provider, wishes)),
        ("POST", "/sim/faults") => change(&body, |wishes| set_faults(provider, wishes)),
        ("POST", "/sim/down") => change(&body, |wishes| go_down(provider, wishes)),
        ("POST", "/sim/reset") => {
            provider.reset_stats();
            stats(provider)
        }
        _ => Reply::error(
            404,
            "not_found",
            None,
            "try GET /sim/stats or /sim/arrivals, POST /sim/limits, /sim/faults, /sim/down or /sim/reset",
        ),
    };
    connection.write(&reply.bytes(head, 0)).await.ok()?;
    head.keeps_alive().then_some(connection)
}

fn stats(provider: &Provider) -> Reply {
    Reply::json(200, &json!(provider.stats()))
}

fn change(body: &[u8], apply: impl FnOnce(&serde_json::Map<String, Value>) -> Result<Value, String>) -> Reply {
    let wishes: Result<serde_json::Map<String, Value>, _> = serde_json::from_slice(body);
    let applied = wishes.map_err(|error| format!("expected a JSON object: {error}")).and_then(|wishes| apply(&wishes));
    applied.map_or_else(|problem| Reply::bad_request(&problem), |now| Reply::json(200, &now))
}

/// Changes the limits that are named, all or none; `null` lifts one.
fn set_limits(provider: &Provider, wishes: &serde_json::Map<String, Value>) -> Result<Value, String> {
    let mut limits = provider.limits();
    for (name, wish) in wishes {
        match name.as_str() {
            "requests" => limits.requests = number(name, wish)?,
            "concurrency" => limits.concurrency = number(name, wish)?,
            "tokens" => limits.tokens = number(name, wish)?,
            "window" => {
                let text = wish.as_str().ok_or_else(|| format!("window: expected a duration, found {wish}"))?;
                limits.window = parse_duration(text).map_err(|error| format!("window: {error}"))?;
            }
            _ => return Err(format!("{name}: expected requests, concurrency, tokens or window")),
        }
    }
    provider.set_limits(limits);
    let Limits { requests, concurrency, tokens, window } = limits;
    let window = format!("{}ms", window.as_millis());
    Ok(json!({ "requests": requests, "concurrency": concurrency, "tokens": tokens, "window": window }))
}

fn number(name: &str, wish: &Value) -> Result<Option<u32>, String> {
    if wish.is_null() {
        return Ok(None);
    }
    let number = wish.as_u64().and_then(|number| u32::try_from(number).ok());
    number.map(Some).ok_or_else(|| format!("{name}: expected a whole number or null, found {wish}"))
}

/// Sets the rates of the kinds that are named, all or none; the others stay.
fn set_faults(provider: &Provider, wishes: &serde_json::Map<String, Value>) -> Result<Value, String> {
    let mut faults = provider.faults();
    for (name, wish) in wishes {
        let kind: FaultKind = name.parse().map_err(|error| format!("{name}: {error}"))?;
        let rate = wish.as_f64().filter(|rate| (0.0..=1.0).contains(rate));
        let rate = rate.ok_or_else(|| format!("{name}: expected a rate from 0 to 1, found {wish}"))?;
        faults.retain(|fault| fault.kind != kind);
        if rate > 0.0 {
            faults.push(Fault { kind, rate });
        }
    }
    let now = faults.iter().map(|fault| (fault.kind.to_string(), json!(fault.rate))).collect();
    provider.set_faults(faults);
    Ok(Value::Object(now))
}

/// Goes down in the way and for the time that is named; `null` ends it.
fn go_down(provider: &Provider, wishes: &serde_json::Map<String, Value>) -> Result<Value, String> {
    if let Some(unknown) = wishes.keys().find(|name| !matches!(name.as_str(), "how" | "for_ms")) {
        return Err(format!("{unknown}: expected how or for_ms"));
    }
    let how = wishes.get("how").ok_or("how: say how to be down, or null to come back")?;
    if how.is_null() {
        provider.come_back();
        return Ok(json!({ "how": null }));
    }
    let outage = how.as_str().ok_or_else(|| format!("how: expected a string or null, found {how}"))?;
    let outage: Outage = outage.parse().map_err(|error| format!("how: {error}"))?;
    let lasts = wishes.get("for_ms").and_then(Value::as_u64).filter(|lasts| (1..=DOWN_MS_MAX).contains(lasts));
    let lasts = lasts.ok_or_else(|| {
        let found = wishes.get("for_ms").unwrap_or(&Value::Null);
        format!("for_ms: expected milliseconds from 1 to {DOWN_MS_MAX}, found {found}")
    })?;
    provider.go_down(outage, Duration::from_millis(lasts));
    Ok(json!({ "how": outage.as_str(), "for_ms": lasts }))
}
