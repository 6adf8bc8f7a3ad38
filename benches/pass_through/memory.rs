//! Memory of a connection that idles and of a call that waits, and what is left of a peak.

use std::time::Duration;

use tokio::time::sleep;

use super::Size;
use super::child::Child;
use super::client::Client;
use super::proxies::{Kind, Proxy, Setup, Stage};
use super::report::Section;
use super::wire::Ask;

const KB: f64 = 1_024.0;
const MB: f64 = KB * KB;
const BODY: usize = 2_048;
const LARGE_BODY: usize = 1 << 20;
/// Calls before anything is weighed, so that what is made once is there.
const FIRST_CALLS: usize = 100;
/// How long an allocator has to give back what it likes to give back.
const AFTERWARDS: Duration = Duration::from_secs(3);

pub(crate) async fn measure(stage: &Stage, size: Size) -> Section {
    let mut rows = Vec::new();
    let kinds = stage.kinds();
    for kind in kinds.iter().filter(|kind| !matches!(kind, Kind::Tidegate { log: "warn", .. })) {
        let start = |parks| stage.start(kind, Setup { parks, ..Setup::default() });
        let fresh = start(false);
        settled(&fresh.child).await;
        let at_start = [fresh.child.rss(), fresh.child.pss()].map(|bytes| Some(bytes as f64 / MB));
        let idle = Some(per_connection(&fresh, size.connections, &Ask::Answer.request(), false).await);
        drop(fresh);
        let mut row = at_start.to_vec();
        row.push(idle);
        if *kind == Kind::Nginx {
            row.extend([None; 3]); // it has no queue
        } else {
            let hold = Ask::Hold.request_of(BODY);
            let parked = per_connection(&start(true), size.connections, &hold, true).await;
            row.push(Some(parked - BODY as f64 / KB));
            row.extend(peak(&start(true), size.large_bodies).await.map(|bytes| Some(bytes / MB)));
        }
        rows.push((kind.name().to_owned(), row));
    }
    Section {
        name: "memory",
        note: format!(
            "of {} connections; parked calls have 2 KiB, which are taken off; peak: {} parked calls of 1 MiB, and 3 s after \
             they left; PSS where it does not say RSS",
            size.connections, size.large_bodies
        ),
        columns: vec!["start RSS MB", "start PSS MB", "idle conn KB", "parked KB", "peak MB", "after MB"],
        rows,
    }
}

/// KB of each of so many connections: after a call, or in the middle of one that waits.
async fn per_connection(proxy: &Proxy, connections: usize, request: &[u8], waits: bool) -> f64 {
    per_connection_of(proxy, connections, request, waits).await.0
}

/// The same, with the clients that hold the connections.
pub(crate) async fn per_connection_of(
    proxy: &Proxy,
    connections: usize,
    request: &[u8],
    waits: bool,
) -> (f64, Vec<Client>) {
    if !waits {
        let mut first = Client::connect(proxy.address).await;
        for _ in 0..FIRST_CALLS {
            first.call(request).await;
        }
    }
    let before = settled(&proxy.child).await;
    let mut clients = Vec::new();
    for _ in 0..connections {
        let mut client = Client::connect(proxy.address).await;
        if waits {
            client.send(request).await;
        } else {
            client.call(request).await;
        }
        clients.push(client);
    }
    ((settled(&proxy.child).await - before) / connections as f64 / KB, clients)
}

/// Bytes at the peak of so many parked calls with large bodies, and after they left.
async fn peak(proxy: &Proxy, calls: usize) -> [f64; 2] {
    let (request, mut clients) = (Ask::Hold.request_of(LARGE_BODY), Vec::new());
    for _ in 0..calls {
        let mut client = Client::connect(proxy.address).await;
        client.send(&request).await;
        clients.push(client);
    }
    let peak = settled(&proxy.child).await;
    drop(clients);
    sleep(AFTERWARDS).await;
    [peak, settled(&proxy.child).await]
}

/// The PSS in bytes, once it stays what it is.
async fn settled(child: &Child) -> f64 {
    let (mut last, mut same) = (0.0, 0);
    for _ in 0..100 {
        sleep(Duration::from_millis(100)).await;
        let pss = child.pss() as f64;
        same = if (pss - last).abs() < 16.0 * KB { same + 1 } else { 0 };
        last = pss;
        if same == 3 {
            break;
        }
    }
    last
}
