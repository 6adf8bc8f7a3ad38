//! Clients of HTTP/2 that keep no rule, and those beside them who notice nothing.

use http::Method;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::{CHAT, answering, bare};
use crate::support::http2_client::{Http2, chat, get, request};
use crate::support::upstream::{STREAM, event, fine, json};
use crate::support::{Upstream, ms, proxy, within};

const ENHANCE_YOUR_CALM: u32 = 0xb;

/// A frame (RFC 9113, section 4.1).
fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// The head of a call in HPACK, without any compression.
fn head(path: &str) -> Vec<u8> {
    let length = u8::try_from(path.len()).unwrap();
    [&[0x83, 0x86, 0x04, length], path.as_bytes(), &[0x01, 0x01, b't']].concat()
}

/// Opens streams and resets them at once, until it is shown the door: how many, and what it was told.
async fn resets_rapidly(stream: TcpStream, head: &[u8], ends: bool) -> (u32, Option<u32>) {
    const STREAMS: u32 = 50_000;
    let (mut reading, mut writing) = stream.into_split();
    let begun = [b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", &frame(4, 0, 0, &[])[..]].concat();
    writing.write_all(&begun).await.unwrap();
    let flooding = async {
        for count in 0..STREAMS {
            let pair = [frame(1, 4 | u8::from(ends), 2 * count + 1, head), frame(3, 0, 2 * count + 1, &[0, 0, 0, 8])];
            if writing.write_all(&pair.concat()).await.is_err() {
                return count;
            }
        }
        STREAMS
    };
    let mut heard = Vec::new();
    let hearing = async { drop(reading.read_to_end(&mut heard).await) };
    let (count, ()) = within(ms(20_000), "the flood is over", async { tokio::join!(flooding, hearing) }).await;
    assert!(count < STREAMS, "it was never shown the door");
    let (mut told, mut rest) = (None, &heard[..]);
    while rest.len() >= 9 {
        let length = usize::from(rest[0]) << 16 | usize::from(rest[1]) << 8 | usize::from(rest[2]);
        if rest[3] == 7 && rest.len() >= 17 {
            told = Some(u32::from_be_bytes(rest[13..17].try_into().unwrap()));
        }
        rest = rest.get(9 + length..).unwrap_or_default();
    }
    (count, told)
}

#[tokio::test]
async fn client_that_resets_rapidly_is_shown_the_door_and_nobody_else_is_hurt() {
    let (proxy, mut upstream) = answering(fine(), |_| {}).await;
    let mut other = Http2::to(proxy.clients).await;
    assert_eq!(other.ask(chat(), CHAT).await.0, 200);
    upstream.request().await;
    for ends in [false, true] {
        let head = head("/v1/chat/completions");
        let flooding = resets_rapidly(bare(&proxy).await, &head, ends);
        let served = async {
            for _ in 0..5 {
                assert_eq!(within(ms(5_000), "another is served", other.ask(chat(), CHAT)).await.0, 200);
            }
        };
        let ((streams, told), ()) = tokio::join!(flooding, served);
        // It may be closed before it hears why.
        assert!(matches!(told, None | Some(ENHANCE_YOUR_CALM)), "{told:?}");
        proxy.until_metric("tidegate_connections", 1.0).await;
        proxy.until_metric("tidegate_in_flight", 0.0).await;
        proxy.until_metric("tidegate_memory_bytes{kind=\"bodies\"}", 0.0).await;
        let sent = upstream.unseen();
        println!(
            "ends: {ends}; {streams} streams, told {told:?}; the upstream saw {sent} requests, 5 of them another's"
        );
        assert!((5..105).contains(&sent), "{sent}");
    }
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
        // The proxy's settings have to come through; what follows does not.
        let hearing = async {
            let mut first = [0; 64];
            let read = socket_in.read(&mut first).await.unwrap();
            far_out.write_all(&first[..read]).await.unwrap();
            std::future::pending::<()>().await;
        };
        drop(tokio::join!(hearing, tokio::io::copy(&mut far_in, &mut socket_out)));
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
