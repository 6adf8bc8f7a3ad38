//! A provider that was down: what it was asked meanwhile, and how everybody came back.

use tidegate::time::Duration;

use super::stage::Evidence;
use super::story::Story;

/// From then on only probes come: five failures have opened the breaker, also where resets that look like a refusal are a
/// cooldown apart, of 2, 4 and 8 s.
const ONLY_PROBES: f64 = 16.0;
/// What comes so soon after another is the same probe: its pooled connection was dead, so it went again on a new one.
const SAME_PROBE: f64 = 2.0;

impl Evidence {
    /// Requests and connections that came while the provider was down.
    pub(super) fn came_while_down(&self) -> u64 {
        self.stats.requests_while_down + self.stats.connections_refused
    }

    /// When each probe was counted, in seconds since the provider was down.
    pub(super) fn probes(&self) -> Vec<f64> {
        let (from, to) = self.outage();
        let probes = self.arrivals.iter().filter(|at| (from + ONLY_PROBES..to).contains(*at));
        let probes: Vec<f64> = probes.map(|at| at - from).collect();
        let each = probes.chunk_by(|one, next| next - one < SAME_PROBE);
        each.filter_map(|probe| probe.last().copied()).collect()
    }

    /// The most requests in any stretch of time so long, from when the provider was back.
    pub(super) fn crowd(&self, stretch: Duration) -> usize {
        let (back, stretch) = (self.arrivals_since_back(), stretch.as_secs_f64());
        let within = |first: usize| back[first..].iter().take_while(|at| **at < back[first] + stretch).count();
        (0..back.len()).map(within).max().unwrap_or_default()
    }

    /// The largest share of a window's requests that came in a twentieth of it, of the first window after the outage.
    pub(super) fn gathered(&self, story: &Story) -> f64 {
        let window = story.provider.allows.window;
        let first = *self.arrivals_since_back().first().expect("somebody comes back");
        let of_window = self.arrivals_since_back().iter().take_while(|at| **at < first + window.as_secs_f64()).count();
        self.crowd(window / 20) as f64 / of_window as f64
    }

    /// By how many requests more came back than one, and one more for each of them that had been answered by then: each
    /// round is at most twice the one before. Every answer takes `latency`. None: nobody came as a herd.
    pub(super) fn herd(&self, latency: Duration) -> usize {
        let (back, latency) = (self.arrivals_since_back(), latency.as_secs_f64());
        let excess = back.iter().zip(1..).map(|(at, came)| {
            let answered = back.partition_point(|earlier| *earlier <= at - latency);
            usize::saturating_sub(came, 1 + 2 * answered)
        });
        excess.max().unwrap_or_default()
    }

    /// How long after the provider was back the first request came, in seconds.
    pub(super) fn first_after(&self) -> f64 {
        self.arrivals_since_back().first().expect("somebody comes back") - self.outage().1
    }

    fn arrivals_since_back(&self) -> &[f64] {
        let (_, back) = self.outage();
        &self.arrivals[self.arrivals.partition_point(|at| *at < back)..]
    }

    fn outage(&self) -> (f64, f64) {
        *self.down.last().expect("a story about an outage")
    }
}
