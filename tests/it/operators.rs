//! What operators do to the real process: signals, broken files, busy ports.

use std::path::{Path, PathBuf};

use tempfile::TempDir;
use tidegate::sim::{Latency, Limits, Running, Settings, Sim};
use tidegate::time::Tasks;

use crate::support::process::{Process, run};
use crate::support::proxy::metric;
use crate::support::upstream::{STREAM, answer, event, finish};
use crate::support::{Client, Upstream, eventually, ms, post, within};

const CALL: &str = r#"{"model":"m","messages":[{"role":"user","content":"hello"}]}"#;

struct House {
    folder: TempDir,
    upstream: String,
}

impl House {
    fn before(upstream: &str) -> Self {
        Self { folder: tempfile::tempdir().unwrap(), upstream: upstream.to_owned() }
    }

    fn config(&self) -> PathBuf {
        self.folder.path().join("tidegate.toml")
    }

    /// Writes the file with these limits, and what else is asked for at its end.
    fn write(&self, limits: &str, server: &str) -> PathBuf {
        let text = format!(
            "[server]\nlisten = \"127.0.0.1:0\"\nadmin_listen = \"127.0.0.1:0\"\nstate_dir = {:?}\n{server}\n\
             [telemetry]\nformat = \"json\"\n\
             [[upstreams]]\nname = \"provider\"\nbase_url = {:?}\n[upstreams.limits]\n{limits}\n",
            self.folder.path().join("state"),
            self.upstream,
        );
        std::fs::write(self.config(), text).unwrap();
        self.config()
    }
}

async fn sim(requests: u32, window_ms: u64, latency_ms: u64) -> Running {
    let limits = Limits { requests: Some(requests), window: ms(window_ms), ..Limits::default() };
    let latency = Latency::fixed(ms(latency_ms));
    Sim::start(Settings { limits, latency, ..Settings::default() }).await.unwrap()
}

/// Asks again and again until told to stop; counts what was not 200.
fn load(
    process: &Process,
    clients: usize,
    tasks: &Tasks,
) -> (std::sync::Arc<std::sync::atomic::AtomicUsize>, tokio::sync::watch::Sender<bool>) {
    let (errors, (stop, stopped)) = (std::sync::Arc::default(), tokio::sync::watch::channel(false));
    for _ in 0..clients {
        let (addr, stopped) = (process.clients, stopped.clone());
        let errors: std::sync::Arc<std::sync::atomic::AtomicUsize> = std::sync::Arc::clone(&errors);
        tasks.spawn(async move {
            let mut client = Client::to(addr).await;
            while !*stopped.borrow() {
                if client.ask(post(CALL)).await.status() != 200 {
                    errors.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                }
            }
        });
    }
    (errors, stop)
}

#[tokio::test]
async fn lowered_limit_holds_at_once_under_load_and_what_was_spent_is_remembered() {
    let sim = sim(20, 3_000, 10).await;
    let house = House::before(&sim.base_url());
    let limits =
        |requests| format!("requests_per_minute = {requests}\nwindow = \"3s\"\nwindow_margin = \"500ms\"\nburst = 1");
    let mut process = Process::serve(&house.write(&limits(20), "")).await;
    let tasks = Tasks::default();
    let (errors, stop) = load(&process, 4, &tasks);
    eventually("half of the allowance is spent", || sim.stats().counted >= 10).await;
    house.write(&limits(5), "");
    process.signal("HUP");
    process.says("settings reloaded").await;
    // From now on the provider allows as much as the file says. It remembers, too: more than the new limit was spent,
    // so that nothing may come until all but four of those have left the window.
    let at_reload = sim.arrivals().len();
    sim.reset_stats();
    tokio::time::sleep(ms(1_000)).await;
    let since = sim.arrivals().len();
    assert!(since <= 1, "{since} after {at_reload}; one may have been under way");
    tokio::time::sleep(ms(2_100)).await;
    sim.set_limits(Limits { requests: Some(5), window: ms(3_000), ..Limits::default() });
    eventually("calls go on", || sim.arrivals().len() >= 4).await;
    stop.send_replace(true);
    tasks.drained().await;
    assert_eq!(errors.load(std::sync::atomic::Ordering::Relaxed), 0);
    assert_eq!(sim.stats().violations.window, 0, "{:?}", sim.stats());
}

#[tokio::test]
async fn broken_file_changes_nothing_and_its_mistakes_are_told() {
    let sim = sim(1_000, 60_000, 0).await;
    let house = House::before(&sim.base_url());
    let mut process = Process::serve(&house.write("requests_per_minute = 2", "")).await;
    house.write("requests_per_minute = 0\nwindwo = \"1s\"", "drain_timeout = \"soon\"");
    process.signal("HUP");
    for field in ["drain_timeout", "requests_per_minute", "windwo"] {
        let line = process.says(field).await;
        assert!(line.contains("settings refused"), "{line}");
    }
    assert!(metric(process.admin, "tidegate_config_mistakes").await >= 3.0);
    assert!(metric(process.admin, "tidegate_reloads_total{result=\"refused\"}").await > 0.0);
    // The old limit is in force.
    let mut client = Client::to(process.clients).await;
    for _ in 0..2 {
        assert_eq!(client.ask(post(CALL)).await.status(), 200);
    }
    client.send(post(CALL)).await;
    within(ms(5_000), "the third waits", async {
        while metric(process.admin, "tidegate_queue_depth{priority=\"normal\"}").await < 1.0 {
            tokio::time::sleep(ms(5)).await;
        }
    })
    .await;
    house.write("requests_per_minute = 100", "");
    process.signal("HUP");
    assert_eq!(within(ms(5_000), "the mended file holds", client.answer()).await.status(), 200);
    assert!(metric(process.admin, "tidegate_config_mistakes").await < 1.0);
}

#[tokio::test]
async fn terminated_process_lets_streams_finish_and_ends_as_soon_as_it_is_empty() {
    let upstream = Upstream::start().await;
    let house = House::before(&upstream.base_url());
    let mut process = Process::serve(&house.write("concurrency = 1\nslot_release_delay = \"0s\"", "")).await;
    let mut idle = Client::to(process.clients).await;
    let (mut streaming, mut waiting) = (Client::to(process.clients).await, Client::to(process.clients).await);
    streaming.send(post(r#"{"model":"m","stream":true}"#)).await;
    let (mut line, _) = upstream.request().await;
    line.send(format!("{STREAM}{}", event("a"))).await;
    streaming.head().await;
    streaming.event().await.unwrap();
    waiting.send(post(CALL)).await;
    queued(&process, 1.0).await;

    process.signal("TERM");
    process.says("draining").await;
    refuses_connections(&process).await;
    let (code, _, told) = run(&["health", "--admin-listen", &process.admin.to_string()]).await;
    assert_eq!(code, Some(1), "{told}");
    line.send(event("b")).await;
    assert!(streaming.event().await.unwrap().contains("\"b\""));
    line.send(finish()).await;
    assert!(streaming.rest().await.unwrap().ends_with("data: [DONE]\n\n"));
    // What waited is served, too.
    line.request().await;
    line.send(crate::support::upstream::fine()).await;
    assert_eq!(waiting.answer().await.status(), 200);
    let status = within(ms(3_000), "the end", process.ended()).await;
    assert_eq!(status.code(), Some(0));
    assert_eq!(process.rest_of_stdout().await, Vec::<String>::new(), "nothing but the export line");
    idle.until_the_end().await;
}

async fn queued(process: &Process, calls: f64) {
    until(process, "tidegate_queue_depth{priority=\"normal\"}", calls).await;
}

async fn until(process: &Process, sample: &str, value: f64) {
    within(ms(5_000), sample, async {
        while (metric(process.admin, sample).await - value).abs() > 0.1 {
            tokio::time::sleep(ms(5)).await;
        }
    })
    .await;
}

async fn refuses_connections(process: &Process) {
    within(ms(2_000), "no new connections", async {
        while tokio::net::TcpStream::connect(process.clients).await.is_ok() {
            tokio::time::sleep(ms(5)).await;
        }
    })
    .await;
}

#[tokio::test]
async fn calls_still_queued_when_the_drain_time_ends_are_told_so() {
    let upstream = Upstream::start().await;
    let house = House::before(&upstream.base_url());
    let mut process = Process::serve(&house.write("concurrency = 1", "drain_timeout = \"300ms\"")).await;
    let (mut stuck, mut waiting) = (Client::to(process.clients).await, Client::to(process.clients).await);
    stuck.send(post(CALL)).await;
    let (_line, _) = upstream.request().await;
    waiting.send(post(CALL)).await;
    queued(&process, 1.0).await;
    process.signal("TERM");
    let told = waiting.answer().await;
    assert_eq!((told.status(), told.error_code().as_str()), (503, "shutting_down"));
    assert!(told.head.has("retry-after"));
    let status = within(ms(5_000), "the end", process.ended()).await;
    assert_eq!(status.code(), Some(0));
}

#[tokio::test]
async fn calls_that_pause_before_a_retry_when_the_drain_time_ends_are_told_so() {
    let upstream = Upstream::start().await;
    let house = House::before(&upstream.base_url());
    let rest = "drain_timeout = \"300ms\"\n[retry]\nbase = \"30s\"\ncap = \"30s\"\n";
    let mut process = Process::serve(&house.write("concurrency = 5", rest)).await;
    let mut pausing = Client::to(process.clients).await;
    pausing.send(post(CALL)).await;
    let (mut line, _) = upstream.request().await;
    line.send(answer("503 Service Unavailable", "Retry-After: 30\r\n", "{}")).await;
    let attempts = "tidegate_attempts_total{upstream=\"provider\",verdict=\"retry\"}";
    until(&process, attempts, 1.0).await;
    process.signal("TERM");
    let told = within(ms(5_000), "the refusal", pausing.answer()).await;
    assert_eq!((told.status(), told.error_code().as_str()), (503, "shutting_down"));
    let status = within(ms(5_000), "the end", process.ended()).await;
    assert_eq!(status.code(), Some(0));
}

#[tokio::test]
async fn health_tells_by_its_exit_code() {
    let upstream = Upstream::start().await;
    let house = House::before(&upstream.base_url());
    let process = Process::serve(&house.write("", "")).await;
    let admin = process.admin.to_string();
    assert_eq!(run(&["health", "--admin-listen", &admin]).await.0, Some(0));
    assert_eq!(run(&["health", "--admin", &format!("http://{admin}")]).await.0, Some(0));
    drop(process);
    let (code, _, told) = run(&["health", "--admin-listen", &admin]).await;
    assert_eq!(code, Some(1));
    assert!(told.starts_with("not ready: "), "{told}");
    assert_eq!(run(&["health", "--admin-listen", "nonsense"]).await.0, Some(2));
}

#[tokio::test]
async fn busy_port_is_named_with_its_setting() {
    let upstream = Upstream::start().await;
    let house = House::before(&upstream.base_url());
    let busy = upstream.addr().to_string();
    for setting in ["listen", "admin_listen"] {
        let config = house.write("", "");
        let text = std::fs::read_to_string(&config).unwrap();
        std::fs::write(
            &config,
            text.replace(&format!("\n{setting} = \"127.0.0.1:0\""), &format!("\n{setting} = \"{busy}\"")),
        )
        .unwrap();
        let (code, out, told) = serve_to_its_end(&config).await;
        assert_eq!((code, out.as_str()), (Some(1), ""), "{told}");
        assert!(told.contains(&format!("cannot listen on server.{setting} = {busy}")), "{told}");
    }
}

#[tokio::test]
async fn mistaken_file_is_refused_at_the_start() {
    let house = House::before("http://127.0.0.1:1/v1");
    let (code, out, told) = serve_to_its_end(&house.write("requests_per_minute = 0", "")).await;
    assert_eq!((code, out.as_str()), (Some(1), ""));
    assert!(told.contains("requests_per_minute"), "{told}");
}

async fn serve_to_its_end(config: &Path) -> (Option<i32>, String, String) {
    run(&["serve", "--config", config.to_str().unwrap()]).await
}

#[tokio::test]
async fn a_reload_changes_how_long_streams_wait_in_silence() {
    let upstream = Upstream::start().await;
    let house = House::before(&upstream.base_url());
    let after = |pace| format!("[admission]\nkeepalive_after = \"{pace}\"\n");
    let mut process = Process::serve(&house.write("concurrency = 5", &after("off"))).await;
    let stream = r#"{"model":"m","stream":true}"#;
    let mut silent = Client::to(process.clients).await;
    silent.send(post(stream)).await;
    let (_thinking, _) = upstream.request().await;
    house.write("concurrency = 5", &after("1s"));
    process.signal("HUP");
    process.says("settings reloaded").await;
    let mut client = Client::to(process.clients).await;
    client.send(post(stream)).await;
    let (mut thinking, _) = upstream.request().await;
    assert_eq!(within(ms(3_000), "the early head", client.head()).await.status(), 200);
    assert_eq!(client.event().await.unwrap(), ": waiting attempt=1");
    let heard = tokio::time::timeout(ms(100), silent.reader().more()).await;
    assert!(heard.is_err(), "it came while nobody was to hear anything");
    // What its client was told, and what really became of it.
    let wrong = r#"{"error":{"message":"Incorrect API key"}}"#;
    thinking.send(answer("401 Unauthorized", "Content-Type: application/json\r\n", wrong)).await;
    let line = process.says("\"outcome\":\"client_error\"").await;
    assert!(line.contains("\"status\":200") && line.contains("\"reason\":\"status 401\""), "{line}");
}

#[tokio::test]
async fn who_is_kept_company_when_the_time_to_drain_is_over_hears_so_in_its_stream() {
    let upstream = Upstream::start().await;
    let house = House::before(&upstream.base_url());
    let server = "drain_timeout = \"1s\"\n[admission]\nkeepalive_after = \"1s\"\n";
    let process = Process::serve(&house.write("concurrency = 1", server)).await;
    let mut running = Client::to(process.clients).await;
    running.send(post(CALL)).await;
    let (_thinking, _) = upstream.request().await;
    let mut waiting = Client::to(process.clients).await;
    waiting.send(post(r#"{"model":"m","stream":true}"#)).await;
    assert_eq!(waiting.head().await.status(), 200);
    process.signal("TERM");
    let heard = within(ms(5_000), "the end of its stream", waiting.rest()).await.unwrap();
    let error = heard.lines().find_map(|line| line.strip_prefix("data: ")).unwrap();
    let error: serde_json::Value = serde_json::from_str(error).unwrap();
    assert_eq!((&error["error"]["code"], &error["error"]["status"]), (&"shutting_down".into(), &503.into()));
}
