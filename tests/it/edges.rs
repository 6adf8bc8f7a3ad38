//! Corners where two rules meet.

use crate::support::client::post_to;
use tidegate::units::Secret;

use crate::support::upstream::{FINE, STREAM, answer, chunk, event, fine, json};
use crate::support::wire::End;
use crate::support::{Step, Upstream, get, ms, post, proxy};

use Step::{Fin, Read, Reset, Send, Stall};

const CALL: &str = r#"{"model":"m"}"#;

#[tokio::test]
async fn exempt_call_that_is_refused_backs_off() {
    let upstream = Upstream::start().await;
    let exempt = |provider: &mut tidegate::upstream::settings::Upstream| {
        provider.exempt = vec!["GET /v1/models".parse().unwrap()];
    };
    let proxy = proxy(&upstream).provider(exempt).start().await;
    let refusal = answer("429 Too Many Requests", "retry-after-ms: 300\r\n", "{}");
    let mut upstream = upstream.script([vec![Read, Send(refusal), Read, Send(json("{}")), Stall]]);
    let seen = proxy.client().await.ask(get("/v1/models", "")).await;
    assert_eq!(seen.status(), 200);
    let (first, second) = (upstream.next().await.0, upstream.next().await.0);
    assert!(second - first >= ms(300), "{:?}", second - first);
}

#[tokio::test]
async fn refusal_counts_as_one_when_its_body_is_cut() {
    let upstream = Upstream::start().await;
    let proxy = proxy(&upstream).start().await;
    let cut = "HTTP/1.1 429 Too Many Requests\r\nretry-after-ms: 400\r\nContent-Length: 100\r\n\r\n{";
    let mut upstream = upstream.script([vec![Read, Send(cut.into()), Reset], vec![Read, Send(fine()), Stall]]);
    assert_eq!(proxy.client().await.ask(post(CALL)).await.status(), 200);
    let (first, second) = (upstream.next().await.0, upstream.next().await.0);
    assert!(second - first >= ms(400), "{:?}", second - first);
}

#[tokio::test]
async fn offer_of_another_protocol_is_ignored_and_so_is_what_is_no_handshake() {
    let upstream = Upstream::start().await;
    let proxy = proxy(&upstream).start().await;
    let mut upstream = upstream.script([(0..3).flat_map(|_| [Read, Send(fine())]).collect()]);
    let offer = "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n";
    assert_eq!(proxy.client().await.ask(post_to("/v1/chat/completions", offer, CALL)).await.status(), 200);
    let seen = upstream.request().await;
    assert!(!seen.head.has("upgrade") && !seen.head.has("http2-settings") && !seen.head.has("connection"));
    let (connection, websocket) = ("Connection: Upgrade\r\n", "Upgrade: WebSocket\r\nSec-WebSocket-Version: 13\r\n");
    let old = format!("GET /v1/realtime HTTP/1.0\r\nHost: t\r\n{connection}{websocket}\r\n");
    for request in [old, get("/v1/realtime", websocket)] {
        assert_eq!(proxy.client().await.ask(request).await.status(), 200);
        assert!(!upstream.request().await.head.has("upgrade"));
    }
    // What stands behind a handshake is a body to one reader, and frames to another.
    let with_body = get("/v1/realtime", &format!("{connection}{websocket}Content-Length: 2\r\n")) + "{}";
    let posted = post_to("/v1/realtime", &[connection, websocket].concat(), "{}");
    for request in [with_body.into_bytes(), posted] {
        let refused = proxy.client().await.ask(request).await;
        assert_eq!((refused.status(), refused.error_code()), (400, "bad_request".to_owned()));
    }
    assert_eq!(upstream.unseen(), 0);
}

#[tokio::test]
async fn head_of_a_json_document_without_a_length_is_answered() {
    let upstream = Upstream::start().await;
    let proxy = proxy(&upstream).start().await;
    let bare = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n\r\n";
    let mut upstream = upstream.script([vec![Read, Send(bare.into()), Stall]]);
    let mut client = proxy.client().await;
    client.send("HEAD /v1/models HTTP/1.1\r\nHost: t\r\n\r\n").await;
    assert_eq!(client.head().await.status(), 200);
    upstream.request().await;
    assert_eq!(upstream.unseen(), 0, "once");
}

#[tokio::test]
async fn encoded_event_stream_that_is_cut_gets_no_plain_event() {
    let upstream = Upstream::start().await;
    let proxy = proxy(&upstream).start().await;
    let head = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nContent-Encoding: gzip\r\n";
    let cut = format!("{head}Transfer-Encoding: chunked\r\n\r\n{}", chunk("\u{1f}gzip"));
    let _upstream = upstream.script([vec![Read, Send(cut.into()), Fin]]);
    let mut client = proxy.client().await;
    client.send(post(r#"{"model":"m","stream":true}"#)).await;
    let head = client.head().await;
    assert_eq!(head.status(), 200);
    assert!(matches!(client.reader().body(&head, false).await, Err(End::Fin | End::Reset)));
}

/// Its text and its reason to end have come. "If the stream is interrupted, you may not receive the final usage chunk", as
/// OpenAI says: an error would have a client throw away a whole answer.
#[tokio::test]
async fn stream_that_lacks_only_its_usage_is_complete_and_none_is_made_up() {
    let finished = r#"data: {"choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}"#;
    let cut = format!("{STREAM}{}{}", event("a"), chunk(&format!("{finished}\n\n")));
    for body in
        [r#"{"model":"m","stream":true,"stream_options":{"include_usage":true}}"#, r#"{"model":"m","stream":true}"#]
    {
        let upstream = Upstream::start().await;
        let proxy = proxy(&upstream).start().await;
        let _upstream = upstream.script([vec![Read, Send(cut.clone().into()), Reset]]);
        let text = proxy.client().await.ask(post(body)).await.text();
        assert!(text.contains("\"stop\"") && !text.contains("\"error\"") && !text.contains("usage"), "{body}: {text}");
    }
}

#[tokio::test]
async fn after_one_dead_pooled_connection_a_fresh_one_is_used() {
    let upstream = Upstream::start().await;
    let proxy = proxy(&upstream).start().await;
    // Two connections come into the pool; both die at the next request on them.
    let dies = vec![Read, Send(fine()), Read, Reset];
    let mut upstream = upstream.script([dies.clone(), dies, vec![Read, Send(fine()), Stall]]);
    let (mut one, mut two) = (proxy.client().await, proxy.client().await);
    let (first, second) = tokio::join!(one.ask(post(CALL)), two.ask(post(CALL)));
    assert_eq!((first.status(), second.status()), (200, 200));
    let third = one.ask(post(CALL)).await;
    assert_eq!((third.status(), third.head.field("x-tidegate-attempts").as_deref()), (200, Some("2")));
    let mut connections = Vec::new();
    for _ in 0..4 {
        connections.push(upstream.next().await.1);
    }
    assert_eq!(connections[3], 2, "{connections:?}");
}

#[tokio::test]
async fn failure_names_upstream_and_attempts() {
    let upstream = Upstream::start().await;
    let proxy = proxy(&upstream).set(|settings| settings.retry.attempts_max = std::num::NonZeroU32::MIN).start().await;
    let _upstream = upstream.script([vec![Read, Reset]]);
    let seen = proxy.client().await.ask(post(CALL)).await;
    assert_eq!((seen.status(), seen.error_code()), (502, "upstream_disconnected".to_owned()));
    assert_eq!(seen.head.field("x-tidegate-attempts").as_deref(), Some("1"));
    assert!(seen.head.has("x-tidegate-upstream"));
}

#[tokio::test]
async fn connection_cannot_strip_what_we_add() {
    let upstream = Upstream::start().await;
    let addr = upstream.addr();
    let key = Secret::new("ours".to_owned());
    let proxy = proxy(&upstream).provider(|provider| provider.api_keys = vec![key]).start().await;
    let theirs = "Connection: x-tidegate-request-id, x-tidegate-attempts, content-length, retry-after, connection\r\n\
                  X-Tidegate-Request-Id: forged\r\n";
    let answered = answer("200 OK", theirs, FINE);
    let mut upstream = upstream.script([(0..3).flat_map(|_| [Read, Send(answered.clone())]).collect()]);
    let named = "Connection: host, Authorization, content-length, transfer-encoding, content-type, content-encoding\r\n\
                 Connection: x-tidegate-request-id, traceparent, expect, connection, user-agent\r\n\
                 Authorization: Bearer theirs\r\nContent-Encoding: identity\r\nUser-Agent: u\r\n";
    let mut client = proxy.client().await;
    let chunked =
        format!("POST /v1/files HTTP/1.1\r\nHost: t\r\n{named}Transfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\n\r\n");
    for (request, framing) in [
        (post_to("/v1/chat/completions", named, CALL), ("content-length", CALL.len().to_string())),
        (post_to("/v1/files", named, CALL), ("content-length", CALL.len().to_string())),
        (chunked.into_bytes(), ("transfer-encoding", "chunked".to_owned())),
    ] {
        let got = client.ask(request).await;
        assert_eq!((got.status(), got.text().as_str()), (200, FINE));
        assert!(got.head.has("x-tidegate-attempts") && got.head.fields("x-tidegate-request-id") != ["forged"]);
        assert_eq!(got.head.fields("x-tidegate-request-id").len(), 1);
        let head = upstream.request().await.head;
        assert_eq!(head.fields("host"), [addr.to_string()]);
        assert_eq!(head.fields("authorization"), ["Bearer ours"]);
        assert_eq!(head.fields("content-encoding"), ["identity"]);
        assert_eq!(head.fields(framing.0), [framing.1]);
        assert!(!head.has("user-agent") && !head.has("connection"), "the client's own, and it may");
    }
}
