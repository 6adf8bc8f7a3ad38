//! The whole queue as operators are shown it, while very many wait, and what each of those takes.

use std::net::TcpListener;

use tidegate::time;

use super::Size;
use super::client::Client;
use super::memory::per_connection_of;
use super::proxies::{Kind, Setup, Stage};
use super::report::{Section, median};
use super::wire::Ask;

const ROUNDS: usize = 21;
const BODY: usize = 2_048;

pub(crate) async fn measure(stage: &Stage, size: Size) -> Section {
    let mut rows = Vec::new();
    let kinds = stage.kinds();
    for kind in kinds.iter().filter(|kind| matches!(kind, Kind::Tidegate { log: "info", .. })) {
        let free = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("a free port");
        let proxy = stage.start(kind, Setup { parks: true, admin: Some(free), ..Setup::default() });
        let (parked, clients) = per_connection_of(&proxy, size.waiting, &Ask::Hold.request_of(BODY), true).await;
        let mut operator = Client::connect(free).await;
        let (mut took, mut bytes) = (Vec::new(), 0);
        for _ in 0..ROUNDS {
            let begun = time::now();
            bytes = operator.call(b"GET /admin/v1/queue?limit=10000 HTTP/1.1\r\nHost: localhost\r\n\r\n").await.len();
            took.push(begun.elapsed().as_secs_f64() * 1_000.0);
        }
        let most = took.iter().copied().fold(0.0, f64::max);
        let parked = parked - BODY as f64 / 1_024.0;
        rows.push((kind.name().to_owned(), vec![Some(parked), median(took), Some(most), Some(bytes as f64 / 1e6)]));
        drop(clients);
    }
    Section {
        name: "queue",
        note: format!(
            "{} calls of 2 KiB wait, each on a connection of its own (KB beyond the body), and all of them are listed at the \
             operators' port, {ROUNDS} times",
            size.waiting
        ),
        columns: vec!["parked KB", "list ms p50", "list ms max", "list MB"],
        rows,
    }
}
