//! Each fault is what it is called, and comes as often as asked.

use serde_json::json;
use tidegate::sim::{Fault, FaultKind, Settings};
use tokio::io::AsyncReadExt;
use tokio::time::timeout;

use super::{MODELS, Raw, chat, eventually, is_whole, ms, sim};

#[tokio::test]
async fn each_fault_looks_as_it_is_called() {
    let sim = sim(Settings::default()).await;
    for stream in [true, false] {
        for kind in FaultKind::ALL {
            let mut client = Raw::to(&sim).await;
            client.send(&chat("p", stream, &json!({ "fault": kind.as_str(), "latency_ms": 50 }))).await;
            sees_fault(&mut client, kind, stream).await;
        }
    }
    eventually("all slots are given back", || sim.stats().in_flight == 0).await;
    let stats = sim.stats();
    assert!(FaultKind::ALL.iter().all(|kind| stats.faults[kind.as_str()] == 2), "{stats:?}");
    assert_eq!((stats.counted, stats.completed, stats.hangups), (20, 0, 2), "a stall ends with its client");
}

async fn sees_fault(client: &mut Raw, kind: FaultKind, stream: bool) {
    match kind {
        FaultKind::Stall => {
            let nothing = timeout(ms(300), client.0.read_u8()).await;
            assert!(nothing.is_err(), "a stall says nothing: {nothing:?}");
        }
        FaultKind::Status500 | FaultKind::Status503 | FaultKind::Status429 => {
            let answer = client.answer().await.expect("an answer");
            assert!(kind.as_str().ends_with(&answer[9..12]) && answer.contains("\"error\":{"), "{answer}");
            assert_eq!(answer.contains("retry-after: 1\r\n"), kind == FaultKind::Status429);
        }
        _ => {
            let (seen, reset) = client.until_the_end().await;
            assert_eq!(reset, kind.as_str().starts_with("reset"), "{kind}");
            let (head, body) = seen.split_once("\r\n\r\n").unwrap_or(("", ""));
            let (before_head, mid) = (kind.as_str().ends_with("head"), kind.as_str().ends_with("mid_stream"));
            assert_eq!(head.is_empty(), before_head, "{kind}: {seen}");
            assert_eq!(body.is_empty(), !mid, "{kind}: {seen}");
            assert!(!is_whole(seen.as_bytes()) && !body.contains("[DONE]\n"), "{kind}: {seen}");
            assert!(!mid || !stream || body.matches("data: {").count() >= 3, "{kind}: {seen}");
        }
    }
}

#[tokio::test]
async fn faults_come_at_their_rate() {
    let faults = vec![Fault { kind: FaultKind::Status500, rate: 0.25 }];
    let sim = sim(Settings { faults, seed: 7, ..Settings::default() }).await;
    let mut client = Raw::to(&sim).await;
    for _ in 0..400 {
        client.asks(MODELS).await.expect("answered");
    }
    let failed = sim.stats().faults["status_500"];
    assert!((60..140).contains(&failed), "{failed} of 400");
    sim.set_faults(Vec::new());
    assert_eq!(client.asks(MODELS).await.expect("answered"), 200);
}
