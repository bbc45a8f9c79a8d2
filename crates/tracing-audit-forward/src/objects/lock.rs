//! Retention and legal hold, as headers of a PUT.

use std::time::{Duration, SystemTime};

use http::{HeaderMap, HeaderName, HeaderValue};

use super::client::Headers;

/// How long and how strictly the bucket has to keep an object, if not by its default.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Lock {
    pub(super) retention: Option<(Retention, u32)>,
    pub(super) has_legal_hold: bool,
}

/// How strictly a bucket keeps an object until its retention has passed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Retention {
    /// A user with the right to bypass it can delete the object earlier.
    Governance,
    /// Nobody can delete the object earlier, or shorten the time.
    Compliance,
}

const DAY: u64 = 86_400;

impl Lock {
    /// Returns whether the bucket needs object lock.
    pub(super) fn is_asked_for(self) -> bool {
        self != Self::default()
    }

    pub(super) fn headers(self, now: SystemTime) -> Option<Headers> {
        let mut headers = HeaderMap::new();
        if let Some((mode, days)) = self.retention {
            let mode = if mode == Retention::Compliance { "COMPLIANCE" } else { "GOVERNANCE" };
            headers.insert(HeaderName::from_static("x-amz-object-lock-mode"), HeaderValue::from_static(mode));
            let until = time(now + Duration::from_secs(u64::from(days) * DAY));
            let name = HeaderName::from_static("x-amz-object-lock-retain-until-date");
            headers.insert(name, HeaderValue::from_str(&until).ok()?);
        }
        if self.has_legal_hold {
            let name = HeaderName::from_static("x-amz-object-lock-legal-hold");
            headers.insert(name, HeaderValue::from_static("ON"));
        }
        (!headers.is_empty()).then_some(Headers(headers))
    }
}

/// Formats a time in UTC, to the second.
fn time(at: SystemTime) -> String {
    let seconds = at.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs();
    let (days, second) = (seconds / DAY, seconds % DAY);
    // The civil date of a day, by Howard Hinnant's `civil_from_days`, for days from 1970 on.
    let shifted = days + 719_468;
    let (era, day_of_era) = (shifted / 146_097, shifted % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_printed_in_utc() {
        for (seconds, text) in [
            (0, "1970-01-01T00:00:00Z"),
            (951_782_399, "2000-02-28T23:59:59Z"),
            (951_782_400, "2000-02-29T00:00:00Z"),
            (1_798_761_599, "2026-12-31T23:59:59Z"),
            (4_107_542_400, "2100-03-01T00:00:00Z"),
        ] {
            assert_eq!(time(SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)), text);
        }
    }

    #[test]
    fn only_requested_locks_send_headers() {
        assert!(Lock::default().headers(SystemTime::UNIX_EPOCH).is_none());
        let lock = Lock { retention: Some((Retention::Compliance, 10)), has_legal_hold: true };
        let Headers(headers) = lock.headers(SystemTime::UNIX_EPOCH).unwrap();
        assert_eq!(headers["x-amz-object-lock-mode"], "COMPLIANCE");
        assert_eq!(headers["x-amz-object-lock-retain-until-date"], "1970-01-11T00:00:00Z");
        assert_eq!(headers["x-amz-object-lock-legal-hold"], "ON");
    }
}
