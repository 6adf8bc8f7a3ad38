//! Hours before a provider that is stricter than we are told: how often it refuses, and how much of it is used.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};

use super::*;
use crate::sim::judge::{Judge, Ruling};

const HOUR: Duration = Duration::from_secs(3_600);

/// What the provider really allows, and how it treats who exceeds it.
#[derive(Debug, Clone, Copy)]
struct Provider {
    requests: u32,
    slots: u32,
    penalty: Duration,
    /// How much later than our write it may count.
    jitter: Duration,
    /// It breaks the connection instead of refusing.
    resets: bool,
    mean: Duration,
}

const STRICT: Provider = Provider {
    requests: 35,
    slots: 5,
    penalty: Duration::from_secs(10),
    jitter: Duration::from_millis(150),
    resets: false,
    mean: Duration::from_millis(3_000),
};

/// We are told 40 a minute, and 5 at a time.
const TOLD: Figures = Figures {
    window: MINUTE,
    margin: Duration::from_millis(500),
    requests: Some(40),
    tokens: None,
    concurrency: Some(5),
};

#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Event {
    Counted(usize),
    Answered(usize),
    Cooled,
    Look,
}

#[derive(Debug)]
struct Sent {
    evidence: Evidence,
    arrival: Ruling,
    ruling: Ruling,
}

/// What was seen in each hour, and what came of the refusals.
#[derive(Debug, Default)]
struct Seen {
    accepted: Vec<u32>,
    refused: Vec<u32>,
    lessons: Vec<(Duration, Lesson)>,
    probes: Vec<Duration>,
}

/// An allowance in miniature under a backlog that never ends, before the judge of the simulated provider.
fn live(provider: Provider, hours: usize, change: Option<(Duration, u32)>) -> Seen {
    let begun = crate::time::now();
    let limits = |requests| crate::sim::Limits {
        requests: Some(requests),
        concurrency: Some(provider.slots),
        tokens: None,
        window: MINUTE,
    };
    let mut judge = Judge::new(limits(provider.requests), provider.penalty);
    let (mut learned, mut luck) = (Learned::new(TOLD), fastrand::Rng::with_seed(7));
    let mut seen = Seen { accepted: vec![0; hours], refused: vec![0; hours], ..Seen::default() };
    let mut events = BinaryHeap::from([Reverse((begun, Event::Look))]);
    let (mut stamps, mut sent): (VecDeque<Instant>, Vec<Sent>) = (VecDeque::new(), Vec::new());
    let (mut slots, mut last, mut closed, mut change) = (0_u32, None::<Instant>, begun, change);
    let mut looks = Some(begun);
    while let Some(Reverse((now, event))) = events.pop() {
        let age = now - begun;
        let hour = usize::try_from(age.as_secs() / HOUR.as_secs()).unwrap();
        if hour >= hours {
            break;
        }
        if let Some((_, requests)) = change.take_if(|(at, _)| age >= *at) {
            judge.set_limits(limits(requests), now);
        }
        match event {
            Event::Look => looks = looks.filter(|&at| at > now),
            Event::Cooled => slots -= 1,
            Event::Counted(index) => {
                let request = &mut sent[index];
                request.ruling = judge.count(0, request.arrival, 0, now);
                let lasts = match request.ruling {
                    Ruling::Admitted => provider.mean.mul_f64(0.2 + 1.6 * luck.f64()),
                    Ruling::Violation(_) | Ruling::InPenalty => Duration::from_millis(20),
                };
                events.push(Reverse((now + lasts, Event::Answered(index))));
            }
            Event::Answered(index) => {
                judge.leave(0, now);
                events.push(Reverse((now + Duration::from_millis(50), Event::Cooled)));
                let Sent { evidence, ruling, .. } = &sent[index];
                if *ruling == Ruling::Admitted {
                    seen.accepted[hour] += 1;
                    learned.accepted(now, evidence);
                } else {
                    seen.refused[hour] += 1;
                    let backoff = Duration::from_millis(500);
                    let signal = Signal { backoff, ..Signal::default() };
                    let lesson = if provider.resets {
                        learned.lost(now, evidence, backoff)
                    } else {
                        Some(learned.refused(now, evidence, &signal))
                    };
                    let lesson = lesson.unwrap_or(Lesson::Nothing(now));
                    closed = closed.max(lesson.closed_until());
                    seen.lessons.push((age, lesson));
                }
            }
        }
        if learned.probe(now) {
            seen.probes.push(age);
        }
        // Who waits is let go as soon as gate, window, pace and slots allow.
        let Figures { window, margin, requests, concurrency, .. } = learned.figures();
        let (span, requests, cap) = (window + margin, requests.unwrap(), concurrency.unwrap());
        while stamps.front().is_some_and(|&stamp| stamp + 2 * MINUTE < now) {
            stamps.pop_front();
        }
        let live = stamps.iter().filter(|&&stamp| stamp + span > now).count();
        let live = u32::try_from(live).unwrap();
        let pace = last.map_or(now, |last| last + span / requests - Duration::from_millis(25));
        let opens = if live < requests { now } else { stamps[stamps.len() - requests as usize] + span };
        let ready = closed.max(pace).max(opens);
        if slots >= cap {
            continue; // the next one that ends
        }
        if ready > now {
            if looks.is_none_or(|at| ready < at) {
                looks = Some(ready);
                events.push(Reverse((ready, Event::Look)));
            }
            continue;
        }
        slots += 1;
        last = Some(now);
        stamps.push_back(now);
        let evidence = Evidence { permitted: now, requests: live + 1, in_flight: slots, tokens: 0 };
        let arrival = judge.arrive(0, now);
        sent.push(Sent { evidence, arrival, ruling: arrival });
        events.push(Reverse((now + provider.jitter.mul_f64(luck.f64()), Event::Counted(sent.len() - 1))));
        events.push(Reverse((now, Event::Look)));
    }
    seen
}

/// The share of `requests` a minute that was used in the hours from `from` on.
fn used(seen: &Seen, from: usize, requests: u32) -> f64 {
    let hours = &seen.accepted[from..];
    f64::from(hours.iter().sum::<u32>()) / (f64::from(requests) * 60.0 * hours.len() as f64)
}

fn tell(story: &str, seen: &Seen, requests: u32) {
    let probes: Vec<u64> = seen.probes.iter().map(|at| at.as_secs() / 60).collect();
    println!("{story}: refused by the hour {:?}, probes at minute {probes:?}", seen.refused);
    println!(
        "  used {:.2} % of {requests} in all hours, {:.2} % after the first",
        used(seen, 0, requests) * 100.0,
        used(seen, 1, requests) * 100.0
    );
}

/// After its first refusals no more than one for each probe. The first are those by which limit and penalty are learned:
/// the length of a penalty may show only in the first probe, where our own window kept us waiting for longer before.
fn assert_one_refusal_a_probe(story: &str, seen: &Seen, first: usize) {
    let known = seen.probes.get(1).copied().unwrap_or(Duration::MAX);
    let before = seen.lessons.iter().filter(|(at, _)| *at < known).count();
    assert!(before <= first + 1, "{story}: {before} refusals before the second probe: {:?}", seen.lessons);
    let (after, probes) = (seen.lessons.len() - before, seen.probes.len() - 1);
    assert!(after <= probes, "{story}: {after} refusals, {probes} probes: {:?}", seen.lessons);
    assert!(seen.probes.windows(2).all(|pair| pair[1] - pair[0] >= assumed::PROBE_AFTER), "{story}: {:?}", seen.probes);
}

#[test]
fn stricter_provider_refuses_once_a_probe_and_is_used_to_the_full() {
    for (story, provider, first) in [
        ("35 a minute", STRICT, 6),
        ("39 a minute", Provider { requests: 39, ..STRICT }, 8),
        ("10 a minute", Provider { requests: 10, ..STRICT }, 10),
        ("35 a minute, resets without a penalty", Provider { penalty: Duration::ZERO, ..STRICT }, 4),
        ("35 a minute, quick answers", Provider { mean: Duration::from_millis(400), ..STRICT }, 6),
        ("35 a minute, slow answers", Provider { mean: Duration::from_millis(6_500), ..STRICT }, 6),
    ] {
        let seen = live(provider, 12, None);
        tell(story, &seen, provider.requests);
        assert_one_refusal_a_probe(story, &seen, first);
        let share = used(&seen, 0, provider.requests);
        assert!(share >= 0.95, "{story}: {share}");
    }
}

#[test]
fn provider_that_resets_instead_of_refusing_is_learned_as_well() {
    let seen = live(Provider { resets: true, ..STRICT }, 12, None);
    tell("35 a minute, by resets", &seen, 35);
    assert_one_refusal_a_probe("35 a minute, by resets", &seen, 8);
    assert!(used(&seen, 0, 35) >= 0.95, "{}", used(&seen, 0, 35));
}

#[test]
fn fewer_slots_than_told_are_learned_as_slots() {
    let provider = Provider { requests: 40, slots: 3, ..STRICT };
    let seen = live(provider, 12, None);
    tell("3 at a time", &seen, provider.requests);
    assert_one_refusal_a_probe("3 at a time", &seen, 6);
    // 3 slots and answers of 3 s are 59 a minute: the rate binds.
    assert!(used(&seen, 0, 40) >= 0.95, "{}", used(&seen, 0, 40));
}

#[test]
fn what_is_as_told_is_never_refused_and_never_probed() {
    let seen = live(Provider { requests: 40, ..STRICT }, 3, None);
    assert_eq!((seen.lessons.len(), seen.probes.len()), (0, 0));
    assert!(used(&seen, 0, 40) >= 0.985, "{}", used(&seen, 0, 40));
}

#[test]
fn late_counting_is_learned_as_margin() {
    let provider = Provider { requests: 40, jitter: Duration::from_millis(1_000), ..STRICT };
    let seen = live(provider, 12, None);
    tell("counts up to a second late", &seen, 40);
    assert!(seen.lessons.iter().any(|(_, lesson)| matches!(lesson, Lesson::Lowered(Subject::Margin, _))), "{seen:?}");
    assert!(used(&seen, 0, 40) >= 0.93, "{}", used(&seen, 0, 40));
}

#[test]
fn generous_again_is_found_out_by_the_next_probes() {
    let story = "35 a minute, 40 again after two hours";
    let seen = live(STRICT, 8, Some((2 * HOUR, 40)));
    tell(story, &seen, 40);
    let share = used(&seen, 5, 40);
    assert!(share >= 0.98, "{story}: {share}");
}
