//! Arguments in, a command out.
//!
//! The allocator is jemalloc, on Linux with glibc. With glibc's own the threads wait for each other, since what a call takes
//! on one of them is often freed on another, and after a peak twice as much is kept; mimalloc is as quick, and keeps nearly
//! all (`benches/pass_through`). A thread of jemalloc's gives memory back after `dirty_decay_ms`, which
//! `.cargo/config.toml` and the Dockerfile set; it is ten seconds where nobody does.

use std::io::{self, Write as _};
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use tidegate::commands::{OUR_MISTAKE, check, demo, health, serve, sim};

#[cfg(all(target_os = "linux", target_env = "gnu"))]
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

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
