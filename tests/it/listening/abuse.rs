//! Clients of HTTP/2 that keep no rule, and those beside them who notice nothing.

use h2::Reason;
use http::Method;

use super::{CHAT, answering, bare};
use crate::support::http2::{Http2, chat, get, request};
use crate::support::upstream::{STREAM, event, fine, json};
use crate::support::{Upstream, ms, proxy, within};

/// A client that opens streams and resets them at once, until it is shown the door.
async fn resets_rapidly(mut client: Http2) -> u32 {
    for count in 0..20_000 {
        let Ok(mut sending) = client.try_begin(chat(), false).await else { return count };
        sending.body.send_reset(Reason::CANCEL);
    }
    panic!("it was never shown the door");
}

#[tokio::test]
async fn client_that_resets_rapidly_is_shown_the_door_and_nobody_else_is_hurt() {
    let (proxy, mut upstream) = answering(fine(), |_| {}).await;
    let mut other = Http2::to(proxy.clients).await;
    assert_eq!(other.ask(chat(), CHAT).await.0, 200);
    upstream.request().await;
    let builder = {
        let mut builder = h2::client::Builder::new();
        builder.max_concurrent_reset_streams(100_000);
        builder
    };
    let flooding = resets_rapidly(Http2::with(&builder, bare(&proxy).await).await);
    let served = async {
        for _ in 0..5 {
            assert_eq!(within(ms(5_000), "another is served", other.ask(chat(), CHAT)).await.0, 200);
        }
    };
    let (streams, ()) = tokio::join!(flooding, served);
    proxy.until_metric("tidegate_connections", 1.0).await;
    proxy.until_metric("tidegate_memory_bytes{kind=\"bodies\"}", 0.0).await;
    for _ in 0..5 {
        upstream.request().await;
    }
    assert_eq!(upstream.unseen(), 0, "{streams} streams without a body sent nothing");
}

#[tokio::test]
async fn malformed_streams_are_refused_one_by_one_until_there_are_too_many() {
    let (proxy, mut upstream) = answering(json("[]"), |_| {}).await;
    let mut client = Http2::to(proxy.clients).await;
    let malformed = || request(Method::GET, "/v1/models").header("host", "a").header("host", "b").body(()).unwrap();
    for _ in 0..32 {
        let sending = client.begin(malformed(), true).await;
        assert_eq!(sending.answer().await.unwrap().status, 400);
    }
    // A sound one between them is served.
    assert_eq!(client.begin(get("/v1/models"), true).await.whole().await.0, 200);
    drop(client.begin(malformed(), true).await.answer().await);
    within(ms(3_000), "the close", async { drop(client.until_the_end().await) }).await;
    assert_eq!(Http2::to(proxy.clients).await.begin(get("/v1/models"), true).await.whole().await.0, 200);
    assert_eq!((upstream.request().await.head.fields("host").len(), upstream.unseen()), (1, 1));
}

#[tokio::test]
async fn slow_reader_is_cut_after_write_timeout_and_other_streams_of_it_go_on() {
    let upstream = Upstream::start().await;
    let proxy = proxy(&upstream).set(|settings| settings.server.write_timeout = ms(300)).start().await;
    let mut client = Http2::to(proxy.clients).await;
    let sending = client.begin(get("/v1/files/f/content"), true).await;
    let (mut line, _) = upstream.request().await;
    line.send("HTTP/1.1 200 OK\r\nContent-Type: application/octet-stream\r\nContent-Length: 1000000000\r\n\r\n").await;
    let mut unread = sending.answer().await.unwrap();
    let piece = vec![b'x'; 1 << 20];
    let flooding = async { while line.try_send(&piece).await.is_ok() {} };
    within(ms(8_000), "the exchange is cut", flooding).await;
    // Its stream has 64 KiB of window, and the connection as much, so that others need what it has not taken.
    while let Some(Ok(_)) = unread.next().await {}
    let next = client.send(chat(), r#"{"stream":true}"#).await;
    let (mut line, _) = upstream.request().await;
    line.send(format!("{STREAM}{}", event("a"))).await;
    assert!(next.answer().await.unwrap().text().await.unwrap().contains("\"a\""));
}

#[tokio::test]
async fn client_that_never_reads_its_socket_is_gone_after_its_time_limits() {
    let upstream = Upstream::start().await;
    let times = |settings: &mut tidegate::config::Settings| {
        settings.server.write_timeout = ms(300);
        settings.server.idle_timeout = ms(300);
    };
    let proxy = proxy(&upstream).set(times).start().await;
    let (near, mut far) = tokio::io::duplex(1 << 20);
    // A window so large that only the socket can stop the answer, and a socket that nobody reads.
    let mut builder = h2::client::Builder::new();
    builder.initial_window_size(1 << 30).initial_connection_window_size(1 << 30);
    let socket = bare(&proxy).await;
    let (mut socket_in, mut socket_out) = socket.into_split();
    let carrying = tidegate::time::Tasks::default().spawn(async move {
        let (mut far_in, mut far_out) = tokio::io::split(&mut far);
        // The proxy's settings have to come through, what follows has not.
        let mut first = [0; 256];
        let read = tokio::io::AsyncReadExt::read(&mut socket_in, &mut first).await.unwrap();
        tokio::io::AsyncWriteExt::write_all(&mut far_out, &first[..read]).await.unwrap();
        drop(tokio::io::copy(&mut far_in, &mut socket_out).await);
        std::future::pending::<()>().await;
        drop(socket_in);
    });
    let mut client = Http2::with(&builder, near).await;
    let _unread = client.begin(get("/v1/files/f/content"), true).await;
    let (mut line, _) = upstream.request().await;
    line.send("HTTP/1.1 200 OK\r\nContent-Type: application/octet-stream\r\nContent-Length: 1000000000\r\n\r\n").await;
    let piece = vec![b'x'; 1 << 20];
    let flooding = async { while line.try_send(&piece).await.is_ok() {} };
    within(ms(8_000), "the exchange is cut", flooding).await;
    within(ms(8_000), "the connection goes", proxy.until_metric("tidegate_connections", 0.0)).await;
    carrying.abort();
}
