//! What a process needs has to stay what it is: memory, sockets and tasks of the last quarter beside those of the second.

use std::fs;
use std::path::Path;

use serde_json::json;
use tidegate::sim::swarm::Came;

use super::figures::{Change, Figures, change};
use super::period;
use super::stage::Evidence;
use super::story::Story;

/// What an allocator keeps for itself now and does not some minutes later: a leak of 2 KB in each call of ten minutes, or
/// of one buffer in every tenth, is more than this.
const MEMORY_GROWS_MAX: f64 = 0.03;
/// How many more exchanges may be under way in one quarter than in the other: each has a connection, and two tasks.
const EXCHANGES: f64 = 5.0;

pub(super) fn judge(figures: &[Figures]) {
    let [memory, descriptors, tasks] = changes(figures);
    assert!(memory.after.0 <= memory.before.0 * (1.0 + MEMORY_GROWS_MAX), "memory: {memory:?}");
    assert!(descriptors.after.0 <= descriptors.before.0 + EXCHANGES, "descriptors: {descriptors:?}");
    assert!(descriptors.after.1 <= descriptors.before.1 + EXCHANGES, "descriptors: {descriptors:?}");
    assert!(tasks.after.0 <= tasks.before.0 + 2.0 * EXCHANGES, "tasks: {tasks:?}");
    assert!(tasks.after.1 <= tasks.before.1 + 2.0 * EXCHANGES, "tasks: {tasks:?}");
}

pub(super) fn report(figures: &[Figures]) {
    let [memory, descriptors, tasks] = changes(figures);
    println!("looked at {} times; median and most of the second quarter, then of the last:", figures.len());
    println!("memory {memory:?}, descriptors {descriptors:?}, tasks {tasks:?}");
}

fn changes(figures: &[Figures]) -> [Change; 3] {
    [
        change(figures, |figures| figures.resident_bytes),
        change(figures, |figures| figures.descriptors),
        change(figures, |figures| figures.tasks),
    ]
}

/// Writes all of it into `file`.
pub(super) fn record(story: &Story, evidence: &Evidence, file: &Path) {
    let Evidence { stats, stayed, metrics, figures, .. } = evidence;
    let outcomes = stayed.groups.iter().map(|group| {
        let outcomes: Vec<_> = group.outcomes.iter().map(|(outcome, count)| (outcome.to_string(), count)).collect();
        json!({ "name": group.name, "outcomes": outcomes, "total_ms_p50": group.total_ms.p50, "total_ms_max": group.total_ms.max })
    });
    let [memory, descriptors, tasks] = changes(figures);
    let record = json!({
        "seconds": story.lasts.as_secs_f64(),
        "workers": story.workers.iter().map(|workers| workers.count).sum::<usize>(),
        "counted": stats.counted,
        "violations": stats.violations.total(),
        "window_max": stats.window_max,
        "in_flight_max": stats.in_flight_max,
        "rate_used": evidence.rate_used(story, period(story)),
        "faults": stats.faults,
        "answered": stayed.ok(),
        "lies": stayed.lies(),
        "errors": evidence.errors().len(),
        "streams": {
            "continued": metrics.continued("ok"), "not_continued": metrics.continued("failed"),
            "broken_in_reasoning": evidence.broken_in(Came::Reasoning),
            "without_usage": evidence.without_usage(),
        },
        "silences": { "of_the_provider": evidence.stalled(story), "timed_out": evidence.timed_out() },
        "groups": outcomes.collect::<Vec<_>>(),
        "second_quarter_and_last": { "resident_bytes": memory, "descriptors": descriptors, "tasks": tasks },
        "figures_each_minute": figures.iter().step_by(12).collect::<Vec<_>>(),
    });
    fs::create_dir_all(file.parent().expect("a folder")).expect("a folder");
    fs::write(file, format!("{record:#}\n")).expect("writable");
}
