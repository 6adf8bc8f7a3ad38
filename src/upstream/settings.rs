//! The settings of this room: `[[upstreams]]`, `[retry]` and `[recovery]`.

mod address;
mod patterns;

use std::num::NonZeroU32;
use std::time::Duration;

pub use address::{BaseUrl, BaseUrlError, Scheme};
pub use patterns::{Exempt, ModelGlob};

pub use crate::call::MidStream;
use crate::limits::settings::Limits;
use crate::units::Secret;

/// One of `[[upstreams]]`: a provider, how to reach it, and what it allows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Upstream {
    /// Its name in headers, logs and metrics; no two are alike.
    pub name: String,
    /// What answers there.
    pub kind: Kind,
    /// What `/v1` of the client port maps to.
    pub base_url: BaseUrl,
    /// Our keys, each with its own allowance; none: the client's Authorization goes through.
    pub api_keys: Vec<Secret>,
    /// The models it serves.
    pub models: Vec<ModelGlob>,
    /// How long connecting may take, TLS included.
    pub connect_timeout: Duration,
    /// How long the provider may take from the request to its first byte.
    pub first_byte_timeout: Duration,
    /// How long the provider may be silent between two chunks.
    pub idle_timeout: Duration,
    /// The protocol towards it.
    pub http: HttpVersion,
    /// Statuses that mean "over the limit": the gate closes, the call is retried. They win over `retry_statuses`.
    pub refusal_statuses: Vec<u16>,
    /// Statuses that are retried with backoff.
    pub retry_statuses: Vec<u16>,
    /// Calls the provider does not count: they take no permit.
    pub exempt: Vec<Exempt>,
    /// How the provider can continue a partial answer.
    pub continuation: Continuation,
    /// What the provider allows.
    pub limits: Limits,
}

impl Upstream {
    /// An upstream with nothing but what it must have.
    #[must_use]
    pub fn new(name: String, base_url: BaseUrl) -> Self {
        Self {
            name,
            kind: Kind::Model,
            base_url,
            api_keys: Vec::new(),
            models: vec![ModelGlob::any()],
            connect_timeout: Duration::from_secs(10),
            first_byte_timeout: Duration::from_secs(600),
            idle_timeout: Duration::from_secs(120),
            http: HttpVersion::Auto,
            refusal_statuses: vec![429],
            retry_statuses: vec![408, 500, 502, 503, 504, 529],
            exempt: Vec::new(),
            continuation: Continuation::Off,
            limits: Limits::default(),
        }
    }
}

/// What answers at an upstream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// A model: a call can be asked again.
    Model,
    /// An agent that runs tools: a call that has left is not sent again, cached or shared, unless settings say so.
    Agent,
}

/// The protocol towards an upstream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum HttpVersion {
    /// HTTP/1.1 in clear, what ALPN agrees on with TLS.
    Auto,
    /// HTTP/1.1.
    Http1,
    /// HTTP/2.
    Http2,
}

/// How a provider can continue a partial answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Continuation {
    /// It cannot.
    Off,
    /// By vLLM's `continue_final_message`.
    Vllm,
    /// By an assistant message at the end that it takes for a prefix.
    Prefix,
    /// The same, and its answer begins by repeating that message.
    PrefixEcho,
}

/// `[retry]`: how often and how fast a failed call is tried again.
#[derive(Debug, Clone, PartialEq)]
pub struct Retry {
    /// Attempts a call may take, the first one included.
    pub attempts_max: NonZeroU32,
    /// The backoff cap after the first failure; it doubles with each.
    pub base: Duration,
    /// Where the doubling ends.
    pub cap: Duration,
    /// Retries for each call, fleet-wide; beyond it retries are delayed.
    pub budget: f64,
    /// Retry calls whose connection was reset before the answer began.
    pub on_disconnect: bool,
    /// Send calls to upstreams of `kind = "agent"` again too.
    pub agents: bool,
}

impl Default for Retry {
    fn default() -> Self {
        Self {
            attempts_max: NonZeroU32::MIN.saturating_add(7),
            base: Duration::from_millis(500),
            cap: Duration::from_secs(30),
            budget: 0.2,
            on_disconnect: true,
            agents: false,
        }
    }
}

/// `[recovery]`: what happens after a stream broke or a provider cut us off.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recovery {
    /// What a client gets whose stream broke after its first event.
    pub mid_stream: MidStream,
    /// How much of a stream is held back, so that a break in it can be retried unnoticed.
    pub holdback: Holdback,
    /// How long an upstream is left alone after resets that look like a limit.
    pub cooldown: Duration,
    /// Where the doubling of `cooldown` ends.
    pub cooldown_max: Duration,
}

/// How much of a stream is held back before its first byte is forwarded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Holdback {
    /// Up to its first event.
    FirstEvent,
    /// So many tokens.
    Tokens(NonZeroU32),
    /// What arrives in this time.
    Time(Duration),
}

impl Default for Recovery {
    fn default() -> Self {
        Self {
            mid_stream: MidStream::Error,
            holdback: Holdback::FirstEvent,
            cooldown: Duration::from_secs(2),
            cooldown_max: Duration::from_secs(60),
        }
    }
}
