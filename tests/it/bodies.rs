//! Bodies go through unchanged, both ways, whatever they are.

use crate::support::client::post_to;
use crate::support::upstream::{answer, fine, json};
use crate::support::wire::End;
use crate::support::{Step, Upstream, get, ms, post, proxy, soon};

use Step::{Read, Reset, Send};

/// Bytes that look like nothing, the same for each length.
fn noise(length: usize) -> Vec<u8> {
    let mut random = fastrand::Rng::with_seed(7);
    std::iter::repeat_with(|| random.u8(b' '..b'~')).take(length).collect()
}

#[tokio::test]
async fn body_over_body_max_gets_413_and_the_connection_serves_the_next() {
    let upstream = Upstream::start().await;
    let proxy = proxy(&upstream).start().await;
    let mut upstream = upstream.script([vec![Read, Send(fine())]]);
    let mut client = proxy.client().await;
    let refused = client.ask(post(vec![b'x'; 33 << 20])).await;
    assert_eq!((refused.status(), refused.error_code().as_str()), (413, "request_too_large"));
    assert!(refused.text().contains("server.body_max"), "{}", refused.text());
    assert_eq!(client.ask(post("{}")).await.status(), 200);
    assert_eq!(upstream.request().await.text(), "{}");
    assert_eq!(upstream.unseen(), 0);
}

#[tokio::test]
async fn client_that_never_stops_sending_reads_its_413_all_the_same() {
    let upstream = Upstream::start().await;
    let proxy = proxy(&upstream).set(|settings| settings.server.body_max = 64 << 10).start().await;
    for framing in ["Content-Length: 100000000", "Transfer-Encoding: chunked"] {
        let client = proxy.client().await;
        let (mut reader, mut writer) = client.split();
        writer.send(format!("POST /v1/embeddings HTTP/1.1\r\nHost: t\r\n{framing}\r\n\r\n")).await;
        let piece = [b"10000\r\n", vec![b'x'; 0x10000].as_slice(), b"\r\n"].concat();
        let sending = async { while writer.try_send(&piece).await {} };
        let reading = async {
            let head = reader.head().await.expect("a head");
            let body = reader.body(&head, true).await.expect("a body").bytes;
            (head.status(), String::from_utf8(body).expect("text"))
        };
        let ((), (status, body)) = soon("the refusal", async { tokio::join!(sending, reading) }).await;
        assert_eq!(status, 413, "{framing}");
        assert!(body.contains("request_too_large"), "{framing}: {body}");
    }
}

#[tokio::test]
async fn body_of_20_mb_goes_through_unchanged() {
    let upstream = Upstream::start().await;
    let proxy = proxy(&upstream).start().await;
    let body = noise(20 << 20);
    let echo = answer("200 OK", "Content-Type: application/octet-stream\r\n", &body);
    let mut upstream = upstream.script([vec![Read, Send(echo)]]);
    let answer = proxy.client().await.ask(post(&body)).await;
    assert_eq!(blake3::hash(&upstream.request().await.body), blake3::hash(&body));
    assert_eq!(blake3::hash(&answer.body), blake3::hash(&body));
}

#[tokio::test]
async fn body_arrives_twice_identical_when_the_first_try_is_reset() {
    let upstream = Upstream::start().await;
    let proxy = proxy(&upstream).start().await;
    let mut upstream = upstream.script([vec![Read, Reset], vec![Read, Send(fine())]]);
    let body = noise(100 << 10);
    let answer = proxy.client().await.ask(post_to("/v1/chat/completions?a=b", "X-Kept: 1\r\n", &body)).await;
    assert_eq!((answer.status(), answer.head.field("x-tidegate-attempts").as_deref()), (200, Some("2")));
    let (first, second) = (upstream.request().await, upstream.request().await);
    assert_eq!(first.head, second.head);
    assert!(first.body == body && second.body == body);
}

#[tokio::test]
async fn json_is_never_written_anew() {
    let body = "{ \"z\":1,\t\"model\" : \"m\", \"unknown\": {\"b\":null,\"a\":[ ]},\r\n \"big\":123456789012345678901234567890, \
                \"e\":1E400, \"twice\":1, \"twice\":2, \"text\":\"\\u00e9\\/é\" }\n\n";
    let reply = "{\"z\":9007199254740993, \"a\" :1.10,\"a\":2}\n";
    let upstream = Upstream::start().await;
    let proxy = proxy(&upstream).start().await;
    let mut upstream = upstream.script([vec![Read, Send(json(reply)), Read, Send(json(reply))]]);
    let mut client = proxy.client().await;
    for body in [body, "this is no JSON \u{0}"] {
        assert_eq!(client.ask(post(body)).await.text(), reply);
        assert_eq!(upstream.request().await.text(), body);
    }
}

#[tokio::test]
async fn encoded_answers_are_passed_on_encoded() {
    let gzip = [&[0x1f, 0x8b, 8, 0][..], &noise(5_000)].concat();
    for kind in ["application/json", "text/event-stream"] {
        let upstream = Upstream::start().await;
        let proxy = proxy(&upstream).start().await;
        let fields = format!("Content-Type: {kind}\r\nContent-Encoding: gzip\r\nVary: Accept-Encoding\r\n");
        let mut upstream = upstream.script([vec![Read, Send(answer("200 OK", &fields, &gzip))]]);
        let asked = post_to("/v1/chat/completions", "Accept-Encoding: gzip, br\r\n", "{}");
        let answer = proxy.client().await.ask(asked).await;
        assert_eq!(upstream.request().await.head.fields("accept-encoding"), ["gzip, br"]);
        assert!(answer.body == gzip, "{kind}");
        assert_eq!(answer.head.fields("content-encoding"), ["gzip"]);
        assert_eq!(answer.head.fields("vary"), ["Accept-Encoding"]);
    }
}

#[tokio::test]
async fn every_method_path_and_query_goes_through_and_so_does_every_status() {
    let upstream = Upstream::start().await;
    let proxy = proxy(&upstream).start().await;
    let (mut client, mut line) = (proxy.client().await, None);
    for (method, target, status) in [
        ("GET", "/v1/models?limit=2&after=a%2Fb&x=&x", "200 OK"),
        ("POST", "/v1/brand/new?%7B=1", "201 Created"),
        ("PATCH", "/v1/threads/t", "202 Accepted"),
        ("PUT", "/anything/else?q=/v1/", "418 I'm a teapot"),
        ("DELETE", "/v1/files/f", "404 Not Found"),
        ("OPTIONS", "*", "200 OK"),
        ("PROPFIND", "/v1/models", "405 Method Not Allowed"),
        ("GET", "/v1/old", "307 Temporary Redirect"),
        ("POST", "/v1/chat/completions", "301 Moved Permanently"),
        ("POST", "/v1/chat/completions", "422 Unprocessable Entity"),
    ] {
        let fields = "Location: https://elsewhere/v1/new\r\n";
        client.send(format!("{method} {target} HTTP/1.1\r\nHost: t\r\nContent-Length: 0\r\n\r\n")).await;
        let mut now = match line.take() {
            None => upstream.accept().await,
            Some(line) => line,
        };
        // An upload always has a connection of its own.
        let head = tokio::select! {
            head = now.reader().head() => head.expect("a head"),
            mut fresh = upstream.accept() => {
                let head = fresh.head().await;
                now = fresh;
                head
            }
        };
        assert_eq!(head.first_line(), format!("{method} {target} HTTP/1.1"));
        now.send(answer(status, fields, "as it is")).await;
        let seen = client.answer().await;
        assert!(status.starts_with(&seen.status().to_string()), "{method} {target}");
        assert_eq!((seen.text().as_str(), seen.head.fields("location").len()), ("as it is", 1));
        line = Some(now);
    }
}

#[tokio::test]
async fn upload_streams_before_its_last_bytes_were_sent() {
    let upstream = Upstream::start().await;
    let proxy = proxy(&upstream).set(|settings| settings.server.body_max = 1_024).start().await;
    let mut client = proxy.client().await;
    let (first, last) = (noise(100_000), noise(50_000));
    let head = "POST /v1/files HTTP/1.1\r\nHost: t\r\nContent-Type: multipart/form-data; boundary=b\r\n";
    client.send(format!("{head}Content-Length: 150000\r\n\r\n")).await;
    client.send(&first).await;
    let mut line = upstream.accept().await;
    let head = line.head().await;
    assert_eq!(head.fields("content-length"), ["150000"]);
    assert_eq!(head.fields("content-type"), ["multipart/form-data; boundary=b"]);
    assert!(line.reader().exactly(100_000).await.unwrap() == first);
    client.send(&last).await;
    assert!(line.reader().exactly(50_000).await.unwrap() == last);
    line.send(json("{}")).await;
    assert_eq!(client.answer().await.text(), "{}");
    // The connection serves the next.
    client.send(get("/v1/models", "")).await;
    upstream.request_on_any(line).await.send(json("{}")).await;
    assert_eq!(client.answer().await.status(), 200);
}

#[tokio::test]
async fn early_answer_to_a_large_body_reaches_the_client() {
    for (path, length) in [("/v1/chat/completions", 8 << 20), ("/v1/files", 8 << 20), ("/v1/files", 80 << 20)] {
        for (status, fields) in [("413 Payload Too Large", ""), ("422 Unprocessable Entity", "Connection: close\r\n")] {
            let upstream = Upstream::start().await;
            let proxy = proxy(&upstream).start().await;
            let (mut reader, mut writer) = proxy.client().await.split();
            writer.send(format!("POST {path} HTTP/1.1\r\nHost: t\r\nContent-Length: {length}\r\n\r\n")).await;
            let sending = async {
                let piece = vec![b'x'; 1 << 20];
                let mut left = length;
                while left > 0 && writer.try_send(&piece).await {
                    left -= piece.len();
                }
            };
            let answering = async {
                let mut line = upstream.accept().await;
                line.head().await;
                line.reader().exactly(1_000).await.unwrap();
                line.send(answer(status, fields, "{\"early\":1}")).await;
                line.fin().await; // with what was sent unread, so that the proxy is reset
            };
            let reading = async {
                let head = reader.head().await.expect("a head");
                let body = reader.body(&head, true).await.expect("a body").bytes;
                (head.first_line(), String::from_utf8(body).expect("text"))
            };
            let joined = async { tokio::join!(sending, answering, reading) };
            let ((), (), (line, body)) = soon("the early answer", joined).await;
            assert_eq!((line, body), (format!("HTTP/1.1 {status}"), "{\"early\":1}".to_owned()), "{path}");
        }
    }
}

#[tokio::test]
async fn client_that_leaves_in_the_middle_of_its_upload_cuts_the_exchange() {
    let upstream = Upstream::start().await;
    let proxy = proxy(&upstream).start().await;
    let mut client = proxy.client().await;
    client.send("POST /v1/files HTTP/1.1\r\nHost: t\r\nContent-Length: 100\r\n\r\nhalf").await;
    let mut line = upstream.accept().await;
    line.head().await;
    client.reset();
    let (bytes, end) = crate::support::within(ms(1_000), "the cut", line.reader().until_the_end()).await;
    assert!(b"half".starts_with(&bytes), "{end:?}");
    assert_ne!(end, End::Reset); // whichever way it is closed, the body is short of its length
}
