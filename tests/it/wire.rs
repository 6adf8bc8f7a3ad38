//! HTTP/1.1 on both sides, to the byte: what is refused, what is kept, what is ended when.

use tidegate::time::now;

use crate::support::client::post_to;
use crate::support::upstream::{answer, fine, json};
use crate::support::wire::End;
use crate::support::{Client, Pace, Step, Upstream, get, ms, post, proxy, soon, within};

use Step::{Read, Send};

const CHAT: &str = r#"{"model":"m"}"#;

/// A proxy before a provider that answers everything with `fine`.
async fn fine_proxy(
    set: impl FnOnce(&mut tidegate::config::Settings),
) -> (crate::support::Proxy, crate::support::upstream::Scripted) {
    let upstream = Upstream::start().await;
    let proxy = proxy(&upstream).set(set).start().await;
    let forever = (0..20).flat_map(|_| [Read, Send(fine())]).collect();
    (proxy, upstream.script([forever]))
}

// Time.

#[tokio::test]
async fn idle_connection_is_closed_after_idle_timeout() {
    let (proxy, _upstream) = fine_proxy(|settings| settings.server.idle_timeout = ms(1_000)).await;
    let (pace, mut client) = (Pace::watch(), proxy.client().await);
    let since = now();
    assert_eq!(client.ask(post(CHAT)).await.status(), 200);
    assert_eq!(client.until_the_end().await, (Vec::new(), End::Fin));
    assert!(since.elapsed() >= ms(900), "{:?}", since.elapsed());
    assert!(pace.since(since) < ms(2_500), "{:?}", pace.since(since));
}

#[tokio::test]
async fn slow_head_is_shut_within_header_timeout_however_steadily_it_drips() {
    let (proxy, _upstream) = fine_proxy(|settings| settings.server.header_timeout = ms(400)).await;
    let since = now();
    let mut client = proxy.client().await;
    let dripping = async {
        for byte in get("/v1/models", "X-Long: 1\r\n").bytes().cycle() {
            if tokio::io::AsyncWriteExt::write_all(&mut client.reader().stream, &[byte]).await.is_err() {
                return;
            }
            tokio::time::sleep(ms(20)).await;
        }
    };
    within(ms(2_000), "the connection is shut", dripping).await;
    assert!(since.elapsed() >= ms(380), "{:?}", since.elapsed());
}

#[tokio::test]
async fn connection_that_sends_nothing_is_closed_after_header_timeout() {
    let (proxy, _upstream) = fine_proxy(|settings| settings.server.header_timeout = ms(200)).await;
    let mut client = proxy.client().await;
    assert_eq!(within(ms(2_000), "the close", client.until_the_end()).await.0, b"");
}

#[tokio::test]
async fn body_without_progress_gets_408_and_the_connection_is_closed() {
    let (proxy, mut upstream) = fine_proxy(|settings| settings.server.body_timeout = ms(200)).await;
    let request = "POST /v1/chat/completions HTTP/1.1\r\nHost: t\r\nContent-Length: 100\r\n\r\n{\"mod";
    let mut client = proxy.client().await;
    let answer = client.ask(request).await;
    assert_eq!((answer.status(), answer.error_code().as_str()), (408, "bad_request"));
    assert_eq!(client.until_the_end().await.0, b"");
    assert_eq!(upstream.unseen(), 0);
}

#[tokio::test]
async fn upload_without_progress_gets_408_and_its_exchange_is_cut() {
    let upstream = Upstream::start().await;
    let proxy = proxy(&upstream).set(|settings| settings.server.body_timeout = ms(1_000)).start().await;
    let mut client = proxy.client().await;
    client.send("POST /v1/files HTTP/1.1\r\nHost: t\r\nContent-Length: 100\r\n\r\nhalf").await;
    let mut line = upstream.accept().await;
    line.head().await;
    assert_eq!(client.answer().await.status(), 408);
    within(ms(1_000), "the exchange is cut", line.gone()).await;
}

#[tokio::test]
async fn body_time_out_does_not_bind_a_call_that_waits_for_its_answer() {
    let upstream = Upstream::start().await;
    let proxy = proxy(&upstream).set(|settings| settings.server.body_timeout = ms(100)).start().await;
    let mut client = proxy.client().await;
    client.send(post(CHAT)).await;
    let (mut line, _) = upstream.request().await;
    tokio::time::sleep(ms(400)).await;
    line.send(fine()).await;
    assert_eq!(client.answer().await.status(), 200);
}

#[tokio::test]
async fn slow_reader_is_cut_after_write_timeout_and_its_exchange_too() {
    let upstream = Upstream::start().await;
    let proxy = proxy(&upstream).set(|settings| settings.server.write_timeout = ms(300)).start().await;
    let mut client = proxy.client().await;
    client.send(get("/v1/files/f/content", "")).await;
    let (mut line, _) = upstream.request().await;
    let head = "HTTP/1.1 200 OK\r\nContent-Type: application/octet-stream\r\nContent-Length: 1000000000\r\n\r\n";
    line.send(head).await;
    let piece = vec![b'x'; 1 << 20];
    let flooding = async { while line.try_send(&piece).await.is_ok() {} };
    within(ms(8_000), "the exchange is cut", flooding).await;
    proxy.until_metric("tidegate_connections", 0.0).await;
    drop(client);
}

// Several requests on a connection.

#[tokio::test]
async fn pipelined_requests_are_served_in_order() {
    let upstream = Upstream::start().await;
    let proxy = proxy(&upstream).start().await;
    let mut client = proxy.client().await;
    client.send([post(r#"{"n":1}"#), post(r#"{"n":2}"#), get("/v1/models", "").into_bytes()].concat()).await;
    let (mut line, first) = upstream.request().await;
    assert_eq!(first.text(), r#"{"n":1}"#);
    tokio::time::sleep(ms(50)).await; // the second request is there, and is no reason to cut the first
    line.send(json("1")).await;
    assert_eq!(client.answer().await.text(), "1");
    assert_eq!(line.request().await.text(), r#"{"n":2}"#);
    line.send(json("2")).await;
    assert_eq!(line.request().await.head.first_line(), "GET /v1/models HTTP/1.1");
    line.send(json("3")).await;
    assert_eq!([client.answer().await.text(), client.answer().await.text()], ["2", "3"]);
}

#[tokio::test]
async fn error_replies_keep_the_connection_open() {
    let (proxy, _upstream) = fine_proxy(|_| {}).await;
    let mut client = proxy.client().await;
    for _ in 0..3 {
        let refused = client.ask(post_to("/v1/chat/completions", "x-tidegate-priority: urgent\r\n", CHAT)).await;
        assert_eq!((refused.status(), refused.error_code().as_str()), (400, "bad_request"));
        assert!(refused.head.has("x-tidegate-request-id"));
    }
    assert_eq!(client.ask(post(CHAT)).await.status(), 200);
}

#[tokio::test]
async fn connection_close_is_obeyed() {
    let (proxy, _upstream) = fine_proxy(|_| {}).await;
    let mut client = proxy.client().await;
    let answer = client.ask(post_to("/v1/chat/completions", "Connection: close\r\n", CHAT)).await;
    assert_eq!((answer.status(), answer.head.field("connection").as_deref()), (200, Some("close")));
    assert_eq!(client.until_the_end().await, (Vec::new(), End::Fin));
}

// Expect: 100-continue, and 1xx from upstream.

#[tokio::test]
async fn expect_continue_is_answered_before_the_body_and_not_passed_on() {
    for path in ["/v1/chat/completions", "/v1/files"] {
        let (proxy, mut upstream) = fine_proxy(|_| {}).await;
        let mut client = proxy.client().await;
        let head = format!("POST {path} HTTP/1.1\r\nHost: t\r\nExpect: 100-continue\r\nContent-Length: 13\r\n\r\n");
        client.send(head).await;
        let interim = client.reader().head().await.expect("an interim head");
        assert_eq!(interim.status(), 100, "{path}");
        client.send(CHAT).await;
        assert_eq!(client.answer().await.status(), 200, "{path}");
        let request = upstream.request().await;
        assert_eq!(request.text(), CHAT);
        assert!(!request.head.has("expect"), "{path}");
    }
}

#[tokio::test]
async fn too_large_body_that_was_announced_gets_413_and_no_100() {
    let (proxy, mut upstream) = fine_proxy(|settings| settings.server.body_max = 1_024).await;
    let mut client = proxy.client().await;
    let head = "POST /v1/chat/completions HTTP/1.1\r\nHost: t\r\nExpect: 100-continue\r\nContent-Length: 1025\r\n\r\n";
    let answer = client.ask(head).await;
    assert_eq!((answer.status(), answer.interim.len(), answer.error_code().as_str()), (413, 0, "request_too_large"));
    assert_eq!(upstream.unseen(), 0);
}

#[tokio::test]
async fn interim_answers_of_the_provider_are_passed_over() {
    let upstream = Upstream::start().await;
    let proxy = proxy(&upstream).start().await;
    let mut client = proxy.client().await;
    client.send(post(CHAT)).await;
    let (mut line, _) = upstream.request().await;
    line.send("HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n").await;
    line.send("HTTP/1.1 103 Early Hints\r\n\r\n").await;
    line.send(fine()).await;
    let answer = client.answer().await;
    assert_eq!((answer.interim.as_slice(), answer.status()), (&[][..], 200));
    assert!(!answer.head.has("link"));
    // The connection is none the worse for it.
    client.send(post(CHAT)).await;
    line.request().await;
    line.send(fine()).await;
    assert_eq!(client.answer().await.status(), 200);
}

// Header fields.

#[tokio::test]
async fn large_heads_pass_and_those_beyond_the_bound_are_refused() {
    let (proxy, mut upstream) = fine_proxy(|_| {}).await;
    let long = "v".repeat(60 * 1024);
    let many: String = (0..90).map(|number| format!("X-Many-{number}: {number}\r\n")).collect();
    let mut client = proxy.client().await;
    let asked = client.ask(post_to("/v1/chat/completions", &format!("X-Long: {long}\r\n{many}"), CHAT)).await;
    assert_eq!(asked.status(), 200);
    let head = upstream.request().await.head;
    assert_eq!((head.field("x-long"), head.field("x-many-89")), (Some(long), Some("89".to_owned())));
    let too_many: String = (0..100).map(|number| format!("X-Many-{number}: {number}\r\n")).collect();
    let too_long = format!("X-Long: {}\r\n", "v".repeat(64 * 1024));
    for fields in [too_many, too_long] {
        let refused = proxy.client().await.ask(post_to("/v1/chat/completions", &fields, CHAT)).await;
        assert_eq!((refused.status(), refused.error_code().as_str()), (431, "bad_request"));
    }
}

#[tokio::test]
async fn hop_by_hop_fields_end_here_in_both_directions() {
    let upstream = Upstream::start().await;
    let addr = upstream.addr();
    let proxy = proxy(&upstream).start().await;
    let theirs = "Connection: x-hop, keep-alive\r\nX-Hop: 1\r\nKeep-Alive: timeout=5\r\nProxy-Authenticate: Basic\r\n\
                  X-Tidegate-Upstream: forged\r\nTrailer: x\r\nX-Kept: a\r\nX-Kept: b\r\nServer: theirs\r\n";
    let mut upstream = upstream.script([vec![Read, Send(answer("200 OK", theirs, "[]"))]]);
    let ours = "Connection: X-Hop, Keep-Alive, Authorization\r\nX-Hop: 1\r\nKeep-Alive: timeout=5\r\nTE: trailers\r\n\
                Proxy-Authorization: Basic eA==\r\nProxy-Connection: keep-alive\r\nX-Tidegate-Priority: high\r\n\
                Authorization: Bearer k\r\nX-Kept: a\r\nX-Kept: b\r\nUser-Agent: OpenAI/Python 1.0\r\n";
    let answer = proxy.client().await.ask(post_to("/v1/chat/completions", ours, CHAT)).await;
    let head = upstream.request().await.head;
    for name in
        ["connection", "x-hop", "keep-alive", "te", "proxy-authorization", "proxy-connection", "x-tidegate-priority"]
    {
        assert!(!head.has(name), "{name}: {head:?}");
    }
    assert_eq!(head.fields("host"), [addr.to_string()]);
    assert_eq!(head.fields("authorization"), ["Bearer k"]);
    assert_eq!(head.fields("x-kept"), ["a", "b"]);
    assert_eq!(head.fields("user-agent"), ["OpenAI/Python 1.0"]);
    assert_eq!(head.fields("content-length"), ["13"]);
    for name in ["x-hop", "keep-alive", "proxy-authenticate", "trailer"] {
        assert!(!answer.head.has(name), "{name}: {:?}", answer.head);
    }
    assert_eq!(answer.head.fields("x-kept"), ["a", "b"]);
    assert_eq!(answer.head.fields("server"), ["theirs"]);
    assert_eq!(answer.head.fields("x-tidegate-upstream"), ["default"]);
    assert_eq!(answer.head.fields("x-tidegate-attempts"), ["1"]);
}

#[tokio::test]
async fn chunked_generation_arrives_with_a_length_and_chunked_upload_arrives_chunked() {
    let chunked = |path| {
        format!(
            "POST {path} HTTP/1.1\r\nHost: t\r\nTransfer-Encoding: chunked\r\n\r\n6\r\n{{\"mode\r\n6\r\nl\":1}}\n\r\n0\r\n\r\n"
        )
    };
    let (proxy, mut upstream) = fine_proxy(|_| {}).await;
    let mut client = proxy.client().await;
    assert_eq!(client.ask(chunked("/v1/chat/completions")).await.status(), 200);
    let request = upstream.request().await;
    assert_eq!(
        (request.head.fields("content-length"), request.head.has("transfer-encoding")),
        (vec!["12".to_owned()], false)
    );
    assert_eq!(request.text(), "{\"model\":1}\n");
    assert_eq!(client.ask(chunked("/v1/files")).await.status(), 200);
    let request = upstream.request().await;
    assert_eq!(
        (request.head.fields("transfer-encoding"), request.head.has("content-length")),
        (vec!["chunked".to_owned()], false)
    );
    assert_eq!(request.text(), "{\"model\":1}\n");
}

// What two readers could understand differently.

#[tokio::test]
async fn whatever_could_be_understood_in_two_ways_is_refused() {
    let (proxy, mut upstream) = fine_proxy(|_| {}).await;
    let post = "POST /v1/chat/completions HTTP/1.1\r\nHost: t\r\n";
    for (story, request) in [
        (
            "both framings",
            format!("{post}Content-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{{}}\r\n0\r\n\r\n"),
        ),
        (
            "both framings, other order",
            format!("{post}Transfer-Encoding: chunked\r\nContent-Length: 2\r\n\r\n2\r\n{{}}\r\n0\r\n\r\n"),
        ),
        ("two lengths", format!("{post}Content-Length: 2\r\nContent-Length: 3\r\n\r\n{{}}")),
        ("a list of lengths", format!("{post}Content-Length: 2, 3\r\n\r\n{{}}")),
        ("a signed length", format!("{post}Content-Length: +2\r\n\r\n{{}}")),
        ("a negative length", format!("{post}Content-Length: -2\r\n\r\n{{}}")),
        ("chunked not last", format!("{post}Transfer-Encoding: chunked, gzip\r\n\r\n0\r\n\r\n")),
        ("another coding", format!("{post}Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n")),
        ("chunked twice", format!("{post}Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n")),
        ("a disguised coding", format!("{post}Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n")),
        (
            "chunked in HTTP/1.0",
            "POST /v1/chat/completions HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n".to_owned(),
        ),
        ("two hosts", format!("{post}Host: u\r\nContent-Length: 2\r\n\r\n{{}}")),
        ("space before the colon", format!("{post}Content-Length : 2\r\n\r\n{{}}")),
        ("a folded field", format!("{post}X-A: 1\r\n 2\r\nContent-Length: 2\r\n\r\n{{}}")),
        ("a NUL in a value", format!("{post}X-A: 1\0\r\nContent-Length: 2\r\n\r\n{{}}")),
        ("CONNECT", "CONNECT example.com:443 HTTP/1.1\r\nHost: example.com:443\r\n\r\n".to_owned()),
        ("a target that is no path", "GET example HTTP/1.1\r\nHost: t\r\n\r\n".to_owned()),
        ("no HTTP", "\x16\x03\x01\x02\r\n\r\n".to_owned()),
    ] {
        let answer = proxy.client().await.ask(&request).await;
        assert_eq!(answer.status(), 400, "{story}");
        assert_eq!(answer.error_code(), "bad_request", "{story}");
        assert_eq!(answer.head.fields("content-type"), ["application/json"], "{story}");
    }
    assert_eq!(upstream.unseen(), 0);
}

#[tokio::test]
async fn bad_chunk_size_gets_400() {
    for path in ["/v1/chat/completions", "/v1/files"] {
        let upstream = Upstream::start().await;
        let proxy = proxy(&upstream).start().await;
        let mut client = proxy.client().await;
        client
            .send(format!("POST {path} HTTP/1.1\r\nHost: t\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{{}}\r\n"))
            .await;
        client.send("zz\r\n{}\r\n0\r\n\r\n").await;
        let answer = client.answer().await;
        assert_eq!((answer.status(), answer.error_code().as_str()), (400, "bad_request"), "{path}");
        client.until_the_end().await;
    }
}

#[tokio::test]
async fn target_in_absolute_form_goes_to_the_configured_upstream_only() {
    let (proxy, mut upstream) = fine_proxy(|_| {}).await;
    let mut client = proxy.client().await;
    let asked = client.ask("GET http://elsewhere/v1/models?a=b HTTP/1.1\r\nHost: elsewhere\r\n\r\n").await;
    assert_eq!(asked.status(), 200);
    let head = upstream.request().await.head;
    assert_eq!(head.first_line(), "GET /v1/models?a=b HTTP/1.1");
    assert_eq!(head.fields("host"), [upstream.addr.to_string()]);
}

// Older clients, and answers without a body.

#[tokio::test]
async fn http_1_0_client_gets_an_unchunked_answer_that_ends_with_the_connection() {
    let upstream = Upstream::start().await;
    let proxy = proxy(&upstream).start().await;
    let chunked = "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhe\r\n3\r\nllo\r\n0\r\n\r\n";
    let forever = (0..4).flat_map(|_| [Read, Send(chunked.into())]).chain((0..4).flat_map(|_| [Read, Send(fine())]));
    let _upstream = upstream.script([forever.collect()]);
    for (request, body) in [
        ("GET /v1/text HTTP/1.0\r\n\r\n".to_owned(), "hello".to_owned()),
        ("GET /v1/text HTTP/1.0\r\nHost: t\r\n\r\n".to_owned(), "hello".to_owned()),
    ] {
        let mut client = proxy.client().await;
        client.send(request).await;
        let head = client.head().await;
        assert!(!head.has("transfer-encoding"), "{head:?}");
        let (bytes, end) = client.until_the_end().await;
        assert_eq!((String::from_utf8(bytes).unwrap(), end), (body, End::Fin));
    }
}

#[tokio::test]
async fn http_1_0_client_that_reads_to_the_end_of_the_connection_is_not_left_waiting() {
    let (proxy, _upstream) = fine_proxy(|_| {}).await;
    let mut client = proxy.client().await;
    client.send("POST /v1/chat/completions HTTP/1.0\r\nContent-Length: 2\r\n\r\n{}").await;
    let (bytes, end) = within(ms(2_000), "the end", client.until_the_end()).await;
    assert!(String::from_utf8(bytes).unwrap().ends_with(crate::support::upstream::FINE));
    assert_eq!(end, End::Fin);
}

#[tokio::test]
async fn answers_without_a_body_keep_their_fields() {
    let upstream = Upstream::start().await;
    let proxy = proxy(&upstream).start().await;
    let mut client = proxy.client().await;
    let head = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 5000000\r\nETag: \"e\"\r\n\r\n";
    client.send("HEAD /v1/models HTTP/1.1\r\nHost: t\r\n\r\n").await;
    let (mut line, request) = upstream.request().await;
    assert_eq!(request.head.first_line(), "HEAD /v1/models HTTP/1.1");
    line.send(head).await;
    let seen = client.head().await;
    assert_eq!(
        (seen.status(), seen.field("content-length").as_deref(), seen.field("etag").as_deref()),
        (200, Some("5000000"), Some("\"e\""))
    );

    client.send("DELETE /v1/files/f HTTP/1.1\r\nHost: t\r\n\r\n").await;
    line = upstream.request_on_any(line).await;
    line.send("HTTP/1.1 204 No Content\r\nX-Kept: 1\r\n\r\n").await;
    let seen = client.answer().await;
    assert_eq!((seen.status(), seen.head.field("x-kept").as_deref()), (204, Some("1")));
    assert!(!seen.head.has("transfer-encoding") && !seen.head.has("content-length"), "{:?}", seen.head);

    client.send(get("/v1/models", "If-None-Match: \"e\"\r\n")).await;
    line = upstream.request_on_any(line).await;
    line.send("HTTP/1.1 304 Not Modified\r\nETag: \"e\"\r\nContent-Length: 5000000\r\n\r\n").await;
    let seen = client.answer().await;
    assert_eq!((seen.status(), seen.head.field("etag").as_deref()), (304, Some("\"e\"")));
    // Whatever came after these heads would be taken for this answer.
    client.send(post(CHAT)).await;
    line = upstream.request_on_any(line).await;
    line.send(fine()).await;
    assert_eq!(client.answer().await.status(), 200);
}

// Answers as they come.

#[tokio::test]
async fn download_with_a_length_is_passed_on_as_it_comes() {
    let upstream = Upstream::start().await;
    let proxy = proxy(&upstream).start().await;
    let mut client = proxy.client().await;
    client.send(get("/v1/files/f/content", "")).await;
    let (mut line, _) = upstream.request().await;
    line.send("HTTP/1.1 200 OK\r\nContent-Type: audio/mpeg\r\nContent-Length: 5000000\r\n\r\nfirst").await;
    let head = client.head().await;
    assert_eq!(head.field("content-length").as_deref(), Some("5000000"));
    assert_eq!(client.reader().exactly(5).await.unwrap(), b"first");
    line.send("second").await;
    assert_eq!(client.reader().exactly(6).await.unwrap(), b"second");
}

#[tokio::test]
async fn cut_download_is_never_complete() {
    let upstream = Upstream::start().await;
    let proxy = proxy(&upstream).start().await;
    for framing in ["Content-Length: 5000000", "Transfer-Encoding: chunked"] {
        let mut client = proxy.client().await;
        client.send(get("/v1/files/f/content", "")).await;
        let (mut line, _) = upstream.request().await;
        line.send(format!("HTTP/1.1 200 OK\r\nContent-Type: audio/mpeg\r\n{framing}\r\n\r\n5\r\nabcde\r\n")).await;
        client.head().await;
        line.reset();
        let (bytes, _) = soon("the end", client.until_the_end()).await;
        assert!(!bytes.ends_with(b"0\r\n\r\n"), "{framing}");
    }
}

/// To a client of HTTP/1.0 the end of the connection is the end of the answer, so a cut one ended with it as if whole.
#[tokio::test]
async fn cut_download_over_http_1_0_ends_with_a_reset() {
    let upstream = Upstream::start().await;
    let proxy = proxy(&upstream).start().await;
    let mut client = proxy.client().await;
    client.send("GET /v1/files/f/content HTTP/1.0\r\nHost: t\r\n\r\n").await;
    let (mut line, _) = upstream.request().await;
    line.send("HTTP/1.1 200 OK\r\nContent-Type: audio/mpeg\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nabcde\r\n").await;
    client.head().await;
    assert_eq!(client.reader().exactly(5).await.unwrap(), b"abcde");
    line.reset();
    let (_, end) = soon("the end", client.until_the_end()).await;
    assert_eq!(end, End::Reset);
}

/// An invitation to send the body counted as an answer that came too early, and closed the connection.
#[tokio::test]
async fn connection_of_an_expected_body_serves_the_next_request() {
    let (proxy, _upstream) = fine_proxy(|_| {}).await;
    let mut client = proxy.client().await;
    for _ in 0..2 {
        client
            .send("POST /v1/chat/completions HTTP/1.1\r\nHost: t\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n")
            .await;
        assert_eq!(client.reader().head().await.unwrap().status(), 100);
        client.send("{}").await;
        assert_eq!(client.answer().await.status(), 200);
    }
}

#[tokio::test]
async fn too_many_connections_are_told_so_while_all_of_them_are_busy() {
    let upstream = Upstream::start().await;
    let proxy = proxy(&upstream).set(|settings| settings.server.connections_max = 1).start().await;
    let mut first = proxy.client().await;
    first.send(post(CHAT)).await;
    let (mut line, _) = upstream.request().await;
    let mut second = Client::to(proxy.clients).await;
    let refused = second.answer().await; // before it has asked
    assert_eq!((refused.status(), refused.error_code().as_str()), (503, "queue_full"));
    line.send(fine()).await;
    assert_eq!(first.answer().await.status(), 200);
}

#[tokio::test]
async fn connection_that_idles_longest_makes_room_for_a_new_one() {
    let (proxy, _upstream) = fine_proxy(|settings| settings.server.connections_max = 2).await;
    let mut first = proxy.client().await;
    assert_eq!(first.ask(post(CHAT)).await.status(), 200);
    let mut second = proxy.client().await;
    assert_eq!(second.ask(post(CHAT)).await.status(), 200);
    assert_eq!(proxy.client().await.ask(post(CHAT)).await.status(), 200);
    assert_eq!(first.until_the_end().await.0, b"");
    assert_eq!(second.ask(post(CHAT)).await.status(), 200);
}
