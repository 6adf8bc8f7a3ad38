//! The file as written becomes the settings as meant; every mistake in it is reported at once.

mod telemetry;

use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::path::PathBuf;
use std::time::Duration;

pub use telemetry::{LogFormat, Telemetry};

use crate::admission::settings::{Admission, Client};
use crate::breaker::settings::Breaker;
use crate::cache::settings::Cache;
use crate::proxy::settings::Server;
use crate::tasks::settings::Tasks;
use crate::upstream::settings::{Recovery, Retry, Upstream};

/// Everything that can be configured, resolved and checked: rooms receive their part and never look again.
#[derive(Debug, Clone, Default)]
pub struct Settings {
    /// `[server]`.
    pub server: Server,
    /// `[[upstreams]]`, at least one, in the order of the file.
    pub upstreams: Vec<Upstream>,
    /// `[admission]`.
    pub admission: Admission,
    /// `[[clients]]`.
    pub clients: Vec<Client>,
    /// `[retry]`.
    pub retry: Retry,
    /// `[breaker]`.
    pub breaker: Breaker,
    /// `[recovery]`.
    pub recovery: Recovery,
    /// `[cache]`.
    pub cache: Cache,
    /// `[tasks]`.
    pub tasks: Tasks,
    /// `[telemetry]`.
    pub telemetry: Telemetry,
}

/// What the command line says over the file.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Overrides {
    /// `--upstream`: the base URL.
    pub upstream: Option<String>,
    /// `--rpm`: requests a window.
    pub rpm: Option<NonZeroU32>,
    /// `--concurrency`: exchanges at a time.
    pub concurrency: Option<NonZeroU32>,
    /// `--window`: the period in which the provider counts.
    pub window: Option<Duration>,
    /// `--api-key-env`: the environment variable that holds the key.
    pub api_key_env: Option<String>,
    /// `--listen`: the client port.
    pub listen: Option<SocketAddr>,
    /// `--admin-listen`: the operators' port.
    pub admin_listen: Option<SocketAddr>,
    /// `--state-dir`: where the journal and the tasks live.
    pub state_dir: Option<PathBuf>,
}
