//! How the simulated provider behaves: what it allows, how long it takes, and what goes wrong how often.

use std::borrow::Cow;
use std::net::{Ipv4Addr, SocketAddr};
use std::str::FromStr;

use super::fault::Fault;
use crate::time::Duration;

/// Everything that shapes a simulated provider. The default is fast, faultless and unlimited, on a free port.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Where it listens; port 0 takes a free one.
    pub listen: SocketAddr,
    /// What it allows.
    pub limits: Limits,
    /// Whether each value of `Authorization` has an allowance, and a penalty, of its own.
    pub per_key: bool,
    /// How long a whole exchange takes, from the counted instant to the last byte.
    pub latency: Latency,
    /// A request is counted uniformly up to this much later than it was completely read.
    pub arrival_jitter: Duration,
    /// How much longer the slot of a client that hung up stays taken.
    pub disconnect_lag: Duration,
    /// How a request that exceeds a limit is answered.
    pub on_violation: Violation,
    /// How long after a violation everything is refused; zero refuses only the violation itself.
    pub penalty: Duration,
    /// What goes wrong, how often.
    pub faults: Vec<Fault>,
    /// Which requests to continue a partial answer are understood.
    pub continuation: Continuation,
    /// Decides jitter, latency and faults; equal seeds give the n-th request equal luck.
    pub seed: u64,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
            limits: Limits::default(),
            per_key: false,
            latency: Latency::default(),
            arrival_jitter: Duration::ZERO,
            disconnect_lag: Duration::ZERO,
            on_violation: Violation::Reset,
            penalty: Duration::from_secs(10),
            faults: Vec::new(),
            continuation: Continuation::default(),
            seed: 0,
        }
    }
}

/// What the provider allows; `None` does not limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Requests counted in any window.
    pub requests: Option<u32>,
    /// Requests in flight at any moment.
    pub concurrency: Option<u32>,
    /// Tokens, of prompts and answers together, counted in any window.
    pub tokens: Option<u32>,
    /// The length of the sliding window.
    pub window: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self { requests: None, concurrency: None, tokens: None, window: Duration::from_secs(60) }
    }
}

/// How long exchanges take: uniformly between `mean * (1 - spread)` and `mean * (1 + spread)`.
///
/// A plain answer comes at its end. A stream starts after 30 % of it, and its events are spread evenly over what is left.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Latency {
    /// The mean duration of a whole exchange.
    pub mean: Duration,
    /// How far a duration may be from the mean, as a share of it: 0 to 1.
    pub spread: f64,
}

impl Latency {
    /// Every exchange takes exactly this long.
    #[must_use]
    pub const fn fixed(mean: Duration) -> Self {
        Self { mean, spread: 0.0 }
    }

    pub(super) fn draw(self, luck: f64) -> Duration {
        let spread = self.spread.clamp(0.0, 1.0);
        self.mean.mul_f64(1.0 - spread + 2.0 * spread * luck.clamp(0.0, 1.0))
    }
}

/// How a request that exceeds a limit is answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Violation {
    /// The connection is reset without a byte: what a WebSocket client sees as close code 1006.
    #[default]
    Reset,
    /// 429 with `Retry-After`.
    TooMany,
    /// 404 with a message that names nothing.
    NotFound,
}

impl FromStr for Violation {
    type Err = SettingError;

    fn from_str(word: &str) -> Result<Self, SettingError> {
        match word {
            "1006" | "reset" => Ok(Self::Reset),
            "429" => Ok(Self::TooMany),
            "404" => Ok(Self::NotFound),
            _ => Err(SettingError::new("1006, 429 or 404", word)),
        }
    }
}

/// Which requests to continue a partial answer are understood. A continuation is answered with the rest alone, except by
/// [`Continuation::PrefixEcho`]; what is not understood is ignored, as most providers do, except by
/// [`Continuation::Off`], which refuses it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Continuation {
    /// Those of vLLM and of DeepSeek.
    #[default]
    Any,
    /// `continue_final_message`, with `add_generation_prompt: false`, as vLLM wants it.
    Vllm,
    /// `prefix: true` in the last message, as DeepSeek wants it.
    Prefix,
    /// The same, but the answer repeats the partial one, as Mistral's does.
    PrefixEcho,
    /// None: 400, as strict providers answer what they do not know.
    Off,
}

impl Continuation {
    /// Whether `continue_final_message` is understood.
    pub(super) const fn knows_final_message(self) -> bool {
        matches!(self, Self::Any | Self::Vllm)
    }

    /// Whether `prefix` in the last message is understood.
    pub(super) const fn knows_prefix(self) -> bool {
        matches!(self, Self::Any | Self::Prefix | Self::PrefixEcho)
    }
}

impl FromStr for Continuation {
    type Err = SettingError;

    fn from_str(word: &str) -> Result<Self, SettingError> {
        match word {
            "any" => Ok(Self::Any),
            "vllm" => Ok(Self::Vllm),
            "prefix" => Ok(Self::Prefix),
            "prefix_echo" => Ok(Self::PrefixEcho),
            "off" => Ok(Self::Off),
            _ => Err(SettingError::new("any, vllm, prefix, prefix_echo or off", word)),
        }
    }
}

/// Why a setting could not be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("expected {expected}, found {found:?}")]
pub struct SettingError {
    expected: Cow<'static, str>,
    found: String,
}

impl SettingError {
    pub(super) fn new(expected: impl Into<Cow<'static, str>>, found: &str) -> Self {
        Self { expected: expected.into(), found: found.to_owned() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn latency_stays_within_its_spread() {
        let latency = Latency { mean: Duration::from_secs(10), spread: 0.8 };
        let drawn = [0.0, 0.5, 1.0].map(|luck| latency.draw(luck).as_secs_f64().round());
        assert_eq!(drawn, [2.0, 10.0, 18.0]);
    }
}
