//! The header `Retry-After` (RFC 9110, section 10.2.3).

use std::time::{Duration, SystemTime};

/// The longest pause that a receiver may ask for. A longer one is reduced to this: a wrong number at the
/// receiver must not end forwarding.
const MAX: Duration = Duration::from_secs(3600);

/// Parses a number of seconds or a date. `None` if it is neither. A date that has passed is no pause.
pub(super) fn parse(value: &str, now: SystemTime) -> Option<Duration> {
    let value = value.trim();
    let pause = if !value.is_empty() && value.bytes().all(|byte| byte.is_ascii_digit()) {
        // A number with too many digits is a long time as well.
        value.parse().map_or(MAX, Duration::from_secs)
    } else {
        httpdate::parse_http_date(value).ok()?.duration_since(now).unwrap_or_default()
    };
    Some(pause.min(MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(value: &str, pause: Option<u64>) {
        // Sun, 06 Nov 1994 08:49:37 GMT, the example of RFC 9110.
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(784_111_777);
        assert_eq!(parse(value, now), pause.map(Duration::from_secs), "{value:?}");
    }

    #[test]
    fn seconds_and_dates_are_read_and_anything_else_is_not() {
        check("0", Some(0));
        check(" 17 ", Some(17));
        check("86400", Some(3600));
        check("99999999999999999999999999", Some(3600));
        check("Sun, 06 Nov 1994 08:50:37 GMT", Some(60));
        check("Sunday, 06-Nov-94 08:50:37 GMT", Some(60));
        check("Sun Nov  6 08:50:37 1994", Some(60));
        check("Sun, 06 Nov 1994 08:00:00 GMT", Some(0));
        check("Mon, 06 Nov 2034 08:49:37 GMT", Some(3600));
        for value in ["", "-1", "1.5", "+3", "soon", "1994-11-06T08:50:37Z"] {
            check(value, None);
        }
    }
}
