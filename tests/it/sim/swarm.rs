//! The swarm notices every lie, and calls every break a break.

use serde_json::{Value, json};
use tidegate::sim::swarm::{Outcome, Streaming, Swarm, Until, WorkerSpec};
use tidegate::sim::{Fault, FaultKind, Latency, Limits, Settings, content};
use tidegate::time::now;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use super::{ms, sim};

fn worker(stream: Streaming) -> WorkerSpec {
    WorkerSpec { stream, ..WorkerSpec::new("workers", 1) }
}

#[tokio::test]
async fn swarm_finds_a_faultless_provider_faultless() {
    let sim = sim(Settings { latency: Latency { mean: ms(10), spread: 0.8 }, ..Settings::default() }).await;
    let workers = vec![WorkerSpec { body_bytes: 100_000, ..WorkerSpec::new("heavy", 2) }, WorkerSpec::new("light", 6)];
    let report = Swarm::new(&sim.base_url(), workers, Until::Calls(10)).run().await;
    assert_eq!((report.ok(), report.failures()), (80, 0), "{:?}", report.groups[0].outcomes);
    assert_eq!(report.group("light").expect("reported").total_ms.count, 60);
    assert_eq!(sim.stats().completed, 80);
}

#[tokio::test]
async fn swarm_asks_for_embeddings_and_knows_a_cut_one() {
    let sim = sim(Settings::default()).await;
    let asking = WorkerSpec { embeddings: 0.5, ..WorkerSpec::new("w", 4) };
    let run = || Swarm::new(&sim.base_url(), vec![asking.clone()], Until::Calls(25)).run();
    let report = run().await;
    assert_eq!((report.ok(), report.failures()), (100, 0), "{:?}", report.groups[0].outcomes);
    let embeddings = sim.stats().paths["/v1/embeddings"];
    assert!((30..70).contains(&embeddings), "{embeddings}");
    sim.set_faults(vec![Fault { kind: FaultKind::EofMidStream, rate: 1.0 }]);
    assert_eq!((run().await.broken(), sim.stats().paths["/v1/embeddings"]), (100, 2 * embeddings));
}

#[tokio::test]
async fn groups_of_a_swarm_bear_keys_of_their_own() {
    let limits = Limits { requests: Some(1), ..Limits::default() };
    let sim = sim(Settings { limits, per_key: true, ..Settings::default() }).await;
    let group = |key: &str| WorkerSpec { api_key: Some(key.to_owned()), ..WorkerSpec::new(key, 1) };
    let run = |workers| Swarm::new(&sim.base_url(), workers, Until::Calls(1)).run();
    assert_eq!(run(vec![group("a"), group("b")]).await.failures(), 0, "each key may ask once");
    assert_eq!(run(vec![group("a")]).await.failures(), 1, "and not twice");
}

#[tokio::test]
async fn swarm_sees_every_fault_as_what_it_is() {
    let stalls = [FaultKind::Stall, FaultKind::StallMidStream];
    let faults = FaultKind::ALL.into_iter().filter(|kind| !stalls.contains(kind));
    let faults = faults.map(|kind| Fault { kind, rate: 0.06 }).collect();
    let sim = sim(Settings { faults, ..Settings::default() }).await;
    let asking = WorkerSpec { include_usage: 0.5, reasoning: 0.2, ..WorkerSpec::new("w", 4) };
    let report = Swarm::new(&sim.base_url(), vec![asking], Until::Calls(75)).run().await;
    let faults = sim.stats().faults;
    let seen = |wanted: &dyn Fn(&str) -> bool| -> u64 {
        faults.iter().filter(|(kind, _)| wanted(kind)).map(|(_, count)| count).sum()
    };
    assert_eq!(report.lies(), 0, "{:?}", report.groups[0].outcomes);
    let before_head = |kind: &str| kind.ends_with("_before_head");
    let statuses = |kind: &str| kind.starts_with("status_");
    assert_eq!(report.count(|outcome| *outcome == Outcome::Transport), seen(&before_head));
    assert_eq!(report.count(|outcome| matches!(outcome, Outcome::Refused { .. })), seen(&statuses));
    let broken = report.count(|outcome| *outcome == Outcome::Broken { code: "transport".to_owned() });
    assert_eq!(broken, seen(&|kind| !before_head(kind) && !statuses(kind)));
    assert_eq!((report.broken(), faults.len()), (broken, 15), "{faults:?}");
}

#[tokio::test]
async fn swarm_asks_for_usage_and_reasoning_as_often_as_it_is_to_and_each_time_the_same() {
    let asking = WorkerSpec { include_usage: 0.5, reasoning: 0.2, ..worker(Streaming::Always) };
    let run = |spec: WorkerSpec| async move {
        let sim = sim(Settings::default()).await;
        let report = Swarm::new(&sim.base_url(), vec![spec], Until::Calls(200)).run().await;
        assert_eq!((report.ok(), report.failures()), (200, 0), "{:?}", report.groups[0].outcomes);
        sim.stats().tokens_max
    };
    let (once, again) = (run(asking.clone()).await, run(asking.clone()).await);
    assert_eq!(once, again);
    let unreasoned = run(WorkerSpec { reasoning: 0.0, ..asking.clone() }).await;
    let reasoned = run(WorkerSpec { reasoning: 1.0, ..asking }).await;
    let share = (once - unreasoned) as f64 / (reasoned - unreasoned) as f64;
    assert!((0.1..0.3).contains(&share), "{share} of the thoughts");
}

#[tokio::test]
async fn swarm_cuts_off_calls_that_outlast_the_grace() {
    let sim = sim(Settings { latency: Latency::fixed(ms(60_000)), ..Settings::default() }).await;
    let until = Until::At(now() + ms(100));
    let swarm = Swarm { grace: ms(100), ..Swarm::new(&sim.base_url(), vec![worker(Streaming::Half)], until) };
    let report = swarm.run().await;
    assert_eq!(report.count(|outcome| *outcome == Outcome::Unfinished), 1);
    let until = Until::Calls(1);
    let hasty = Swarm { request_timeout: ms(100), ..Swarm::new(&sim.base_url(), vec![worker(Streaming::Half)], until) };
    assert_eq!(hasty.run().await.count(|outcome| *outcome == Outcome::TimedOut), 1);
}

/// What the swarm makes of an answer that a scripted server gives to its one call.
async fn judged(stream: Streaming, answer: &str) -> Outcome {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let addr = listener.local_addr().expect("bound");
    let script = async {
        let (mut client, _) = listener.accept().await.expect("the swarm connects");
        let mut request = Vec::new();
        while !request.ends_with(b"}") {
            client.read_buf(&mut request).await.expect("the swarm asks");
        }
        client.write_all(answer.as_bytes()).await.expect("the swarm reads");
    };
    let swarm = Swarm::new(&format!("http://{addr}/v1"), vec![worker(stream)], Until::Calls(1));
    let (report, ()) = tokio::join!(swarm.run(), script);
    report.groups[0].samples[0].outcome.clone()
}

#[tokio::test]
async fn swarm_tells_lies_from_breaks() {
    let truth = content::deltas("sim-1", "call 0 of worker 0 of workers, swarm 0", None);
    let chunk = |delta: Value, finish: Value| {
        let choice = json!({ "index": 0, "delta": delta, "finish_reason": finish });
        format!("data: {}\n\n", json!({ "id": "c", "created": 1, "choices": [choice] }))
    };
    let event = |text: &str| chunk(json!({ "content": text }), Value::Null);
    let role = chunk(json!({ "role": "assistant", "content": "" }), Value::Null);
    let stop = format!("{}data: [DONE]\n\n", chunk(json!({}), json!("stop")));
    let error = "data: {\"error\":{\"code\":\"upstream_disconnected\"}}\n\n";
    let (whole, half) = (event(&truth.concat()), event(&truth[0]));
    let broken = |code: &str| Outcome::Broken { code: code.to_owned() };
    let heads =
        |length: usize| format!("HTTP/1.1 200 OK\r\nx-tidegate-queue-ms: 5\r\ncontent-length: {length}\r\n\r\n");
    for (body, missing, outcome) in [
        (format!("{role}{whole}{stop}"), 0, Outcome::Ok),
        (format!("{role}{half}{stop}"), 0, Outcome::FalselyComplete),
        (format!("{role}{half}"), 0, Outcome::FalselyComplete),
        (format!("{role}{whole}{whole}{stop}"), 0, Outcome::Corrupt),
        (format!("{role}{half}{error}"), 0, broken("upstream_disconnected")),
        (format!("{role}{half}"), 1, broken("transport")),
        (format!("{role}{half}{role}{}{stop}", event(&truth[1..].concat())), 0, Outcome::Corrupt),
    ] {
        let answer = format!("{}{body}", heads(body.len() + missing));
        assert_eq!(judged(Streaming::Always, &answer).await, outcome, "{answer}");
    }
    let plain = |text: &str| {
        let asked = content::tokens("You are a simulation.call 0 of worker 0 of workers, swarm 0") as usize;
        let usage = json!({
            "prompt_tokens": asked, "completion_tokens": truth.len(), "total_tokens": asked + truth.len()
        });
        let choice = json!({ "message": { "content": text }, "finish_reason": "stop" });
        let body = json!({ "choices": [choice], "usage": usage }).to_string();
        format!("{}{body}", heads(body.len()))
    };
    assert_eq!(judged(Streaming::Never, &plain(&truth.concat())).await, Outcome::Ok);
    assert_eq!(judged(Streaming::Never, &plain(&truth[0])).await, Outcome::FalselyComplete);
    assert_eq!(judged(Streaming::Never, &plain("other")).await, Outcome::Corrupt);
    assert_eq!(judged(Streaming::Never, "").await, Outcome::Transport);
}
