//! One clock: tokio's, so that everything that depends on time runs in paused time.

use std::future::Future;

pub use std::time::Duration;
pub use tokio::time::Instant;
use tokio_util::task::TaskTracker;

/// The present instant of the one clock.
#[must_use]
pub fn now() -> Instant {
    Instant::now()
}

/// When something can be had.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ready {
    /// At once.
    Now,
    /// Not before this instant, which is exact if nothing else is taken or given back until then.
    At(Instant),
    /// Not before something that runs has ended: there is no instant to tell.
    OnRelease,
}

impl Ready {
    /// The later of two: what is needed of both.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        match (self, other) {
            (Self::OnRelease, _) | (_, Self::OnRelease) => Self::OnRelease,
            (Self::Now, ready) | (ready, Self::Now) => ready,
            (Self::At(a), Self::At(b)) => Self::At(a.max(b)),
        }
    }

    /// The sooner of two: what one of them suffices for.
    #[must_use]
    pub fn or(self, other: Self) -> Self {
        match (self, other) {
            (Self::Now, _) | (_, Self::Now) => Self::Now,
            (Self::OnRelease, ready) | (ready, Self::OnRelease) => ready,
            (Self::At(a), Self::At(b)) => Self::At(a.min(b)),
        }
    }

    /// `At(instant)`, or `Now` when that instant has come.
    #[must_use]
    pub fn at(instant: Instant, now: Instant) -> Self {
        if instant <= now { Self::Now } else { Self::At(instant) }
    }
}

/// The tracked spawner: every task of ours is started here, so that a drain can wait for all of them.
#[derive(Debug, Clone, Default)]
pub struct Tasks(TaskTracker);

impl Tasks {
    /// Starts a task. Dropping the handle detaches it; [`Tasks::drained`] still waits for it.
    pub fn spawn<F>(&self, future: F) -> tokio::task::JoinHandle<F::Output>
    where
        F: Future + Send + 'static,
        F::Output: Send + 'static,
    {
        // Boxed: the runtime moves what it is given half a dozen times, and a flight is several KB.
        self.0.spawn(Box::pin(future))
    }

    /// How many tasks run now.
    #[must_use]
    pub fn running(&self) -> usize {
        self.0.len()
    }

    /// Waits until no task runs. Dropping the future stops nothing.
    pub async fn drained(&self) {
        self.0.close();
        self.0.wait().await;
    }
}

/// How often [`heartbeat`] sets its timer.
const HEARTBEAT: Duration = Duration::from_secs(1);

/// Keeps a timer running that is due sooner than nearly all others. tokio interrupts its driver whenever a timer is set
/// that is due before all that are: a call sets some, each of which would cost a system call, and with several threads
/// a switch from one to another. It runs for ever, once for the process; dropping it costs only that.
pub async fn heartbeat() {
    let mut beat = tokio::time::interval(HEARTBEAT);
    beat.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        beat.tick().await;
    }
}

/// tokio's clock as governor wants it: governor's own clocks do not know paused time.
#[derive(Debug, Clone, Default)]
pub struct GovernorClock;

impl GovernorClock {
    /// An instant of the one clock as governor wants it.
    #[must_use]
    pub fn at(instant: Instant) -> GovernorInstant {
        GovernorInstant(instant)
    }
}

/// An instant of [`GovernorClock`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct GovernorInstant(Instant);

impl governor::clock::Reference for GovernorInstant {
    fn duration_since(&self, earlier: Self) -> governor::nanos::Nanos {
        self.0.saturating_duration_since(earlier.0).into()
    }

    fn saturating_sub(&self, duration: governor::nanos::Nanos) -> Self {
        Self(self.0.checked_sub(duration.into()).unwrap_or(self.0))
    }
}

impl std::ops::Add<governor::nanos::Nanos> for GovernorInstant {
    type Output = Self;

    fn add(self, duration: governor::nanos::Nanos) -> Self {
        Self(self.0 + Duration::from(duration))
    }
}

impl governor::clock::Clock for GovernorClock {
    type Instant = GovernorInstant;

    fn now(&self) -> GovernorInstant {
        GovernorInstant(now())
    }
}
