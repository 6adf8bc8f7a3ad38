//! The dates that headers carry: the one format HTTP still sends, and RFC 3339.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

const MONTHS: [&str; 12] = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];

/// Reads an IMF-fixdate, `Sun, 06 Nov 1994 08:49:37 GMT`. The two obsolete forms and dates before 1970 are not read.
pub(super) fn parse(text: &str) -> Option<SystemTime> {
    let (_weekday, rest) = text.trim().split_once(", ")?;
    let mut words = rest.split(' ');
    let day: u64 = in_range(words.next()?, 1, 31)?;
    let month = words.next()?;
    let month = MONTHS.iter().position(|name| *name == month)? as u64 + 1;
    let year: u64 = in_range(words.next()?, 1970, 9999)?;
    let mut clock = words.next()?.split(':');
    let hour: u64 = in_range(clock.next()?, 0, 23)?;
    let minute: u64 = in_range(clock.next()?, 0, 59)?;
    let second: u64 = in_range(clock.next()?, 0, 60)?; // 60 is a leap second
    if words.next()? != "GMT" || words.next().is_some() || clock.next().is_some() {
        return None;
    }
    let days = days_since_epoch(year, month, day);
    UNIX_EPOCH.checked_add(Duration::from_secs(((days * 24 + hour) * 60 + minute) * 60 + second))
}

/// Reads an RFC 3339 timestamp, `1994-11-06T08:49:37.5Z` or with an offset. Dates before 1970 are not read.
pub(super) fn parse_rfc3339(text: &str) -> Option<SystemTime> {
    let (date, time) = text.trim().split_once(['T', 't', ' '])?;
    let mut date = date.split('-');
    let year: u64 = in_range(date.next()?, 1970, 9999)?;
    let month: u64 = in_range(date.next()?, 1, 12)?;
    let day: u64 = in_range(date.next()?, 1, 31)?;
    let (time, offset, is_east) = match time.find(['Z', 'z', '+', '-']) {
        Some(at) => {
            let (time, zone) = time.split_at(at);
            (time, zone.get(1..)?, zone.starts_with('+'))
        }
        None => return None,
    };
    let (time, fraction) = time.split_once('.').unwrap_or((time, "0"));
    let mut clock = time.split(':');
    let hour: u64 = in_range(clock.next()?, 0, 23)?;
    let minute: u64 = in_range(clock.next()?, 0, 59)?;
    let second: u64 = in_range(clock.next()?, 0, 60)?;
    if date.next().is_some() || clock.next().is_some() || !fraction.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let fraction = Duration::try_from_secs_f64(format!("0.{fraction}").parse().ok()?).ok()?;
    let offset = match offset.split_once(':') {
        Some((hours, minutes)) => in_range(hours, 0, 23)? * 3_600 + in_range(minutes, 0, 59)? * 60,
        None if offset.is_empty() => 0,
        None => return None,
    };
    let offset = Duration::from_secs(offset);
    let days = days_since_epoch(year, month, day);
    let local =
        UNIX_EPOCH.checked_add(Duration::from_secs(((days * 24 + hour) * 60 + minute) * 60 + second) + fraction)?;
    if is_east { local.checked_sub(offset) } else { local.checked_add(offset) }
}

fn in_range(digits: &str, least: u64, most: u64) -> Option<u64> {
    let number = digits.parse().ok()?;
    (least..=most).contains(&number).then_some(number)
}

/// Days from 1970-01-01. Years are counted from March, so that the leap day comes last and months follow one formula.
fn days_since_epoch(year: u64, month: u64, day: u64) -> u64 {
    let year = if month <= 2 { year - 1 } else { year };
    let month_from_march = (month + 9) % 12;
    let day_of_year = (153 * month_from_march + 2) / 5 + day - 1;
    year * 365 + year / 4 - year / 100 + year / 400 + day_of_year - 719_468
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_read_as_the_seconds_they_mean() {
        for (text, seconds) in [
            ("Thu, 01 Jan 1970 00:00:00 GMT", 0),
            ("Sun, 06 Nov 1994 08:49:37 GMT", 784_111_777),
            ("Tue, 29 Feb 2000 23:59:59 GMT", 951_868_799),
            ("Fri, 31 Dec 2100 00:00:00 GMT", 4_133_894_400),
        ] {
            assert_eq!(parse(text), Some(UNIX_EPOCH + Duration::from_secs(seconds)), "{text}");
        }
    }

    #[test]
    fn what_is_no_such_date_is_not_read() {
        for text in [
            "",
            "12",
            "Sunday, 06-Nov-94 08:49:37 GMT",
            "Sun Nov  6 08:49:37 1994",
            "Sun, 06 Nov 1994 08:49:37 CET",
            "Sun, 06 Nov 1994 25:49:37 GMT",
            "Sun, 06 Nov 1994 08:49 GMT",
            "Sun, 06 Nov 1960 08:49:37 GMT",
        ] {
            assert_eq!(parse(text), None, "{text}");
        }
    }
}
