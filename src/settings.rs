//! Settings as passive values, without behaviour.

use std::{fmt, str::FromStr, time::Duration};

use crate::{
    error::ParseError,
    named::named,
    units::{DurationText, SizeText, digits, parse_duration, parse_size},
};

/// When records are synced to disk.
///
/// In every mode, a queued record is written to the file within 10 ms, or when the sync in progress ends. A killed
/// process therefore loses little. The mode sets when `fdatasync` runs.
///
/// | what can be lost | killed process | power cut |
/// |---|---|---|
/// | `Immediate` | no event whose macro returned | no event whose macro returned |
/// | `Batched` | events not yet written | the last batch (`size` or `interval`), and what arrives during two syncs |
/// | `Hybrid` | routine: as in `Batched`; no critical event whose macro returned | the same |
///
/// A macro also returns when the wait bound has passed, and at once while the log is failing or stalled. Its event can
/// then still be lost. With `critical_immediate: false`, so can a critical event until its sync has ended.
///
/// # Examples
///
/// ```no_run
/// # fn main() -> Result<(), tracing_audit::Error> {
/// use std::time::Duration;
/// use tracing_audit::{AuditLog, FlushMode};
///
/// // Syncs after 1,000 records or 200 ms; no macro waits for it.
/// let mode = FlushMode::Batched { size: 1_000, interval: Duration::from_millis(200) };
/// let audit = AuditLog::builder("audit-log").flush_mode(mode).open()?;
/// # Ok(())
/// # }
/// ```
#[doc(alias = "fsync")]
#[doc(alias = "fdatasync")]
#[doc(alias = "durability")]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum FlushMode {
    /// Every macro returns when its record is durable. Waiting threads share syncs.
    Immediate,
    /// Every macro returns when its record is queued. The log is synced when `size` records are
    /// unsynced or the oldest is `interval` old, whichever comes first.
    Batched {
        /// How many records may be unsynced, at least 1.
        size: u32,
        /// How old the oldest unsynced record may become, at least 1 ms.
        interval: Duration,
    },
    /// Routine events as in `Batched`; critical ones are durable when the macro returns.
    Hybrid {
        /// How many records may be unsynced, at least 1. Default 100.
        batch_size: u32,
        /// How old the oldest unsynced record may become, at least 1 ms. Default 1 s.
        batch_interval: Duration,
        /// Whether the macro waits for a critical event's sync. Default true. If false, a
        /// critical event still starts a sync at once, but its macro does not wait.
        critical_immediate: bool,
    },
}

impl FlushMode {
    /// The default batch, in either mode.
    pub(crate) const DEFAULT_SIZE: u32 = 100;
    pub(crate) const DEFAULT_INTERVAL: Duration = Duration::from_secs(1);

    /// Returns the mode of a text or table that says only `batched`.
    pub(crate) const fn default_batched() -> Self {
        Self::Batched { size: Self::DEFAULT_SIZE, interval: Self::DEFAULT_INTERVAL }
    }
}

impl Default for FlushMode {
    /// Returns `Hybrid` with 100 records, one second, and critical events immediate.
    fn default() -> Self {
        Self::Hybrid {
            batch_size: Self::DEFAULT_SIZE,
            batch_interval: Self::DEFAULT_INTERVAL,
            critical_immediate: true,
        }
    }
}

impl fmt::Display for FlushMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Immediate => f.write_str("immediate"),
            Self::Batched { size, interval } => write!(f, "batched {size} {interval:?}"),
            Self::Hybrid { batch_size, batch_interval, critical_immediate } => write!(
                f,
                "hybrid {batch_size} {batch_interval:?} {}",
                if *critical_immediate { "critical_immediate" } else { "critical_queued" }
            ),
        }
    }
}

impl FromStr for FlushMode {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        let parse = || {
            let words: Vec<&str> = text.split(' ').collect();
            let hybrid = |batch_size, batch_interval, critical_immediate| {
                let (batch_size, batch_interval) = (count(batch_size)?, parse_duration(batch_interval).ok()?);
                Some(Self::Hybrid { batch_size, batch_interval, critical_immediate })
            };
            match *words {
                ["immediate"] => Some(Self::Immediate),
                ["batched"] => Some(Self::default_batched()),
                ["batched", size, interval] => {
                    Some(Self::Batched { size: count(size)?, interval: parse_duration(interval).ok()? })
                }
                ["hybrid"] => Some(Self::default()),
                // With numbers, the wait for critical events must be named too: it is too important for a default.
                ["hybrid", size, interval, "critical_immediate"] => hybrid(size, interval, true),
                ["hybrid", size, interval, "critical_queued"] => hybrid(size, interval, false),
                _ => None,
            }
        };
        parse().ok_or_else(|| {
            let expected =
                "`immediate`, `batched`, `hybrid`, `batched 100 1s`, `hybrid 100 1s critical_immediate` or \
                 `hybrid 100 1s critical_queued`";
            ParseError::new("flush mode", text, expected)
        })
    }
}

/// Reads a number of records or segments.
fn count(text: &str) -> Option<u32> {
    u32::try_from(digits(text)?).ok()
}

/// When a new segment begins: by UTC time, by size, or by whichever comes first.
///
/// The chain continues across segments: sequence numbers and links do not restart.
///
/// Prints and parses as `never`, a size, or a period and a size: `daily 256MiB`. As in code, `hourly` and `daily` alone
/// keep the default size limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Rotation {
    pub(crate) period: Option<Period>,
    pub(crate) max_bytes: u64,
}

/// The longest period of UTC time that one segment covers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Period {
    Hour,
    Day,
}

impl Rotation {
    /// The default size limit of a segment: 256 MiB.
    pub(crate) const DEFAULT_MAX_BYTES: u64 = 256 << 20;

    /// Begins no new segment because of time or size. One still begins after a failure, and by
    /// [`AuditLog::rotate`](crate::AuditLog::rotate).
    ///
    /// Retention never removes the newest segment. So it normally removes nothing, and every copy has to include the
    /// whole file.
    #[must_use]
    pub const fn never() -> Self {
        Self { period: None, max_bytes: u64::MAX }
    }

    /// Begins a new segment when the UTC hour changes, and before one would grow beyond 256 MiB, unless
    /// [`max_bytes`](Self::max_bytes) sets another limit.
    #[must_use]
    pub const fn hourly() -> Self {
        Self { period: Some(Period::Hour), max_bytes: Self::DEFAULT_MAX_BYTES }
    }

    /// Begins a new segment when the UTC day changes, and before one would grow beyond 256 MiB, unless
    /// [`max_bytes`](Self::max_bytes) sets another limit.
    #[must_use]
    pub const fn daily() -> Self {
        Self { period: Some(Period::Day), max_bytes: Self::DEFAULT_MAX_BYTES }
    }

    /// Also begins a new segment before one would grow beyond `max_bytes`, at least 64 KiB.
    ///
    /// `u64::MAX` means no limit. A segment always takes at least one record, however long.
    #[must_use]
    pub const fn max_bytes(mut self, max_bytes: u64) -> Self {
        self.max_bytes = max_bytes;
        self
    }
}

impl Default for Rotation {
    /// Returns [`Rotation::daily`]: daily, or at 256 MiB.
    fn default() -> Self {
        Self::daily()
    }
}

impl fmt::Display for Rotation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let period = match self.period {
            None => None,
            Some(Period::Hour) => Some("hourly"),
            Some(Period::Day) => Some("daily"),
        };
        let size = SizeText(self.max_bytes);
        match period {
            None if self.max_bytes == u64::MAX => f.write_str("never"),
            None => write!(f, "{size}"),
            // The size is printed even if it is the default, so that the text means the same in every version.
            Some(period) => write!(f, "{period} {size}"),
        }
    }
}

impl FromStr for Rotation {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        let parse = || {
            let (word, size) = text.split_once(' ').map_or((text, None), |(word, size)| (word, Some(size)));
            let period = match (word, size) {
                ("never", None) => return Some(Self::never()),
                ("hourly", _) => Self::hourly(),
                ("daily", _) => Self::daily(),
                _ => return Some(Self::never().max_bytes(parse_size(text).ok()?)),
            };
            let Some(size) = size else { return Some(period) };
            Some(period.max_bytes(parse_size(size).ok()?))
        };
        parse().ok_or_else(|| {
            ParseError::new(
                "rotation",
                text,
                "`never`, `hourly`, `daily`, a size such as `256MiB`, or `daily 256MiB`",
            )
        })
    }
}

/// Which old segments are removed. The default keeps everything.
///
/// Limits apply to each chain separately. Only whole segments are removed, oldest first, and never
/// the newest of a chain. Nothing is removed while a file named `hold` is in the directory. A chained
/// `prune` record is durable before its file is removed.
///
/// Prints and parses as `keep_all`, or as the names of its limits, each with its value: `max_age 90d max_bytes 10GiB
/// max_segments 100 min_age 30d require_forwarded archive,postgres unless_free_below 1GiB`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Hash)]
pub struct Retention {
    pub(crate) max_age: Option<Duration>,
    pub(crate) max_bytes: Option<u64>,
    pub(crate) max_segments: Option<u32>,
    pub(crate) min_age: Option<Duration>,
    pub(crate) require_forwarded: Vec<String>,
    pub(crate) unless_free_below: Option<u64>,
}

impl Retention {
    /// Keeps everything, until limits are added.
    #[must_use]
    pub const fn keep_all() -> Self {
        Self {
            max_age: None,
            max_bytes: None,
            max_segments: None,
            min_age: None,
            require_forwarded: Vec::new(),
            unless_free_below: None,
        }
    }

    /// Removes a segment when its last record is older than this.
    #[must_use]
    pub const fn max_age(mut self, age: Duration) -> Self {
        self.max_age = Some(age);
        self
    }

    /// Removes the oldest segments while a chain has more bytes than this.
    #[must_use]
    pub const fn max_bytes(mut self, bytes: u64) -> Self {
        self.max_bytes = Some(bytes);
        self
    }

    /// Removes the oldest segments while a chain has more of them than this, at least 1.
    #[must_use]
    pub const fn max_segments(mut self, segments: u32) -> Self {
        self.max_segments = Some(segments);
        self
    }

    /// Never removes a segment whose last record is younger than this, whatever the other limits say.
    #[must_use]
    pub const fn min_age(mut self, age: Duration) -> Self {
        self.min_age = Some(age);
        self
    }

    /// Removes a segment only once each of these forwarders reports that its store has all of it. Default: none.
    ///
    /// A record that a store refused counts as missing, and so does everything after it. Records before the one at
    /// which a forwarder started are not required. Names have 1 to 32 characters from `a` to `z`, `0` to `9` and `-`.
    /// Further calls add names.
    ///
    /// The requirement is kept in the directory of the log, in the file `forward-required`, to which `open` adds the
    /// names. Every process that removes segments therefore obeys it, even without this setting or after the setting is
    /// gone. To lift it, take the name out of this setting, reopen the log, and remove the name from the file; with the
    /// last name, remove the file. A file that is empty or cannot be parsed stops all removal, as `hold` does, until a
    /// log is opened with this setting.
    ///
    /// While a store is down, old segments stay and the disk can fill up. Watch for the notice
    /// [`RetentionWaits`](crate::NoticeKind::RetentionWaits), or see [`unless_free_below`](Self::unless_free_below).
    ///
    /// # Examples
    ///
    /// ```
    /// use std::time::Duration;
    /// use tracing_audit::Retention;
    ///
    /// let day = Duration::from_secs(24 * 3600);
    /// let retention = Retention::keep_all().max_age(90 * day).require_forwarded(["archive", "postgres"]);
    /// assert_eq!(retention.to_string(), "max_age 90d require_forwarded archive,postgres");
    /// ```
    #[must_use]
    pub fn require_forwarded<I>(mut self, names: I) -> Self
    where
        I: IntoIterator<Item: Into<String>>,
    {
        self.require_forwarded.extend(names.into_iter().map(Into::into));
        self
    }

    /// Ignores [`require_forwarded`](Self::require_forwarded) while the file system has fewer free bytes than this.
    /// Default: off.
    ///
    /// As many segments are removed as it takes to get above this number, if the other limits allow it. **Their records
    /// may never reach the store**; the forwarder reports them as missed. This applies to the current process only, so
    /// set it in each process that removes segments. It overrides neither `hold` nor a `forward-required` that cannot be
    /// parsed.
    #[must_use]
    pub const fn unless_free_below(mut self, bytes: u64) -> Self {
        self.unless_free_below = Some(bytes);
        self
    }

    /// Returns whether nothing is ever removed, because no limit is set.
    pub(crate) fn is_off(&self) -> bool {
        self.max_age.is_none() && self.max_bytes.is_none() && self.max_segments.is_none()
    }
}

impl fmt::Display for Retention {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { max_age, max_bytes, max_segments, min_age, require_forwarded, unless_free_below } = self;
        let limits = [
            max_age.map(|age| format!("max_age {}", DurationText(age))),
            max_bytes.map(|bytes| format!("max_bytes {}", SizeText(bytes))),
            max_segments.map(|segments| format!("max_segments {segments}")),
            min_age.map(|age| format!("min_age {}", DurationText(age))),
            (!require_forwarded.is_empty())
                .then(|| format!("require_forwarded {}", require_forwarded.join(","))),
            unless_free_below.map(|bytes| format!("unless_free_below {}", SizeText(bytes))),
        ];
        let limits: Vec<String> = limits.into_iter().flatten().collect();
        if limits.is_empty() { f.write_str("keep_all") } else { f.write_str(&limits.join(" ")) }
    }
}

impl FromStr for Retention {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        let parse = || {
            if text == "keep_all" {
                return Some(Self::keep_all());
            }
            let words: Vec<&str> = text.split(' ').collect();
            // Pairs of a name and a value; a remainder is a name without a value.
            let (limits, []) = words.as_chunks() else { return None };
            limits.iter().try_fold(Self::keep_all(), |retention, limit| match *limit {
                ["max_age", age] if retention.max_age.is_none() => {
                    Some(retention.max_age(parse_duration(age).ok()?))
                }
                ["max_bytes", bytes] if retention.max_bytes.is_none() => {
                    Some(retention.max_bytes(parse_size(bytes).ok()?))
                }
                ["max_segments", segments] if retention.max_segments.is_none() => {
                    Some(retention.max_segments(count(segments)?))
                }
                ["min_age", age] if retention.min_age.is_none() => {
                    Some(retention.min_age(parse_duration(age).ok()?))
                }
                ["require_forwarded", names] if retention.require_forwarded.is_empty() => {
                    Some(retention.require_forwarded(names.split(',')))
                }
                ["unless_free_below", bytes] if retention.unless_free_below.is_none() => {
                    Some(retention.unless_free_below(parse_size(bytes).ok()?))
                }
                _ => None,
            })
        };
        parse().ok_or_else(|| {
            let expected =
                "`keep_all`, or limits such as `max_age 90d max_bytes 10GiB max_segments 100 min_age 30d \
                 require_forwarded archive,postgres unless_free_below 1GiB`";
            ParseError::new("retention", text, expected)
        })
    }
}

/// What happens to a routine event when its part of the queue is full. The rest is reserved for critical events.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Hash)]
#[non_exhaustive]
pub enum OnFull {
    /// The emitting thread waits for room, at most for the wait bound, and not at all while the log is stalled. Then
    /// the event is lost: it is counted, and included in a `gap` record.
    #[default]
    Block,
    /// The event is dropped at once, counted, and included in a `gap` record.
    DropRoutine,
}

named!(OnFull, "choice for `on_full`", [
    Block => "block",
    DropRoutine => "drop_routine",
]);

/// What happens when a critical event cannot be recorded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Hash)]
#[non_exhaustive]
pub enum OnFailure {
    /// Counts the event, calls `on_notice`, and prints a line to standard error at most once a minute.
    #[default]
    Continue,
    /// Ends the process with `abort`, after one last attempt to write.
    Abort,
}

named!(OnFailure, "choice for `on_failure`", [
    Continue => "continue",
    Abort => "abort",
]);

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[track_caller]
    fn check<T: FromStr<Err = ParseError> + fmt::Display + fmt::Debug + PartialEq>(value: T, text: &str) {
        assert_eq!(value.to_string(), text);
        assert_eq!(text.parse(), Ok(value));
    }

    #[track_caller]
    fn refuse<T: FromStr<Err = ParseError> + fmt::Debug>(texts: &[&str], expected: &str) {
        for text in texts {
            let error = text.parse::<T>().unwrap_err().to_string();
            assert!(error.contains(&format!("{text:?}")) && error.contains(expected), "{error}");
        }
    }

    /// The printed form is in the `open` records of every existing log, so it cannot change.
    #[test]
    fn a_flush_mode_prints_and_parses() {
        check(FlushMode::Immediate, "immediate");
        check(FlushMode::default(), "hybrid 100 1s critical_immediate");
        check(FlushMode::Batched { size: 5, interval: Duration::from_millis(200) }, "batched 5 200ms");
        let hybrid = |critical_immediate| FlushMode::Hybrid {
            batch_size: 7,
            batch_interval: Duration::from_micros(1_500),
            critical_immediate,
        };
        check(hybrid(false), "hybrid 7 1.5ms critical_queued");
        check(hybrid(true), "hybrid 7 1.5ms critical_immediate");
        assert_eq!("hybrid".parse(), Ok(FlushMode::default()));
        assert_eq!("batched".parse(), Ok(FlushMode::Batched { size: 100, interval: Duration::from_secs(1) }));
        refuse::<FlushMode>(
            &[
                "",
                "Hybrid",
                "hybrid ",
                "hybrid 100",
                "hybrid 100 1s",
                "hybrid 100 1s now",
                "batched 5 200",
                "batched x 1s",
                "immediate 1",
            ],
            "`hybrid`",
        );
    }

    #[test]
    fn a_rotation_prints_and_parses() {
        check(Rotation::never(), "never");
        check(Rotation::hourly(), "hourly 256MiB");
        check(Rotation::daily(), "daily 256MiB");
        check(Rotation::default(), "daily 256MiB");
        check(Rotation::never().max_bytes(64 << 10), "64KiB");
        check(Rotation::hourly().max_bytes(1_000), "hourly 1000");
        check(Rotation::daily().max_bytes(u64::MAX), "daily 18446744073709551615");
        assert_eq!("daily 256 MiB".parse(), Ok(Rotation::default()));
        assert_eq!("256 MiB".parse(), Ok(Rotation::never().max_bytes(256 << 20)));
        refuse::<Rotation>(
            &["", "weekly", "Daily", "daily ", "never 256MiB", "daily daily", "daily 1h"],
            "`hourly`",
        );
    }

    /// `hourly()` used to have no size limit, so a busy hour could make a segment of any size.
    #[test]
    fn a_period_keeps_the_default_size_limit_unless_another_is_set() {
        for period in
            [Rotation::daily(), Rotation::hourly(), "daily".parse().unwrap(), "hourly".parse().unwrap()]
        {
            assert_eq!(period.max_bytes, 256 << 20);
        }
        assert_eq!(Rotation::daily(), Rotation::default());
        assert_eq!(Rotation::hourly().max_bytes(64 << 20).max_bytes, 64 << 20);
        assert_eq!(Rotation::never().max_bytes, u64::MAX);
    }

    #[test]
    fn a_retention_prints_and_parses() {
        let day = Duration::from_secs(86_400);
        check(Retention::keep_all(), "keep_all");
        check(Retention::keep_all().max_segments(3), "max_segments 3");
        check(Retention::keep_all().min_age(day / 2), "min_age 12h");
        let all =
            Retention::keep_all().max_age(90 * day).max_bytes(10 << 30).max_segments(100).min_age(30 * day);
        let limits = "max_age 90d max_bytes 10GiB max_segments 100 min_age 30d";
        check(all.clone(), limits);
        check(
            all.require_forwarded(["archive", "postgres"]).unless_free_below(1 << 30),
            &format!("{limits} require_forwarded archive,postgres unless_free_below 1GiB"),
        );
        check(Retention::keep_all().require_forwarded(["a"]), "require_forwarded a");
        refuse::<Retention>(
            &[
                "",
                "keep_all ",
                "max_age",
                "max_age 90",
                "max_age 1d max_age 2d",
                "age 90d",
                "max_segments -1",
                "require_forwarded",
                "require_forwarded a require_forwarded b",
                "unless_free_below 1h",
            ],
            "`keep_all`",
        );
    }

    proptest! {
        #[test]
        fn settings_are_read_back_as_they_are_printed(
            size: u32,
            (seconds, nanos) in (any::<u64>(), 0..1_000_000_000_u32),
            bytes: u64,
            flag: bool,
            chosen in 0..64_u32,
            names in proptest::collection::vec("[a-z0-9-]{1,32}", 1..4),
        ) {
            let interval = Duration::new(seconds, nanos);
            let batched = FlushMode::Batched { size, interval };
            let hybrid = FlushMode::Hybrid { batch_size: size, batch_interval: interval, critical_immediate: flag };
            for mode in [batched, hybrid] {
                prop_assert_eq!(mode.to_string().parse(), Ok(mode));
            }
            for rotation in [Rotation::never(), Rotation::hourly(), Rotation::daily()] {
                let rotation = rotation.max_bytes(bytes);
                prop_assert_eq!(rotation.to_string().parse(), Ok(rotation));
            }
            let is_chosen = |bit: u32| chosen & (1 << bit) != 0;
            let retention = Retention {
                max_age: is_chosen(0).then_some(interval),
                max_bytes: is_chosen(1).then_some(bytes),
                max_segments: is_chosen(2).then_some(size),
                min_age: is_chosen(3).then_some(interval),
                require_forwarded: if is_chosen(4) { names } else { Vec::new() },
                unless_free_below: is_chosen(5).then_some(bytes),
            };
            prop_assert_eq!(retention.to_string().parse(), Ok(retention));
        }
    }
}
