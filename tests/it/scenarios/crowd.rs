//! Ten thousand calls wait at the real process, and one person chats.

use std::path::PathBuf;

use http::Method;
use tidegate::sim::{Latency, Limits, Settings, Sim};
use tidegate::time::{Duration, Tasks, now};
use tokio_util::sync::CancellationToken;

use crate::support::client::post_to;
use crate::support::http2_client::{Http2, Sending, request};
use crate::support::process::Process;
use crate::support::proxy::metric;
use crate::support::{Client, ms, within};

/// A connection of HTTP/2 carries a thousand calls at most.
const CONNECTIONS: usize = 10;
const CALLS_EACH: usize = 1_000;
const REQUESTS: u32 = 8;
const WINDOW: Duration = Duration::from_secs(4);
const MARGIN: Duration = Duration::from_millis(200);
const CALL: &str = r#"{"model":"sim-1","messages":[{"role":"user","content":"hello"}]}"#;
const LIST: &str = "GET /admin/v1/queue?limit=10000 HTTP/1.1\r\nHost: localhost\r\n\r\n";
/// DESIGN §10: what a parked call costs beyond its body.
const PARKED_BYTES_MAX: u64 = 64 << 10;
/// To park ten thousand takes a while where nothing is optimised.
const PATIENCE: Duration = Duration::from_secs(90);
const LOW: &str = "tidegate_queue_depth{priority=\"low\"}";

fn config(folder: &tempfile::TempDir, base_url: &str) -> PathBuf {
    let file = folder.path().join("tidegate.toml");
    let text = format!(
        "[server]\nlisten = \"127.0.0.1:0\"\nadmin_listen = \"127.0.0.1:0\"\nstate_dir = {:?}\n\
         [telemetry]\nformat = \"json\"\nlog = \"warn,tidegate::commands=info\"\n\
         [admission]\nqueue_max = 20_000\nwait_max = \"6h\"\n\
         [[upstreams]]\nname = \"provider\"\nbase_url = {base_url:?}\n\
         [upstreams.limits]\nrequests_per_minute = {REQUESTS}\nburst = 1\nwindow = \"{}ms\"\nwindow_margin = \"{}ms\"\n",
        folder.path().join("state"),
        WINDOW.as_millis(),
        MARGIN.as_millis(),
    );
    std::fs::write(&file, text).unwrap();
    file
}

/// A thousand calls on one connection, which wait until they are dropped.
async fn park(process: &Process) -> (Http2, Vec<Sending>) {
    let mut connection = Http2::to(process.clients).await;
    let mut calls = Vec::with_capacity(CALLS_EACH);
    for _ in 0..CALLS_EACH {
        let call = request(Method::POST, "/v1/chat/completions").header("content-type", "application/json");
        calls.push(connection.send(call.header("x-tidegate-priority", "low").body(()).unwrap(), CALL).await);
    }
    (connection, calls)
}

async fn until_low(process: &Process, what: &str, is_it: impl Fn(f64) -> bool) {
    within(PATIENCE, what, async {
        while !is_it(metric(process.admin, LOW).await) {
            tokio::time::sleep(ms(20)).await;
        }
    })
    .await;
}

fn resident(process: &Process) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", process.id())).expect("it lives");
    let line = status.lines().find(|line| line.starts_with("VmRSS")).expect("a figure");
    line.split_whitespace().nth(1).expect("a number").parse::<u64>().expect("a number") << 10
}

/// Asks one thing after the other until it is told to stop: what each waited, in milliseconds.
async fn chat(mut client: Client, stop: CancellationToken) -> Vec<f64> {
    let mut waits = Vec::new();
    while !stop.is_cancelled() {
        let answer = client.ask(post_to("/v1/chat/completions", "x-tidegate-priority: high\r\n", CALL)).await;
        assert_eq!(answer.status(), 200, "{}", answer.text());
        let waited = answer.head.field("x-tidegate-queue-ms").expect("told");
        waits.push(waited.parse().expect("a number"));
    }
    waits
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_thousand_wait_and_a_thousand_leave_at_once_and_who_chats_notices_neither() {
    let limits = Limits { requests: Some(REQUESTS), window: WINDOW, ..Limits::default() };
    let sim = Sim::start(Settings { limits, latency: Latency::fixed(ms(10)), ..Settings::default() }).await.unwrap();
    let folder = tempfile::tempdir().unwrap();
    let process = Process::serve(&config(&folder, &sim.base_url())).await;
    let mut first = Client::to(process.clients).await;
    assert_eq!(first.ask(post_to("/v1/chat/completions", "", CALL)).await.status(), 200);
    let before = resident(&process);
    let mut parked = Vec::new();
    for _ in 0..CONNECTIONS {
        parked.push(park(&process).await);
    }
    until_low(&process, "nearly all wait", |waiting| waiting >= 9_900.0).await;
    let each = (resident(&process) - before) / (CONNECTIONS * CALLS_EACH) as u64;
    println!("{} KB for each parked call of {} B", each >> 10, CALL.len());
    assert!(each <= PARKED_BYTES_MAX, "{each} bytes each");

    let (tasks, stop) = (Tasks::default(), CancellationToken::new());
    let chatting = tasks.spawn(chat(first, stop.clone()));
    tokio::time::sleep(WINDOW).await;
    drop(parked.pop());
    until_low(&process, "a thousand have left", |waiting| waiting <= 9_000.0).await;
    tokio::time::sleep(WINDOW).await;
    stop.cancel();
    let waits = within(ms(10_000), "the last answer", chatting).await.unwrap();
    println!("who chats waited {waits:?} ms");
    let interval = (WINDOW + MARGIN).as_secs_f64() / f64::from(REQUESTS) * 1_000.0;
    assert!(waits.len() >= 10, "{waits:?}");
    assert!(waits.iter().all(|wait| *wait <= interval + 150.0), "{waits:?}, a permit leaves each {interval} ms");

    // All of them are listed, in the order of service. (How long that takes is for `make bench` to say.)
    let asked = now();
    let listed = Client::to(process.admin).await.ask(LIST).await;
    println!("{} bytes of a list in {:?}", listed.body.len(), asked.elapsed());
    assert_eq!(listed.status(), 200);
    let listed: serde_json::Value = serde_json::from_slice(&listed.body).unwrap();
    let calls = listed["calls"].as_array().unwrap();
    assert!((8_900..=9_000).contains(&calls.len()), "{} listed", calls.len());
    assert!(calls.iter().zip(1_u64..).all(|(call, position)| call["position"] == position));

    // Who comes now and cannot wait that long is told so at once.
    let hasty = post_to("/v1/chat/completions", "x-tidegate-priority: low\r\nx-tidegate-deadline-ms: 60000\r\n", CALL);
    let refused = Client::to(process.clients).await.ask(hasty).await;
    assert_eq!(refused.status(), 429);
    assert!(refused.error_code() == "deadline_unreachable", "{}", refused.text());
    assert_eq!(sim.stats().violations.total(), 0);
}
