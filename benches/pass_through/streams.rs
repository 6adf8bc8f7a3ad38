//! CPU of an event on its way through.

use tokio::task::JoinSet;

use super::Size;
use super::client::Client;
use super::proxies::{Kind, Proxy, Setup, Stage};
use super::report::{Section, median, ratio};
use super::wire::{Ask, LAST_EVENTS};

/// Each stream has fifty events a second.
const PAUSE_US: u64 = 20_000;

pub(crate) async fn measure(stage: &Stage, size: Size) -> Section {
    let kinds = stage.kinds();
    let proxies: Vec<Proxy> = kinds.iter().map(|kind| stage.start(kind, Setup::default())).collect();
    let mut measured: Vec<Vec<f64>> = vec![Vec::new(); proxies.len()];
    for round in 0..size.rounds {
        for turn in 0..proxies.len() {
            let index = (round + turn) % proxies.len();
            measured[index].push(cpu_per_event(&proxies[index], size).await);
        }
    }
    let of = |kind: &Kind| kinds.iter().position(|other| other == kind).map(|index| &measured[index]);
    let (shell, nginx) = (of(&Kind::Shell), of(&Kind::Nginx));
    let row = |rounds: &Vec<f64>| {
        let (median, least) = (median(rounds.iter().copied()), rounds.iter().copied().reduce(f64::min));
        vec![median, least, ratio(rounds, shell), ratio(rounds, nginx)]
    };
    Section {
        name: "streams",
        note: format!(
            "{} streams of {} events of 190 B, 50 a second each; CPU of the proxy per event, its share of the call \
             included; {} rounds, medians",
            size.streams, size.events, size.rounds
        ),
        columns: vec!["cpu us", "min", "x shell", "x nginx"],
        rows: kinds.iter().zip(&measured).map(|(kind, rounds)| (kind.name().to_owned(), row(rounds))).collect(),
    }
}

/// In microseconds.
async fn cpu_per_event(proxy: &Proxy, size: Size) -> f64 {
    let mut clients = Vec::new();
    for _ in 0..size.streams {
        clients.push(Client::connect(proxy.address).await);
    }
    let request = Ask::Stream { events: size.events, pause_us: PAUSE_US }.request();
    let (before, mut streams) = (proxy.child.cpu(), JoinSet::new());
    for mut client in clients {
        let request = request.clone();
        streams.spawn(async move { client.stream(&request).await });
    }
    let events: usize = streams.join_all().await.into_iter().sum();
    assert_eq!(events, size.streams * (size.events + LAST_EVENTS), "no event is lost");
    (proxy.child.cpu() - before).as_secs_f64() * 1e6 / events as f64
}
