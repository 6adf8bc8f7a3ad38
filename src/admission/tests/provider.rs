//! For any arrivals, durations, refunds and abandonments: what the provider counts never exceeds its limits.

use parking_lot::Mutex;
use proptest::prelude::*;

use super::*;

/// A call as the world decides it; times in milliseconds.
#[derive(Debug, Clone)]
struct Story {
    arrives: u64,
    priority: Priority,
    fate: Fate,
    /// How long writing the request takes.
    writing: u64,
    /// How long the answer takes.
    lasts: u64,
    /// When the provider counts: this share of the way from the first written byte to the margin after the last.
    counts_at: f64,
    /// When the provider frees the slot: this share of the delay we grant it.
    frees_at: f64,
}

#[derive(Debug, Clone)]
enum Fate {
    /// Comes to its end.
    Ends,
    /// Leaves after so many milliseconds, wherever it is then.
    Leaves(u64),
    /// Gets no connection, so many times; then it ends.
    NoConnection(u8),
}

#[derive(Debug, Clone)]
struct World {
    quota: Quota,
    stories: Vec<Story>,
    /// After this many milliseconds the limits become those.
    reload: Option<(u64, Quota)>,
}

/// What the provider saw of one request: when it was permitted, when it counted it, from when to when it was running.
#[derive(Debug, Clone, Copy)]
struct Seen {
    permitted: Instant,
    counted: Instant,
    began: Instant,
    freed: Instant,
}

type Ledger = Arc<Mutex<Vec<Seen>>>;

fn any_quota() -> impl Strategy<Value = Quota> {
    (1_u32..8, 2_000_u64..20_000, 20_u64..600, 1_u32..6, 1_u32..5).prop_map(
        |(requests, window, margin, burst, concurrency)| Quota {
            requests: NonZeroU32::new(requests),
            window: Duration::from_millis(window),
            window_margin: Duration::from_millis(margin),
            burst: NonZeroU32::new(burst),
            concurrency: NonZeroU32::new(concurrency),
            slot_release_delay: Duration::from_millis(50),
            slot_release_delay_aborted: Duration::from_millis(2_000),
            ..Quota::default()
        },
    )
}

fn any_story() -> impl Strategy<Value = Story> {
    let priority = prop_oneof![Just(Priority::High), Just(Priority::Normal), Just(Priority::Low)];
    let fate = prop_oneof![
        4 => Just(Fate::Ends),
        2 => (0_u64..20_000).prop_map(Fate::Leaves),
        1 => (1_u8..4).prop_map(Fate::NoConnection),
    ];
    (0_u64..40_000, priority, fate, 0_u64..300, 0_u64..5_000, 0.0..=1.0, 0.0..=1.0).prop_map(
        |(arrives, priority, fate, writing, lasts, counts_at, frees_at)| Story {
            arrives,
            priority,
            fate,
            writing,
            lasts,
            counts_at,
            frees_at,
        },
    )
}

fn any_world() -> impl Strategy<Value = World> {
    let reload = proptest::option::of((1_000_u64..60_000, any_quota()));
    (any_quota(), proptest::collection::vec(any_story(), 1..60), reload).prop_map(|(quota, stories, reload)| World {
        quota,
        stories,
        reload,
    })
}

/// Writes what the provider saw into the ledger, also when the call is dropped in the middle.
struct Exchange<'a> {
    permit: Option<Permit>,
    story: &'a Story,
    quota: Quota,
    ledger: Ledger,
    permitted: Instant,
    began: Instant,
    written: Option<Instant>,
}

impl Exchange<'_> {
    async fn run(mut self) {
        tokio::time::sleep(Duration::from_millis(self.story.writing)).await;
        self.permit.as_mut().unwrap().written();
        self.written = Some(time::now());
        tokio::time::sleep(Duration::from_millis(self.story.lasts)).await;
        self.permit.take().unwrap().ended();
        self.enter(self.quota.slot_release_delay);
    }

    fn enter(&self, delay: Duration) {
        let now = time::now();
        let last = self.written.unwrap_or(now) + self.quota.window_margin;
        let counted = self.began + (last - self.began).mul_f64(self.story.counts_at);
        let freed = now + delay.mul_f64(self.story.frees_at);
        self.ledger.lock().push(Seen { permitted: self.permitted, counted, began: self.began, freed });
    }
}

impl Drop for Exchange<'_> {
    fn drop(&mut self) {
        if let Some(permit) = self.permit.take() {
            drop(permit);
            self.enter(self.quota.slot_release_delay_aborted);
        }
    }
}

async fn live(story: &Story, admission: Admission, quota: Quota, ledger: Ledger) {
    tokio::time::sleep(Duration::from_millis(story.arrives)).await;
    let mut place = admission.place(demand(story.priority));
    let mut refusals = if let Fate::NoConnection(times) = story.fate { times } else { 0 };
    loop {
        let mut permit = place.permit().await.unwrap();
        if refusals > 0 {
            refusals -= 1;
            tokio::time::sleep(Duration::from_millis(story.writing)).await;
            drop(permit);
            place.failed();
            continue;
        }
        let permitted = time::now();
        permit.writing();
        let began = time::now();
        let exchange = Exchange { permit: Some(permit), story, quota, ledger, permitted, began, written: None };
        return exchange.run().await;
    }
}

/// Lives all stories and returns what the provider saw, and when the limits changed.
async fn live_all(world: World) -> (Vec<Seen>, Option<Instant>) {
    let admission = one(world.quota);
    let ledger = Ledger::default();
    let calls: Vec<_> = world
        .stories
        .into_iter()
        .map(|story| {
            let (admission, ledger, quota) = (admission.clone(), Arc::clone(&ledger), world.quota);
            tokio::task::spawn(async move {
                let life = live(&story, admission, quota, ledger);
                match story.fate {
                    Fate::Leaves(after) => {
                        let leaves = Duration::from_millis(story.arrives + after);
                        drop(tokio::time::timeout(leaves, life).await);
                    }
                    Fate::Ends | Fate::NoConnection(_) => life.await,
                }
            })
        })
        .collect();
    let mut reloaded = None;
    if let Some((after, quota)) = world.reload {
        tokio::time::sleep(Duration::from_millis(after)).await;
        // What the world grants the provider does not change in the middle of a story.
        let quota = Quota {
            window: world.quota.window,
            window_margin: world.quota.window_margin,
            slot_release_delay: world.quota.slot_release_delay,
            slot_release_delay_aborted: world.quota.slot_release_delay_aborted,
            ..quota
        };
        admission.reconfigure(vec![way("up", &["k"], quota)], Vec::new(), BOUNDS);
        reloaded = Some(time::now());
    }
    for call in calls {
        call.await.unwrap();
    }
    let mut seen = ledger.lock().clone();
    seen.sort_by_key(|seen| seen.permitted);
    (seen, reloaded)
}

/// How many of `seen` count in the fullest window that `request` is the last permitted of.
fn fullest_window(seen: &[Seen], request: usize, window: Duration) -> usize {
    let earlier = &seen[..=request];
    let own = earlier[request].counted;
    let ends = earlier.iter().map(|other| other.counted).filter(|&end| end >= own && end < own + window);
    let within =
        |end: Instant| earlier.iter().filter(|other| other.counted <= end && other.counted + window > end).count();
    ends.map(within).max().unwrap_or(0)
}

/// How many run when `request` begins.
fn running(seen: &[Seen], request: usize) -> usize {
    let began = seen[request].began;
    seen[..=request].iter().filter(|other| other.began <= began && other.freed > began).count().max(1)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1_000))]

    #[test]
    fn no_window_and_no_instant_at_the_provider_is_over_its_limit(world in any_world()) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        let (before, window) = (world.quota, world.quota.window);
        let after = world.reload.as_ref().map_or(before, |(_, quota)| *quota);
        let (seen, reloaded) = runtime.block_on(live_all(world));
        for request in 0..seen.len() {
            // Permits of the very instant of the reload may be of either side.
            let permitted = seen[request].permitted;
            let quotas = match reloaded {
                Some(at) if permitted > at => [after, after],
                Some(at) if permitted < at => [before, before],
                Some(_) => [before, after],
                None => [before, before],
            };
            let most = |limit: fn(&Quota) -> Option<NonZeroU32>| {
                usize::try_from(quotas.iter().filter_map(limit).max().unwrap().get()).unwrap()
            };
            let counted = fullest_window(&seen, request, window);
            prop_assert!(counted <= most(|quota| quota.requests), "{counted} in a window: {:?}", seen[request]);
            let running = running(&seen, request);
            prop_assert!(running <= most(|quota| quota.concurrency), "{running} at once: {:?}", seen[request]);
        }
    }
}
