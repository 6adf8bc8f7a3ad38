//! What comes back over HTTP/2 is what HTTP/1.1 would have brought.

use http::Method;

use super::{CHAT, WIRES};
use crate::support::http2_client::{chat, error_code, get, request};
use crate::support::upstream::{FINE, STREAM, event, fine, finish, json};
use crate::support::{Step, Upstream, proxy};

use Step::{Read, Send};

#[tokio::test]
async fn call_goes_through_as_it_would_over_http_1() {
    for wire in WIRES {
        let upstream = Upstream::start().await;
        let addr = upstream.addr();
        let house = wire.proxy(proxy(&upstream)).await;
        let mut upstream = upstream.script([vec![Read, Send(fine()), Read, Send(fine())]]);
        let mut client = house.client().await;
        for _ in 0..2 {
            let (status, headers, body) = client.ask(chat(), CHAT).await;
            assert_eq!((status.as_u16(), body.as_slice()), (200, FINE.as_bytes()), "{wire:?}");
            assert_eq!(headers["content-type"], "application/json");
            assert_eq!(headers["content-length"], FINE.len().to_string().as_str());
            assert!(headers.contains_key("x-tidegate-request-id"));
            let request = upstream.request().await;
            assert_eq!(request.head.first_line(), "POST /v1/chat/completions HTTP/1.1");
            assert_eq!((request.head.fields("host"), request.text().as_str()), (vec![addr.to_string()], CHAT));
            assert_eq!(request.head.fields("content-length"), [CHAT.len().to_string()]);
            assert!(!request.head.has("transfer-encoding"), "{:?}", request.head);
        }
    }
}

#[tokio::test]
async fn events_arrive_one_by_one() {
    for wire in WIRES {
        let upstream = Upstream::start().await;
        let house = wire.proxy(proxy(&upstream)).await;
        let mut client = house.client().await;
        let sending = client.send(chat(), r#"{"stream":true}"#).await;
        let (mut line, _) = upstream.request().await;
        line.send(format!("{STREAM}{}", event("first"))).await;
        let mut coming = sending.answer().await.unwrap();
        assert_eq!(
            (coming.status.as_u16(), &coming.headers["content-type"]),
            (200, &"text/event-stream".parse().unwrap())
        );
        assert!(!coming.headers.contains_key("transfer-encoding"));
        assert!(coming.text().await.unwrap().contains("first"), "{wire:?}");
        for word in ["second", "third"] {
            line.send(event(word)).await;
            let text = coming.text().await.unwrap();
            assert!(text.contains(word) && text.ends_with("\n\n"), "{wire:?}: {text}");
        }
        line.send(finish()).await;
        let rest = String::from_utf8(coming.rest().await.unwrap()).unwrap();
        assert!(rest.ends_with("data: [DONE]\n\n"), "{wire:?}: {rest}");
    }
}

#[tokio::test]
async fn answers_without_a_body_end_with_their_head() {
    for wire in WIRES {
        let upstream = Upstream::start().await;
        let house = wire.proxy(proxy(&upstream)).await;
        let mut client = house.client().await;
        let bare = |method, target| request(method, target).body(()).unwrap();
        for (request, answer, status, name, length) in [
            (
                bare(Method::HEAD, "/v1/models"),
                "200 OK\r\nContent-Length: 5000000\r\nETag: kept",
                200,
                "etag",
                "5000000",
            ),
            (bare(Method::DELETE, "/v1/files/f"), "204 No Content\r\nX-Kept: kept", 204, "x-kept", ""),
            (bare(Method::GET, "/v1/models"), "304 Not Modified\r\nETag: kept", 304, "etag", ""),
            (bare(Method::GET, "/v1/none"), "404 Not Found\r\nX-Kept: kept\r\nContent-Length: 0", 404, "x-kept", "0"),
        ] {
            let sending = client.begin(request, true).await;
            let (mut line, _) = upstream.request().await; // the last one was closed
            line.send(format!("HTTP/1.1 {answer}\r\nConnection: close\r\n\r\n")).await;
            let (seen, headers, body) = sending.whole().await;
            assert_eq!((seen.as_u16(), body.len()), (status, 0), "{wire:?}");
            let field = |name: &str| headers.get(name).map_or("", |value| value.to_str().unwrap());
            assert_eq!((field(name), field("content-length")), ("kept", length), "{wire:?} {status}");
        }
    }
}

#[tokio::test]
async fn refusals_of_ours_end_one_stream_and_the_connection_serves_the_next() {
    for wire in WIRES {
        let upstream = Upstream::start().await;
        let house = wire.proxy(proxy(&upstream).set(|settings| settings.server.body_max = 1_024)).await;
        let mut upstream = upstream.script([vec![Read, Send(fine())]]);
        let mut client = house.client().await;
        for (status, code, priority, body) in [
            (400, "bad_request", "urgent", 2),
            (413, "request_too_large", "high", 1_025),
            (413, "request_too_large", "high", 900_000),
        ] {
            let call = request(Method::POST, "/v1/chat/completions").header("x-tidegate-priority", priority);
            // A client may stop sending when it is answered.
            let mut sending = client.begin(call.body(()).unwrap(), false).await;
            drop(sending.send(vec![b' '; body].into(), true).await);
            let (seen, headers, body) = sending.whole().await;
            assert_eq!((seen.as_u16(), error_code(&body).as_str()), (status, code), "{wire:?}");
            assert_eq!(headers["content-type"], "application/json");
            assert!(headers.contains_key("x-tidegate-request-id"));
        }
        assert_eq!(client.ask(chat(), CHAT).await.0, 200, "{wire:?}");
        assert_eq!(upstream.request().await.text(), CHAT);
        assert_eq!(upstream.unseen(), 0);
    }
}

#[tokio::test]
async fn cookies_that_came_in_crumbs_leave_as_one() {
    let (proxy, mut upstream) = super::answering(json("[]"), |_| {}).await;
    let mut client = crate::support::http2_client::Http2::to(proxy.clients).await;
    let crumbs =
        request(Method::GET, "/v1/models").header("cookie", "a=1").header("x-kept", "1").header("cookie", "b=2");
    assert_eq!(client.begin(crumbs.header("x-kept", "2").body(()).unwrap(), true).await.whole().await.0, 200);
    let head = upstream.request().await.head;
    assert_eq!(
        (head.fields("cookie"), head.fields("x-kept")),
        (vec!["a=1; b=2".to_owned()], vec!["1".to_owned(), "2".to_owned()])
    );
}

#[tokio::test]
async fn what_no_path_can_name_is_refused() {
    let (proxy, mut upstream) = super::answering(json("[]"), |_| {}).await;
    let mut client = crate::support::http2_client::Http2::to(proxy.clients).await;
    let connect = http::Request::builder().method(Method::CONNECT).uri("elsewhere:443").body(()).unwrap();
    let sending = client.begin(connect, false).await;
    let (status, _, body) = sending.whole().await;
    assert_eq!((status.as_u16(), error_code(&body).as_str()), (400, "bad_request"));
    let mut many = request(Method::GET, "/v1/models");
    for number in 0..101 {
        many = many.header(format!("x-{number}"), "1");
    }
    let (status, _, body) = client.begin(many.body(()).unwrap(), true).await.whole().await;
    assert_eq!((status.as_u16(), error_code(&body).as_str()), (431, "bad_request"));
    let large = request(Method::GET, "/v1/models").header("x-large", "v".repeat(70 << 10)).body(()).unwrap();
    let refused = client.begin(large, true).await.answer().await.map(|coming| coming.status.as_u16());
    assert!(matches!(refused, Ok(431) | Err(_)), "{refused:?}");
    assert_eq!(client.begin(get("/v1/models"), true).await.whole().await.0, 200);
    assert_eq!(
        (upstream.request().await.head.first_line().as_str(), upstream.unseen()),
        ("GET /v1/models HTTP/1.1", 0)
    );
}

/// A refusal of ours had a body, which over HTTP/2 is a protocol error.
#[tokio::test]
async fn refusal_of_a_head_request_has_no_body() {
    for wire in WIRES {
        let upstream = Upstream::start().await;
        let house = wire.proxy(proxy(&upstream)).await;
        let mut head = get("/v1/models");
        *head.method_mut() = Method::HEAD;
        head.headers_mut().insert("x-tidegate-priority", "urgent".parse().unwrap());
        let (status, _, body) = house.client().await.ask(head, "").await;
        assert_eq!((status.as_u16(), body.len()), (400, 0), "{wire:?}");
    }
}
