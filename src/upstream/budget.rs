//! The retry budget: in an outage every call is tried again, and the provider gets its load many times over. So retries
//! are a share of the calls, fleet-wide; what is more leaves later, one after the other, and nobody fails for it.
//!
//! Deposits and withdrawals as in Finagle's `RetryBudget`, which refuses what is beyond; here it waits.

use parking_lot::Mutex;

use crate::time::{Duration, Instant};

/// What may be saved up, and what a fresh budget has: a few retries are nobody's outage.
const SAVED_MAX: f64 = 10.0;
/// Beyond the budget retries leave so far from each other: one call alone is always tried again.
const SPACING: Duration = Duration::from_secs(1);

/// One for the whole process.
#[derive(Debug)]
pub(super) struct Budget(Mutex<Balance>);

#[derive(Debug)]
struct Balance {
    retries: f64,
    /// When the last retry beyond the budget leaves.
    last: Option<Instant>,
}

impl Budget {
    pub(super) fn new() -> Self {
        Self(Mutex::new(Balance { retries: SAVED_MAX, last: None }))
    }

    /// A call was sent for the first time: it pays for `share` of a retry.
    pub(super) fn deposit(&self, share: f64) {
        let mut balance = self.0.lock();
        balance.retries = (balance.retries + share).min(SAVED_MAX);
    }

    /// A retry that is to leave after `backoff`. Says how much longer than that it has to wait: not at all within the
    /// budget, and never more than `most`.
    pub(super) fn withdraw(&self, now: Instant, backoff: Duration, most: Duration) -> Duration {
        let mut balance = self.0.lock();
        if balance.retries >= 1.0 {
            balance.retries -= 1.0;
            return Duration::ZERO;
        }
        let ready = now + backoff;
        let leaves = balance.last.map_or(ready, |last| (last + SPACING).max(ready));
        if leaves > ready + most {
            return most.mul_f64(0.5 + fastrand::f64() / 2.0); // nor do those leave together
        }
        balance.last = balance.last.max(Some(leaves));
        leaves - ready
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::time::now;

    const MOST: Duration = Duration::from_secs(30);

    /// How many of `retries` that come at once are held back, and the longest time of it.
    fn held_back(budget: &Budget, now: Instant, retries: u32) -> (usize, Duration) {
        let delays: Vec<Duration> = (0..retries).map(|_| budget.withdraw(now, Duration::ZERO, MOST)).collect();
        (delays.iter().filter(|delay| !delay.is_zero()).count(), delays.into_iter().max().unwrap())
    }

    #[tokio::test(start_paused = true)]
    async fn a_share_of_the_calls_is_free_and_the_rest_leaves_one_by_one() {
        let (budget, now) = (Budget::new(), now());
        assert_eq!(held_back(&budget, now, 10), (0, Duration::ZERO));
        (0..100).for_each(|_| budget.deposit(0.2));
        // What is saved up has a bound.
        assert_eq!(held_back(&budget, now, 15), (4, Duration::from_secs(4)));
        (0..5).for_each(|_| budget.deposit(0.2));
        assert_eq!(held_back(&budget, now, 1), (0, Duration::ZERO));
        // Who waits already is not overtaken.
        assert_eq!(held_back(&budget, now, 1), (1, Duration::from_secs(5)));
    }

    #[tokio::test(start_paused = true)]
    async fn in_an_outage_retries_leave_evenly_and_none_is_refused() {
        let (budget, now) = (Budget::new(), now());
        let mut leaves: Vec<Duration> = (0..30)
            .map(|index| {
                let backoff = Duration::from_millis(100 * index);
                backoff + budget.withdraw(now, backoff, MOST)
            })
            .collect();
        leaves.drain(..10);
        assert!(leaves.windows(2).all(|pair| pair[1] - pair[0] >= SPACING), "{leaves:?}");
        assert!(held_back(&budget, now, 500).1 <= MOST);
    }

    #[tokio::test(start_paused = true)]
    async fn without_a_share_every_retry_pays_by_waiting() {
        let (budget, now) = (Budget::new(), now());
        held_back(&budget, now, 10);
        (0..1_000).for_each(|_| budget.deposit(0.0));
        assert_eq!(held_back(&budget, now, 4), (3, Duration::from_secs(3)));
        // After a pause nobody waits for those that have left.
        assert_eq!(held_back(&budget, now + MOST, 1), (0, Duration::ZERO));
    }
}
