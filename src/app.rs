//! Builds the rooms, connects them, starts and drains them.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::sync::Arc;

use parking_lot::Mutex;
use rustls::ServerConfig;
use tokio::sync::{Notify, watch};

use crate::admission::settings::Client;
use crate::admission::{Admission, Bounds as QueueBounds, ClientQuota, ClientStatus, LaneStatus, Queue};
use crate::api::{self, Admin, AdminHooks, Readiness, ReadyState};
use crate::config::{LoadError, Overrides, Settings, process_environment};
use crate::limits::journal::{Journal, JournalError, Recovered};
use crate::memory::Memory;
use crate::metrics::{MemoryKind, Metrics};
use crate::pipeline::{Clients, Pipeline, Rules};
use crate::proxy::{self, Bounds, Proxy};
use crate::telemetry;
use crate::time::{self, Duration, Tasks};
use crate::units::Priority;
use crate::upstream::settings::Upstream;
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

/// What earlier processes have sent, and where this one writes it.
#[derive(Debug)]
pub struct Past {
    journal: Journal,
    recovered: Recovered,
}

impl Past {
    /// Nothing is known, and nothing is remembered.
    #[must_use]
    pub fn none() -> Self {
        Self { journal: Journal::off(), recovered: Recovered::default() }
    }

    /// Opens `server.state_dir`, which is this process's from then on.
    ///
    /// # Errors
    /// When it cannot be used, or is another process's.
    pub fn open(settings: &Settings) -> Result<Self, JournalError> {
        let (journal, recovered) = Journal::open(&settings.server.state_dir, longest_span(settings))?;
        Ok(Self { journal, recovered })
    }
}

/// So long stamps have to be exact, with the most that may be learned.
fn longest_span(settings: &Settings) -> Duration {
    let spans = settings.upstreams.iter().map(|upstream| {
        let limits = &upstream.limits;
        limits.window + limits.window_margin.max(limits.window / 50)
    });
    spans.max().unwrap_or_default()
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

/// The bound ports of an [`App`].
#[derive(Debug)]
pub struct Ports {
    clients: TcpListener,
    /// What clients have to speak on their port, if not plain HTTP.
    tls: Option<Arc<ServerConfig>>,
    admin: TcpListener,
}

impl Ports {
    /// Binds both ports of the settings.
    ///
    /// # Errors
    /// When one cannot be had, naming its setting.
    pub fn bind(settings: &Settings) -> Result<Self, StartError> {
        let server = &settings.server;
        api::check_bind(server.admin_listen, server.admin_token.as_ref())?;
        let bind = |setting, address| proxy::bind(address).map_err(|why| StartError::Listen { setting, address, why });
        Ok(Self {
            tls: server.tls.as_ref().map(proxy::server_config).transpose()?,
            clients: bind("server.listen", server.listen)?,
            admin: bind("server.admin_listen", server.admin_listen)?,
        })
    }

    /// Where clients reach us.
    ///
    /// # Errors
    /// When the system does not tell.
    pub fn clients(&self) -> io::Result<SocketAddr> {
        self.clients.local_addr()
    }

    /// Whether clients have to speak TLS.
    #[must_use]
    pub fn is_tls(&self) -> bool {
        self.tls.is_some()
    }

    /// Where operators reach us.
    ///
    /// # Errors
    /// When the system does not tell.
    pub fn admin(&self) -> io::Result<SocketAddr> {
        self.admin.local_addr()
    }
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
        admission.reconfigure(upstreams.ways(), client_quotas(&settings), queue_bounds(&settings));
        let pipeline = Pipeline::new(admission.clone(), upstreams.clone(), Arc::clone(&metrics), rules(&settings));
        pipeline.know(clients(&settings));
        metrics.declare_clients(client_names(&settings));
        let proxy = Proxy::new(pipeline.clone(), Arc::clone(&metrics), memory.clone(), bounds(&settings));
        show_usage_at_scrapes(&metrics, &admission, &upstreams, &memory, &journal);
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
        admission.reconfigure(upstreams.ways(), client_quotas(&new), queue_bounds(&new));
        pipeline.reconfigure(rules(&new));
        pipeline.know(clients(&new));
        metrics.declare_clients(client_names(&new));
        proxy.reconfigure(bounds(&new));
        memory.set_max(new.server.memory_max);
        self.0.journal.keep(longest_span(&new));
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

impl AdminHooks for App {
    fn reload(&self) -> Result<(), Vec<String>> {
        Self::reload(self).map_err(|error| mistakes_of(&error))
    }

    fn drain(&self) {
        Self::drain(self);
    }

    fn pause(&self, upstream: &str, paused: bool) -> Result<(), Vec<String>> {
        if !self.0.admission.pause(upstream, paused) {
            return Err(self.0.settings.lock().upstreams.iter().map(|upstream| upstream.name.clone()).collect());
        }
        tracing::info!(upstream, paused, "an operator has paused an upstream, or resumed it");
        Ok(())
    }

    fn queue(&self, most: usize) -> Queue {
        self.0.admission.queue(most)
    }

    fn upstreams(&self) -> Vec<Upstream> {
        self.0.settings.lock().upstreams.clone()
    }

    fn lanes(&self) -> Vec<LaneStatus> {
        self.0.admission.lanes()
    }

    fn paused(&self) -> Vec<Arc<str>> {
        self.0.admission.paused()
    }

    fn client_settings(&self) -> Vec<Client> {
        self.0.settings.lock().clients.clone()
    }

    fn clients(&self) -> Vec<ClientStatus> {
        self.0.admission.clients()
    }

    fn config(&self) -> String {
        let settings = self.0.settings.lock().clone();
        settings.to_json()
    }
}

fn upstream_config(settings: &Settings) -> Config<'_> {
    Config { upstreams: &settings.upstreams, retry: &settings.retry, write_timeout: settings.server.write_timeout }
}

fn queue_bounds(settings: &Settings) -> QueueBounds {
    let admission = &settings.admission;
    QueueBounds { queue_max: admission.queue_max, queue_bytes_max: admission.queue_bytes_max, floors: admission.floors }
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

/// Gauges mirror the state; they are set when somebody looks.
fn show_usage_at_scrapes(
    metrics: &Metrics,
    admission: &Admission,
    upstreams: &Upstreams,
    memory: &Memory,
    journal: &Journal,
) {
    let (admission, upstreams, memory, journal) =
        (admission.clone(), upstreams.clone(), memory.clone(), journal.clone());
    metrics.on_scrape(move |metrics| {
        let snapshot = admission.snapshot();
        for class in Priority::ALL {
            let waiting = snapshot.waiting[class as usize];
            metrics.set_queue_depth(class, usize::try_from(waiting).unwrap_or(usize::MAX));
        }
        metrics.set_queue_bytes(snapshot.bytes);
        for class in Priority::ALL {
            metrics.set_queue_oldest(class, snapshot.oldest[class as usize]);
        }
        metrics.set_journal_failing(journal.is_failing());
        let clients = admission.clients();
        metrics.set_clients_waiting(clients.iter().map(|client| (&client.id, client.waiting.iter().sum())));
        for &kind in MemoryKind::ALL {
            metrics.set_memory(kind, memory.held(kind));
        }
        upstreams.show_lanes(&snapshot.lanes);
        upstreams.show_paused(&admission.paused());
    });
}
