//! The limits are halved in the real process, by a signal, while those of the provider are.

use std::path::Path;

use tidegate::sim::swarm::{Swarm, Until, WorkerSpec};
use tidegate::sim::{Latency, Limits, Settings, Sim};
use tidegate::time::{Duration, now};

use crate::support::client::post_to;
use crate::support::process::Process;
use crate::support::{Client, ms};

const WINDOW: Duration = Duration::from_secs(3);
const MARGIN: Duration = Duration::from_millis(300);
const JITTER: Duration = Duration::from_millis(150);

fn write(config: &Path, base_url: &str, requests: u32, concurrency: u32) {
    let text = format!(
        "[server]\nlisten = \"127.0.0.1:0\"\nadmin_listen = \"127.0.0.1:0\"\nstate_dir = {:?}\n\
         [telemetry]\nformat = \"json\"\n\
         [[upstreams]]\nname = \"provider\"\nbase_url = {base_url:?}\n\
         [upstreams.limits]\nrequests_per_minute = {requests}\nconcurrency = {concurrency}\nwindow = \"{}ms\"\n\
         window_margin = \"{}ms\"\n",
        config.with_file_name("state"),
        WINDOW.as_millis(),
        MARGIN.as_millis(),
    );
    std::fs::write(config, text).unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn limits_halved_by_a_signal_while_the_provider_halves_its_own_are_never_exceeded() {
    let limits = Limits { requests: Some(40), concurrency: Some(6), tokens: None, window: WINDOW };
    let latency = Latency { mean: ms(200), spread: 0.8 };
    let sim = Sim::start(Settings { limits, latency, arrival_jitter: JITTER, ..Settings::default() }).await.unwrap();
    let folder = tempfile::tempdir().unwrap();
    let config = folder.path().join("tidegate.toml");
    write(&config, &sim.base_url(), 40, 6);
    let mut process = Process::serve(&config).await;
    let base_url = format!("http://{}/v1", process.clients);
    let until = Until::At(now() + 4 * WINDOW);
    let swarm = Swarm { grace: ms(0), ..Swarm::new(&base_url, vec![WorkerSpec::new("batch", 30)], until) }.start();
    // In the middle of a window that is full, and again as soon as what is on its way has arrived.
    tokio::time::sleep(WINDOW + WINDOW / 2).await;
    write(&config, &sim.base_url(), 20, 3);
    process.signal("HUP");
    process.says("settings reloaded").await;
    tokio::time::sleep(JITTER + ms(50)).await;
    assert!(sim.stats().window_now > 20, "the window is fuller than it may be from now on");
    let halved = post_to("/sim/limits", "", r#"{"requests": 20, "concurrency": 3}"#);
    assert_eq!(Client::to(sim.addr()).await.ask(halved).await.status(), 200);
    let report = swarm.finish().await;
    let (stats, arrivals) = (sim.stats(), sim.arrivals());
    assert_eq!((stats.violations.total(), stats.refused_in_penalty), (0, 0), "{stats:?}");
    assert_eq!(report.failures(), 0, "{:?}", report.groups[0].outcomes);
    let last = arrivals.last().unwrap();
    let period = (WINDOW + MARGIN).as_secs_f64();
    let at_the_end = arrivals.iter().filter(|at| **at > last - period).count();
    println!("{} counted in all, {at_the_end} in the last period of {period} s", arrivals.len());
    assert!((17..=20).contains(&at_the_end), "{at_the_end} of 20: what is allowed is used");
}
