//! Each fault is what it is called, breaks where it is told to, and comes as often as asked.

use serde_json::json;
use tidegate::sim::{Fault, FaultKind, Running, Settings};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
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
    let (stats, requests) = (sim.stats(), FaultKind::ALL.len() as u64 * 2);
    assert!(FaultKind::ALL.iter().all(|kind| stats.faults[kind.as_str()] == 2), "{stats:?}");
    assert_eq!((stats.counted, stats.completed, stats.hangups), (requests, 0, 4), "a stall ends with its client");
}

async fn sees_fault(client: &mut Raw, kind: FaultKind, stream: bool) {
    if let Some(status) = kind.status() {
        let answer = client.answer().await.expect("an answer");
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")) && answer.contains("\"error\":{"), "{answer}");
        assert_eq!(answer.contains("retry-after: 1\r\n"), kind == FaultKind::Status429);
        return;
    }
    if kind == FaultKind::Stall {
        let nothing = timeout(ms(300), client.0.read_u8()).await;
        assert!(nothing.is_err(), "a stall says nothing: {nothing:?}");
        return;
    }
    let (seen, reset) = match kind {
        FaultKind::StallMidStream => {
            let enough = |seen: &str| seen.matches("data: {").count() >= 3 || (!stream && seen.contains("\r\n\r\n{"));
            (client.until_silence(enough).await, false)
        }
        _ => client.until_the_end().await,
    };
    assert_eq!(reset, kind.as_str().starts_with("reset"), "{kind}");
    let (head, body) = seen.split_once("\r\n\r\n").unwrap_or(("", ""));
    assert_eq!(head.is_empty(), kind.as_str().ends_with("head"), "{kind}: {seen}");
    let begun = !kind.as_str().ends_with("head") && !kind.as_str().ends_with("first_event");
    assert_eq!(!body.is_empty(), begun, "{kind}: {seen}");
    assert!(!is_whole(seen.as_bytes()) && !body.contains("[DONE]\n"), "{kind}: {seen}");
    assert!(!begun || !stream || body.matches("data: {").count() >= 3, "{kind}: {seen}");
    assert_eq!(seen.contains(r#""finish_reason":"stop""#) && stream, kind == FaultKind::ResetLate && stream, "{seen}");
    let ends_in_an_event = !body.is_empty() && stream && !body.ends_with("\n\n\r\n");
    assert_eq!(ends_in_an_event, kind == FaultKind::HalfEvent && stream, "{kind}: {seen}");
}

#[tokio::test]
async fn stream_breaks_after_every_event_it_is_told_to_break_after() {
    let sim = sim(Settings::default()).await;
    let mut client = Raw::to(&sim).await;
    client.send(&chat("p", true, &json!({}))).await;
    let whole = client.answer().await.expect("whole");
    let events = whole.matches("data: ").count();
    for after in 0..=events {
        for kind in ["reset_mid_stream", "eof_mid_stream", "half_event"] {
            let mut client = Raw::to(&sim).await;
            client.send(&chat("p", true, &json!({ "fault": kind, "fault_after": after }))).await;
            let (seen, _) = client.until_the_end().await;
            let half = usize::from(kind == "half_event" && after < events);
            assert_eq!(seen.matches("data: ").count(), after + half, "{kind}: {seen}");
            assert!(!is_whole(seen.as_bytes()), "{kind} {after}: {seen}");
            assert_eq!(seen.contains("[DONE]\n"), after == events, "{kind} {after}: {seen}");
        }
    }
    let mut plain = Raw::to(&sim).await;
    plain.send(&chat("p", false, &json!({ "fault": "eof_mid_stream", "fault_after": 7 }))).await;
    let (seen, _) = plain.until_the_end().await;
    assert_eq!(seen.split_once("\r\n\r\n").expect("a head").1.len(), 7);
}

#[tokio::test]
async fn fault_that_is_wished_for_once_happens_once_and_never_to_the_rest_of_that_answer() {
    let faults = vec![Fault { kind: FaultKind::Status500, rate: 1.0 }];
    let sim = sim(Settings { faults, ..Settings::default() }).await;
    let directives = json!({ "fault": "reset_mid_stream", "fault_after": 3, "fault_once": true });
    for broken in [true, false, false] {
        let mut client = Raw::to(&sim).await;
        assert_eq!(client.asks(&chat("p", true, &directives)).await.is_err(), broken);
    }
    let messages = json!([{ "role": "user", "content": "p" }, { "role": "assistant", "content": "x", "prefix": true }]);
    let mut body = json!({ "model": "m", "messages": messages, "stream": true, "sim": directives });
    let mut client = Raw::to(&sim).await;
    assert_eq!(client.asks(&super::post("/v1/chat/completions", &body)).await.expect("whole"), 200);
    body["model"] = json!("other");
    assert!(Raw::to(&sim).await.asks(&super::post("/v1/chat/completions", &body)).await.is_err(), "its own first");
    let echo = "PUT /v1/files/a HTTP/1.1\r\nx-sim-fault: eof_before_head\r\nx-sim-fault-once: true\r\n\r\n";
    assert!(Raw::to(&sim).await.asks(echo).await.is_err());
    assert_eq!(Raw::to(&sim).await.asks(echo).await.expect("its fault is behind it"), 200);
    assert_eq!(sim.stats().faults["reset_mid_stream"], 2);
}

#[tokio::test]
async fn wishes_that_are_not_understood_are_told() {
    let sim = sim(Settings::default()).await;
    let mut client = Raw::to(&sim).await;
    for (wish, told) in [
        (json!({ "fault": "nap" }), "stall_mid_stream"),
        (json!({ "fault_after": -1 }), "sim.fault_after: expected a whole number, found -1"),
        (json!({ "fault_after": "soon" }), "found"),
    ] {
        client.send(&chat("p", true, &wish)).await;
        let answer = client.answer().await.expect("an answer");
        assert!(answer.starts_with("HTTP/1.1 400 ") && answer.contains(told), "{answer}");
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

/// A WebSocket that is to break after two messages: what came of so many that were sent, and whether it was reset; nothing
/// where it stays open.
async fn conversation(sim: &Running, fault: &str, messages: usize) -> (usize, Option<bool>) {
    const MESSAGE: [u8; 8] = [0x81, 0x82, 0, 0, 0, 0, b'h', b'i'];
    let mut client = Raw::to(sim).await;
    client.send(&format!("{HANDSHAKE}x-sim-fault: {fault}\r\nx-sim-fault-after: 2\r\n\r\n")).await;
    client.until_head().await;
    for _ in 0..messages {
        client.0.write_all(&MESSAGE).await.expect("it listens");
    }
    if fault == "stall_mid_stream" {
        return (client.until_silence(|seen| seen.chars().count() == 8).await.chars().count(), None);
    }
    let (seen, reset) = client.until_the_end().await;
    (seen.chars().count(), Some(reset))
}

const HANDSHAKE: &str = "GET /v1/realtime HTTP/1.1\r\nupgrade: websocket\r\nsec-websocket-key: a\r\n";

#[tokio::test]
async fn websocket_breaks_after_some_messages_without_a_close() {
    let sim = sim(Settings::default()).await;
    for (fault, messages, seen) in [
        ("reset_before_first_event", 0, (0, Some(true))),
        ("eof_before_first_event", 0, (0, Some(false))),
        ("reset_mid_stream", 2, (8, Some(true))),
        ("eof_mid_stream", 2, (8, Some(false))),
        ("stall_mid_stream", 3, (8, None)),
        ("half_event", 3, (10, Some(false))),
    ] {
        assert_eq!(conversation(&sim, fault, messages).await, seen, "{fault}");
    }
    assert!(Raw::to(&sim).await.asks(&format!("{HANDSHAKE}x-sim-fault: reset_before_head\r\n\r\n")).await.is_err());
    let refused = Raw::to(&sim).await.asks(&format!("{HANDSHAKE}x-sim-fault: status_529\r\n\r\n")).await;
    assert_eq!(refused.expect("an answer"), 529);
    assert_eq!(sim.stats().faults.len(), 8, "{:?}", sim.stats().faults);
}
