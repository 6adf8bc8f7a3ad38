//! CPU and latency of a plain call.

use std::net::SocketAddr;
use std::time::Duration;

use super::Size;
use super::child::Child;
use super::client::load;
use super::proxies::{Kind, Proxy, Setup, Stage};
use super::report::{Section, median, ratio};

const MANY: usize = 32;

/// What one proxy did in each round, in microseconds.
#[derive(Default)]
struct Rounds {
    cpu_many: Vec<f64>,
    cpu_one: Vec<f64>,
    added_p50: Vec<f64>,
    /// Connections to the provider that were opened for a thousand calls: idle ones are to be used again.
    opened: Vec<f64>,
}

pub(crate) async fn measure(stage: &Stage, size: Size) -> Section {
    let kinds = stage.kinds();
    let proxies: Vec<Proxy> = kinds.iter().map(|kind| stage.start(kind, Setup::default())).collect();
    let mut measured: Vec<Rounds> = kinds.iter().map(|_| Rounds::default()).collect();
    let load_for = Duration::from_millis(size.load_ms);
    for proxy in &proxies {
        load(proxy.address, MANY, load_for / 4).await;
    }
    for round in 0..size.rounds {
        let direct = p50(load(stage.upstream, 1, load_for / 2).await);
        // Each round begins with another one.
        for turn in 0..proxies.len() {
            let index = (round + turn) % proxies.len();
            let (proxy, rounds) = (&proxies[index], &mut measured[index]);
            let accepted = stage.accepted().await;
            let many = drive(&proxy.child, proxy.address, MANY, load_for).await;
            let one = drive(&proxy.child, proxy.address, 1, load_for).await;
            // The last one came from whoever asked.
            let opened = stage.accepted().await - accepted - 1;
            rounds.cpu_many.push(many.cpu);
            rounds.cpu_one.push(one.cpu);
            rounds.added_p50.push(one.p50 - direct);
            rounds.opened.push(opened as f64 * 1_000.0 / (many.calls + one.calls) as f64);
        }
    }
    section(&kinds, &measured, size)
}

/// What came of some load.
struct Driven {
    calls: usize,
    /// Of the proxy for each call, in microseconds.
    cpu: f64,
    /// The median latency, in microseconds.
    p50: f64,
}

async fn drive(child: &Child, address: SocketAddr, connections: usize, load_for: Duration) -> Driven {
    let before = child.cpu();
    let took = load(address, connections, load_for).await;
    let used = child.cpu() - before;
    Driven { calls: took.len(), cpu: used.as_secs_f64() * 1e6 / took.len() as f64, p50: p50(took) }
}

fn p50(took: Vec<Duration>) -> f64 {
    median(took.iter().map(Duration::as_secs_f64)).expect("there were calls") * 1e6
}

fn section(kinds: &[Kind], measured: &[Rounds], size: Size) -> Section {
    let of = |kind: &Kind| kinds.iter().position(|other| other == kind).map(|index| &measured[index]);
    let (shell, nginx) = (of(&Kind::Shell), of(&Kind::Nginx));
    let row = |rounds: &Rounds| {
        vec![
            median(rounds.cpu_many.iter().copied()),
            rounds.cpu_many.iter().copied().reduce(f64::min),
            ratio(&rounds.cpu_many, shell.map(|shell| &shell.cpu_many)),
            ratio(&rounds.cpu_many, nginx.map(|nginx| &nginx.cpu_many)),
            median(rounds.cpu_one.iter().copied()),
            ratio(&rounds.cpu_one, shell.map(|shell| &shell.cpu_one)),
            median(rounds.added_p50.iter().copied()),
            ratio(&rounds.added_p50, nginx.map(|nginx| &nginx.added_p50)),
            median(rounds.opened.iter().copied()),
        ]
    };
    Section {
        name: "calls",
        note: format!(
            "POST of 2 KiB, answer of 590 B, kept connections; {} rounds of {} ms, medians; CPU is user and system time of \
             the proxy; added p50 is at one connection, against direct",
            size.rounds, size.load_ms
        ),
        columns: vec![
            "cpu us c=32",
            "min",
            "x shell",
            "x nginx",
            "cpu us c=1",
            "x shell c=1",
            "added p50 us",
            "x nginx p50",
            "opened/1000",
        ],
        rows: kinds.iter().zip(measured).map(|(kind, rounds)| (kind.name().to_owned(), row(rounds))).collect(),
    }
}
