//! From what the provider and the workers saw to figures. Pure.

use serde::Serialize;

use super::plan::{CHATTING, Plan};
use crate::sim::Stats;
use crate::sim::swarm::{GroupReport, Outcome, Report, Sample};

/// The window is looked at in steps this long; of each the fullest moment counts.
pub(super) const STEP_SECONDS: f64 = 0.2;

/// What one side came to. Seconds count from the moment its workers began.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Side {
    pub(super) name: &'static str,
    /// Calls answered whole and right.
    pub(super) answered: u64,
    /// Calls that ended in any other way.
    pub(super) client_errors: u64,
    /// Of those, answers with wrong bytes, or cut and called complete.
    pub(super) wrong_answers: u64,
    /// Questions that had no answer when everything was over, however often they were asked.
    pub(super) never_answered: usize,
    /// Requests that exceeded a limit of the provider.
    pub(super) violations: u64,
    /// Requests refused because a penalty ran.
    pub(super) refused_in_penalty: u64,
    /// Most requests in any window.
    pub(super) window_max: usize,
    /// Most requests at a time.
    pub(super) in_flight_max: u32,
    /// What the provider admitted while the workers asked, as a share of what it would have.
    pub(super) rate_used: f64,
    /// Until the last worker was done.
    pub(super) took_seconds: f64,
    pub(super) chat_wait: Waits,
    pub(super) batch_wait: Waits,
    pub(super) by_second: Vec<Second>,
    /// Requests in the window, the most in each step of a fifth of a second.
    pub(super) window: Vec<u32>,
    /// When calls failed, to a twentieth of a second.
    pub(super) failed_seconds: Vec<f64>,
    /// Questions of those who chat, in the order they were asked.
    pub(super) chat: Vec<Question>,
}

/// What happened in one second.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub(super) struct Second {
    pub(super) answered: u32,
    pub(super) failed: u32,
    pub(super) violations: u32,
}

/// A question, asked until it was answered: failed tries and the pauses after them are part of its wait.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(super) struct Question {
    pub(super) asked_seconds: f64,
    /// Until the first byte of the right answer; where there is none, until the last try failed.
    pub(super) wait_seconds: f64,
    pub(super) answered: bool,
    /// When tries failed.
    pub(super) failed_seconds: Vec<f64>,
}

/// Percentiles of waits by nearest rank.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub(super) struct Waits {
    pub(super) count: usize,
    pub(super) p50: Wait,
    pub(super) p99: Wait,
}

/// How long somebody waited.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub(super) struct Wait {
    pub(super) seconds: f64,
    /// There was no answer at the end: it would have been longer.
    pub(super) at_least: bool,
}

/// How much the provider admitted in the whole windows at the end of the asking. What is over of a window at the
/// beginning is left out: a burst in it would show a rate that cannot last.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Rate {
    before: u64,
    after: u64,
}

impl Rate {
    /// The whole windows begin.
    pub(super) fn begin(&mut self, stats: &Stats) {
        self.before = admitted(stats);
    }

    /// The asking ends.
    pub(super) fn end(&mut self, stats: &Stats) {
        self.after = admitted(stats);
    }

    /// As a share of what could have been admitted.
    fn used(self, plan: &Plan) -> f64 {
        let admitted = u32::try_from(self.after.saturating_sub(self.before)).unwrap_or(u32::MAX);
        round(f64::from(admitted) / (plan.attainable_a_second() * plan.whole_windows().as_secs_f64()))
    }
}

fn admitted(stats: &Stats) -> u64 {
    stats.counted.saturating_sub(stats.violations.total() + stats.refused_in_penalty)
}

impl Side {
    /// `arrivals` are the counted instants and `violations` the moments they were noticed, both since the beginning.
    pub(super) fn new(
        name: &'static str,
        plan: &Plan,
        report: &Report,
        stats: &Stats,
        rate: Rate,
        arrivals: Vec<f64>,
        violations: Vec<f64>,
    ) -> Self {
        let (chatting, batch) = report.groups.split_at(CHATTING.min(report.groups.len()));
        let (mut chat, batch): (Vec<_>, Vec<_>) = (questions_of(chatting), questions_of(batch));
        chat.sort_by(|a, b| a.asked_seconds.total_cmp(&b.asked_seconds));
        let took_seconds = round(report.elapsed.as_secs_f64());
        Self {
            name,
            answered: report.ok(),
            client_errors: report.count(|outcome| *outcome != Outcome::Ok),
            wrong_answers: report.lies(),
            never_answered: chat.iter().chain(&batch).filter(|question| !question.answered).count(),
            violations: stats.violations.total(),
            refused_in_penalty: stats.refused_in_penalty,
            window_max: stats.window_max,
            in_flight_max: stats.in_flight_max,
            rate_used: rate.used(plan),
            took_seconds,
            chat_wait: Waits::of(&chat),
            batch_wait: Waits::of(&batch),
            by_second: by_second(report, &violations),
            window: window_over_time(&arrivals, plan.window.as_secs_f64(), took_seconds),
            failed_seconds: failed_seconds(report),
            chat,
        }
    }
}

/// How far a side is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    /// The workers ask.
    Asking,
    /// They ask no more, and who still waits is answered.
    Answering,
    /// The last is done.
    Done,
}

/// A look at a side while it runs.
#[derive(Debug)]
pub(super) struct Glance {
    pub(super) name: &'static str,
    pub(super) seconds: f64,
    pub(super) phase: Phase,
    pub(super) window_now: usize,
    pub(super) in_flight: u32,
    pub(super) answered: u64,
    pub(super) failed: u64,
    pub(super) violations: u64,
    /// The latest of those who chat, oldest first: how long until an answer began, or that a try failed.
    pub(super) chat: Vec<Option<f64>>,
}

impl Glance {
    pub(super) fn new(name: &'static str, plan: &Plan, stats: &Stats, report: &Report) -> Self {
        let seconds = report.elapsed.as_secs_f64();
        let mut chat: Vec<(f64, Option<f64>)> = Vec::new();
        for question in questions_of(report.groups.get(..CHATTING).unwrap_or_default()) {
            chat.extend(question.failed_seconds.iter().map(|at| (*at, None)));
            if question.answered {
                chat.push((question.asked_seconds + question.wait_seconds, Some(question.wait_seconds)));
            }
        }
        chat.sort_by(|(a, _), (b, _)| a.total_cmp(b));
        Self {
            name,
            seconds,
            phase: if seconds < plan.asking.as_secs_f64() { Phase::Asking } else { Phase::Answering },
            window_now: stats.window_now,
            in_flight: stats.in_flight,
            answered: report.ok(),
            failed: report.count(|outcome| *outcome != Outcome::Ok),
            violations: stats.violations.total(),
            chat: chat.into_iter().map(|(_, wait)| wait).collect(),
        }
    }
}

/// The questions of workers that are each a group of their own.
fn questions_of(workers: &[GroupReport]) -> Vec<Question> {
    workers.iter().flat_map(|worker| questions(&worker.samples)).collect()
}

/// Calls of one worker in their order become questions: what follows a failed call counts as the same
/// question, asked again.
fn questions(calls: &[Sample]) -> Vec<Question> {
    let mut questions = Vec::new();
    let mut open: Option<Question> = None;
    for call in calls {
        let begun = call.started_seconds;
        let mut question = open.take().unwrap_or_else(|| Question {
            asked_seconds: round(begun),
            wait_seconds: 0.0,
            answered: false,
            failed_seconds: Vec::new(),
        });
        match call.head_ms {
            Some(head_ms) if call.outcome == Outcome::Ok => {
                question.wait_seconds = round(begun + head_ms / 1_000.0 - question.asked_seconds);
                question.answered = true;
                questions.push(question);
            }
            _ => {
                question.failed_seconds.push(round(ended(call)));
                question.wait_seconds = round(ended(call) - question.asked_seconds);
                open = Some(question);
            }
        }
    }
    questions.extend(open);
    questions
}

impl Waits {
    fn of(questions: &[Question]) -> Self {
        let mut waits: Vec<Wait> = questions
            .iter()
            .map(|question| Wait { seconds: question.wait_seconds, at_least: !question.answered })
            .collect();
        waits.sort_by(|a, b| a.seconds.total_cmp(&b.seconds));
        // Who never had an answer may have waited for any time longer, and so may whoever ranks above.
        let known = waits.iter().take_while(|wait| !wait.at_least).count();
        let rank = |percent: usize| {
            let rank = (waits.len() * percent).div_ceil(100).saturating_sub(1);
            let seconds = waits.get(rank).map_or(0.0, |wait| wait.seconds);
            Wait { seconds, at_least: rank >= known && known < waits.len() }
        };
        Self { count: waits.len(), p50: rank(50), p99: rank(99) }
    }
}

/// When calls failed, each moment once.
fn failed_seconds(report: &Report) -> Vec<f64> {
    let calls = report.groups.iter().flat_map(|group| &group.samples);
    let mut moments: Vec<f64> = calls
        .filter(|call| call.outcome != Outcome::Ok)
        .map(|call| round((ended(call) * 20.0).round() / 20.0))
        .collect();
    moments.sort_by(f64::total_cmp);
    moments.dedup();
    moments
}

fn by_second(report: &Report, violations: &[f64]) -> Vec<Second> {
    let mut seconds = vec![Second::default(); index(report.elapsed.as_secs_f64(), 1.0) + 1];
    for call in report.groups.iter().flat_map(|group| &group.samples) {
        if let Some(second) = seconds.get_mut(index(ended(call), 1.0)) {
            *(if call.outcome == Outcome::Ok { &mut second.answered } else { &mut second.failed }) += 1;
        }
    }
    for at in violations {
        if let Some(second) = seconds.get_mut(index(*at, 1.0)) {
            second.violations += 1;
        }
    }
    seconds
}

/// The most requests in the window in each step. `arrivals` are in order.
fn window_over_time(arrivals: &[f64], window: f64, until: f64) -> Vec<u32> {
    let (mut first, mut next) = (0, 0);
    (0..=index(until, STEP_SECONDS))
        .map(|step| {
            #[expect(clippy::cast_precision_loss, reason = "an hour has 18,000 steps")]
            let (from, to) = (step as f64 * STEP_SECONDS, (step as f64 + 1.0) * STEP_SECONDS);
            let expire = |first: &mut usize, at: f64| {
                while arrivals.get(*first).is_some_and(|arrival| arrival + window <= at) {
                    *first += 1;
                }
            };
            expire(&mut first, from);
            let mut most = next - first;
            while let Some(arrival) = arrivals.get(next).filter(|arrival| **arrival < to) {
                next += 1;
                expire(&mut first, *arrival);
                most = most.max(next - first);
            }
            u32::try_from(most).unwrap_or(u32::MAX)
        })
        .collect()
}

/// In which step of so many seconds a moment is.
fn index(seconds: f64, step: f64) -> usize {
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "it is not negative, and of hours at most"
    )]
    let index = (seconds / step).max(0.0) as usize;
    index
}

fn ended(call: &Sample) -> f64 {
    call.started_seconds + call.total_ms / 1_000.0
}

/// Thousandths are what is measured well, so the record and what is shown cannot differ in more.
fn round(figure: f64) -> f64 {
    (figure * 1_000.0).round() / 1_000.0
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sim::Violations;
    use crate::sim::swarm::Came;
    use crate::time::Duration;

    fn call(started_seconds: f64, head_ms: Option<f64>, total_ms: f64, outcome: Outcome) -> Sample {
        let came = Came::default();
        Sample { started_seconds, stream: true, head_ms, total_ms, queue_ms: None, attempts: None, came, outcome }
    }

    fn question(wait_seconds: f64, answered: bool) -> Question {
        Question { asked_seconds: 0.0, wait_seconds, answered, failed_seconds: Vec::new() }
    }

    #[test]
    fn failed_tries_are_part_of_the_wait() {
        let calls = [
            call(1.0, Some(200.0), 900.0, Outcome::Ok),
            call(3.0, None, 10.0, Outcome::Transport),
            call(5.0, Some(100.0), 300.0, Outcome::Broken { code: "transport".to_owned() }),
            call(7.0, Some(500.0), 900.0, Outcome::Ok),
            call(9.0, None, 1_000.0, Outcome::Transport),
        ];
        let asked = questions(&calls);
        let told: Vec<_> = asked.iter().map(|q| (q.asked_seconds, q.wait_seconds, q.answered)).collect();
        assert_eq!(told, [(1.0, 0.2, true), (3.0, 4.5, true), (9.0, 1.0, false)]);
        assert_eq!(asked[1].failed_seconds, [3.01, 5.3]);
    }

    #[test]
    fn a_wait_without_an_end_is_a_least_figure_and_so_is_what_ranks_above() {
        let waits = Waits::of(&[question(1.0, true), question(2.0, true), question(3.0, false), question(9.0, true)]);
        assert_eq!(waits.p50, Wait { seconds: 2.0, at_least: false });
        assert_eq!(waits.p99, Wait { seconds: 9.0, at_least: true });
        assert_eq!(Waits::of(&[]), Waits::default());
    }

    #[test]
    fn the_window_over_time_shows_its_fullest_moments() {
        // Two at once, of which one step shows both although they have left before it ends.
        let window = window_over_time(&[0.05, 0.06, 0.5], 0.1, 0.79);
        assert_eq!(window, [2, 0, 1, 0]);
    }

    #[test]
    fn rate_used_counts_what_was_admitted_and_nothing_else() {
        let plan = Plan::of(20, Duration::from_secs(10), 5);
        let violations = Violations { window: 5, concurrency: 1, tokens: 0 };
        let mut rate = Rate::default();
        rate.begin(&Stats { counted: 10, ..Stats::default() });
        rate.end(&Stats { counted: 70, violations, refused_in_penalty: 24, ..Stats::default() });
        assert_eq!(rate.used(&plan), 0.5);
    }
}
