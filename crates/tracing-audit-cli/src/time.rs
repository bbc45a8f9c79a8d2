//! Times on the command line, as in `--since` and `--until`.

use std::time::SystemTime;

use anyhow::{Context, Result, bail};
use jiff::{Span, Timestamp, ZonedDateTime, civil::DateTime, tz::TimeZone};

/// A point in time: RFC 3339, a date with or without a time of day, `now`, `today`, `yesterday`, or an age such as `2h` or
/// `3 days`.
///
/// It is in UTC unless it names a zone, as in `2026-11-21T08:00[Europe/Berlin]` or `2026-11-21 08:00+01:00`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Point(SystemTime);

impl Point {
    pub(crate) fn system_time(self) -> SystemTime {
        self.0
    }

    /// Parses a time from the command line.
    pub(crate) fn parse(text: &str) -> Result<Self> {
        Ok(Self(parse_at(text, Timestamp::now())?.try_into()?))
    }
}

fn parse_at(text: &str, now: Timestamp) -> Result<Timestamp> {
    let text = text.trim();
    let today = || now.to_zoned_datetime(TimeZone::UTC).start_of_day();
    match text {
        "now" => return Ok(now),
        "today" => return Ok(today()?.timestamp()),
        "yesterday" => return Ok(today()?.yesterday()?.start_of_day()?.timestamp()),
        _ => {}
    }
    // From the most specific syntax to the least: with a zone, with an offset, without either.
    if let Ok(zoned) = text.parse::<ZonedDateTime>() {
        return Ok(zoned.timestamp());
    }
    if let Ok(timestamp) = text.parse::<Timestamp>() {
        return Ok(timestamp);
    }
    if let Ok(civil) = text.parse::<DateTime>() {
        return Ok(civil.to_zoned_datetime(TimeZone::UTC)?.timestamp());
    }
    // Everything else is an age, such as `2h` or `3 days ago`.
    let Ok(span) = text.trim_end_matches("ago").trim_end().parse::<Span>() else {
        bail!(
            "`{text}` is not a time: write 2026-11-21, 2026-11-21T08:00Z, yesterday, or an age such as 2h or 3d"
        );
    };
    // Days and months are calendar units, so they need a zone to be subtracted.
    let then = now.to_zoned_datetime(TimeZone::UTC).checked_sub(span.abs());
    Ok(then.with_context(|| format!("`{text}` ago is out of range"))?.timestamp())
}

/// Shortens a timestamp of the format for printing: to the millisecond, in UTC.
pub(crate) fn short(timestamp: &str) -> String {
    match timestamp.split_once('T') {
        Some((date, time)) => {
            format!("{date} {}Z", time.get(..12).unwrap_or_else(|| time.trim_end_matches('Z')))
        }
        None => timestamp.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may fail")]

    use super::*;

    #[test]
    fn times_are_parsed_as_people_write_them() {
        let now: Timestamp = "2026-11-21T08:30:00Z".parse().unwrap();
        for (text, expected) in [
            ("2026-11-21T08:00:00.5Z", "2026-11-21T08:00:00.5Z"),
            ("2026-11-21T08:00:00+01:00", "2026-11-21T07:00:00Z"),
            ("2026-11-21 08:00", "2026-11-21T08:00:00Z"),
            ("2026-11-21", "2026-11-21T00:00:00Z"),
            ("2026-11-21T08:00[Europe/Berlin]", "2026-11-21T07:00:00Z"),
            ("yesterday", "2026-11-20T00:00:00Z"),
            ("today", "2026-11-21T00:00:00Z"),
            ("now", "2026-11-21T08:30:00Z"),
            ("2h", "2026-11-21T06:30:00Z"),
            ("90 min ago", "2026-11-21T07:00:00Z"),
            ("1 day", "2026-11-20T08:30:00Z"),
            ("1w", "2026-11-14T08:30:00Z"),
        ] {
            assert_eq!(parse_at(text, now).unwrap(), expected.parse().unwrap(), "{text}");
        }
        for text in ["", "soon", "2026-13-01", "99999999999 years", "12"] {
            assert!(parse_at(text, now).is_err(), "{text}");
        }
        assert_eq!(short("2026-11-21T08:00:00.123456789Z"), "2026-11-21 08:00:00.123Z");
    }
}
