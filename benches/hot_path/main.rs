//! What a call costs in the rooms it passes, one module a room. A naive baseline stands beside ours, in the same run:
//! ratios count, absolute times are the machine's.
#![expect(clippy::unwrap_used, reason = "a bench may stop where it stands")]

mod admission;
mod clients;
mod crowd;
mod journal;
mod metrics;
mod openai;

use criterion::{criterion_group, criterion_main};

criterion_group!(
    hot_path,
    admission::benches,
    crowd::benches,
    clients::benches,
    openai::benches,
    metrics::benches,
    journal::benches
);
criterion_main!(hot_path);
