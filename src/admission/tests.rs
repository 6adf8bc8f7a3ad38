//! The promises of this room, in paused time, judged by a provider that sees only what it could see.

#![expect(clippy::disallowed_methods, reason = "the runtime of a test ends with it")]

mod backlog;
mod changes;
mod cooldowns;
mod crashes;
mod elsewhere;
mod learning;
mod order;
mod outages;
mod own;
mod promises;
mod provider;
mod shares;
mod world;

use std::future::Future;
use std::num::NonZeroU32;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use super::*;
use crate::ids::{ClientId, KeyId, LaneId};
use crate::limits::learned::Signal;
use crate::limits::{Dimension, Quota};
use crate::time::{Duration, Instant};
use crate::units::Priority;

const WINDOW: Duration = Duration::from_secs(60);
const BOUNDS: Bounds = Bounds { queue_max: 10_000, queue_bytes_max: 1 << 30, floors: [0.0, 0.10, 0.05] };

pub(super) fn quota(requests: u32, concurrency: u32) -> Quota {
    Quota {
        requests: NonZeroU32::new(requests),
        window: WINDOW,
        window_margin: Duration::from_millis(500),
        burst: NonZeroU32::new(5),
        concurrency: NonZeroU32::new(concurrency),
        slot_release_delay: Duration::from_millis(50),
        slot_release_delay_aborted: Duration::from_secs(2),
        ..Quota::default()
    }
}

pub(super) fn way(upstream: &str, keys: &[&str], quota: Quota) -> Way {
    let keys = keys.iter().map(|key| KeyId::of(key)).collect();
    Way {
        upstream: upstream.into(),
        serves: Arc::new(|_| true),
        keys,
        quota,
        orphan_hold: Duration::ZERO,
        scope: Scope::Key,
        passes_keys: false,
    }
}

/// Admission whose timer runs.
pub(super) fn admission(ways: Vec<Way>, bounds: Bounds) -> Admission {
    let admission = Admission::new(ways, bounds);
    tokio::task::spawn(admission.clone().keep_time());
    admission
}

pub(super) fn one(quota: Quota) -> Admission {
    admission(vec![way("up", &["k"], quota)], BOUNDS)
}

pub(super) fn demand(priority: Priority) -> Demand {
    let deadline = time::now() + Duration::from_secs(36_000_000);
    Demand::new(priority, deadline)
}

/// Sends the permit's request at once and lets its exchange end.
pub(super) fn spend(mut permit: Permit) {
    permit.writing();
    permit.ended();
}

fn poll_once<F: Future>(future: F) -> Option<F::Output> {
    let mut future = pin!(future);
    match future.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(output) => Some(output),
        Poll::Pending => None,
    }
}

async fn wait_for(admission: &Admission, waiting: usize) {
    while admission.snapshot().waiting.iter().sum::<u32>() != u32::try_from(waiting).unwrap() {
        tokio::task::yield_now().await;
    }
}

fn full(full: Full, retry_after: Duration) -> Refusal {
    Refusal::QueueFull { full, retry_after }
}

fn used(admission: &Admission) -> u32 {
    admission.snapshot().lanes[0].1.window.unwrap().0
}

#[tokio::test(start_paused = true)]
async fn who_finds_nobody_waiting_takes_a_permit_without_a_task_switch() {
    let admission = one(quota(40, 5));
    let mut place = admission.place(demand(Priority::Normal));
    assert!(matches!(poll_once(place.permit()), Some(Ok(_))));
}

#[tokio::test(start_paused = true)]
async fn bursts_are_for_the_idle_and_a_backlog_leaves_in_even_steps() {
    let admission = one(quota(40, 100));
    let start = time::now();
    let mut gaps = Vec::new();
    let mut last = start;
    let waiting: Vec<_> = (0..40)
        .map(|_| {
            let mut place = admission.place(demand(Priority::Normal));
            tokio::task::spawn(async move {
                spend(place.permit().await.unwrap());
                time::now()
            })
        })
        .collect();
    for call in waiting {
        let at = call.await.unwrap();
        gaps.push((at - last).as_secs_f64());
        last = at;
    }
    assert_eq!(gaps[..5], [0.0; 5], "five at once after idling");
    // 35 are left until the first five expire after 60.5 s: one each 60.5 / 36 s.
    let step = 60.5 / 36.0;
    assert!(gaps[5..].iter().all(|gap| (gap - step).abs() < 0.01), "{gaps:?}");
}

#[tokio::test(start_paused = true)]
async fn an_abandoned_call_spends_nothing_and_frees_its_place_at_once() {
    let admission = one(quota(1, 1));
    spend(admission.place(demand(Priority::Normal)).permit().await.unwrap());
    let mut leaver = admission.place(demand(Priority::Normal));
    let mut stayer = admission.place(demand(Priority::Normal));
    let leaving = tokio::task::spawn(async move { leaver.permit().await.map(drop) });
    wait_for(&admission, 1).await;
    let staying = tokio::task::spawn(async move { stayer.permit().await.map(spend) });
    wait_for(&admission, 2).await;
    leaving.abort();
    wait_for(&admission, 1).await;
    let start = time::now();
    staying.await.unwrap().unwrap();
    assert!(start.elapsed() <= WINDOW + Duration::from_millis(501), "{:?}", start.elapsed());
    assert_eq!(used(&admission), 1);
}

#[tokio::test(start_paused = true)]
async fn a_permit_whose_call_has_gone_serves_the_next() {
    let admission = one(quota(1, 1));
    let permit = admission.place(demand(Priority::Normal)).permit().await.unwrap();
    let mut next = admission.place(demand(Priority::Normal));
    let next = tokio::task::spawn(async move { next.permit().await.map(spend) });
    wait_for(&admission, 1).await;
    let start = time::now();
    drop(permit);
    next.await.unwrap().unwrap();
    assert_eq!(start.elapsed(), Duration::ZERO);
    assert_eq!(used(&admission), 1);
}

#[tokio::test(start_paused = true)]
async fn a_permit_that_nobody_wants_returns_whole() {
    let admission = one(quota(1, 1));
    for _ in 0..100 {
        drop(admission.place(demand(Priority::Normal)).permit().await.unwrap());
    }
    assert_eq!(used(&admission), 0);
    assert!(poll_once(admission.place(demand(Priority::Normal)).permit()).is_some());
}

#[tokio::test(start_paused = true)]
async fn a_request_under_way_counts_when_its_call_is_dropped() {
    let admission = one(quota(5, 1));
    let mut permit = admission.place(demand(Priority::Normal)).permit().await.unwrap();
    permit.writing();
    drop(permit);
    assert_eq!(used(&admission), 1);
    let start = time::now();
    spend(admission.place(demand(Priority::Normal)).permit().await.unwrap());
    assert!(start.elapsed() >= Duration::from_secs(2), "the slot of an aborted exchange cools: {:?}", start.elapsed());
}

#[tokio::test(start_paused = true)]
async fn who_waits_until_the_deadline_is_told_so_and_has_spent_nothing() {
    let admission = one(quota(40, 1));
    let mut running = admission.place(demand(Priority::Normal)).permit().await.unwrap();
    running.written();
    let mut late = demand(Priority::Normal);
    late.deadline = time::now() + Duration::from_secs(3);
    // Nobody knows how long an exchange takes before one has ended, so there is hope.
    let refusal = admission.place(late).permit().await.unwrap_err();
    let waited = Duration::from_secs(3);
    assert!(matches!(refusal, Refusal::QueueTimeout { waited: told, turn: Some(_) } if told == waited), "{refusal:?}");
    assert_eq!((used(&admission), admission.snapshot().waiting), (1, [0; 3]));
}

#[tokio::test(start_paused = true)]
async fn a_full_queue_refuses_the_next_by_number_and_by_bytes() {
    let bounds = Bounds { queue_max: 2, queue_bytes_max: 1_000, ..BOUNDS };
    let admission = admission(vec![way("up", &["k"], quota(1, 1))], bounds);
    spend(admission.place(demand(Priority::Normal)).permit().await.unwrap());
    let ask = |bytes| {
        let mut place = admission.place(Demand { bytes, ..demand(Priority::Normal) });
        tokio::task::spawn(async move { place.permit().await.map(drop) })
    };
    let next = Duration::from_millis(60_500);
    let _first = ask(600);
    wait_for(&admission, 1).await;
    assert_eq!(ask(401).await.unwrap(), Err(full(Full::Bytes(1_000), next)));
    let _second = ask(400);
    wait_for(&admission, 2).await;
    assert_eq!(ask(0).await.unwrap(), Err(full(Full::Calls(2), next)));
}

#[tokio::test(start_paused = true)]
async fn closing_tells_everybody_who_waits_and_who_comes() {
    let admission = one(quota(1, 1));
    spend(admission.place(demand(Priority::Normal)).permit().await.unwrap());
    let mut place = admission.place(demand(Priority::Low));
    let waiting = tokio::task::spawn(async move { place.permit().await.map(drop) });
    wait_for(&admission, 1).await;
    admission.close();
    assert_eq!(waiting.await.unwrap(), Err(Refusal::ShuttingDown));
    for exempt in [false, true] {
        let late = admission.place(Demand { exempt, ..demand(Priority::High) }).permit().await;
        assert_eq!(late.map(drop), Err(Refusal::ShuttingDown), "{exempt}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_closed_gate_holds_everybody_until_it_opens() {
    let admission = one(quota(40, 5));
    let mut permit = admission.place(demand(Priority::Normal)).permit().await.unwrap();
    permit.writing();
    let until = permit.refused(&Signal { retry_after: Some(Duration::from_secs(7)), ..Signal::default() });
    assert_eq!(until, Some(time::now() + Duration::from_secs(7)));
    permit.ended();
    let start = time::now();
    spend(admission.place(demand(Priority::High)).permit().await.unwrap());
    assert_eq!(start.elapsed().as_secs(), 7);
}

#[tokio::test(start_paused = true)]
async fn several_keys_have_an_allowance_each_and_the_fuller_goes_first() {
    let admission = admission(vec![way("up", &["a", "b"], quota(2, 5))], BOUNDS);
    let mut used = Vec::new();
    for _ in 0..4 {
        let permit = admission.place(demand(Priority::Normal)).permit().await.unwrap();
        used.push(permit.lane().key);
        spend(permit);
    }
    let (a, b) = (KeyId::of("a"), KeyId::of("b"));
    assert_eq!(used, [a, b, a, b]);
    assert!(poll_once(admission.place(demand(Priority::Normal)).permit()).is_none());
}

#[tokio::test(start_paused = true)]
async fn a_call_waits_for_whichever_of_its_upstreams_is_first_and_blocks_nobody_elses() {
    let only = |name: &'static str, model: &'static str| Way {
        serves: Arc::new(move |asked| asked == Some(model)),
        ..way(name, &["k"], quota(1, 5))
    };
    let admission = admission(vec![only("small", "s"), only("large", "l")], BOUNDS);
    let ask = |model: &str| Demand { model: Some(model.into()), ..demand(Priority::Normal) };
    spend(admission.place(ask("s")).permit().await.unwrap());
    let mut blocked = admission.place(ask("s"));
    let _blocked = tokio::task::spawn(async move { blocked.permit().await.map(drop) });
    wait_for(&admission, 1).await;
    let permit = poll_once(admission.place(ask("l")).permit()).unwrap().unwrap();
    assert_eq!(&*permit.lane().upstream, "large");
    let unknown = admission.place(ask("x")).permit().await.unwrap_err();
    assert_eq!(unknown, Refusal::NoUpstream { model: Some("x".to_owned()) });
}

#[tokio::test(start_paused = true)]
async fn a_reload_keeps_who_waits_and_what_was_spent() {
    let admission = one(quota(2, 5));
    for _ in 0..2 {
        spend(admission.place(demand(Priority::Normal)).permit().await.unwrap());
    }
    let mut place = admission.place(demand(Priority::Normal));
    let waiting = tokio::task::spawn(async move { place.permit().await.map(spend) });
    wait_for(&admission, 1).await;
    admission.reconfigure(vec![way("up", &["k"], quota(1, 5))], Vec::new(), BOUNDS);
    tokio::time::sleep(Duration::from_secs(30)).await;
    assert!(!waiting.is_finished(), "two were spent, of one");
    admission.reconfigure(vec![way("up", &["k"], quota(3, 5))], Vec::new(), BOUNDS);
    let start = time::now();
    waiting.await.unwrap().unwrap();
    assert!(start.elapsed() < Duration::from_secs(25), "the third of three: {:?}", start.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_reload_that_takes_the_upstream_away_refuses_who_waits_for_it() {
    let serving = |model: &'static str| Way {
        serves: Arc::new(move |asked| asked == Some(model)),
        ..way("up", &["k"], quota(1, 5))
    };
    let admission = admission(vec![serving("old")], BOUNDS);
    let ask = || Demand { model: Some("old".into()), ..demand(Priority::Normal) };
    spend(admission.place(ask()).permit().await.unwrap());
    let mut place = admission.place(ask());
    let waiting = tokio::task::spawn(async move { place.permit().await.map(drop) });
    wait_for(&admission, 1).await;
    admission.reconfigure(vec![serving("new")], Vec::new(), BOUNDS);
    assert_eq!(waiting.await.unwrap(), Err(Refusal::NoUpstream { model: Some("old".to_owned()) }));
}

#[tokio::test(start_paused = true)]
async fn an_exempt_call_takes_no_permit() {
    let admission = one(quota(1, 1));
    spend(admission.place(demand(Priority::Normal)).permit().await.unwrap());
    let exempt = Demand { exempt: true, ..demand(Priority::Low) };
    spend(poll_once(admission.place(exempt).permit()).unwrap().unwrap());
    assert_eq!(used(&admission), 1);
}

#[tokio::test(start_paused = true)]
async fn a_thousand_callers_leaving_at_once_leave_the_next_where_it_was() {
    let admission = one(quota(1, 1));
    spend(admission.place(demand(Priority::Normal)).permit().await.unwrap());
    let crowd: Vec<_> = (0..1_000)
        .map(|_| {
            let mut place = admission.place(demand(Priority::Normal));
            tokio::task::spawn(async move { place.permit().await.map(drop) })
        })
        .collect();
    wait_for(&admission, 1_000).await;
    let mut last = admission.place(demand(Priority::Normal));
    let last = tokio::task::spawn(async move { last.permit().await.map(spend) });
    wait_for(&admission, 1_001).await;
    crowd.iter().for_each(|call| call.abort());
    wait_for(&admission, 1).await;
    let start: Instant = time::now();
    last.await.unwrap().unwrap();
    assert!(start.elapsed() <= WINDOW + Duration::from_millis(501));
}

/// A reload once counted those who wait by line, and forgot some where two lines shared a lane.
#[tokio::test(start_paused = true)]
async fn a_reload_loses_nobody_where_upstreams_overlap() {
    let gpt_too = || Way {
        serves: Arc::new(|model: Option<&str>| model.is_some_and(|model| model.starts_with("gpt"))),
        ..way("b", &["k"], quota(1, 5))
    };
    let ways = || vec![way("a", &["k"], quota(1, 5)), gpt_too()];
    let admission = admission(ways(), BOUNDS);
    let ask = |model: &str| {
        let mut place = admission.place(Demand { model: Some(model.into()), ..demand(Priority::Normal) });
        tokio::task::spawn(async move { place.permit().await.map(spend) })
    };
    for call in [ask("gpt"), ask("gpt")] {
        call.await.unwrap().unwrap(); // both upstreams are spent
    }
    let mut waiting = Vec::new();
    for model in ["gpt", "llama", "gpt", "llama"] {
        waiting.push(ask(model));
        wait_for(&admission, waiting.len()).await;
    }
    admission.reconfigure(ways(), Vec::new(), BOUNDS);
    for call in waiting {
        call.await.unwrap().unwrap();
    }
    assert_eq!(admission.snapshot().waiting, [0; 3]);
}

#[tokio::test(start_paused = true)]
async fn a_limit_that_comes_by_reload_respects_what_was_spent_before_it() {
    let unlimited = Quota { requests: None, concurrency: None, ..quota(1, 1) };
    let admission = one(unlimited);
    for _ in 0..39 {
        spend(admission.place(demand(Priority::Normal)).permit().await.unwrap());
    }
    let mut cut = admission.place(demand(Priority::Normal)).permit().await.unwrap();
    cut.writing();
    drop(cut);
    let start = time::now();
    admission.reconfigure(vec![way("up", &["k"], Quota { requests: None, ..quota(1, 1) })], Vec::new(), BOUNDS);
    spend(admission.place(demand(Priority::Normal)).permit().await.unwrap());
    assert_eq!(start.elapsed(), Duration::from_secs(2), "the slot of the cut exchange cools under the new cap");
    let start = time::now();
    admission.reconfigure(vec![way("up", &["k"], quota(40, 5))], Vec::new(), BOUNDS);
    spend(admission.place(demand(Priority::Normal)).permit().await.unwrap());
    assert_eq!(start.elapsed(), Duration::from_millis(60_500), "nobody counted what was sent without a limit");
}
