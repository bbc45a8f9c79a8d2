//! The only module that reads the time.

#[cfg(any(test, audit_simulation))]
#[path = "../testing/simulation/clock.rs"]
mod simulated;

use std::{
    fmt,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

#[cfg(any(test, audit_simulation))]
pub(crate) use simulated::Simulated;

/// The length of a printed [`Timestamp`] in bytes: `2026-11-21T08:00:00.000000000Z`.
pub(crate) const TIMESTAMP_LEN: usize = 30;

const SECONDS_PER_DAY: i64 = 86_400;
/// 0000-01-01T00:00:00Z and 9999-12-31T23:59:59Z, the limits of a four-digit year.
const FIRST_SECOND: i64 = -62_167_219_200;
const LAST_SECOND: i64 = 253_402_300_799;

/// A point on the wall clock, in UTC, with nanoseconds. Clamped to the years 0000 to 9999.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Timestamp {
    seconds: i64,
    nanos: u32,
}

/// Both clocks, read together. Passed to the writer wherever a decision depends on the time.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Moment {
    /// Monotonic: never steps. Only differences are meaningful.
    pub(crate) elapsed: Duration,
    /// The time of day. May step in either direction.
    pub(crate) wall: Timestamp,
}

/// A clock whose monotonic time starts when it is created.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Clock {
    start: Instant,
    /// Whether `sleep` takes no time, for runs of thousands of openers.
    #[cfg(any(test, audit_simulation))]
    hurries: bool,
}

impl Clock {
    pub(crate) fn start() -> Self {
        Self {
            start: Instant::now(),
            #[cfg(any(test, audit_simulation))]
            hurries: false,
        }
    }

    /// Starts a clock whose `sleep` returns at once.
    #[cfg(any(test, audit_simulation))]
    pub(crate) fn hurried() -> Self {
        Self { hurries: true, ..Self::start() }
    }

    /// Suspends the calling thread.
    #[cfg_attr(
        not(any(test, audit_simulation)),
        expect(clippy::unused_self, reason = "the clock of a simulation hurries")
    )]
    pub(crate) fn sleep(self, pause: Duration) {
        #[cfg(any(test, audit_simulation))]
        if self.hurries {
            return;
        }
        std::thread::sleep(pause);
    }

    pub(crate) fn now(self) -> Moment {
        Moment { elapsed: self.start.elapsed(), wall: self.wall() }
    }

    /// Reads the wall clock.
    #[expect(clippy::unused_self, reason = "only code that holds a clock may read the time")]
    pub(crate) fn wall(self) -> Timestamp {
        #[cfg(any(test, audit_simulation))]
        if let Some(simulated) = Simulated::now() {
            return simulated;
        }
        Timestamp::from_system_time(SystemTime::now())
    }

    /// Reads the monotonic clock.
    pub(crate) fn elapsed(self) -> Duration {
        self.start.elapsed()
    }
}

impl Timestamp {
    /// The earliest and the latest timestamp.
    pub(crate) const EARLIEST: Self = Self { seconds: FIRST_SECOND, nanos: 0 };
    pub(crate) const LATEST: Self = Self { seconds: LAST_SECOND, nanos: 999_999_999 };

    pub(crate) fn from_system_time(time: SystemTime) -> Self {
        match time.duration_since(UNIX_EPOCH) {
            Ok(after) => {
                Self::from_unix(after.as_secs().try_into().unwrap_or(i64::MAX), after.subsec_nanos())
            }
            Err(before) => {
                // Seconds are rounded down before 1970, so that the nanoseconds always count
                // forward.
                let before = before.duration();
                let seconds = i64::try_from(before.as_secs()).unwrap_or(i64::MAX);
                match before.subsec_nanos() {
                    0 => Self::from_unix(-seconds, 0),
                    nanos => Self::from_unix(-seconds - 1, 1_000_000_000 - nanos),
                }
            }
        }
    }

    pub(crate) fn from_unix(seconds: i64, nanos: u32) -> Self {
        Self { seconds: seconds.clamp(FIRST_SECOND, LAST_SECOND), nanos: nanos.min(999_999_999) }
    }

    pub(crate) fn to_system_time(self) -> SystemTime {
        let nanos = Duration::from_nanos(u64::from(self.nanos));
        let whole = Duration::from_secs(self.seconds.unsigned_abs());
        if self.seconds >= 0 { UNIX_EPOCH + whole + nanos } else { UNIX_EPOCH - whole + nanos }
    }

    /// Returns whole seconds since 1970, to compare days and ages.
    pub(crate) fn unix_seconds(self) -> i64 {
        self.seconds
    }

    /// Returns how long after `earlier` this is; zero if it is not after.
    pub(crate) fn since(self, earlier: Self) -> Duration {
        // Both are counted from the first timestamp, so that neither is negative.
        let since_first =
            |at: Self| Duration::new(at.seconds.saturating_sub(FIRST_SECOND).unsigned_abs(), at.nanos);
        since_first(self).saturating_sub(since_first(earlier))
    }

    /// Prints RFC 3339 in UTC, with nine fractional digits and `Z`, so always in the same width.
    pub(crate) fn to_bytes(self) -> [u8; TIMESTAMP_LEN] {
        let mut text = self.second_to_bytes();
        if let Some(fraction) = text.get_mut(20..).and_then(<[u8]>::first_chunk_mut) {
            *fraction = self.fraction();
        }
        text
    }

    /// Returns the nine digits of the fraction. Computes the last eight in parallel, because this
    /// runs for every event.
    pub(crate) fn fraction(self) -> [u8; 9] {
        let (first, rest) = (self.nanos / 100_000_000, u64::from(self.nanos % 100_000_000));
        // SIMD within a register: the number is split into two halves of four digits, these into
        // pairs, and these into digits. Each is in its own part of the word, the more significant
        // part in the lower byte.
        let fours = (rest / 10_000) | ((rest % 10_000) << 32);
        let hundreds = ((fours * 10_486) >> 20) & 0x0000_007F_0000_007F;
        let pairs = hundreds | ((fours - hundreds * 100) << 16);
        let tens = ((pairs * 103) >> 10) & 0x000F_000F_000F_000F;
        let digits = tens | ((pairs - tens * 10) << 8);
        let mut text = [b'0' + first.to_le_bytes()[0]; 9];
        if let Some(behind) = text.last_chunk_mut() {
            *behind = (digits | 0x3030_3030_3030_3030).to_le_bytes();
        }
        text
    }

    /// Prints the same with zeros for the fraction.
    fn second_to_bytes(self) -> [u8; TIMESTAMP_LEN] {
        let mut text = *b"0000-00-00T00:00:00.000000000Z";
        let (year, month, day) = civil_from_days(self.seconds.div_euclid(SECONDS_PER_DAY));
        let second = self.seconds.rem_euclid(SECONDS_PER_DAY);
        put(&mut text, 0, 4, year.unsigned_abs());
        put(&mut text, 5, 2, month.unsigned_abs());
        put(&mut text, 8, 2, day.unsigned_abs());
        put(&mut text, 11, 2, (second / 3600).unsigned_abs());
        put(&mut text, 14, 2, (second / 60 % 60).unsigned_abs());
        put(&mut text, 17, 2, (second % 60).unsigned_abs());
        text
    }

    /// Parses what `to_bytes` printed. Returns `None` for anything else.
    pub(crate) fn parse(text: &[u8]) -> Option<Self> {
        let text: &[u8; TIMESTAMP_LEN] = text.try_into().ok()?;
        // Checks every position without a branch: this runs for every line that is read.
        let mut bad = 0;
        for (byte, shape) in text.iter().zip(b"0000-00-00T00:00:00.000000000Z") {
            // A digit differs from `0` by at most nine, punctuation not at all.
            let (off, allowed) = (byte.wrapping_sub(*shape), if *shape == b'0' { 9 } else { 0 });
            bad |= u8::from(off > allowed);
        }
        if bad != 0 {
            return None;
        }
        let number = |at: usize, digits: usize| {
            let digits = text.iter().skip(at).take(digits);
            digits.fold(0_i64, |number, digit| number * 10 + i64::from(digit - b'0'))
        };
        let (year, month, day) = (number(0, 4), number(5, 2), number(8, 2));
        let (hour, minute, second) = (number(11, 2), number(14, 2), number(17, 2));
        let exists = (1..=12).contains(&month) && (1..=last_day_of(year, month)).contains(&day);
        if !exists || hour > 23 || minute > 59 || second > 59 {
            return None;
        }
        let days = days_from_civil(year, month, day);
        let seconds = days * SECONDS_PER_DAY + hour * 3600 + minute * 60 + second;
        Some(Self::from_unix(seconds, u32::try_from(number(20, 9)).ok()?))
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&String::from_utf8_lossy(&self.to_bytes()))
    }
}

/// Writes `number` as `digits` decimal digits from `at` on.
fn put(text: &mut [u8; TIMESTAMP_LEN], at: usize, digits: usize, mut number: u64) {
    for byte in text.iter_mut().skip(at).take(digits).rev() {
        *byte = b'0' + u8::try_from(number % 10).unwrap_or_default();
        number /= 10;
    }
}

/// Returns the proleptic Gregorian date of a day counted from 1970-01-01. Eras of 400 years begin
/// on 1 March, so that the leap day is the last day of its year.
fn civil_from_days(days: i64) -> (i64, i64, i64) {
    // Days since 0000-03-01, the first day of an era.
    let days = days + 719_468;
    let era = days.div_euclid(146_097);
    let day_of_era = days.rem_euclid(146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = (month_from_march + 2) % 12 + 1;
    (era * 400 + year_of_era + i64::from(month <= 2), month, day)
}

fn last_day_of(year: i64, month: i64) -> i64 {
    match month {
        2 if year % 4 == 0 && (year % 100 != 0 || year % 400 == 0) => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

/// Returns the day of a date, the inverse of [`civil_from_days`].
fn days_from_civil(year: i64, month: i64, day: i64) -> i64 {
    let year = year - i64::from(month <= 2);
    let year_of_era = year.rem_euclid(400);
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    year.div_euclid(400) * 146_097 + year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year
        - 719_468
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(seconds: i64, nanos: u32, text: &str) {
        let at = Timestamp::from_unix(seconds, nanos);
        assert_eq!(at.to_string(), text);
        assert_eq!(Timestamp::parse(text.as_bytes()), Some(at));
        assert_eq!(Timestamp::from_system_time(at.to_system_time()), at);
    }

    #[test]
    fn a_timestamp_prints_and_parses() {
        check(0, 0, "1970-01-01T00:00:00.000000000Z");
        check(-1, 999_999_999, "1969-12-31T23:59:59.999999999Z");
        check(951_782_400, 1, "2000-02-29T00:00:00.000000001Z");
        check(1_795_248_000, 5, "2026-11-21T08:00:00.000000005Z");
        check(LAST_SECOND, 999_999_999, "9999-12-31T23:59:59.999999999Z");
        check(FIRST_SECOND, 0, "0000-01-01T00:00:00.000000000Z");
        assert_eq!(Timestamp::from_unix(i64::MAX, 0).unix_seconds(), LAST_SECOND);
    }

    /// Beyond 584 years, the most that 64 bits of nanoseconds hold, the difference was taken for
    /// zero.
    #[test]
    fn the_difference_of_two_timestamps_is_exact_however_far_apart_they_are() {
        let at = Timestamp::from_unix;
        for (from, to, between) in [
            (at(5, 7), at(5, 7), Duration::ZERO),
            (at(5, 7), at(5, 6), Duration::ZERO),
            (at(5, 999_999_999), at(6, 0), Duration::from_nanos(1)),
            (at(-5, 1), at(5, 3), Duration::new(10, 2)),
            (at(0, 0), at(20_000_000_000, 5), Duration::new(20_000_000_000, 5)),
            (Timestamp::EARLIEST, Timestamp::LATEST, Duration::new(315_569_519_999, 999_999_999)),
        ] {
            assert_eq!(to.since(from), between);
        }
        assert_eq!(Timestamp::EARLIEST.since(Timestamp::LATEST), Duration::ZERO);
    }

    #[test]
    fn every_fraction_is_printed_exactly() {
        for nanos in (0..100).chain((0..1_000_000_000).step_by(999_983)) {
            check(1, nanos, &format!("1970-01-01T00:00:01.{nanos:09}Z"));
        }
        for nanos in (0..10_000).flat_map(|four| [four, four * 10_000]) {
            let at = Timestamp::from_unix(0, nanos);
            assert_eq!(at.fraction(), *format!("{nanos:09}").as_bytes());
        }
    }

    #[test]
    fn every_day_of_eight_centuries_survives_the_round_trip() {
        for day in -150_000..150_000 {
            let (year, month, date) = civil_from_days(day);
            assert_eq!(days_from_civil(year, month, date), day);
            let (next_year, next_month, next_date) = civil_from_days(day + 1);
            let is_last = date == last_day_of(year, month);
            assert_eq!(is_last, next_date == 1 && (next_year, next_month) != (year, month));
        }
    }

    #[test]
    fn malformed_timestamps_are_refused() {
        for text in [
            "2026-02-30T00:00:00.000000000Z",
            "2026-02-29T00:00:00.000000000Z",
            "2100-02-29T00:00:00.000000000Z",
            "2026-00-01T00:00:00.000000000Z",
            "2026-13-01T00:00:00.000000000Z",
            "2026-01-00T00:00:00.000000000Z",
            "2026-11-31T00:00:00.000000000Z",
            "2026-11-21T08:60:00.000000000Z",
            "2026-11-21T0x:00:00.000000000Z",
            "2026-11-21t08:00:00.000000000Z",
            "2026-11-21T24:00:00.000000000Z",
            "2026-11-21T08:00:60.000000000Z",
            "2026-11-21T08:00:00.00000000Z",
            "2026-11-21 08:00:00.000000000Z",
            "",
        ] {
            assert_eq!(Timestamp::parse(text.as_bytes()), None, "{text}");
        }
    }
}
