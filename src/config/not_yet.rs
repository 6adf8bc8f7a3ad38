//! Settings that are understood but have no effect yet, because what they set is not built.

use std::fmt;

use super::Settings;
use super::written::Present;
use crate::cache::settings::Mode;

/// A setting of the file that does not do what it says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Notice {
    /// The setting, as `upstreams.nvidia.limits.scope`, or its whole table.
    pub field: String,
    /// The line it stands on, from 1.
    pub line: Option<usize>,
    /// Why it does not.
    pub message: String,
}

impl fmt::Display for Notice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.field, self.message)
    }
}

/// What is not built: settings by their schema path (or tables, for all inside), the values that ask for nothing
/// missing, and what is missing. Take a line out when its feature comes.
const MISSING: &[(&str, &[&str], &str)] =
    &[("cache", &[], "the cache"), ("tasks", &[], "tasks"), ("telemetry.otlp", &["off"], "sending traces")];

/// One notice for each setting that is missing, and one for each table that is missing as a whole.
pub(super) fn notices(present: &[Present], settings: &Settings) -> Vec<Notice> {
    let mut notices: Vec<Notice> = Vec::new();
    for setting in present {
        let Some((path, field, message)) = missing(setting) else { continue };
        let off = (path == "cache" && settings.cache.mode == Mode::Off) || (path == "tasks" && !settings.tasks.enabled);
        if !off && notices.iter().all(|notice| notice.field != field) {
            let message = format!("has not all of its effect yet; still to be built: {message}");
            notices.push(Notice { field: field.to_owned(), line: setting.line, message });
        }
    }
    notices.extend(present.iter().filter(|setting| setting.is_placeholder).map(|setting| Notice {
        field: setting.path.shown.clone(),
        line: setting.line,
        message: "is the placeholder that printed settings have for a secret; put the secret back".to_owned(),
    }));
    notices.sort_by_key(|notice| notice.line);
    notices
}

/// The entry of `MISSING` that covers a setting: its path, the part of the setting's own path that it names, and what
/// is missing.
fn missing(setting: &Present) -> Option<(&'static str, &str, &'static str)> {
    MISSING.iter().find_map(|(path, harmless, message)| {
        let inside = setting.path.schema.strip_prefix(path)?;
        let covered = inside.is_empty() || inside.starts_with('.');
        if !covered || harmless.contains(&setting.value.trim_matches('"')) {
            return None;
        }
        Some((*path, setting.path.shown.strip_suffix(inside)?, *message))
    })
}

/// The paths that [`MISSING`] names.
#[cfg(test)]
pub(super) fn paths() -> impl Iterator<Item = &'static str> {
    MISSING.iter().map(|(path, ..)| *path)
}
