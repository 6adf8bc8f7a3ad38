//! What the command line says over the file.
//!
//! A flag is written into the table that was read from the file, as if it stood there, so it meets the same checks.
//! Its mark is a span that no file has; messages then name the flag instead of a line.

use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::ops::Range;
use std::path::PathBuf;
use std::time::Duration;

use toml::Spanned;
use toml::de::{DeArray, DeString, DeTable, DeValue};

use super::environment::escape;
use super::mistake::Mistake;
use crate::units::format_duration;

/// What the command line says over the file, or instead of one.
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

/// Where everything stands that a flag said.
pub(super) const SPAN: Range<usize> = usize::MAX..usize::MAX;

/// The flag that sets what the schema calls `path`.
pub(super) fn name(path: &str) -> Option<&'static str> {
    FLAGS.iter().find(|(_, sets)| *sets == path).map(|(flag, _)| *flag)
}

/// The flags and what each sets.
const FLAGS: [(&str, &str); 8] = [
    ("--upstream", "upstreams.base_url"),
    ("--rpm", "upstreams.limits.requests_per_minute"),
    ("--concurrency", "upstreams.limits.concurrency"),
    ("--window", "upstreams.limits.window"),
    ("--api-key-env", "upstreams.api_key"),
    ("--listen", "server.listen"),
    ("--admin-listen", "server.admin_listen"),
    ("--state-dir", "server.state_dir"),
];

impl Overrides {
    /// The flags that were given and what each says, as a file would write it, in the order of `FLAGS`.
    fn given(&self) -> impl Iterator<Item = (&'static str, &'static str, String)> {
        let values = [
            self.upstream.as_deref().map(escape),
            self.rpm.map(|rpm| rpm.to_string()),
            self.concurrency.map(|slots| slots.to_string()),
            self.window.map(format_duration),
            self.api_key_env.as_ref().map(|name| format!("${{{name}}}")),
            self.listen.map(|address| address.to_string()),
            self.admin_listen.map(|address| address.to_string()),
            self.state_dir.as_ref().map(|path| escape(&path.to_string_lossy())),
        ];
        FLAGS.into_iter().zip(values).filter_map(|((flag, path), value)| value.map(|value| (flag, path, value)))
    }

    /// Writes the flags into `file`. Where a table they belong into is none, the reader will say so.
    pub(super) fn write_into(&self, file: &mut DeTable<'_>) -> Vec<Mistake> {
        let mut mistakes = Vec::new();
        for (flag, path, value) in self.given() {
            match path.strip_prefix("upstreams.") {
                None => insert(file, path, value),
                Some(path) => match only_upstream(file) {
                    Ok(upstream) => {
                        upstream.into_iter().for_each(|upstream| replace_in_upstream(upstream, path, &value));
                    }
                    Err(count) => mistakes.push(Mistake {
                        line: None,
                        field: flag.to_owned(),
                        value: None,
                        problem: format!("the file has {count} upstreams, and a flag cannot say which one it means"),
                        fix: "leave the flag out and change the file".to_owned(),
                    }),
                },
            }
        }
        mistakes
    }
}

fn replace_in_upstream(upstream: &mut DeTable<'_>, path: &str, value: &str) {
    if path == "api_key" {
        upstream.remove("api_keys");
    }
    insert(upstream, path, value.to_owned());
}

/// The upstream that flags are about, made where the file has none; nothing where it has something else there.
fn only_upstream<'t, 'i>(file: &'t mut DeTable<'i>) -> Result<Option<&'t mut DeTable<'i>>, usize> {
    let list = file.entry(key("upstreams")).or_insert_with(|| said(DeValue::Array(DeArray::new())));
    let DeValue::Array(list) = list.get_mut() else { return Ok(None) };
    if list.is_empty() {
        list.push(said(DeValue::Table(DeTable::new())));
    }
    match &mut **list {
        [only] => Ok(table_of(only)),
        several => Err(several.len()),
    }
}

fn insert(table: &mut DeTable<'_>, path: &str, value: String) {
    let Some((child, rest)) = path.split_once('.') else {
        // Removed first, since inserting over a key would keep the old one's place.
        table.remove(path);
        table.insert(key(path), said(DeValue::String(value.into())));
        return;
    };
    let child = table.entry(key(child)).or_insert_with(|| said(DeValue::Table(DeTable::new())));
    if let Some(child) = table_of(child) {
        insert(child, rest, value);
    }
}

fn table_of<'t, 'i>(value: &'t mut Spanned<DeValue<'i>>) -> Option<&'t mut DeTable<'i>> {
    match value.get_mut() {
        DeValue::Table(table) => Some(table),
        _ => None,
    }
}

fn key<'i>(name: &str) -> Spanned<DeString<'i>> {
    Spanned::new(SPAN, name.to_owned().into())
}

fn said<'i>(value: DeValue<'i>) -> Spanned<DeValue<'i>> {
    Spanned::new(SPAN, value)
}
