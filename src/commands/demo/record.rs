//! The figures of both sides as JSON, and beside them the picture.

use std::fmt;
use std::fs::{self, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};

use serde_json::json;

use super::measure::{STEP_SECONDS, Side};
use super::plan::{CHATTING, Plan};
use super::plot::plot;

/// Where figures and picture go.
#[derive(Debug)]
pub(super) struct Record {
    figures: PathBuf,
    picture: PathBuf,
}

impl Record {
    /// Looks whether both files can be written, before a minute was spent on what they are to hold.
    pub(super) fn new(figures: PathBuf) -> Result<Self, String> {
        let picture = figures.with_extension("svg");
        if picture == figures {
            return Err(format!(
                "--record = {}: names the figures; the picture beside them ends in .svg",
                figures.display()
            ));
        }
        for path in [&figures, &picture] {
            writable(path).map_err(|error| format!("--record: {}: {error}", path.display()))?;
        }
        Ok(Self { figures, picture })
    }

    pub(super) fn write(&self, plan: &Plan, sides: [&Side; 2]) -> io::Result<()> {
        let figures = json!({
            "plan": {
                "seconds": plan.asking.as_secs(),
                "rpm": plan.requests,
                "window_seconds": plan.window.as_secs_f64(),
                "concurrency": plan.concurrency,
                "workers": plan.workers,
                "chatting": CHATTING,
                "seed": plan.seed,
                "latency_mean_seconds": plan.latency().as_secs_f64(),
                "penalty_seconds": plan.penalty().as_secs_f64(),
            },
            "window_step_seconds": STEP_SECONDS,
            "sides": sides,
        });
        fs::write(&self.figures, format!("{figures}\n"))?;
        fs::write(&self.picture, plot(plan, sides))
    }
}

impl fmt::Display for Record {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} and {}", self.figures.display(), self.picture.display())
    }
}

/// Leaves what is there as it is, and nothing where nothing was.
fn writable(path: &Path) -> io::Result<()> {
    let there = path.exists();
    OpenOptions::new().append(true).create(true).open(path)?;
    if there { Ok(()) } else { fs::remove_file(path) }
}
