//! A swarm of clients that verify every byte of what they get: for scenarios, and for the demo.
//!
//! Each worker makes one call after the other over a connection of its own. Every call asks something nobody asked before,
//! so that no answer can stand in for another, and is judged by [`Outcome`]. Workers never retry: what a client would see
//! is what is reported.

mod call;
mod expected;
mod report;
mod stream;
mod verify;

use std::sync::Arc;

use parking_lot::Mutex;
use tokio_util::sync::{CancellationToken, DropGuard};

pub use report::{Came, GroupReport, Percentiles, Report, Sample};
pub use verify::Outcome;

use super::content;
use crate::time::{Duration, Instant, Tasks, now};
use crate::units::Priority;
use call::{Ask, Client};

/// A worker whose call failed pauses this long, so that a dead server is not asked in a busy loop.
const AFTER_FAILURE: Duration = Duration::from_millis(20);

/// Clients to be let loose on a base URL.
#[derive(Debug, Clone)]
pub struct Swarm {
    /// Such as `http://127.0.0.1:8080/v1`; plain HTTP only.
    pub base_url: String,
    /// Sent as `Authorization: Bearer …`, where there is one.
    pub api_key: Option<String>,
    /// The model every call names.
    pub model: String,
    /// Who calls.
    pub workers: Vec<WorkerSpec>,
    /// When it is over.
    pub until: Until,
    /// How long calls in hand may still take after an [`Until::At`], before they are cut off as unfinished.
    pub grace: Duration,
    /// How long a call may take.
    pub request_timeout: Duration,
    /// Decides pauses, and makes prompts differ from those of other swarms.
    pub seed: u64,
}

/// A group of like workers.
#[derive(Debug, Clone)]
pub struct WorkerSpec {
    /// The group's name in the report.
    pub name: String,
    /// How many there are.
    pub count: usize,
    /// Their own key, in place of the swarm's.
    pub api_key: Option<String>,
    /// Sent as `x-tidegate-priority`.
    pub priority: Option<Priority>,
    /// Whether they stream.
    pub stream: Streaming,
    /// The shortest and the longest pause between two calls of a worker.
    pub think: Option<(Duration, Duration)>,
    /// The share of their streams that are to tell their usage, 0 to 1.
    pub include_usage: f64,
    /// The share of their calls that are to be reasoned about, 0 to 1.
    pub reasoning: f64,
    /// The share of their calls that are for an embedding rather than a chat, 0 to 1. Those do not stream.
    pub embeddings: f64,
    /// How many bytes of padding each request body carries.
    pub body_bytes: usize,
}

impl WorkerSpec {
    /// So many workers of this name that stream every other call and never pause.
    #[must_use]
    pub fn new(name: &str, count: usize) -> Self {
        Self {
            name: name.to_owned(),
            count,
            api_key: None,
            priority: None,
            stream: Streaming::Half,
            think: None,
            include_usage: 0.0,
            reasoning: 0.0,
            embeddings: 0.0,
            body_bytes: 0,
        }
    }
}

/// Which calls of a worker stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Streaming {
    /// Every call.
    Always,
    /// None.
    Never,
    /// Every other call.
    Half,
}

/// When a swarm is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Until {
    /// No call begins after this instant.
    At(Instant),
    /// Each worker makes so many calls.
    Calls(u64),
}

impl Swarm {
    /// These workers at this base URL, with a request time-out and a grace of a minute.
    #[must_use]
    pub fn new(base_url: &str, workers: Vec<WorkerSpec>, until: Until) -> Self {
        Self {
            base_url: base_url.to_owned(),
            api_key: None,
            model: "sim-1".to_owned(),
            workers,
            until,
            grace: Duration::from_secs(60),
            request_timeout: Duration::from_secs(60),
            seed: 0,
        }
    }

    /// Lets the workers loose and waits until the last is done. Dropping the future stops them.
    pub async fn run(self) -> Report {
        self.start().finish().await
    }

    /// Lets the workers loose. Dropping the handle stops them.
    #[must_use]
    pub fn start(self) -> Swarming {
        let tasks = Tasks::default();
        let stop = CancellationToken::new();
        let samples = self.workers.iter().map(|_| Mutex::default()).collect();
        let shared = Arc::new(Shared { swarm: self, started: now(), samples });
        for (group, spec) in shared.swarm.workers.iter().enumerate() {
            for number in 0..spec.count {
                let worker = Worker { shared: Arc::clone(&shared), group, number };
                let stop = stop.clone();
                tasks.spawn(async move { stop.run_until_cancelled(worker.work()).await });
            }
        }
        Swarming { shared, tasks, _stop: stop.drop_guard() }
    }
}

/// A swarm at work.
#[derive(Debug)]
pub struct Swarming {
    shared: Arc<Shared>,
    tasks: Tasks,
    _stop: DropGuard,
}

impl Swarming {
    /// What is known so far.
    #[must_use]
    pub fn report(&self) -> Report {
        let Shared { swarm, started, samples } = &*self.shared;
        let groups = swarm.workers.iter().zip(samples).map(|(spec, samples)| {
            let samples = samples.lock().clone();
            GroupReport::new(&spec.name, spec.priority, samples)
        });
        Report { groups: groups.collect(), elapsed: now() - *started }
    }

    /// Waits until the last worker is done. Dropping the future stops nobody.
    pub async fn done(&self) {
        self.tasks.drained().await;
    }

    /// Waits until the last worker is done. Dropping the future stops them.
    pub async fn finish(self) -> Report {
        self.done().await;
        self.report()
    }
}

/// What all workers share.
#[derive(Debug)]
struct Shared {
    swarm: Swarm,
    started: Instant,
    /// By group.
    samples: Vec<Mutex<Vec<Sample>>>,
}

struct Worker {
    shared: Arc<Shared>,
    group: usize,
    number: usize,
}

impl Worker {
    async fn work(self) {
        let Shared { swarm, samples, .. } = &*self.shared;
        let (Some(spec), Some(samples)) = (swarm.workers.get(self.group), samples.get(self.group)) else { return };
        let mut luck = fastrand::Rng::with_seed(swarm.seed ^ ((self.group as u64) << 32) ^ self.number as u64);
        let mut client = Client::new(swarm, spec);
        let mut call: u64 = 0;
        while self.goes_on(call) {
            let sample = self.call(&mut client, spec, call).await;
            let failed = sample.outcome != Outcome::Ok;
            samples.lock().push(sample);
            call += 1;
            self.pause(spec, failed, luck.f64()).await;
        }
    }

    fn goes_on(&self, calls_made: u64) -> bool {
        match self.shared.swarm.until {
            Until::At(end) => now() < end,
            Until::Calls(calls) => calls_made < calls,
        }
    }

    async fn call(&self, client: &mut Client, spec: &WorkerSpec, call: u64) -> Sample {
        let Shared { swarm, started, .. } = &*self.shared;
        let begun = now();
        // Not the luck that decides pauses: those stay as they are, whatever is asked.
        let origin = content::fingerprint(&[&swarm.seed.to_string(), &spec.name, &format!("{}.{call}", self.number)]);
        let mut luck = fastrand::Rng::with_seed(origin);
        let streams = match spec.stream {
            Streaming::Always => true,
            Streaming::Never => false,
            Streaming::Half => (call + self.number as u64).is_multiple_of(2),
        };
        let (usage, reasoning) = (luck.f64() < spec.include_usage, luck.f64() < spec.reasoning);
        let embedding = luck.f64() < spec.embeddings;
        let ask = Ask {
            prompt: format!("call {call} of worker {} of {}, swarm {}", self.number, spec.name, swarm.seed),
            stream: streams && !embedding,
            usage,
            reasoning,
            embedding,
            priority: spec.priority,
            body_bytes: spec.body_bytes,
        };
        let mut sample = Sample::begun((begun - *started).as_secs_f64(), ask.stream);
        let cut_off = match swarm.until {
            Until::At(end) => Some(end + swarm.grace),
            Until::Calls(_) => None,
        };
        let timed_out = begun + swarm.request_timeout;
        let deadline = cut_off.map_or(timed_out, |cut_off| cut_off.min(timed_out));
        let asked = tokio::time::timeout_at(deadline, client.ask(&ask, &mut sample)).await;
        sample.outcome = asked.unwrap_or_else(|_| {
            client.hang_up();
            if deadline < timed_out { Outcome::Unfinished } else { Outcome::TimedOut }
        });
        sample.total_ms = report::ms(now() - begun);
        sample
    }

    async fn pause(&self, spec: &WorkerSpec, failed: bool, luck: f64) {
        let think = spec.think.map_or(Duration::ZERO, |(least, most)| least + most.saturating_sub(least).mul_f64(luck));
        let pause = if failed { think.max(AFTER_FAILURE) } else { think };
        let due = match self.shared.swarm.until {
            Until::At(end) => end.min(now() + pause),
            Until::Calls(_) => now() + pause,
        };
        if due > now() {
            tokio::time::sleep_until(due).await;
        }
    }
}
