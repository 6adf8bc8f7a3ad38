//! How streams and connections of HTTP/2 end, and who notices.

use h2::Reason;
use tokio::io::AsyncWriteExt;

use super::{CHAT, WIRES, answering, bare};
use crate::support::http2_client::{Http2, chat, get};
use crate::support::process::{Process, tidegate};
use crate::support::upstream::{STREAM, chunk, event, fine, finish, json};
use crate::support::{Client, Upstream, ms, post, proxy, soon, within};

#[tokio::test]
async fn stream_that_is_reset_while_it_waits_frees_its_place_and_the_others_go_on() {
    for wire in WIRES {
        let upstream = Upstream::start().await;
        let house = wire.proxy(proxy(&upstream).concurrency(1).requests(2, ms(60_000))).await;
        let mut client = house.client().await;
        let holder = client.send(chat(), r#"{"stream":true}"#).await;
        let (mut line, _) = upstream.request().await;
        line.send(format!("{STREAM}{}", event("a"))).await;
        let mut holder = holder.answer().await.unwrap();
        holder.text().await.unwrap();
        for _ in 0..5 {
            let waiting = client.send(chat(), "waiting").await;
            house.proxy.until_queued(1).await;
            waiting.reset();
            within(ms(1_000), "its place is free", house.proxy.until_queued(0)).await;
            line.send(event("b")).await;
            assert!(holder.text().await.unwrap().contains("\"b\""), "{wire:?}");
        }
        line.send(finish()).await;
        holder.rest().await.unwrap();
        // Nothing was spent on the five: one of the two requests of this minute is left.
        let last = client.send(chat(), "last").await;
        assert_eq!(within(ms(1_000), "the last call goes", line.request()).await.text(), "last");
        line.send(fine()).await;
        assert_eq!(last.whole().await.0, 200);
        assert!(upstream.is_untouched().await, "{wire:?}");
    }
}

#[tokio::test]
async fn stream_that_is_reset_while_it_runs_cuts_its_exchange_and_no_other() {
    for begun in [false, true] {
        let upstream = Upstream::start().await;
        let proxy = proxy(&upstream).start().await;
        let mut client = Http2::to(proxy.clients).await;
        let other = client.send(chat(), r#"{"stream":true}"#).await;
        let (mut others, _) = upstream.request().await;
        others.send(format!("{STREAM}{}", event("a"))).await;
        let mut other = other.answer().await.unwrap();
        other.text().await.unwrap();

        let leaving = client.send(chat(), r#"{"stream":true}"#).await;
        let (mut line, _) = upstream.request().await;
        if begun {
            line.send(format!("{STREAM}{}", event("a"))).await;
            let mut coming = leaving.answer().await.unwrap();
            coming.text().await.unwrap();
            drop(coming); // that is a reset, too
        } else {
            leaving.reset();
        }
        within(ms(1_000), "the exchange is cut", line.gone()).await;
        others.send(event("b")).await;
        assert!(other.text().await.unwrap().contains("\"b\""));
        others.send(finish()).await;
        other.rest().await.unwrap();
        proxy.until_metric("tidegate_in_flight", 0.0).await;
    }
}

#[tokio::test]
async fn connection_that_is_lost_cuts_all_its_exchanges() {
    let upstream = Upstream::start().await;
    let proxy = proxy(&upstream).concurrency(2).start().await;
    let mut client = Http2::to(proxy.clients).await;
    let mut sent = Vec::new();
    for _ in 0..3 {
        sent.push(client.send(chat(), CHAT).await);
    }
    let ((mut first, _), (mut second, _)) = (upstream.request().await, upstream.request().await);
    proxy.until_queued(1).await;
    drop((client, sent));
    within(ms(1_000), "the exchanges are cut", async { tokio::join!(first.gone(), second.gone()) }).await;
    proxy.until_metric("tidegate_in_flight", 0.0).await;
    assert!(upstream.is_untouched().await, "the third was never sent");
}

#[tokio::test]
async fn cut_answer_ends_with_a_reset_and_never_looks_complete() {
    for framing in ["Content-Length: 5000000", "Transfer-Encoding: chunked"] {
        let upstream = Upstream::start().await;
        let proxy = proxy(&upstream).start().await;
        let mut client = Http2::to(proxy.clients).await;
        let sending = client.begin(get("/v1/files/f/content"), true).await;
        let (mut line, _) = upstream.request().await;
        line.send(format!("HTTP/1.1 200 OK\r\nContent-Type: audio/mpeg\r\n{framing}\r\n\r\n5\r\nabcde\r\n")).await;
        let mut coming = sending.answer().await.unwrap();
        coming.next().await.unwrap().unwrap();
        line.reset();
        let error = coming.rest().await.unwrap_err();
        assert!(error.is_reset() && error.is_remote(), "{framing}: {error}");
        assert_ne!(error.reason(), Some(Reason::NO_ERROR), "{framing}");
    }
}

#[tokio::test]
async fn broken_event_stream_ends_with_an_error_event_and_cleanly() {
    let upstream = Upstream::start().await;
    let proxy = proxy(&upstream).start().await;
    let mut client = Http2::to(proxy.clients).await;
    let sending = client.send(chat(), r#"{"stream":true}"#).await;
    let (mut line, _) = upstream.request().await;
    line.send(format!("{STREAM}{}", event("a"))).await;
    let mut coming = sending.answer().await.unwrap();
    coming.text().await.unwrap();
    line.send(chunk("data: {\"half")).await;
    line.reset();
    let rest = String::from_utf8(coming.rest().await.unwrap()).unwrap();
    assert!(rest.starts_with("data: {\"error\"") && rest.contains("upstream_disconnected"), "{rest}");
    assert!(!rest.contains("half") && rest.ends_with("\n\n"), "{rest}");
}

#[tokio::test]
async fn idle_connection_is_told_and_closed_after_idle_timeout_but_not_while_a_call_runs() {
    for wire in WIRES {
        let upstream = Upstream::start().await;
        let house = wire.proxy(proxy(&upstream).set(|settings| settings.server.idle_timeout = ms(300))).await;
        let mut client = house.client().await;
        let sending = client.send(chat(), CHAT).await;
        let (mut line, _) = upstream.request().await;
        tokio::time::sleep(ms(700)).await;
        let since = tidegate::time::now();
        line.send(fine()).await;
        assert_eq!(sending.whole().await.0, 200, "{wire:?}");
        let (said, ended) = within(ms(5_000), "the close", client.until_the_end()).await;
        assert!(since.elapsed() >= ms(280), "{wire:?}: {:?}", since.elapsed());
        assert_eq!((said, ended.is_ok()), (Some(Reason::NO_ERROR), true), "{wire:?}: {ended:?}");
        house.proxy.until_metric("tidegate_connections", 0.0).await;
    }
}

#[tokio::test]
async fn drain_is_told_and_lets_streams_finish_to_the_last_byte() {
    for wire in WIRES {
        let upstream = Upstream::start().await;
        let house = wire.proxy(proxy(&upstream).concurrency(1)).await;
        let mut client = house.client().await;
        let streaming = client.send(chat(), r#"{"stream":true}"#).await;
        let (mut line, _) = upstream.request().await;
        line.send(format!("{STREAM}{}", event("a"))).await;
        let mut streaming = streaming.answer().await.unwrap();
        streaming.text().await.unwrap();
        let waiting = client.send(chat(), CHAT).await;
        house.proxy.until_queued(1).await;
        let drain = "POST /admin/v1/drain HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n\r\n";
        let asked = Client::to(house.proxy.admin).await.ask(drain).await;
        assert!((200..300).contains(&asked.status()), "{asked:?}");
        soon("the client is told to open no more streams", async {
            while client.try_begin(get("/v1/models"), true).await.is_ok() {
                tokio::time::sleep(ms(5)).await;
            }
        })
        .await;
        line.send(event("b")).await;
        assert!(streaming.text().await.unwrap().contains("\"b\""));
        line.send(finish()).await;
        let rest = String::from_utf8(streaming.rest().await.unwrap()).unwrap();
        assert!(rest.ends_with("data: [DONE]\n\n"), "{wire:?}: {rest}");
        let mut line = upstream.request_on_any(line).await;
        line.send(json("\"last\"")).await;
        assert_eq!(waiting.whole().await.2, b"\"last\"", "{wire:?}");
        let (said, ended) = client.until_the_end().await;
        assert_eq!((said, ended.is_ok()), (Some(Reason::NO_ERROR), true), "{wire:?}: {ended:?}");
    }
}

#[tokio::test]
async fn idle_connection_of_http_2_makes_room_for_a_new_one_and_a_busy_one_does_not() {
    let (proxy, _upstream) = answering(fine(), |settings| settings.server.connections_max = 2).await;
    let mut idle = Http2::to(proxy.clients).await;
    assert_eq!(idle.ask(chat(), CHAT).await.0, 200);
    let mut second = Http2::to(proxy.clients).await;
    assert_eq!(second.ask(chat(), CHAT).await.0, 200);
    tokio::time::sleep(ms(100)).await; // one idles when its last bytes have left, which is looked at now and then
    assert_eq!(Client::to(proxy.clients).await.ask(post(CHAT)).await.status(), 200);
    let (said, _) = within(ms(3_000), "the close", idle.until_the_end()).await;
    assert_eq!(said, Some(Reason::NO_ERROR));
    assert_eq!(second.ask(chat(), CHAT).await.0, 200);
}

#[tokio::test]
async fn idle_connection_that_does_not_listen_makes_room_all_the_same() {
    let (proxy, _upstream) = answering(fine(), |settings| settings.server.connections_max = 1).await;
    let mut deaf = bare(&proxy).await;
    deaf.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0").await.unwrap();
    deaf.readable().await.unwrap(); // it is HTTP/2 by now
    assert_eq!(Client::to(proxy.clients).await.ask(post(CHAT)).await.status(), 200);
}

#[tokio::test]
async fn process_that_ends_has_sent_the_last_byte_of_each_stream() {
    for _ in 0..5 {
        let (upstream, state) = (Upstream::start().await, tempfile::tempdir().unwrap());
        let ports = ["--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0"];
        let serve = ["serve", "--upstream", &upstream.base_url(), "--state-dir", state.path().to_str().unwrap()];
        let mut process = Process::spawn(tidegate(&[&serve[..], &ports[..]].concat())).await;
        let mut client = Http2::to(process.clients).await;
        let sending = client.send(chat(), r#"{"stream":true}"#).await;
        let (mut line, _) = upstream.request().await;
        line.send(format!("{STREAM}{}", event("a"))).await;
        let mut coming = sending.answer().await.unwrap();
        coming.text().await.unwrap();
        process.signal("TERM");
        process.says("draining").await;
        line.send(finish()).await;
        let rest = String::from_utf8(coming.rest().await.expect("a proper end")).unwrap();
        assert!(rest.ends_with("data: [DONE]\n\n"), "{rest}");
        assert_eq!(within(ms(3_000), "the end", process.ended()).await.code(), Some(0));
    }
}
