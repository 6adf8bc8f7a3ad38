//! How long to wait before the next attempt: exponential, with full jitter.
//!
//! The source of the form is "Exponential Backoff And Jitter" (AWS Architecture Blog, 2015): uniform in
//! 0..min(cap, base × 2^n), which spreads a herd best.

use super::settings::Retry;
use crate::time::Duration;

/// The longest wait before attempt `failures + 1`.
pub(super) fn ceiling(retry: &Retry, failures: u32) -> Duration {
    let doublings = failures.saturating_sub(1).min(31);
    retry.base.saturating_mul(1 << doublings).min(retry.cap)
}

/// The wait of a call that can wait for `left`: what the provider says wins, else anything up to the ceiling. `None`: there
/// is no time for another attempt.
pub(super) fn delay(retry: &Retry, failures: u32, retry_after: Option<Duration>, left: Duration) -> Option<Duration> {
    let delay = retry_after.unwrap_or_else(|| ceiling(retry, failures).min(left).mul_f64(fastrand::f64()));
    (delay < left).then_some(delay)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ceiling_doubles_up_to_the_cap() {
        let retry = Retry::default();
        let seconds: Vec<f64> = (1..10).map(|failures| ceiling(&retry, failures).as_secs_f64()).collect();
        assert_eq!(seconds, [0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 30.0, 30.0, 30.0]);
        assert_eq!(ceiling(&retry, u32::MAX), retry.cap);
    }

    #[test]
    fn the_delay_is_spread_under_the_ceiling_and_the_provider_wins() {
        let (retry, seconds) = (Retry::default(), Duration::from_secs);
        let mut delays: Vec<Duration> = (0..1_000).map(|_| delay(&retry, 3, None, seconds(600)).unwrap()).collect();
        delays.sort_unstable();
        assert!(delays[999] <= seconds(2));
        assert!(delays[500] > Duration::from_millis(800) && delays[500] < Duration::from_millis(1_200));
        assert_eq!(delay(&retry, 3, Some(seconds(60)), seconds(600)), Some(seconds(60)));
    }

    #[test]
    fn as_long_as_there_is_time_there_is_an_attempt() {
        let (retry, left) = (Retry::default(), Duration::from_millis(300));
        assert!((0..1_000).all(|_| delay(&retry, 8, None, left).is_some_and(|delay| delay < left)));
        assert_eq!(delay(&retry, 1, Some(left), left), None);
        assert_eq!(delay(&retry, 1, None, Duration::ZERO), None);
    }
}
