//! The settings of this room: `[cache]`.

use std::time::Duration;

/// `[cache]`: which answers serve again, and for how long.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cache {
    /// Which calls are looked up.
    pub mode: Mode,
    /// Bytes of answers kept in memory.
    pub memory: u64,
    /// How long an answer serves.
    pub ttl: Duration,
    /// More generation routes, beside the known ones.
    pub routes: Vec<String>,
    /// Request headers that tell equal bodies apart, in lower case.
    pub vary_headers: Vec<String>,
    /// Share answers between tenants.
    pub shared: bool,
    /// Keep answers that call tools.
    pub tool_calls: bool,
    /// Look up calls to upstreams of `kind = "agent"` too.
    pub agents: bool,
    /// Finish a flight that nobody waits for, for the cache's sake; otherwise it is cancelled.
    pub finish: bool,
}

/// Which calls are looked up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Mode {
    /// Those with `temperature` 0 or a `seed`, and embeddings.
    Deterministic,
    /// All of generation routes.
    All,
    /// None.
    Off,
}

impl Default for Cache {
    fn default() -> Self {
        Self {
            mode: Mode::Deterministic,
            memory: 128 << 20,
            ttl: Duration::from_secs(3_600),
            routes: Vec::new(),
            vary_headers: ["x-openclaw-agent-id", "openai-organization", "openai-project", "openai-beta"]
                .map(str::to_owned)
                .to_vec(),
            shared: false,
            tool_calls: true,
            agents: false,
            finish: false,
        }
    }
}
