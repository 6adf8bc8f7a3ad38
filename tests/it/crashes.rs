//! Killed in the middle of everything and started again at once: the provider never sees a request too many.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use tidegate::sim::swarm::{Swarm, Until, WorkerSpec};
use tidegate::sim::{Latency, Limits, Running, Settings, Sim};
use tidegate::time::{Duration, now};

use crate::support::process::Process;
use crate::support::{eventually, ms};

/// How often it is killed.
const KILLS: usize = 20;
/// What the provider allows: slots for twice what its window lets through, so that both bind whoever forgets.
const ALLOWED: Limits =
    Limits { requests: Some(20), concurrency: Some(5), tokens: None, window: Duration::from_secs(10) };

async fn provider() -> Running {
    let settings = Settings {
        limits: ALLOWED,
        latency: Latency { mean: ms(1_250), spread: 0.2 },
        arrival_jitter: ms(50),
        disconnect_lag: ms(800),
        penalty: Duration::ZERO,
        ..Settings::default()
    };
    Sim::start(settings).await.expect("a free port")
}

/// Settings that keep to it, with the slots of killed exchanges held for longer than the provider needs to notice.
fn settings(folder: &Path, provider: &str, listen: SocketAddr, admin_listen: SocketAddr) -> PathBuf {
    let (config, state) = (folder.join("tidegate.toml"), folder.join("state"));
    let text = format!(
        "[server]\nlisten = \"{listen}\"\nadmin_listen = \"{admin_listen}\"\nstate_dir = {state:?}\n\
         [telemetry]\nformat = \"json\"\nlog = \"warn,tidegate::commands=info\"\n\
         [[upstreams]]\nname = \"provider\"\nbase_url = {provider:?}\n\
         [upstreams.limits]\nrequests_per_minute = 20\nwindow = \"10s\"\nconcurrency = 5\norphan_hold = \"1500ms\"\n",
    );
    std::fs::write(&config, text).expect("writable");
    config
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn twenty_kills_in_a_busy_window_are_no_violation() {
    let (sim, folder) = (provider().await, tempfile::tempdir().expect("a folder"));
    let any = "127.0.0.1:0".parse().expect("an address");
    let mut process = Process::serve(&settings(folder.path(), &sim.base_url(), any, any)).await;
    let config = settings(folder.path(), &sim.base_url(), process.clients, process.admin);
    let base_url = format!("http://{}/v1", process.clients);
    let until = Until::At(now() + Duration::from_secs(600));
    let swarm = Swarm::new(&base_url, vec![WorkerSpec::new("busy", 12)], until).start();
    let mut luck = fastrand::Rng::with_seed(4);
    for kill in 0..KILLS {
        eventually("exchanges run at the provider", || sim.stats().in_flight >= 2).await;
        // Not a wait for anything: the kill is to hit whatever moment.
        tokio::time::sleep(ms(luck.u64(0..500))).await;
        process.signal("KILL");
        process.ended().await;
        process = Process::serve(&config).await;
        assert_eq!(sim.stats().violations.total(), 0, "at restart {kill}: {:?}", sim.stats());
    }
    let completed = sim.stats().completed;
    eventually("calls are served again", || sim.stats().completed >= completed + 5).await;
    drop(swarm);
    let stats = sim.stats();
    assert_eq!(stats.violations.total(), 0, "{stats:?}");
    assert!(stats.window_max <= 20 && stats.in_flight_max <= 5, "{stats:?}");
    assert!(stats.window_max >= 15, "too idle to prove anything: {stats:?}");
}
