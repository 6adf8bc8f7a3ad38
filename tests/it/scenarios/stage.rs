//! The stage: the provider, the whole proxy before it, and clients that verify every byte.

use std::sync::Arc;

use parking_lot::Mutex;
use tidegate::sim::swarm::{Report, Swarm, Until};
use tidegate::sim::{Limits, Running, Sim, Stats};
use tidegate::time::{Duration, Tasks, now};
use tokio_util::task::AbortOnDropHandle;

use super::figures::{Figures, Page};
use super::house::House;
use super::story::{Story, Turn, read_faults};

/// How often somebody looks whether the provider's slots are all taken, and how many tokens are.
const GLANCE: Duration = Duration::from_millis(5);

/// What was seen. All times are in seconds of the provider's clock.
#[derive(Debug)]
pub(super) struct Evidence {
    /// When the clients began.
    pub(super) began: f64,
    pub(super) stats: Stats,
    pub(super) arrivals: Vec<f64>,
    /// What the provider allowed, and from when on.
    pub(super) allowed: Vec<(f64, Limits)>,
    /// From when to when all its slots were taken.
    pub(super) in_full: Vec<(f64, f64)>,
    /// Tokens in the provider's window, at every glance.
    pub(super) tokens: Vec<(f64, u64)>,
    /// Of the clients that stay.
    pub(super) stayed: Report,
    /// Of those that hang up.
    pub(super) left: Vec<Report>,
    /// From when to when the provider was down.
    pub(super) down: Vec<(f64, f64)>,
    /// What the proxy told of itself when all was over,
    pub(super) metrics: Page,
    /// and what it needed all the time, if it was a process.
    pub(super) figures: Vec<Figures>,
}

/// Plays a story to its end.
pub(super) async fn play(story: &Story) -> Evidence {
    let stage = Stage::set(story).await;
    let began = stage.clock();
    let end = now() + story.lasts;
    let swarm = |request_timeout, seed, workers| Swarm {
        grace: Duration::ZERO,
        request_timeout,
        seed,
        ..Swarm::new(stage.house.base_url(), workers, Until::At(end))
    };
    let stayers = story.workers.iter().filter(|workers| workers.patience.is_none()).map(|workers| workers.spec());
    let staying = swarm(story.lasts, story.seed, stayers.collect()).start();
    let leavers = story.workers.iter().zip(1..).filter_map(|(workers, number)| {
        workers.patience.map(|patience| swarm(patience, story.seed + number, vec![workers.spec()]).start())
    });
    let leaving: Vec<_> = leavers.collect();
    let (allowed, down) = stage.take_turns(&story.turns, story).await;
    let stayed = staying.finish().await;
    let mut left = Vec::new();
    for leaving in leaving {
        left.push(leaving.finish().await);
    }
    let figures = stage.house.figures();
    let Seen { in_full, tokens } = std::mem::take(&mut *stage.seen.lock());
    stage.empties(story.provider.disconnect_lag).await;
    let (stats, arrivals, metrics) = (stage.sim.stats(), stage.sim.arrivals(), stage.house.metrics().await);
    Evidence { began, stats, arrivals, allowed, in_full, tokens, stayed, left, down, metrics, figures }
}

/// What only glances tell.
#[derive(Default)]
struct Seen {
    in_full: Vec<(f64, f64)>,
    tokens: Vec<(f64, u64)>,
}

struct Stage {
    sim: Arc<Running>,
    house: House,
    seen: Arc<Mutex<Seen>>,
    _watching: AbortOnDropHandle<()>,
}

impl Stage {
    async fn set(story: &Story) -> Self {
        let sim = Arc::new(Sim::start(story.provider_settings()).await.expect("a free port"));
        let house = House::open(story, &sim.base_url()).await;
        let seen = Arc::default();
        let watching = Tasks::default().spawn(watch(Arc::clone(&sim), Arc::clone(&seen)));
        Self { sim, house, seen, _watching: AbortOnDropHandle::new(watching) }
    }

    fn clock(&self) -> f64 {
        self.sim.stats().uptime_seconds
    }

    /// Takes each turn when it is due, and tells what the provider allowed from when on, and when it was down.
    async fn take_turns(&self, turns: &[Turn], story: &Story) -> (Vec<(f64, Limits)>, Vec<(f64, f64)>) {
        let begun = now();
        let (mut allowed, mut downs) = (vec![(0.0, story.provider.allows.limits())], Vec::new());
        for turn in turns {
            tokio::time::sleep_until(begun + turn.at).await;
            if let Some(limits) = &turn.limits {
                self.house.change_limits(story, limits);
            }
            if let Some(allows) = turn.allows {
                self.sim.set_limits(allows.limits());
                allowed.push((self.clock(), allows.limits()));
            }
            if let Some(faults) = &turn.faults {
                self.sim.set_faults(read_faults(faults));
            }
            if let Some(down) = &turn.down {
                self.sim.go_down(down.outage(), down.lasts);
                downs.push((self.clock(), self.clock() + down.lasts.as_secs_f64()));
            }
        }
        (allowed, downs)
    }

    /// When the clients have gone, so have their exchanges: within a second, and the time the provider takes to notice.
    async fn empties(&self, disconnect_lag: Duration) {
        let due = now() + disconnect_lag + Duration::from_secs(1);
        while self.sim.stats().in_flight > 0 {
            assert!(now() < due, "exchanges outlive their clients");
            tokio::time::sleep(GLANCE).await;
        }
    }
}

async fn watch(sim: Arc<Running>, seen: Arc<Mutex<Seen>>) {
    let mut known = 0.0;
    loop {
        let Stats { uptime_seconds: now, in_full_seconds, tokens_now, .. } = sim.stats();
        {
            let mut seen = seen.lock();
            seen.tokens.push((now, tokens_now));
            if in_full_seconds > known {
                seen.in_full.push((now - (in_full_seconds - known), now));
                known = in_full_seconds;
            }
        }
        tokio::time::sleep(GLANCE).await;
    }
}
