//! Words everyone shares: priority classes, secrets, sizes and durations as people write them.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// A priority class. Classes are strict: a waiting `High` call goes before any `Normal` one, but for the floors of
/// `[admission]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Priority {
    /// A person waits for the answer.
    High,
    /// The default.
    #[default]
    Normal,
    /// Batches and background work.
    Low,
}

impl Priority {
    /// Every class, first the one that goes first. `Priority as usize` indexes into it.
    pub const ALL: [Self; 3] = [Self::High, Self::Normal, Self::Low];

    /// The name used in headers, settings and metric labels.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::High => "high",
            Self::Normal => "normal",
            Self::Low => "low",
        }
    }

    /// Reads a class by its name, in any case; `None` for any other word.
    #[must_use]
    pub fn parse(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|class| word.trim().eq_ignore_ascii_case(class.as_str()))
    }
}

impl fmt::Display for Priority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A key or token. It prints as `[redacted]`, has no `Display`, and its text leaves only through [`Secret::expose`].
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Secret(String);

impl Secret {
    /// What stands for a secret wherever settings are printed.
    pub const REDACTED: &str = "[redacted]";

    /// Keeps `text` from being printed.
    #[must_use]
    pub const fn new(text: String) -> Self {
        Self(text)
    }

    /// The text itself, for the header it goes into or the comparison it serves.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(Self::REDACTED)
    }
}

/// Why a size or a duration could not be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("expected {expected}, found {found:?}")]
pub struct UnitError {
    expected: &'static str,
    found: String,
}

/// Reads a duration: a whole or decimal number followed by `ms`, `s`, `m`, `h` or `d`, as `1500ms`, `2.5s`, `10m`.
///
/// # Errors
/// When there is no unit, an unknown one, or no number that fits before it.
pub fn parse_duration(text: &str) -> Result<Duration, UnitError> {
    let refuse = || UnitError { expected: "a duration such as 1500ms, 30s, 10m, 1h or 7d", found: text.to_owned() };
    let (number, unit) = split_unit(text).ok_or_else(refuse)?;
    let seconds_per_unit = match unit {
        "ms" => 0.001,
        "s" => 1.0,
        "m" => 60.0,
        "h" => 3_600.0,
        "d" => 86_400.0,
        _ => return Err(refuse()),
    };
    Duration::try_from_secs_f64((number * seconds_per_unit * 1e6).round() / 1e6).map_err(|_| refuse())
}

/// Reads a size in bytes: a number alone, or followed by `B`, `KiB`, `MiB`, `GiB`, `KB`, `MB` or `GB`, as `32MiB`.
///
/// # Errors
/// When the unit is unknown or the number does not fit 2^53 bytes.
pub fn parse_size(text: &str) -> Result<u64, UnitError> {
    let refuse = || UnitError { expected: "a size such as 512KiB, 32MiB or 1GiB", found: text.to_owned() };
    let (number, unit) = split_unit(text).ok_or_else(refuse)?;
    let bytes_per_unit = match unit {
        "" | "B" => 1.0,
        "KiB" => 1_024.0,
        "MiB" => 1_048_576.0,
        "GiB" => 1_073_741_824.0,
        "KB" => 1e3,
        "MB" => 1e6,
        "GB" => 1e9,
        _ => return Err(refuse()),
    };
    let bytes = (number * bytes_per_unit).round();
    if !(0.0..=9_007_199_254_740_992.0).contains(&bytes) {
        return Err(refuse());
    }
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "the range was checked just above")]
    Ok(bytes as u64)
}

/// A duration as the settings write it: in the largest unit that keeps it whole, as `90s` or `1500ms`.
#[must_use]
pub fn format_duration(duration: Duration) -> String {
    let ms = duration.as_millis();
    for (unit, size) in [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1_000)] {
        if ms > 0 && ms.is_multiple_of(size) {
            return format!("{}{unit}", ms / size);
        }
    }
    format!("{ms}ms")
}

/// A duration as people say it, rounded: as `0.3 s`, `4.5 s`, `62 s`, `12 min`, `3 h`.
#[must_use]
pub fn say_duration(duration: Duration) -> String {
    let seconds = duration.as_secs_f64();
    match seconds {
        ..0.05 => "0 s".to_owned(),
        0.05..9.95 => format!("{} s", (seconds * 10.0).round() / 10.0),
        9.95..119.5 => format!("{seconds:.0} s"),
        119.5..7_170.0 => format!("{:.0} min", seconds / 60.0),
        _ => format!("{:.0} h", seconds / 3_600.0),
    }
}

/// A size as the settings write it: in the largest binary unit that keeps it whole, as `32MiB`.
#[must_use]
pub fn format_size(bytes: u64) -> String {
    for (unit, size) in [("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)] {
        if bytes > 0 && bytes.is_multiple_of(size) {
            return format!("{}{unit}", bytes / size);
        }
    }
    format!("{bytes}B")
}

fn split_unit(text: &str) -> Option<(f64, &str)> {
    let text = text.trim();
    let digits = text.find(|c: char| !c.is_ascii_digit() && c != '.' && c != '_').unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let number: f64 = number.replace('_', "").parse().ok()?;
    Some((number, unit.trim_start()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_read_as_people_write_them() {
        assert_eq!(parse_duration("1500ms"), Ok(Duration::from_millis(1500)));
        assert_eq!(parse_duration("2.5s"), Ok(Duration::from_millis(2500)));
        assert_eq!(parse_duration("10 m"), Ok(Duration::from_secs(600)));
        assert_eq!(parse_duration("7d"), Ok(Duration::from_secs(604_800)));
        for wrong in ["", "10", "-1s", "1 fortnight", "s", "1e400s", "NaNs"] {
            assert!(parse_duration(wrong).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn sizes_read_as_people_write_them() {
        assert_eq!(parse_size("32MiB"), Ok(32 << 20));
        assert_eq!(parse_size("10_000"), Ok(10_000));
        assert_eq!(parse_size("1.5KiB"), Ok(1536));
        for wrong in ["", "MiB", "1 TiBs", "-1", "99999999GiB"] {
            assert!(parse_size(wrong).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn durations_are_said_rounded() {
        for (ms, said) in [
            (0, "0 s"),
            (49, "0 s"),
            (300, "0.3 s"),
            (4_512, "4.5 s"),
            (5_000, "5 s"),
            (9_960, "10 s"),
            (61_800, "62 s"),
            (119_999, "2 min"),
            (745_000, "12 min"),
            (10_900_000, "3 h"),
        ] {
            assert_eq!(say_duration(Duration::from_millis(ms)), said);
        }
    }

    #[test]
    fn secrets_do_not_print() {
        let secret = Secret::new("sk-live-1".to_owned());
        assert_eq!(format!("{secret:?} {:?}", Some(&secret)), "[redacted] Some([redacted])");
        assert_eq!(secret.expose(), "sk-live-1");
    }

    #[test]
    fn what_is_formatted_reads_back() {
        for ms in [0, 1, 999, 1_000, 1_500, 60_000, 90_000, 3_600_000, 604_800_000] {
            let duration = Duration::from_millis(ms);
            assert_eq!(parse_duration(&format_duration(duration)), Ok(duration));
        }
        for bytes in [0, 1, 1023, 1024, 10 << 20, 3 << 30] {
            assert_eq!(parse_size(&format_size(bytes)), Ok(bytes));
        }
    }
}
