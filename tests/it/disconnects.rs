//! A client that leaves costs nothing, and nobody works for it any longer.

use crate::support::upstream::{STREAM, event, fine};
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
            proxy.until_metric("tidegate_disconnects_total{phase=\"client\"}", 1.0).await;
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
    line.send("HTTP/1.1 503 Service Unavailable\r\nRetry-After: 1\r\nContent-Length: 0\r\n\r\n").await;
    proxy.until_metric("tidegate_retries_total{reason=\"status\"}", 1.0).await;
    drop(client);
    proxy.until_metric("tidegate_in_flight", 0.0).await;
    tokio::select! {
        head = line.reader().head() => assert!(head.is_err(), "tried again"),
        () = tokio::time::sleep(ms(1_300)) => {}
    }
    assert!(upstream.is_untouched().await);
}
