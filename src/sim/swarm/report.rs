//! What the swarm saw.

use std::collections::BTreeMap;

use super::Outcome;
use crate::time::Duration;
use crate::units::Priority;

/// The report of a swarm.
#[derive(Debug, Clone)]
pub struct Report {
    /// In the order the groups were given.
    pub groups: Vec<GroupReport>,
    /// Since the swarm started.
    pub elapsed: Duration,
}

impl Report {
    /// The group of this name.
    #[must_use]
    pub fn group(&self, name: &str) -> Option<&GroupReport> {
        self.groups.iter().find(|group| group.name == name)
    }

    /// How many calls of all groups ended in an outcome that `wanted` wants.
    pub fn count(&self, wanted: impl Fn(&Outcome) -> bool) -> u64 {
        let outcomes = self.groups.iter().flat_map(|group| &group.outcomes);
        outcomes.filter(|(outcome, _)| wanted(outcome)).map(|(_, count)| count).sum()
    }

    /// How many calls of all groups were answered whole and right.
    #[must_use]
    pub fn ok(&self) -> u64 {
        self.count(|outcome| *outcome == Outcome::Ok)
    }

    /// How many answers broke and were seen to break: by an error event, or by the end of the connection inside the message.
    #[must_use]
    pub fn broken(&self) -> u64 {
        self.count(|outcome| matches!(outcome, Outcome::Broken { .. }))
    }

    /// How many answers were wrong without saying so: corrupt, or cut and called complete.
    #[must_use]
    pub fn lies(&self) -> u64 {
        self.count(|outcome| matches!(outcome, Outcome::Corrupt | Outcome::FalselyComplete))
    }

    /// How many calls ended in any other way than answered whole and right; those cut off at the end are left out.
    #[must_use]
    pub fn failures(&self) -> u64 {
        self.count(|outcome| !matches!(outcome, Outcome::Ok | Outcome::Unfinished))
    }
}

/// The report of one group of workers.
#[derive(Debug, Clone)]
pub struct GroupReport {
    /// The group's name.
    pub name: String,
    /// The class it asked for.
    pub priority: Option<Priority>,
    /// How many calls ended how.
    pub outcomes: BTreeMap<Outcome, u64>,
    /// Milliseconds until the head came, of the calls that were answered right.
    pub head_ms: Percentiles,
    /// Milliseconds until the last byte, of the calls that were answered right.
    pub total_ms: Percentiles,
    /// Milliseconds in the queue as `x-tidegate-queue-ms` tells, of the calls that were told.
    pub queue_ms: Percentiles,
    /// Every call, in the order they ended.
    pub samples: Vec<Sample>,
}

impl GroupReport {
    pub(super) fn new(name: &str, priority: Option<Priority>, samples: Vec<Sample>) -> Self {
        let mut outcomes = BTreeMap::new();
        for sample in &samples {
            *outcomes.entry(sample.outcome.clone()).or_default() += 1;
        }
        let answered = || samples.iter().filter(|sample| sample.outcome == Outcome::Ok);
        Self {
            name: name.to_owned(),
            priority,
            outcomes,
            head_ms: Percentiles::of(answered().filter_map(|sample| sample.head_ms)),
            total_ms: Percentiles::of(answered().map(|sample| sample.total_ms)),
            queue_ms: Percentiles::of(samples.iter().filter_map(|sample| sample.queue_ms)),
            samples,
        }
    }

    /// How many calls ended in this outcome.
    #[must_use]
    pub fn count(&self, outcome: &Outcome) -> u64 {
        self.outcomes.get(outcome).copied().unwrap_or(0)
    }
}

/// One call.
#[derive(Debug, Clone, PartialEq)]
pub struct Sample {
    /// When it began, in seconds since the swarm started.
    pub started_seconds: f64,
    /// Whether it streamed.
    pub stream: bool,
    /// Milliseconds until the head came, if it came.
    pub head_ms: Option<f64>,
    /// Milliseconds until it ended.
    pub total_ms: f64,
    /// What `x-tidegate-queue-ms` told.
    pub queue_ms: Option<f64>,
    /// What `x-tidegate-attempts` told.
    pub attempts: Option<u32>,
    /// How much of a stream came.
    pub came: Came,
    /// How it ended.
    pub outcome: Outcome,
}

/// How far a stream came, whether or not it was right. White space alone is no text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Came {
    /// No text of it.
    #[default]
    Nothing,
    /// Some of what was thought before the answer, and none of the answer.
    Reasoning,
    /// Some of the answer.
    Content,
    /// Why it ended; what may be missing is the usage.
    Finish,
}

impl Sample {
    pub(super) fn begun(started_seconds: f64, stream: bool) -> Self {
        Self {
            started_seconds,
            stream,
            head_ms: None,
            total_ms: 0.0,
            queue_ms: None,
            attempts: None,
            came: Came::Nothing,
            outcome: Outcome::Unfinished,
        }
    }

    /// When its turn came, in seconds since the swarm started, if it is known to have come.
    #[must_use]
    pub fn turn_seconds(&self) -> Option<f64> {
        self.queue_ms.map(|waited| self.started_seconds + waited / 1_000.0)
    }
}

/// Percentiles by nearest rank; all zero where there was nothing to measure.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Percentiles {
    /// How many values there were.
    pub count: usize,
    /// Half are at most this.
    pub p50: f64,
    /// 95 % are at most this.
    pub p95: f64,
    /// 99 % are at most this.
    pub p99: f64,
    /// The largest.
    pub max: f64,
}

impl Percentiles {
    /// The percentiles of some values.
    #[must_use]
    pub fn of(values: impl IntoIterator<Item = f64>) -> Self {
        let mut values: Vec<f64> = values.into_iter().collect();
        values.sort_unstable_by(f64::total_cmp);
        let rank = |percent: usize| {
            let rank = (values.len() * percent).div_ceil(100).saturating_sub(1);
            values.get(rank).copied().unwrap_or_default()
        };
        Self { count: values.len(), p50: rank(50), p95: rank(95), p99: rank(99), max: rank(100) }
    }
}

pub(super) fn ms(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1_000.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_by_nearest_rank() {
        let hundred = Percentiles::of((1..=100).rev().map(f64::from));
        assert_eq!((hundred.p50, hundred.p95, hundred.p99, hundred.max), (50.0, 95.0, 99.0, 100.0));
        let one = Percentiles::of([7.0]);
        assert_eq!((one.count, one.p50, one.max), (1, 7.0, 7.0));
        assert_eq!(Percentiles::of([]), Percentiles::default());
    }

    #[test]
    fn calls_cut_off_at_the_end_are_no_failures() {
        let broken = Outcome::Broken { code: "upstream_disconnected".to_owned() };
        let samples = [Outcome::Ok, Outcome::Unfinished, Outcome::Corrupt, Outcome::TimedOut, broken]
            .map(|outcome| Sample { outcome, ..Sample::begun(0.0, false) });
        let group = GroupReport::new("g", None, samples.to_vec());
        let report = Report { groups: vec![group], elapsed: Duration::ZERO };
        assert_eq!((report.ok(), report.broken(), report.lies(), report.failures()), (1, 1, 1, 3));
    }
}
