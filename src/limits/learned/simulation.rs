//! Hours before a provider that is stricter than we are told, and breaks connections instead of refusing: how often it
//! does, and how much of it is used. Refusals are learned from before all of admission, in its own tests.

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
    mean: Duration,
}

const STRICT: Provider = Provider {
    requests: 35,
    slots: 5,
    penalty: Duration::from_secs(10),
    jitter: Duration::from_millis(150),
    mean: Duration::from_millis(3_000),
};

const COOLDOWN: Cooldown = Cooldown { first: Duration::from_secs(2), max: Duration::from_secs(60) };

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
fn live(provider: Provider, hours: usize) -> Seen {
    let begun = crate::time::now();
    let Provider { requests, slots, .. } = provider;
    let limits =
        crate::sim::Limits { requests: Some(requests), concurrency: Some(slots), tokens: None, window: MINUTE };
    let mut judge = Judge::new(limits, provider.penalty);
    let (mut learned, mut luck) = (Learned::new(TOLD), fastrand::Rng::with_seed(7));
    let mut seen = Seen { accepted: vec![0; hours], refused: vec![0; hours], ..Seen::default() };
    let mut events = BinaryHeap::from([Reverse((begun, Event::Look))]);
    let (mut stamps, mut sent): (VecDeque<Instant>, Vec<Sent>) = (VecDeque::new(), Vec::new());
    let (mut slots, mut last, mut closed) = (0_u32, None::<Instant>, begun);
    let mut looks = Some(begun);
    while let Some(Reverse((now, event))) = events.pop() {
        let age = now - begun;
        let hour = usize::try_from(age.as_secs() / HOUR.as_secs()).unwrap();
        if hour >= hours {
            break;
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
                    let lesson = learned.lost(now, evidence, COOLDOWN);
                    let lesson = lesson.map_or(Lesson::Nothing(now), |(lesson, _)| lesson);
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
fn provider_that_resets_instead_of_refusing_is_learned_as_well() {
    let seen = live(STRICT, 12);
    tell("35 a minute, by resets", &seen, 35);
    assert_one_refusal_a_probe("35 a minute, by resets", &seen, 8);
    assert!(used(&seen, 0, 35) >= 0.95, "{}", used(&seen, 0, 35));
}
