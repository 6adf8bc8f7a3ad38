//! Arguments in, a command out.
//!
//! The allocator is the system's: mimalloc saved 13 to 16 % of the instructions of a call and no CPU time that could be
//! seen, and gave back hardly anything after a peak; jemalloc lay between (`benches/pass_through`).

use std::io::{self, Write as _};
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use tidegate::commands::{OUR_MISTAKE, check, demo, health, serve, sim};

/// A transparent OpenAI-compatible proxy that never sends a rate-limited provider a request too many
#[derive(Debug, Parser)]
#[command(version, arg_required_else_help = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Serve(serve::Args),
    Check(check::Args),
    Sim(sim::Args),
    Demo(demo::Args),
    Health(health::Args),
}

fn main() -> ExitCode {
    match Cli::parse().command {
        Command::Serve(args) => serve::run(args),
        Command::Check(args) => check::run(&args, &mut io::stdout().lock(), &mut io::stderr().lock()),
        Command::Sim(args) => block_on(async { sim::run(args).await.map(|()| ExitCode::SUCCESS) }),
        Command::Demo(args) => block_on(demo::run(args)),
        Command::Health(args) => block_on(health::run(args)),
    }
}

fn block_on(command: impl Future<Output = io::Result<ExitCode>>) -> ExitCode {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    match runtime.and_then(|runtime| runtime.block_on(command)) {
        Ok(code) => code,
        Err(error) => {
            // When nobody reads what we say, there is nobody to tell.
            drop(writeln!(io::stderr().lock(), "tidegate: {error}"));
            match error.kind() {
                io::ErrorKind::AddrInUse | io::ErrorKind::AddrNotAvailable | io::ErrorKind::PermissionDenied => {
                    ExitCode::FAILURE
                }
                _ => OUR_MISTAKE.into(),
            }
        }
    }
}
