//! What is made of what was seen.

use tidegate::sim::Limits;
use tidegate::sim::swarm::{Came, Outcome, Percentiles, Sample};
use tidegate::time::Duration;

use super::stage::Evidence;
use super::story::Story;

/// A slot of ours cools so long after its exchange has ended, and the glances at the provider's slots are not exact.
const SLOT_RETURNS: f64 = 0.060;
const TIMED_OUT: &str = "upstream_timeout";

impl Evidence {
    /// Most requests in any window, and what was allowed then, of the window that came closest to its limit; counted by
    /// hand, so that the judge is not its own judge.
    pub(super) fn fullest_window(&self) -> (usize, u32) {
        let counts = self.arrivals.iter().enumerate().map(|(last, at)| {
            let limits = self.allowed_at(*at);
            let window = limits.window.as_secs_f64();
            let within = self.arrivals[..=last].iter().rev().take_while(|earlier| at - **earlier < window).count();
            (within, limits.requests.unwrap_or(u32::MAX))
        });
        let excess = |(count, allowed): &(usize, u32)| i64::try_from(*count).unwrap() - i64::from(*allowed);
        counts.max_by_key(excess).unwrap_or((0, u32::MAX))
    }

    fn allowed_at(&self, at: f64) -> Limits {
        self.allowed.iter().rev().find(|(since, _)| *since <= at).expect("from the start on").1
    }

    pub(super) fn counted_by_second(&self) -> Vec<usize> {
        let within = |second: f64| self.arrivals.iter().filter(|at| (*at - self.began).floor() == second).count();
        let seconds = (self.arrivals.last().unwrap_or(&self.began) - self.began).ceil();
        std::iter::successors(Some(0.0), |second| Some(second + 1.0)).take_while(|s| *s < seconds).map(within).collect()
    }

    /// The share of the provider's rate that was used after the warm-up, under steady backlog.
    ///
    /// Counted over a whole number of periods of our window, and averaged over all instants of the first period at which
    /// the count can start, so that neither the pattern of a period nor its edges matter.
    pub(super) fn rate_used(&self, story: &Story, period: Duration) -> f64 {
        let first = self.began + story.warm_up.as_secs_f64();
        let period = period.as_secs_f64();
        let periods = ((story.lasts - story.warm_up).as_secs_f64() / period).floor() - 1.0;
        assert!(periods >= 1.0, "the story is too short");
        // An arrival is in the counts that start after `at - periods`, and not after `at`.
        let share = |at: &f64| (at.min(first + period) - (at - periods * period).max(first)).max(0.0) / period;
        let counted: f64 = self.arrivals.iter().map(share).sum();
        let allows = &story.provider.allows;
        counted / (periods * period) / (f64::from(allows.requests) / allows.window.as_secs_f64())
    }

    /// What those who chat waited for their turn, in milliseconds, from the moment on at which they were the first of
    /// their class, and while a slot was free. Calls that were sent more than once waited more than once and are left out.
    pub(super) fn chat_waits(&self, story: &Story) -> Percentiles {
        let after = |(turn, _): &(f64, f64)| *turn >= story.warm_up.as_secs_f64();
        Percentiles::of(self.chat_turns().into_iter().filter(after).map(|(_, waited)| waited * 1_000.0))
    }

    /// When those who chat had their turn, in seconds since the clients began, and what they waited for it, in seconds.
    pub(super) fn chat_turns(&self) -> Vec<(f64, f64)> {
        let samples: Vec<&Sample> =
            self.stayed.group("chat").map(|group| group.samples.iter().collect()).unwrap_or_default();
        let granted = |sample: &Sample| sample.started_seconds + sample.queue_ms.unwrap_or(0.0) / 1_000.0;
        let wait = |sample: &Sample| {
            let earlier = samples.iter().filter(|other| other.started_seconds < sample.started_seconds);
            let first_since = earlier.map(|other| granted(other)).fold(sample.started_seconds, f64::max);
            let (from, to) = (self.began + first_since, self.began + granted(sample));
            ((to - from).max(0.0) - self.in_full_between(from, to)).max(0.0)
        };
        let measured = samples.iter().filter(|sample| sample.attempts == Some(1));
        measured.map(|sample| (granted(sample), wait(sample))).collect()
    }

    /// How long between two instants no slot could be had.
    fn in_full_between(&self, from: f64, to: f64) -> f64 {
        let (mut sum, mut counted_to) = (0.0, from);
        for (full, free) in &self.in_full {
            let (full, free) = (full.max(counted_to), (free + SLOT_RETURNS).min(to));
            if free > full {
                sum += free - full;
                counted_to = free;
            }
        }
        sum
    }

    /// What went wrong for clients, of all that could go wrong. A stream that broke after its first event could not be
    /// helped, as long as it is seen to be broken; nor could who got no byte in time, since the provider may still be at it;
    /// nor one that lacks its usage alone, which nobody can ask for.
    pub(super) fn errors(&self) -> Vec<&Sample> {
        let is_fine = |sample: &&Sample| {
            matches!(sample.outcome, Outcome::Ok | Outcome::WithoutUsage | Outcome::Unfinished)
                || is_broken(sample)
                || has_timed_out(sample)
        };
        self.samples().filter(|sample| !is_fine(sample)).collect()
    }

    /// How many streams were whole but for the usage that they were to tell.
    pub(super) fn without_usage(&self) -> u64 {
        self.count(|sample| sample.outcome == Outcome::WithoutUsage)
    }

    /// How many answers the provider cut after their last text.
    pub(super) fn cut_late(&self) -> u64 {
        self.faults("reset_late")
    }

    /// How many streams broke after their first event.
    pub(super) fn broken(&self) -> u64 {
        self.count(is_broken)
    }

    /// How many of them had come so far, and no further.
    pub(super) fn broken_in(&self, came: Came) -> u64 {
        self.count(|sample| is_broken(sample) && sample.came == came)
    }

    /// How many calls got no byte of an answer in time.
    pub(super) fn timed_out(&self) -> u64 {
        self.count(has_timed_out)
    }

    /// How many streams and plain answers the provider cut in the middle.
    pub(super) fn cut(&self) -> u64 {
        let kinds = ["reset_mid_stream", "eof_mid_stream", "stall_mid_stream", "half_event", "reset_late"];
        kinds.into_iter().map(|kind| self.faults(kind)).sum()
    }

    /// How many requests the provider never began to answer.
    pub(super) fn stalled(&self, story: &Story) -> u64 {
        let hung = if story.hangs() { self.stats.requests_while_down } else { 0 };
        self.faults("stall") + hung
    }

    fn faults(&self, kind: &str) -> u64 {
        self.stats.faults.get(kind).copied().unwrap_or_default()
    }

    fn count(&self, is_it: impl Fn(&Sample) -> bool) -> u64 {
        u64::try_from(self.samples().filter(|sample| is_it(sample)).count()).unwrap()
    }

    fn samples(&self) -> impl Iterator<Item = &Sample> {
        self.stayed.groups.iter().flat_map(|group| &group.samples)
    }
}

/// Whether a stream broke, in words that clients understand: it was lost, or it fell silent after its beginning.
fn is_broken(sample: &Sample) -> bool {
    let Outcome::Broken { code } = &sample.outcome else { return false };
    sample.stream && (code == "upstream_disconnected" || code == TIMED_OUT && sample.came != Came::Nothing)
}

/// Whether no byte of an answer came in time: as a status, or as an event where the client was kept company before.
fn has_timed_out(sample: &Sample) -> bool {
    match &sample.outcome {
        Outcome::Refused { status, code } => (*status, code.as_str()) == (504, TIMED_OUT),
        Outcome::Broken { code } => code == TIMED_OUT && sample.came == Came::Nothing,
        _ => false,
    }
}
