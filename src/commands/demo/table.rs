//! Both sides next to each other, and what it means in a sentence.

use std::io::{self, Write};

use super::measure::{Side, Wait};
use super::plan::Plan;

/// Prints the table, its footnote and the sentence.
pub(super) fn print(out: &mut dyn Write, plan: &Plan, without: &Side, behind: &Side) -> io::Result<()> {
    row(out, "", without.name, behind.name)?;
    let mut figure = |label: &str, of: &dyn Fn(&Side) -> String| row(out, label, &of(without), &of(behind));
    figure("answered", &|side| side.answered.to_string())?;
    figure("client errors", &|side| side.client_errors.to_string())?;
    figure("violations at the provider", &|side| side.violations.to_string())?;
    figure("refused in their penalties", &|side| side.refused_in_penalty.to_string())?;
    figure("wrong answers", &|side| side.wrong_answers.to_string())?;
    figure("questions never answered", &|side| side.never_answered.to_string())?;
    figure("share of the rate used", &|side| format!("{:.1} %", side.rate_used * 100.0))?;
    figure("chat's wait, p50", &|side| wait(side.chat_wait.p50))?;
    figure("chat's wait, p99", &|side| wait(side.chat_wait.p99))?;
    figure("batch's wait, p50", &|side| wait(side.batch_wait.p50))?;
    figure("batch's wait, p99", &|side| wait(side.batch_wait.p99))?;
    figure("until the last was done", &|side| format!("{:.1} s", side.took_seconds))?;
    writeln!(
        out,
        "
A wait is from asking to the first byte of the right answer, failed tries and
the pauses after them included; > marks who had no answer when all was over.
The rate is that of the last {:.0} s in which everybody asked.

{}",
        plan.whole_windows().as_secs_f64(),
        meaning(plan, without, behind)
    )
}

fn row(out: &mut dyn Write, label: &str, without: &str, behind: &str) -> io::Result<()> {
    writeln!(out, "  {label:<28}{without:>18}{behind:>18}")
}

/// A wait as it is shown.
pub(super) fn wait(wait: Wait) -> String {
    format!("{}{:.1} s", if wait.at_least { "> " } else { "" }, wait.seconds)
}

fn meaning(plan: &Plan, without: &Side, behind: &Side) -> String {
    if !super::holds(behind) {
        let Side { violations, client_errors, .. } = behind;
        return format!(
            "Behind tidegate there were {violations} violations and {client_errors} client errors, and there should
be none: either this machine was too busy to keep time, or tidegate has a bug."
        );
    }
    if without.client_errors == 0 {
        return "So few clients keep within the limits by themselves; with more --workers they do not.".to_owned();
    }
    format!(
        "Without tidegate these {} clients had {} calls answered and {} failed, since
refused requests count, too, and asking again keeps the gate shut; behind it
they had {} answered and none failed, and no request was one too many.",
        plan.workers_in_all(),
        without.answered,
        without.client_errors,
        behind.answered,
    )
}
