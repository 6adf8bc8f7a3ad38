//! What operators are shown of what was learned, and what of it outlives a restart.

use super::assumed::{self, Lowered};
use super::status::{LessonStatus, Saved, SavedBench, SavedLesson, Subject, Why};
use super::{BENCH_MAX, Bench, Learned, PENALTY_MAX};
use crate::time::{Duration, Instant};

const VERSION: u32 = 1;

impl Learned {
    /// What is assumed otherwise than configured.
    pub fn lessons(&self) -> impl Iterator<Item = LessonStatus> + '_ {
        Subject::ALL.into_iter().filter_map(|subject| self.lesson(subject))
    }

    /// What should outlive a restart. `closed_until`: until when nothing is permitted.
    #[must_use]
    pub fn save(&self, now: Instant, closed_until: Option<Instant>) -> Saved {
        let lessons = Subject::ALL.into_iter().filter_map(|subject| {
            let Lowered { level, why, since, next_probe, interval, ref trial } =
                *self.assumed[subject as usize].lowered()?;
            Some(SavedLesson {
                subject,
                level: trial.as_ref().map_or(level, |trial| trial.before),
                why,
                age: now.saturating_duration_since(since),
                probe_in: if trial.is_some() { interval } else { next_probe.saturating_duration_since(now) },
                interval,
            })
        });
        let bench = self.bench.map(|Bench { until, length, .. }| {
            let left = until.saturating_duration_since(now);
            SavedBench { left, length }
        });
        let closed_for = closed_until.map(|until| until.saturating_duration_since(now));
        let (lessons, penalty) = (lessons.collect(), self.penalty);
        Saved { version: VERSION, lessons, bench, penalty, closed_for, saved_at: None }
    }

    /// What [`Learned::save`] said `ago`, before a restart. What another version said is not understood, and forgotten.
    pub fn restore(&mut self, saved: &Saved, ago: Duration, now: Instant) {
        if saved.version != VERSION {
            return;
        }
        for lesson in &saved.lessons {
            let SavedLesson { subject, level, why, age, probe_in, interval } = *lesson;
            let interval = interval.clamp(assumed::PROBE_AFTER, BENCH_MAX);
            self.assumed[subject as usize].restore(Lowered {
                level,
                why,
                since: now.checked_sub(age).unwrap_or(now),
                next_probe: now + probe_in.min(interval),
                interval,
                trial: None,
            });
        }
        self.penalty = saved.penalty.min(PENALTY_MAX);
        self.bench = saved.bench.as_ref().map(|&SavedBench { left, length }| {
            let (left, length) = (left.min(BENCH_MAX).saturating_sub(ago), length.min(BENCH_MAX));
            Bench { begun: now, until: now + left, length }
        });
        self.closed = saved.closed_for.map(|left| now + left.min(BENCH_MAX).saturating_sub(ago));
    }

    fn lesson(&self, subject: Subject) -> Option<LessonStatus> {
        let assumed = &self.assumed[subject as usize];
        let in_force = self.in_force(subject)?;
        let of_margin = |left| u64::try_from(self.margin_after(left).as_millis()).unwrap_or(u64::MAX);
        let shown = |level| if subject == Subject::Margin { of_margin(level) } else { level };
        let configured = assumed.configured.map(shown);
        let lowered = assumed.lowered();
        if lowered.is_none_or(|lowered| in_force < lowered.level) {
            return (Some(in_force) < assumed.configured).then_some(LessonStatus {
                subject,
                configured,
                assumed: in_force,
                why: Why::Told(in_force),
                since: None,
                next_probe: None,
                is_probing: false,
            });
        }
        let lowered = lowered?;
        Some(LessonStatus {
            subject,
            configured,
            assumed: shown(lowered.level),
            why: lowered.why,
            since: Some(lowered.since),
            next_probe: lowered.trial.is_none().then_some(lowered.next_probe),
            is_probing: lowered.trial.is_some(),
        })
    }
}
