//! Builds the rooms, connects them, starts and drains them.

mod gauges;
mod hooks;
mod past;
mod ports;

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::{Notify, watch};

pub use self::past::Past;
pub use self::ports::Ports;
use crate::admission::{Admission, Bounds as QueueBounds, Caution, ClientQuota};
use crate::api::{self, Admin, Readiness, ReadyState};
use crate::config::{LoadError, Overrides, Settings, process_environment};
use crate::limits::journal::{Journal, JournalError};
use crate::memory::Memory;
use crate::metrics::Metrics;
use crate::pipeline::{Clients, Pipeline, Rules};
use crate::proxy::{self, Bounds, Proxy};
use crate::telemetry;
use crate::time::{self, Duration, Tasks};
use crate::upstream::{Config, UnusableUpstream, Upstreams};

/// How long calls that are turned away at the end of a drain may take to hear so.
const LAST_WORDS: Duration = Duration::from_secs(2);

/// Why the process cannot start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// An upstream cannot be used.
    #[error(transparent)]
    Upstream(#[from] UnusableUpstream),
    /// A port cannot be had.
    #[error("cannot listen on {setting} = {address}: {why}")]
    Listen {
        /// The setting that names it.
        setting: &'static str,
        /// The address.
        address: SocketAddr,
        /// What the system says.
        why: io::Error,
    },
    /// The operators' port would be open to everybody.
    #[error(transparent)]
    Admin(#[from] api::BindRefused),
    /// What was sent cannot be remembered.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// The client port cannot speak TLS.
    #[error(transparent)]
    Tls(#[from] proxy::TlsError),
}

/// Why a reload changed nothing.
#[derive(Debug, thiserror::Error)]
pub enum ReloadError {
    /// The file cannot be read or has mistakes.
    #[error(transparent)]
    Settings(#[from] LoadError),
    /// An upstream cannot be used.
    #[error(transparent)]
    Upstream(#[from] UnusableUpstream),
}

/// Where the settings come from, so that they can be read again.
#[derive(Debug, Clone, Default)]
pub struct Source {
    /// `--config`.
    pub file: Option<PathBuf>,
    /// The flags, which win.
    pub overrides: Overrides,
}

impl Source {
    /// Reads the settings.
    ///
    /// # Errors
    /// Every mistake at once.
    pub fn read(&self) -> Result<Settings, LoadError> {
        match &self.file {
            Some(file) => Settings::load_with(file, &self.overrides),
            None => Settings::from_flags(&self.overrides, &process_environment)
                .map_err(|mistakes| LoadError::Mistaken { path: PathBuf::from("command line"), mistakes }),
        }
    }
}

/// The whole process, ready to run. Cheap to clone.
#[derive(Debug, Clone)]
pub struct App(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    source: Source,
    /// The settings that the process started with: what cannot change while it runs is as they say.
    started: Settings,
    settings: Mutex<Settings>,
    metrics: Arc<Metrics>,
    journal: Journal,
    admission: Admission,
    upstreams: Upstreams,
    pipeline: Pipeline,
    memory: Memory,
    proxy: Proxy,
    readiness: Readiness,
    log: Option<telemetry::Handle>,
    /// Set when the drain begins: nothing more is accepted.
    stop: watch::Sender<bool>,
    drain_asked: Notify,
    /// Reloads go one after the other: settings of two generations never meet.
    reloading: Mutex<()>,
    flights: Tasks,
}

impl App {
    /// Builds the rooms and connects them. Nothing runs yet.
    ///
    /// # Errors
    /// When an upstream cannot be used.
    pub fn new(
        settings: Settings,
        source: Source,
        log: Option<telemetry::Handle>,
        past: Past,
    ) -> Result<Self, StartError> {
        let metrics = Metrics::new();
        metrics.config_loaded();
        let flights = Tasks::default();
        let memory = Memory::new(settings.server.memory_max);
        let config = upstream_config(&settings);
        let upstreams = Upstreams::new(&config, flights.clone(), Arc::clone(&metrics), memory.clone())?;
        let Past { journal, recovered } = past;
        let admission = Admission::remembering(journal.clone(), recovered, queue_bounds(&settings));
        admission.set_caution(caution(&settings));
        admission.reconfigure(upstreams.ways(), client_quotas(&settings), queue_bounds(&settings));
        let pipeline = Pipeline::new(admission.clone(), upstreams.clone(), Arc::clone(&metrics), rules(&settings));
        pipeline.know(clients(&settings));
        metrics.declare_clients(client_names(&settings));
        let proxy = Proxy::new(pipeline.clone(), Arc::clone(&metrics), memory.clone(), bounds(&settings));
        gauges::show_at_scrapes(&metrics, &admission, &upstreams, &memory, &journal);
        Ok(Self(Arc::new(Shared {
            source,
            started: settings.clone(),
            settings: Mutex::new(settings),
            metrics,
            journal,
            admission,
            upstreams,
            pipeline,
            memory,
            proxy,
            readiness: Readiness::default(),
            log,
            stop: watch::Sender::new(false),
            drain_asked: Notify::new(),
            reloading: Mutex::new(()),
            flights,
        })))
    }

    /// Serves until [`App::drain`] is asked for and the drain is over. Dropping the future stops everything at once.
    ///
    /// # Errors
    /// When a port fails for good.
    pub async fn run(&self, ports: Ports) -> io::Result<()> {
        let Shared { admission, upstreams, proxy, readiness, metrics, .. } = &*self.0;
        let admin_listener = tokio::net::TcpListener::from_std(ports.admin)?;
        let admin = Admin {
            metrics: Arc::clone(metrics),
            readiness: readiness.clone(),
            token: self.0.settings.lock().server.admin_token.clone(),
            hooks: Arc::new(self.clone()),
        };
        // The operators' port stays open while we drain: that is when somebody looks.
        let (last, closed) = watch::channel(false);
        let serving = async {
            let clients = proxy::serve(proxy.clone(), ports.clients, ports.tls, self.0.stop.subscribe());
            readiness.set(ReadyState::Ready);
            tokio::try_join!(clients, self.drained())
        };
        tokio::select! {
            served = serving => {
                drop(last);
                served.map(|_| ())
            }
            served = api::serve(admin_listener, admin, closed) => served,
            () = admission.clone().keep_time() => Ok(()),
            () = time::heartbeat() => Ok(()),
            () = upstreams.sweep_idle() => Ok(()),
        }
    }

    /// Begins to drain: nothing more is accepted; what runs and what waits may end until `server.drain_timeout`.
    pub fn drain(&self) {
        self.0.readiness.set(ReadyState::Draining);
        self.0.stop.send_replace(true);
        self.0.drain_asked.notify_one();
    }

    /// Re-reads the settings: all of them hold from the next decision on, or, where there is a mistake, none.
    ///
    /// # Errors
    /// The mistakes; they are counted.
    pub fn reload(&self) -> Result<(), ReloadError> {
        let _alone = self.0.reloading.lock();
        let read = self.0.source.read().map_err(ReloadError::from).and_then(|new| self.apply(new));
        match &read {
            Ok(()) => {
                self.0.metrics.reloaded(0);
                tracing::info!("settings reloaded");
            }
            Err(error) => {
                let mistakes = mistakes_of(error);
                self.0.metrics.reloaded(mistakes.len());
                for mistake in &mistakes {
                    tracing::error!(mistake, "settings refused, the old ones stay in force");
                }
            }
        }
        read
    }

    fn apply(&self, new: Settings) -> Result<(), ReloadError> {
        let Shared { admission, upstreams, pipeline, proxy, memory, metrics, .. } = &*self.0;
        upstreams.reconfigure(&upstream_config(&new))?;
        admission.set_caution(caution(&new));
        admission.reconfigure(upstreams.ways(), client_quotas(&new), queue_bounds(&new));
        pipeline.reconfigure(rules(&new));
        pipeline.know(clients(&new));
        metrics.declare_clients(client_names(&new));
        proxy.reconfigure(bounds(&new));
        memory.set_max(new.server.memory_max);
        self.0.journal.keep(past::longest_span(&new));
        for setting in self.0.started.frozen_differences(&new) {
            tracing::warn!(setting, "a changed setting takes effect only after a restart");
        }
        if let Some(log) = &self.0.log
            && let Err(error) = log.set_filter(&new.telemetry.log)
        {
            tracing::error!(%error, "the log filter stays as it was");
        }
        *self.0.settings.lock() = new;
        Ok(())
    }

    /// Completes when a drain was asked for and is over.
    async fn drained(&self) -> io::Result<()> {
        let Shared { proxy, admission, flights, .. } = &*self.0;
        self.0.drain_asked.notified().await;
        let limit = self.0.settings.lock().server.drain_timeout;
        tracing::info!(drain_timeout = ?limit, "draining");
        let empty = async {
            proxy.drained().await;
            flights.drained().await;
        };
        if tokio::time::timeout(limit, empty).await.is_err() {
            tracing::warn!("the drain time is over, calls are cut");
            admission.close();
            proxy.close_tunnels();
            // Whoever still streams after this is cut by the end of the process.
            let _cut = tokio::time::timeout(LAST_WORDS, proxy.drained()).await;
        }
        self.0.journal.close();
        tracing::info!("drained");
        Ok(())
    }
}

fn upstream_config(settings: &Settings) -> Config<'_> {
    let (retry, recovery) = (&settings.retry, &settings.recovery);
    Config { upstreams: &settings.upstreams, retry, recovery, write_timeout: settings.server.write_timeout }
}

fn queue_bounds(settings: &Settings) -> QueueBounds {
    let admission = &settings.admission;
    QueueBounds { queue_max: admission.queue_max, queue_bytes_max: admission.queue_bytes_max, floors: admission.floors }
}

fn caution(settings: &Settings) -> Caution {
    let recovery = &settings.recovery;
    Caution { breaker: settings.breaker, cooldown: recovery.cooldown, cooldown_max: recovery.cooldown_max }
}

fn client_quotas(settings: &Settings) -> Vec<ClientQuota> {
    settings.clients.iter().map(ClientQuota::from).collect()
}

fn bounds(settings: &Settings) -> Bounds {
    Bounds::new(&settings.server, settings.admission.keepalive_after)
}

fn rules(settings: &Settings) -> Rules {
    Rules { wait_max: settings.admission.wait_max }
}

fn clients(settings: &Settings) -> Clients {
    Clients::new(&settings.clients, settings.admission.trust_client_header)
}

fn client_names(settings: &Settings) -> impl Iterator<Item = &str> {
    settings.clients.iter().map(|client| client.name.as_str())
}

fn mistakes_of(error: &ReloadError) -> Vec<String> {
    match error {
        ReloadError::Settings(LoadError::Mistaken { mistakes, .. }) => mistakes
            .all()
            .iter()
            .map(|mistake| match mistake.line {
                Some(line) => format!("line {line}: {mistake}"),
                None => mistake.to_string(),
            })
            .collect(),
        ReloadError::Settings(error @ LoadError::Unreadable { .. }) => vec![error.to_string()],
        ReloadError::Upstream(error) => vec![error.to_string()],
    }
}
