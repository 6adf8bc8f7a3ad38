//! Inside a class clients share by weight, however many sockets each has; its own limits hold for each.

use std::collections::BTreeMap;

use parking_lot::Mutex;
use proptest::prelude::*;

use super::*;
use crate::admission::settings::OnLimit;

type Count = Arc<Mutex<BTreeMap<ClientId, u32>>>;

fn name(number: usize) -> ClientId {
    ClientId::Named(format!("client-{number}").as_str().into())
}

pub(super) fn client(number: usize, weight: u32) -> ClientQuota {
    let weight = NonZeroU32::new(weight).unwrap();
    ClientQuota { id: name(number), weight, quota: Quota::unlimited(), on_limit: OnLimit::Wait }
}

pub(super) fn by(number: usize, priority: Priority) -> Demand {
    Demand { client: name(number), ..demand(priority) }
}

/// A socket that asks, is answered, and asks again.
async fn ask_for_ever(admission: Admission, number: usize, lasts: Duration, count: Count) {
    loop {
        let mut permit = admission.place(by(number, Priority::Normal)).permit().await.unwrap();
        *count.lock().entry(name(number)).or_default() += 1;
        permit.writing();
        permit.written();
        tokio::time::sleep(lasts).await;
        permit.ended();
    }
}

fn paused() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    #[test]
    fn over_a_backlog_shares_are_within_5_percent_of_the_weights(
        clients in proptest::collection::vec((1_u32..8, 1_usize..60), 2..7),
        lasts in 0_u64..4_000,
    ) {
        // Who has fewer sockets than it takes to keep its share of the slots busy waits for itself, not for others.
        let slots = 5;
        let total: u32 = clients.iter().map(|(weight, _)| weight).sum();
        let count = paused().block_on(async {
            let admission = one(quota(40, slots));
            let quotas = clients.iter().enumerate().map(|(number, (weight, _))| client(number, *weight)).collect();
            admission.reconfigure(vec![way("up", &["k"], quota(40, slots))], quotas, BOUNDS);
            let count = Count::default();
            for (number, (_, sockets)) in clients.iter().enumerate() {
                for _ in 0..(*sockets).max(6) {
                    let lasts = Duration::from_millis(lasts);
                    tokio::task::spawn(ask_for_ever(admission.clone(), number, lasts, Arc::clone(&count)));
                }
            }
            // The first of them find nobody waiting.
            tokio::time::sleep(2 * WINDOW).await;
            count.lock().clear();
            tokio::time::sleep(40 * WINDOW).await;
            count.lock().clone()
        });
        let permits = f64::from(count.values().sum::<u32>());
        for (number, (weight, _)) in clients.iter().enumerate() {
            let share = f64::from(count[&name(number)]) / permits;
            let due = f64::from(*weight) / f64::from(total);
            prop_assert!((share - due).abs() <= 0.05 * due, "{share} instead of {due}: {count:?} {clients:?}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn who_comes_back_has_saved_nothing_up_and_owes_what_it_took() {
    let admission = one(quota(40, 100));
    let (count, late) = (Count::default(), Count::default());
    for _ in 0..20 {
        tokio::task::spawn(ask_for_ever(admission.clone(), 0, Duration::ZERO, Arc::clone(&count)));
    }
    tokio::time::sleep(10 * WINDOW).await;
    count.lock().clear();
    for _ in 0..20 {
        tokio::task::spawn(ask_for_ever(admission.clone(), 1, Duration::ZERO, Arc::clone(&late)));
    }
    tokio::time::sleep(2 * WINDOW).await;
    let (old, new) = (count.lock()[&name(0)], late.lock()[&name(1)]);
    assert!(old.abs_diff(new) <= 1, "{old} and {new}");
}

#[tokio::test(start_paused = true)]
async fn a_client_at_its_own_limit_stands_aside_and_nobody_waits_for_it() {
    let admission = one(quota(40, 5));
    let own = Quota { requests: NonZeroU32::new(2), ..Quota::unlimited() };
    let quotas = vec![ClientQuota { quota: own, ..client(0, 1) }];
    admission.reconfigure(vec![way("up", &["k"], quota(40, 5))], quotas, BOUNDS);
    let start = time::now();
    let limited: Vec<_> = (0..5)
        .map(|_| {
            let mut place = admission.place(by(0, Priority::High));
            tokio::task::spawn(async move {
                spend(place.permit().await.unwrap());
                time::now()
            })
        })
        .collect();
    wait_for(&admission, 3).await;
    spend(admission.place(by(1, Priority::Low)).permit().await.unwrap());
    assert_eq!(time::now(), start, "the other one goes at once, although it is lower");
    let mut went = Vec::new();
    for call in limited {
        went.push((call.await.unwrap() - start).as_secs());
    }
    assert_eq!(went, [0, 0, 60, 61, 120], "two a minute, and a step between them");
}

#[tokio::test(start_paused = true)]
async fn a_permit_that_comes_back_lets_its_own_client_go_on() {
    let admission = one(quota(40, 5));
    let own = Quota { requests: NonZeroU32::new(1), ..Quota::unlimited() };
    let quotas = vec![ClientQuota { quota: own, ..client(0, 1) }];
    admission.reconfigure(vec![way("up", &["k"], quota(40, 5))], quotas, BOUNDS);
    let unused = admission.place(by(0, Priority::Normal)).permit().await.unwrap();
    let mut next = admission.place(by(0, Priority::Normal));
    let next = tokio::task::spawn(async move { next.permit().await.map(spend) });
    wait_for(&admission, 1).await;
    let start = time::now();
    drop(unused);
    next.await.unwrap().unwrap();
    assert!(start.elapsed() < Duration::from_secs(2), "{:?}", start.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_client_that_wants_to_be_refused_at_its_own_limit_is_and_spends_nothing() {
    let admission = one(quota(40, 5));
    let own = Quota { concurrency: NonZeroU32::new(1), tokens: NonZeroU32::new(100), ..Quota::unlimited() };
    let quotas = vec![ClientQuota { quota: own, on_limit: OnLimit::Refuse, ..client(0, 1) }];
    admission.reconfigure(vec![way("up", &["k"], quota(40, 5))], quotas, BOUNDS);
    let mut running = admission.place(by(0, Priority::Normal)).permit().await.unwrap();
    running.writing();
    let refused = admission.place(by(0, Priority::Normal)).permit().await.unwrap_err();
    let slots = Refusal::LimitExceeded { dimension: Dimension::Concurrency, limit: 1, retry_after: None };
    assert_eq!((refused, used(&admission)), (slots, 1));
    running.ended();
    spend(admission.place(Demand { tokens: Estimate::known(60), ..by(0, Priority::Normal) }).permit().await.unwrap());
    let refused =
        admission.place(Demand { tokens: Estimate::known(60), ..by(0, Priority::Normal) }).permit().await.unwrap_err();
    let retry_after = Some(Duration::from_secs(60));
    assert_eq!(refused, Refusal::LimitExceeded { dimension: Dimension::Tokens, limit: 100, retry_after });
    tokio::time::sleep(Duration::from_secs(60)).await;
    spend(admission.place(Demand { tokens: Estimate::known(60), ..by(0, Priority::Normal) }).permit().await.unwrap());
}
