//! Hours in a blink: admission alone, in paused time, before the judge of the simulated provider. What takes thousands
//! of calls to be seen is measured here; that the whole proxy keeps it is what the stories in true time show.

use std::num::NonZeroU32;
use std::pin::pin;
use std::sync::Arc;

use parking_lot::Mutex;
use tidegate::admission::{Admission, Bounds, Demand, Permit, Place, Way};
use tidegate::ids::KeyId;
use tidegate::limits::Quota;
use tidegate::sim::Limits;
use tidegate::sim::judge::{Judge, Ruling};
use tidegate::sim::swarm::Percentiles;
use tidegate::time::{Duration, Instant, Tasks, now};
use tidegate::units::Priority;

const MARGIN: Duration = Duration::from_millis(500);
const REQUESTS: u32 = 40;
const SLOTS: u32 = 5;
const JITTER: Duration = Duration::from_millis(150);
const WINDOWS: u32 = 360;
/// How often the one who chats looks whether a slot is free.
const GLANCE: Duration = Duration::from_millis(10);

/// A provider that allows so many requests in a minute, so many at a time, and its users.
struct World {
    admission: Admission,
    judge: Mutex<Judge>,
    window: Duration,
    mean: Duration,
    end: Instant,
    luck: Mutex<fastrand::Rng>,
    seen: Mutex<Seen>,
}

#[derive(Default)]
struct Seen {
    counted: u32,
    refused: u32,
    /// What the person who chats waited while a slot was free, in milliseconds.
    chat_waits: Vec<f64>,
}

impl World {
    fn new(window: Duration, mean: Duration) -> Arc<Self> {
        let quota = Quota {
            requests: NonZeroU32::new(REQUESTS),
            window,
            window_margin: MARGIN,
            burst: NonZeroU32::new(5).unwrap(),
            concurrency: NonZeroU32::new(SLOTS),
            slot_release_delay: Duration::from_millis(50),
            slot_release_delay_aborted: Duration::from_secs(2),
        };
        let way = Way { upstream: "p".into(), serves: Arc::new(|_| true), keys: vec![KeyId::PASS_THROUGH], quota };
        let bounds = Bounds { queue_max: 100, queue_bytes_max: 0, floors: [0.0, 0.10, 0.05] };
        let limits = Limits { requests: Some(REQUESTS), concurrency: Some(SLOTS), tokens: None, window };
        Arc::new(Self {
            admission: Admission::new(vec![way], bounds),
            judge: Mutex::new(Judge::new(limits, Duration::ZERO)),
            window,
            mean,
            end: now() + window * WINDOWS,
            luck: Mutex::new(fastrand::Rng::with_seed(1)),
            seen: Mutex::default(),
        })
    }

    /// Uniform around `mean`, up to `spread` of it away.
    fn draw(&self, mean: Duration, spread: f64) -> Duration {
        mean.mul_f64(1.0 - spread + 2.0 * spread * self.luck.lock().f64())
    }

    fn place(&self, priority: Priority) -> Place {
        let deadline = self.end + self.window;
        self.admission.place(Demand { priority, model: None, bytes: 0, deadline, exempt: false })
    }

    async fn exchange(&self, mut permit: Permit) {
        permit.writing();
        let arrival = self.judge.lock().arrive(0, now());
        permit.written();
        tokio::time::sleep(self.draw(JITTER / 2, 1.0)).await;
        let ruling = self.judge.lock().count(0, arrival, 0, now());
        {
            let mut seen = self.seen.lock();
            seen.counted += 1;
            seen.refused += u32::from(ruling != Ruling::Admitted);
        }
        tokio::time::sleep(self.draw(self.mean, 0.8)).await;
        self.judge.lock().leave(0, now());
        permit.ended();
    }

    async fn work(self: Arc<Self>) {
        while now() < self.end {
            let permit = self.place(Priority::Low).permit().await.unwrap();
            self.exchange(permit).await;
        }
    }

    async fn chat(self: Arc<Self>) {
        while now() < self.end {
            tokio::time::sleep(self.draw(Duration::from_secs(6), 0.8)).await;
            let (mut place, begun) = (self.place(Priority::High), now());
            let mut in_full = Duration::ZERO;
            let permit = {
                let mut waiting = pin!(place.permit());
                loop {
                    let full = self.slots_in_use() >= SLOTS;
                    match tokio::time::timeout(GLANCE, &mut waiting).await {
                        Ok(permit) => break permit.unwrap(),
                        Err(_) if full => in_full += GLANCE,
                        Err(_) => {}
                    }
                }
            };
            let waited = begun.elapsed().saturating_sub(in_full);
            self.seen.lock().chat_waits.push(waited.as_secs_f64() * 1_000.0);
            self.exchange(permit).await;
        }
    }

    fn slots_in_use(&self) -> u32 {
        self.admission.snapshot().lanes[0].1.slots_in_use
    }
}

/// Lives through it, and tells the share of the rate that was used, and what the person who chats waited.
fn live(window: Duration, mean: Duration) -> (f64, Percentiles) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    let world = runtime.block_on(async {
        let (world, tasks) = (World::new(window, mean), Tasks::default());
        let timer = tasks.spawn(world.admission.clone().keep_time());
        for _ in 0..40 {
            tasks.spawn(Arc::clone(&world).work());
        }
        Arc::clone(&world).chat().await;
        timer.abort();
        world
    });
    let seen = std::mem::take(&mut *world.seen.lock());
    assert_eq!(seen.refused, 0, "violations");
    let used = f64::from(seen.counted) / f64::from(REQUESTS * WINDOWS);
    (used, Percentiles::of(seen.chat_waits))
}

#[test]
fn hours_use_the_rate_to_the_full_and_the_person_who_chats_waits_for_one_step() {
    // From calls so short that a slot is always free to calls so long that slots matter as much as the rate.
    for (window, mean) in [(60_000, 500), (60_000, 3_000), (60_000, 4_500), (20_000, 1_500)].map(in_ms) {
        let (used, chat) = live(window, mean);
        println!("{mean:?} in {window:?}: {:.2} % used, chat waits {chat:?}", used * 100.0);
        let span = window + MARGIN;
        assert!(used >= window.as_secs_f64() / span.as_secs_f64() - 0.003, "{used} used at a mean of {mean:?}");
        let step_ms = span.as_secs_f64() / f64::from(REQUESTS) * 1_000.0;
        assert!(chat.p99 <= step_ms + 50.0, "{chat:?} at a mean of {mean:?}");
    }
}

fn in_ms((window, mean): (u64, u64)) -> (Duration, Duration) {
    (Duration::from_millis(window), Duration::from_millis(mean))
}
