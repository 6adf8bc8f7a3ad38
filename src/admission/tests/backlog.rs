//! Hours of backlog in a moment: the rate is used to the full, and the person who chats waits about a step.

use parking_lot::Mutex;

use super::*;

const HOURS: Duration = Duration::from_secs(40 * 3_600);
/// Of each permit the request is written and counted at once; what is left is the answer.
const ANSWER_SECONDS: std::ops::Range<f64> = 0.9..8.1;

/// Asks, is answered, thinks; over and over. Returns how long it waited for each permit.
async fn ask_for_ever(admission: Admission, priority: Priority, seed: u64, think_seconds: f64) -> Vec<Duration> {
    let mut random = fastrand::Rng::with_seed(seed);
    let mut between = move |from: f64, to: f64| Duration::from_secs_f64(from + (to - from) * random.f64());
    let (start, mut waits) = (time::now(), Vec::new());
    while start.elapsed() < HOURS {
        let mut permit = admission.place(demand(priority)).permit().await.unwrap();
        waits.push(permit.waited());
        permit.writing();
        permit.written();
        tokio::time::sleep(between(ANSWER_SECONDS.start, ANSWER_SECONDS.end)).await;
        permit.ended();
        if think_seconds > 0.0 {
            tokio::time::sleep(between(0.0, 2.0 * think_seconds)).await;
        }
    }
    waits
}

/// 40 a minute, 5 at a time, answers of 4.5 s on average: slots are short every now and then, and what that held up is
/// caught up. The numbers are those of the contract: 98.8 % used, and a wait of at most a step and 50 ms in 99 of 100.
#[tokio::test(start_paused = true)]
async fn the_rate_is_used_to_the_full_and_the_person_waits_about_a_step() {
    let admission = one(quota(40, 5));
    let permits = Arc::new(Mutex::new(0_usize));
    for seed in 0..40 {
        let (admission, permits) = (admission.clone(), Arc::clone(&permits));
        tokio::task::spawn(async move {
            let waits = ask_for_ever(admission, Priority::Low, seed, 0.0).await;
            *permits.lock() += waits.len();
        });
    }
    let mut waits = ask_for_ever(admission, Priority::High, 1_000, 4.0).await;
    tokio::time::sleep(Duration::from_secs(600)).await; // the last of the others
    let used = (*permits.lock() + waits.len()) as f64;
    let possible = HOURS.as_secs_f64() / 60.0 * 40.0;
    // The 40 workers end with one call each after the time is over.
    assert!(used - 45.0 >= possible * 0.988 && used - 45.0 <= possible, "{used} of {possible}");
    waits.sort_unstable();
    let p99 = waits[waits.len() * 99 / 100];
    let step = Duration::from_secs_f64(60.5 / 40.0);
    assert!(p99 <= step + Duration::from_millis(50), "p99 {p99:?}, longest {:?}", waits.last());
}
