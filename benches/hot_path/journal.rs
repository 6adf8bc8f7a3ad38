//! What it costs a call to be remembered.

use std::fs::File;
use std::io::Write;

use criterion::Criterion;
use tidegate::ids::{KeyId, LaneId};
use tidegate::limits::journal::Journal;
use tidegate::time::Duration;

/// A request is about to leave, is written, has ended: the three records of a call. Naively each is a line and a
/// `write(2)` of its own. Neither waits for the disk.
pub(crate) fn benches(criterion: &mut Criterion) {
    let dir = tempfile::tempdir().unwrap();
    let lane = LaneId { upstream: "provider".into(), key: KeyId::of("key") };
    let mut group = criterion.benchmark_group("journal/call");
    let (journal, _) = Journal::open(&dir.path().join("state"), Duration::from_secs(61)).unwrap();
    let ours = |journal: &Journal| {
        let entry = journal.writing(&lane, 1_000);
        journal.written(&entry);
        journal.ended(entry, Some(900), Duration::from_millis(50));
    };
    group.bench_function("records", |bench| bench.iter(|| ours(&journal)));
    group.bench_function("off", |bench| bench.iter(|| ours(&Journal::off())));
    let mut file = File::create(dir.path().join("naive")).unwrap();
    group.bench_function("naive", |bench| {
        bench.iter(|| {
            for what in ["writing", "written", "ended"] {
                let line = format!("{what} {} {} 1000\n", lane.upstream, lane.key);
                file.write_all(line.as_bytes()).unwrap();
            }
        });
    });
    group.finish();
}
