//! Who has many sockets gets no more than who has one.

use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use http::Method;
use tidegate::admission::settings::{Client, ClientKey};
use tidegate::sim::swarm::{Outcome, Swarm, Until, WorkerSpec};
use tidegate::sim::{Latency, Limits, Running, Settings, Sim};
use tidegate::time::{Duration, Tasks, now};
use tidegate::units::Secret;

use crate::support::http2_client::{Http2, request};
use crate::support::{Proxy, ms, proxy};

const MANY: usize = 500;
const REQUESTS: u32 = 40;
const WINDOW: Duration = Duration::from_secs(4);
const LASTS: Duration = Duration::from_millis(9_500);
const CALL: &str = r#"{"model":"sim-1","messages":[{"role":"user","content":"hello"}]}"#;

/// A provider that answers long before the next permit, so that whoever has one socket is back in line by then; and two
/// clients of the same weight before it.
async fn house() -> (Running, Proxy) {
    let limits = Limits { requests: Some(REQUESTS), window: WINDOW, ..Limits::default() };
    let sim = Sim::start(Settings { limits, latency: Latency::fixed(ms(10)), ..Settings::default() }).await.unwrap();
    let client = |name: &str| Client::new(name.to_owned(), ClientKey::Plain(Secret::new(key(name))));
    let proxy = proxy::before(&sim.base_url())
        .requests(REQUESTS, WINDOW)
        .provider(|provider| {
            provider.limits.burst = NonZeroU32::MIN;
            provider.limits.window_margin = ms(200);
        })
        .set(|settings| settings.clients = vec![client("many"), client("one")])
        .start()
        .await;
    (sim, proxy)
}

fn key(name: &str) -> String {
    format!("sk-{name}")
}

/// Half of what there was each, to a twentieth.
fn judge(sim: &Running, many: u32, one: u32) {
    println!("{many} turns for {MANY} sockets, {one} for one");
    let all = many + one;
    assert!(all >= REQUESTS * 3 / 2, "{all} in more than two windows");
    for turns in [many, one] {
        assert!((f64::from(turns) / f64::from(all) - 0.5).abs() <= 0.025, "{many} to {one}");
    }
    assert_eq!(sim.stats().violations.total(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn client_with_500_sockets_gets_what_one_with_a_single_socket_gets() {
    let (sim, proxy) = house().await;
    let group = |name: &str, count| WorkerSpec { api_key: Some(key(name)), ..WorkerSpec::new(name, count) };
    let workers = vec![group("many", MANY), group("one", 1)];
    let base_url = format!("http://{}/v1", proxy.clients);
    let until = Until::At(now() + LASTS);
    let report = Swarm { grace: Duration::ZERO, ..Swarm::new(&base_url, workers, until) }.run().await;
    assert_eq!(report.failures(), 0);
    let turns = |name| u32::try_from(report.group(name).unwrap().count(&Outcome::Ok)).unwrap();
    judge(&sim, turns("many"), turns("one"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn client_with_500_sockets_of_http2_gets_what_one_with_a_single_stream_gets() {
    let (sim, proxy) = house().await;
    let (tasks, turns) = (Tasks::default(), [Arc::default(), Arc::default()]);
    let asking: Vec<_> = std::iter::repeat_n(("many", &turns[0]), MANY)
        .chain([("one", &turns[1])])
        .map(|(name, turns)| tasks.spawn(ask_on(proxy.clients, name, Arc::clone(turns))))
        .collect();
    tokio::time::sleep(LASTS).await;
    asking.iter().for_each(|asking| asking.abort());
    let [many, one] = turns.map(|turns: Arc<AtomicU32>| turns.load(Ordering::Relaxed));
    judge(&sim, many, one);
}

/// One call after the other on a connection of its own, and how many of them were answered.
async fn ask_on(addr: SocketAddr, name: &str, turns: Arc<AtomicU32>) {
    let mut connection = Http2::to(addr).await;
    loop {
        let call = request(Method::POST, "/v1/chat/completions").header("content-type", "application/json");
        let call = call.header("authorization", format!("Bearer {}", key(name))).body(()).unwrap();
        let status = connection.send(call, CALL).await.status_in_the_end().await.unwrap();
        assert_eq!(status, 200);
        turns.fetch_add(1, Ordering::Relaxed);
    }
}
