//! A client that was told 200 and kept company learns in its stream what became of its call.

use super::{Busy, STREAMING, error_of, is_early, one_at_a_time, without_comments};
use crate::support::client::post_to;
use crate::support::http2_client::{Http2, chat};
use crate::support::upstream::{STREAM, answer, event, fine, json};
use crate::support::{Client, Line, Proxy, Upstream, ms, post, within};

const WRONG_KEY: &str = r#"{"error":{"message":"Incorrect API key provided: sk-no","type":"invalid_request_error","param":null,"code":"invalid_api_key","hint":12345678901234567890}}"#;

/// A streaming client that has its head, and its provider, which is thinking.
async fn thinking(proxy: &Proxy, upstream: &Upstream) -> (Client, Line) {
    let mut client = proxy.client().await;
    client.send(post(STREAMING)).await;
    let (line, _) = upstream.request().await;
    is_early(&client.head().await);
    (client, line)
}

/// The error at the end of a stream that has nothing else in it.
async fn only_error(client: &mut Client) -> serde_json::Value {
    let heard = client.rest().await.unwrap();
    error_of(without_comments(&heard).1)
}

fn calls(outcome: &str) -> String {
    format!("tidegate_calls_total{{outcome=\"{outcome}\",priority=\"normal\",route=\"chat_completions\"}}")
}

#[tokio::test]
async fn the_providers_own_error_arrives_with_its_status() {
    let upstream = Upstream::start().await;
    let proxy = one_at_a_time(&upstream).start().await;
    let (mut client, mut line) = thinking(&proxy, &upstream).await;
    line.send(answer("401 Unauthorized", "Content-Type: application/json\r\n", WRONG_KEY)).await;
    let error = only_error(&mut client).await;
    assert_eq!(error["message"], "Incorrect API key provided: sk-no");
    assert_eq!((&error["code"], &error["status"]), (&"invalid_api_key".into(), &401.into()));
    assert_eq!(error["hint"], 12_345_678_901_234_567_890_u64);
    proxy.until_metric(&calls("client_error"), 1.0).await;
    // The connection serves the next call.
    client.send(post(r#"{"model":"m"}"#)).await;
    let mut line = upstream.request_on_any(line).await;
    line.send(fine()).await;
    assert_eq!(client.answer().await.status(), 200);
}

#[tokio::test]
async fn it_arrives_over_http2_too() {
    let upstream = Upstream::start().await;
    let proxy = one_at_a_time(&upstream).start().await;
    let mut http2 = Http2::to(proxy.clients).await;
    let sending = http2.send(chat(), STREAMING).await;
    let (mut line, _) = upstream.request().await;
    let mut coming = sending.answer().await.unwrap();
    line.send(answer("403 Forbidden", "Content-Type: text/plain\r\n", "not in your country\n")).await;
    let heard = String::from_utf8(coming.rest().await.unwrap()).unwrap();
    let error = error_of(without_comments(&heard).1);
    assert_eq!(error["message"], "the upstream answered with status 403: not in your country");
    assert_eq!(error["status"], 403);
}

#[tokio::test]
async fn a_long_error_is_told_as_far_as_it_can_be_read() {
    let upstream = Upstream::start().await;
    let proxy = one_at_a_time(&upstream).start().await;
    let (mut client, mut line) = thinking(&proxy, &upstream).await;
    // It may leave in the middle: enough was read.
    drop(line.try_send(&answer("400 Bad Request", "Content-Type: text/plain\r\n", "x".repeat(6 << 20))).await);
    let error = only_error(&mut client).await;
    assert_eq!(error["status"], 400);
    assert!(error["message"].as_str().unwrap().len() < 1_000);
    proxy.until_metric(&calls("client_error"), 1.0).await;
}

#[tokio::test]
async fn the_providers_last_refusal_is_told_when_the_deadline_comes() {
    let upstream = Upstream::start().await;
    let proxy = one_at_a_time(&upstream).start().await;
    let mut client = proxy.client().await;
    client.send(post_to("/v1/chat/completions", "x-tidegate-deadline-ms: 2000\r\n", STREAMING)).await;
    let (mut line, _) = upstream.request().await;
    is_early(&client.head().await);
    let busy = r#"{"error":{"message":"slow down","type":"requests","code":"rate_limit_exceeded"}}"#;
    line.send(answer("429 Too Many Requests", "Content-Type: application/json\r\nRetry-After: 30\r\n", busy)).await;
    let error = within(ms(4_000), "the refusal", only_error(&mut client)).await;
    assert_eq!((&error["message"], &error["status"]), (&"slow down".into(), &429.into()));
}

#[tokio::test]
async fn a_deadline_that_comes_in_line_is_told_as_any_refusal() {
    let upstream = Upstream::start().await;
    let proxy = one_at_a_time(&upstream).start().await;
    let _busy = Busy::with(&proxy, &upstream).await;
    let mut client = proxy.client().await;
    client.send(post_to("/v1/chat/completions", "x-tidegate-deadline-ms: 350\r\n", STREAMING)).await;
    let head = client.head().await;
    if head.status() == 429 {
        return; // told at once, as is right where the turn can be foreseen
    }
    is_early(&head);
    let error = only_error(&mut client).await;
    assert_eq!((&error["code"], &error["status"]), (&"queue_timeout".into(), &429.into()));
    assert!(error["message"].as_str().unwrap().contains("x-tidegate-deadline-ms"), "{error}");
    proxy.until_metric(&calls("queue_timeout"), 1.0).await;
}

#[tokio::test]
async fn a_provider_that_cannot_be_reached_is_told_in_the_stream() {
    let upstream = Upstream::start().await;
    let proxy =
        one_at_a_time(&upstream).set(|settings| settings.retry.attempts_max = 1.try_into().unwrap()).start().await;
    let (mut client, line) = thinking(&proxy, &upstream).await;
    line.reset();
    let error = only_error(&mut client).await;
    assert_eq!((&error["code"], &error["status"]), (&"upstream_disconnected".into(), &502.into()));
    proxy.until_metric(&calls("upstream_disconnected"), 1.0).await;
}

#[tokio::test]
async fn a_stream_that_breaks_behind_comments_ends_as_any_other() {
    let upstream = Upstream::start().await;
    let proxy = one_at_a_time(&upstream).start().await;
    let (mut client, mut line) = thinking(&proxy, &upstream).await;
    line.send([STREAM, &event("a")].concat()).await;
    line.fin().await;
    let heard = client.rest().await.unwrap();
    let (_, heard) = without_comments(&heard);
    let (first, error) = heard.split_at(heard.find("\n\n").unwrap() + 2);
    assert!(first.contains("\"content\":\"a\""), "{first}");
    assert_eq!(error_of(error)["code"], "upstream_disconnected");
    proxy.until_metric(&calls("broken"), 1.0).await;
}

#[tokio::test]
async fn an_answer_that_is_no_stream_is_an_error_once_and_then_expected() {
    let upstream = Upstream::start().await;
    let proxy = one_at_a_time(&upstream).start().await;
    let (mut client, mut line) = thinking(&proxy, &upstream).await;
    let whole = r#"{"object":"chat.completion","choices":[],"usage":{"prompt_tokens":1,"completion_tokens":1}}"#;
    line.send(json(whole)).await;
    let error = only_error(&mut client).await;
    assert_eq!((&error["code"], &error["status"]), (&"upstream_no_stream".into(), &502.into()));
    assert!(error["message"].as_str().unwrap().contains("status 200 and application/json"), "{error}");
    proxy.until_metric(&calls("broken"), 1.0).await;
    // From now on its answers are waited for in silence, and passed on as they are.
    client.send(post(STREAMING)).await;
    let mut line = upstream.request_on_any(line).await;
    let heard = tokio::time::timeout(ms(300), client.reader().more()).await;
    assert!(heard.is_err(), "it heard {:?}", String::from_utf8_lossy(client.reader().unread()));
    line.send(json(whole)).await;
    let told = client.answer().await;
    assert_eq!((told.status(), told.text().as_str()), (200, whole));
}

#[tokio::test]
async fn an_error_that_comes_with_a_good_status_is_the_providers_own() {
    let upstream = Upstream::start().await;
    let proxy = one_at_a_time(&upstream).start().await;
    let (mut client, mut line) = thinking(&proxy, &upstream).await;
    line.send(json(r#"{"error":{"message":"out of credits","code":402}}"#)).await;
    let error = only_error(&mut client).await;
    assert_eq!((&error["message"], &error["code"]), (&"out of credits".into(), &402.into()));
    proxy.until_metric(&calls("broken"), 1.0).await;
    // It does not show that its model knows no streams: the next one is kept company as before.
    client.send(post(STREAMING)).await;
    let _thinking = upstream.request_on_any(line).await;
    is_early(&client.head().await);
}

#[tokio::test]
async fn clients_that_go_by_the_names_of_events_are_told_by_name() {
    let upstream = Upstream::start().await;
    let proxy = one_at_a_time(&upstream).start().await;
    let mut client = proxy.client().await;
    client.send(post_to("/v1/messages", "", STREAMING)).await;
    let (mut line, _) = upstream.request().await;
    is_early(&client.head().await);
    line.send(answer("401 Unauthorized", "Content-Type: application/json\r\n", WRONG_KEY)).await;
    let heard = client.rest().await.unwrap();
    let event = without_comments(&heard).1.strip_prefix("event: error\n").unwrap();
    assert_eq!(error_of(event)["status"], 401);
    assert!(event.starts_with(r#"data: {"type":"error","error":{"#), "{event}");
}
