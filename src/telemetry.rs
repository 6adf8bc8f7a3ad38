//! What is logged, how it looks, and what never appears in it.
//!
//! Log lines go to stderr: text on a terminal, JSON else. Messages are constant and values are fields, so that lines can
//! be counted. Each call leaves exactly one line, [`call_line`]. Bodies, keys, prompts and answers are never logged, nor
//! any part of one.

mod json;
pub mod settings;

use std::fmt;
use std::io::{self, IsTerminal};

use http::HeaderMap;
use tracing::Subscriber;
use tracing::level_filters::LevelFilter;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer, Registry, reload};

use self::settings::LogFormat;
use crate::ids::{CallId, ClientId};
use crate::metrics::Outcome;
use crate::openai::{Route, Usage};
use crate::time::Duration;
use crate::units::Priority;

/// Pingora logs at ERROR what clients do (leaving, sending garbage) and a harmless race in its pool. We count both
/// ourselves. A filter that speaks of pingora has its way.
const PINGORA: &str = "pingora_core=warn,pingora_core::apps=off,pingora_core::connectors=off";

/// Why logging could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The filter is not one.
    #[error("expected a level or target=level directives, found {filter:?}: {why}")]
    Filter {
        /// The filter as given.
        filter: String,
        /// What is wrong with it.
        why: String,
    },
    /// The process logs already.
    #[error("logging is already set up: {0}")]
    Installed(#[from] tracing_subscriber::util::TryInitError),
    /// The subscriber is gone.
    #[error("cannot change the log filter: {0}")]
    Reload(#[from] reload::Error),
}

/// Changes the filter of a running process.
#[derive(Debug, Clone)]
pub struct Handle(reload::Handle<EnvFilter, Registry>);

impl Handle {
    /// Logs by `filter` from now on. Records of pingora stay at the level that was most verbose at the start.
    ///
    /// # Errors
    /// When `filter` is none; the old one then holds.
    pub fn set_filter(&self, filter: &str) -> Result<(), Error> {
        Ok(self.0.reload(parse_filter(filter)?)?)
    }
}

/// Starts logging to stderr, once for the process. Records of libraries that use the `log` crate appear, too.
///
/// # Errors
/// When `filter` is none, or the process logs already.
pub fn init(filter: &str, format: LogFormat) -> Result<Handle, Error> {
    let (subscriber, handle) = subscriber(filter, format, io::stderr().is_terminal(), io::stderr)?;
    subscriber.try_init()?;
    Ok(handle)
}

/// Reads a filter: a level, or directives such as `info,tidegate::limits=debug`.
///
/// # Errors
/// When a directive is none. A lone word that is no level is refused, too: it would be taken for a target, and a typing
/// mistake would silence everything.
pub fn parse_filter(filter: &str) -> Result<EnvFilter, Error> {
    let refuse = |why: String| Error::Filter { filter: filter.to_owned(), why };
    let is_level = |word: &str| !word.is_empty() && word.parse::<LevelFilter>().is_ok();
    let is_word = |text: &str| text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
    let directives: Vec<_> = filter.split(',').map(str::trim).collect();
    if let Some(word) = directives.iter().find(|text| is_word(text) && !is_level(text)) {
        return Err(refuse(format!("{word:?} is no level; there are off, error, warn, info, debug and trace")));
    }
    let defaults = if filter.contains("pingora") { None } else { Some(PINGORA) };
    let directives = defaults.into_iter().chain(directives).collect::<Vec<_>>().join(",");
    EnvFilter::builder().parse(directives).map_err(|error| refuse(error.to_string()))
}

fn subscriber<W>(
    filter: &str,
    format: LogFormat,
    terminal: bool,
    writer: W,
) -> Result<(impl Subscriber + Send + Sync, Handle), Error>
where
    W: for<'w> MakeWriter<'w> + Send + Sync + 'static,
{
    let (filter, handle) = reload::Layer::new(parse_filter(filter)?);
    let lines = tracing_subscriber::fmt::layer().with_writer(writer).with_ansi(terminal);
    let lines = match format {
        LogFormat::Auto if terminal => lines.boxed(),
        LogFormat::Text => lines.boxed(),
        LogFormat::Auto | LogFormat::Json => lines.event_format(json::JsonLines).boxed(),
    };
    Ok((tracing_subscriber::registry().with(filter).with(lines), Handle(handle)))
}

/// What the log tells of a call. Nothing here comes from a body but the model's name.
#[derive(Debug, Clone)]
pub struct CallRecord<'a> {
    /// As in `x-tidegate-request-id`.
    pub request_id: CallId,
    /// Who called: a name out of the settings or a digest, never a key.
    pub client: &'a ClientId,
    /// The class it had.
    pub class: Priority,
    /// The model it asked for.
    pub model: Option<&'a str>,
    /// The endpoint.
    pub route: Route,
    /// It asked for server-sent events.
    pub stream: bool,
    /// The status the client got; none if it left before.
    pub status: Option<u16>,
    /// How long it waited for permits.
    pub wait: Duration,
    /// How many requests were sent for it.
    pub attempts: u32,
    /// How often its stream went on after it had broken.
    pub recovered: u32,
    /// Who answered last.
    pub upstream: Option<&'a str>,
    /// From its start to the first byte of the answer.
    pub first_byte: Option<Duration>,
    /// From its start to its end.
    pub duration: Duration,
    /// What the client was told it used: see [`Facts::usage`](crate::answer::Facts::usage).
    pub usage: Usage,
    /// How it ended.
    pub outcome: Outcome,
    /// Why, where the outcome alone does not say: constant words, nothing a peer sent.
    pub reason: Option<&'a str>,
}

/// The one line of a call: from it an operator knows why the call was slow or refused.
pub fn call_line(call: &CallRecord<'_>) {
    tracing::info!(
        request_id = %call.request_id,
        client = %call.client,
        class = call.class.as_str(),
        model = call.model.map(shortened),
        route = call.route.as_str(),
        stream = call.stream,
        status = call.status,
        wait_ms = ms(call.wait),
        attempts = call.attempts,
        recovered = Some(call.recovered).filter(|&times| times > 0),
        upstream = call.upstream,
        first_byte_ms = call.first_byte.map(ms),
        duration_ms = ms(call.duration),
        prompt_tokens = call.usage.prompt_tokens,
        completion_tokens = call.usage.completion_tokens,
        outcome = call.outcome.as_str(),
        reason = call.reason,
        "call"
    );
}

/// A model's name is whatever the client wrote there.
fn shortened(model: &str) -> &str {
    const CHARS_MAX: usize = 128;
    model.char_indices().nth(CHARS_MAX).map_or(model, |(end, _)| &model[..end])
}

fn ms(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// Headers as they may be logged: all names, and the values of those that carry no secret.
pub struct Redacted<'a>(pub &'a HeaderMap);

impl fmt::Debug for Redacted<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut map = f.debug_map();
        for (name, value) in self.0 {
            if is_secret(name.as_str()) {
                map.entry(name, &"[redacted]")
            } else {
                map.entry(name, value)
            };
        }
        map.finish()
    }
}

/// Keys travel under many names. A header that merely sounds like one is hidden, too.
fn is_secret(name: &str) -> bool {
    ["auth", "key", "token", "cookie", "secret", "password", "credential", "signature"]
        .into_iter()
        .any(|word| name.contains(word))
}

#[cfg(test)]
mod tests;
