//! What a provider really allows: learned from its refusals and headers, always below what is configured.
//!
//! Each limit (requests, tokens, concurrency, and the margin of the window) is either as configured or assumed lower. A
//! refusal lowers one of them, the one that it is about; a *probe* raises it again and sees whether that holds.
//!
//! - **One event, one lesson.** Whoever was permitted before a refusal teaches nothing more, nor does anybody until the
//!   provider has accepted a request that was permitted after it: what comes in between comes in its penalty.
//! - **Which limit.** What the provider says decides. Else a count that was lately accepted is not at fault, nor is
//!   concurrency if the request was alone; of what remains, whichever is nearest to its configured limit. Where nothing
//!   remains that was used by half, the provider is busy, unless a second such refusal follows within ten minutes.
//! - **Doubt.** A provider that is merely busy refuses anybody. So where less than half was used, or as much was accepted
//!   lately, it takes a second refusal, with nothing accepted in between that was as much. A figure that the provider
//!   names itself is believed at once.
//! - **How low.** What the provider counted is at most what we counted, so it allows no more than our count less one. Where
//!   our window was full by a limit that has held so far, the margin is suspected first, then the limit.
//! - **Back.** Ten minutes after the last lesson or probe, half of what is missing is tried, one limit at a time. When it
//!   is refused, what was accepted last holds and the next probe waits twice as long, up to a day.
//! - **Penalties.** A provider that refuses everybody for a while without saying for how long is left alone for longer each
//!   time; how long it really was is remembered for the next time.
//! - **A day.** A refusal for a day or month lowers nothing. It benches the key, and then lets one call at a time try.
//!
//! Without a configured limit of requests or tokens there is nothing to lower: a refusal closes the gate and that is all.
//! A cap of concurrency is learned without one, but only from a provider that says so: nothing tells how near it was.

mod assumed;
mod evidence;
mod judgement;
mod lesson;
mod losses;
mod memory;
#[cfg(test)]
mod simulation;
mod status;
#[cfg(test)]
mod tests;
mod told;

use self::assumed::{Assumed, Recent};
pub use self::evidence::{Evidence, Hints, Signal};
pub use self::lesson::Lesson;
pub use self::losses::Cooldown;
use self::losses::Losses;
pub use self::status::{LessonStatus, Saved, Subject, Why};
use crate::time::{Duration, Instant};

/// The margin is learned upward in so many steps, to a fiftieth of the window.
const MARGIN_STEPS: u64 = 2;
/// Unless it says for how long it is a day's: for so long, then twice that.
const BENCH: Duration = Duration::from_secs(60 * 60);
const BENCH_MAX: Duration = Duration::from_secs(24 * 60 * 60);
/// A gate closes for no longer than this where the provider does not say for how long.
const CLOSED_MAX: Duration = Duration::from_secs(30);
const PENALTY_MAX: Duration = Duration::from_secs(60);
/// A wait longer than this, and than the window, is none for the window to pass but for a day.
const LONG: Duration = Duration::from_secs(10 * 60);
/// Connections that break within this have broken for one reason.
const TOGETHER: Duration = Duration::from_secs(10);
/// Two that nothing explains are no chance when they come within this.
const TWICE: Duration = Duration::from_secs(10 * 60);
const MINUTE: Duration = Duration::from_secs(60);

/// The figures of an allowance: as configured, or as in force.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Figures {
    /// The provider's window.
    pub window: Duration,
    /// How much later than our last write it may count.
    pub margin: Duration,
    /// Requests in a window.
    pub requests: Option<u32>,
    /// Tokens in a window.
    pub tokens: Option<u64>,
    /// Exchanges at a time.
    pub concurrency: Option<u32>,
}

/// What one key of one upstream has taught.
#[derive(Debug)]
pub struct Learned {
    configured: Figures,
    /// By [`Subject`]; the margin as steps that are not yet taken, so that it is lowered as all are.
    assumed: [Assumed; 4],
    /// Counts that were accepted lately, by [`Subject`].
    proven: [Recent; 4],
    /// Limits that answers told lately: of requests and of tokens. Several models of one key may have several, so the
    /// largest rules.
    told: [Recent; 2],
    /// The last refusal that was not of an event already known.
    refused: Option<Instant>,
    /// Nothing that was permitted after it has been accepted yet.
    is_shut: bool,
    /// Refusals since something was accepted, each permitted after the one before.
    row: u32,
    /// When the last event began, and the latest permit that was refused in its penalty.
    event: Option<(Instant, Option<Instant>)>,
    /// How long the provider refused everybody the last time, where it did not say for how long.
    penalty: Duration,
    /// Connections that broke.
    losses: Losses,
    /// By [`Subject`], the count of the last refusal that was doubted.
    doubted: [Option<(Instant, u64)>; 4],
    /// The last refusal that nothing explained.
    unexplained: Option<(Instant, Evidence)>,
    bench: Option<Bench>,
    /// Until when nothing was permitted when the process ended before this one.
    closed: Option<Instant>,
}

#[derive(Debug, Clone, Copy)]
struct Bench {
    begun: Instant,
    until: Instant,
    length: Duration,
}

impl Learned {
    /// Nothing was learned yet.
    #[must_use]
    pub fn new(configured: Figures) -> Self {
        let assumed = Subject::ALL.map(|subject| {
            let (configured, floor) = bounds(&configured, subject);
            Assumed::new(configured, floor)
        });
        Self {
            configured,
            assumed,
            proven: [Recent::default(); 4],
            told: [Recent::default(); 2],
            refused: None,
            is_shut: false,
            row: 0,
            event: None,
            penalty: Duration::ZERO,
            losses: Losses::default(),
            doubted: [None; 4],
            unexplained: None,
            bench: None,
            closed: None,
        }
    }

    /// Other configured figures from now on. What was learned below them stays.
    pub fn reconfigure(&mut self, configured: Figures) {
        self.configured = configured;
        self.losses.settle();
        for subject in Subject::ALL {
            let (limit, floor) = bounds(&configured, subject);
            let assumed = &mut self.assumed[subject as usize];
            assumed.reconfigure(limit, floor);
            // Nothing is learned of requests and tokens without a limit.
            if limit.is_none() && subject != Subject::Concurrency {
                assumed.acquit();
            }
        }
    }

    /// The figures in force: never above what is configured. While a bench has not been seen to be over, one exchange at a
    /// time.
    #[must_use]
    pub fn figures(&self) -> Figures {
        let whole = |subject| self.in_force(subject).map(|limit| u32::try_from(limit).unwrap_or(u32::MAX));
        Figures {
            window: self.configured.window,
            margin: self.margin_after(self.in_force(Subject::Margin).unwrap_or(MARGIN_STEPS)),
            requests: whole(Subject::Requests),
            tokens: self.in_force(Subject::Tokens),
            concurrency: if self.bench.is_some() { Some(1) } else { whole(Subject::Concurrency) },
        }
    }

    /// The provider refused a request.
    pub fn refused(&mut self, now: Instant, evidence: &Evidence, signal: &Signal) -> Lesson {
        let lesson = self.conclude(now, evidence, signal, None);
        self.losses.settle();
        lesson
    }

    /// What follows from a refusal; `length`: for how long the gate closes, where that is decided already.
    fn conclude(&mut self, now: Instant, evidence: &Evidence, signal: &Signal, length: Option<Duration>) -> Lesson {
        let hints = signal.hints();
        if let Some(limits) = &signal.limits {
            self.note_told(now, limits);
        }
        let is_known = self.refused.is_some_and(|refused| evidence.permitted <= refused);
        if !is_known {
            self.row = self.row.saturating_add(1);
        }
        let is_long = hints.wait.is_some_and(|wait| wait > LONG.max(self.configured.window));
        if hints.daily || is_long {
            return Lesson::Bench(self.sit_out(now, evidence, hints.wait));
        }
        let until =
            now + length.or(hints.wait).unwrap_or_else(|| closed_for(signal.backoff, self.row).max(self.penalty));
        if is_known {
            return Lesson::Nothing(until);
        }
        let is_penalty = std::mem::replace(&mut self.is_shut, true);
        self.refused = Some(now);
        if is_penalty {
            self.event = self.event.map(|(begun, _)| (begun, Some(evidence.permitted)));
            return Lesson::Nothing(until);
        }
        self.event = Some((now, None));
        let Some((subject, count)) = self.cause(now, evidence, &hints) else { return Lesson::Nothing(until) };
        let is_doubtful = self.is_doubtful(now, (subject, count), evidence, &hints);
        self.proven[subject as usize].cut(count.saturating_sub(1));
        self.unexplained = None;
        if is_doubtful {
            return Lesson::Nothing(until);
        }
        let lesson = if self.is_trial_at_fault(subject, evidence) {
            let proven = self.proven[subject as usize].most().unwrap_or(0);
            self.assumed[subject as usize].fail_trial(now, proven);
            Lesson::ProbeFailed(subject, until)
        } else {
            self.learn(now, subject, count, &hints).map_or(Lesson::Nothing(until), |it| Lesson::Lowered(it, until))
        };
        self.assumed.iter_mut().for_each(|assumed| assumed.postpone(now));
        lesson
    }

    /// The provider accepted a request. Says whether anything is known by it that should outlive a restart.
    pub fn accepted(&mut self, now: Instant, evidence: &Evidence) -> bool {
        self.losses.accepted(evidence);
        if self.refused.is_some_and(|refused| evidence.permitted <= refused) {
            return false;
        }
        (self.is_shut, self.row) = (false, 0);
        self.losses.settle();
        self.measure_penalty(evidence);
        let mut is_news = self.bench.is_some_and(|bench| evidence.permitted >= bench.until);
        if is_news {
            self.bench = None;
        }
        for subject in Subject::ALL {
            let count = count_of(subject, evidence);
            self.proven[subject as usize].note(now, count);
            let is_used = match subject {
                Subject::Margin => self.is_full(evidence),
                Subject::Requests | Subject::Concurrency => self.in_force(subject).is_some_and(|limit| count >= limit),
                // Sums of tokens seldom come out even.
                Subject::Tokens => self.in_force(subject).is_some_and(|limit| count >= limit - limit / 20),
            };
            let windows = if subject == Subject::Margin { 3 } else { 1 };
            let assumed = &mut self.assumed[subject as usize];
            let began_before = assumed.trial().is_some_and(|trial| trial.begun <= evidence.permitted);
            is_news |= assumed.accepted(now, is_used && began_before, self.configured.window * windows);
        }
        is_news
    }

    /// Tries a little more of one limit, if it is time. Says whether the figures in force have changed.
    pub fn probe(&mut self, now: Instant) -> bool {
        if self.is_shut || self.bench.is_some() || self.assumed.iter().any(|assumed| assumed.trial().is_some()) {
            return false;
        }
        let tried = self.assumed.iter_mut().any(|assumed| {
            assumed.try_more(now, |level, limit| limit.map_or(1, |limit| limit.saturating_sub(level).div_ceil(2)))
        });
        if tried {
            self.assumed.iter_mut().filter(|assumed| assumed.trial().is_none()).for_each(|it| it.postpone(now));
        }
        tried
    }

    /// When [`Learned::probe`] has something to do.
    #[must_use]
    pub fn next_probe(&self) -> Option<Instant> {
        if self.is_shut || self.bench.is_some() || self.assumed.iter().any(|assumed| assumed.trial().is_some()) {
            return None;
        }
        self.assumed.iter().filter_map(|assumed| assumed.lowered().map(|lowered| lowered.next_probe)).min()
    }

    /// The bench, if there is one: nobody goes until then, and then one at a time.
    #[must_use]
    pub fn benched_until(&self) -> Option<Instant> {
        self.bench.map(|bench| bench.until)
    }

    /// Until when nothing is to be permitted at the start, by what earlier processes knew.
    #[must_use]
    pub fn closed_until(&self) -> Option<Instant> {
        self.closed.max(self.benched_until())
    }

    /// The first that is accepted after a penalty tells how long it was, unless nobody came for long.
    fn measure_penalty(&mut self, evidence: &Evidence) {
        if let Some((begun, Some(last))) = self.event.take() {
            let (at_least, at_most) = (last.saturating_duration_since(begun), evidence.permitted - begun);
            self.penalty = at_most.min(at_least * 2 + Duration::from_secs(1)).min(PENALTY_MAX);
        }
    }

    /// Benches the key: for as long as it says, else for an hour; for twice as long if the bench before did not help.
    fn sit_out(&mut self, now: Instant, evidence: &Evidence, wait: Option<Duration>) -> Instant {
        let length = match self.bench {
            // Was sent before it was known.
            Some(bench) if evidence.permitted < bench.begun => wait.unwrap_or_default().max(bench.until - bench.begun),
            Some(bench) if evidence.permitted < bench.until => bench.length,
            Some(bench) => wait.unwrap_or_default().max(bench.length * 2),
            None => wait.unwrap_or(BENCH),
        };
        let length = length.min(BENCH_MAX);
        let known = self.bench.filter(|bench| evidence.permitted < bench.until);
        let begun = known.map_or(now, |bench| bench.begun);
        let until = known.map_or(now + length, |bench| bench.until.max(begun + length));
        self.bench = Some(Bench { begun, until, length });
        self.refused = Some(now);
        self.is_shut = true;
        until
    }

    fn in_force(&self, subject: Subject) -> Option<u64> {
        let assumed = self.assumed[subject as usize].in_force();
        let told = match subject {
            Subject::Requests | Subject::Tokens => self.told[subject as usize].most(),
            Subject::Concurrency | Subject::Margin => None,
        };
        // What is told of something that is not limited here binds nobody.
        assumed.map(|limit| limit.min(told.unwrap_or(u64::MAX)))
    }

    /// The margin when so many steps are left.
    fn margin_after(&self, left: u64) -> Duration {
        let configured = self.configured.margin;
        let more = margin_max(&self.configured).saturating_sub(configured);
        let taken = u32::try_from(MARGIN_STEPS.saturating_sub(left)).unwrap_or(0);
        configured + more * taken / u32::try_from(MARGIN_STEPS).unwrap_or(1)
    }
}

/// What is configured of a subject, and under what it is never lowered: a tenth, and one.
fn bounds(figures: &Figures, subject: Subject) -> (Option<u64>, u64) {
    let tenth = |limit: Option<u64>| (limit, limit.map_or(1, |limit| (limit / 10).max(1)));
    match subject {
        Subject::Requests => tenth(figures.requests.map(u64::from)),
        Subject::Tokens => tenth(figures.tokens),
        Subject::Concurrency => (figures.concurrency.map(u64::from), 1),
        Subject::Margin => (Some(MARGIN_STEPS), 0),
    }
}

fn margin_max(figures: &Figures) -> Duration {
    figures.margin.max(figures.window / 50)
}

fn count_of(subject: Subject, evidence: &Evidence) -> u64 {
    match subject {
        Subject::Requests | Subject::Margin => evidence.requests.into(),
        Subject::Tokens => evidence.tokens,
        Subject::Concurrency => evidence.in_flight.into(),
    }
}

/// How long a gate closes where the provider does not say: twice as long each time that it did not help.
fn closed_for(backoff: Duration, row: u32) -> Duration {
    doubled(backoff, row).min(CLOSED_MAX.max(backoff))
}

fn doubled(first: Duration, row: u32) -> Duration {
    first.saturating_mul(1 << row.saturating_sub(1).min(16))
}

/// For how long nothing is to be had of a limit of which nothing is left. In a bucket the reset is when *all* is back,
/// which is a whole period off when it is empty; the next one is back after its share. In a window all comes at once.
fn closes_for(told: crate::openai::Told, period: Duration) -> Duration {
    let Some(reset) = told.reset else { return Duration::ZERO };
    let is_bucket = reset >= period - period / 20;
    let share = told.limit.filter(|_| is_bucket).and_then(|limit| period.checked_div(limit));
    share.unwrap_or(reset).min(BENCH_MAX)
}
