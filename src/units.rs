//! Parsing and printing of durations and sizes: `1s`, `1h30m`, `256MiB`.

use std::{fmt, time::Duration};

use crate::error::ParseError;

const SECOND: u64 = 1_000_000_000;

/// Units of durations, in nanoseconds. Micro has two code points: the micro sign, printed by `Debug` of a duration, and
/// the Greek letter.
const DURATIONS: &[(&str, u64)] = &[
    ("ns", 1),
    ("us", 1_000),
    ("\u{b5}s", 1_000),
    ("\u{3bc}s", 1_000),
    ("ms", 1_000_000),
    ("s", SECOND),
    ("m", 60 * SECOND),
    ("h", 3_600 * SECOND),
    ("d", 86_400 * SECOND),
];

/// Units of sizes, in bytes.
const SIZES: &[(&str, u64)] = &[
    ("", 1),
    ("B", 1),
    ("kB", 1_000),
    ("KB", 1_000),
    ("MB", 1_000_000),
    ("GB", 1_000_000_000),
    ("TB", 1_000_000_000_000),
    ("KiB", 1 << 10),
    ("MiB", 1 << 20),
    ("GiB", 1 << 30),
    ("TiB", 1 << 40),
];

/// Parses a duration: numbers with their units, the largest unit first.
pub(crate) fn parse_duration(text: &str) -> Result<Duration, ParseError> {
    let parse = || {
        let mut nanos = 0_u128;
        let mut rest = text;
        let mut largest = u64::MAX;
        // At least one round, so that an empty text is refused.
        while !rest.is_empty() || largest == u64::MAX {
            let (amount, unit, more) = quantity(rest, DURATIONS)?;
            // Units must decrease: `30m1h` and `1s1s` are more likely mistakes than settings.
            if unit >= largest {
                return None;
            }
            nanos = nanos.checked_add(amount)?;
            (largest, rest) = (unit, more.trim_start());
        }
        let (seconds, nanos) = (nanos / u128::from(SECOND), nanos % u128::from(SECOND));
        Some(Duration::new(u64::try_from(seconds).ok()?, u32::try_from(nanos).ok()?))
    };
    parse().ok_or_else(|| {
        ParseError::new(
            "duration",
            text,
            "numbers with a unit, `ns`, `us`, `ms`, `s`, `m`, `h` or `d`: `1s`, `1h30m`",
        )
    })
}

/// Parses a size in bytes.
pub(crate) fn parse_size(text: &str) -> Result<u64, ParseError> {
    let parse = || {
        let (bytes, _, rest) = quantity(text, SIZES)?;
        if rest.is_empty() { u64::try_from(bytes).ok() } else { None }
    };
    parse().ok_or_else(|| {
        ParseError::new(
            "size",
            text,
            "bytes, or a number with `kB`, `MB`, `GB`, `TB`, `KiB`, `MiB`, `GiB` or `TiB`: `256MiB`",
        )
    })
}

/// Parses the first number of a text with its unit. Returns its value, the value of the unit, and the rest of the text.
fn quantity<'a>(text: &'a str, units: &[(&str, u64)]) -> Option<(u128, u64, &'a str)> {
    let (number, rest) =
        split(text, |character| character.is_ascii_digit() || matches!(character, '.' | '_'));
    let (unit, rest) = split(rest.trim_start(), char::is_alphabetic);
    let (_, unit) = units.iter().find(|(name, _)| *name == unit)?;
    Some((times(number, *unit)?, *unit, rest))
}

fn split(text: &str, is_first: impl Fn(char) -> bool) -> (&str, &str) {
    text.split_at(text.find(|character| !is_first(character)).unwrap_or(text.len()))
}

/// Multiplies a decimal number by a unit. `None` if the product is not a whole number: a setting is never rounded.
fn times(number: &str, unit: u64) -> Option<u128> {
    /// Few enough that no product below overflows.
    const MOST_DECIMALS: usize = 18;
    let (whole, fraction) = match number.split_once('.') {
        Some((whole, fraction)) => (digits(whole)?, fraction),
        None => (digits(number)?, "0"),
    };
    // In integers, because `f64` would round.
    let decimals = u32::try_from(fraction.len()).ok().filter(|_| fraction.len() <= MOST_DECIMALS)?;
    let (part, divisor) = (digits(fraction)?.checked_mul(u128::from(unit))?, 10_u128.pow(decimals));
    let whole = whole.checked_mul(u128::from(unit))?;
    if part.is_multiple_of(divisor) { whole.checked_add(part / divisor) } else { None }
}

/// Parses a whole number, which may have `_` between its digits.
pub(crate) fn digits(text: &str) -> Option<u128> {
    let is_digit = |byte: Option<&u8>| byte.is_some_and(u8::is_ascii_digit);
    if !is_digit(text.as_bytes().first()) || !is_digit(text.as_bytes().last()) {
        return None;
    }
    text.replace('_', "").parse().ok()
}

/// Prints a duration in the largest unit that leaves no remainder.
pub(crate) struct DurationText(pub(crate) Duration);

impl fmt::Display for DurationText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = self.0.as_secs();
        let is_whole = self.0.subsec_nanos() == 0 && seconds > 0;
        let units = [("d", 86_400), ("h", 3_600), ("m", 60)];
        match units.into_iter().find(|(_, unit)| is_whole && seconds.is_multiple_of(*unit)) {
            Some((name, unit)) => write!(f, "{}{name}", seconds / unit),
            None => write!(f, "{:?}", self.0),
        }
    }
}

/// Prints a size in the largest binary unit that leaves no remainder.
pub(crate) struct SizeText(pub(crate) u64);

impl fmt::Display for SizeText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let units = [("TiB", 1_u64 << 40), ("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)];
        match units.into_iter().find(|(_, unit)| self.0 > 0 && self.0.is_multiple_of(*unit)) {
            Some((name, unit)) => write!(f, "{}{name}", self.0 / unit),
            None => write!(f, "{}", self.0),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn durations_are_read_as_they_are_written_by_hand() {
        for (text, expected) in [
            ("1s", Duration::from_secs(1)),
            ("250ms", Duration::from_millis(250)),
            ("1h", Duration::from_secs(3_600)),
            ("90d", Duration::from_secs(90 * 86_400)),
            ("90 d", Duration::from_secs(90 * 86_400)),
            ("1h30m", Duration::from_secs(5_400)),
            ("1h 30m 5s", Duration::from_secs(5_405)),
            ("1.5s", Duration::from_millis(1_500)),
            ("0.000000001s", Duration::from_nanos(1)),
            ("10us", Duration::from_micros(10)),
            ("10\u{b5}s", Duration::from_micros(10)),
            ("10\u{3bc}s", Duration::from_micros(10)),
            ("7ns", Duration::from_nanos(7)),
            ("0s", Duration::ZERO),
            ("1_000s", Duration::from_secs(1_000)),
        ] {
            assert_eq!(parse_duration(text).unwrap(), expected, "{text}");
        }
    }

    #[test]
    fn what_is_no_duration_is_refused() {
        for text in [
            "",
            " ",
            "5",
            "s",
            "1",
            "1 ",
            " 1s",
            "-1s",
            "+1s",
            "1sec",
            "1S",
            "1s1s",
            "30m1h",
            "1.s",
            ".5s",
            "1..5s",
            "1e3s",
            "0.5ns",
            "1_s",
            "_1s",
            "1s,",
            "1y",
            "99999999999999999999d",
            "1.0000000000000000000s",
        ] {
            let error = parse_duration(text).unwrap_err().to_string();
            assert!(error.contains(&format!("{text:?}")) && error.contains("`ms`"), "{error}");
        }
    }

    #[test]
    fn sizes_are_read_as_they_are_written_by_hand() {
        for (text, expected) in [
            ("256MiB", 256 << 20),
            ("256 MiB", 256 << 20),
            ("1GiB", 1 << 30),
            ("64KiB", 64 << 10),
            ("2TiB", 2 << 40),
            ("1.5KiB", 1_536),
            ("1_000_000", 1_000_000),
            ("0", 0),
            ("12B", 12),
            ("3kB", 3_000),
            ("3KB", 3_000),
            ("3MB", 3_000_000),
            ("3GB", 3_000_000_000),
            ("3TB", 3_000_000_000_000),
            ("18446744073709551615", u64::MAX),
        ] {
            assert_eq!(parse_size(text).unwrap(), expected, "{text}");
        }
    }

    #[test]
    fn what_is_no_size_is_refused() {
        for text in [
            "",
            "MiB",
            "-1",
            "1m",
            "1M",
            "1mib",
            "1 MiB 1",
            "1MiB1KiB",
            "0.1KiB",
            "18446744073709551616",
            "16777216TiB",
            "1_",
            "0x10",
        ] {
            let error = parse_size(text).unwrap_err().to_string();
            assert!(error.contains(&format!("{text:?}")) && error.contains("`MiB`"), "{error}");
        }
    }

    #[test]
    fn the_largest_unit_without_remainder_is_printed() {
        let duration = |seconds| DurationText(Duration::from_secs(seconds)).to_string();
        assert_eq!([0, 59, 60, 90, 7_200, 86_400].map(duration), ["0ns", "59s", "1m", "90s", "2h", "1d"]);
        let size = |bytes| SizeText(bytes).to_string();
        assert_eq!(
            [0, 1_000, 1_024, 3 << 20, (1 << 30) + 1, 5 << 40].map(size),
            ["0", "1000", "1KiB", "3MiB", "1073741825", "5TiB"]
        );
    }

    proptest! {
        #[test]
        fn what_is_printed_is_read_back(seconds: u64, nanos in 0..1_000_000_000_u32, bytes: u64, shift in 0..64_u32) {
            let durations = [Duration::new(seconds, nanos), Duration::new(seconds, 0), Duration::new(0, nanos)];
            for duration in durations {
                prop_assert_eq!(parse_duration(&DurationText(duration).to_string()).unwrap(), duration);
                prop_assert_eq!(parse_duration(&format!("{duration:?}")).unwrap(), duration);
            }
            let bytes = bytes >> shift << shift;
            prop_assert_eq!(parse_size(&SizeText(bytes).to_string()).unwrap(), bytes);
        }

        #[test]
        fn no_text_makes_a_parser_panic(text: String, number in "[0-9._]{0,40}(d|TiB)") {
            for text in [text, number] {
                drop((parse_duration(&text), parse_size(&text)));
            }
        }
    }
}
