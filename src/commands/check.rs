//! `tidegate check`: what a file means, or everything that is wrong with it.

use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use crate::config::{LoadError, Mistakes, Settings};

/// Print the effective settings of a file, or every mistake in it
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:
  tidegate check --config config/full.toml

Prints the effective settings as TOML, with every default and without secrets, and on stderr what has no effect yet.
A file with mistakes prints them all, one a line, and the exit code is 1.")]
pub struct Args {
    /// The file to check
    #[arg(long, value_name = "FILE")]
    pub config: PathBuf,
}

/// Checks the file. The settings go to `out`, everything about them to `err`.
pub fn run(args: &Args, out: &mut dyn Write, err: &mut dyn Write) -> ExitCode {
    // When nobody reads what we say (a closed pipe), there is nobody to tell.
    check(args, out, err).unwrap_or(ExitCode::FAILURE)
}

fn check(args: &Args, out: &mut dyn Write, err: &mut dyn Write) -> io::Result<ExitCode> {
    let file = args.config.display();
    match Settings::load(&args.config) {
        Ok(settings) => {
            out.write_all(settings.to_toml().as_bytes())?;
            for notice in settings.not_yet() {
                match notice.line {
                    Some(line) => writeln!(err, "{file}:{line}: {notice}")?,
                    None => writeln!(err, "{file}: {notice}")?,
                }
            }
            Ok(ExitCode::SUCCESS)
        }
        Err(error) => {
            report_error(&error, err)?;
            Ok(ExitCode::FAILURE)
        }
    }
}

/// Says why settings could not be read: every mistake, one a line.
pub(super) fn report_error(error: &LoadError, err: &mut dyn Write) -> io::Result<()> {
    match error {
        LoadError::Mistaken { path, mistakes } => report(&path.display().to_string(), mistakes, err),
        LoadError::Unreadable { .. } => writeln!(err, "{error}"),
    }
}

/// One mistake a line, as compilers do, so that editors can jump there.
fn report(file: &str, mistakes: &Mistakes, err: &mut dyn Write) -> io::Result<()> {
    for mistake in mistakes.all() {
        match mistake.line {
            Some(line) => writeln!(err, "{file}:{line}: {mistake}")?,
            None => writeln!(err, "{file}: {mistake}")?,
        }
    }
    Ok(())
}
