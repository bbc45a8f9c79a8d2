//! When to sync. Pure: the time is passed in, and nothing is touched.

use std::time::Duration;

use crate::settings::FlushMode;

/// The number of unsynced bytes at which a sync is due in every mode. Bounds the memory for what is
/// not durable.
const MAX_UNSYNCED_BYTES: u64 = 4 << 20;

/// How long before the end of its interval a batch is synced. Records are picked up a few
/// milliseconds after they were queued.
const EARLY: Duration = Duration::from_millis(10);

/// How long the writer lets routine drafts gather before it looks again: half of the 10 ms within
/// which they are written.
const DOZE: Duration = Duration::from_millis(5);

/// How long the log must be quiet before a `mark` covers its last records.
const QUIET: Duration = Duration::from_secs(60);
/// The same if a forwarder runs beside the log, because it forwards only what is covered.
const QUIET_BESIDE_A_FORWARDER: Duration = Duration::from_secs(1);
/// How often a `mark` is written to an idle log, to show that it was idle and not cut.
const HOUR: Duration = Duration::from_secs(3600);

/// When a batch is full enough or old enough to be synced.
#[derive(Debug, Clone, Copy)]
pub(super) struct FlushPolicy {
    size: u64,
    interval: Duration,
}

/// What has been written and not synced.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Unsynced {
    pub(super) records: u64,
    pub(super) bytes: u64,
    /// When the oldest of these records was queued.
    pub(super) since: Option<Duration>,
}

impl FlushPolicy {
    pub(super) fn new(mode: FlushMode) -> Self {
        match mode {
            FlushMode::Immediate => Self { size: 1, interval: Duration::ZERO },
            FlushMode::Batched { size, interval } => Self { size: u64::from(size), interval },
            FlushMode::Hybrid { batch_size, batch_interval, .. } => {
                Self { size: u64::from(batch_size), interval: batch_interval }
            }
        }
    }

    /// Returns whether a sync is due by count, bytes or age.
    pub(super) fn is_due(&self, unsynced: &Unsynced, now: Duration) -> bool {
        unsynced.records > 0
            && (unsynced.records >= self.size
                || unsynced.bytes >= MAX_UNSYNCED_BYTES
                || self.due_at(unsynced).is_some_and(|due| due <= now))
    }

    /// Returns how long drafts may gather. Together with the margin that `due_at` subtracts, this
    /// stays within the interval.
    pub(super) fn doze(&self) -> Duration {
        if self.interval.is_zero() { DOZE } else { DOZE.min(self.interval / 2) }
    }

    /// Returns when the oldest unsynced record must be synced to keep within the interval.
    pub(super) fn due_at(&self, unsynced: &Unsynced) -> Option<Duration> {
        let early = EARLY.min(self.interval / 2);
        unsynced.since.map(|since| since + self.interval.saturating_sub(early))
    }
}

/// When a `mark` is due: every hour, and once after everything is durable and the log was quiet for
/// a minute. Beside a forwarder, a second of quiet is enough.
#[derive(Debug, Clone, Copy)]
pub(super) struct MarkPolicy {
    /// When the last record that is not a mark was written; `None` once a mark covers it.
    uncovered: Option<Duration>,
    /// Whether a second passed without a record, and no forwarder was found then.
    is_alone: bool,
    last_mark: Duration,
}

impl MarkPolicy {
    pub(super) fn new(now: Duration) -> Self {
        Self { uncovered: Some(now), is_alone: false, last_mark: now }
    }

    pub(super) fn record_written(&mut self, now: Duration) {
        (self.uncovered, self.is_alone) = (Some(now), false);
    }

    pub(super) fn mark_written(&mut self, now: Duration) {
        *self = Self { uncovered: None, is_alone: false, last_mark: now };
    }

    /// Takes note that no forwarder was found. The next search follows the next record.
    pub(super) fn no_forwarder(&mut self) {
        self.is_alone = true;
    }

    /// Returns whether a mark is due only if a forwarder runs beside the log.
    pub(super) fn needs_forwarder(&self, now: Duration) -> bool {
        now < self.due_after(QUIET)
    }

    /// Returns when a mark is due, or when to check whether it is.
    pub(super) fn due_at(&self) -> Duration {
        self.due_after(if self.is_alone { QUIET } else { QUIET_BESIDE_A_FORWARDER })
    }

    fn due_after(&self, quiet: Duration) -> Duration {
        let hourly = self.last_mark + HOUR;
        self.uncovered.map_or(hourly, |at| hourly.min(at + quiet))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn a_batch_is_due_by_size_by_age_or_by_bytes() {
        let policy = FlushPolicy::new(FlushMode::Batched { size: 3, interval: 100 * MS });
        let unsynced = |records, bytes, since| Unsynced { records, bytes, since: Some(since * MS) };
        assert!(!policy.is_due(&Unsynced::default(), 1000 * MS));
        assert!(!policy.is_due(&unsynced(2, 10, 50), 60 * MS));
        assert!(policy.is_due(&unsynced(3, 10, 50), 60 * MS));
        assert!(policy.is_due(&unsynced(1, 10, 50), 150 * MS));
        assert!(policy.is_due(&unsynced(1, 4 << 20, 50), 51 * MS));
        assert_eq!(policy.due_at(&unsynced(1, 1, 50)), Some(140 * MS));
    }

    #[test]
    fn immediate_is_due_with_every_record() {
        let policy = FlushPolicy::new(FlushMode::Immediate);
        assert!(policy.is_due(&Unsynced { records: 1, bytes: 1, since: Some(MS) }, MS));
    }

    #[test]
    fn a_mark_follows_silence_once_and_then_every_hour() {
        let mut marks = MarkPolicy::new(Duration::ZERO);
        marks.no_forwarder();
        assert_eq!(marks.due_at(), QUIET);
        assert!(!marks.needs_forwarder(QUIET));
        marks.mark_written(QUIET);
        assert_eq!(marks.due_at(), QUIET + HOUR);
        marks.record_written(QUIET * 2);
        marks.no_forwarder();
        assert_eq!(marks.due_at(), QUIET * 3);
    }

    #[test]
    fn a_forwarder_is_looked_for_once_in_each_silence() {
        let mut marks = MarkPolicy::new(Duration::ZERO);
        let second = QUIET_BESIDE_A_FORWARDER;
        assert_eq!(marks.due_at(), second);
        assert!(marks.needs_forwarder(second));
        marks.no_forwarder();
        assert_eq!(marks.due_at(), QUIET);
        marks.record_written(2 * second);
        assert_eq!(marks.due_at(), 3 * second);
        marks.mark_written(3 * second);
        assert_eq!(marks.due_at(), 3 * second + HOUR, "a mark is no reason for another");
        assert!(!marks.needs_forwarder(3 * second + HOUR));
    }
}
