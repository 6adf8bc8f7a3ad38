//! `server.memory_max`: what is held for calls is bounded, and whoever finds no room is told so.

use bytes::Bytes;
use http::Method;

use super::{House, MIB, Provider, memory, other_is_served, tell};
use crate::support::client::post_to;
use crate::support::http2_client::{Http2, request};
use crate::support::process::Process;
use crate::support::proxy::metric;
use crate::support::upstream::{STREAM, answer, event, fine, finish};
use crate::support::wire::End;
use crate::support::{Client, Step, Upstream, get, ms, post, proxy, within};

use Step::{Read, Send};

/// How a call of the crowd ended.
#[derive(Debug, PartialEq, Eq)]
enum Fate {
    Served,
    ToldOf(&'static str),
}

/// Sends a large body and reads meanwhile, as clients do.
async fn sends(process: &Process, body: Bytes) -> Fate {
    let (mut reader, mut writer) = Client::to(process.clients).await.split();
    let head = format!("POST /v1/chat/completions HTTP/1.1\r\nHost: t\r\nContent-Length: {}\r\n\r\n", body.len());
    let sending = async {
        let _told_meanwhile = writer.try_send(head.as_bytes()).await && writer.try_send(&body).await;
    };
    let reading = async {
        let head = reader.head().await.expect("an answer, and no reset");
        (head.status(), reader.body(&head, true).await.expect("a whole answer").bytes)
    };
    let ((), (status, body)) = tokio::join!(sending, reading);
    let body = String::from_utf8(body).expect("text");
    match status {
        200 => Fate::Served,
        429 if body.contains("queue_full") && body.contains("server.memory_max") => Fate::ToldOf("server.memory_max"),
        429 if body.contains("queue_full") && body.contains("queue_bytes_max") => Fate::ToldOf("queue_bytes_max"),
        _ => panic!("{status}: {body}"),
    }
}

#[tokio::test]
async fn crowd_with_large_bodies_is_served_or_told_and_the_process_lives_within_its_memory() {
    const CROWD: usize = 200;
    let provider = Provider::start(ms(20)).await;
    let house = House::new();
    let (server, more) = (
        "memory_max = \"64MiB\"",
        "[upstreams.limits]\nconcurrency = 1\nslot_release_delay = \"0s\"\n[admission]\nqueue_bytes_max = \"48MiB\"",
    );
    // Over this limit allocations fail, which ends the process.
    let mut process = house.serve_under("ulimit -d 262144", &provider.base_url, server, more).await;
    other_is_served(&process).await;
    let largest = Bytes::from(vec![b' '; 8 << 20]);
    let crowd = (0..CROWD).map(|number| sends(&process, largest.slice(..(1 + number % 8) << 20)));
    let mut crowd: Vec<_> = crowd.map(Box::pin).collect();
    let mut fates: Vec<Option<Fate>> = crowd.iter().map(|_| None).collect();
    within(
        ms(60_000),
        "all have heard",
        std::future::poll_fn(|cx| {
            for (call, fate) in crowd.iter_mut().zip(&mut fates).filter(|(_, fate)| fate.is_none()) {
                if let std::task::Poll::Ready(heard) = call.as_mut().poll(cx) {
                    *fate = Some(heard);
                }
            }
            if fates.iter().all(Option::is_some) { std::task::Poll::Ready(()) } else { std::task::Poll::Pending }
        }),
    )
    .await;
    let count = |fate: Fate| fates.iter().flatten().filter(|&seen| *seen == fate).count();
    let (served, no_memory) = (count(Fate::Served), count(Fate::ToldOf("server.memory_max")));
    let no_place = count(Fate::ToldOf("queue_bytes_max"));
    tell(format_args!(
        "{served} served, {no_memory} found no memory, {no_place} no place; VmHWM {} MiB",
        memory(&process, "VmHWM") / MIB
    ));
    assert_eq!(served + no_memory + no_place, CROWD);
    assert!(served > 0 && no_memory > 0);
    drop(crowd);
    other_is_served(&process).await;
    for kind in ["bodies", "flights"] {
        within(ms(5_000), "all of it is given back", async {
            while metric(process.admin, &format!("tidegate_memory_bytes{{kind=\"{kind}\"}}")).await > 0.5 {
                tokio::time::sleep(ms(20)).await;
            }
        })
        .await;
    }
    assert!(memory(&process, "VmHWM") < 256 * MIB);
    process.signal("TERM");
    assert_eq!(process.ended().await.code(), Some(0));
}

#[tokio::test]
async fn body_that_finds_no_room_gets_429_that_names_the_setting() {
    let upstream = Upstream::start().await;
    let proxy = proxy(&upstream).set(|settings| settings.server.memory_max = MIB).start().await;
    let mut upstream = upstream.script([vec![Read, Send(fine()), Read, Send(fine())]]);
    for (target, framing) in
        [("/v1/chat/completions", "Content-Length: 2097152"), ("/v1/chat/completions", "Transfer-Encoding: chunked")]
    {
        let (mut reader, mut writer) = proxy.client().await.split();
        let body = [
            format!("POST {target} HTTP/1.1\r\nHost: t\r\n{framing}\r\n\r\n").into_bytes(),
            b"200000\r\n".to_vec(),
            vec![b' '; 2 << 20],
        ];
        let body = if framing.starts_with('T') { body.concat() } else { [&body[0][..], &body[2]].concat() };
        let sending = writer.try_send(&body);
        let reading = async {
            let head = reader.head().await.expect("a head");
            let body = reader.body(&head, true).await.expect("a body").bytes;
            (head, String::from_utf8(body).expect("text"))
        };
        let (_, (head, body)) = within(ms(5_000), "the refusal", async { tokio::join!(sending, reading) }).await;
        assert_eq!((head.status(), head.field("retry-after").is_some()), (429, true), "{framing}: {body}");
        assert!(body.contains("queue_full") && body.contains("server.memory_max") && body.contains("1MiB"), "{body}");
        proxy.until_metric("tidegate_memory_bytes{kind=\"bodies\"}", 0.0).await;
    }
    // What fits is served.
    let mut client = proxy.client().await;
    assert_eq!(client.ask(post(vec![b' '; 900_000])).await.status(), 200);
    assert_eq!(upstream.request().await.body.len(), 900_000);
    proxy.until_metric("tidegate_memory_bytes{kind=\"bodies\"}", 0.0).await;
    assert_eq!(client.ask(post("{}")).await.status(), 200);
}

#[tokio::test]
async fn bodies_that_have_only_begun_leave_room_for_others() {
    let upstream = Upstream::start().await;
    let proxy = proxy(&upstream).set(|settings| settings.server.memory_max = 4 * MIB).start().await;
    let _upstream = upstream.script([vec![Read, Send(fine())]]);
    let mut begun = Vec::new();
    for _ in 0..200 {
        let mut client = proxy.client().await;
        client.send("POST /v1/chat/completions HTTP/1.1\r\nHost: t\r\nContent-Length: 1000000\r\n\r\n{").await;
        begun.push(client);
    }
    proxy.until_metric_reaches("tidegate_connections", 200.0).await;
    proxy.until_metric_reaches("tidegate_memory_bytes{kind=\"bodies\"}", 200.0 * 1024.0).await;
    assert_eq!(proxy.client().await.ask(post(vec![b' '; 200_000])).await.status(), 200);
}

#[tokio::test]
async fn upload_that_finds_no_room_to_read_ahead_goes_all_the_same() {
    let upstream = Upstream::start().await;
    let settings = |settings: &mut tidegate::config::Settings| settings.server.memory_max = 100 << 10;
    let proxy = proxy(&upstream).concurrency(1).set(settings).start().await;
    let mut holder = proxy.client().await;
    holder.send(get("/v1/models", "")).await;
    let (mut line, _) = upstream.request().await;
    let mut body = vec![0; 3 << 20];
    fastrand::Rng::with_seed(3).fill(&mut body);
    let (mut reader, mut writer) = proxy.client().await.split();
    let whole = post_to("/v1/files", "", &body);
    let sending = async { assert!(writer.try_send(&whole).await) };
    let waiting = async {
        proxy.until_queued(1).await;
        proxy.until_metric_reaches("tidegate_memory_bytes{kind=\"bodies\"}", 1.0).await;
        line.send(fine()).await;
        let (request, mut line) = tokio::select! {
            request = line.request() => (request, line),
            (other, request) = upstream.request() => (request, other),
        };
        line.send(fine()).await;
        request
    };
    let ((), request) = within(ms(9_000), "the upload", async { tokio::join!(sending, waiting) }).await;
    assert!(blake3::hash(&request.body) == blake3::hash(&body), "{} bytes came", request.body.len());
    assert_eq!(reader.head().await.unwrap().status(), 200);
    proxy.until_metric("tidegate_memory_bytes{kind=\"bodies\"}", 0.0).await;
}

#[tokio::test]
async fn uploads_that_have_only_begun_leave_room_for_others() {
    let upstream = Upstream::start().await;
    let proxy = proxy(&upstream).set(|settings| settings.server.memory_max = 4 * MIB).start().await;
    let mut client = Http2::to(proxy.clients).await;
    let mut begun = Vec::new();
    for _ in 0..200 {
        begun.push(client.begin(request(Method::POST, "/v1/files").body(()).unwrap(), false).await);
    }
    proxy.until_metric_reaches("tidegate_in_flight", 200.0).await;
    let mut other = proxy.client().await;
    other.send(post(vec![b' '; 1 << 20])).await;
    let mut lines = Vec::new();
    for _ in 0..201 {
        let mut line = upstream.accept().await;
        let head = line.head().await;
        if head.first_line().contains("/chat/completions") {
            line.reader().body(&head, false).await.unwrap();
            line.send(fine()).await;
            return assert_eq!(other.answer().await.status(), 200);
        }
        lines.push(line);
    }
    panic!("the other's call never came");
}

#[tokio::test]
async fn answer_that_finds_no_room_streams_instead_of_failing() {
    let upstream = Upstream::start().await;
    let proxy = proxy(&upstream).set(|settings| settings.server.memory_max = 256 << 10).start().await;
    let text: String = ('a'..='w').cycle().take(500_000).collect();
    let large = answer("200 OK", "Content-Type: application/json\r\n", format!("\"{text}\""));
    let stream = format!("{STREAM}{}{}", event(&text), finish()).into_bytes();
    let _upstream = upstream.script([vec![Read, Send(large), Read, Send(stream), Read, Send(fine())]]);
    let mut client = proxy.client().await;
    let seen = client.ask(post("{}")).await;
    assert_eq!((seen.status(), seen.body.len()), (200, text.len() + 2));
    assert!(seen.text() == format!("\"{text}\""));
    assert_eq!(seen.head.field("content-length"), Some((text.len() + 2).to_string()));
    let seen = client.ask(post(r#"{"stream":true}"#)).await;
    assert!(seen.text().contains(&text) && seen.text().ends_with("data: [DONE]\n\n"));
    assert_eq!(client.ask(post("{}")).await.status(), 200);
    proxy.until_metric("tidegate_memory_bytes{kind=\"flights\"}", 0.0).await;
}

#[tokio::test]
async fn answer_that_streams_for_want_of_room_and_breaks_never_looks_complete() {
    let upstream = Upstream::start().await;
    let proxy = proxy(&upstream).set(|settings| settings.server.memory_max = 256 << 10).start().await;
    let mut client = proxy.client().await;
    client.send(get("/v1/models", "")).await;
    let (mut line, _) = upstream.request().await;
    line.send("HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 1000000\r\n\r\n").await;
    line.send(vec![b' '; 500_000]).await;
    let head = client.head().await;
    line.reset();
    let ended = client.reader().body(&head, true).await;
    assert!(matches!(ended, Err(End::Fin | End::Reset)), "it looked complete");
}
