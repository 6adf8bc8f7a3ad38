//! Connections that idle, by the thousand; and as few descriptors as a process can do with.

use tokio::net::TcpStream;

use super::{
    House, MIB, Provider, descriptors, memory, other_is_served, processor_time, served_all_along, tell,
    until_all_are_gone,
};
use crate::support::process::Process;
use crate::support::proxy::metric;
use crate::support::wire::Reader;
use crate::support::{Client, get, ms, soon, within};

/// Connections to open, as far as this process may.
fn many() -> usize {
    tidegate::proxy::raise_descriptor_limit().unwrap();
    let limit = descriptors("self");
    let many = limit.saturating_sub(500).min(10_000);
    tell(format_args!("{many} connections; {limit} descriptors are allowed"));
    many
}

/// Whether the proxy has closed it.
fn is_closed(stream: &TcpStream) -> bool {
    !matches!(stream.try_read(&mut [0]), Err(error) if error.kind() == std::io::ErrorKind::WouldBlock)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_thousand_idle_connections_hinder_nobody_and_the_oldest_make_room() {
    let (many, provider, house) = (many(), Provider::start(ms(0)).await, House::new());
    let allowed = many * 9 / 10;
    let server = format!("header_timeout = \"5m\"\nconnections_max = {allowed}");
    let process = house.serve(&provider.base_url, &server, "").await;
    other_is_served(&process).await;
    let fits = (descriptors(&process.id().to_string()).saturating_sub(24) / 2).min(allowed);
    let before = memory(&process, "VmRSS");
    let mut idle = Vec::new();
    served_all_along(&process, open(&process, &mut idle, many)).await;
    within(ms(20_000), "the house is full", async {
        while idle.iter().filter(|stream| !is_closed(stream)).count() > fits {
            tokio::time::sleep(ms(20)).await;
        }
    })
    .await;
    let grown = memory(&process, "VmRSS").saturating_sub(before);
    tell(format_args!(
        "VmRSS: {} MiB more for {fits} idle connections, {} bytes each",
        grown / MIB,
        grown / fits as u64
    ));
    assert!(grown / (fits as u64) < 16 << 10, "{grown}");
    // Those who came first have gone, and those alone.
    let closed: Vec<bool> = idle.iter().map(is_closed).collect();
    let gone = closed.iter().filter(|&&closed| closed).count();
    assert!(gone >= many - fits && gone <= many - fits + 50, "{gone} of {many} are closed, {fits} fit");
    assert!(closed[..gone].iter().filter(|&&closed| !closed).count() <= 50, "the oldest make room");
    other_is_served(&process).await;
    drop(idle);
    until_all_are_gone(&process).await;
    let (peak, after) = (memory(&process, "VmHWM"), memory(&process, "VmRSS"));
    tell(format_args!("VmRSS: {} MiB before, {} MiB after", before / MIB, after / MIB));
    // What they held serves those who come next. How much of it the allocator gives back is its own affair.
    served_all_along(&process, open(&process, &mut Vec::new(), many)).await;
    until_all_are_gone(&process).await;
    let again = memory(&process, "VmHWM");
    assert!(again < peak * 11 / 10 + 4 * MIB, "{} MiB, then {} MiB", peak / MIB, again / MIB);
}

async fn open(process: &Process, idle: &mut Vec<TcpStream>, many: usize) {
    while idle.len() < many {
        idle.push(soon("a connection", TcpStream::connect(process.clients)).await.expect("the proxy listens"));
        if idle.len().is_multiple_of(100) {
            tokio::time::sleep(ms(1)).await; // others on this thread
        }
    }
}

#[tokio::test]
async fn connections_that_idle_between_requests_hold_little() {
    const KEPT: usize = 1_000;
    let (provider, house) = (Provider::start(ms(0)).await, House::new());
    let process = house.serve(&provider.base_url, "", "").await;
    let mut kept = Vec::new();
    for _ in 0..20 {
        kept.push(asked(&process).await); // what the first calls leave behind is not counted
    }
    let before = memory(&process, "VmRSS");
    while kept.len() < KEPT {
        kept.push(asked(&process).await);
    }
    let grown = memory(&process, "VmRSS").saturating_sub(before);
    tell(format_args!(
        "VmRSS: {} KiB more for {KEPT} kept connections, {} bytes each",
        grown >> 10,
        grown / KEPT as u64
    ));
    assert!(grown / (KEPT as u64) < 32 << 10, "{grown}");
}

/// A connection that was served and is kept.
async fn asked(process: &Process) -> Client {
    let mut client = Client::to(process.clients).await;
    assert_eq!(client.ask(get("/v1/models", "")).await.status(), 200);
    client
}

#[tokio::test]
async fn process_with_64_descriptors_serves_calls_between_idle_connections_and_does_not_spin() {
    let (provider, house) = (Provider::start(ms(0)).await, House::new());
    let process = house.serve_under("ulimit -n 64", &provider.base_url, "", "").await;
    let spent = processor_time(&process);
    let since = tidegate::time::now();
    let mut idle = Vec::new();
    for round in 0..4 {
        for _ in 0..10 {
            idle.push(Reader::new(soon("a connection", TcpStream::connect(process.clients)).await.unwrap()));
        }
        for _ in 0..5 {
            other_is_served(&process).await;
        }
        tell(format_args!("round {round}: {} open", metric(process.admin, "tidegate_connections").await));
    }
    // Nobody asks, everybody waits: that costs nothing.
    let before_silence = processor_time(&process);
    tokio::time::sleep(ms(1_000)).await;
    let silent = processor_time(&process).saturating_sub(before_silence);
    assert!(silent < ms(200), "{silent:?} of processor time in a second in which nothing happened");
    tell(format_args!(
        "{:?} of processor time in {:?}",
        processor_time(&process).saturating_sub(spent),
        since.elapsed()
    ));
    other_is_served(&process).await;
    // Some have made room, the last have not.
    within(ms(5_000), "the oldest are closed", idle[0].until_the_end()).await;
    assert!(!is_closed(&idle.last().unwrap().stream));
    within(ms(5_000), "no more than fit", async {
        while metric(process.admin, "tidegate_connections").await > 20.5 {
            tokio::time::sleep(ms(20)).await; // the one that made room is about to go
        }
    })
    .await;
}

#[tokio::test]
async fn log_says_which_limit_bounds_the_connections() {
    let (provider, house) = (Provider::start(ms(0)).await, House::new());
    let config = house.write(&provider.base_url, "connections_max = 5000", "");
    let binary = env!("CARGO_BIN_EXE_tidegate");
    let script = format!("ulimit -n 64; exec {binary:?} serve --config {config:?}");
    let mut child = under_a_shell(&script);
    let stderr = std::io::BufReader::new(child.stderr.take().unwrap());
    let said = tokio::task::spawn_blocking(move || {
        std::io::BufRead::lines(stderr).map_while(Result::ok).find(|line| line.contains("server.connections_max"))
    });
    let said = soon("the warning", said).await.unwrap().expect("a warning");
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(said.contains("ulimit -n") && said.contains("\"fit\":20"), "{said}");
}

fn under_a_shell(script: &str) -> std::process::Child {
    let mut command = std::process::Command::new("bash");
    command.args(["-c", script]).stdin(std::process::Stdio::null()).stdout(std::process::Stdio::null());
    command.stderr(std::process::Stdio::piped()).spawn().unwrap()
}
