//! The simulated provider is strict and fair, and the swarm notices every lie.

mod answers;
mod continuation;
mod faults;
mod outage;
mod reasoning;
mod swarm;

use std::io;
use std::time::Duration;

use serde_json::{Value, json};
use tidegate::sim::{Latency, Limits, Running, Settings, Sim, Stats, Violation, content};
use tidegate::time::now;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};

use crate::support::Pace;

const MODELS: &str = "GET /v1/models HTTP/1.1\r\nhost: sim\r\n\r\n";

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

fn limits(requests: Option<u32>, concurrency: Option<u32>, window: Duration) -> Limits {
    Limits { requests, concurrency, tokens: None, window }
}

async fn sim(settings: Settings) -> Running {
    Sim::start(settings).await.expect("a free port")
}

/// A client that shows the bytes as they came.
struct Raw(TcpStream);

impl Raw {
    async fn to(sim: &Running) -> Self {
        Self(TcpStream::connect(sim.addr()).await.expect("the sim listens"))
    }

    async fn send(&mut self, request: &str) {
        self.0.write_all(request.as_bytes()).await.expect("the sim reads");
    }

    async fn post(&mut self, path: &str, body: &Value) {
        self.send(&post(path, body)).await;
    }

    /// Whether the next request on a fresh or idle connection is answered, and with which status.
    async fn asks(&mut self, request: &str) -> io::Result<u16> {
        self.send(request).await;
        let answer = self.answer().await?;
        Ok(answer[9..12].parse().expect("a status"))
    }

    /// One whole answer, head and body.
    async fn answer(&mut self) -> io::Result<String> {
        let mut bytes = Vec::new();
        while !is_whole(&bytes) {
            if timeout(ms(10_000), self.0.read_buf(&mut bytes)).await.expect("an answer in time")? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
        Ok(String::from_utf8(bytes).expect("text"))
    }

    async fn answer_rest(&mut self) {
        let mut rest = Vec::new();
        while !rest.ends_with(b"0\r\n\r\n") {
            assert_ne!(self.0.read_buf(&mut rest).await.expect("the stream goes on"), 0);
        }
    }

    /// Until the head of an answer, and not a byte further.
    async fn until_head(&mut self) -> String {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(timeout(ms(10_000), self.0.read_u8()).await.expect("a head in time").expect("a head"));
        }
        String::from_utf8(head).expect("text")
    }

    /// Everything until it is enough and nothing more comes for a while.
    async fn until_silence(&mut self, enough: impl Fn(&str) -> bool) -> String {
        let mut bytes = Vec::new();
        loop {
            let seen = String::from_utf8_lossy(&bytes).into_owned();
            let patience = if enough(&seen) { 500 } else { 10_000 };
            match timeout(ms(patience), self.0.read_buf(&mut bytes)).await {
                Ok(read) => assert_ne!(read.expect("it stays open"), 0, "it stays open"),
                Err(_) => return seen,
            }
        }
    }

    async fn json(&mut self) -> Value {
        let answer = self.answer().await.expect("an answer");
        serde_json::from_str(answer.split_once("\r\n\r\n").expect("a head").1).expect("JSON")
    }

    /// Everything until the connection ends, and whether it ended with a reset.
    async fn until_the_end(&mut self) -> (String, bool) {
        let mut bytes = Vec::new();
        let end = timeout(ms(10_000), self.0.read_to_end(&mut bytes)).await.expect("an end in time");
        (String::from_utf8_lossy(&bytes).into_owned(), end.is_err())
    }
}

fn post(path: &str, body: &Value) -> String {
    let body = body.to_string();
    format!("POST {path} HTTP/1.1\r\nhost: sim\r\ncontent-length: {}\r\n\r\n{body}", body.len())
}

fn chat(prompt: &str, stream: bool, directives: &Value) -> String {
    let messages = json!([{ "role": "user", "content": prompt }]);
    post("/v1/chat/completions", &json!({ "model": "m", "messages": messages, "stream": stream, "sim": directives }))
}

fn is_whole(bytes: &[u8]) -> bool {
    let text = String::from_utf8_lossy(bytes);
    let Some((head, body)) = text.split_once("\r\n\r\n") else { return false };
    match head.split("content-length: ").nth(1) {
        Some(length) => body.len() >= length.lines().next().expect("a value").parse().expect("a number"),
        None => body.ends_with("0\r\n\r\n"),
    }
}

async fn eventually(what: &str, mut happened: impl FnMut() -> bool) {
    for _ in 0..500 {
        if happened() {
            return;
        }
        sleep(ms(10)).await;
    }
    panic!("{what}: not within five seconds");
}

// The window.

#[tokio::test]
async fn client_that_sends_exactly_what_is_allowed_is_never_refused() {
    let (window, allowed) = (ms(500), 5);
    let sim = sim(Settings { limits: limits(Some(allowed), None, window), ..Settings::default() }).await;
    let mut client = Raw::to(&sim).await;
    for _ in 0..3 {
        for _ in 0..allowed {
            assert_eq!(client.asks(MODELS).await.expect("answered"), 200);
        }
        sleep(window).await;
    }
    let stats = sim.stats();
    assert_eq!((stats.counted, stats.completed, stats.violations.total(), stats.window_max), (15, 15, 0, 5));
    let arrivals = sim.arrivals();
    assert!(arrivals.windows(6).all(|six| six[5] - six[0] >= window.as_secs_f64()), "{arrivals:?}");
}

#[tokio::test]
async fn one_request_too_many_is_reset_and_everything_is_refused_until_the_penalty_ends() {
    let settings = Settings { limits: limits(Some(2), None, ms(2_000)), penalty: ms(2_500), ..Settings::default() };
    let sim = sim(settings).await;
    for answered in [true, true, false, false] {
        let asked = Raw::to(&sim).await.asks(MODELS).await;
        match asked {
            Ok(status) => assert!(answered && status == 200),
            Err(error) => assert!(!answered && error.kind() == io::ErrorKind::ConnectionReset, "{error}"),
        }
    }
    let stats = sim.stats();
    assert_eq!((stats.violations.window, stats.violations.total(), stats.refused_in_penalty), (1, 1, 1));
    assert_eq!((stats.counted, stats.window_max), (4, 4), "refused requests count");
    sleep(ms(2_600)).await;
    assert_eq!(Raw::to(&sim).await.asks(MODELS).await.expect("the penalty is over"), 200);
}

#[tokio::test]
async fn request_is_counted_after_its_jitter() {
    let sim = sim(Settings { arrival_jitter: ms(300), seed: 1, ..Settings::default() }).await;
    let (pace, mut client) = (Pace::watch(), Raw::to(&sim).await);
    let mut delays = Vec::new();
    for _ in 0..5 {
        let (asked, begun) = (now(), sim.stats().uptime_seconds);
        client.asks(MODELS).await.expect("answered");
        let stopped = asked.elapsed().saturating_sub(pace.since(asked));
        delays.push(sim.stats().last_arrival.expect("counted") - begun - stopped.as_secs_f64());
    }
    assert!(delays.iter().all(|delay| *delay < 0.5), "{delays:?}");
    assert!(delays.iter().copied().fold(0.0, f64::max) > 0.05, "{delays:?}");
}

#[tokio::test]
async fn refusals_with_a_status_keep_the_connection_open() {
    for (on_violation, status) in [(Violation::TooMany, 429), (Violation::NotFound, 404)] {
        let sim = sim(Settings { limits: limits(Some(0), None, ms(1)), on_violation, ..Settings::default() }).await;
        let mut client = Raw::to(&sim).await;
        client.send(MODELS).await;
        let answer = client.answer().await.expect("answered");
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")) && answer.contains("\"error\":{"), "{answer}");
        assert_eq!(answer.contains("retry-after: 10\r\n"), status == 429, "{answer}");
        assert_eq!(client.asks(MODELS).await.expect("still open"), status);
    }
}

#[tokio::test]
async fn tokens_of_prompt_and_answer_count_together() {
    let used = content::deltas("m", "abcd", None).len() + 1;
    let tokens = Some(u32::try_from(used * 2).expect("small"));
    let sim = sim(Settings { limits: Limits { tokens, ..Limits::default() }, ..Settings::default() }).await;
    for answered in [true, true, false] {
        assert_eq!(Raw::to(&sim).await.asks(&chat("abcd", false, &json!({}))).await.is_ok(), answered);
    }
    assert_eq!((sim.stats().violations.tokens, sim.stats().tokens_max), (1, used as u64 * 3));
}

// The slots.

#[tokio::test]
async fn slot_is_taken_until_the_last_byte_of_the_answer() {
    let settings = Settings {
        limits: limits(None, Some(1), ms(60_000)),
        latency: Latency::fixed(ms(2_000)),
        penalty: Duration::ZERO,
        ..Settings::default()
    };
    let sim = sim(settings).await;
    let mut first = Raw::to(&sim).await;
    first.send(&chat("p", true, &json!({}))).await;
    let mut some = [0; 16];
    first.0.read_exact(&mut some).await.expect("the head comes");
    assert!(Raw::to(&sim).await.asks(MODELS).await.is_err(), "the stream still runs");
    first.answer_rest().await;
    assert_eq!(Raw::to(&sim).await.asks(MODELS).await.expect("the slot is free"), 200);
    let stats = sim.stats();
    assert_eq!((stats.violations.concurrency, stats.in_flight_max, stats.in_flight), (1, 2, 0));
    assert!(stats.in_full_seconds > 0.5, "{stats:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn whoever_has_read_the_last_byte_finds_the_slot_free() {
    let sim = sim(Settings { limits: limits(None, Some(1), ms(60_000)), ..Settings::default() }).await;
    let (mut one, mut other) = (Raw::to(&sim).await, Raw::to(&sim).await);
    for _ in 0..300 {
        assert_eq!(one.asks(MODELS).await.expect("answered"), 200);
        assert_eq!(other.asks(&chat("p", true, &json!({}))).await.expect("answered"), 200);
    }
    assert_eq!(sim.stats().in_flight_max, 1);
}

#[tokio::test]
async fn hang_up_holds_its_slot_for_the_disconnect_lag() {
    let settings = Settings {
        limits: limits(None, Some(1), ms(60_000)),
        disconnect_lag: ms(2_000),
        penalty: Duration::ZERO,
        ..Settings::default()
    };
    let (pace, sim) = (Pace::watch(), sim(settings).await);
    let mut leaver = Raw::to(&sim).await;
    leaver.send(&chat("p", false, &json!({ "latency_ms": 60_000 }))).await;
    eventually("the request is in flight", || sim.stats().in_flight == 1).await;
    let left = now();
    drop(leaver);
    eventually("the hang-up is noticed", || sim.stats().hangups == 1).await;
    assert!(pace.since(left) < ms(400), "noticed late");
    assert!(Raw::to(&sim).await.asks(MODELS).await.is_err(), "the slot is still taken");
    eventually("the slot is given back", || sim.stats().in_flight == 0).await;
    assert!(left.elapsed() >= ms(2_000), "given back early");
    assert_eq!(Raw::to(&sim).await.asks(MODELS).await.expect("free"), 200);
}

#[tokio::test]
async fn client_that_leaves_during_its_jitter_is_counted() {
    let sim = sim(Settings { arrival_jitter: ms(400), ..Settings::default() }).await;
    let mut leaver = Raw::to(&sim).await;
    leaver.send(MODELS).await;
    drop(leaver);
    eventually("the hang-up is noticed", || sim.stats().hangups == 1).await;
    assert_eq!(sim.stats().counted, 1);
}

#[tokio::test]
async fn client_that_leaves_inside_its_body_is_not_counted() {
    let sim = sim(Settings::default()).await;
    let mut leaver = Raw::to(&sim).await;
    leaver.send("POST /v1/x HTTP/1.1\r\ncontent-length: 10\r\n\r\nhalf").await;
    eventually("the head arrived", || sim.stats().in_flight == 1).await;
    drop(leaver);
    eventually("the hang-up is noticed", || sim.stats().hangups == 1).await;
    assert_eq!((sim.stats().requests, sim.stats().counted), (1, 0));
}

#[tokio::test]
async fn each_key_has_limits_of_its_own_where_asked() {
    let settings = Settings { limits: limits(Some(1), None, ms(60_000)), per_key: true, ..Settings::default() };
    let sim = sim(settings).await;
    let request = |key: &str| format!("GET /v1/models HTTP/1.1\r\nauthorization: Bearer {key}\r\n\r\n");
    for (key, answered) in [("a", true), ("b", true), ("a", false), ("b", false), ("c", true)] {
        assert_eq!(Raw::to(&sim).await.asks(&request(key)).await.is_ok(), answered, "{key}");
    }
    assert_eq!(sim.stats().violations.window, 2);
}

// What is asked of the simulation.

#[tokio::test]
async fn limits_and_faults_change_while_it_runs() {
    let sim = sim(Settings { penalty: Duration::ZERO, ..Settings::default() }).await;
    let mut control = Raw::to(&sim).await;
    assert_eq!(control.asks(MODELS).await.expect("answered"), 200);
    assert_eq!(control.asks(&post("/sim/limits", &json!({ "requests": 1 }))).await.expect("answered"), 200);
    assert!(Raw::to(&sim).await.asks(MODELS).await.is_err(), "what was counted before the change still counts");
    control.asks(&post("/sim/limits", &json!({ "requests": null, "window": "2s" }))).await.expect("answered");
    control.asks(&post("/sim/faults", &json!({ "status_503": 1.0 }))).await.expect("answered");
    assert_eq!(Raw::to(&sim).await.asks(MODELS).await.expect("answered"), 503);
    for (path, wrong) in [
        ("/sim/limits", json!({ "requests": -1 })),
        ("/sim/limits", json!({ "window": "2" })),
        ("/sim/limits", json!({ "rpm": 1 })),
        ("/sim/faults", json!({ "nap": 0.5 })),
        ("/sim/faults", json!([])),
    ] {
        assert_eq!(control.asks(&post(path, &wrong)).await.expect("answered"), 400, "{path} {wrong}");
    }
    control.send("GET /sim/stats HTTP/1.1\r\n\r\n").await;
    let stats: Stats = serde_json::from_value(control.json().await).expect("statistics");
    assert_eq!((stats.requests, stats.violations.window, stats.faults["status_503"]), (3, 1, 1));
    control.asks(&post("/sim/reset", &json!({}))).await.expect("answered");
    let stats = sim.stats();
    assert_eq!((stats.requests, stats.violations.total(), stats.first_arrival), (0, 0, None));
}

#[tokio::test]
async fn provider_stops_when_its_handle_is_dropped() {
    let sim = sim(Settings::default()).await;
    let (addr, mut client) = (sim.addr(), Raw::to(&sim).await);
    assert_eq!(client.asks(MODELS).await.expect("answered"), 200);
    drop(sim);
    assert!(client.answer().await.is_err(), "open connections are closed");
    for _ in 0..500 {
        if TcpStream::connect(addr).await.is_err() {
            return;
        }
        sleep(ms(10)).await;
    }
    panic!("it still listens");
}
