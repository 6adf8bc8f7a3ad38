//! How long a connection of HTTP/1.1 may take, and for what; what it is told before it is closed.

use tokio::io::AsyncWriteExt;

use super::{CHAT, answering, bare};
use crate::support::client::post_to;
use crate::support::upstream::{fine, json};
use crate::support::wire::{End, Reader};
use crate::support::{Upstream, get, ms, post, proxy, soon, within};

/// The limit in these tests, and what may be added to it.
const LIMIT: u64 = 500;
const AT_MOST: u64 = 5_000;
/// A limit that binds those, too, who do as they should.
const LONG_LIMIT: u64 = 1_500;

#[tokio::test]
async fn connection_that_begins_and_stalls_is_closed_within_header_timeout() {
    let (proxy, mut upstream) = answering(fine(), |settings| settings.server.header_timeout = ms(LIMIT)).await;
    // Of HTTP/2 it is told that, and then has a moment to agree.
    let whole_preface = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
    for begun in
        ["", "P", "PRI * HT", whole_preface, "\r\n", "GET /v1/models HTT", "GET /v1/models HTTP/1.1\r\nHost: t\r\n"]
    {
        let since = tidegate::time::now();
        let mut stream = bare(&proxy).await;
        stream.write_all(begun.as_bytes()).await.unwrap();
        let (bytes, _) =
            within(ms(AT_MOST), &format!("{begun:?} is closed"), Reader::new(stream).until_the_end()).await;
        assert!(since.elapsed() >= ms(LIMIT - 50), "{begun:?}: {:?}", since.elapsed());
        if begun != whole_preface {
            assert_eq!(bytes, b"", "{begun:?}");
        }
    }
    proxy.until_metric("tidegate_connections", 0.0).await;
    assert_eq!(upstream.unseen(), 0);
}

#[tokio::test]
async fn kept_connection_that_sends_half_a_head_has_header_timeout_for_the_rest() {
    let times = |settings: &mut tidegate::config::Settings| {
        settings.server.header_timeout = ms(LONG_LIMIT);
        settings.server.idle_timeout = ms(60_000);
    };
    let (proxy, _upstream) = answering(fine(), times).await;
    let mut client = proxy.client().await;
    for _ in 0..2 {
        assert_eq!(client.ask(post(CHAT)).await.status(), 200);
        tokio::time::sleep(ms(LONG_LIMIT + 300)).await; // idling is not bound by it
    }
    let since = tidegate::time::now();
    client.send("GET /v1/models HTTP/1.1\r\nHo").await;
    assert_eq!(within(ms(AT_MOST), "the close", client.until_the_end()).await.0, b"");
    assert!(since.elapsed() >= ms(LONG_LIMIT - 50), "{:?}", since.elapsed());
}

#[tokio::test]
async fn request_that_comes_byte_by_byte_is_served() {
    let (proxy, mut upstream) = answering(fine(), |_| {}).await;
    let mut stream = bare(&proxy).await;
    for request in [get("/v1/models", "").into_bytes(), post(CHAT)] {
        for byte in &request {
            stream.write_all(&[*byte]).await.unwrap();
            stream.flush().await.unwrap();
            tokio::task::yield_now().await;
        }
        let mut reader = Reader::new(&mut stream);
        let head = reader.head().await.unwrap();
        assert_eq!(head.status(), 200);
        reader.body(&head, true).await.unwrap();
        let seen = upstream.request().await;
        assert!(request.starts_with(seen.head.first_line().as_bytes()));
    }
}

#[tokio::test]
async fn second_request_that_comes_while_the_first_waits_is_served_after_it() {
    let upstream = Upstream::start().await;
    let proxy = proxy(&upstream).concurrency(1).start().await;
    let mut holder = proxy.client().await;
    holder.send(post("holder")).await;
    let (mut line, _) = upstream.request().await;
    let mut client = proxy.client().await;
    client.send(post("first")).await;
    proxy.until_queued(1).await;
    client.send(post("second")).await;
    client.send(post_to("/v1/embeddings", "Connection: close\r\n", "third")).await;
    line.send(fine()).await;
    assert_eq!(holder.answer().await.status(), 200);
    for word in ["first", "second", "third"] {
        let request = line.request().await;
        assert_eq!(request.text(), word);
        line.send(json(&format!("\"{word}\""))).await;
        assert_eq!(client.answer().await.text(), format!("\"{word}\""));
    }
    assert_eq!(client.until_the_end().await, (Vec::new(), End::Fin));
}

#[tokio::test]
async fn client_that_still_sends_reads_its_refusal_before_the_connection_ends() {
    let times = |settings: &mut tidegate::config::Settings| {
        settings.server.body_max = 64 << 10;
        settings.server.body_timeout = ms(LIMIT);
    };
    let (proxy, mut upstream) = answering(fine(), times).await;
    let head = |fields: &str| format!("POST /v1/embeddings HTTP/1.1\r\nHost: t\r\n{fields}\r\n");
    let piece = vec![b'x'; 64 << 10];
    for (status, begun, flood) in [
        (413, head("Content-Length: 100000000\r\n"), true),
        (431, head(&format!("X-Long: {}\r\nContent-Length: 10000000\r\n", "v".repeat(65 << 10))), true),
        (400, head("Content-Length: 10\r\nTransfer-Encoding: chunked\r\n"), true),
        (408, head("Content-Length: 1000\r\n"), false),
    ] {
        let (mut reader, mut writer) = proxy.client().await.split();
        let sending = async {
            if !writer.try_send(begun.as_bytes()).await {
                return;
            }
            while flood && writer.try_send(&piece).await {}
        };
        let reading = async {
            let head = reader.head().await.expect("a head");
            (head.status(), reader.body(&head, true).await.expect("a whole body").bytes)
        };
        let ((), (seen, body)) = soon("the refusal", async { tokio::join!(sending, reading) }).await;
        assert_eq!(seen, status, "{}", String::from_utf8_lossy(&body));
        within(ms(5_000), "the end", reader.until_the_end()).await;
    }
    assert_eq!(upstream.unseen(), 0);
    proxy.until_metric("tidegate_connections", 0.0).await;
}

#[tokio::test]
async fn newcomers_who_were_turned_away_cost_the_connection_that_served_meanwhile_nothing() {
    let upstream = Upstream::start().await;
    let proxy = proxy(&upstream).set(|settings| settings.server.connections_max = 1).start().await;
    let mut first = proxy.client().await;
    first.send(post(CHAT)).await;
    let (mut line, _) = upstream.request().await;
    for _ in 0..3 {
        let mut second = proxy.client().await;
        assert_eq!(second.answer().await.status(), 503);
    }
    line.send(fine()).await;
    assert_eq!(first.answer().await.status(), 200);
    tokio::time::sleep(ms(300)).await; // nobody wants its room any more
    first.send(post(CHAT)).await;
    let mut line = upstream.request_on_any(line).await;
    line.send(fine()).await;
    assert_eq!(first.answer().await.status(), 200);
}

#[tokio::test]
async fn client_that_leaves_after_pipelining_frees_its_place() {
    let upstream = Upstream::start().await;
    let proxy = proxy(&upstream).concurrency(1).start().await;
    let mut holder = proxy.client().await;
    holder.send(post("holder")).await;
    let (_line, _) = upstream.request().await;
    for reset in [false, true] {
        let mut client = proxy.client().await;
        client.send([post("first"), post("second")].concat()).await;
        proxy.until_queued(1).await;
        if reset {
            client.reset()
        } else {
            drop(client)
        }
        within(ms(1_000), "its place is free", proxy.until_queued(0)).await;
    }
}
