//! The figures as a table, and as JSON for keeping.

use std::fs;
use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};

use super::Size;

/// One table: a row for each proxy, a column for each figure.
pub(crate) struct Section {
    pub(crate) name: &'static str,
    /// What was done, and how to read it.
    pub(crate) note: String,
    pub(crate) columns: Vec<&'static str>,
    pub(crate) rows: Vec<(String, Vec<Option<f64>>)>,
}

pub(crate) struct Report(serde_json::Map<String, Value>);

impl Report {
    pub(crate) fn new(size: Size) -> Self {
        let run = json!({
            "command": command(),
            "date": output("date", &["--utc", "+%Y-%m-%d"]),
            "cores": std::thread::available_parallelism().map_or(0, usize::from),
            "kernel": output("uname", &["--kernel-name", "--kernel-release", "--machine"]),
            "rounds": size.rounds,
        });
        Self([("run".to_owned(), run)].into_iter().collect())
    }

    /// Prints a table as soon as it is there.
    pub(crate) fn add(&mut self, section: Section) {
        println!("\n{}: {}\n", section.name, section.note);
        let width = section.rows.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
        let heads: Vec<String> = section.columns.iter().map(|column| format!("{column:>12}")).collect();
        println!("{:width$}  {}", "", heads.join("  "));
        for (name, figures) in &section.rows {
            let columns = section.columns.iter().zip(figures);
            let figures: Vec<String> =
                columns.map(|(column, figure)| format!("{:>1$}", shown(*figure), column.len().max(12))).collect();
            println!("{name:width$}  {}", figures.join("  "));
        }
        let row = |figures: Vec<Option<f64>>| -> Value {
            let rounded =
                figures.into_iter().map(|figure| json!(figure.map(|figure| (figure * 100.0).round() / 100.0)));
            section.columns.iter().map(|column| (*column).to_owned()).zip(rounded).collect()
        };
        let rows: Value = section.rows.into_iter().map(|(name, figures)| (name, row(figures))).collect();
        self.0.insert(section.name.to_owned(), json!({ "note": section.note, "rows": rows }));
    }

    pub(crate) fn write(self, file: &Path) {
        let mut text = serde_json::to_string_pretty(&Value::Object(self.0)).expect("figures are JSON");
        text.push('\n');
        fs::write(file, text).expect("the file can be written");
    }
}

fn shown(figure: Option<f64>) -> String {
    match figure {
        Some(figure) if figure.abs() >= 1_000.0 => format!("{figure:.0}"),
        Some(figure) => format!("{figure:.2}"),
        None => "-".to_owned(),
    }
}

/// What was typed, without the paths of this machine.
fn command() -> String {
    let args = std::env::args().skip(1).filter(|arg| arg != "--bench" && !arg.contains('/'));
    let words = ["cargo bench --bench pass_through --".to_owned()].into_iter().chain(args);
    words.collect::<Vec<_>>().join(" ")
}

fn output(program: &str, args: &[&str]) -> String {
    let output = Command::new(program).args(args).output();
    output.map_or_else(|_| "unknown".to_owned(), |output| String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

/// The middle figure; of none, none.
pub(crate) fn median(figures: impl IntoIterator<Item = f64>) -> Option<f64> {
    let mut figures: Vec<f64> = figures.into_iter().collect();
    figures.sort_unstable_by(f64::total_cmp);
    figures.get(figures.len() / 2).copied()
}

/// The median of ratios round by round: what slows both down cancels out.
pub(crate) fn ratio(ours: &[f64], theirs: Option<&Vec<f64>>) -> Option<f64> {
    median(ours.iter().zip(theirs?).map(|(ours, theirs)| ours / theirs))
}
