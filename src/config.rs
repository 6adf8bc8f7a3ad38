//! The file as written becomes the settings as meant; every mistake in it is reported at once.
//!
//! `schema` says what a file can hold; `groups` says it of each room, with ranges and what must hold between settings;
//! `values` knows the kinds of values. `reader` fills the rooms' structs from a file, over their defaults, `flags`
//! writes the command line into the file first, `environment` fills in `${VAR}`, and `writer` prints it all back.
//!
//! Secrets are shown by none of them: not in a mistake, not in printed settings, not when the key is misspelt.

mod environment;
mod flags;
mod groups;
mod mistake;
mod not_yet;
mod reader;
mod schema;
mod suggest;
#[cfg(test)]
mod tests;
mod values;
mod writer;
mod written;

use std::path::Path;

pub use crate::telemetry::settings::{LogFormat, Telemetry};
pub use flags::Overrides;
pub use mistake::{LoadError, Mistake, Mistakes};
pub use not_yet::Notice;
use reader::Section;
use toml::de::DeTable;
use written::Source;

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
    notices: Vec<Notice>,
}

impl Settings {
    /// Reads a file's text, with variables from `environment`.
    ///
    /// # Errors
    /// With every mistake in it; or, where it is no TOML, with those alone.
    pub fn parse(text: &str, environment: &dyn Fn(&str) -> Option<String>) -> Result<Self, Mistakes> {
        Self::parse_with(text, environment, &Overrides::default())
    }

    /// Reads a file's text, with what the command line says over it.
    ///
    /// # Errors
    /// As [`Settings::parse`].
    pub fn parse_with(
        text: &str,
        environment: &dyn Fn(&str) -> Option<String>,
        overrides: &Overrides,
    ) -> Result<Self, Mistakes> {
        let source = Source::new(text, environment);
        let (mut file, errors) = DeTable::parse_recoverable(text);
        if !errors.is_empty() {
            return Err(Mistakes::new(errors.iter().map(|error| not_toml(error, &source)).collect()));
        }
        source.mistakes.borrow_mut().extend(overrides.write_into(file.get_mut()));
        let mut settings = Self::default();
        Section::root(&source, file.get_ref()).read(&mut settings);
        settings.notices = not_yet::notices(&source.present.borrow(), &settings);
        let mistakes = source.mistakes.take();
        if mistakes.is_empty() { Ok(settings) } else { Err(Mistakes::new(mistakes)) }
    }

    /// Reads a file, with variables from the process's environment.
    ///
    /// # Errors
    /// When it cannot be read, and as [`Settings::parse`].
    pub fn load(path: &Path) -> Result<Self, LoadError> {
        Self::load_with(path, &Overrides::default())
    }

    /// Reads a file, with what the command line says over it.
    ///
    /// # Errors
    /// As [`Settings::load`].
    pub fn load_with(path: &Path, overrides: &Overrides) -> Result<Self, LoadError> {
        let text =
            std::fs::read_to_string(path).map_err(|error| LoadError::Unreadable { path: path.to_owned(), error })?;
        Self::parse_with(&text, &process_environment, overrides)
            .map_err(|mistakes| LoadError::Mistaken { path: path.to_owned(), mistakes })
    }

    /// The settings of a command line without a file, with variables from `environment`.
    ///
    /// # Errors
    /// With every mistake in the flags, and when there is no `--upstream`.
    pub fn from_flags(overrides: &Overrides, environment: &dyn Fn(&str) -> Option<String>) -> Result<Self, Mistakes> {
        Self::parse_with("", environment, overrides)
    }

    /// The file that means these settings, every default included and every secret redacted.
    #[must_use]
    pub fn to_toml(&self) -> String {
        writer::print(&mut self.clone())
    }

    /// The same as JSON.
    #[must_use]
    pub fn to_json(&self) -> String {
        writer::print_json(&mut self.clone())
    }

    /// What the file says without any effect yet.
    #[must_use]
    pub fn not_yet(&self) -> &[Notice] {
        &self.notices
    }

    /// The settings in which `new` differs and which cannot change while running.
    #[must_use]
    pub fn frozen_differences(&self, new: &Self) -> Vec<&'static str> {
        let (old, new) = (&self.server, &new.server);
        [
            ("server.listen", old.listen != new.listen),
            ("server.admin_listen", old.admin_listen != new.admin_listen),
            ("server.admin_token", old.admin_token != new.admin_token),
            ("server.tls", old.tls != new.tls),
            ("server.state_dir", old.state_dir != new.state_dir),
            ("server.threads", old.threads != new.threads),
        ]
        .into_iter()
        .filter_map(|(setting, differs)| differs.then_some(setting))
        .collect()
    }

    /// What cannot change while running, as it is in `started`; all else as it is.
    #[must_use]
    pub fn frozen_as(mut self, started: &Self) -> Self {
        let Server { listen, admin_listen, admin_token, tls, state_dir, threads, .. } = started.server.clone();
        self.server = Server { listen, admin_listen, admin_token, tls, state_dir, threads, ..self.server };
        self
    }
}

/// The variables of this process.
#[must_use]
pub fn process_environment(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

/// The line in question is not shown: it may hold a secret.
fn not_toml(error: &toml::de::Error, source: &Source<'_>) -> Mistake {
    Mistake {
        line: error.span().and_then(|span| source.line(&span)),
        field: "the file".to_owned(),
        value: None,
        problem: format!("is not TOML here: {}", error.message().replace('\n', ", ")),
        fix: "names stand alone, strings, sizes and durations in quotes, as in window = \"60s\"".to_owned(),
    }
}
