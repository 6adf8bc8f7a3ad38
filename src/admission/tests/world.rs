//! Worlds: calls of any fates, a process that is reloaded and killed, and all that the provider sees of it.

use std::sync::atomic::AtomicBool;

use parking_lot::Mutex;
use tokio::task::{JoinHandle, JoinSet};

use super::*;
use crate::admission::settings::OnLimit;
use crate::limits::journal::rehearsal::{Death, Machine};

/// How long the provider may keep an exchange that a kill has cut.
pub(super) const ORPHAN_HOLD: Duration = Duration::from_secs(3);
/// The most a call reserves.
pub(super) const TOKENS_MAX: u64 = 1_000;
/// Who calls: the first has no limits of its own; one of the others waits at them and one is refused, the third until a
/// reload, and from then on the second.
pub(super) const CLIENTS: usize = 3;

/// A call as the world decides it; times in milliseconds.
#[derive(Debug, Clone)]
pub(super) struct Story {
    pub(super) arrives: u64,
    pub(super) client: usize,
    pub(super) priority: Priority,
    pub(super) fate: Fate,
    /// Tokens it reserves.
    pub(super) tokens: u64,
    /// The share of them that it uses, and whether the answer says so.
    pub(super) uses: f64,
    pub(super) tells: bool,
    /// How long writing the request takes.
    pub(super) writing: u64,
    /// How long the answer takes.
    pub(super) lasts: u64,
    /// When the provider counts: this share of the way from the first written byte to the margin after the last.
    pub(super) counts_at: f64,
    /// When the provider frees the slot: this share of the delay we grant it.
    pub(super) frees_at: f64,
}

#[derive(Debug, Clone)]
pub(super) enum Fate {
    /// Comes to its end.
    Ends,
    /// Leaves after so many milliseconds, wherever it is then.
    Leaves(u64),
    /// Gets no connection, so many times; then it ends.
    NoConnection(u8),
    /// So many times the upstream fails it, or, if it is `lost`, breaks its connection; then it ends.
    Fails { times: u8, lost: bool },
}

/// The process is killed.
#[derive(Debug, Clone, Copy)]
pub(super) struct Kill {
    /// So many milliseconds after its start.
    pub(super) after: u64,
    pub(super) death: Death,
    /// For so many milliseconds nothing runs.
    pub(super) down: u64,
    /// Somebody sets the wall clock meanwhile, by so many seconds.
    pub(super) step: i64,
    /// The machine boots meanwhile.
    pub(super) boots: bool,
}

#[derive(Debug, Clone)]
pub(super) struct World {
    pub(super) quota: Quota,
    /// The own limits of the clients that have some.
    pub(super) own: Quota,
    pub(super) stories: Vec<Story>,
    /// After this many milliseconds the limits become those.
    pub(super) reload: Option<(u64, Quota)>,
    pub(super) kills: Vec<Kill>,
}

/// What the provider saw of one request, and what we know of it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Seen {
    pub(super) client: usize,
    pub(super) class: Priority,
    pub(super) permitted: Instant,
    /// The provider counted it, with so many tokens.
    pub(super) counted: Instant,
    pub(super) used: u64,
    /// It ran from `permitted` until the provider freed its slot.
    pub(super) freed: Instant,
    /// It was completely written, or given up.
    pub(super) stamped: Instant,
    /// It ended, and its slot has cooled.
    pub(super) ended: Instant,
    pub(super) cooled: Instant,
    /// What we have to take for its tokens.
    pub(super) known: u64,
}

/// What came of a world.
pub(super) struct Lived {
    /// In the order of the permits.
    pub(super) seen: Vec<Seen>,
    pub(super) reloaded: Option<Instant>,
    /// What was used when the last call had ended, and long after that.
    pub(super) usage: (Instant, Usage),
    pub(super) long_after: Usage,
}

/// All that happens in a world, shared by its calls.
struct Chronicle {
    begun: Instant,
    quota: Quota,
    seen: Mutex<Vec<Seen>>,
    /// The stories that are over.
    over: Mutex<Vec<bool>>,
}

/// A process; its end is a kill.
struct Process {
    admission: Admission,
    journal: Journal,
    timer: JoinHandle<()>,
    calls: JoinSet<()>,
    is_dead: Arc<AtomicBool>,
}

/// Writes what the provider saw into the chronicle, also when the call is dropped in the middle.
struct Exchange<'a> {
    permit: Option<Permit>,
    story: &'a Story,
    chronicle: &'a Chronicle,
    is_dead: &'a AtomicBool,
    permitted: Instant,
    stamped: Option<Instant>,
    knows_usage: bool,
    /// The upstream fails it, and perhaps by breaking the connection.
    fails: Option<bool>,
}

impl Exchange<'_> {
    async fn run(mut self) {
        tokio::time::sleep(Duration::from_millis(self.story.writing)).await;
        self.permit.as_mut().unwrap().written();
        self.stamped = Some(time::now());
        tokio::time::sleep(Duration::from_millis(self.story.lasts)).await;
        let mut permit = self.permit.take().unwrap();
        match self.fails {
            None => {
                permit.answered();
                permit.accepted();
            }
            Some(lost) => {
                if lost {
                    permit.lost();
                }
                permit.failed();
            }
        }
        if self.story.tells {
            permit.used(self.used());
            self.knows_usage = true;
        }
        permit.ended();
        let delay = self.chronicle.quota.slot_release_delay;
        self.enter(delay, delay);
    }

    fn used(&self) -> u64 {
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            clippy::cast_precision_loss,
            reason = "small"
        )]
        let used = (self.story.tokens as f64 * self.story.uses) as u64;
        used
    }

    /// `delay`: how long the provider may keep the slot; `cools`: how long we do.
    fn enter(&self, delay: Duration, cools: Duration) {
        let now = time::now();
        let stamped = self.stamped.unwrap_or(now);
        let last = stamped + self.chronicle.quota.window_margin;
        self.chronicle.seen.lock().push(Seen {
            client: self.story.client,
            class: self.story.priority,
            permitted: self.permitted,
            counted: self.permitted + (last - self.permitted).mul_f64(self.story.counts_at),
            used: self.used(),
            freed: now + delay.mul_f64(self.story.frees_at),
            stamped,
            ended: now,
            cooled: now + cools,
            known: if self.knows_usage { self.used() } else { self.story.tokens },
        });
    }
}

impl Drop for Exchange<'_> {
    fn drop(&mut self) {
        if let Some(permit) = self.permit.take() {
            // After a kill this is what the system does to a connection; what the permit does then reaches nobody.
            drop(permit);
            let aborted = self.chronicle.quota.slot_release_delay_aborted;
            let delay = if self.is_dead.load(Ordering::Relaxed) { ORPHAN_HOLD } else { aborted };
            self.enter(delay, aborted);
        }
    }
}

pub(super) fn client(index: usize) -> ClientId {
    if index == 0 { ClientId::Everybody } else { ClientId::Named(format!("client-{index}").into()) }
}

async fn live(story: &Story, chronicle: &Chronicle, admission: &Admission, is_dead: &AtomicBool) {
    tokio::time::sleep_until(chronicle.begun + Duration::from_millis(story.arrives)).await;
    let demand =
        Demand { client: client(story.client), tokens: Estimate::known(story.tokens), ..demand(story.priority) };
    let mut place = admission.place(demand);
    let (mut failures, mut fails) = match story.fate {
        Fate::NoConnection(times) => (times, None),
        Fate::Fails { times, lost } => (0, Some((times, lost))),
        Fate::Ends | Fate::Leaves(_) => (0, None),
    };
    loop {
        let mut permit = match place.permit().await {
            Ok(permit) => permit,
            Err(Refusal::LimitExceeded { .. }) if story.client > 0 => return,
            Err(refusal) => panic!("{refusal:?}"),
        };
        if failures > 0 {
            failures -= 1;
            tokio::time::sleep(Duration::from_millis(story.writing)).await;
            let lane = permit.lane().clone();
            permit.failed();
            drop(permit);
            place.failed(&lane, Blame::Upstream);
            continue;
        }
        permit.writing();
        let permitted = time::now();
        let lane = permit.lane().clone();
        let (permit, stamped, knows_usage) = (Some(permit), None, false);
        let failure = fails.as_mut().filter(|(times, _)| *times > 0).map(|(times, lost)| {
            *times -= 1;
            *lost
        });
        let exchange = Exchange { permit, story, chronicle, is_dead, permitted, stamped, knows_usage, fails: failure };
        exchange.run().await;
        if failure.is_none() {
            return;
        }
        place.failed(&lane, Blame::Upstream);
    }
}

impl Process {
    /// Begins with what is recovered; whoever is not served yet comes at once.
    fn start(world: &World, chronicle: &Arc<Chronicle>, quota: Quota, journal: Journal, recovered: Recovered) -> Self {
        let admission = Admission::remembering(journal.clone(), recovered, BOUNDS);
        configure(&admission, quota, world.own, CLIENTS - 1);
        let timer = tokio::task::spawn(admission.clone().keep_time());
        let (mut calls, is_dead) = (JoinSet::new(), Arc::<AtomicBool>::default());
        for (index, story) in world.stories.iter().enumerate() {
            if chronicle.over.lock()[index] {
                continue;
            }
            let (admission, chronicle, is_dead) = (admission.clone(), Arc::clone(chronicle), Arc::clone(&is_dead));
            let story = story.clone();
            calls.spawn(async move {
                let life = live(&story, &chronicle, &admission, &is_dead);
                match story.fate {
                    Fate::Leaves(after) => {
                        let leaves = chronicle.begun + Duration::from_millis(story.arrives + after);
                        drop(tokio::time::timeout_at(leaves, life).await);
                    }
                    Fate::Ends | Fate::NoConnection(_) | Fate::Fails { .. } => life.await,
                }
                chronicle.over.lock()[index] = true;
            });
        }
        Self { admission, journal, timer, calls, is_dead }
    }

    /// Waits until all have been served.
    async fn serve(&mut self) {
        while let Some(call) = self.calls.join_next().await {
            call.unwrap();
        }
    }

    /// What is on the disk now is all that is left.
    async fn kill(mut self, machine: &mut Machine, death: Death) {
        let now = time::now();
        machine.kill(&self.journal, death);
        self.is_dead.store(true, Ordering::Relaxed);
        self.timer.abort();
        self.calls.abort_all();
        while self.calls.join_next().await.is_some() {}
        assert_eq!(time::now(), now, "a kill takes no time");
    }
}

fn configure(admission: &Admission, quota: Quota, own: Quota, refused: usize) {
    let clients = (1..CLIENTS).map(|index| ClientQuota {
        id: client(index),
        weight: NonZeroU32::MIN,
        quota: own,
        on_limit: if index == refused { OnLimit::Refuse } else { OnLimit::Wait },
    });
    let way = Way { orphan_hold: ORPHAN_HOLD, ..way("up", &["k"], quota) };
    admission.reconfigure(vec![way], clients.collect(), BOUNDS);
}

/// Lives all stories.
async fn live_all(world: &World) -> Lived {
    let chronicle = Arc::new(Chronicle {
        begun: time::now(),
        quota: world.quota,
        seen: Mutex::default(),
        over: Mutex::new(vec![false; world.stories.len()]),
    });
    // Only a journal knows of a kill.
    let mut machine = (!world.kills.is_empty()).then(Machine::new);
    let span = |quota: &Quota| quota.window + quota.window_margin;
    let (mut quota, mut keep, mut reloaded) = (world.quota, span(&world.quota), None);
    let mut kills = world.kills.iter();
    let mut reload = world.reload.map(|(after, quota)| (chronicle.begun + Duration::from_millis(after), quota));
    'processes: loop {
        let (journal, recovered) =
            machine.as_ref().map_or_else(|| (Journal::off(), Recovered::default()), |machine| machine.start(keep));
        let mut process = Process::start(world, &chronicle, quota, journal, recovered);
        let kill = kills.next().map(|kill| (time::now() + Duration::from_millis(kill.after), kill));
        loop {
            tokio::select! {
                biased;
                () = sleep_until(kill.map(|(at, _)| at)) => break,
                () = sleep_until(reload.map(|(at, _)| at)) => {
                    quota = reload.take().map_or(quota, |(_, quota)| quota);
                    keep = keep.max(span(&quota));
                    process.journal.keep(keep);
                    configure(&process.admission, quota, world.own, 1);
                    reloaded = Some(time::now());
                }
                () = process.serve() => {
                    let usage = process.admission.snapshot().lanes[0].1;
                    let ended = time::now();
                    tokio::time::sleep(Duration::from_secs(25 * 3_600) + 2 * span(&quota)).await;
                    let long_after = process.admission.snapshot().lanes[0].1;
                    process.timer.abort();
                    let mut seen = std::mem::take(&mut *chronicle.seen.lock());
                    seen.sort_by_key(|seen| seen.permitted);
                    break 'processes Lived { seen, reloaded, usage: (ended, usage), long_after };
                }
            }
        }
        if let (Some((_, kill)), Some(machine)) = (kill, &mut machine) {
            process.kill(machine, kill.death).await;
            tokio::time::sleep(Duration::from_millis(kill.down)).await;
            if kill.boots {
                machine.boot();
            }
            machine.step(kill.step * 1_000_000_000);
        }
    }
}

/// Lives all stories in a runtime of their own.
pub(super) fn play(world: &World) -> Lived {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    runtime.block_on(live_all(world))
}
