//! WebSockets: a permit for each, bytes untouched, and an end that says what happened.

mod crowd;

use tokio::io::AsyncWriteExt;

use crate::support::frames::{BINARY, PING, SWITCH, TEXT, close, frame, handshake, masked, masked_close, open};
use crate::support::upstream::{answer, fine};
use crate::support::wire::End;
use crate::support::{Client, Line, Proxy, Step, Upstream, ms, post, proxy, soon, within};

use Step::{Fin, Read, Reset, Send};

async fn opened() -> (Proxy, Upstream, Client, Line) {
    let upstream = Upstream::start().await;
    let proxy = proxy(&upstream).concurrency(1).start().await;
    let (client, line) = open(&proxy, &upstream).await;
    (proxy, upstream, client, line)
}

/// The slot has come back: another call is served.
async fn slot_is_free(proxy: &Proxy, upstream: &Upstream) {
    let mut next = proxy.client().await;
    next.send(post("{}")).await;
    let (mut line, _) = within(ms(1_000), "the slot is free", upstream.request()).await;
    line.send(fine()).await;
    assert_eq!(next.answer().await.status(), 200);
}

/// The one socket that there was has ended so, for log and metrics.
async fn assert_outcome(proxy: &Proxy, outcome: &str) {
    proxy.until_metric("tidegate_in_flight", 0.0).await;
    let sample = format!("tidegate_calls_total{{outcome=\"{outcome}\",priority=\"normal\",route=\"other\"}}");
    proxy.until_metric(&sample, 1.0).await;
}

/// What the client gets until its connection ends: these bytes, then a Close frame of ours.
fn assert_restart(bytes: &[u8]) {
    assert_eq!(bytes[..4], [0x88, u8::try_from(bytes.len() - 2).unwrap(), 0x03, 0xf4], "{bytes:?}");
    assert!(std::str::from_utf8(&bytes[4..]).is_ok_and(|reason| !reason.is_empty()), "{bytes:?}");
}

#[tokio::test]
async fn handshake_keeps_its_fields_and_its_answer_too() {
    let upstream = Upstream::start().await;
    let proxy = proxy(&upstream).start().await;
    let mut client = proxy.client().await;
    let fields = "Sec-WebSocket-Protocol: realtime, openai-beta\r\nSec-WebSocket-Extensions: permessage-deflate\r\n\
                  Authorization: Bearer k\r\nOrigin: http://a\r\nx-tidegate-priority: high\r\n";
    client.send(handshake(fields)).await;
    let (mut line, request) = upstream.request().await;
    assert_eq!(request.head.first_line(), "GET /v1/realtime?model=m HTTP/1.1");
    for (name, value) in [
        ("connection", "Upgrade"),
        ("upgrade", "websocket"),
        ("sec-websocket-version", "13"),
        ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="),
        ("sec-websocket-protocol", "realtime, openai-beta"),
        ("sec-websocket-extensions", "permessage-deflate"),
        ("authorization", "Bearer k"),
        ("origin", "http://a"),
    ] {
        assert_eq!(request.head.fields(name), [value], "{name}");
    }
    for name in ["content-length", "transfer-encoding", "x-tidegate-priority"] {
        assert!(!request.head.has(name), "{name}");
    }
    line.send(SWITCH.replace("\r\n\r\n", "\r\nSec-WebSocket-Protocol: realtime\r\nX-Mine: 1\r\n\r\n")).await;
    let head = client.reader().head().await.unwrap();
    assert_eq!(head.status(), 101);
    for (name, value) in [
        ("connection", "Upgrade"),
        ("upgrade", "websocket"),
        ("sec-websocket-accept", "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="),
        ("sec-websocket-protocol", "realtime"),
        ("x-mine", "1"),
        ("x-tidegate-attempts", "1"),
    ] {
        assert_eq!(head.fields(name), [value], "{name}");
    }
    assert!(head.has("x-tidegate-request-id") && !head.has("content-length") && !head.has("transfer-encoding"));
}

#[tokio::test]
async fn frames_pass_untouched_both_ways() {
    let (proxy, _upstream, mut client, mut line) = opened().await;
    let large = vec![0x88; 1 << 20];
    for (out, back) in [
        (masked(TEXT, "hello"), frame(TEXT, "hello, too")),
        (masked(BINARY, [0, 255, 0x88]), frame(BINARY, [0x88, 0])),
        (masked(PING, ""), frame(0x8a, "")),
        // A message in three fragments, with a ping between two of them, and reserved bits as compression sets them.
        (
            [masked(0x41, "a"), masked(PING, "p"), masked(0x00, "b"), masked(0x80, "")].concat(),
            [frame(0x41, "a"), frame(PING, "p"), frame(0x00, "b"), frame(0x80, "")].concat(),
        ),
        (masked(TEXT, "x".repeat(126)), frame(TEXT, "x".repeat(65_536))),
    ] {
        client.send(&out).await;
        assert_eq!(line.reader().exactly(out.len()).await.unwrap(), out);
        line.send(&back).await;
        assert_eq!(client.reader().exactly(back.len()).await.unwrap(), back);
    }
    // Large ones at the same time.
    let (out, back) = (masked(BINARY, &large), frame(BINARY, &large));
    let (mut client_reader, mut client_writer) = client.split();
    let (seen_out, seen_back) = {
        let reader = line.reader();
        let (mut reading, mut writing) = tokio::io::split(&mut reader.stream);
        let (out_length, back_length) = (out.len(), back.len());
        let (_, seen_out, (), seen_back) = tokio::join!(
            async { writing.write_all(&back).await.unwrap() },
            async {
                let mut seen = vec![0; out_length];
                soon("all of it", tokio::io::AsyncReadExt::read_exact(&mut reading, &mut seen)).await.unwrap();
                seen
            },
            client_writer.send(&out),
            async { client_reader.exactly(back_length).await.unwrap() },
        );
        (seen_out, seen_back)
    };
    assert!(seen_out == out && seen_back == back);
    proxy.until_metric("tidegate_in_flight", 1.0).await;
}

#[tokio::test]
async fn bytes_right_behind_the_101_are_passed_on() {
    let upstream = Upstream::start().await;
    let proxy = proxy(&upstream).start().await;
    let mut client = proxy.client().await;
    client.send(handshake("")).await;
    let (mut line, _) = upstream.request().await;
    let early = frame(TEXT, "session.created");
    line.send([SWITCH.as_bytes(), &early].concat()).await;
    assert_eq!(client.reader().head().await.unwrap().status(), 101);
    assert_eq!(client.reader().exactly(early.len()).await.unwrap(), early);
    line.send(frame(TEXT, "more")).await;
    assert_eq!(client.reader().exactly(6).await.unwrap(), frame(TEXT, "more"));
}

#[tokio::test]
async fn close_of_the_provider_keeps_its_code_and_gives_the_slot_back() {
    for (code, reason) in [(1000, ""), (1001, "going away"), (4000, "session expired")] {
        let (proxy, upstream, mut client, mut line) = opened().await;
        line.send(close(code, reason)).await;
        let said = close(code, reason);
        assert_eq!(client.reader().exactly(said.len()).await.unwrap(), said);
        client.send(masked_close(code, reason)).await;
        let replied = masked_close(code, reason);
        assert_eq!(line.reader().exactly(replied.len()).await.unwrap(), replied);
        line.fin().await;
        assert_eq!(client.until_the_end().await, (Vec::new(), End::Fin));
        slot_is_free(&proxy, &upstream).await;
        assert_outcome(&proxy, "ok").await;
        proxy.until_metric("tidegate_disconnects_total{phase=\"client\",upstream=\"default\"}", 0.0).await;
        proxy.until_metric("tidegate_disconnects_total{phase=\"websocket\",upstream=\"default\"}", 0.0).await;
    }
}

#[tokio::test]
async fn close_of_the_client_keeps_its_code_and_its_half_close() {
    for (code, reason) in [(1000, "done"), (4000, "mine"), (3001, "")] {
        let (proxy, upstream, mut client, mut line) = opened().await;
        client.send([masked(TEXT, "last"), masked_close(code, reason)].concat()).await;
        client.reader().stream.shutdown().await.unwrap();
        let (seen, end) = line.reader().until_the_end().await;
        assert_eq!((seen, end), ([masked(TEXT, "last"), masked_close(code, reason)].concat(), End::Fin));
        // The other direction goes on.
        let rest = [frame(TEXT, "the rest"), close(code, reason)].concat();
        line.send(&rest).await;
        assert_eq!(client.reader().exactly(rest.len()).await.unwrap(), rest);
        drop(line);
        assert_eq!(client.until_the_end().await, (Vec::new(), End::Fin));
        slot_is_free(&proxy, &upstream).await;
        assert_outcome(&proxy, "ok").await;
        proxy.until_metric("tidegate_disconnects_total{phase=\"client\",upstream=\"default\"}", 0.0).await;
    }
}

#[tokio::test]
async fn client_whose_upstream_is_lost_between_frames_gets_1012() {
    for says_so in [true, false] {
        let (proxy, upstream, mut client, mut line) = opened().await;
        line.send(frame(TEXT, "half of it")).await;
        assert_eq!(client.reader().exactly(12).await.unwrap(), frame(TEXT, "half of it"));
        if says_so {
            line.fin().await;
        } else {
            drop(line);
        }
        let (bytes, end) = client.until_the_end().await;
        assert_restart(&bytes);
        assert_eq!(end, End::Fin);
        proxy.until_metric("tidegate_disconnects_total{phase=\"websocket\",upstream=\"default\"}", 1.0).await;
        slot_is_free(&proxy, &upstream).await;
    }
}

#[tokio::test]
async fn client_whose_upstream_is_reset_gets_1012() {
    let (proxy, upstream, mut client, line) = opened().await;
    line.reset();
    let (bytes, end) = client.until_the_end().await;
    assert_restart(&bytes);
    assert_eq!(end, End::Fin);
    slot_is_free(&proxy, &upstream).await;
    assert_outcome(&proxy, "broken").await;
}

#[tokio::test]
async fn frame_that_breaks_off_is_cut_without_a_word() {
    let (proxy, upstream, mut client, mut line) = opened().await;
    let whole = frame(BINARY, [7; 300]);
    line.send(&whole[..200]).await;
    assert_eq!(client.reader().exactly(200).await.unwrap(), whole[..200]);
    line.fin().await;
    assert_eq!(client.until_the_end().await.0, b"");
    slot_is_free(&proxy, &upstream).await;
}

#[tokio::test]
async fn refused_handshake_is_the_providers_plain_answer() {
    let upstream = Upstream::start().await;
    let proxy = proxy(&upstream).start().await;
    let no = |status| answer(status, "Content-Type: application/json\r\nX-Mine: 1\r\n", "{\"error\":1}");
    let _upstream = upstream.script([
        vec![Read, Send(no("401 Unauthorized")), Read, Send(fine())],
        vec![Read, Send(no("404 Not Found")), Read, Send(fine())],
    ]);
    let mut client = proxy.client().await;
    for status in [401, 404] {
        let refused = client.ask(handshake("")).await;
        assert_eq!((refused.status(), refused.text().as_str()), (status, "{\"error\":1}"));
        assert_eq!(refused.head.fields("x-mine"), ["1"]);
        assert!(!refused.head.has("upgrade"));
    }
    // The connection is still good.
    assert_eq!(client.ask(post("{}")).await.status(), 200);
}

#[tokio::test]
async fn handshake_is_tried_again_before_101() {
    let upstream = Upstream::start().await;
    let proxy = proxy(&upstream).start().await;
    let busy = answer("429 Too Many Requests", "retry-after-ms: 50\r\n", "{}");
    let mut upstream = upstream.script([
        vec![Read, Reset],
        vec![Read, Fin],
        vec![Read, Send(busy)],
        vec![Read, Send(answer("503 Service Unavailable", "", ""))],
        vec![Read, Send(SWITCH.into())],
    ]);
    let mut client = proxy.client().await;
    client.send(handshake("")).await;
    let head = client.reader().head().await.unwrap();
    assert_eq!((head.status(), head.fields("x-tidegate-attempts")), (101, vec!["5".to_owned()]));
    assert_eq!(upstream.unseen(), 5);
}

#[tokio::test]
async fn switch_that_nobody_asked_for_is_no_answer() {
    let other = SWITCH.replace("websocket", "h2c");
    for (request, switch) in [(handshake("").into_bytes(), other.as_str()), (post("{}"), SWITCH)] {
        let upstream = Upstream::start().await;
        let proxy = proxy(&upstream).start().await;
        let first = [switch.as_bytes(), &fine()].concat();
        let mut upstream = upstream.script([vec![Read, Send(first)], vec![Read, Send(answer("401 No", "", ""))]]);
        let seen = proxy.client().await.ask(request).await;
        assert_eq!(seen.status(), 401, "{seen:?}");
        assert_eq!(upstream.unseen(), 2);
    }
}

#[tokio::test]
async fn open_socket_holds_its_slot() {
    let (proxy, upstream, first, line) = opened().await;
    let mut second = proxy.client().await;
    second.send(handshake("")).await;
    proxy.until_queued(1).await;
    assert!(upstream.is_untouched().await, "the slot is held");
    drop((first, line));
    let (mut line, _) = upstream.request().await;
    line.send(SWITCH).await;
    assert_eq!(second.reader().head().await.unwrap().status(), 101);
}

#[tokio::test]
async fn handshake_counts_as_a_request() {
    let upstream = Upstream::start().await;
    let proxy = proxy(&upstream).requests(2, ms(60_000)).start().await;
    let open = [open(&proxy, &upstream).await, open(&proxy, &upstream).await];
    let mut third = proxy.client().await;
    third.send(post("{}")).await;
    proxy.until_queued(1).await;
    drop(open);
    assert!(upstream.is_untouched().await, "the allowance is spent, whoever is still there");
}

#[tokio::test]
async fn client_that_leaves_frees_slot_and_upstream_within_a_second() {
    for leave in [drop, Client::reset] {
        let (proxy, upstream, client, mut line) = opened().await;
        leave(client);
        // The provider does not hang up by itself: it looks for its end, and sends nothing.
        within(ms(1_000), "the upstream is told", line.reader().until_the_end()).await;
        slot_is_free(&proxy, &upstream).await;
        assert_outcome(&proxy, "client_gone").await;
        proxy.until_metric("tidegate_disconnects_total{phase=\"client\",upstream=\"default\"}", 1.0).await;
        drop(line);
    }
}

#[tokio::test]
async fn client_that_leaves_before_101_costs_no_slot() {
    let upstream = Upstream::start().await;
    let proxy = proxy(&upstream).concurrency(1).start().await;
    let mut client = proxy.client().await;
    client.send(handshake("")).await;
    let (mut line, _) = upstream.request().await;
    drop(client);
    within(ms(1_000), "the upstream is told", line.gone()).await;
    slot_is_free(&proxy, &upstream).await;
}

#[tokio::test]
async fn reader_that_takes_nothing_is_cut() {
    let upstream = Upstream::start().await;
    let proxy = proxy(&upstream).concurrency(1).set(|all| all.server.write_timeout = ms(300)).start().await;
    let (client, mut line) = open(&proxy, &upstream).await;
    let flood = frame(BINARY, vec![0; 1 << 20]);
    soon("the proxy stops reading", async { while line.try_send(&flood).await.is_ok() {} }).await;
    slot_is_free(&proxy, &upstream).await;
    drop(client);
}

#[tokio::test]
async fn provider_that_takes_nothing_is_lost() {
    let upstream = Upstream::start().await;
    let proxy = proxy(&upstream).concurrency(1).set(|all| all.server.write_timeout = ms(300)).start().await;
    let (client, line) = open(&proxy, &upstream).await;
    let (mut reader, mut writer) = client.split();
    let flood = masked(BINARY, vec![0; 1 << 20]);
    let flooding = async {
        while writer.try_send(&flood).await {}
        std::future::pending::<()>().await;
    };
    let bytes = tokio::select! {
        (bytes, _) = reader.until_the_end() => bytes,
        () = flooding => unreachable!(),
    };
    assert_restart(&bytes);
    slot_is_free(&proxy, &upstream).await;
    drop(line);
}

#[tokio::test]
async fn socket_that_is_silent_stays_open() {
    let upstream = Upstream::start().await;
    let short = |all: &mut tidegate::config::Settings| {
        all.server.idle_timeout = ms(100);
        all.server.write_timeout = ms(100);
        all.server.header_timeout = ms(1_000); // within which it has to be opened
        all.server.body_timeout = ms(100);
        all.upstreams[0].idle_timeout = ms(100);
        all.upstreams[0].first_byte_timeout = ms(1_000);
    };
    let proxy = proxy(&upstream).set(short).start().await;
    let (mut client, mut line) = open(&proxy, &upstream).await;
    tokio::time::sleep(ms(1_500)).await; // longer than every time-out there is
    line.send(frame(TEXT, "still here")).await;
    assert_eq!(client.reader().exactly(12).await.unwrap(), frame(TEXT, "still here"));
}

#[tokio::test]
async fn socket_that_is_open_when_the_drain_time_ends_is_told_to_come_back() {
    let upstream = Upstream::start().await;
    let proxy = proxy(&upstream).set(|all| all.server.drain_timeout = ms(300)).start().await;
    let (mut client, mut line) = open(&proxy, &upstream).await;
    Client::to(proxy.admin)
        .await
        .ask("POST /admin/v1/drain HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n\r\n")
        .await;
    // It may still be used until then.
    line.send(frame(TEXT, "one more")).await;
    assert_eq!(client.reader().exactly(10).await.unwrap(), frame(TEXT, "one more"));
    let (bytes, end) = client.until_the_end().await;
    assert_restart(&bytes);
    assert_eq!(end, End::Fin);
    within(ms(1_000), "the upstream is closed", line.gone()).await;
}
