//! A provider that is down is down for everybody but those who run it, and comes back.

use std::io::ErrorKind;

use serde_json::json;
use tidegate::sim::{Latency, Limits, Outage, Settings, Stats};
use tidegate::time::now;
use tokio::io::AsyncReadExt;
use tokio::time::{sleep_until, timeout};

use super::{MODELS, Raw, chat, eventually, ms, post, sim};

const MINUTE: std::time::Duration = std::time::Duration::from_secs(60);

#[tokio::test]
async fn who_comes_while_it_is_down_gets_what_it_is_down_by() {
    let sim = sim(Settings::default()).await;
    let mut control = Raw::to(&sim).await;
    for (how, arrived) in [("reset", 1), ("503", 2), ("hang", 3), ("refuse", 3)] {
        let down = post("/sim/down", &json!({ "how": how, "for_ms": 60_000 }));
        assert_eq!(control.asks(&down).await.expect("control works"), 200);
        let mut client = Raw::to(&sim).await;
        match how {
            "503" => assert_eq!(client.asks(MODELS).await.expect("an answer"), 503),
            "hang" => {
                client.send(MODELS).await;
                eventually("it is counted", || sim.arrivals().len() == arrived).await;
                assert!(timeout(ms(200), client.0.read_u8()).await.is_err(), "not a byte");
            }
            _ => assert_eq!(client.asks(MODELS).await.expect_err("a reset").kind(), ErrorKind::ConnectionReset),
        }
        control.send("GET /sim/stats HTTP/1.1\r\n\r\n").await;
        let stats: Stats = serde_json::from_value(control.json().await).expect("statistics");
        assert_eq!((stats.requests, stats.requests_while_down), (arrived as u64, arrived as u64), "{how}");
        assert_eq!((stats.counted, sim.arrivals().len()), (arrived as u64, arrived), "{how}");
    }
    assert_eq!(sim.stats().connections_refused, 1);
    assert_eq!(Raw::to(&sim).await.asks("GET /sim/stats HTTP/1.1\r\n\r\n").await.expect("never refused"), 200);
    control.asks(&post("/sim/down", &json!({ "how": null }))).await.expect("control works");
    assert_eq!(Raw::to(&sim).await.asks(MODELS).await.expect("it is back"), 200);
}

#[tokio::test]
async fn what_runs_or_idles_when_it_goes_down_is_reset_where_new_requests_are() {
    let sim = sim(Settings { latency: Latency::fixed(MINUTE), ..Settings::default() }).await;
    for (outage, runs, idles) in [
        (Outage::Unavailable, true, true),
        (Outage::Hang, true, true),
        (Outage::Reset, false, true),
        (Outage::Refuse, false, false),
    ] {
        sim.come_back();
        let (mut running, mut idle) = (Raw::to(&sim).await, Raw::to(&sim).await);
        idle.asks(&chat("p", false, &json!({ "latency_ms": 0 }))).await.expect("answered");
        let counted = sim.stats().counted;
        running.send(&chat("p", true, &json!({}))).await;
        eventually("it runs", || sim.stats().counted == counted + 1).await;
        sim.go_down(outage, MINUTE);
        for (client, stays) in [(&mut running, runs), (&mut idle, idles)] {
            let end = timeout(ms(if stays { 200 } else { 10_000 }), client.0.read_u8()).await;
            assert_eq!(end.is_err(), stays, "{outage}: {end:?}");
            assert!(stays || end.expect("an end").expect_err("a reset").kind() == ErrorKind::ConnectionReset);
        }
    }
    eventually("all slots are given back", || sim.stats().in_flight == 0).await;
}

#[tokio::test]
async fn it_comes_back_by_itself_and_judges_who_came_meanwhile() {
    let limits = Limits { requests: Some(1), ..Limits::default() };
    let sim = sim(Settings { limits, ..Settings::default() }).await;
    sim.go_down(Outage::Unavailable, ms(2_000));
    let down = now();
    for _ in 0..2 {
        assert_eq!(Raw::to(&sim).await.asks(MODELS).await.expect("an answer"), 503);
    }
    assert_eq!(sim.stats().violations.window, 1, "it never forgives");
    sleep_until(down + ms(2_100)).await;
    assert!(Raw::to(&sim).await.asks(MODELS).await.is_err(), "and the penalty runs");
}

#[tokio::test]
async fn mistakes_in_how_to_be_down_are_told() {
    let sim = sim(Settings::default()).await;
    let mut control = Raw::to(&sim).await;
    for (wrong, told) in [
        (json!({ "how": "nap", "for_ms": 1 }), "refuse, reset, 503, hang"),
        (json!({ "how": "reset" }), "for_ms: expected milliseconds"),
        (json!({ "how": "reset", "for_ms": 0 }), "for_ms: expected milliseconds"),
        (json!({ "for_ms": 5 }), "how: say how to be down"),
        (json!({ "how": "reset", "for": "1s" }), "for: expected how or for_ms"),
    ] {
        control.send(&post("/sim/down", &wrong)).await;
        let answer = control.answer().await.expect("an answer");
        assert!(answer.starts_with("HTTP/1.1 400 ") && answer.contains(told), "{answer}");
    }
    assert_eq!(Raw::to(&sim).await.asks(MODELS).await.expect("it is not down"), 200);
}
