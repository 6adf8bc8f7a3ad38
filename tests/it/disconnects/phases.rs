//! A client that leaves in each phase of its call, before a strict provider that notices late: one slot, and it stays taken
//! for a while when somebody hangs up. Whoever comes next goes as soon as the slot is back, and not before: a request too
//! early would be a violation.

use std::time::Duration;

use tidegate::config::Settings;
use tidegate::sim::{Latency, Limits, Running, Sim};
use tidegate::time::{Instant, now};
use tidegate::upstream::settings::{Continuation, MidStream};

use crate::support::frames::handshake;
use crate::support::proxy::before;
use crate::support::{Client, Pace, Proxy, eventually, ms, post, within};

/// How long the provider takes to notice that somebody has hung up.
const LAG: Duration = Duration::from_millis(400);
/// What we allow for it, and for a machine that is busy just then.
const DELAY: Duration = Duration::from_millis(1_000);

struct Stage {
    sim: Running,
    proxy: Proxy,
    pace: Pace,
}

impl Stage {
    async fn new(set: impl FnOnce(&mut Settings)) -> Self {
        let limits = Limits { concurrency: Some(1), ..Limits::default() };
        let (latency, disconnect_lag) = (Latency::fixed(ms(20)), LAG);
        let settings =
            tidegate::sim::Settings { limits, latency, disconnect_lag, ..tidegate::sim::Settings::default() };
        let sim = Sim::start(settings).await.expect("a free port");
        let proxy = before(&sim.base_url()).concurrency(1).set(set).provider(|provider| {
            provider.limits.slot_release_delay_aborted = DELAY;
            provider.continuation = Continuation::Vllm;
        });
        Self { proxy: proxy.start().await, sim, pace: Pace::watch() }
    }

    /// A call with these wishes for the provider.
    async fn call(&self, stream: bool, wishes: &str) -> Client {
        let mut client = self.proxy.client().await;
        let prompt = r#"[{"role":"user","content":"a long story"}]"#;
        client.send(post(format!(r#"{{"model":"m","stream":{stream},"messages":{prompt},"sim":{wishes}}}"#))).await;
        client
    }

    async fn until_counted(&self, requests: u64) {
        eventually("the provider has it", || self.sim.stats().counted == requests).await;
    }

    /// The client has left now, `hangups` times all in all: its exchange is cancelled within a second, the slot is back after
    /// its delay and not before, and the provider has nothing to complain of.
    async fn comes_back(&self, phase: &str, hangups: u64) {
        let left = now();
        let next = self.call(false, "{}").await;
        let hung_up = async { eventually("the exchange is cut", || self.sim.stats().hangups == hangups).await };
        within(ms(1_000), &format!("{phase}: the exchange is cut"), hung_up).await;
        self.served_after_the_delay(phase, next, left).await;
        self.has_no_complaint(phase).await;
    }

    /// The client has left now, with nothing under way for it: the slot is free for whoever comes next.
    async fn costs_nothing(&self, phase: &str) {
        let left = now();
        let mut next = self.call(false, "{}").await;
        assert_eq!(next.answer().await.status(), 200);
        let took = self.pace.since(left);
        assert!(took < DELAY, "{phase}: the next one had to wait for {took:?}");
        self.has_no_complaint(phase).await;
    }

    async fn served_after_the_delay(&self, phase: &str, mut next: Client, left: Instant) {
        assert_eq!(next.answer().await.status(), 200);
        let (held_for, ours) = (left.elapsed(), self.pace.since(left));
        assert!(held_for >= DELAY - ms(20), "{phase}: the slot was back after {held_for:?}");
        assert!(ours < DELAY + ms(1_500), "{phase}: the slot was back only after {ours:?}");
    }

    async fn has_no_complaint(&self, phase: &str) {
        let stats = self.sim.stats();
        let violations = [stats.violations.window, stats.violations.concurrency, stats.violations.tokens];
        assert_eq!((violations, stats.in_flight_max), ([0; 3], 1), "{phase}: {stats:?}");
        self.proxy.until_metric("tidegate_in_flight", 0.0).await;
    }
}

fn leave(client: Client, resets: bool) {
    if resets { client.reset() } else { drop(client) }
}

#[tokio::test]
async fn client_that_leaves_before_the_head_has_its_slot_back_after_the_delay() {
    for (resets, stream) in [(false, false), (true, false), (false, true)] {
        let stage = Stage::new(|_| {}).await;
        let client = stage.call(stream, r#"{"latency_ms":30000}"#).await;
        stage.until_counted(1).await;
        leave(client, resets);
        stage.comes_back("before the head", 1).await;
    }
}

#[tokio::test]
async fn client_that_leaves_in_mid_stream_has_its_slot_back_after_the_delay() {
    for resets in [false, true] {
        let stage = Stage::new(|_| {}).await;
        let mut client = stage.call(true, r#"{"fault":"stall_mid_stream","fault_after":3}"#).await;
        client.head().await;
        client.event().await.expect("an event");
        leave(client, resets);
        stage.comes_back("mid-stream", 1).await;
    }
}

#[tokio::test]
async fn client_that_leaves_while_its_body_is_written_has_its_slot_back_after_the_delay() {
    let stage = Stage::new(|_| {}).await;
    let mut client = stage.proxy.client().await;
    client.send("POST /v1/files HTTP/1.1\r\nHost: t\r\nContent-Length: 1000000\r\n\r\n").await;
    client.send(vec![b'x'; 100_000]).await;
    // It is being written: its slot is taken.
    stage.proxy.until_metric("tidegate_slots_in_use{key=\"0\",upstream=\"default\"}", 1.0).await;
    let left = now();
    drop(client);
    // The provider never had all of it, and counts none of it.
    let next = stage.call(false, "{}").await;
    stage.served_after_the_delay("its body was written", next, left).await;
    stage.has_no_complaint("its body was written").await;
}

#[tokio::test]
async fn client_that_leaves_while_its_stream_is_continued_has_its_slot_back_after_the_delay() {
    let stage = Stage::new(|settings| settings.recovery.mid_stream = MidStream::Continue).await;
    let wishes = r#"{"fault":"reset_mid_stream","fault_after":3,"fault_once":true,"latency_ms":3000}"#;
    let mut client = stage.call(true, wishes).await;
    client.head().await;
    client.event().await.expect("an event");
    stage.until_counted(2).await;
    drop(client);
    stage.comes_back("continued", 1).await;
}

#[tokio::test]
async fn client_that_leaves_its_websocket_has_its_slot_back_after_the_delay() {
    for resets in [false, true] {
        let stage = Stage::new(|_| {}).await;
        let mut client = stage.proxy.client().await;
        client.send(handshake("")).await;
        client.reader().head().await.expect("a head");
        leave(client, resets);
        stage.comes_back("WebSocket", 1).await;
    }
}

#[tokio::test]
async fn client_that_leaves_the_line_or_a_backoff_costs_nothing() {
    let stage = Stage::new(|_| {}).await;
    let mut holder = stage.call(false, r#"{"latency_ms":3000}"#).await;
    stage.until_counted(1).await;
    for resets in [false, true] {
        let waiting = stage.call(false, "{}").await;
        stage.proxy.until_queued(1).await;
        leave(waiting, resets);
        within(ms(1_000), "its place is free", stage.proxy.until_queued(0)).await;
    }
    assert_eq!(holder.answer().await.status(), 200);
    assert_eq!(stage.sim.stats().counted, 1);
    stage.costs_nothing("in line").await;

    let slow = |settings: &mut Settings| (settings.retry.base, settings.retry.cap) = (ms(60_000), ms(60_000));
    let stage = Stage::new(slow).await;
    let client = stage.call(false, r#"{"fault":"status_503"}"#).await;
    stage.proxy.until_metric("tidegate_retries_total{reason=\"status\"}", 1.0).await;
    drop(client);
    stage.proxy.until_metric("tidegate_in_flight", 0.0).await;
    stage.costs_nothing("backing off").await;
}

/// A listener whose line is full: whoever connects waits for ever.
#[tokio::test]
async fn client_that_leaves_while_its_call_connects_has_its_slot_back_at_once() {
    let socket = tokio::net::TcpSocket::new_v4().expect("a socket");
    socket.bind("127.0.0.1:0".parse().expect("an address")).expect("a free port");
    let addr = socket.local_addr().expect("an address");
    let listener = socket.listen(1).expect("it listens");
    let mut waiting = Vec::new();
    while let Ok(stream) = tokio::time::timeout(ms(100), tokio::net::TcpStream::connect(addr)).await {
        waiting.push(stream.expect("a connection"));
    }
    let proxy = before(&format!("http://{addr}/v1")).concurrency(1).requests(1, ms(60_000)).start().await;
    for resets in [false, true] {
        let mut client = proxy.client().await;
        client.send(post("{}")).await;
        proxy.until_metric("tidegate_slots_in_use{key=\"0\",upstream=\"default\"}", 1.0).await;
        leave(client, resets);
        // Nothing was sent: slot and request are there again, without any delay.
        let free = proxy.until_metric("tidegate_slots_in_use{key=\"0\",upstream=\"default\"}", 0.0);
        within(ms(1_000), "the slot is back", free).await;
    }
    drop((listener, waiting));
}
