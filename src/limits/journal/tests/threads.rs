//! Several at a time, as calls are.

use std::thread;

use super::super::writer::WRITE_MAX;
use super::*;

const CALLERS: u32 = 4;
const BLOB: usize = 60 << 10;

fn requests_of(found: &Recovered, name: &str) -> u32 {
    let lane = found.lanes.iter().find(|found| found.id == lane(name));
    lane.map_or(0, |lane| lane.spent.iter().map(|spent| spent.requests).sum())
}

/// The file grows and is written anew meanwhile, many times.
#[test]
fn whatever_others_do_a_request_is_in_the_file_before_it_leaves() {
    let dir = tempfile::tempdir().unwrap();
    let (journal, _) = Journal::open(dir.path(), KEEP).unwrap();
    let calls = |caller: u32| {
        let (name, blob) = (format!("caller {caller}"), vec![b' '; BLOB]);
        for sent in 1..=200 {
            let entry = journal.writing(&lane(&name), 1);
            if sent % 25 == 0 {
                let copy = copied(&std::fs::read(dir.path().join("journal")).unwrap());
                let (_again, found) = Journal::open(copy.path(), KEEP).unwrap();
                assert_eq!((requests_of(&found, &name), found.unknown_until), (sent, None));
            }
            journal.written(&entry);
            journal.learned(&lane(&name), &blob);
            journal.ended(entry, None, Duration::ZERO);
        }
    };
    let first = std::fs::metadata(dir.path().join("journal")).unwrap().ino();
    thread::scope(|scope| {
        for caller in 0..CALLERS {
            scope.spawn(move || calls(caller));
        }
    });
    assert_ne!(std::fs::metadata(dir.path().join("journal")).unwrap().ino(), first, "it was written anew");
    let copy = killed(&journal, dir.path());
    let (_again, found) = Journal::open(copy.path(), KEEP).unwrap();
    let all: Vec<u32> = (0..CALLERS).map(|caller| requests_of(&found, &format!("caller {caller}"))).collect();
    assert_eq!((all, found.unknown_until), (vec![200; CALLERS as usize], None));
    assert!(
        found.lanes.iter().all(|lane| lane.learned.as_ref().map(Vec::len) == Some(BLOB) && lane.orphans.is_empty())
    );
}

#[test]
fn while_the_disk_stalls_notes_return_and_what_piles_up_is_written_then() {
    let dir = tempfile::tempdir().unwrap();
    let (journal, _) = Journal::open(dir.path(), KEEP).unwrap();
    let entry = journal.writing(&lane("a"), 1);
    let blob = vec![b' '; BLOB];
    thread::scope(|scope| {
        let stalled = journal.writer().stall();
        journal.written(&entry);
        journal.ended(entry, None, Duration::ZERO);
        let leaving = scope.spawn(|| journal.writing(&lane("a"), 1));
        for number in 0..2 * WRITE_MAX / BLOB {
            let (journal, blob) = (&journal, &blob);
            scope.spawn(move || journal.learned(&lane(&format!("lane {number}")), blob));
        }
        while journal.writer().waiting() < WRITE_MAX + BLOB {
            thread::yield_now();
        }
        assert!(!leaving.is_finished(), "it is not in the file yet");
        drop(stalled);
        journal.refunded(leaving.join().unwrap());
    });
    let copy = killed(&journal, dir.path());
    let (_again, found) = Journal::open(copy.path(), KEEP).unwrap();
    let learned = found.lanes.iter().filter(|lane| lane.learned.as_ref().map(Vec::len) == Some(BLOB)).count();
    assert_eq!((requests_of(&found, "a"), learned, found.unknown_until), (1, 2 * WRITE_MAX / BLOB, None));
}
