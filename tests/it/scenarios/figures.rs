//! What the proxy tells of itself: its metrics, once or every few seconds.

use std::net::SocketAddr;
use std::sync::Arc;

use parking_lot::Mutex;
use serde::Serialize;
use tidegate::time::{Duration, Tasks, now};
use tokio_util::task::AbortOnDropHandle;

use crate::support::Client;

const ASKS: &str = "GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";

/// A page of metrics.
#[derive(Debug, Default)]
pub(super) struct Page(String);

impl Page {
    pub(super) async fn of(admin: SocketAddr) -> Self {
        Self(Client::to(admin).await.ask(ASKS).await.text())
    }

    /// The sum of all samples of a family that bear these labels, written as they stand on the page.
    pub(super) fn sum(&self, family: &str, labels: &[&str]) -> f64 {
        let samples = self.0.lines().filter_map(|line| line.strip_prefix(family));
        let values = samples.filter(|rest| rest.starts_with(['{', ' '])).filter_map(|rest| {
            let (found, value) = rest.rsplit_once(' ')?;
            let bears = |label: &&str| found.contains(*label);
            labels.iter().all(bears).then(|| value.parse::<f64>().expect("a number"))
        });
        values.sum()
    }

    /// How many streams broke after some of them was passed on, and went on to their end; or could not.
    pub(super) fn continued(&self, result: &str) -> f64 {
        self.sum("tidegate_recoveries_total", &["how=\"continue\"", &format!("result=\"{result}\"")])
    }
}

/// What a process needs at some moment.
#[derive(Debug, Clone, Copy, Serialize)]
pub(super) struct Figures {
    /// Since the clients began.
    pub(super) seconds: f64,
    pub(super) resident_bytes: f64,
    pub(super) descriptors: f64,
    pub(super) tasks: f64,
    pub(super) threads: f64,
    pub(super) connections: f64,
    pub(super) calls: f64,
}

impl Figures {
    fn of(page: &Page, after: Duration) -> Self {
        let figure = |name| page.sum(name, &[]);
        Self {
            seconds: after.as_secs_f64(),
            resident_bytes: figure("process_resident_memory_bytes"),
            descriptors: figure("process_open_fds"),
            tasks: figure("tidegate_runtime_tasks"),
            threads: figure("process_threads"),
            connections: figure("tidegate_connections"),
            calls: figure("tidegate_in_flight"),
        }
    }
}

/// Looks at a process every few seconds until it is dropped.
#[derive(Debug)]
pub(super) struct Looking {
    seen: Arc<Mutex<Vec<Figures>>>,
    _task: AbortOnDropHandle<()>,
}

impl Looking {
    pub(super) fn at(admin: SocketAddr, every: Duration) -> Self {
        let seen = Arc::new(Mutex::new(Vec::new()));
        let (noted, begun) = (Arc::clone(&seen), now());
        let task = Tasks::default().spawn(async move {
            loop {
                tokio::time::sleep(every).await;
                let figures = Figures::of(&Page::of(admin).await, begun.elapsed());
                noted.lock().push(figures);
            }
        });
        Self { seen, _task: AbortOnDropHandle::new(task) }
    }

    pub(super) fn seen(&self) -> Vec<Figures> {
        self.seen.lock().clone()
    }
}

/// A figure in two stretches of time.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub(super) struct Change {
    /// In the second quarter: the median, and the most.
    pub(super) before: (f64, f64),
    /// In the last one.
    pub(super) after: (f64, f64),
}

/// How a figure changed from the second quarter to the last one.
pub(super) fn change(figures: &[Figures], figure: impl Fn(&Figures) -> f64) -> Change {
    let quarter = |number: usize| {
        let of_it = &figures[figures.len() * (number - 1) / 4..figures.len() * number / 4];
        let mut values: Vec<f64> = of_it.iter().map(&figure).collect();
        values.sort_unstable_by(f64::total_cmp);
        (values[values.len() / 2], *values.last().expect("a story long enough to look at"))
    };
    Change { before: quarter(2), after: quarter(4) }
}
