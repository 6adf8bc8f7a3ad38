//! How the simulated provider behaves: what it allows, how long it takes, and what goes wrong how often.

use std::fmt;
use std::net::{Ipv4Addr, SocketAddr};
use std::str::FromStr;

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
            _ => Err(SettingError { expected: "1006, 429 or 404", found: word.to_owned() }),
        }
    }
}

/// Something that goes wrong with a share of the requests.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Fault {
    /// What goes wrong.
    pub kind: FaultKind,
    /// The share of requests it happens to, 0 to 1. The rates of all faults add up; what exceeds 1 never happens.
    pub rate: f64,
}

impl FromStr for Fault {
    type Err = SettingError;

    fn from_str(text: &str) -> Result<Self, SettingError> {
        let refuse = || SettingError { expected: "KIND=RATE with a rate from 0 to 1", found: text.to_owned() };
        let (kind, rate) = text.split_once('=').ok_or_else(refuse)?;
        let rate: f64 = rate.trim().parse().map_err(|_| refuse())?;
        if !(0.0..=1.0).contains(&rate) {
            return Err(refuse());
        }
        Ok(Self { kind: kind.trim().parse()?, rate })
    }
}

/// What can go wrong with a request that was admitted. It was counted, and it holds its slot, all the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum FaultKind {
    /// The connection is reset before any byte of the answer.
    ResetBeforeHead,
    /// The connection is closed before any byte of the answer.
    EofBeforeHead,
    /// The head comes, then a reset and no byte of the body.
    ResetBeforeFirstEvent,
    /// The head comes, then the end of the connection and no byte of the body.
    EofBeforeFirstEvent,
    /// A reset after some events, or after half of a plain body.
    ResetMidStream,
    /// The end of the connection after some events, or after half of a plain body.
    EofMidStream,
    /// 500 in the provider's words.
    Status500,
    /// 503 in the provider's words.
    Status503,
    /// 429 with `Retry-After: 1`, although no limit was exceeded.
    Status429,
    /// Not a byte, until the client leaves or ten minutes have passed.
    Stall,
}

impl FaultKind {
    /// Every kind there is.
    pub const ALL: [Self; 10] = [
        Self::ResetBeforeHead,
        Self::EofBeforeHead,
        Self::ResetBeforeFirstEvent,
        Self::EofBeforeFirstEvent,
        Self::ResetMidStream,
        Self::EofMidStream,
        Self::Status500,
        Self::Status503,
        Self::Status429,
        Self::Stall,
    ];

    /// The name used on the command line, in `POST /sim/faults`, in directives and in statistics.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::ResetBeforeHead => "reset_before_head",
            Self::EofBeforeHead => "eof_before_head",
            Self::ResetBeforeFirstEvent => "reset_before_first_event",
            Self::EofBeforeFirstEvent => "eof_before_first_event",
            Self::ResetMidStream => "reset_mid_stream",
            Self::EofMidStream => "eof_mid_stream",
            Self::Status500 => "status_500",
            Self::Status503 => "status_503",
            Self::Status429 => "status_429",
            Self::Stall => "stall",
        }
    }

    /// The fault that `luck`, uniform in 0 to 1, draws from these rates.
    pub(super) fn draw(faults: &[Fault], luck: f64) -> Option<Self> {
        let mut rates = 0.0;
        for fault in faults {
            rates += fault.rate;
            if luck < rates {
                return Some(fault.kind);
            }
        }
        None
    }
}

impl fmt::Display for FaultKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for FaultKind {
    type Err = SettingError;

    fn from_str(word: &str) -> Result<Self, SettingError> {
        Self::ALL.into_iter().find(|kind| kind.as_str() == word).ok_or_else(|| SettingError {
            expected: "one of reset_before_head, eof_before_head, reset_before_first_event, eof_before_first_event, \
                       reset_mid_stream, eof_mid_stream, status_500, status_503, status_429, stall",
            found: word.to_owned(),
        })
    }
}

/// Why a setting could not be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("expected {expected}, found {found:?}")]
pub struct SettingError {
    pub(super) expected: &'static str,
    pub(super) found: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn faults_read_as_people_write_them() {
        for kind in FaultKind::ALL {
            assert_eq!(format!("{kind}=0.25").parse(), Ok(Fault { kind, rate: 0.25 }));
        }
        for wrong in ["", "stall", "stall=", "stall=1.1", "stall=-0.1", "stall=NaN", "nap=0.1"] {
            assert!(wrong.parse::<Fault>().is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn rates_of_faults_add_up() {
        let faults = [Fault { kind: FaultKind::Stall, rate: 0.25 }, Fault { kind: FaultKind::Status500, rate: 0.25 }];
        let drawn = [0.0, 0.24, 0.25, 0.49, 0.5, 0.99].map(|luck| FaultKind::draw(&faults, luck));
        let (stall, status) = (Some(FaultKind::Stall), Some(FaultKind::Status500));
        assert_eq!(drawn, [stall, stall, status, status, None, None]);
    }

    #[test]
    fn latency_stays_within_its_spread() {
        let latency = Latency { mean: Duration::from_secs(10), spread: 0.8 };
        let drawn = [0.0, 0.5, 1.0].map(|luck| latency.draw(luck).as_secs_f64().round());
        assert_eq!(drawn, [2.0, 10.0, 18.0]);
    }
}
