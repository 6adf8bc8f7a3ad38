use std::sync::{Arc, LazyLock};

use parking_lot::Mutex;
use serde_json::Value;

use super::*;

#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<u8>>>);

impl Lines {
    fn take(&self) -> String {
        String::from_utf8(std::mem::take(&mut *self.0.lock())).unwrap()
    }
}

impl io::Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// What `log` writes, and what the handle can change meanwhile.
fn written(filter: &str, format: LogFormat, terminal: bool, log: impl FnOnce(&Handle)) -> String {
    let lines = Lines::default();
    let writer = lines.clone();
    let (subscriber, handle) = subscriber(filter, format, terminal, move || writer.clone()).unwrap();
    tracing::subscriber::with_default(subscriber, || log(&handle));
    lines.take()
}

fn a_call(model: &str) -> CallRecord<'_> {
    static BATCH: LazyLock<ClientId> = LazyLock::new(|| ClientId::Named("batch".into()));
    CallRecord {
        request_id: CallId::random(),
        client: &BATCH,
        class: Priority::Low,
        model: Some(model),
        route: Route::ChatCompletions,
        stream: true,
        status: Some(200),
        wait: Duration::from_millis(1_500),
        attempts: 2,
        recovered: 1,
        upstream: Some("main"),
        first_byte: None,
        duration: Duration::from_secs(4),
        usage: Usage { prompt_tokens: Some(30), completion_tokens: None },
        outcome: Outcome::Ok,
        reason: None,
    }
}

#[test]
fn a_call_leaves_one_line_of_json_with_plain_fields() {
    let call = a_call("gpt-4o");
    let text = written("info", LogFormat::Auto, false, |_| call_line(&call));
    assert_eq!(text.lines().count(), 1);
    let line: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(line["message"], "call");
    assert_eq!(line["request_id"], call.request_id.to_string());
    let expected = [("class", "low"), ("model", "gpt-4o"), ("route", "chat_completions"), ("outcome", "ok")];
    for (field, value) in expected {
        assert_eq!(line[field], value, "{field}");
    }
    for (field, value) in [("status", 200), ("wait_ms", 1_500), ("duration_ms", 4_000), ("prompt_tokens", 30)] {
        assert_eq!(line[field], value, "{field}");
    }
    for unknown in ["first_byte_ms", "completion_tokens", "reason"] {
        assert!(line.get(unknown).is_none(), "{unknown}");
    }
}

#[test]
fn a_terminal_gets_text_unless_told_otherwise() {
    let call = a_call("gpt-4o");
    assert!(written("info", LogFormat::Auto, true, |_| call_line(&call)).contains(" call "));
    assert!(written("info", LogFormat::Text, false, |_| call_line(&call)).contains("model=\"gpt-4o\""));
    assert!(written("info", LogFormat::Json, true, |_| call_line(&call)).starts_with('{'));
}

#[test]
fn a_model_cannot_fill_the_log_or_forge_a_line() {
    let endless = "ü".repeat(1_000_000);
    assert!(written("info", LogFormat::Json, false, |_| call_line(&a_call(&endless))).len() < 1_000);
    let forged = written("info", LogFormat::Text, false, |_| call_line(&a_call("x\n2026 INFO call status=200")));
    assert_eq!(forged.lines().count(), 1);
}

#[test]
fn the_filter_changes_while_running_and_a_bad_one_changes_nothing() {
    let text = written("warn", LogFormat::Text, false, |handle| {
        tracing::info!("one");
        handle.set_filter("info").unwrap();
        tracing::info!("two");
        handle.set_filter("loud").unwrap_err();
        tracing::info!("three");
    });
    assert!(!text.contains("one") && text.contains("two") && text.contains("three"), "{text}");
}

#[test]
fn a_filter_with_a_typing_mistake_is_refused() {
    for good in ["info", "OFF", "info,tidegate::limits=debug", "warn, tidegate=trace", "pingora_core=debug,info"] {
        assert!(parse_filter(good).is_ok(), "{good}");
    }
    for bad in ["", "inof", "info,debgu", "tidegate=loud", "info,"] {
        assert!(parse_filter(bad).is_err(), "{bad}");
    }
}

#[test]
fn what_clients_do_to_pingora_is_no_error_unless_asked_for() {
    let log = |_: &Handle| {
        tracing::error!(target: "pingora_core::apps::http_app", "client noise");
        tracing::warn!(target: "pingora_core::services", "worth a look");
    };
    let text = written("debug", LogFormat::Text, false, log);
    assert!(!text.contains("client noise") && text.contains("worth a look"), "{text}");
    assert!(written("info,pingora_core=debug", LogFormat::Text, false, log).contains("client noise"));
}

#[test]
fn no_header_that_may_carry_a_key_shows_its_value() {
    let mut headers = HeaderMap::new();
    for name in
        ["authorization", "proxy-authorization", "x-api-key", "api-key", "x-goog-api-key", "cookie", "x-auth-token"]
    {
        headers.insert(name, "sk-secret".parse().unwrap());
    }
    headers.insert("content-type", "application/json".parse().unwrap());
    let shown = format!("{:?}", Redacted(&headers));
    assert!(!shown.contains("sk-secret") && shown.contains("authorization") && shown.contains("application/json"));
}

#[test]
fn a_json_line_carries_values_of_every_kind() {
    let text = written("info", LogFormat::Json, false, |_| {
        tracing::warn!(signed = -3, ratio = 0.5, none = f64::NAN, yes = true, shown = ?"a \"b\"", "what\nhappened");
    });
    let line: Value = serde_json::from_str(&text).unwrap();
    let told = serde_json::json!({
        "timestamp": line["timestamp"], "level": "WARN", "message": "what\nhappened", "signed": -3, "ratio": 0.5,
        "none": null, "yes": true, "shown": "\"a \\\"b\\\"\"", "target": module_path!(),
    });
    assert_eq!(line, told);
    let timestamp = line["timestamp"].as_str().unwrap();
    assert!(timestamp.starts_with("20") && timestamp.ends_with('Z'), "{timestamp}");
}
