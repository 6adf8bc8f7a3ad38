//! `tidegate demo`: what happens to a strict provider and its clients without tidegate, and behind it.
//!
//! Everything runs in this process over loopback. `plan` says what is played, `play` plays one side, `measure` turns what
//! the provider and the workers saw into figures; `view` shows them while they come, `table` at the end, and `record`
//! writes them down, with a `plot`. Every figure shown is measured; the only thing decided beforehand is the plan.

mod measure;
mod plan;
mod play;
mod plot;
mod record;
pub mod svg;
mod table;
mod view;

use std::io::{self, Write as _};
use std::num::NonZeroU32;
use std::path::PathBuf;
use std::process::ExitCode;

use tokio::signal::unix::{SignalKind, signal};

use crate::time::Duration;
use crate::units::parse_duration;
use measure::Side;
use plan::Plan;
use record::Record;
use view::View;

/// See it work: a strict provider and a crowd of workers, first without tidegate, then behind it
///
/// Needs no key and no network. Exits with 0 when behind tidegate the provider saw no violation and no client an error.
#[derive(Debug, Clone, clap::Args)]
#[command(after_help = "Examples:
  tidegate demo
  tidegate demo --rpm 40 --window 60s --concurrency 5 --seconds 120 --record demo.json

The provider is the one of `tidegate sim`: it resets the connection of a request too many, counts it all the same, and
then refuses everybody for a third of a window. Answers take so long that at the full rate seven of ten slots are busy.
Two people chat (class high) and a crowd of workers asks without end (class low). A worker whose call failed asks again
after 1 to 3 s, much as SDKs do; its wait lasts until it has an answer. With --record demo.json, demo.svg beside it is a
picture of both sides.")]
pub struct Args {
    /// How long the workers ask, for each side; what they are still waiting for then is waited for
    #[arg(long, value_name = "N", default_value_t = 25, value_parser = clap::value_parser!(u32).range(1..=3600))]
    seconds: u32,
    /// How many requests the provider allows in one window
    #[arg(long, value_name = "N", default_value = "30")]
    rpm: NonZeroU32,
    /// The period in which it counts
    #[arg(long, value_name = "DURATION", default_value = "15s", value_parser = parse_duration)]
    window: Duration,
    /// How many requests it allows at a time
    #[arg(long, value_name = "N", default_value = "5")]
    concurrency: NonZeroU32,
    /// How many workers ask without end, beside the two people who chat
    #[arg(long, value_name = "N", default_value_t = 30, value_parser = clap::value_parser!(u16).range(1..=400))]
    workers: u16,
    /// Decides latencies, jitter and pauses
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u64,
    /// Write the figures here as JSON, and a picture of them beside it as .svg
    #[arg(long, value_name = "FILE")]
    record: Option<PathBuf>,
}

/// The exit code of a process that an interrupt ended, as shells count it.
const INTERRUPTED: u8 = 130;

/// Plays both sides and tells what came of it. Dropping the future stops everything.
///
/// # Errors
/// When no port can be had, or standard output is closed.
pub async fn run(args: Args) -> io::Result<ExitCode> {
    let planned = Plan::try_from(&args).and_then(|plan| Ok((plan, args.record.map(Record::new).transpose()?)));
    let (plan, record) = match planned {
        Ok(planned) => planned,
        Err(mistake) => {
            writeln!(io::stderr(), "tidegate: {mistake}")?;
            return Ok(ExitCode::FAILURE);
        }
    };
    let mut terminate = signal(SignalKind::terminate())?;
    tokio::select! {
        shown = show(&plan, record) => shown,
        interrupted = tokio::signal::ctrl_c() => interrupted.map(|()| INTERRUPTED.into()),
        _ = terminate.recv() => Ok(INTERRUPTED.into()),
    }
}

async fn show(plan: &Plan, record: Option<Record>) -> io::Result<ExitCode> {
    let mut view = View::open(plan)?;
    let without = play::without_tidegate(plan, &mut view).await?;
    let behind = play::behind_tidegate(plan, &mut view).await?;
    view.close()?;
    let held = holds(&behind);
    let mut out = io::stdout().lock();
    table::print(&mut out, plan, &without, &behind)?;
    if let Some(record) = record {
        record.write(plan, [&without, &behind])?;
        writeln!(out, "\nrecorded in {record}")?;
    }
    Ok(if held { ExitCode::SUCCESS } else { super::OUR_MISTAKE.into() })
}

/// Whether tidegate kept its promise.
fn holds(behind: &Side) -> bool {
    behind.violations == 0 && behind.client_errors == 0
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;

    #[derive(Debug, clap::Parser)]
    struct Command {
        #[command(flatten)]
        args: Args,
    }

    fn planned(line: &str) -> Result<Plan, String> {
        let command = Command::try_parse_from(line.split(' ')).map_err(|error| error.to_string())?;
        Plan::try_from(&command.args)
    }

    #[test]
    fn without_flags_it_takes_about_a_minute() {
        let plan = planned("demo").unwrap();
        let drain = plan.workers_in_all() as f64 / plan.requests_a_second();
        let whole = 2.0 * plan.asking.as_secs_f64() + drain;
        assert!((45.0..75.0).contains(&whole), "{whole}");
    }

    #[test]
    fn mistakes_are_told_before_anything_runs() {
        for line in ["demo --seconds 0", "demo --seconds 5", "demo --window 100ms --rpm 1", "demo --workers 0"] {
            assert!(planned(line).is_err(), "{line}");
        }
        assert!(planned("demo --seconds 5").unwrap_err().contains("--seconds"));
    }
}
