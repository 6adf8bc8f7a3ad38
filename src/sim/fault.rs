//! What can go wrong with a request, and how often it does.

use std::fmt;
use std::str::FromStr;

use super::settings::SettingError;

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
        let refuse = || SettingError::new("KIND=RATE with a rate from 0 to 1", text);
        let (kind, rate) = text.split_once('=').ok_or_else(refuse)?;
        let rate: f64 = rate.trim().parse().map_err(|_| refuse())?;
        if !(0.0..=1.0).contains(&rate) {
            return Err(refuse());
        }
        Ok(Self { kind: kind.trim().parse()?, rate })
    }
}

/// What can go wrong with a request that was admitted. It was counted, and it holds its slot, all the same.
///
/// With a WebSocket, "before the head" is before its 101, "before the first event" right after it, "in mid-stream" after
/// some frames, and "late" once its client has said Close; it is never told Close itself.
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
    /// Some events, or half of a plain body, and then not a byte, until the client leaves or ten minutes have passed.
    StallMidStream,
    /// The end of the connection in the middle of an event, or of a plain body.
    HalfEvent,
    /// A reset after the event with the finish reason and before what follows it, or before the last byte of a plain body.
    ResetLate,
    /// 408 in the provider's words.
    Status408,
    /// 429 with `Retry-After: 1`, although no limit was exceeded.
    Status429,
    /// 500 in the provider's words.
    Status500,
    /// 502 in the words of what stands before the provider.
    Status502,
    /// 503 in the provider's words.
    Status503,
    /// 504 in the words of what stands before the provider.
    Status504,
    /// 529 in the provider's words.
    Status529,
    /// Not a byte, until the client leaves or ten minutes have passed.
    Stall,
}

impl FaultKind {
    /// Every kind there is.
    pub const ALL: [Self; 17] = [
        Self::ResetBeforeHead,
        Self::EofBeforeHead,
        Self::ResetBeforeFirstEvent,
        Self::EofBeforeFirstEvent,
        Self::ResetMidStream,
        Self::EofMidStream,
        Self::StallMidStream,
        Self::HalfEvent,
        Self::ResetLate,
        Self::Status408,
        Self::Status429,
        Self::Status500,
        Self::Status502,
        Self::Status503,
        Self::Status504,
        Self::Status529,
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
            Self::StallMidStream => "stall_mid_stream",
            Self::HalfEvent => "half_event",
            Self::ResetLate => "reset_late",
            Self::Status408 => "status_408",
            Self::Status429 => "status_429",
            Self::Status500 => "status_500",
            Self::Status502 => "status_502",
            Self::Status503 => "status_503",
            Self::Status504 => "status_504",
            Self::Status529 => "status_529",
            Self::Stall => "stall",
        }
    }

    /// The status it answers with, if it is one that does.
    #[must_use]
    pub const fn status(self) -> Option<u16> {
        match self {
            Self::Status408 => Some(408),
            Self::Status429 => Some(429),
            Self::Status500 => Some(500),
            Self::Status502 => Some(502),
            Self::Status503 => Some(503),
            Self::Status504 => Some(504),
            Self::Status529 => Some(529),
            Self::ResetBeforeHead
            | Self::EofBeforeHead
            | Self::ResetBeforeFirstEvent
            | Self::EofBeforeFirstEvent
            | Self::ResetMidStream
            | Self::EofMidStream
            | Self::StallMidStream
            | Self::HalfEvent
            | Self::ResetLate
            | Self::Stall => None,
        }
    }

    /// The names of all kinds, for messages.
    #[must_use]
    pub fn names() -> String {
        Self::ALL.map(Self::as_str).join(", ")
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
        let known = Self::ALL.into_iter().find(|kind| kind.as_str() == word);
        known.ok_or_else(|| SettingError::new(format!("one of {}", Self::names()), word))
    }
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
    fn unknown_fault_is_told_every_name_there_is() {
        let told = "nap".parse::<FaultKind>().expect_err("unknown").to_string();
        assert!(FaultKind::ALL.iter().all(|kind| told.contains(kind.as_str())), "{told}");
    }
}
