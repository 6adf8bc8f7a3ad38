//! A provider that does as it is told, a proxy in this process, a client that shows the bytes as they came.
#![expect(clippy::redundant_pub_crate, reason = "helpers of every module of this binary")]

pub(crate) mod client;
pub(crate) mod frames;
pub(crate) mod http2;
pub(crate) mod http2_client;
pub(crate) mod pace;
pub(crate) mod process;
pub(crate) mod proxy;
pub(crate) mod tls;
pub(crate) mod upstream;
pub(crate) mod wire;

use std::time::Duration;

pub(crate) use client::{Client, get, post};
pub(crate) use pace::{Pace, within};
pub(crate) use proxy::{Proxy, proxy};
pub(crate) use upstream::{Line, Step, Upstream};

/// Longer than anything takes that works, on a machine that has others to serve, too.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

pub(crate) fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

/// Waits for what must happen; says what did not.
pub(crate) async fn soon<T>(what: &str, happens: impl Future<Output = T>) -> T {
    within(PATIENCE, what, happens).await
}

/// Asks until it is so; for state that sends no signal.
pub(crate) async fn eventually(what: &str, mut is_so: impl FnMut() -> bool) {
    soon(what, async {
        while !is_so() {
            tokio::time::sleep(ms(5)).await;
        }
    })
    .await;
}
