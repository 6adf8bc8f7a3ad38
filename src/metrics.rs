//! Every metric there is: its name, its labels, its buckets.
//!
//! Rooms say what happened by typed methods and never register a name themselves. Labels are drawn from closed sets,
//! or are names out of the settings; ids, models and messages never become labels, so the number of series has a bound
//! that the settings know. Children are resolved ahead of time: recording all of a call takes less than a microsecond.
//!
//! Figures that mirror a state (how deep the queue is, how much is left of a window) can be set when they change, or by
//! a closure of [`Metrics::on_scrape`] when somebody looks.

mod clients;
mod family;
mod labels;
mod process;
mod upstream;

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use parking_lot::Mutex;
use prometheus::{Gauge, Histogram, IntCounter, IntGauge, Registry, TextEncoder};

use self::family::{By, By3, Catalogue, figure};
pub use self::labels::{
    BreakerState, Dimension, DisconnectPhase, Label, MemoryKind, Outcome, Recovery, RecoveryResult, ReloadResult,
    RetryReason, TokenKind, Verdict,
};
use self::process::Process;
pub use self::upstream::{KeyMetrics, UpstreamMetrics};
use crate::ids::ClientId;
use crate::openai::Route;
use crate::units::Priority;

/// Models answer in a tenth of a second or in ten minutes.
const BUCKETS_ANSWER: &[f64] =
    &[0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 20.0, 40.0, 60.0, 120.0, 300.0, 600.0, 1_200.0];
/// A pacing interval is about a second and a half; who waits longer than ten minutes has usually left.
const BUCKETS_QUEUE: &[f64] =
    &[0.001, 0.01, 0.05, 0.1, 0.25, 0.5, 1.0, 1.5, 2.0, 3.0, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0];
/// What we add ourselves is counted in microseconds.
const BUCKETS_OVERHEAD: &[f64] =
    &[25e-6, 50e-6, 100e-6, 250e-6, 500e-6, 1e-3, 2.5e-3, 5e-3, 10e-3, 25e-3, 50e-3, 100e-3, 250e-3, 1.0];

/// How a call went, told once at its end.
#[derive(Debug, Clone, Copy)]
pub struct CallEnd {
    /// The endpoint it was for.
    pub route: Route,
    /// The class it had.
    pub priority: Priority,
    /// How it ended.
    pub outcome: Outcome,
    /// From its first byte to the last byte of its answer.
    pub duration: Duration,
    /// How much of that it waited for permits, backoff included.
    pub queued: Duration,
    /// How much of that the provider, or a slow client, took.
    pub upstream: Duration,
}

type Scrape = Box<dyn Fn(&Metrics) + Send + Sync>;

/// The catalogue. One for a process, shared by all rooms; tests have their own.
pub struct Metrics {
    registry: Registry,
    scrapes: Mutex<Vec<Arc<Scrape>>>,
    process: Process,
    upstreams: upstream::Families,
    clients: clients::Clients,

    calls: By3<Route, Priority, Outcome>,
    call_duration: By<Route, Histogram>,
    overhead: Histogram,
    in_flight: IntGauge,
    connections: IntGauge,
    runtime_tasks: IntGauge,

    queue_depth: By<Priority, IntGauge>,
    queue_wait: By<Priority, Histogram>,
    queue_oldest: By<Priority, Gauge>,
    queue_bytes: IntGauge,
    journal_failing: IntGauge,
    memory: By<MemoryKind, IntGauge>,

    retries: By<RetryReason, IntCounter>,
    duplicates_sent: IntCounter,
    retries_delayed: IntCounter,
    recoveries: By<Recovery, By<RecoveryResult, IntCounter>>,

    reloads: By<ReloadResult, IntCounter>,
    config_mistakes: IntGauge,
    config_last_reload: Gauge,
}

impl Metrics {
    /// A fresh catalogue, all figures at zero.
    #[must_use]
    pub fn new() -> Arc<Self> {
        let all = Catalogue::default();
        build_info(&all);
        let calls = all.counters(
            "tidegate_calls_total",
            "Calls that ended, by how they ended for the client.",
            &["route", "priority", "outcome"],
        );
        let (durations, queue_depth, queue_oldest, queue_wait, memory) = (
            all.histograms(
                "tidegate_call_duration_seconds",
                "A call from first byte to last.",
                &["route"],
                BUCKETS_ANSWER,
            ),
            all.gauges("tidegate_queue_depth", "Calls that wait for a permit.", &["priority"]),
            all.seconds_gauges(
                "tidegate_queue_oldest_seconds",
                "How long the call has been waiting that waits longest.",
                &["priority"],
            ),
            all.histograms(
                "tidegate_queue_wait_seconds",
                "How long calls stood in line until they had their permits, or left.",
                &["priority"],
                BUCKETS_QUEUE,
            ),
            all.gauges("tidegate_memory_bytes", "Memory held, by what it is held for.", &["kind"]),
        );
        let (retries, recoveries, reloads) = (
            all.counters("tidegate_retries_total", "Attempts repeated, by what went wrong before.", &["reason"]),
            all.counters(
                "tidegate_recoveries_total",
                "Answers that broke off, by what was done about it and whether that brought the rest.",
                &["how", "result"],
            ),
            all.counters("tidegate_reloads_total", "Re-readings of the settings.", &["result"]),
        );
        Arc::new(Self {
            process: Process::new(&all),
            upstreams: upstream::Families::new(&all),
            clients: clients::Clients::new(&all),
            calls: By3::new(calls),
            call_duration: By::new(|route| durations.get_metric_with_label_values(&[route])),
            overhead: all.histogram(
                "tidegate_overhead_seconds",
                "What we add to a call: its duration less upstream and queue.",
                BUCKETS_OVERHEAD,
            ),
            in_flight: all.gauge("tidegate_in_flight", "Calls under way, waiting ones included."),
            connections: all.gauge("tidegate_connections", "Client connections."),
            runtime_tasks: all.gauge(
                "tidegate_runtime_tasks",
                "Tasks of the runtime that have not ended: calls, connections, timers.",
            ),
            queue_depth: By::new(|priority| queue_depth.get_metric_with_label_values(&[priority])),
            queue_oldest: By::new(|priority| queue_oldest.get_metric_with_label_values(&[priority])),
            queue_wait: By::new(|priority| queue_wait.get_metric_with_label_values(&[priority])),
            queue_bytes: all.gauge("tidegate_queue_bytes", "Bodies of the calls that wait for a permit."),
            journal_failing: all.gauge(
                "tidegate_journal_failing",
                "1 while what is sent cannot be written down: a kill now would forget it.",
            ),
            memory: By::new(|kind| memory.get_metric_with_label_values(&[kind])),
            retries: By::new(|reason| retries.get_metric_with_label_values(&[reason])),
            duplicates_sent: all.counter(
                "tidegate_duplicates_sent_total",
                "Requests sent again although the provider may have answered the first, and may bill both.",
            ),
            retries_delayed: all.counter(
                "tidegate_retries_delayed_total",
                "Retries that waited longer because too many calls are being retried (retry.budget).",
            ),
            recoveries: By::new(|how| Ok(By::new(|result| recoveries.get_metric_with_label_values(&[how, result])))),
            reloads: By::new(|result| reloads.get_metric_with_label_values(&[result])),
            config_mistakes: all.gauge("tidegate_config_mistakes", "Mistakes in the settings last read; 0: they hold."),
            config_last_reload: all.seconds_gauge(
                "tidegate_config_last_reload_timestamp_seconds",
                "When the settings that hold were read, since 1970.",
            ),
            registry: all.into_registry(),
            scrapes: Mutex::default(),
        })
    }

    /// The handles of one upstream, made once by whoever owns it. Asking again for the same name gives the same series.
    #[must_use]
    pub fn upstream(&self, name: &str, keys: usize) -> UpstreamMetrics {
        self.upstreams.upstream(name, keys)
    }

    /// An upstream that had `keys` has only `kept` of them from now on; zero: it has gone. What was counted stays.
    pub fn retire_upstream(&self, name: &str, kept: usize, keys: usize) {
        self.upstreams.retire(name, kept, keys);
    }

    /// A call has ended. Its waits were told by [`Metrics::queue_wait`] already.
    pub fn call_ended(&self, call: &CallEnd) {
        self.calls.of(call.route, call.priority, call.outcome).inc();
        self.call_duration.of(call.route).observe(call.duration.as_secs_f64());
        let ours = call.duration.saturating_sub(call.queued).saturating_sub(call.upstream);
        self.overhead.observe(ours.as_secs_f64());
    }

    /// Counts a call as under way until the guard is dropped.
    #[must_use]
    pub fn in_flight(&self) -> Present {
        Present::in_gauge(&self.in_flight)
    }

    /// How many calls are under way.
    #[must_use]
    pub fn calls_in_flight(&self) -> i64 {
        self.in_flight.get()
    }

    /// Counts a client connection until the guard is dropped.
    #[must_use]
    pub fn connection(&self) -> Present {
        Present::in_gauge(&self.connections)
    }

    /// How many client connections are open.
    #[must_use]
    pub fn connections_open(&self) -> i64 {
        self.connections.get()
    }

    /// A call got a permit, or left, after this long.
    pub fn queue_wait(&self, priority: Priority, wait: Duration) {
        self.queue_wait.of(priority).observe(wait.as_secs_f64());
    }

    /// How many calls of a class wait now.
    pub fn set_queue_depth(&self, priority: Priority, calls: usize) {
        self.queue_depth.of(priority).set(figure(calls));
    }

    /// How long the call of a class has been waiting that waits longest; zero: none waits.
    pub fn set_queue_oldest(&self, priority: Priority, wait: Duration) {
        self.queue_oldest.of(priority).set(wait.as_secs_f64());
    }

    /// The clients that have figures of their own from now on: those of the settings.
    pub fn declare_clients<'a>(&self, names: impl IntoIterator<Item = &'a str>) {
        self.clients.declare(names.into_iter());
    }

    /// A call of a client has ended, which used so many permits and waited so long for them.
    pub fn client_served(&self, client: &ClientId, permits: u32, wait: Duration) {
        self.clients.served(client, permits, wait);
    }

    /// How many calls of each client wait now; of a client that is left out, none.
    pub fn set_clients_waiting<'a>(&self, waiting: impl IntoIterator<Item = (&'a ClientId, u32)>) {
        self.clients.set_waiting(waiting.into_iter());
    }

    /// Whether what is sent cannot be written down.
    pub fn set_journal_failing(&self, failing: bool) {
        self.journal_failing.set(i64::from(failing));
    }

    /// How large the bodies of the waiting calls are together.
    pub fn set_queue_bytes(&self, bytes: u64) {
        self.queue_bytes.set(figure(bytes));
    }

    /// How much memory is held for something now.
    pub fn set_memory(&self, kind: MemoryKind, bytes: u64) {
        self.memory.of(kind).set(figure(bytes));
    }

    /// A call is tried again.
    pub fn retry(&self, reason: RetryReason) {
        self.retries.of(reason).inc();
    }

    /// A request is sent again although the provider may have acted on the first.
    pub fn duplicate_sent(&self) {
        self.duplicates_sent.inc();
    }

    /// A retry has to wait for the budget.
    pub fn retry_delayed(&self) {
        self.retries_delayed.inc();
    }

    /// An answer had broken off: whether that was made good.
    pub fn recovered(&self, how: Recovery, ok: bool) {
        self.recoveries.of(how).of(if ok { RecoveryResult::Ok } else { RecoveryResult::Failed }).inc();
    }

    /// A connection was lost; see also [`UpstreamMetrics::disconnect`]. `None`: before any attempt, by its client.
    pub fn disconnect(&self, upstream: Option<&str>, phase: DisconnectPhase) {
        self.upstreams.disconnect(upstream.unwrap_or_default(), phase).inc();
    }

    /// The settings were read anew, with this many mistakes; none: they hold from now on.
    pub fn reloaded(&self, mistakes: usize) {
        let result = if mistakes == 0 { ReloadResult::Applied } else { ReloadResult::Refused };
        self.reloads.of(result).inc();
        self.config_mistakes.set(figure(mistakes));
        if mistakes == 0 {
            self.config_loaded();
        }
    }

    /// The settings that hold were read just now: at the start, when nothing was re-read.
    pub fn config_loaded(&self) {
        self.config_last_reload.set(SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64());
    }

    /// Has `scrape` run before each rendering, to set figures that mirror a state. It must be quick and must not wait.
    pub fn on_scrape(&self, scrape: impl Fn(&Self) + Send + Sync + 'static) {
        self.scrapes.lock().push(Arc::new(Box::new(scrape)));
    }

    /// All of it in Prometheus' text format.
    #[must_use]
    pub fn render(&self) -> String {
        let scrapes = self.scrapes.lock().clone();
        scrapes.iter().for_each(|scrape| scrape(self));
        self.process.refresh();
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            self.runtime_tasks.set(figure(runtime.metrics().num_alive_tasks()));
        }
        let mut text = String::new();
        // Writing to a string cannot fail, and names were checked when they were registered.
        let written = TextEncoder::new().encode_utf8(&self.registry.gather(), &mut text);
        debug_assert!(written.is_ok(), "{written:?}");
        text
    }
}

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Metrics").field("in_flight", &self.in_flight.get()).finish_non_exhaustive()
    }
}

fn build_info(catalogue: &Catalogue) {
    let info = catalogue.gauges("tidegate_build_info", "Always 1; the labels tell what runs.", &["version"]);
    info.with_label_values(&[env!("CARGO_PKG_VERSION")]).set(1);
}

/// Counts in a gauge for as long as it lives.
#[derive(Debug)]
pub struct Present(IntGauge);

impl Present {
    fn in_gauge(gauge: &IntGauge) -> Self {
        gauge.inc();
        Self(gauge.clone())
    }
}

impl Drop for Present {
    fn drop(&mut self) {
        self.0.dec();
    }
}

#[cfg(test)]
mod tests;
