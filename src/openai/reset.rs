//! How long until a limit resets, in every form that providers write it.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::date;

/// No provider means a wait longer than this; who says a month is asked again the next day.
pub(super) const LONGEST: Duration = Duration::from_secs(24 * 60 * 60);

/// A figure this large is no wait of 30 years but seconds since 1970.
const EPOCH_SECONDS: f64 = 1e9;
/// A figure this large is no time in 30,000 years but milliseconds since 1970.
const EPOCH_MILLIS: f64 = 1e12;

/// Reads a wait: seconds (`12`, `33011.38`), a duration (`12ms`, `6m0s`, `1h2m3.5s`), or an instant, as seconds or
/// milliseconds since 1970, by RFC 3339 or as HTTP writes dates. What has passed is zero, what is longer than a day is a
/// day, and what cannot be read is `None`.
pub(super) fn parse(text: &str, now: SystemTime) -> Option<Duration> {
    let text = text.trim();
    let wait = match text.parse::<f64>() {
        Ok(figure) => of_figure(figure, now)?,
        Err(_) => match duration(text) {
            Some(wait) => wait,
            None => until(date::parse(text).or_else(|| date::parse_rfc3339(text))?, now),
        },
    };
    Some(wait.min(LONGEST))
}

fn of_figure(figure: f64, now: SystemTime) -> Option<Duration> {
    let unit = if figure >= EPOCH_MILLIS { 1e-3 } else { 1.0 };
    let seconds = Duration::try_from_secs_f64(figure * unit).ok()?;
    if figure >= EPOCH_SECONDS { Some(until(UNIX_EPOCH.checked_add(seconds)?, now)) } else { Some(seconds) }
}

fn until(then: SystemTime, now: SystemTime) -> Duration {
    then.duration_since(now).unwrap_or_default()
}

/// Reads the whole of a text as a duration.
fn duration(text: &str) -> Option<Duration> {
    let (wait, rest) = leading_duration(text)?;
    rest.is_empty().then_some(wait)
}

/// Reads the duration that a text begins with, such as `7m12.5s`, and says what follows it.
pub(super) fn leading_duration(text: &str) -> Option<(Duration, &str)> {
    let (mut sum, mut rest) = (None::<Duration>, text);
    while let Some((figure, after)) = leading_figure(rest) {
        let letters = after.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(after.len());
        let (unit, after) = after.split_at(letters);
        let unit = match unit {
            "ms" => 1e-3,
            "s" => 1.0,
            "m" => 60.0,
            "h" => 3_600.0,
            "d" => 86_400.0,
            _ => break,
        };
        let part = Duration::try_from_secs_f64(figure * unit).ok()?;
        sum = Some(sum.unwrap_or_default().saturating_add(part));
        rest = after;
    }
    sum.map(|sum| (sum, rest))
}

/// Reads the decimal figure, without a sign, that a text begins with.
pub(super) fn leading_figure(text: &str) -> Option<(f64, &str)> {
    let digits = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (figure, rest) = text.split_at(digits);
    // A point that ends a sentence belongs to no figure.
    let (figure, rest) = match figure.strip_suffix('.') {
        Some(figure) => (figure, text.get(figure.len()..)?),
        None => (figure, rest),
    };
    Some((figure.parse().ok()?, rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_form_of_a_reset_is_the_wait_it_means() {
        let now = UNIX_EPOCH + Duration::from_secs(1_700_000_000);
        for (text, millis) in [
            ("12ms", 12),
            ("1s", 1_000),
            ("7.66s", 7_660),
            ("6m0s", 360_000),
            ("2m59.56s", 179_560),
            ("1h2m3.5s", 3_723_500),
            ("0", 0),
            (" 59 ", 59_000),
            ("11.5", 11_500),
            ("1700000010", 10_000),
            ("1700000010500", 10_500),
            ("1600000000", 0),
            ("2023-11-14T22:13:30Z", 10_000),
            ("2023-11-14T22:13:30.25Z", 10_250),
            ("2023-11-15T00:13:30+02:00", 10_000),
            ("Tue, 14 Nov 2023 22:13:30 GMT", 10_000),
            ("33d", 86_400_000),
            ("86401", 86_400_000),
            ("1999999999", 86_400_000),
        ] {
            assert_eq!(parse(text, now), Some(Duration::from_millis(millis)), "{text}");
        }
    }

    #[test]
    fn what_is_no_wait_is_not_read() {
        for text in
            ["", "soon", "-1", "NaN", "inf", "1e400", "5x", "5s later", "ms", "1s-", "9999999999999d9", "2023-11-14"]
        {
            assert_eq!(parse(text, UNIX_EPOCH), None, "{text}");
        }
    }
}
