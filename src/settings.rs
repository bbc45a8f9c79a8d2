//! What can be chosen: passive values, without behaviour.

use std::{fmt, time::Duration};

/// When records are synced to disk. Every mode writes eagerly: a queued record reaches the file
/// within 10 ms, so that a killed process loses little; the mode decides when `fdatasync` runs.
///
/// | what can be lost | killed process | power cut |
/// |---|---|---|
/// | `Immediate` | nothing that a macro returned from | nothing that a macro returned from |
/// | `Batched` | what was queued in the last 10 ms | what was not synced: at most `size` records or `interval` |
/// | `Hybrid` | of routine events, as `Batched`; of critical ones nothing | of routine events, as `Batched`; of critical ones nothing |
///
/// # Examples
///
/// ```no_run
/// # fn main() -> Result<(), tracing_audit::Error> {
/// use std::time::Duration;
/// use tracing_audit::{AuditLog, FlushMode};
///
/// // Syncs after 1,000 records or 200 ms; nobody waits.
/// let mode = FlushMode::Batched { size: 1_000, interval: Duration::from_millis(200) };
/// let audit = AuditLog::builder("audit-log").flush_mode(mode).open()?;
/// # Ok(())
/// # }
/// ```
#[doc(alias = "fsync")]
#[doc(alias = "fdatasync")]
#[doc(alias = "durability")]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum FlushMode {
    /// Every macro returns when its record is durable. Threads that wait share syncs.
    Immediate,
    /// Every macro returns when its record is queued; the log is synced when `size` records or the
    /// age `interval` of the oldest is reached, whichever comes first.
    Batched {
        /// How many records may be unsynced, at least 1.
        size: u32,
        /// How old the oldest unsynced record may become, at least 1 ms.
        interval: Duration,
    },
    /// As `Batched` for routine events; critical ones are durable when the macro returns.
    Hybrid {
        /// How many records may be unsynced, at least 1. Default 100.
        batch_size: u32,
        /// How old the oldest unsynced record may become, at least 1 ms. Default 1 s.
        batch_interval: Duration,
        /// Whether the macro waits for a critical event's sync. Default true. When false, a
        /// critical event still starts a sync at once, but nobody waits for it.
        critical_immediate: bool,
    },
}

impl Default for FlushMode {
    /// `Hybrid` with 100 records, one second, critical events immediate.
    fn default() -> Self {
        Self::Hybrid { batch_size: 100, batch_interval: Duration::from_secs(1), critical_immediate: true }
    }
}

impl fmt::Display for FlushMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Immediate => f.write_str("immediate"),
            Self::Batched { size, interval } => write!(f, "batched {size} {interval:?}"),
            Self::Hybrid { batch_size, batch_interval, critical_immediate } => write!(
                f,
                "hybrid {batch_size} {batch_interval:?}{}",
                if *critical_immediate { " critical_immediate" } else { "" }
            ),
        }
    }
}

/// When a new segment begins. By the clock in UTC, by size, or both, whichever comes first. The
/// chain goes on: sequence numbers and links do not restart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rotation {
    pub(crate) period: Option<Period>,
    pub(crate) max_bytes: u64,
}

/// A stretch of UTC time that one segment covers at most.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Period {
    Hour,
    Day,
}

impl Rotation {
    /// The default size limit of a segment: 256 MiB.
    pub(crate) const DEFAULT_MAX_BYTES: u64 = 256 << 20;

    /// One segment for as long as the log lives. Opening reads the last segment whole, so a log
    /// that grows for ever opens ever slower.
    #[must_use]
    pub const fn never() -> Self {
        Self { period: None, max_bytes: u64::MAX }
    }

    /// A new segment when the UTC hour changes.
    #[must_use]
    pub const fn hourly() -> Self {
        Self { period: Some(Period::Hour), max_bytes: u64::MAX }
    }

    /// A new segment when the UTC day changes.
    #[must_use]
    pub const fn daily() -> Self {
        Self { period: Some(Period::Day), max_bytes: u64::MAX }
    }

    /// Also begins a new segment before one would grow beyond `max_bytes`, at least 64 KiB. A
    /// segment always takes at least one record.
    #[must_use]
    pub const fn max_bytes(mut self, max_bytes: u64) -> Self {
        self.max_bytes = max_bytes;
        self
    }
}

impl Default for Rotation {
    /// Daily, or at 256 MiB.
    fn default() -> Self {
        Self::daily().max_bytes(Self::DEFAULT_MAX_BYTES)
    }
}

/// Which old segments are removed. The default keeps everything.
///
/// Limits count for each chain by itself. Only whole segments go, oldest first, never the newest
/// of a chain, and none while a file named `hold` lies in the directory. A chained `prune` record
/// is durable before a file goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Retention {
    pub(crate) max_age: Option<Duration>,
    pub(crate) max_bytes: Option<u64>,
    pub(crate) max_segments: Option<u32>,
    pub(crate) min_age: Option<Duration>,
}

impl Retention {
    /// Keeps everything, until limits are added.
    #[must_use]
    pub const fn keep_all() -> Self {
        Self { max_age: None, max_bytes: None, max_segments: None, min_age: None }
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

    /// Whether anything is ever removed.
    pub(crate) fn is_off(&self) -> bool {
        self.max_age.is_none() && self.max_bytes.is_none() && self.max_segments.is_none()
    }
}

/// What a routine event does when the part of the queue that is not kept for critical ones is full.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum OnFull {
    /// The emitting thread waits for room, at most for the wait bound; then the event is lost,
    /// counted, and told by a `gap` record.
    #[default]
    Block,
    /// The event is dropped at once, counted, and told by a `gap` record.
    DropRoutine,
}

/// What happens when a critical event cannot be recorded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum OnFailure {
    /// Counts, tells `on_notice`, and prints a line to standard error at most once a minute.
    #[default]
    Continue,
    /// Ends the process with `abort`, after a last attempt to write.
    Abort,
}
