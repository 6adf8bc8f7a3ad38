//! Hours in a blink: admission alone, in paused time, before the judge of the simulated provider. What takes thousands
//! of calls to be seen is measured here; that the whole proxy keeps it is what the stories in true time show.

use std::num::NonZeroU32;
use std::pin::pin;
use std::sync::Arc;

use parking_lot::Mutex;
use tidegate::admission::settings::OnLimit;
use tidegate::admission::{Admission, Bounds, ClientQuota, Demand, Permit, Place, Way};
use tidegate::ids::{ClientId, KeyId};
use tidegate::limits::Quota;
use tidegate::limits::settings::Scope;
use tidegate::sim::Limits;
use tidegate::sim::judge::{Judge, Ruling};
use tidegate::sim::swarm::Percentiles;
use tidegate::time::{Duration, Instant, Tasks, now};
use tidegate::units::Priority;

use super::fairness::longest_gap;

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
    /// Whose workers never pause: of each client its weight and how many it has, in class low.
    clients: &'static [(u32, usize)],
    /// How many workers of class high never pause either.
    hurried: usize,
}

/// The provider and its users.
struct World {
    admission: Admission,
    judge: Mutex<Judge>,
    setting: Setting,
    began: Instant,
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
    /// When each client's calls had their turn, in seconds; those of class high are the last.
    turns: Vec<Vec<f64>>,
}

impl World {
    fn new(setting: Setting) -> Arc<Self> {
        let Setting { requests, slots, window, windows, clients, .. } = setting;
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
        let bounds = Bounds { queue_max: 1_000, queue_bytes_max: 0, floors: [0.0, 0.10, 0.05] };
        let limits = Limits { requests: Some(requests), concurrency: Some(slots), tokens: None, window };
        let admission = Admission::new(vec![way.clone()], bounds);
        let quota = |(index, (weight, _)): (usize, &(u32, usize))| ClientQuota {
            id: named(index),
            weight: NonZeroU32::new(*weight).unwrap(),
            quota: Quota::unlimited(),
            on_limit: OnLimit::Wait,
        };
        admission.reconfigure(vec![way], clients.iter().enumerate().map(quota).collect(), bounds);
        Arc::new(Self {
            admission,
            judge: Mutex::new(Judge::new(limits, Duration::ZERO)),
            setting,
            end: now() + window * windows,
            luck: Mutex::new(fastrand::Rng::with_seed(1)),
            began: now(),
            seen: Mutex::new(Seen { turns: vec![Vec::new(); clients.len() + 1], ..Seen::default() }),
        })
    }

    /// Uniform around `mean`, up to `spread` of it away.
    fn draw(&self, mean: Duration, spread: f64) -> Duration {
        mean.mul_f64(1.0 - spread + 2.0 * spread * self.luck.lock().f64())
    }

    fn place(&self, priority: Priority, client: ClientId) -> Place {
        // Longer than the longest backlog takes.
        let deadline = self.end + self.setting.window * self.setting.windows;
        self.admission.place(Demand { client, ..Demand::new(priority, deadline) })
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

    /// Never pauses; `client` counts those of the setting, and who is none of them is of class high.
    async fn work(self: Arc<Self>, client: usize) {
        let class = if client < self.setting.clients.len() { Priority::Low } else { Priority::High };
        while now() < self.end {
            let permit = self.place(class, named(client)).permit().await.unwrap();
            self.seen.lock().turns[client].push(self.began.elapsed().as_secs_f64());
            self.exchange(permit).await;
        }
    }

    async fn chat(self: Arc<Self>) {
        while now() < self.end {
            tokio::time::sleep(self.draw(Duration::from_secs(6), 0.8)).await;
            let (mut place, begun) = (self.place(Priority::High, ClientId::Everybody), now());
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

fn named(client: usize) -> ClientId {
    ClientId::Named(format!("client-{client}").into())
}

/// Lives through it, and tells the share of the rate that was used, and what the person who chats waited.
fn live(setting: Setting) -> (f64, Percentiles) {
    let (used, seen) = see(setting);
    (used, Percentiles::of(seen.chat_waits))
}

fn see(setting: Setting) -> (f64, Seen) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    let world = runtime.block_on(async {
        let (world, tasks) = (World::new(setting), Tasks::default());
        let timer = tasks.spawn(world.admission.clone().keep_time());
        for (client, (_, workers)) in setting.clients.iter().enumerate() {
            for _ in 0..*workers {
                tasks.spawn(Arc::clone(&world).work(client));
            }
        }
        for _ in 0..setting.hurried {
            tasks.spawn(Arc::clone(&world).work(setting.clients.len()));
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
    (used, seen)
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
        let setting = Setting { requests: 40, slots: 5, window, mean, windows: 360, clients: &[(1, 40)], hurried: 0 };
        let (used, chat) = live(setting);
        assert!(used >= setting.used_min(), "{used} used of {setting:?}");
        assert!(chat.p99 <= setting.step_ms() + 50.0, "{chat:?} in {setting:?}");
    }
}

#[test]
fn timers_that_tick_in_milliseconds_cost_a_fast_provider_no_rate() {
    let (window, mean) = (Duration::from_secs(60), Duration::from_millis(20));
    let setting = Setting { requests: 6_000, slots: 100, window, mean, windows: 10, clients: &[(1, 40)], hurried: 0 };
    let (used, _) = live(setting);
    assert!(used >= setting.used_min(), "{used} used of {setting:?}");
}

/// As in the story told in `fair.toml`, for six hours.
const FAIR: Setting = Setting {
    requests: 40,
    slots: 5,
    window: Duration::from_secs(60),
    mean: Duration::from_millis(4_500),
    windows: 360,
    clients: &[(1, 40), (1, 40), (1, 40), (1, 40), (4, 40)],
    hurried: 0,
};

/// Holds what each client got against its weight, and tells how many turns of their class they had between them while
/// one of them had none, at the most, and how long that was. The first window is left out: who came first found nobody
/// waiting and had what the idle may have.
fn judge_shares(setting: Setting, turns: &[Vec<f64>]) -> Vec<(usize, f64)> {
    let first = setting.window.as_secs_f64();
    let backlogged = |turns: &Vec<f64>| turns.iter().copied().filter(|at| *at >= first).collect::<Vec<f64>>();
    let low: Vec<Vec<f64>> = turns.iter().take(setting.clients.len()).map(backlogged).collect();
    let all: usize = low.iter().map(Vec::len).sum();
    let weights: u32 = setting.clients.iter().map(|(weight, _)| weight).sum();
    let mut in_order: Vec<f64> = low.iter().flatten().copied().collect();
    in_order.sort_unstable_by(f64::total_cmp);
    let end = (setting.window * setting.windows).as_secs_f64();
    let judged = setting.clients.iter().zip(&low).map(|((weight, _), turns)| {
        let due = all as f64 * f64::from(*weight) / f64::from(weights);
        // Not a twentieth but a turn or two of thousands: who is next at the end had its turn in the other order.
        assert!((turns.len() as f64 - due).abs() <= 2.0, "{} turns, due {due}", turns.len());
        let between = |pair: &[f64]| {
            let index = |at: f64| in_order.partition_point(|turn| *turn <= at);
            index(pair[1]) - index(pair[0])
        };
        let since: Vec<f64> = turns.iter().map(|at| at - first).collect();
        (turns.windows(2).map(between).max().unwrap_or(usize::MAX), longest_gap(&since, end - first))
    });
    judged.collect()
}

#[test]
fn clients_share_by_weight_for_hours_and_each_has_a_turn_in_every_round() {
    let (used, seen) = see(FAIR);
    assert!(used >= FAIR.used_min(), "{used}");
    assert!(Percentiles::of(seen.chat_waits).p99 <= FAIR.step_ms() + 50.0);
    for ((weight, _), (turns, silence)) in FAIR.clients.iter().zip(judge_shares(FAIR, &seen.turns)) {
        println!("weight {weight}: a turn at least every {turns} of its class, none for {silence:.1} s at most");
        // A round is eight turns; where in it a client comes may change once by as much as the others are.
        let most = 8 / *weight as usize + FAIR.clients.len() - 1;
        assert!(turns <= most, "{turns}, expected at most {most}");
    }
}

#[test]
fn floor_holds_for_hours_and_is_shared_by_weight_while_the_higher_class_never_pauses() {
    let setting = Setting { hurried: 40, ..FAIR };
    let (used, seen) = see(setting);
    assert!(used >= setting.used_min(), "{used}");
    let low: usize = seen.turns[..setting.clients.len()].iter().map(Vec::len).sum();
    let share = low as f64 / f64::from(seen.counted);
    assert!((0.05..0.052).contains(&share), "{share}");
    for ((weight, _), (turns, silence)) in setting.clients.iter().zip(judge_shares(setting, &seen.turns)) {
        println!("weight {weight}: a turn at least every {turns} of its class, none for {silence:.1} s at most");
        // One permit in twenty is the class's.
        let most = (8 / *weight as usize + setting.clients.len() - 1) as f64 * 20.0 * setting.step_ms() / 1_000.0;
        assert!(silence <= most, "{silence} s, expected at most {most} s");
    }
}
