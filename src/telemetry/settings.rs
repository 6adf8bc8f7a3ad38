//! `[telemetry]`: what is logged, how, and where traces go.

/// `[telemetry]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Telemetry {
    /// The log filter, as `tracing` directives: `info`, or `info,tidegate::limits=debug`.
    pub log: String,
    /// How a log line looks.
    pub format: LogFormat,
    /// The OTLP endpoint that gets traces; absent: none are sent.
    pub otlp: Option<String>,
}

/// How a log line looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum LogFormat {
    /// Text on a terminal, JSON else.
    Auto,
    /// For people.
    Text,
    /// For machines.
    Json,
}

impl Default for Telemetry {
    fn default() -> Self {
        Self { log: "info".to_owned(), format: LogFormat::Auto, otlp: None }
    }
}
