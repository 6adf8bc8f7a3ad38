use super::*;
use crate::ids::KeyId;
use crate::openai::Usage;

fn a_call() -> CallEnd {
    CallEnd {
        route: Route::ChatCompletions,
        priority: Priority::High,
        outcome: Outcome::Ok,
        duration: Duration::from_millis(5_000),
        queued: Duration::from_millis(1_500),
        upstream: Duration::from_millis(3_498),
    }
}

/// Everything happens once.
fn fill(metrics: &Metrics) {
    metrics.call_ended(&a_call());
    metrics.queue_wait(Priority::High, Duration::from_millis(1_500));
    metrics.set_queue_depth(Priority::Low, 7);
    metrics.set_queue_oldest(Priority::Low, Duration::from_millis(2_500));
    metrics.set_queue_bytes(1 << 20);
    metrics.set_journal_failing(true);
    metrics.set_memory(MemoryKind::Bodies, 1 << 21);
    metrics.retry(RetryReason::Disconnect);
    metrics.duplicate_sent();
    metrics.disconnect(None, DisconnectPhase::Client);
    metrics.disconnect(Some("main"), DisconnectPhase::MidStream);
    metrics.retry_delayed();
    metrics.recovered(Recovery::Continue, true);
    metrics.reloaded(2);
    let upstream = metrics.upstream("main", 2);
    upstream.attempt(Verdict::Deliver);
    upstream.first_byte(Duration::from_millis(700));
    upstream.tokens(Usage { prompt_tokens: Some(30), completion_tokens: None });
    upstream.refused_within_limits();
    upstream.disconnect(DisconnectPhase::MidStream);
    upstream.disconnect(DisconnectPhase::WebSocket);
    upstream.breaker_opened(2);
    upstream.limit_signals(3);
    assert_eq!(upstream.disconnects(DisconnectPhase::MidStream), 2);
    upstream.set_gate_closed(true);
    upstream.set_breaker(BreakerState::Open);
    upstream.set_window_margin(Duration::from_millis(500));
    upstream.set_paused(true);
    upstream.key(1).unwrap().set_allowance(Dimension::Requests, Some((40, 12)));
    upstream.key(1).unwrap().set_learned(Dimension::Requests, Some(35));
    upstream.key(1).unwrap().set_slots(Some((5, 3)));
    assert!(upstream.key(2).is_none());
}

#[track_caller]
fn assert_has(text: &str, lines: &[&str]) {
    for line in lines {
        assert!(text.lines().any(|found| found == *line), "no line {line:?} in\n{text}");
    }
}

#[tokio::test]
async fn tasks_of_the_runtime_are_those_that_have_not_ended() {
    let (metrics, tasks) = (Metrics::new(), crate::time::Tasks::default());
    let waiting = [1, 2, 3].map(|_| tasks.spawn(std::future::pending::<()>()));
    assert_has(&metrics.render(), &["tidegate_runtime_tasks 3"]);
    waiting.iter().for_each(tokio::task::JoinHandle::abort);
    tasks.drained().await;
    assert_has(&metrics.render(), &["tidegate_runtime_tasks 0"]);
}

#[test]
fn what_happened_is_rendered_under_its_name() {
    let metrics = Metrics::new();
    fill(&metrics);
    assert_has(
        &metrics.render(),
        &[
            r#"tidegate_calls_total{outcome="ok",priority="high",route="chat_completions"} 1"#,
            r#"tidegate_call_duration_seconds_bucket{route="chat_completions",le="5"} 1"#,
            r#"tidegate_overhead_seconds_bucket{le="0.001"} 0"#,
            r#"tidegate_overhead_seconds_bucket{le="0.0025"} 1"#,
            r#"tidegate_queue_wait_seconds_bucket{priority="high",le="1.5"} 1"#,
            r#"tidegate_queue_depth{priority="low"} 7"#,
            r#"tidegate_queue_oldest_seconds{priority="low"} 2.5"#,
            "tidegate_queue_bytes 1048576",
            "tidegate_journal_failing 1",
            r#"tidegate_memory_bytes{kind="bodies"} 2097152"#,
            r#"tidegate_retries_total{reason="disconnect"} 1"#,
            "tidegate_duplicates_sent_total 1",
            r#"tidegate_disconnects_total{phase="client",upstream=""} 1"#,
            r#"tidegate_disconnects_total{phase="mid_stream",upstream="main"} 2"#,
            r#"tidegate_disconnects_total{phase="websocket",upstream="main"} 1"#,
            r#"tidegate_breaker_opened_total{upstream="main"} 2"#,
            r#"tidegate_limit_signals_total{upstream="main"} 3"#,
            "tidegate_retries_delayed_total 1",
            r#"tidegate_recoveries_total{how="continue",result="ok"} 1"#,
            r#"tidegate_recoveries_total{how="restart",result="failed"} 0"#,
            r#"tidegate_reloads_total{result="refused"} 1"#,
            "tidegate_config_mistakes 2",
            "tidegate_config_last_reload_timestamp_seconds 0",
            r#"tidegate_attempts_total{upstream="main",verdict="deliver"} 1"#,
            r#"tidegate_first_byte_seconds_count{upstream="main"} 1"#,
            r#"tidegate_tokens_total{kind="prompt",upstream="main"} 30"#,
            r#"tidegate_tokens_total{kind="completion",upstream="main"} 0"#,
            r#"tidegate_upstream_refusals_within_limits_total{upstream="main"} 1"#,
            r#"tidegate_gate_closed{upstream="main"} 1"#,
            r#"tidegate_breaker_state{upstream="main"} 2"#,
            r#"tidegate_window_margin_seconds{upstream="main"} 0.5"#,
            r#"tidegate_paused{upstream="main"} 1"#,
            r#"tidegate_allowance_left{dimension="requests",key="1",upstream="main"} 28"#,
            r#"tidegate_learned_limit{dimension="requests",key="1",upstream="main"} 35"#,
            r#"tidegate_slots_in_use{key="1",upstream="main"} 3"#,
            concat!(r#"tidegate_build_info{version=""#, env!("CARGO_PKG_VERSION"), r#""} 1"#),
        ],
    );
}

#[test]
fn names_say_whose_they_are_and_in_which_unit() {
    let metrics = Metrics::new();
    fill(&metrics);
    let text = metrics.render();
    for line in text.lines().filter_map(|line| line.strip_prefix("# TYPE ")) {
        let (name, kind) = line.split_once(' ').unwrap();
        assert!(name.starts_with("tidegate_") || name.starts_with("process_"), "{name}");
        assert_eq!(name.ends_with("_total"), kind == "counter", "{name} is a {kind}");
        assert!(name.ends_with("_seconds") || kind != "histogram", "{name} is a {kind}");
    }
}

#[test]
fn every_counter_of_a_closed_set_is_there_from_the_start() {
    let metrics = Metrics::new();
    let _main = metrics.upstream("main", 1);
    let text = metrics.render();
    for phase in DisconnectPhase::ALL {
        let phase = phase.as_str();
        assert_has(&text, &[&format!("tidegate_disconnects_total{{phase=\"{phase}\",upstream=\"main\"}} 0")]);
    }
    assert_has(&text, &[r#"tidegate_disconnects_total{phase="client",upstream=""} 0"#]);
}

#[test]
fn who_is_present_is_counted_until_dropped() {
    let metrics = Metrics::new();
    let (first, second) = (metrics.in_flight(), metrics.in_flight());
    let connection = metrics.connection();
    assert_eq!(metrics.calls_in_flight(), 2);
    assert_has(&metrics.render(), &["tidegate_in_flight 2", "tidegate_connections 1"]);
    drop((first, second, connection));
    assert_has(&metrics.render(), &["tidegate_in_flight 0", "tidegate_connections 0"]);
}

#[test]
fn a_scrape_sets_what_mirrors_a_state_and_may_register_another() {
    let metrics = Metrics::new();
    metrics.on_scrape(|metrics| {
        metrics.set_queue_depth(Priority::Normal, 3);
        metrics.on_scrape(|_| {});
    });
    assert_has(&metrics.render(), &[r#"tidegate_queue_depth{priority="normal"} 3"#]);
}

#[test]
fn a_good_reload_clears_the_mistakes_of_a_bad_one() {
    let metrics = Metrics::new();
    metrics.reloaded(2);
    metrics.reloaded(0);
    let text = metrics.render();
    assert_has(&text, &["tidegate_config_mistakes 0", r#"tidegate_reloads_total{result="applied"} 1"#]);
    assert!(!text.contains("tidegate_config_last_reload_timestamp_seconds 0\n"));
}

#[test]
fn two_handles_of_one_upstream_count_together() {
    let metrics = Metrics::new();
    metrics.upstream("main", 1).attempt(Verdict::Retry);
    metrics.upstream("main", 1).attempt(Verdict::Retry);
    assert_has(&metrics.render(), &[r#"tidegate_attempts_total{upstream="main",verdict="retry"} 2"#]);
}

#[test]
fn limit_that_is_taken_away_leaves_no_series() {
    let metrics = Metrics::new();
    let upstream = metrics.upstream("main", 1);
    let key = upstream.key(0).unwrap();
    key.set_allowance(Dimension::Tokens, Some((100, 120)));
    let line = r#"tidegate_allowance_left{dimension="tokens",key="0",upstream="main"} 0"#;
    assert_has(&metrics.render(), &[line]);
    key.set_allowance(Dimension::Tokens, None);
    key.set_learned(Dimension::Tokens, None);
    assert!(!metrics.render().contains("dimension=\"tokens\""));
}

#[test]
fn only_clients_of_the_settings_have_series_of_their_own() {
    let metrics = Metrics::new();
    let named = |name: &str| ClientId::Named(name.into());
    metrics.declare_clients(["chat", "batch"]);
    let wait = Duration::from_millis(500);
    metrics.client_served(&named("chat"), 2, wait);
    for stranger in [named("unheard-of"), ClientId::Key(KeyId::of("sk-1")), ClientId::Everybody] {
        metrics.client_served(&stranger, 1, wait);
    }
    let waiting = [(named("batch"), 7), (named("unheard-of"), 1), (ClientId::Key(KeyId::of("sk-1")), 2)];
    metrics.set_clients_waiting(waiting.iter().map(|(client, calls)| (client, *calls)));
    let text = metrics.render();
    assert_has(
        &text,
        &[
            r#"tidegate_client_permits_total{client="chat"} 2"#,
            r#"tidegate_client_permits_total{client="other"} 3"#,
            r#"tidegate_client_wait_seconds_total{client="other"} 1.5"#,
            r#"tidegate_client_waiting{client="batch"} 7"#,
            r#"tidegate_client_waiting{client="chat"} 0"#,
            r#"tidegate_client_waiting{client="other"} 3"#,
        ],
    );
    assert_eq!(text.matches("tidegate_client_waiting{").count(), 3);
    // A reload: one has gone, one keeps its figures.
    metrics.declare_clients(["chat"]);
    let text = metrics.render();
    assert_has(&text, &[r#"tidegate_client_permits_total{client="chat"} 2"#]);
    assert!(!text.contains("client=\"batch\""));
}

#[cfg(target_os = "linux")]
#[test]
fn the_process_knows_its_memory_and_files() {
    let text = Metrics::new().render();
    for name in ["process_resident_memory_bytes", "process_open_fds", "process_max_fds", "process_threads"] {
        let value = text.lines().find_map(|line| line.strip_prefix(name)?.trim().parse::<u64>().ok());
        assert!(value.is_some_and(|value| value > 0), "{name}: {value:?}");
    }
}
