//! A client at its own limits stands aside, and comes back into line.

use super::*;
use crate::admission::settings::OnLimit;

/// Admission to plenty, for one client that may do one at a time.
fn one_at_a_time(on_limit: OnLimit) -> Admission {
    let admission = one(quota(1_000, 100));
    configure(&admission, on_limit);
    admission
}

fn configure(admission: &Admission, on_limit: OnLimit) {
    let own = Quota { concurrency: Some(NonZeroU32::MIN), ..Quota::unlimited() };
    let client = ClientQuota { id: ClientId::Named("a".into()), weight: NonZeroU32::MIN, quota: own, on_limit };
    admission.reconfigure(vec![way("up", &["k"], quota(1_000, 100))], vec![client], BOUNDS);
}

fn ask(admission: &Admission, priority: Priority) -> Place {
    let deadline = time::now() + Duration::from_secs(60);
    admission.place(Demand { client: ClientId::Named("a".into()), deadline, ..demand(priority) })
}

/// A permit that came back unused once left its client standing aside: who waited for it did so until its deadline.
#[tokio::test(start_paused = true)]
async fn a_permit_that_comes_back_unused_has_its_client_in_line_again() {
    let admission = one_at_a_time(OnLimit::Wait);
    let first = ask(&admission, Priority::Normal).permit().await.unwrap();
    let mut next = ask(&admission, Priority::Normal);
    let next = tokio::task::spawn(async move { next.permit().await.map(spend) });
    wait_for(&admission, 1).await;
    drop(first);
    next.await.unwrap().unwrap();
}

/// One that waited for its client's limits once kept those from going that had their part of them.
#[tokio::test(start_paused = true)]
async fn calls_that_wait_at_a_reload_do_not_wait_for_each_other() {
    for (before, after) in [(OnLimit::Refuse, OnLimit::Wait), (OnLimit::Wait, OnLimit::Refuse)] {
        let admission = one_at_a_time(before);
        admission.pause("up", true);
        let calls = [Priority::Low, Priority::High].map(|priority| {
            let mut place = ask(&admission, priority);
            tokio::task::spawn(async move { place.permit().await.map(spend) })
        });
        tokio::time::sleep(Duration::from_secs(1)).await;
        configure(&admission, after);
        let mut last = ask(&admission, Priority::High);
        let last = tokio::task::spawn(async move { last.permit().await.map(spend) });
        tokio::time::sleep(Duration::from_secs(1)).await;
        admission.pause("up", false);
        let mut went = 0;
        for call in calls.into_iter().chain([last]) {
            match call.await.unwrap() {
                Ok(()) => went += 1,
                Err(refusal) => assert!(matches!(refusal, Refusal::LimitExceeded { .. }), "{refusal:?}"),
            }
        }
        assert_eq!(went, if after == OnLimit::Wait { 2 } else { 1 });
    }
}
