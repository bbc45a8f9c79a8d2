//! The state of a running log, for operators: counters, health, recoveries and notices.

use std::{
    fmt,
    time::{Duration, SystemTime},
};

use crate::{chain::Head, named::named, severity::Severity};

/// Why an event could not be recorded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum LossReason {
    /// The queue had no room. None became free within the wait bound, or the event did not wait: the log was stalled,
    /// or `on_full` is [`OnFull::DropRoutine`](crate::OnFull::DropRoutine).
    QueueFull,
    /// The disk refused the event until the log ended.
    IoFailure,
    /// Capturing the event panicked. A panic in a `Debug` or `Display` of the application loses only
    /// that field, which `truncated` lists as failed.
    Panic,
    /// The event was emitted by code that runs while an audit event or the fields of a span are captured (a `Debug`,
    /// `classify`, `enrich`), or by a thread of the log itself.
    Reentrant,
    /// A layer nearer to the registry vetoed the event after the audit layer had seen it.
    Vetoed,
    /// The log had been closed.
    Closed,
    /// The event was emitted in a forked child of the process that opened the log.
    Forked,
}

named!(LossReason, "loss reason", [
    QueueFull => "queue_full",
    IoFailure => "io_failure",
    Panic => "panic",
    Reentrant => "reentrant",
    Vetoed => "vetoed",
    Closed => "closed",
    Forked => "forked",
]);

/// Counters of an open log since it was opened. [`for_each`](Self::for_each) reports them as metrics.
///
/// With the feature `serde`, it serialises under the names of its fields, with durations in seconds:
/// `last_sync_duration_seconds` and `oldest_not_durable_seconds`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct Stats {
    /// Routine events taken into the queue.
    pub accepted_routine: u64,
    /// Critical events taken into the queue.
    pub accepted_critical: u64,
    /// Events that are durable.
    pub durable: u64,
    /// Events that could not be recorded, by reason and severity; entries of zero are left out.
    pub lost: Vec<Loss>,
    /// Waits that ended at the wait bound, or were not started because the log was stalled or failing.
    pub unconfirmed_waits: u64,
    /// Events in the queue, not yet written.
    pub queued_events: u64,
    /// Bytes of events that are queued or not yet durable, limited by `queue_bytes`.
    pub queued_bytes: u64,
    /// Age of the oldest accepted event that is not durable.
    #[cfg_attr(
        feature = "serde",
        serde(rename = "oldest_not_durable_seconds", serialize_with = "crate::serialize::seconds")
    )]
    pub oldest_not_durable: Duration,
    /// Records of every kind written since the last sync.
    pub records_since_sync: u64,
    /// Successful syncs of segments of the chain being written, including those during opening.
    pub syncs: u64,
    /// Duration of the last successful sync.
    #[cfg_attr(
        feature = "serde",
        serde(rename = "last_sync_duration_seconds", serialize_with = "crate::serialize::seconds")
    )]
    pub last_sync: Duration,
    /// Bytes appended to segments, including those during opening.
    pub written_bytes: u64,
    /// Segments begun. For a new log it starts at 1; after opening that only continued a segment, at 0.
    pub segments: u64,
    /// Free space on the file system of the log, in bytes, when last checked (at most a second ago while
    /// events arrive).
    pub free_bytes: u64,
    /// Notices dropped because `on_notice` was too slow.
    pub notices_dropped: u64,
    /// Number of notices of each kind, including those during opening; entries of zero are left out.
    ///
    /// Notices are counted even without an `on_notice`. These counters never decrease.
    pub notices: Vec<NoticeCount>,
}

impl Stats {
    /// Returns the number of events that could not be recorded, for any reason.
    #[must_use]
    pub fn lost_total(&self) -> u64 {
        self.lost.iter().map(|loss| loss.events).sum()
    }

    /// Returns the number of notices of one kind.
    #[must_use]
    pub fn noticed(&self, kind: NoticeKind) -> u64 {
        self.notices.iter().find(|notice| notice.kind == kind).map_or(0, |notice| notice.count)
    }
}

/// Number of notices of one kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct NoticeCount {
    /// The kind of notice.
    pub kind: NoticeKind,
    /// The number of notices since the log was opened.
    pub count: u64,
}

/// Number of events of one severity lost for one reason.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct Loss {
    /// The reason.
    pub reason: LossReason,
    /// The severity of the events.
    pub severity: Severity,
    /// The number of events.
    pub events: u64,
}

/// The state of a log. If several apply, the first of this list is reported.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Health {
    /// The log is closed: nothing is recorded any more.
    Closed,
    /// The segment failed and no new one could be begun. Retried with increasing backoff.
    Failing,
    /// A wait for durability, or for room in the queue, reached its bound. Until a sync succeeds, events, `flush` and
    /// `confirm` do not wait.
    Stalled,
    /// The live segment was changed by something other than the log since the log was opened: removed, replaced,
    /// truncated, written to, given a second name, or its file was closed by this program.
    ///
    /// Everything is recorded, in a new segment. But somebody can change the log and does so, or the program closes
    /// descriptors that are not its own. The state lasts until the log is opened again.
    Tampered,
    /// The part of the queue open to routine events is full.
    Overloaded,
    /// Everything is recorded, but something that later writes depend on does not work.
    ///
    /// Either a new segment was due but could not be begun, so the old one continues. Or the durable head cannot be
    /// written to the chain's lock file. This is retried every second, and the state lasts until it works.
    Degraded,
    /// Free space is below the watermark.
    LowSpace,
    /// Everything works.
    Healthy,
}

impl Health {
    /// Returns whether everything works.
    #[must_use]
    pub const fn is_healthy(self) -> bool {
        matches!(self, Self::Healthy)
    }

    /// Returns whether a critical event emitted now can be expected to become durable.
    ///
    /// While the log is [`Overloaded`](Self::Overloaded), routine events are lost and counted, unless they
    /// [wait](crate::OnFull).
    #[must_use]
    pub const fn is_recording(self) -> bool {
        matches!(self, Self::Healthy | Self::LowSpace | Self::Degraded | Self::Overloaded | Self::Tampered)
    }
}

named!(Health, "log state", [
    Closed => "closed",
    Failing => "failing",
    Stalled => "stalled",
    Tampered => "tampered",
    Overloaded => "overloaded",
    Degraded => "degraded",
    LowSpace => "low_space",
    Healthy => "healthy",
]);

/// What opening a log found of earlier runs, and what it did about it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct Recovery {
    /// The chains that had to be recovered, or could not be continued.
    pub chains: Vec<ChainRecovery>,
    /// Every notice of opening, in order, as passed to [`Builder::on_notice`](crate::Builder::on_notice): about the
    /// chains above, missing chains, the file system, and files that others can read.
    pub notices: Vec<Notice>,
}

impl Recovery {
    /// Returns whether every chain had ended cleanly or was new, and no chain seen before is missing.
    ///
    /// Notices about where the log is, or who can read it, do not count; see `notices` for those.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        self.chains.is_empty() && self.notices.iter().all(|notice| notice.kind != NoticeKind::ChainMissing)
    }
}

/// What opening a log found in one chain.
#[derive(Debug, Clone, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct ChainRecovery {
    /// The number of the chain.
    pub chain: u16,
    /// The head after which the chain continues. `None` if it had no durable record, or was left alone.
    pub head: Option<Head>,
    /// Bytes of a torn tail, which are ignored from now on. They stay in the file.
    pub torn_bytes: u64,
    /// Whether records that had been durable are bad or missing, because they were edited or the disk lost them.
    /// A verification reports the details.
    pub damaged: bool,
    /// Whether the chain was left unchanged and another chain used instead.
    pub left_alone: bool,
    /// What happened, in a sentence.
    pub message: String,
}

/// A message to the operator, passed to [`Builder::on_notice`](crate::Builder::on_notice).
#[derive(Debug, Clone, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct Notice {
    /// The kind of notice.
    pub kind: NoticeKind,
    /// The time of the notice, by the wall clock.
    #[cfg_attr(feature = "serde", serde(serialize_with = "crate::serialize::time"))]
    pub time: SystemTime,
    /// What happened and what to do, in a sentence.
    pub message: String,
}

impl NoticeKind {
    /// Returns whether somebody must act, because something was lost, is at risk, or was changed by others.
    ///
    /// Notices for information, and those that a problem is over, need no action.
    #[must_use]
    pub const fn needs_action(self) -> bool {
        !matches!(
            self,
            Self::SpaceReturned
                | Self::Healed
                | Self::Recovered
                | Self::HeadUnknown
                | Self::MachineChanged
                | Self::ClockStep
                | Self::BootIdMissing
                | Self::TimeJumped
                | Self::Pruned
        )
    }
}

impl fmt::Display for Notice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.kind, self.message)
    }
}

/// The kinds of [`Notice`].
///
/// Most notices are also `notice` records in the log. Notices about outages are not, except where the old segment
/// continues, nor are those about stalls, losses, vetoes and removals. Of these, `recovery`, `gap` and `prune` records
/// have what the log needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum NoticeKind {
    /// Free space fell below the watermark.
    LowSpace,
    /// Free space is above the watermark again.
    SpaceReturned,
    /// A write or a sync failed, and a new segment is begun. Or a new segment was due and could not be begun, and the
    /// old one continues.
    SegmentFailed,
    /// No new segment could be begun after a failure, and events are held in memory.
    Failing,
    /// The log records again after it was failing or stalled.
    Healed,
    /// A wait reached its bound.
    Stalled,
    /// Events were lost.
    EventsLost,
    /// A critical event could not be recorded or confirmed.
    CriticalNotRecorded,
    /// The live segment was removed, replaced, truncated, given a second name or written to by somebody else, or its
    /// file was closed by this program.
    SegmentTampered,
    /// The segment being continued can be read by every user, which was not so when it was created.
    SegmentExposed,
    /// The lock file of the chain was removed, replaced, or closed by this program, and another chain is used.
    LockReplaced,
    /// An earlier run did not end cleanly.
    Recovered,
    /// Records that had been durable are bad or missing.
    Damage,
    /// A chain that was seen before is missing.
    ChainMissing,
    /// The lock file of a chain does not hold its durable head, because it is new, a copy, or of an earlier version. The
    /// chain was opened from its segments alone.
    HeadUnknown,
    /// The durable head could not be written to the lock file. This is retried.
    HeadNotNoted,
    /// The chain was last written on another machine.
    MachineChanged,
    /// The wall clock and the monotonic clock have diverged by more than a second.
    ClockStep,
    /// A record is more than a day later than the one before it. Only reported with a limit of age.
    ///
    /// Until the records after the jump span a day, retention measures ages at the time before it.
    TimeJumped,
    /// The directory is on a file system that loses everything at a restart, or with its container.
    VolatileFileSystem,
    /// The system has no boot id, so restarts are not detected. A chain whose last segment could not be synced is
    /// therefore not tried again after a restart.
    BootIdMissing,
    /// Segments were removed by retention.
    Pruned,
    /// Retention could not remove a segment.
    RetentionFailed,
    /// Retention keeps segments that it would remove, because a forwarder does not report yet that its store has them.
    /// Given once for each chain, and again only after none of its segments had to wait.
    RetentionWaits,
    /// A layer nearer to the registry vetoes audit events.
    Vetoed,
}

named!(NoticeKind, "notice kind", [
    LowSpace => "low_space",
    SpaceReturned => "space_returned",
    SegmentFailed => "segment_failed",
    Failing => "failing",
    Healed => "healed",
    Stalled => "stalled",
    EventsLost => "events_lost",
    CriticalNotRecorded => "critical_not_recorded",
    SegmentTampered => "segment_tampered",
    SegmentExposed => "segment_exposed",
    LockReplaced => "lock_replaced",
    Recovered => "recovered",
    Damage => "damage",
    ChainMissing => "chain_missing",
    HeadUnknown => "head_unknown",
    HeadNotNoted => "head_not_noted",
    MachineChanged => "machine_changed",
    ClockStep => "clock_step",
    TimeJumped => "time_jumped",
    VolatileFileSystem => "volatile_filesystem",
    BootIdMissing => "boot_id_missing",
    Pruned => "pruned",
    RetentionFailed => "retention_failed",
    RetentionWaits => "retention_waits",
    Vetoed => "vetoed",
]);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_notice_that_was_never_given_counts_as_zero() {
        let given = NoticeCount { kind: NoticeKind::Failing, count: 3 };
        let stats = Stats { notices: vec![given], ..Stats::default() };
        assert_eq!((stats.noticed(NoticeKind::Failing), stats.noticed(NoticeKind::Healed)), (3, 0));
    }
}
