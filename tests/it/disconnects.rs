//! A client that leaves costs nothing, and nobody works for it any longer.

mod phases;

use crate::support::upstream::{STREAM, answer, chunk, event, fine, finish};
use crate::support::{Client, Proxy, Upstream, get, ms, post, proxy, within};

/// A proxy with one slot, which the first call holds, and so many requests a minute.
async fn busy(requests: u32) -> (Proxy, Upstream, crate::support::Line, Client) {
    let upstream = Upstream::start().await;
    let proxy = proxy(&upstream).concurrency(1).requests(requests, ms(60_000)).start().await;
    let mut holder = proxy.client().await;
    holder.send(post("holder")).await;
    let (line, request) = upstream.request().await;
    assert_eq!(request.text(), "holder");
    (proxy, upstream, line, holder)
}

async fn leaves_the_queue(leave: impl AsyncFn(Client)) {
    let (proxy, upstream, mut line, mut holder) = busy(3).await;
    for _ in 0..5 {
        let mut waiting = proxy.client().await;
        waiting.send(post("waiting")).await;
        proxy.until_queued(1).await;
        leave(waiting).await;
        within(ms(1_000), "its place is free", proxy.until_queued(0)).await;
    }
    // Nothing was spent: two of the three requests of this minute are left, and go to who still waits.
    line.send(fine()).await;
    assert_eq!(holder.answer().await.status(), 200);
    for _ in 0..2 {
        holder.send(post("next")).await;
        assert_eq!(within(ms(1_000), "the next call goes", line.request()).await.text(), "next");
        line.send(fine()).await;
        assert_eq!(holder.answer().await.status(), 200);
    }
    assert!(upstream.is_untouched().await, "nothing else was sent");
}

#[tokio::test]
async fn client_that_closes_while_it_waits_frees_its_place_and_spends_nothing() {
    leaves_the_queue(async |client| drop(client)).await;
}

#[tokio::test]
async fn client_that_resets_while_it_waits_frees_its_place_and_spends_nothing() {
    leaves_the_queue(async |client| client.reset()).await;
}

/// One byte behind a request was enough that nobody looked any more whether its client was there.
#[tokio::test]
async fn client_that_sends_more_and_leaves_frees_its_place_and_spends_nothing() {
    for more in ["\r\n".to_owned(), get("/v1/models", ""), "\0\0".to_owned()] {
        leaves_the_queue(async |mut client| {
            tokio::time::sleep(ms(20)).await; // not together with the request
            client.send(&more).await;
        })
        .await;
    }
}

#[tokio::test]
async fn client_that_closes_its_half_while_it_waits_frees_its_place() {
    leaves_the_queue(async |mut client| {
        tokio::io::AsyncWriteExt::shutdown(&mut client.reader().stream).await.unwrap();
        client.until_the_end().await;
    })
    .await;
}

#[tokio::test]
async fn slot_of_a_call_whose_client_left_goes_to_the_next() {
    let (proxy, upstream, mut line, holder) = busy(1_000).await;
    let mut waiting = proxy.client().await;
    waiting.send(post("waiting")).await;
    proxy.until_queued(1).await;
    drop(holder);
    within(ms(1_000), "the exchange is cut", line.gone()).await;
    let (mut line, request) = upstream.request().await;
    assert_eq!(request.text(), "waiting");
    line.send(fine()).await;
    assert_eq!(waiting.answer().await.status(), 200);
}

#[tokio::test]
async fn client_that_leaves_before_the_head_cuts_the_exchange() {
    for reset in [false, true] {
        for request in [post("{}"), get("/v1/models", "").into_bytes()] {
            let upstream = Upstream::start().await;
            let proxy = proxy(&upstream).start().await;
            let mut client = proxy.client().await;
            client.send(request).await;
            let (mut line, _) = upstream.request().await;
            if reset {
                client.reset()
            } else {
                drop(client)
            }
            within(ms(1_000), "the exchange is cut", line.gone()).await;
            proxy.until_metric("tidegate_in_flight", 0.0).await;
            proxy.until_metric("tidegate_disconnects_total{phase=\"client\",upstream=\"default\"}", 1.0).await;
        }
    }
}

#[tokio::test]
async fn client_that_leaves_in_the_middle_of_a_stream_cuts_the_exchange() {
    for reset in [false, true] {
        let upstream = Upstream::start().await;
        let proxy = proxy(&upstream).start().await;
        let mut client = proxy.client().await;
        client.send(post(r#"{"stream":true}"#)).await;
        let (mut line, _) = upstream.request().await;
        line.send(format!("{STREAM}{}", event("a"))).await;
        client.head().await;
        assert!(client.event().await.unwrap().contains("\"a\""));
        if reset {
            client.reset()
        } else {
            drop(client)
        }
        within(ms(1_000), "the exchange is cut", line.gone()).await;
        proxy.until_metric("tidegate_in_flight", 0.0).await;
    }
}

#[tokio::test]
async fn client_that_leaves_while_its_answer_is_held_back_cuts_the_exchange() {
    let upstream = Upstream::start().await;
    let proxy = proxy(&upstream).start().await;
    let mut client = proxy.client().await;
    client.send(post("{}")).await;
    let (mut line, _) = upstream.request().await;
    line.send("HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n{").await;
    drop(client);
    within(ms(1_000), "the exchange is cut", line.gone()).await;
}

#[tokio::test]
async fn client_that_leaves_while_its_call_backs_off_is_not_tried_again() {
    let upstream = Upstream::start().await;
    let proxy = proxy(&upstream).start().await;
    let mut client = proxy.client().await;
    client.send(post("{}")).await;
    let (mut line, _) = upstream.request().await;
    line.send("HTTP/1.1 503 Service Unavailable\r\nRetry-After: 3\r\nContent-Length: 0\r\n\r\n").await;
    proxy.until_metric("tidegate_retries_total{reason=\"status\"}", 1.0).await;
    drop(client);
    proxy.until_metric("tidegate_in_flight", 0.0).await;
    tokio::select! {
        head = line.reader().head() => assert!(head.is_err(), "tried again"),
        () = tokio::time::sleep(ms(3_300)) => {}
    }
    assert!(upstream.is_untouched().await);
}

/// A client that had read its whole answer and closed was counted as gone, whenever it was quicker than the news that the
/// exchange had ended.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn client_that_leaves_with_all_it_was_promised_was_served() {
    let upstream = Upstream::start().await;
    let proxy = proxy(&upstream).start().await;
    for _ in 0..20 {
        let mut client = proxy.client().await;
        client.send("POST /v1/files HTTP/1.1\r\nHost: t\r\nContent-Length: 4\r\n\r\nbody").await;
        let (mut line, _) = upstream.request().await;
        let fields = "Content-Type: text/plain\r\nConnection: close\r\n";
        line.send(answer("200 OK", fields, vec![b'x'; 70_000])).await;
        assert_eq!(client.answer().await.body.len(), 70_000);
        drop(client);
    }
    let ok = "tidegate_calls_total{outcome=\"ok\",priority=\"normal\",route=\"other\"}";
    proxy.until_metric(ok, 20.0).await;
}

/// Answers that nobody read were held outside of all bounds, half a megabyte each.
#[tokio::test]
async fn answer_that_is_not_read_pays_for_what_is_held_of_it() {
    let upstream = Upstream::start().await;
    let proxy = proxy(&upstream).start().await;
    let mut client = proxy.client().await;
    client.send("GET /v1/files/f/content HTTP/1.1\r\nHost: t\r\n\r\n").await;
    let (mut line, _) = upstream.request().await;
    line.send("HTTP/1.1 200 OK\r\nContent-Type: application/octet-stream\r\nContent-Length: 100000000\r\n\r\n").await;
    let flood = async { while line.try_send(&[7; 65_536]).await.is_ok() {} };
    tokio::select! {
        () = flood => unreachable!("the proxy reads on, or waits"),
        () = proxy.until_metric_reaches("tidegate_memory_bytes{kind=\"flights\"}", 65_536.0) => {}
    }
    drop(client);
    proxy.until_metric("tidegate_memory_bytes{kind=\"flights\"}", 0.0).await;
}

#[tokio::test]
async fn client_that_leaves_with_the_last_event_leaves_its_usage_known() {
    let upstream = Upstream::start().await;
    let proxy = proxy(&upstream).start().await;
    let mut client = proxy.client().await;
    client.send(post(r#"{"model":"m","stream":true}"#)).await;
    let (mut line, _) = upstream.request().await;
    let usage = "data: {\"choices\":[],\"usage\":{\"prompt_tokens\":7,\"completion_tokens\":11}}\n\n";
    let finish = finish();
    let (stop, _) = finish.split_at(finish.find("e\r\ndata: [DONE]").unwrap());
    // The provider is not done, as far as anybody can see: the last chunk is missing.
    line.send([STREAM, stop, &chunk(usage), &chunk("data: [DONE]\n\n")].concat()).await;
    client.head().await;
    while client.event().await.unwrap() != "data: [DONE]" {}
    drop(client);
    within(ms(1_000), "the exchange is cut", line.gone()).await;
    proxy.until_metric("tidegate_tokens_total{kind=\"completion\",upstream=\"default\"}", 11.0).await;
}
