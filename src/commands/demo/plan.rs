//! What is played: the provider, the workers, and how long they ask. Both sides get the same.

use std::num::NonZeroU32;

use super::Args;
use crate::config::{Overrides, Settings};
use crate::sim::swarm::{Streaming, Swarm, Until, WorkerSpec};
use crate::sim::{self, Latency, Limits, Violation};
use crate::time::{Duration, Instant};
use crate::units::{Priority, format_duration};

/// How many people chat.
pub(super) const CHATTING: usize = 2;
/// The pause of a worker between two calls, whether one failed or not.
const PAUSE: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(3));
/// How much of the slots the full rate takes.
const SLOTS_BUSY: f64 = 0.7;
const LATENCY_MAX: Duration = Duration::from_secs(10);
const LATENCY_SPREAD: f64 = 0.6;
const ARRIVAL_JITTER: Duration = Duration::from_millis(100);
/// What is shorter is mostly jitter and margin.
const WINDOW_MIN: Duration = Duration::from_secs(1);

/// What is played.
#[derive(Debug, Clone)]
pub(super) struct Plan {
    /// How long the workers ask.
    pub(super) asking: Duration,
    /// Requests the provider allows in one window.
    pub(super) requests: NonZeroU32,
    /// The period in which it counts.
    pub(super) window: Duration,
    /// Requests it allows at a time.
    pub(super) concurrency: NonZeroU32,
    /// Workers that ask without end.
    pub(super) workers: usize,
    /// Decides latencies, jitter and pauses.
    pub(super) seed: u64,
}

impl TryFrom<&Args> for Plan {
    type Error = String;

    fn try_from(args: &Args) -> Result<Self, String> {
        let plan = Self {
            asking: Duration::from_secs(args.seconds.into()),
            requests: args.rpm,
            window: args.window,
            concurrency: args.concurrency,
            workers: args.workers.into(),
            seed: args.seed,
        };
        let window = format_duration(plan.window);
        if plan.window < WINDOW_MIN {
            return Err(format!("--window = {window}: must be at least 1s"));
        }
        if plan.asking < plan.window {
            let seconds = args.seconds;
            return Err(format!(
                "--seconds = {seconds}: must be at least as long as --window ({window}), to show it full"
            ));
        }
        Ok(plan)
    }
}

impl Plan {
    /// The provider's rate.
    pub(super) fn requests_a_second(&self) -> f64 {
        f64::from(self.requests.get()) / self.window.as_secs_f64()
    }

    /// The rate that can be had at all: the slots may allow less than the window does.
    pub(super) fn attainable_a_second(&self) -> f64 {
        let by_slots = f64::from(self.concurrency.get()) / self.latency().as_secs_f64();
        self.requests_a_second().min(by_slots)
    }

    /// How much of the asking whole windows fill.
    pub(super) fn whole_windows(&self) -> Duration {
        let beyond = self.asking.as_millis() % self.window.as_millis().max(1);
        self.asking - Duration::from_millis(u64::try_from(beyond).unwrap_or(0))
    }

    /// How many there are of those who chat and of workers, together.
    pub(super) fn workers_in_all(&self) -> usize {
        CHATTING + self.workers
    }

    /// How long everything is refused after a violation.
    pub(super) fn penalty(&self) -> Duration {
        self.window / 3
    }

    /// The mean duration of an exchange.
    pub(super) fn latency(&self) -> Duration {
        let mean = SLOTS_BUSY * f64::from(self.concurrency.get()) / self.requests_a_second();
        Duration::from_secs_f64(mean.min(LATENCY_MAX.as_secs_f64()))
    }

    pub(super) fn provider(&self) -> sim::Settings {
        sim::Settings {
            limits: Limits {
                requests: Some(self.requests.get()),
                concurrency: Some(self.concurrency.get()),
                tokens: None,
                window: self.window,
            },
            latency: Latency { mean: self.latency(), spread: LATENCY_SPREAD },
            arrival_jitter: ARRIVAL_JITTER,
            on_violation: Violation::Reset,
            penalty: self.penalty(),
            seed: self.seed,
            ..sim::Settings::default()
        }
    }

    /// What a user would say on the command line of `tidegate serve`, on free ports: every other setting is as shipped.
    pub(super) fn proxy(&self, provider: &str, state_dir: std::path::PathBuf) -> Result<Settings, String> {
        let free_port = std::net::SocketAddr::from(([127, 0, 0, 1], 0));
        let flags = Overrides {
            upstream: Some(provider.to_owned()),
            rpm: Some(self.requests),
            concurrency: Some(self.concurrency),
            window: Some(self.window),
            api_key_env: None,
            listen: Some(free_port),
            admin_listen: Some(free_port),
            state_dir: Some(state_dir),
        };
        Settings::from_flags(&flags, &|_| None).map_err(|mistakes| mistakes.to_string())
    }

    /// The workers, each a group of its own, so that its calls are seen in their order; those who chat come first.
    pub(super) fn swarm(&self, base_url: &str, until: Instant) -> Swarm {
        let worker = |name: String, priority, stream| WorkerSpec {
            priority: Some(priority),
            stream,
            think: Some(PAUSE),
            ..WorkerSpec::new(&name, 1)
        };
        let chatting = (0..CHATTING).map(|n| worker(format!("chat {n}"), Priority::High, Streaming::Always));
        let batch = (0..self.workers).map(|n| worker(format!("batch {n}"), Priority::Low, Streaming::Half));
        let grace = self.grace();
        Swarm {
            grace,
            request_timeout: self.asking + grace,
            seed: self.seed,
            ..Swarm::new(base_url, chatting.chain(batch).collect(), Until::At(until))
        }
    }

    /// Enough to answer what every worker may wait for when the asking ends, and half as much again: who has no answer
    /// by then counts as a client error.
    fn grace(&self) -> Duration {
        #[expect(clippy::cast_precision_loss, reason = "at most some hundred workers")]
        let calls = self.workers_in_all() as f64;
        Duration::from_secs(10) + Duration::from_secs_f64(1.5 * calls / self.attainable_a_second()) + self.window
    }
}

#[cfg(test)]
impl Plan {
    /// A plan of half a minute with a worker or two.
    pub(super) fn of(requests: u32, window: Duration, concurrency: u32) -> Self {
        let [requests, concurrency] = [requests, concurrency].map(|limit| NonZeroU32::new(limit).unwrap());
        Self { asking: Duration::from_secs(30), requests, window, concurrency, workers: 2, seed: 0 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_window_binds_before_the_slots_do() {
        let plan = Plan::of(20, Duration::from_secs(10), 5);
        assert_eq!(plan.latency(), Duration::from_millis(1_750));
        assert_eq!(plan.attainable_a_second(), 2.0);
    }

    #[test]
    fn slow_answers_may_bind_before_the_window_does() {
        let slow = Plan::of(60, Duration::from_secs(600), 2);
        assert_eq!(slow.latency(), LATENCY_MAX);
        assert_eq!(slow.attainable_a_second(), 0.1);
    }

    #[test]
    fn the_proxy_is_told_the_limits_and_nothing_else() {
        let settings = Plan::of(20, Duration::from_secs(10), 5).proxy("http://127.0.0.1:9/v1", "state".into()).unwrap();
        let limits = &settings.upstreams[0].limits;
        let expected = crate::limits::settings::Limits {
            requests_per_minute: NonZeroU32::new(20),
            window: Duration::from_secs(10),
            concurrency: NonZeroU32::new(5),
            ..Default::default()
        };
        assert_eq!(*limits, expected);
    }
}
