//! Hours in a blink: admission alone, in paused time, before the judge of the simulated provider. What takes thousands
//! of calls to be seen is measured here; that the whole proxy keeps it is what the stories in true time show.

use std::num::NonZeroU32;
use std::pin::pin;
use std::sync::Arc;

use parking_lot::Mutex;
use tidegate::admission::{Admission, Bounds, Demand, Permit, Place, Way};
use tidegate::ids::KeyId;
use tidegate::limits::Quota;
use tidegate::limits::settings::Scope;
use tidegate::sim::Limits;
use tidegate::sim::judge::{Judge, Ruling};
use tidegate::sim::swarm::Percentiles;
use tidegate::time::{Duration, Instant, Tasks, now};
use tidegate::units::Priority;

const MARGIN: Duration = Duration::from_millis(500);
const JITTER: Duration = Duration::from_millis(150);
/// How often the one who chats looks whether a slot is free.
const GLANCE: Duration = Duration::from_millis(10);

/// What the provider allows, how long its exchanges last on average, and how many windows are lived through.
#[derive(Debug, Clone, Copy)]
struct Setting {
    requests: u32,
    slots: u32,
    window: Duration,
    mean: Duration,
    windows: u32,
}

/// The provider and its users.
struct World {
    admission: Admission,
    judge: Mutex<Judge>,
    setting: Setting,
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
    fn new(setting: Setting) -> Arc<Self> {
        let Setting { requests, slots, window, windows, .. } = setting;
        let quota = Quota {
            requests: NonZeroU32::new(requests),
            window,
            window_margin: MARGIN,
            burst: NonZeroU32::new(5),
            concurrency: NonZeroU32::new(slots),
            slot_release_delay: Duration::from_millis(50),
            slot_release_delay_aborted: Duration::from_secs(2),
            ..Quota::default()
        };
        let way = Way {
            upstream: "p".into(),
            serves: Arc::new(|_| true),
            keys: vec![KeyId::PASS_THROUGH],
            quota,
            orphan_hold: Duration::ZERO,
            scope: Scope::Upstream,
            passes_keys: true,
        };
        let bounds = Bounds { queue_max: 100, queue_bytes_max: 0, floors: [0.0, 0.10, 0.05] };
        let limits = Limits { requests: Some(requests), concurrency: Some(slots), tokens: None, window };
        Arc::new(Self {
            admission: Admission::new(vec![way], bounds),
            judge: Mutex::new(Judge::new(limits, Duration::ZERO)),
            setting,
            end: now() + window * windows,
            luck: Mutex::new(fastrand::Rng::with_seed(1)),
            seen: Mutex::default(),
        })
    }

    /// Uniform around `mean`, up to `spread` of it away.
    fn draw(&self, mean: Duration, spread: f64) -> Duration {
        mean.mul_f64(1.0 - spread + 2.0 * spread * self.luck.lock().f64())
    }

    fn place(&self, priority: Priority) -> Place {
        let deadline = self.end + self.setting.window;
        self.admission.place(Demand::new(priority, deadline))
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
        tokio::time::sleep(self.draw(self.setting.mean, 0.8)).await;
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
                    let full = self.slots_in_use() >= self.setting.slots;
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
fn live(setting: Setting) -> (f64, Percentiles) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    let world = runtime.block_on(async {
        let (world, tasks) = (World::new(setting), Tasks::default());
        let timer = tasks.spawn(world.admission.clone().keep_time());
        for _ in 0..40 {
            tasks.spawn(Arc::clone(&world).work());
        }
        tasks.spawn(Arc::clone(&world).chat());
        tokio::time::sleep_until(world.end).await;
        timer.abort();
        world
    });
    let seen = std::mem::take(&mut *world.seen.lock());
    assert_eq!(seen.refused, 0, "violations");
    let used = f64::from(seen.counted) / f64::from(setting.requests * setting.windows);
    println!("{setting:?}: {:.2} % used, chat waits {:?}", used * 100.0, Percentiles::of(seen.chat_waits.clone()));
    (used, Percentiles::of(seen.chat_waits))
}

impl Setting {
    /// What can be used of the rate, less what DESIGN §10 grants us.
    fn used_min(&self) -> f64 {
        self.window.as_secs_f64() / (self.window + MARGIN).as_secs_f64() - 0.003
    }

    fn step_ms(&self) -> f64 {
        (self.window + MARGIN).as_secs_f64() / f64::from(self.requests) * 1_000.0
    }
}

#[test]
fn hours_use_the_rate_to_the_full_and_the_person_who_chats_waits_for_one_step() {
    // From calls so short that a slot is always free to calls so long that slots matter as much as the rate.
    for (window, mean) in [(60_000, 500), (60_000, 3_000), (60_000, 4_500), (20_000, 1_500)] {
        let (window, mean) = (Duration::from_millis(window), Duration::from_millis(mean));
        let setting = Setting { requests: 40, slots: 5, window, mean, windows: 360 };
        let (used, chat) = live(setting);
        assert!(used >= setting.used_min(), "{used} used of {setting:?}");
        assert!(chat.p99 <= setting.step_ms() + 50.0, "{chat:?} in {setting:?}");
    }
}

#[test]
fn timers_that_tick_in_milliseconds_cost_a_fast_provider_no_rate() {
    let (window, mean) = (Duration::from_secs(60), Duration::from_millis(20));
    let setting = Setting { requests: 6_000, slots: 100, window, mean, windows: 10 };
    let (used, _) = live(setting);
    assert!(used >= setting.used_min(), "{used} used of {setting:?}");
}
