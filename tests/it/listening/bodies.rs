//! Bodies over HTTP/2, under its flow control.

use bytes::Bytes;
use http::{HeaderMap, Method};

use super::{CHAT, WIRES, answering};
use crate::support::http2_client::{Http2, chat, error_code, request};
use crate::support::upstream::{answer, fine, json};
use crate::support::{Step, Upstream, ms, proxy, within};

use Step::{Read, Send};

const LARGE: usize = 5_000_000;

fn noise(length: usize) -> Vec<u8> {
    let mut random = fastrand::Rng::with_seed(11);
    std::iter::repeat_with(|| random.u8(..)).take(length).collect()
}

#[tokio::test]
async fn large_bodies_go_through_unchanged_both_ways() {
    let body = noise(LARGE);
    for wire in WIRES {
        // One that is kept, and one that streams.
        for path in ["/v1/chat/completions", "/v1/files"] {
            let upstream = Upstream::start().await;
            let house = wire.proxy(proxy(&upstream)).await;
            let echo = answer("200 OK", "Content-Type: application/octet-stream\r\n", &body);
            let mut upstream = upstream.script([vec![Read, Send(echo)]]);
            let request = request(Method::POST, path).body(()).unwrap();
            let (status, _, seen) = house.client().await.ask(request, body.clone()).await;
            assert_eq!(status, 200, "{wire:?} {path}");
            assert!(blake3::hash(&seen) == blake3::hash(&body), "{wire:?} {path}");
            let received = upstream.request().await.body;
            assert!(blake3::hash(&received) == blake3::hash(&body), "{wire:?} {path}");
        }
    }
}

#[tokio::test]
async fn length_that_does_not_match_the_body_is_refused_and_nothing_is_sent() {
    let (proxy, mut upstream) = answering(fine(), |_| {}).await;
    let mut client = Http2::to(proxy.clients).await;
    for (length, body) in [("3", CHAT), ("100", CHAT)] {
        let lying = request(Method::POST, "/v1/chat/completions").header("content-length", length).body(()).unwrap();
        // Our own h2 refuses to send more or less than it promised; so it promises nothing, and lies in parts.
        let mut sending = client.begin(lying, false).await;
        sending.body.send_data(Bytes::from_static(body.as_bytes()), true).unwrap();
        let error = sending.answer().await.map(|coming| coming.status).unwrap_err();
        assert_eq!(error.reason(), Some(h2::Reason::PROTOCOL_ERROR), "{length}");
    }
    assert_eq!(client.ask(chat(), CHAT).await.0, 200);
    assert_eq!((upstream.request().await.text().as_str(), upstream.unseen()), (CHAT, 0));
}

#[tokio::test]
async fn trailers_are_dropped_and_harm_nothing() {
    let (proxy, mut upstream) = answering(json("[]"), |_| {}).await;
    let mut client = Http2::to(proxy.clients).await;
    for path in ["/v1/chat/completions", "/v1/files"] {
        for _ in 0..2 {
            let mut sending = client.begin(request(Method::POST, path).body(()).unwrap(), false).await;
            sending.send(CHAT.into(), false).await.unwrap();
            let trailers = HeaderMap::from_iter([("x-trailer".parse().unwrap(), "1".parse().unwrap())]);
            sending.body.send_trailers(trailers).unwrap();
            assert_eq!(sending.whole().await.0, 200, "{path}");
            let seen = upstream.request().await;
            assert_eq!(
                (seen.text().as_str(), seen.head.has("x-trailer"), seen.head.has("trailer")),
                (CHAT, false, false)
            );
        }
    }
}

#[tokio::test]
async fn body_without_progress_gets_408_and_other_streams_go_on() {
    let upstream = Upstream::start().await;
    let proxy = proxy(&upstream).set(|settings| settings.server.body_timeout = ms(1_000)).start().await;
    let mut client = Http2::to(proxy.clients).await;
    let mut slow = client.begin(chat(), false).await;
    slow.send("{\"mod".into(), false).await.unwrap();
    let waiting = client.send(chat(), CHAT).await;
    let (mut line, _) = upstream.request().await;
    let (status, _, body) = within(ms(3_000), "the refusal", slow.whole()).await;
    assert_eq!((status.as_u16(), error_code(&body).as_str()), (408, "bad_request"));
    line.send(fine()).await;
    assert_eq!(waiting.whole().await.0, 200);
}

#[tokio::test]
async fn upload_without_progress_gets_408_and_its_exchange_is_cut() {
    let upstream = Upstream::start().await;
    let proxy = proxy(&upstream).set(|settings| settings.server.body_timeout = ms(1_000)).start().await;
    let mut client = Http2::to(proxy.clients).await;
    let mut slow = client.begin(request(Method::POST, "/v1/files").body(()).unwrap(), false).await;
    slow.send("half".into(), false).await.unwrap();
    let mut line = upstream.accept().await;
    line.head().await;
    assert_eq!(within(ms(3_000), "the refusal", slow.whole()).await.0, 408);
    within(ms(1_000), "the exchange is cut", line.gone()).await;
}
