//! What it costs to pass a call through: CPU, latency, memory and instructions of the shipped binary beside the bare
//! pingora shell and nginx, in one run and in alternating rounds. Ratios count; absolute figures are the machine's.
//!
//! Everything is on this machine: the providers and proxies are children, the clients are in this process.
#![expect(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a bench may stop where it stands")]
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a bench prints its figures, and why there are none")]

mod calls;
mod child;
mod client;
mod instructions;
mod memory;
mod proxies;
mod queue;
mod report;
mod shell;
mod streams;
mod upstream;
mod wire;

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::Parser as _;

use self::proxies::Stage;
use self::report::Report;

/// CPU, latency, memory and instructions of a call that passes through, beside the bare pingora shell and nginx
#[derive(Debug, clap::Parser)]
struct Args {
    /// Take the time that figures to be kept need: more rounds, more connections
    #[arg(long)]
    long: bool,
    /// Write the figures to a file, too
    #[arg(long, value_name = "FILE")]
    record: Option<PathBuf>,
    /// Only these parts
    #[arg(long, value_name = "PART", value_delimiter = ',')]
    only: Vec<Part>,
    /// Measure another build of tidegate beside this one; may be repeated
    #[arg(long, value_name = "NAME=PATH", value_parser = other_build)]
    beside: Vec<(String, PathBuf)>,
    /// What `cargo bench` says to every bench
    #[arg(long, hide = true)]
    bench: bool,
    /// As criterion's: nothing happens if it is not part of this bench's name
    #[arg(hide = true)]
    filter: Option<String>,
    /// A child of this bench plays this
    #[arg(long, hide = true)]
    role: Option<Role>,
    #[arg(long, hide = true)]
    upstream: Option<SocketAddr>,
    #[arg(long, hide = true)]
    threads: Option<usize>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Part {
    Calls,
    Streams,
    Memory,
    Queue,
    Instructions,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Role {
    Upstream,
    Shell,
}

/// How much is measured.
#[derive(Debug, Clone, Copy)]
struct Size {
    rounds: usize,
    /// Milliseconds of load a round, proxy and number of connections.
    load_ms: u64,
    streams: usize,
    events: usize,
    connections: usize,
    large_bodies: usize,
    /// Calls that wait while the queue is listed.
    waiting: usize,
}

impl Size {
    const SHORT: Self = Self {
        rounds: 5,
        load_ms: 700,
        streams: 100,
        events: 50,
        connections: 500,
        large_bodies: 200,
        waiting: 10_000,
    };
    const LONG: Self = Self {
        rounds: 11,
        load_ms: 2_000,
        streams: 200,
        events: 100,
        connections: 1_000,
        large_bodies: 1_000,
        waiting: 10_000,
    };
}

fn other_build(text: &str) -> Result<(String, PathBuf), String> {
    let (name, path) = text.split_once('=').ok_or("expected NAME=PATH")?;
    Ok((name.to_owned(), PathBuf::from(path)))
}

fn main() {
    let args = Args::parse();
    match args.role {
        Some(Role::Upstream) => return upstream::run(),
        Some(Role::Shell) => return shell::run(args.upstream.expect("--upstream"), args.threads),
        None => {}
    }
    // `cargo test` runs benches, too, to see that they start.
    let is_meant = args.filter.as_ref().is_none_or(|filter| "pass_through".contains(filter.as_str()));
    if args.bench && is_meant {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        runtime.expect("a runtime").block_on(measure(&args));
    }
}

async fn measure(args: &Args) {
    let size = if args.long { Size::LONG } else { Size::SHORT };
    let wants = |part| args.only.is_empty() || args.only.contains(&part);
    let stage = Stage::new(&args.beside);
    let mut report = Report::new(size);
    if wants(Part::Calls) {
        report.add(calls::measure(&stage, size).await);
    }
    if wants(Part::Streams) {
        report.add(streams::measure(&stage, size).await);
    }
    if wants(Part::Memory) {
        report.add(memory::measure(&stage, size).await);
    }
    if wants(Part::Queue) {
        report.add(queue::measure(&stage, size).await);
    }
    if wants(Part::Instructions) {
        report.add(instructions::measure(&stage).await);
    }
    if let Some(file) = &args.record {
        report.write(file);
    }
}
