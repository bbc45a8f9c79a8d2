//! The times of records.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Parses `0000-00-00T00:00:00.000000000Z` into the time in microseconds and the remaining nanoseconds.
pub(crate) fn parse_time(text: &[u8]) -> Option<(SystemTime, i16)> {
    const SHAPE: &[u8] = b"0000-00-00T00:00:00.000000000Z";
    let is_of_shape = |(byte, shape): (&u8, &u8)| {
        if *shape == b'0' { byte.is_ascii_digit() } else { byte == shape }
    };
    if text.len() != SHAPE.len() || !text.iter().zip(SHAPE).all(is_of_shape) {
        return None;
    }
    let number = |at: usize, digits: usize| {
        let digits = text.iter().skip(at).take(digits);
        digits.fold(0_u32, |number, digit| number * 10 + u32::from(digit - b'0'))
    };
    let (year, month, day) = (i64::from(number(0, 4)), number(5, 2), number(8, 2));
    let (hour, minute, second) = (number(11, 2), number(14, 2), number(17, 2));
    if !(1..=days_of_month(year, month)).contains(&day) || hour > 23 || minute > 59 || second > 59 {
        return None;
    }
    let seconds = days_since_1970(year, month, day) * 86_400 + i64::from(hour * 3600 + minute * 60 + second);
    let whole = Duration::from_secs(seconds.unsigned_abs());
    let at = if seconds < 0 { UNIX_EPOCH - whole } else { UNIX_EPOCH + whole };
    let nanos = number(20, 9);
    Some((at + Duration::from_micros((nanos / 1000).into()), i16::try_from(nanos % 1000).ok()?))
}

fn days_of_month(year: i64, month: u32) -> u32 {
    let is_leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    match month {
        2 => 28 + u32::from(is_leap),
        4 | 6 | 9 | 11 => 30,
        1..=12 => 31,
        _ => 0,
    }
}

/// Returns the days since 1970. It counts eras of 400 years that begin on 1 March, so that the leap day is
/// the last day of its year.
fn days_since_1970(year: i64, month: u32, day: u32) -> i64 {
    let (year, month) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let year_of_era = year.rem_euclid(400);
    let day_of_year = i64::from((153 * month + 2) / 5 + day - 1);
    year.div_euclid(400) * 146_097 + year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year
        - 719_468
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_as_they_are_written() {
        let time = |text: &str| parse_time(text.as_bytes());
        assert_eq!(time("1970-01-01T00:00:00.000001002Z"), Some((UNIX_EPOCH + Duration::from_micros(1), 2)));
        let leap = UNIX_EPOCH + Duration::from_secs(951_782_400) + Duration::from_micros(999_999);
        assert_eq!(time("2000-02-29T00:00:00.999999999Z"), Some((leap, 999)));
        assert_eq!(time("1969-12-31T23:59:59.000000000Z"), Some((UNIX_EPOCH - Duration::from_secs(1), 0)));
        for bad in [
            "2001-02-29T00:00:00.000000000Z",
            "2000-13-01T00:00:00.000000000Z",
            "2000-01-01",
            "1970-01-01T00:00:60.000000000Z",
        ] {
            assert_eq!(time(bad), None, "{bad}");
        }
        assert!(
            time("0000-01-01T00:00:00.000000000Z").is_some()
                && time("9999-12-31T23:59:59.999999999Z").is_some()
        );
    }
}
