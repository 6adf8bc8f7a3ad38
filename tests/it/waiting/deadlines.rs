//! A call that cannot go in time is told so while its client still listens, and in words that help.

use super::{Busy, PLAIN, STREAMING, one_at_a_time};
use crate::support::client::post_to;
use crate::support::wire::Answer;
use crate::support::{Upstream, get, ms, within};

fn chat(fields: &str, body: &str) -> Vec<u8> {
    post_to("/v1/chat/completions", fields, body)
}

fn message(answer: &Answer) -> String {
    let json: serde_json::Value = serde_json::from_slice(&answer.body).unwrap();
    json["error"]["message"].as_str().unwrap().to_owned()
}

/// When to come back, in both units: they agree, and no SDK thinks them too long.
fn comes_back(answer: &Answer) -> u64 {
    let number = |name| answer.head.field(name).unwrap().parse::<u64>().unwrap();
    let (seconds, ms) = (number("retry-after"), number("retry-after-ms"));
    assert!((1_000..=60_000).contains(&ms) && seconds == ms.div_ceil(1_000), "{seconds} s, {ms} ms");
    ms
}

#[tokio::test]
async fn a_plain_call_is_told_before_its_client_gives_up() {
    let upstream = Upstream::start().await;
    let proxy = one_at_a_time(&upstream).start().await;
    let _busy = Busy::with(&proxy, &upstream).await;
    for field in ["x-stainless-read-timeout", "x-stainless-timeout"] {
        let mut client = proxy.client().await;
        let told = within(ms(1_500), "a refusal", client.ask(chat(&format!("{field}: 1.5\r\n"), PLAIN))).await;
        assert_eq!(told.status(), 429);
        assert!(["queue_timeout", "deadline_unreachable"].contains(&told.error_code().as_str()), "{}", told.text());
        assert!(
            message(&told).contains(field) && message(&told).contains("stream, allow more time"),
            "{}",
            told.text()
        );
        assert!(told.head.has("x-tidegate-queue-ms"));
        assert!(!told.head.has("x-should-retry"));
        comes_back(&told);
        // The connection stays open.
        assert_eq!(client.ask(chat("x-tidegate-deadline-ms: 0\r\n", PLAIN)).await.status(), 429);
    }
}

#[tokio::test]
async fn what_its_model_usually_takes_is_left_for_the_answer() {
    let upstream = Upstream::start().await;
    let proxy = one_at_a_time(&upstream).start().await;
    let busy = Busy::with(&proxy, &upstream).await;
    tokio::time::sleep(ms(1_500)).await; // so long does the model take
    let line = busy.go().await;
    let mut next = proxy.client().await;
    next.send(chat("", PLAIN)).await;
    let _has_the_slot = upstream.request_on_any(line).await;
    // Of three seconds half are left to wait in.
    let mut client = proxy.client().await;
    let refused = client.ask(chat("x-stainless-read-timeout: 3\r\n", PLAIN));
    assert_eq!(within(ms(2_300), "a refusal", refused).await.status(), 429);
}

#[tokio::test]
async fn our_own_header_wins_and_is_named() {
    let upstream = Upstream::start().await;
    let proxy = one_at_a_time(&upstream).start().await;
    let _busy = Busy::with(&proxy, &upstream).await;
    let fields = "x-tidegate-deadline-ms: 50\r\nx-stainless-read-timeout: 600\r\n";
    let told = proxy.client().await.ask(chat(fields, PLAIN)).await;
    assert_eq!(told.status(), 429);
    assert!(message(&told).contains("x-tidegate-deadline-ms"), "{}", told.text());
    assert!(!message(&told).contains("ns") && !message(&told).contains("Duration"), "{}", told.text());
}

#[tokio::test]
async fn who_left_the_line_without_a_permit_has_waited_and_who_was_refused_at_once_has_not() {
    const WAITS: &str = "tidegate_queue_wait_seconds_count{priority=\"normal\"}";
    let upstream = Upstream::start().await;
    let proxy = one_at_a_time(&upstream).set(|settings| settings.admission.queue_max = 1).start().await;
    let _busy = Busy::with(&proxy, &upstream).await;
    assert_eq!(proxy.client().await.ask(chat("x-tidegate-deadline-ms: 500\r\n", PLAIN)).await.status(), 429);
    proxy.until_metric(WAITS, 1.0).await;
    let mut waiting = proxy.client().await;
    waiting.send(chat("", PLAIN)).await;
    proxy.until_queued(1).await;
    assert_eq!(proxy.client().await.ask(chat("", PLAIN)).await.error_code(), "queue_full");
    proxy.until_metric(WAITS, 1.0).await;
    drop(waiting);
    proxy.until_metric(WAITS, 2.0).await;
}

#[tokio::test]
async fn the_operators_bound_is_named_where_it_binds() {
    let upstream = Upstream::start().await;
    let waits = |settings: &mut tidegate::config::Settings| {
        settings.admission.wait_max = ms(80);
        settings.admission.keepalive_after = Some(ms(10_000)); // later, by any clock
    };
    let proxy = one_at_a_time(&upstream).set(waits).start().await;
    let _busy = Busy::with(&proxy, &upstream).await;
    for (fields, body) in [("", PLAIN), ("x-stainless-read-timeout: 60\r\n", PLAIN), ("", STREAMING)] {
        let told = proxy.client().await.ask(chat(fields, body)).await;
        assert_eq!(told.status(), 429);
        assert!(message(&told).contains("admission.wait_max"), "{}", told.text());
    }
}

#[tokio::test]
async fn a_time_out_that_cannot_be_meant_is_nobodys_mistake() {
    let upstream = Upstream::start().await;
    let proxy = one_at_a_time(&upstream).start().await;
    let busy = Busy::with(&proxy, &upstream).await;
    let mut waiting = Vec::new();
    for word in ["0", "-1", "soon", "NaN"] {
        let mut client = proxy.client().await;
        client.send(chat(&format!("x-stainless-read-timeout: {word}\r\n"), PLAIN)).await;
        waiting.push(client);
    }
    proxy.until_queued(4).await;
    drop(busy);
}

#[tokio::test]
async fn a_full_queue_says_what_is_full_and_when_to_come_back() {
    let upstream = Upstream::start().await;
    let proxy = one_at_a_time(&upstream).set(|settings| settings.admission.queue_max = 1).start().await;
    let _busy = Busy::with(&proxy, &upstream).await;
    let mut waiting = proxy.client().await;
    waiting.send(chat("", PLAIN)).await;
    proxy.until_queued(1).await;
    let told = proxy.client().await.ask(chat("", PLAIN)).await;
    assert_eq!((told.status(), told.error_code().as_str()), (429, "queue_full"));
    assert!(message(&told).contains("1 call waits already (admission.queue_max)"), "{}", told.text());
    comes_back(&told);
}

#[tokio::test]
async fn a_body_that_stops_is_no_client_that_has_left() {
    let upstream = Upstream::start().await;
    let proxy = one_at_a_time(&upstream).set(|settings| settings.server.body_timeout = ms(100)).start().await;
    let _busy = Busy::with(&proxy, &upstream).await;
    let mut client = proxy.client().await;
    client.send("POST /v1/files HTTP/1.1\r\nHost: t\r\nContent-Length: 10\r\n\r\nhalf").await;
    let told = client.answer().await;
    assert_eq!((told.status(), told.error_code().as_str()), (408, "bad_request"));
    let calls = "tidegate_calls_total{outcome=\"bad_request\",priority=\"normal\",route=\"other\"}";
    proxy.until_metric(calls, 1.0).await;
    proxy.until_metric("tidegate_disconnects_total{phase=\"client\",upstream=\"\"}", 0.0).await;
}

#[tokio::test]
async fn a_connection_that_finds_no_room_is_counted() {
    let upstream = Upstream::start().await;
    let proxy = one_at_a_time(&upstream).set(|settings| settings.server.connections_max = 1).start().await;
    let _busy = Busy::with(&proxy, &upstream).await;
    let mut client = proxy.client().await;
    client.send(get("/v1/models", "")).await;
    let told = client.answer().await;
    assert_eq!((told.status(), told.error_code().as_str()), (503, "queue_full"));
    comes_back(&told);
    let calls = "tidegate_calls_total{outcome=\"queue_full\",priority=\"normal\",route=\"other\"}";
    proxy.until_metric(calls, 1.0).await;
}
