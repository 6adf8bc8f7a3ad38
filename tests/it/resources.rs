//! What one client can take of the process, and what is left to the others.

mod bounds;
mod idle;
mod large;
mod provider;
mod slow;

use std::path::PathBuf;
use std::time::Duration;

use tempfile::TempDir;

use self::provider::{Noise, Provider};
use crate::support::process::{Process, tidegate};
use crate::support::proxy::metric;
use crate::support::{Client, ms, post, within};

const MIB: u64 = 1 << 20;

/// A file of settings.
struct House(TempDir);

impl House {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    /// Writes the file, with what is asked for under `[server]` and behind it.
    fn write(&self, upstream: &str, server: &str, more: &str) -> PathBuf {
        let (config, state) = (self.0.path().join("tidegate.toml"), self.0.path().join("state"));
        let text = format!(
            "[server]\nlisten = \"127.0.0.1:0\"\nadmin_listen = \"127.0.0.1:0\"\nstate_dir = {state:?}\n{server}\n\
             [telemetry]\nformat = \"json\"\nlog = \"warn,tidegate::commands=info\"\n\
             [[upstreams]]\nname = \"provider\"\nbase_url = {upstream:?}\n{more}\n",
        );
        std::fs::write(&config, text).unwrap();
        config
    }

    /// The process, under a limit of the shell, such as `ulimit -n 64`.
    async fn serve_under(&self, limit: &str, upstream: &str, server: &str, more: &str) -> Process {
        let config = self.write(upstream, server, more);
        let direct = tidegate(&["serve", "--config", config.to_str().unwrap()]);
        let mut command = std::process::Command::new("bash");
        command.args(["-c", &format!("{limit}; exec \"$0\" \"$@\"")]).arg(direct.get_program()).args(direct.get_args());
        command.stdin(std::process::Stdio::null());
        command.stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::piped());
        Process::spawn(command).await
    }

    async fn serve(&self, upstream: &str, server: &str, more: &str) -> Process {
        Process::serve(&self.write(upstream, server, more)).await
    }
}

/// A figure of `/proc/PID/status` in bytes, such as `VmRSS`.
fn memory(process: &Process, figure: &str) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", process.id())).expect("it lives");
    let line = status.lines().find(|line| line.starts_with(figure)).expect("a figure");
    line.split_whitespace().nth(1).expect("a number").parse::<u64>().expect("a number") << 10
}

/// The processor time that the process has used.
fn processor_time(process: &Process) -> Duration {
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", process.id())).expect("it lives");
    let (_, fields) = stat.rsplit_once(')').expect("the name");
    let ticks = fields.split_whitespace().skip(11).take(2).map(|field| field.parse::<u64>().expect("ticks"));
    ms(ticks.sum::<u64>() * 10)
}

/// A call of somebody else, who must not notice anything.
async fn other_is_served(process: &Process) {
    let asked = async { Client::to(process.clients).await.ask(post(r#"{"model":"m"}"#)).await };
    let answer = within(ms(5_000), "another is served", asked).await;
    assert_eq!(answer.status(), 200, "{}", answer.text());
}

/// Others come one after the other for as long as `meanwhile` goes on; at least one of them.
async fn served_all_along<T>(process: &Process, meanwhile: impl Future<Output = T>) -> T {
    let mut meanwhile = std::pin::pin!(meanwhile);
    loop {
        other_is_served(process).await;
        tokio::select! {
            biased;
            happened = &mut meanwhile => return happened,
            () = tokio::time::sleep(ms(20)) => {}
        }
    }
}

/// Shows a figure to whoever runs the test with `--no-capture`.
#[expect(clippy::print_stdout, reason = "figures that are reported, not asserted")]
fn tell(figure: impl std::fmt::Display) {
    println!("{figure}");
}

/// The limit of open files that `PID`, or `self`, has.
fn descriptors(process: &str) -> usize {
    let limits = std::fs::read_to_string(format!("/proc/{process}/limits")).expect("it lives");
    let line = limits.lines().find(|line| line.starts_with("Max open files")).expect("a limit");
    line.split_whitespace().nth(3).expect("the soft one").parse().unwrap_or(usize::MAX)
}

/// Waits until the process has no connection of a client any more.
async fn until_all_are_gone(process: &Process) {
    within(ms(20_000), "all are gone", async {
        while metric(process.admin, "tidegate_connections").await > 0.5 {
            tokio::time::sleep(ms(20)).await;
        }
    })
    .await;
}
