//! Answers that come before the request has ended.

use crate::support::upstream::{answer, fine, json};
use crate::support::wire::Reader;
use crate::support::{Line, Proxy, Upstream, get, ms, post, proxy, within};

const HUGE: &str = "POST /v1/files HTTP/1.1\r\nHost: t\r\nContent-Length: 1073741824\r\n\r\n";
const CHUNKED: &str = "POST /v1/files HTTP/1.1\r\nHost: t\r\nTransfer-Encoding: chunked\r\n\r\n";
const LARGE: &str = "{\"error\":{\"message\":\"too large\"}}";

/// Uploads without end, as the head says, until there is an answer.
async fn upload(proxy: &Proxy, head: &str) -> (u16, String) {
    let (mut reader, mut writer) = proxy.client().await.split();
    writer.send(head).await;
    let part = if head == CHUNKED { ["ffff\r\n", &"x".repeat(65_535), "\r\n"].concat() } else { "x".repeat(65_536) };
    let uploading = async {
        while writer.try_send(part.as_bytes()).await {}
        std::future::pending::<()>().await;
    };
    let answer = async {
        let head = reader.head().await.unwrap();
        (head.status(), String::from_utf8(reader.body(&head, true).await.unwrap().bytes).unwrap())
    };
    tokio::select! {
        answer = within(ms(3_000), "the answer", answer) => answer,
        () = uploading => unreachable!(),
    }
}

/// The beginning of an upload, and its connection.
async fn begun(upstream: &Upstream) -> Line {
    let mut line = upstream.accept().await;
    line.head().await;
    line.reader().exactly(65_536).await.unwrap();
    line
}

#[tokio::test]
async fn refusal_of_an_upload_is_delivered_at_once() {
    for head in [HUGE, CHUNKED] {
        for closes in [true, false] {
            let upstream = Upstream::start().await;
            let proxy = proxy(&upstream).concurrency(1).start().await;
            let provider = async {
                let mut line = begun(&upstream).await;
                line.send(answer("413 Payload Too Large", "Content-Type: application/json\r\n", LARGE)).await;
                if closes {
                    line.fin().await;
                    return None;
                }
                Some(line) // which is neither read nor closed
            };
            let (line, seen) = tokio::join!(provider, upload(&proxy, head));
            assert_eq!(seen, (413, LARGE.to_owned()));
            // That connection cannot be used again; the slot can.
            let mut client = proxy.client().await;
            client.send(post("{}")).await;
            let (mut next, _) = upstream.request().await;
            next.send(fine()).await;
            assert_eq!(client.answer().await.status(), 200);
            drop(line);
        }
    }
}

#[tokio::test]
async fn refusal_of_a_large_call_is_judged_like_any_other() {
    let upstream = Upstream::start().await;
    let proxy = proxy(&upstream).start().await;
    let body = "x".repeat(16 << 20);
    let mut client = proxy.client().await;
    let provider = async {
        let mut line = begun(&upstream).await;
        line.send(answer("429 Too Many Requests", "retry-after-ms: 50\r\n", "{}")).await;
        let (mut line, request) = upstream.request().await;
        assert!(request.body == body.as_bytes());
        line.send(fine()).await;
    };
    let ((), seen) = tokio::join!(provider, client.ask(post(&body)));
    assert_eq!((seen.status(), seen.head.fields("x-tidegate-attempts")), (200, vec!["2".to_owned()]));
}

#[tokio::test]
async fn provider_that_answers_well_and_reads_on_gets_the_rest() {
    let upstream = Upstream::start().await;
    let proxy = proxy(&upstream).start().await;
    let body = "x".repeat(8 << 20);
    let mut client = proxy.client().await;
    let provider = async {
        let mut line = begun(&upstream).await;
        line.send("HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n").await;
        line.send(json("{\"ok\":1}")).await;
        line.reader().exactly(body.len() - 65_536).await.unwrap();
        line
    };
    let request = format!("POST /v1/files HTTP/1.1\r\nHost: t\r\nContent-Length: {}\r\n\r\n{body}", body.len());
    let (mut line, seen) = tokio::join!(provider, client.ask(request));
    assert_eq!((seen.status(), seen.text().as_str()), (200, "{\"ok\":1}"));
    // Both sides have had all of it: the client's connection is used again, but not one on which an answer overtook its
    // request.
    line.gone().await;
    client.send(get("/v1/models", "")).await;
    let (mut line, _) = upstream.request().await;
    line.send(fine()).await;
    assert_eq!(client.answer().await.status(), 200);
}

#[tokio::test]
async fn provider_that_is_lost_in_the_middle_of_an_upload_is_noticed_at_once() {
    let upstream = Upstream::start().await;
    let proxy = proxy(&upstream).start().await;
    let (reader, mut writer) = proxy.client().await.split();
    let mut reader: Reader<_> = reader;
    // The client pauses: nothing is being written when the provider goes.
    writer.send([HUGE.as_bytes(), &[0; 65_536]].concat()).await;
    begun(&upstream).await.fin().await;
    let head = within(ms(1_000), "the answer", reader.head()).await.unwrap();
    assert_eq!(head.status(), 502);
}

#[tokio::test]
async fn head_with_a_body_is_answered_without_one() {
    let upstream = Upstream::start().await;
    let proxy = proxy(&upstream).start().await;
    let mut client = proxy.client().await;
    client.send("HEAD /v1/files HTTP/1.1\r\nHost: t\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n").await;
    let (mut line, request) = upstream.request().await;
    assert_eq!(request.text(), "abc");
    line.send("HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n").await;
    let head = client.head().await;
    assert_eq!((head.status(), head.fields("content-length")), (200, vec!["1000".to_owned()]));
    proxy.until_metric("tidegate_in_flight", 0.0).await;
}
