mod disk;
mod properties;
mod threads;

use super::clock::{BootId, Moment};
use super::*;
use crate::ids::KeyId;

use std::os::unix::fs::MetadataExt;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

use crate::time;

const SECOND: i64 = 1_000_000_000;
const KEEP: Duration = Duration::from_secs(61);

/// A clock that goes only when told to.
#[derive(Debug)]
struct Hands {
    boot: AtomicI64,
    wall: AtomicI64,
    boot_id: AtomicU64,
}

impl Hands {
    fn new() -> Arc<Self> {
        let (boot, wall) = (AtomicI64::new(100 * SECOND), AtomicI64::new(1_700_000_000 * SECOND));
        Arc::new(Self { boot, wall, boot_id: AtomicU64::new(1) })
    }

    fn pass(&self, nanos: i64) {
        self.boot.fetch_add(nanos, Ordering::SeqCst);
        self.step(nanos);
    }

    /// Somebody sets the wall clock.
    fn step(&self, nanos: i64) {
        self.wall.fetch_add(nanos, Ordering::SeqCst);
    }

    /// The machine boots, which takes a while.
    fn reboot(&self, takes: i64) {
        self.step(takes);
        self.boot.store(3 * SECOND, Ordering::SeqCst);
        self.boot_id.fetch_add(1, Ordering::SeqCst);
    }

    fn now(&self) -> i64 {
        self.boot.load(Ordering::SeqCst)
    }
}

impl Clock for Hands {
    fn moment(&self) -> Moment {
        Moment { boot: self.now(), wall: self.wall.load(Ordering::SeqCst) }
    }

    fn boot_id(&self) -> BootId {
        BootId(self.boot_id.load(Ordering::SeqCst).into())
    }
}

fn lane(name: &str) -> LaneId {
    LaneId { upstream: name.into(), key: KeyId::of(name) }
}

impl Journal {
    fn writer(&self) -> &Writer {
        &self.0.as_ref().expect("a journal that is on").writer
    }
}

/// What somebody who starts after a kill at this moment finds: nothing in it is released or closed by us.
fn killed(journal: &Journal, dir: &Path) -> tempfile::TempDir {
    journal.writer().flush_now();
    copied(&std::fs::read(dir.join("journal")).unwrap())
}

fn copied(bytes: &[u8]) -> tempfile::TempDir {
    let other = tempfile::tempdir().unwrap();
    std::fs::write(other.path().join("journal"), bytes).unwrap();
    other
}

fn reopen(dir: &Path, clock: &Arc<Hands>) -> (Journal, Recovered) {
    Journal::open_at(dir, KEEP, Arc::clone(clock) as Arc<dyn Clock>).unwrap()
}

/// Seconds ago and requests, of a lane.
fn ages(recovered: &Recovered, name: &str) -> Vec<(u64, u32)> {
    let now = time::now();
    let lane = recovered.lanes.iter().find(|found| found.id == lane(name)).expect("the lane is remembered");
    // The real clock went on a little since.
    lane.spent.iter().map(|spent| ((now - spent.at).as_secs(), spent.requests)).collect()
}

#[test]
fn what_was_sent_is_known_after_a_kill() {
    let (dir, clock) = (tempfile::tempdir().unwrap(), Hands::new());
    let (journal, found) = reopen(dir.path(), &clock);
    assert_eq!(found, Recovered::default());
    let done = journal.writing(&lane("a"), 100);
    journal.written(&done);
    clock.pass(10 * SECOND);
    journal.ended(done, Some(40), Duration::from_secs(7));
    let running = journal.writing(&lane("a"), 5);
    journal.written(&running);
    let nothing = journal.writing(&lane("a"), 6);
    journal.refunded(nothing);
    let half = journal.writing(&lane("b"), 7);
    journal.learned(&lane("b"), b"first");
    journal.learned(&lane("b"), b"last");
    clock.pass(5 * SECOND);
    let copy = killed(&journal, dir.path());
    let (_again, found) = reopen(copy.path(), &clock);
    assert_eq!(found.unknown_until, None);
    assert_eq!(ages(&found, "a"), [(15, 1), (5, 1)]);
    assert_eq!(ages(&found, "b"), [(0, 1)], "not known to be written: it counts from the restart");
    let [a, b] = &found.lanes[..] else { panic!("{found:?}") };
    assert_eq!(a.spent.iter().map(|spent| spent.tokens).collect::<Vec<_>>(), [40, 5]);
    assert_eq!((b.spent[0].tokens, b.learned.as_deref()), (7, Some(&b"last"[..])));
    assert_eq!([a.orphans[0].slots, b.orphans[0].slots], [1, 1]);
    let cools = a.cooling[0] - time::now();
    assert!(a.cooling.len() == 1 && cools > Duration::from_secs(1) && cools < Duration::from_secs(3), "{cools:?}");
    drop((running, half));
}

#[test]
fn orphans_are_held_from_the_first_restart_also_after_the_next() {
    let (dir, clock) = (tempfile::tempdir().unwrap(), Hands::new());
    let (journal, _) = reopen(dir.path(), &clock);
    let _running = journal.writing(&lane("a"), 0);
    let copy = killed(&journal, dir.path());
    let (again, first) = reopen(copy.path(), &clock);
    clock.pass(4 * SECOND);
    let copy = killed(&again, copy.path());
    let (_third, second) = reopen(copy.path(), &clock);
    assert_eq!((first.lanes[0].orphans[0].slots, second.lanes[0].orphans.len()), (1, 1));
    assert_eq!(second.lanes[0].orphans[0].since.elapsed().as_secs(), 4);
    assert_eq!(ages(&second, "a"), [(4, 1)], "counted once");
}

#[test]
fn clock_steps_change_nothing_on_the_same_boot() {
    for step in [-90_000 * SECOND, 90_000 * SECOND] {
        let (dir, clock) = (tempfile::tempdir().unwrap(), Hands::new());
        let (journal, _) = reopen(dir.path(), &clock);
        let entry = journal.writing(&lane("a"), 0);
        journal.ended(entry, None, Duration::ZERO);
        clock.step(step);
        clock.pass(20 * SECOND);
        let copy = killed(&journal, dir.path());
        let (_again, found) = reopen(copy.path(), &clock);
        assert_eq!((ages(&found, "a"), found.unknown_until), (vec![(20, 1)], None));
    }
}

#[test]
fn after_another_boot_the_wall_clock_tells_but_never_makes_a_stamp_younger_than_now() {
    for (booting, age) in [(30 * SECOND, 40), (-3_600 * SECOND, 10)] {
        let (dir, clock) = (tempfile::tempdir().unwrap(), Hands::new());
        let (journal, _) = reopen(dir.path(), &clock);
        let entry = journal.writing(&lane("a"), 0);
        journal.ended(entry, None, Duration::ZERO);
        // A step before the last record is no step between then and now.
        clock.step(7_200 * SECOND);
        clock.pass(10 * SECOND);
        journal.close();
        clock.reboot(booting);
        let copy = copied(&std::fs::read(dir.path().join("journal")).unwrap());
        let (_again, found) = reopen(copy.path(), &clock);
        assert_eq!((ages(&found, "a"), found.unknown_until), (vec![(age, 1)], None));
    }
}

#[test]
fn after_a_power_failure_every_window_is_full_also_after_a_kill() {
    let (dir, clock) = (tempfile::tempdir().unwrap(), Hands::new());
    let (journal, _) = reopen(dir.path(), &clock);
    let copy = killed(&journal, dir.path());
    clock.reboot(30 * SECOND);
    let (again, found) = reopen(copy.path(), &clock);
    assert_eq!(found.unknown_until.expect("unknown").elapsed().as_secs(), 0);
    clock.pass(8 * SECOND);
    let copy = killed(&again, copy.path());
    let (_third, found) = reopen(copy.path(), &clock);
    assert_eq!(found.unknown_until.expect("still unknown").elapsed().as_secs(), 8);
}

#[test]
fn damage_in_the_middle_makes_windows_full_and_what_is_behind_it_counts() {
    let (dir, clock) = (tempfile::tempdir().unwrap(), Hands::new());
    let (journal, _) = reopen(dir.path(), &clock);
    let mut ends = Vec::new();
    for _ in 0..3 {
        let entry = journal.writing(&lane("a"), 1);
        journal.ended(entry, None, Duration::ZERO);
        clock.pass(SECOND);
        ends.push(usize::try_from(journal.writer().flush_now()).unwrap());
    }
    let mut bytes = std::fs::read(dir.path().join("journal")).unwrap();
    bytes[ends[0] + 3..ends[0] + 30].fill(0xab);
    let (_again, found) = reopen(copied(&bytes).path(), &clock);
    assert!(found.unknown_until.is_some());
    assert_eq!(found.lanes[0].spent.len(), 3, "the second ended, so it had begun");
}

#[test]
fn a_day_is_remembered_by_the_minute() {
    let (dir, clock) = (tempfile::tempdir().unwrap(), Hands::new());
    let (journal, _) = reopen(dir.path(), &clock);
    for _ in 0..300 {
        let entry = journal.writing(&lane("a"), 1);
        journal.ended(entry, None, Duration::ZERO);
        clock.pass(SECOND);
    }
    clock.pass(86_400 * SECOND - 250 * SECOND);
    journal.writer().write_anew();
    let copy = killed(&journal, dir.path());
    let (_again, found) = reopen(copy.path(), &clock);
    let spent = &found.lanes[0].spent;
    let requests: u32 = spent.iter().map(|spent| spent.requests).sum();
    assert!(spent.len() <= 6 && (250..=250 + 60).contains(&requests), "{spent:?}");
}

#[test]
fn lanes_are_bounded_and_the_longest_unused_go_first() {
    let mut ledger = Ledger::new(nanos(KEEP));
    for lane in 1..=20_100_u32 {
        let at = i64::from(lane);
        ledger.apply(at, &Record::Lane { lane, key: lane.into(), upstream: "up" });
        ledger.apply(at, &Record::Spent { lane, at, requests: 1, tokens: 0 });
    }
    ledger.apply(0, &Record::Writing { entry: 1, lane: 1, tokens: 0 });
    ledger.forget(nanos(KEEP) + 30_000);
    let keys: Vec<_> = ledger.lanes().map(|lane| lane.id.key.bits()).collect();
    assert_eq!((keys.len(), keys[0], keys[1]), (20_000, 1, 102), "the first runs");
}

#[test]
fn writing_anew_changes_nothing_and_shortens_the_file() {
    let (dir, clock) = (tempfile::tempdir().unwrap(), Hands::new());
    let (journal, _) = reopen(dir.path(), &clock);
    for second in 0..200_i64 {
        let entry = journal.writing(&lane(if second % 3 == 0 { "a" } else { "b" }), 9);
        journal.written(&entry);
        clock.pass(SECOND);
        if second < 195 {
            journal.ended(entry, (second % 2 == 0).then_some(4), Duration::from_secs(2));
        }
    }
    journal.learned(&lane("b"), b"{}");
    let before = killed(&journal, dir.path());
    let long = journal.writer().flush_now();
    journal.writer().write_anew();
    assert!(journal.writer().flush_now() < long);
    let after = killed(&journal, dir.path());
    let read = |dir: &Path| {
        let ledger =
            recovered::read(&std::fs::read(dir.join("journal")).unwrap(), "j".into(), nanos(KEEP), &*clock).unwrap();
        let mut bytes = Vec::new();
        ledger.write(&mut bytes, clock.moment());
        bytes
    };
    assert_eq!(read(before.path()), read(after.path()));
}

#[test]
fn the_thread_writes_anew_what_has_grown_while_calls_go_on() {
    let dir = tempfile::tempdir().unwrap();
    let (journal, _) = Journal::open(dir.path(), Duration::from_millis(1)).unwrap();
    let blob = vec![b' '; 60 << 10];
    let inode = || std::fs::metadata(dir.path().join("journal")).unwrap().ino();
    let first = inode();
    let start = time::now();
    let mut sent = 0_u32;
    while inode() == first {
        assert!(start.elapsed() < Duration::from_secs(20), "it grows for ever");
        journal.learned(&lane("a"), &blob);
        let entry = journal.writing(&lane("a"), 1);
        journal.ended(entry, None, Duration::ZERO);
        sent += 1;
    }
    let copy = killed(&journal, dir.path());
    let (_again, found) = Journal::open(copy.path(), KEEP).unwrap();
    let requests: u32 = found.lanes[0].spent.iter().map(|spent| spent.requests).sum();
    assert_eq!((requests, found.lanes[0].learned.as_ref().map(Vec::len)), (sent, Some(blob.len())));
}

#[test]
fn what_nobody_waits_for_is_in_the_file_soon() {
    let dir = tempfile::tempdir().unwrap();
    let (journal, _) = Journal::open(dir.path(), KEEP).unwrap();
    let entry = journal.writing(&lane("a"), 1);
    let length = || std::fs::metadata(dir.path().join("journal")).unwrap().len();
    let writing = length();
    journal.ended(entry, None, Duration::ZERO);
    let start = time::now();
    while length() == writing {
        assert!(start.elapsed() < Duration::from_secs(10), "never written");
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// A property test found it: a kill before the end was written left the reservation, which was too little.
#[test]
fn tokens_beyond_the_reservation_are_written_at_once() {
    let (dir, clock) = (tempfile::tempdir().unwrap(), Hands::new());
    let (journal, _) = reopen(dir.path(), &clock);
    let entry = journal.writing(&lane("a"), 10);
    journal.ended(entry, Some(50), Duration::ZERO);
    let copy = copied(&std::fs::read(dir.path().join("journal")).unwrap());
    let (_again, found) = reopen(copy.path(), &clock);
    assert_eq!(found.lanes[0].spent[0].tokens, 50);
}

#[test]
fn off_remembers_nothing() {
    let journal = Journal::off();
    let entry = journal.writing(&lane("a"), 1);
    journal.written(&entry);
    journal.ended(entry, None, Duration::ZERO);
    journal.learned(&lane("a"), b"{}");
    journal.close();
    assert!(!journal.is_failing());
}
