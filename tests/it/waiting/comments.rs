//! Streaming clients hear of us while they wait, in line or for a provider that thinks.

use super::{Busy, PACE, STREAMING, is_comment, is_early, one_at_a_time, tide, without_comments};
use crate::support::client::post_to;
use crate::support::http2_client::{Http2, chat};
use crate::support::upstream::{answer, chunk, fine};
use crate::support::{Upstream, ms, post, proxy, soon, within};
use tidegate::time::now;

#[tokio::test]
async fn a_streaming_client_hears_comments_until_its_turn_comes() {
    let upstream = Upstream::start().await;
    let proxy = one_at_a_time(&upstream).start().await;
    let busy = Busy::with(&proxy, &upstream).await;
    let mut client = proxy.client().await;
    client.send(post(STREAMING)).await;
    is_early(&client.head().await);
    for _ in 0..3 {
        let comment = client.reader().chunk().await.unwrap().unwrap();
        is_comment(&String::from_utf8(comment).unwrap());
    }
    let line = busy.go().await;
    let mut line = upstream.request_on_any(line).await;
    let (wire, body) = tide();
    line.send(wire).await;
    let rest = client.rest().await.unwrap();
    assert_eq!(without_comments(&rest).1, body);
    // The connection serves the next call.
    client.send(post(r#"{"model":"m"}"#)).await;
    let mut line = upstream.request_on_any(line).await;
    line.send(fine()).await;
    assert_eq!(client.answer().await.status(), 200);
    let outcome = "tidegate_calls_total{outcome=\"ok\",priority=\"normal\",route=\"chat_completions\"}";
    proxy.until_metric(outcome, 3.0).await;
}

#[tokio::test]
async fn it_hears_them_over_http2_as_soon_as_they_are_written() {
    let upstream = Upstream::start().await;
    let proxy = one_at_a_time(&upstream).start().await;
    let busy = Busy::with(&proxy, &upstream).await;
    let mut http2 = Http2::to(proxy.clients).await;
    let mut coming = http2.send(chat(), STREAMING).await.answer().await.unwrap();
    assert_eq!(
        (coming.status.as_u16(), &coming.headers["content-type"]),
        (200, &"text/event-stream; charset=utf-8".parse().unwrap())
    );
    for _ in 0..2 {
        is_comment(&coming.text().await.unwrap());
    }
    let line = busy.go().await;
    let mut line = upstream.request_on_any(line).await;
    let (wire, body) = tide();
    line.send(wire).await;
    let rest = String::from_utf8(coming.rest().await.unwrap()).unwrap();
    assert_eq!(without_comments(&rest).1, body);
}

#[tokio::test]
async fn a_provider_that_thinks_is_waited_for_with_comments() {
    let upstream = Upstream::start().await;
    let proxy = one_at_a_time(&upstream).start().await;
    let mut client = proxy.client().await;
    client.send(post(STREAMING)).await;
    let (mut line, _) = upstream.request().await;
    let head = client.head().await;
    is_early(&head);
    assert_eq!(head.field("x-tidegate-attempts").as_deref(), Some("1"));
    assert_eq!(client.event().await.unwrap(), ": waiting attempt=1");
    // A head is no answer yet.
    let (wire, body) = tide();
    let (head, rest) = wire.split_at(wire.find("\r\n\r\n").unwrap() + 4);
    line.send(head).await;
    assert_eq!(client.event().await.unwrap(), ": waiting attempt=1");
    line.send(rest).await;
    let heard = client.rest().await.unwrap();
    assert_eq!(without_comments(&heard).1, body);
}

#[tokio::test]
async fn an_impatient_client_sets_the_pace() {
    let upstream = Upstream::start().await;
    let proxy = proxy(&upstream).concurrency(1).start().await; // it would hear nothing for 10 s
    let _busy = Busy::with(&proxy, &upstream).await;
    let mut client = proxy.client().await;
    let began = now();
    client.send(post_to("/v1/chat/completions", "x-stainless-read-timeout: 1.2\r\n", STREAMING)).await;
    within(ms(1_200), "the first comment", client.head()).await;
    assert!(began.elapsed() >= ms(390), "sooner than a third of its time-out: {:?}", began.elapsed());
    for _ in 0..3 {
        within(ms(1_200), "one more comment", client.event()).await.unwrap();
    }
}

#[tokio::test]
async fn who_cannot_use_comments_gets_none() {
    let upstream = Upstream::start().await;
    let silent = one_at_a_time(&upstream).set(|settings| settings.admission.keepalive_after = None).start().await;
    let proxy = one_at_a_time(&upstream).start().await;
    let old = STREAMING.len();
    let old = format!("POST /v1/chat/completions HTTP/1.0\r\nContent-Length: {old}\r\n\r\n{STREAMING}");
    for (proxy, request) in [
        (&silent, post(STREAMING)),
        (&proxy, old.into_bytes()),
        (&proxy, post(r#"{"model":"m"}"#)),
        (&proxy, post_to("/v1/embeddings", "", STREAMING)),
        (&proxy, post_to("/v1/audio/speech", "", STREAMING)),
    ] {
        let mut client = proxy.client().await;
        client.send(request).await;
        let (mut line, _) = upstream.request().await;
        let heard = tokio::time::timeout(ms(3 * PACE), client.reader().more()).await;
        assert!(heard.is_err(), "it heard {:?}", String::from_utf8_lossy(client.reader().unread()));
        line.send(answer("401 Unauthorized", "Content-Type: application/json\r\nConnection: close\r\n", "{}")).await;
        assert_eq!(client.answer().await.status(), 401);
    }
}

#[tokio::test]
async fn a_client_that_leaves_while_it_is_kept_company_leaves_the_line_at_once() {
    let upstream = Upstream::start().await;
    let proxy = one_at_a_time(&upstream).start().await;
    let _busy = Busy::with(&proxy, &upstream).await;
    for by_reset in [false, true] {
        let mut client = proxy.client().await;
        client.send(post(STREAMING)).await;
        is_early(&client.head().await);
        proxy.until_queued(1).await;
        if by_reset {
            client.reset()
        } else {
            drop(client)
        }
        within(ms(1_000), "an empty line", proxy.until_queued(0)).await;
    }
    let mut http2 = Http2::to(proxy.clients).await;
    let coming = http2.send(chat(), STREAMING).await.answer().await.unwrap();
    proxy.until_queued(1).await;
    drop(coming);
    within(ms(1_000), "an empty line", proxy.until_queued(0)).await;
    proxy.until_metric("tidegate_disconnects_total{phase=\"client\",upstream=\"\"}", 3.0).await;
    // Their waiting is waiting, and no work of ours.
    proxy.until_metric("tidegate_overhead_seconds_bucket{le=\"0.25\"}", 3.0).await;
}

#[tokio::test]
async fn a_provider_is_not_asked_to_encode_what_the_head_did_not_announce() {
    let upstream = Upstream::start().await;
    let proxy = one_at_a_time(&upstream).start().await;
    let busy = Busy::with(&proxy, &upstream).await;
    let mut client = proxy.client().await;
    client.send(post_to("/v1/chat/completions", "Accept-Encoding: gzip, br\r\n", STREAMING)).await;
    is_early(&client.head().await);
    let mut line = busy.go().await;
    let request = tokio::select! {
        head = line.reader().head() => head.unwrap(),
        (_, request) = upstream.request() => request.head,
    };
    assert_eq!(request.fields("accept-encoding"), ["identity"]);
}

#[tokio::test]
async fn a_request_that_leaves_before_any_head_asks_for_what_its_client_asked_for() {
    let upstream = Upstream::start().await;
    let proxy = proxy(&upstream).start().await;
    let mut client = proxy.client().await;
    client.send(post_to("/v1/chat/completions", "Accept-Encoding: gzip, br\r\n", STREAMING)).await;
    let (mut line, request) = upstream.request().await;
    assert_eq!(request.head.fields("accept-encoding"), ["gzip, br"]);
    line.send(tide().0).await;
    assert_eq!(client.head().await.status(), 200);
}

#[tokio::test]
async fn a_byte_order_mark_behind_comments_does_not_spoil_the_first_event() {
    let upstream = Upstream::start().await;
    let proxy = one_at_a_time(&upstream).start().await;
    let mut client = proxy.client().await;
    client.send(post(STREAMING)).await;
    let (mut line, _) = upstream.request().await;
    is_early(&client.head().await);
    let (wire, body) = tide();
    line.send(wire.replacen("\r\n\r\n", &format!("\r\n\r\n{}", chunk("\u{feff}")), 1)).await;
    let heard = soon("the end of the stream", client.rest()).await.unwrap();
    assert_eq!(without_comments(&heard).1, body);
}
