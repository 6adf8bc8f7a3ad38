//! Hours before a provider that is stricter than we are told: how often it refuses, and how much of it is used. All of
//! admission in paused time, before the judge of the simulated provider.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::rc::Rc;

use tokio::task::LocalSet;

use super::*;
use crate::limits::journal::rehearsal::{Death, Machine};
use crate::limits::learned::Subject;
use crate::openai::Complaint;
use crate::sim::judge::{Judge, Ruling};

const HOUR: Duration = Duration::from_secs(3_600);
const MINUTE: Duration = Duration::from_secs(60);
const DAY: Duration = Duration::from_secs(24 * 3_600);
const PROBE_AFTER: Duration = Duration::from_secs(600);
/// Of calls that never end to come.
const WORKERS: usize = 40;

/// What the provider really allows, and how it treats who exceeds it. We are told 40 a minute, and 5 at a time.
#[derive(Debug, Clone, Copy)]
struct Provider {
    requests: u32,
    slots: u32,
    penalty: Duration,
    /// How much later than our write it may count.
    jitter: Duration,
    mean: Duration,
    day: Option<Cap>,
}

/// So many in a rolling day.
#[derive(Debug, Clone, Copy)]
struct Cap {
    requests: usize,
    /// It says when to come back.
    tells: bool,
}

const STRICT: Provider = Provider {
    requests: 35,
    slots: 5,
    penalty: Duration::from_secs(10),
    jitter: Duration::from_millis(150),
    mean: Duration::from_millis(3_000),
    day: None,
};

/// What happens besides.
#[derive(Debug, Clone, Copy)]
enum Change {
    /// The provider allows so many from now on.
    Allows(u32),
    /// We are killed, and started again at once.
    Killed,
}

/// What was seen, since the beginning.
#[derive(Debug, Default)]
struct Seen {
    accepted: Vec<Duration>,
    refused: Vec<Duration>,
    probes: Vec<Duration>,
    /// Subjects that were ever lowered.
    lowered: Vec<Subject>,
    probing: bool,
    /// Until when nobody may come, for today is over; and how many came nevertheless.
    benched: Option<Instant>,
    while_benched: u32,
}

struct World {
    provider: Provider,
    judge: RefCell<Judge>,
    day: RefCell<VecDeque<Instant>>,
    begun: Instant,
    luck: RefCell<fastrand::Rng>,
    seen: RefCell<Seen>,
}

enum Answer {
    Fine,
    TooMany,
    /// Too many today. It says after what time there is room again, or does not.
    DayIsOver(Option<Duration>),
}

impl World {
    fn limits(provider: &Provider) -> crate::sim::Limits {
        let Provider { requests, slots, .. } = *provider;
        crate::sim::Limits { requests: Some(requests), concurrency: Some(slots), tokens: None, window: MINUTE }
    }

    fn draw(&self, mean: Duration, spread: f64) -> Duration {
        mean.mul_f64(1.0 - spread + 2.0 * spread * self.luck.borrow_mut().f64())
    }

    /// The rolling day's word on a request that the judge has let pass.
    fn day_is_over(&self) -> Option<Answer> {
        let (cap, now) = (self.provider.day?, time::now());
        let mut day = self.day.borrow_mut();
        while day.front().is_some_and(|&at| now - at >= DAY) {
            day.pop_front();
        }
        if day.len() < cap.requests {
            day.push_back(now);
            return None;
        }
        Some(Answer::DayIsOver(cap.tells.then(|| day[0] + DAY - now)))
    }

    async fn ask(&self) -> Answer {
        let arrival = self.judge.borrow_mut().arrive(0, time::now());
        tokio::time::sleep(self.draw(self.provider.jitter / 2, 1.0)).await;
        let answer = match self.judge.borrow_mut().count(0, arrival, 0, time::now()) {
            Ruling::Admitted => self.day_is_over().unwrap_or(Answer::Fine),
            Ruling::Violation(_) | Ruling::InPenalty => Answer::TooMany,
        };
        let lasts =
            if matches!(answer, Answer::Fine) { self.draw(self.provider.mean, 0.8) } else { self.provider.jitter };
        tokio::time::sleep(lasts).await;
        self.judge.borrow_mut().leave(0, time::now());
        answer
    }

    /// Looks what operators see.
    fn look(&self, admission: &Admission) {
        let lanes = admission.lanes();
        let mut seen = self.seen.borrow_mut();
        let probing = lanes[0].lessons.iter().any(|lesson| lesson.is_probing);
        if probing && !seen.probing {
            seen.probes.push(self.begun.elapsed());
        }
        seen.probing = probing;
        for lesson in &lanes[0].lessons {
            if !seen.lowered.contains(&lesson.subject) {
                seen.lowered.push(lesson.subject);
            }
        }
    }

    /// One call, until it has been answered.
    async fn call(&self, admission: &Admission) {
        let mut place = admission.place(demand(Priority::Normal));
        for attempt in 0..8 {
            let mut permit = place.permit().await.unwrap();
            self.look(admission);
            permit.writing();
            {
                let mut seen = self.seen.borrow_mut();
                seen.while_benched += u32::from(seen.benched.is_some_and(|until| time::now() < until));
            }
            permit.written();
            let answer = self.ask().await;
            let mut signal = Signal { backoff: Duration::from_millis(500) * 2_u32.pow(attempt), ..Signal::default() };
            let at = self.begun.elapsed();
            match answer {
                Answer::Fine => {
                    self.seen.borrow_mut().accepted.push(at);
                    permit.accepted();
                    permit.answered();
                    return permit.ended();
                }
                Answer::TooMany => {
                    permit.refused(&signal);
                }
                Answer::DayIsOver(wait) => {
                    signal.complaint = Complaint { daily: true, ..Complaint::default() };
                    signal.retry_after = wait;
                    let until = permit.refused(&signal);
                    self.seen.borrow_mut().benched = until;
                }
            }
            self.seen.borrow_mut().refused.push(at);
            self.look(admission);
            let lane = permit.lane().clone();
            permit.ended();
            place.failed(&lane, Blame::Key);
        }
    }
}

/// Lives for so many hours, with some changes on the way.
fn live(provider: Provider, hours: u32, changes: &[(Duration, Change)]) -> Seen {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    runtime.block_on(async {
        let world = Rc::new(World {
            provider,
            judge: RefCell::new(Judge::new(World::limits(&provider), provider.penalty)),
            day: RefCell::default(),
            begun: time::now(),
            luck: RefCell::new(fastrand::Rng::with_seed(7)),
            seen: RefCell::default(),
        });
        let mut machine = Machine::new();
        let mut changes = changes.iter().copied().chain([(HOUR * hours, Change::Killed)]).peekable();
        while changes.peek().is_some() {
            let (journal, recovered) = machine.start(Duration::from_secs(62));
            let admission = Admission::remembering(journal.clone(), recovered, BOUNDS);
            admission.reconfigure(vec![way("up", &["k"], quota(40, 5))], Vec::new(), BOUNDS);
            let calls = LocalSet::new();
            calls.spawn_local(admission.clone().keep_time());
            for _ in 0..WORKERS {
                let (world, admission) = (Rc::clone(&world), admission.clone());
                calls.spawn_local(async move {
                    loop {
                        world.call(&admission).await;
                    }
                });
            }
            for (at, change) in changes.by_ref() {
                calls.run_until(tokio::time::sleep_until(world.begun + at)).await;
                match change {
                    Change::Killed => break,
                    Change::Allows(requests) => {
                        let limits = World::limits(&Provider { requests, ..provider });
                        world.judge.borrow_mut().set_limits(limits, time::now());
                    }
                }
            }
            // What was learned is in the file within 20 ms.
            machine.kill(&journal, Death { flushed: true, compacted: false, torn: 0 });
            drop(calls);
            // What was running at the provider is cut, and it notices at once.
            let in_flight = world.judge.borrow().tally(time::now()).in_flight;
            for _ in 0..in_flight {
                world.judge.borrow_mut().leave(0, time::now());
            }
            world.seen.borrow_mut().probing = false;
        }
        std::mem::take(&mut *world.seen.borrow_mut())
    })
}

impl Seen {
    /// The share of `requests` a minute that was used between two hours.
    fn used(&self, from: u32, to: u32, requests: u32) -> f64 {
        let within = |at: &&Duration| **at >= HOUR * from && **at < HOUR * to;
        self.accepted.iter().filter(within).count() as f64 / f64::from(requests * 60 * (to - from))
    }

    fn tell(&self, story: &str, hours: u32, requests: u32) {
        let minutes = |all: &[Duration]| all.iter().map(|at| at.as_secs() / 60).collect::<Vec<_>>();
        println!("{story}: refused in minute {:?}, probes {:?}", minutes(&self.refused), minutes(&self.probes));
        println!("  used {:.2} % of {requests}, lowered {:?}", self.used(0, hours, requests) * 100.0, self.lowered);
    }

    /// After its first refusals no more than one for each probe. The first are those by which limit and penalty are
    /// learned: how long a penalty is may show only in the first probe, where our own window kept us waiting before.
    fn assert_one_refusal_a_probe(&self, story: &str, first: usize) {
        let known = self.probes.get(1).copied().unwrap_or(Duration::MAX);
        let before = self.refused.iter().filter(|at| **at < known).count();
        assert!(before <= first + 1, "{story}: {before} refusals before the second probe");
        let (after, probes) = (self.refused.len() - before, self.probes.len().saturating_sub(1));
        assert!(after <= probes, "{story}: {after} refusals, {probes} probes");
        assert!(self.probes.windows(2).all(|pair| pair[1] - pair[0] >= PROBE_AFTER), "{story}: {:?}", self.probes);
    }
}

fn assert_learned(story: &str, provider: Provider, first: usize) -> Seen {
    let seen = live(provider, 12, &[]);
    seen.tell(story, 12, provider.requests);
    seen.assert_one_refusal_a_probe(story, first);
    let used = seen.used(0, 12, provider.requests);
    assert!(used >= 0.95, "{story}: {used}");
    seen
}

#[test]
fn stricter_provider_refuses_once_a_probe_and_is_used_to_the_full() {
    assert_learned("35 a minute", STRICT, 6);
    assert_learned("39 a minute", Provider { requests: 39, ..STRICT }, 8);
    // Far below what is configured the first refusal is doubted.
    assert_learned("10 a minute", Provider { requests: 10, ..STRICT }, 9);
}

#[test]
fn stricter_provider_is_learned_whatever_its_answers_take_and_without_a_penalty() {
    assert_learned("35 a minute, no penalty", Provider { penalty: Duration::ZERO, ..STRICT }, 4);
    assert_learned("35 a minute, quick answers", Provider { mean: Duration::from_millis(400), ..STRICT }, 6);
    assert_learned("35 a minute, slow answers", Provider { mean: Duration::from_millis(6_500), ..STRICT }, 6);
}

#[test]
fn fewer_slots_than_told_are_learned_as_slots() {
    // The first five go at once, and the penalty of the fourth is the others'.
    let seen = assert_learned("3 at a time", Provider { requests: 40, slots: 3, ..STRICT }, 9);
    // 3 slots and answers of 3 s are 59 a minute: the rate binds.
    assert_eq!(seen.lowered, [Subject::Concurrency]);
}

#[test]
fn what_is_as_told_is_never_refused_and_never_probed() {
    let seen = live(Provider { requests: 40, ..STRICT }, 3, &[]);
    assert_eq!((seen.refused.len(), seen.probes.len()), (0, 0));
    assert!(seen.used(0, 3, 40) >= 0.985, "{}", seen.used(0, 3, 40));
}

#[test]
fn late_counting_is_learned_as_margin() {
    let seen = live(Provider { requests: 40, jitter: Duration::from_millis(1_000), ..STRICT }, 12, &[]);
    seen.tell("counts up to a second late", 12, 40);
    assert!(seen.lowered.contains(&Subject::Margin), "{:?}", seen.lowered);
    assert!(seen.used(0, 12, 40) >= 0.93, "{}", seen.used(0, 12, 40));
}

#[test]
fn generous_again_is_found_out_by_the_next_probes() {
    let seen = live(STRICT, 8, &[(2 * HOUR, Change::Allows(40))]);
    seen.tell("35 a minute, 40 again after two hours", 8, 40);
    let used = seen.used(5, 8, 40);
    assert!(used >= 0.98, "{used}");
}

#[test]
fn a_restart_forgets_no_lesson() {
    let kills = [1, 3, 4, 7].map(|hour| (HOUR * hour + MINUTE * 17, Change::Killed));
    let seen = live(STRICT, 12, &kills);
    seen.tell("35 a minute, four restarts", 12, 35);
    seen.assert_one_refusal_a_probe("35 a minute, four restarts", 6);
    assert!(seen.used(0, 12, 35) >= 0.95, "{}", seen.used(0, 12, 35));
}

#[test]
fn a_day_that_is_over_is_waited_out() {
    for (tells, refused_most) in [(true, 12), (false, 24)] {
        let day = Some(Cap { requests: 2_000, tells });
        // We are killed on the bench, too.
        let seen = live(Provider { requests: 40, day, ..STRICT }, 60, &[(HOUR * 5, Change::Killed)]);
        let hours = |all: &[Duration]| all.iter().map(|at| at.as_secs() / 3_600).collect::<Vec<_>>();
        println!("tells {tells}: {} accepted, refused in hour {:?}", seen.accepted.len(), hours(&seen.refused));
        assert_eq!(seen.while_benched, 0);
        assert!(seen.refused.len() <= refused_most, "{:?}", seen.refused);
        assert!(seen.lowered.is_empty(), "{:?}", seen.lowered);
        // Two days and a half: two or three times 2,000.
        assert!(seen.accepted.len() >= 4_000, "{}", seen.accepted.len());
    }
}
