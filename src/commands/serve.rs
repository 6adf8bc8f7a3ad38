//! `tidegate serve`: the proxy.

use std::io::{self, Write as _};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::num::NonZeroU32;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use tokio::signal::unix::{Signal, SignalKind, signal};

use super::check;
use crate::app::{App, Past, Ports, Source, StartError};
use crate::config::{LoadError, Overrides, Settings};
use crate::limits::journal::JournalError;
use crate::telemetry;
use crate::time::Duration;
use crate::units::parse_duration;

/// Run the proxy
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  tidegate serve --upstream https://integrate.api.nvidia.com/v1 --api-key-env NVIDIA_API_KEY --rpm 40 --concurrency 5
  tidegate serve --config config/full.toml

Prints the line to point clients here. A flag overrides the file. SIGHUP re-reads the file, SIGTERM drains.")]
pub struct Args {
    /// The settings; without a file the flags say everything
    #[arg(long, value_name = "FILE", required_unless_present = "upstream")]
    config: Option<PathBuf>,
    /// The provider's base URL
    #[arg(long, value_name = "URL")]
    upstream: Option<String>,
    /// How many requests the provider allows in one window
    #[arg(long, value_name = "N")]
    rpm: Option<NonZeroU32>,
    /// How many requests it allows at a time
    #[arg(long, value_name = "N")]
    concurrency: Option<NonZeroU32>,
    /// The period in which the provider counts [default: 60s]
    #[arg(long, value_name = "DURATION", value_parser = parse_duration)]
    window: Option<Duration>,
    /// The environment variable that holds the provider's API key; without one the clients' own keys go through
    #[arg(long, value_name = "NAME")]
    api_key_env: Option<String>,
    /// The client port [default: 127.0.0.1:8080]
    #[arg(long, value_name = "ADDR")]
    listen: Option<SocketAddr>,
    /// The operators' port [default: 127.0.0.1:9091]
    #[arg(long, value_name = "ADDR")]
    admin_listen: Option<SocketAddr>,
    /// Where it is written down what was sent, so that a kill forgets nothing; one process at a time [default: state, in
    /// the current directory]
    #[arg(long, value_name = "DIR")]
    state_dir: Option<PathBuf>,
}

impl From<Args> for Source {
    fn from(args: Args) -> Self {
        let Args { config, upstream, rpm, concurrency, window, api_key_env, listen, admin_listen, state_dir } = args;
        let overrides = Overrides { upstream, rpm, concurrency, window, api_key_env, listen, admin_listen, state_dir };
        Self { file: config, overrides }
    }
}

/// Serves until a signal ends it.
#[must_use]
pub fn run(args: Args) -> ExitCode {
    let source = Source::from(args);
    let settings = match source.read() {
        Ok(settings) => settings,
        Err(error) => return mistaken(&error),
    };
    let log = match telemetry::init(&settings.telemetry.log, settings.telemetry.format) {
        Ok(log) => log,
        Err(error) => return complain(&error.to_string(), ExitCode::FAILURE),
    };
    if let Err(error) = crate::proxy::raise_descriptor_limit() {
        tracing::warn!(%error, "the limit of open files stays as it is");
    }
    for notice in settings.not_yet() {
        tracing::warn!(%notice, "a setting has no effect yet");
    }
    let mut runtime = tokio::runtime::Builder::new_multi_thread();
    runtime.enable_all().thread_name("tidegate");
    if let Some(threads) = settings.server.threads {
        runtime.worker_threads(threads.get());
    }
    match runtime.build() {
        Ok(runtime) => runtime.block_on(serve(settings, source, log)),
        Err(error) => complain(&format!("cannot start threads: {error}"), super::OUR_MISTAKE.into()),
    }
}

async fn serve(settings: Settings, source: Source, log: telemetry::Handle) -> ExitCode {
    // First of all: without a handler SIGHUP would end the process.
    let signals = match Signals::new() {
        Ok(signals) => signals,
        Err(error) => return complain(&format!("cannot handle signals: {error}"), super::OUR_MISTAKE.into()),
    };
    let state_dir = settings.server.state_dir.clone();
    let (app, ports) = match start(settings, source, log) {
        Ok(started) => started,
        Err(error) => {
            let is_dir =
                matches!(error, StartError::Journal(JournalError::Unusable { .. } | JournalError::Locked { .. }));
            let hint = if is_dir { " (--state-dir DIR)" } else { "" };
            return complain(&format!("{error}{hint}"), ExitCode::FAILURE);
        }
    };
    if let Err(error) = announce(&ports, &state_dir) {
        return complain(&error.to_string(), ExitCode::FAILURE);
    }
    let signals = signals.obey(app.clone());
    tokio::select! {
        served = app.run(ports) => match served {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => complain(&error.to_string(), super::OUR_MISTAKE.into()),
        },
        never = signals => match never {},
    }
}

fn start(settings: Settings, source: Source, log: telemetry::Handle) -> Result<(App, Ports), StartError> {
    let ports = Ports::bind(&settings)?;
    let past = Past::open(&settings)?;
    Ok((App::new(settings, source, Some(log), past)?, ports))
}

/// Prints the line that points clients here, and logs what this process has taken.
fn announce(ports: &Ports, state_dir: &Path) -> io::Result<()> {
    let (clients, admin) = (ports.clients()?, ports.admin()?);
    let mut out = io::stdout().lock();
    // On every interface also means on this machine, which is where the line is read.
    let here =
        if clients.ip().is_unspecified() { SocketAddr::new(loopback(clients.ip()), clients.port()) } else { clients };
    let scheme = if ports.is_tls() { "https" } else { "http" };
    writeln!(out, "export OPENAI_BASE_URL={scheme}://{here}/v1")?;
    out.flush()?;
    let state_dir = std::path::absolute(state_dir)?;
    tracing::info!(%clients, %admin, state_dir = %state_dir.display(), "serving");
    Ok(())
}

fn loopback(like: IpAddr) -> IpAddr {
    match like {
        IpAddr::V4(_) => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(_) => Ipv6Addr::LOCALHOST.into(),
    }
}

struct Signals {
    reload: Signal,
    terminate: Signal,
    interrupt: Signal,
    quit: Signal,
}

impl Signals {
    fn new() -> io::Result<Self> {
        Ok(Self {
            reload: signal(SignalKind::hangup())?,
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            quit: signal(SignalKind::quit())?,
        })
    }

    /// Does what signals ask for, as long as it is polled.
    async fn obey(mut self, app: App) -> std::convert::Infallible {
        loop {
            tokio::select! {
                Some(()) = self.reload.recv() => {
                    // The file is short, and nobody waits for this thread's other work meanwhile for long; what came
                    // of it is logged and counted by the reload itself.
                    drop(app.reload());
                }
                Some(()) = self.terminate.recv() => app.drain(),
                Some(()) = self.interrupt.recv() => app.drain(),
                Some(()) = self.quit.recv() => app.drain(),
            }
        }
    }
}

fn mistaken(error: &LoadError) -> ExitCode {
    // When nobody reads what we say, there is nobody to tell.
    drop(check::report_error(error, &mut io::stderr().lock()));
    ExitCode::FAILURE
}

fn complain(message: &str, code: ExitCode) -> ExitCode {
    drop(writeln!(io::stderr().lock(), "tidegate: {message}"));
    code
}
