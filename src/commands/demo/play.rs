//! One side of the demo: a provider of its own, the workers, and tidegate between them or not.

use std::fs::DirBuilder;
use std::io;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::PathBuf;

use tokio::time::MissedTickBehavior;

use super::measure::{Glance, Phase, Rate, Side};
use super::plan::Plan;
use super::view::View;
use crate::app::{App, Past, Ports, Source};
use crate::sim::{Running, Sim};
use crate::time::{Duration, Instant, now};

/// How often figures are looked at while they come.
const GLANCE: Duration = Duration::from_millis(200);

/// The workers ask the provider itself.
pub(super) async fn without_tidegate(plan: &Plan, view: &mut View) -> io::Result<Side> {
    let sim = Sim::start(plan.provider()).await?;
    let side = watch("without tidegate", plan, &sim, &sim.base_url(), view).await?;
    sim.stop().await;
    Ok(side)
}

/// The workers ask tidegate, which was told the provider's limits and nothing else.
pub(super) async fn behind_tidegate(plan: &Plan, view: &mut View) -> io::Result<Side> {
    let sim = Sim::start(plan.provider()).await?;
    let state = StateDir::new()?;
    let settings = plan.proxy(&sim.base_url(), state.0.clone()).map_err(io::Error::other)?;
    let ports = Ports::bind(&settings).map_err(io::Error::other)?;
    let base_url = format!("http://{}/v1", ports.clients()?);
    let past = Past::open(&settings).map_err(io::Error::other)?;
    let app = App::new(settings, Source::default(), None, past).map_err(io::Error::other)?;
    let side = tokio::select! {
        side = watch("behind tidegate", plan, &sim, &base_url, view) => side?,
        served = app.run(ports) => {
            served?;
            return Err(io::Error::other("the proxy ended before its clients did"));
        }
    };
    sim.stop().await;
    Ok(side)
}

/// Lets the workers loose on `base_url` and looks on until the last is done.
async fn watch(name: &'static str, plan: &Plan, sim: &Running, base_url: &str, view: &mut View) -> io::Result<Side> {
    let (began, uptime) = (now(), sim.stats().uptime_seconds);
    let end = began + plan.asking;
    let swarming = plan.swarm(base_url, end).start();
    let mut violations = Vec::new();
    let mut look = |phase: Option<Phase>| {
        let (stats, report) = (sim.stats(), swarming.report());
        let seconds = report.elapsed.as_secs_f64();
        violations.resize(usize::try_from(stats.violations.total()).unwrap_or(usize::MAX), seconds);
        let glance = Glance::new(name, plan, &stats, &report);
        view.show(Glance { phase: phase.unwrap_or(glance.phase), ..glance })
    };
    let rate = measure_rate(plan, sim, end);
    let done = async { tokio::join!(rate, swarming.done()).0 };
    tokio::pin!(done);
    let mut ticks = tokio::time::interval(GLANCE);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let rate = loop {
        tokio::select! {
            rate = &mut done => break rate,
            _ = ticks.tick() => look(None)?,
        }
    };
    look(Some(Phase::Done))?;
    let arrivals = sim.arrivals().into_iter().map(|at| at - uptime).collect();
    Ok(Side::new(name, plan, &swarming.report(), &sim.stats(), rate, arrivals, violations))
}

/// Looks at the provider at the exact moments that rates are reckoned from.
async fn measure_rate(plan: &Plan, sim: &Running, end: Instant) -> Rate {
    let mut rate = Rate::default();
    tokio::time::sleep_until(end - plan.whole_windows()).await;
    rate.begin(&sim.stats());
    tokio::time::sleep_until(end).await;
    rate.end(&sim.stats());
    rate
}

/// A directory that only this process uses, gone when dropped.
struct StateDir(PathBuf);

impl StateDir {
    fn new() -> io::Result<Self> {
        let path = std::env::temp_dir().join(format!("tidegate-demo-{}-{:08x}", std::process::id(), fastrand::u32(..)));
        // Not recursive: a directory that somebody else made there is not ours, neither to use nor to remove.
        DirBuilder::new().mode(0o700).create(&path)?;
        Ok(Self(path))
    }
}

impl Drop for StateDir {
    fn drop(&mut self) {
        // What cannot be removed lies where temporary things lie.
        drop(std::fs::remove_dir_all(&self.0));
    }
}
