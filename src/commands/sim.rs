//! `tidegate sim`: the strict simulated provider, in the foreground.

use std::io::{self, Write as _};
use std::net::SocketAddr;

use crate::sim::{Continuation, Fault, FaultKind, Latency, Limits, Settings, Sim, Violation};
use crate::time::Duration;
use crate::units::{UnitError, parse_duration};

/// A strict simulated provider: chat completions with and without streaming, embeddings, models, an echo for other paths.
///
/// It judges by its own arrival times and never forgives: `curl /sim/stats` tells what it saw.
#[derive(Debug, Clone, clap::Args)]
#[command(after_help = "Example: 40 requests a minute, 5 at a time, one in twenty resets before it answers:
  tidegate sim --rpm 40 --concurrency 5 --latency 4s --fault reset_before_head=0.05

While it runs:
  curl http://127.0.0.1:9100/sim/stats
  curl -d '{\"requests\": 35, \"concurrency\": 4}' http://127.0.0.1:9100/sim/limits
  curl -d '{\"status_503\": 0.1}' http://127.0.0.1:9100/sim/faults
  curl -d '{\"how\": \"reset\", \"for_ms\": 60000}' http://127.0.0.1:9100/sim/down
It is down in one of four ways: refuse, reset, 503 or hang; {\"how\": null} ends it. \
It keeps its port: what it refuses is a connection that was made, which it resets unread.

A request may wish what happens to it, in an object \"sim\" in its JSON body: latency_ms, chunks (of the text), fault \
(a kind, or \"none\"), fault_after (events, or bytes of a plain body, or messages of a WebSocket), fault_once (a request \
that asks for the same again, or for the rest, meets no fault), reasoning (true) and tool_calls (how many). As headers: \
x-sim-latency-ms, x-sim-fault, x-sim-fault-after, x-sim-fault-once. A model whose name ends with -reasoning always reasons.

Answers are a function of model and prompt, each delta is a token. /v1/completions continues, too: where a \
prompt goes on after its first line with the beginning of the answer to that line, the rest of that answer follows.")]
pub struct Args {
    /// Where to listen; port 0 takes a free one.
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:9100")]
    pub listen: SocketAddr,
    /// Requests allowed in any window; left out: any number.
    #[arg(long, value_name = "N")]
    pub rpm: Option<u32>,
    /// Requests allowed in flight; left out: any number.
    #[arg(long, value_name = "N")]
    pub concurrency: Option<u32>,
    /// Tokens allowed in any window, prompts and answers together; left out: any number.
    #[arg(long, value_name = "N")]
    pub tpm: Option<u32>,
    /// The length of the sliding window.
    #[arg(long, value_name = "DURATION", default_value = "60s", value_parser = duration)]
    pub window: Duration,
    /// Give each `Authorization` value limits of its own.
    #[arg(long)]
    pub per_key: bool,
    /// The mean duration of an exchange.
    #[arg(long, value_name = "DURATION", default_value = "1s", value_parser = duration)]
    pub latency: Duration,
    /// How far a duration may be from the mean, as a share of it.
    #[arg(long, value_name = "SHARE", default_value_t = 0.8, value_parser = share)]
    pub latency_spread: f64,
    /// Count a request up to this much later than it came.
    #[arg(long, value_name = "DURATION", default_value = "0s", value_parser = duration)]
    pub arrival_jitter: Duration,
    /// How much longer the slot of a client that hung up stays taken.
    #[arg(long, value_name = "DURATION", default_value = "0s", value_parser = duration)]
    pub disconnect_lag: Duration,
    /// What a request over a limit gets: 1006 (a reset), 429 or 404.
    #[arg(long, value_name = "ANSWER", default_value = "1006")]
    pub on_violation: Violation,
    /// How long everything is refused after a violation.
    #[arg(long, value_name = "DURATION", default_value = "10s", value_parser = duration)]
    pub penalty: Duration,
    /// What goes wrong, and with which share of the requests; repeatable.
    #[arg(long = "fault", value_name = "KIND=RATE", help = fault_help())]
    pub faults: Vec<Fault>,
    /// Which requests to continue a partial answer are understood: any, vllm (continue_final_message), prefix (DeepSeek's),
    /// prefix_echo (Mistral's, which repeats the partial answer), or off (400).
    #[arg(long, value_name = "STYLE", default_value = "any")]
    pub continuation: Continuation,
    /// Decides jitter, latency and faults.
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub seed: u64,
}

impl From<Args> for Settings {
    fn from(args: Args) -> Self {
        Self {
            listen: args.listen,
            limits: Limits { requests: args.rpm, concurrency: args.concurrency, tokens: args.tpm, window: args.window },
            per_key: args.per_key,
            latency: Latency { mean: args.latency, spread: args.latency_spread },
            arrival_jitter: args.arrival_jitter,
            disconnect_lag: args.disconnect_lag,
            on_violation: args.on_violation,
            penalty: args.penalty,
            faults: args.faults,
            continuation: args.continuation,
            seed: args.seed,
        }
    }
}

/// Runs the provider until ctrl-c. Dropping the future stops it.
///
/// # Errors
/// When it cannot listen, or standard output is closed.
pub async fn run(args: Args) -> io::Result<()> {
    let sim = Sim::start(args.into()).await?;
    let addr = sim.addr();
    writeln!(io::stdout(), "simulated provider at {}; what it saw: curl http://{addr}/sim/stats", sim.base_url())?;
    tokio::signal::ctrl_c().await?;
    sim.stop().await;
    Ok(())
}

fn fault_help() -> String {
    let kinds = FaultKind::names();
    format!("What goes wrong, and with which share of the requests; repeatable. Kinds: {kinds}")
}

fn duration(text: &str) -> Result<Duration, UnitError> {
    parse_duration(text)
}

fn share(text: &str) -> Result<f64, String> {
    let share = text.parse().ok().filter(|share| (0.0..=1.0).contains(share));
    share.ok_or_else(|| format!("expected a share from 0 to 1, found {text:?}"))
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;

    #[derive(clap::Parser)]
    struct Command {
        #[command(flatten)]
        args: Args,
    }

    #[test]
    fn flags_become_settings() {
        let line =
            "sim --rpm 40 --concurrency 5 --window 10s --on-violation 429 --fault stall=0.1 --fault status_500=0.2";
        let settings: Settings = Command::try_parse_from(line.split(' ')).expect("valid").args.into();
        assert_eq!(settings.limits.requests, Some(40));
        assert_eq!(settings.limits.window, Duration::from_secs(10));
        assert_eq!(settings.on_violation, Violation::TooMany);
        assert_eq!(settings.faults[1], Fault { kind: FaultKind::Status500, rate: 0.2 });
    }

    #[test]
    fn mistakes_in_flags_are_told() {
        for line in [
            "sim --window 10",
            "sim --on-violation 500",
            "sim --fault nap=1",
            "sim --latency-spread 2",
            "sim --continuation yes",
        ] {
            assert!(Command::try_parse_from(line.split(' ')).is_err(), "{line}");
        }
    }
}
