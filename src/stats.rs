//! What an operator can ask a running log: counters, health, recoveries and notices.

use std::{
    fmt,
    time::{Duration, SystemTime},
};

use crate::{chain::Head, named::named, severity::Severity};

/// Why an event could not be recorded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum LossReason {
    /// The queue had no room, and none was made within the wait bound.
    QueueFull,
    /// The disk refused it to the end.
    IoFailure,
    /// Capturing it panicked. A panic in a `Debug` or `Display` of the application alone costs only
    /// that field, which `truncated` names as failed.
    Panic,
    /// It was emitted while an audit event was being captured, or by a thread of the log itself.
    Reentrant,
    /// A layer nearer to the registry vetoed it after this one had seen it.
    Vetoed,
    /// The log had been closed.
    Closed,
    /// It was emitted in a forked child of the process that opened the log.
    Forked,
}

named!(LossReason, "reason of a loss", [
    QueueFull => "queue_full",
    IoFailure => "io_failure",
    Panic => "panic",
    Reentrant => "reentrant",
    Vetoed => "vetoed",
    Closed => "closed",
    Forked => "forked",
]);

/// Counters of an open log since it was opened. [`for_each`](Self::for_each) tells them as metrics.
///
/// With the feature `serde` it serialises under the names of its fields, durations as seconds:
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
    /// Events that could not be recorded, by reason and severity; only what is not zero.
    pub lost: Vec<Loss>,
    /// Waits that ended at the wait bound, or were not begun because the log was stalled.
    pub unconfirmed_waits: u64,
    /// Events in the queue, not yet written.
    pub queued_events: u64,
    /// Bytes of events that are queued or not yet durable, against `queue_bytes`.
    pub queued_bytes: u64,
    /// Age of the oldest accepted event that is not durable.
    #[cfg_attr(
        feature = "serde",
        serde(rename = "oldest_not_durable_seconds", serialize_with = "crate::serialize::seconds")
    )]
    pub oldest_not_durable: Duration,
    /// Records, of every kind, written since the last sync.
    pub records_since_sync: u64,
    /// Syncs of segments of the chain that is written that succeeded, those of opening it included.
    pub syncs: u64,
    /// How long the last successful sync took.
    #[cfg_attr(
        feature = "serde",
        serde(rename = "last_sync_duration_seconds", serialize_with = "crate::serialize::seconds")
    )]
    pub last_sync: Duration,
    /// Bytes appended to segments, those of opening included.
    pub written_bytes: u64,
    /// Segments begun: 1 for a log that was made by opening it, 0 as long as opening only went on in a segment.
    pub segments: u64,
    /// Free space where the log lies, in bytes, when it was last asked (at most a second ago while
    /// events arrive).
    pub free_bytes: u64,
    /// Notices that `on_notice` was too slow to take.
    pub notices_dropped: u64,
    /// How often each notice was told, those of opening included, also where there is no `on_notice` to hear it;
    /// only what is not zero. These counters never fall.
    pub notices: Vec<NoticeCount>,
}

impl Stats {
    /// Events that could not be recorded, whatever the reason.
    #[must_use]
    pub fn lost_total(&self) -> u64 {
        self.lost.iter().map(|loss| loss.events).sum()
    }

    /// How often a kind of notice was told.
    #[must_use]
    pub fn noticed(&self, kind: NoticeKind) -> u64 {
        self.notices.iter().find(|notice| notice.kind == kind).map_or(0, |notice| notice.count)
    }
}

/// How often one kind of notice was told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct NoticeCount {
    /// Which kind.
    pub kind: NoticeKind,
    /// How often since the log was opened.
    pub count: u64,
}

/// How many events of one severity were lost for one reason.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct Loss {
    /// Why.
    pub reason: LossReason,
    /// Of which severity.
    pub severity: Severity,
    /// How many.
    pub events: u64,
}

/// The state of an open log, worst first when several hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Health {
    /// Closed: nothing is recorded any more.
    Closed,
    /// The segment failed and a new one could not be begun. Retried with growing pauses.
    Failing,
    /// A wait reached its bound, so nobody waits until a sync succeeds.
    Stalled,
    /// Somebody removed, replaced, cut or wrote to the live segment since the log was opened. Everything is
    /// recorded, in a new segment; but somebody has the right to change the log, and does. It holds until the log
    /// is opened again.
    Tampered,
    /// The part of the queue open to routine events is full.
    Overloaded,
    /// Something that later writing needs does not work: no new segment could be begun when one was due, so that the old
    /// one goes on, or the durable head cannot be noted in the chain's lock file. Everything is recorded until then. It
    /// is tried again each second, and holds until it works.
    Degraded,
    /// Free space is below the watermark.
    LowSpace,
    /// Everything works.
    Healthy,
}

impl Health {
    /// Whether everything works.
    #[must_use]
    pub const fn is_healthy(self) -> bool {
        matches!(self, Self::Healthy)
    }

    /// Whether a critical event emitted now can be expected to become durable. While the log is
    /// [`Overloaded`](Self::Overloaded), routine ones are lost, and counted, unless they [wait](crate::OnFull).
    #[must_use]
    pub const fn is_recording(self) -> bool {
        matches!(self, Self::Healthy | Self::LowSpace | Self::Degraded | Self::Overloaded | Self::Tampered)
    }
}

named!(Health, "state of a log", [
    Closed => "closed",
    Failing => "failing",
    Stalled => "stalled",
    Tampered => "tampered",
    Overloaded => "overloaded",
    Degraded => "degraded",
    LowSpace => "low_space",
    Healthy => "healthy",
]);

/// What opening a log found of earlier runs and did about it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct Recovery {
    /// The chains that had to be recovered, or could not be continued.
    pub chains: Vec<ChainRecovery>,
    /// Every notice of opening, in order, as [`Builder::on_notice`](crate::Builder::on_notice) hears them: of the
    /// chains above, of chains that are gone, of the file system, of files that others can read.
    pub notices: Vec<Notice>,
}

impl Recovery {
    /// Whether every chain had ended in order, or was new, and none that was seen before is gone. Notices of where
    /// the log lies, or of who can read it, do not change that: look at `notices` for those.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        self.chains.is_empty() && self.notices.iter().all(|notice| notice.kind != NoticeKind::ChainMissing)
    }
}

/// What was found in one chain.
#[derive(Debug, Clone, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct ChainRecovery {
    /// The number of the chain.
    pub chain: u16,
    /// Where the chain goes on after, if it had any durable record.
    pub head: Option<Head>,
    /// Bytes of a torn write that count no more. They stay in the file.
    pub torn_bytes: u64,
    /// Whether records that had been durable are bad or missing: an edit, or the disk lost them.
    /// Verification says more.
    pub damaged: bool,
    /// Whether the chain was left alone, and another number taken instead.
    pub left_alone: bool,
    /// What happened, in a sentence.
    pub message: String,
}

/// Something an operator must hear, handed to [`Builder::on_notice`](crate::Builder::on_notice).
#[derive(Debug, Clone, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct Notice {
    /// Which kind of thing.
    pub kind: NoticeKind,
    /// When, by the wall clock.
    #[cfg_attr(feature = "serde", serde(serialize_with = "crate::serialize::time"))]
    pub time: SystemTime,
    /// What happened and what to do, in a sentence.
    pub message: String,
}

impl NoticeKind {
    /// Whether somebody must act: something is lost, at risk, or was changed by others. What only says what happened, or
    /// that it is over, needs nobody.
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

/// The kinds of [`Notice`]; what is about the log's content is also a `notice` record in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum NoticeKind {
    /// Free space fell below the watermark.
    LowSpace,
    /// Free space is above the watermark again.
    SpaceReturned,
    /// A write or a sync failed, and a new segment is begun; or none could be begun when one was due, and the old one goes
    /// on.
    SegmentFailed,
    /// A new segment could not be begun either; events are held in memory.
    Failing,
    /// The log records again after it was failing or stalled.
    Healed,
    /// A wait reached its bound.
    Stalled,
    /// Events were lost.
    EventsLost,
    /// A critical event could not be recorded or confirmed.
    CriticalNotRecorded,
    /// The live segment was removed, replaced, cut, given a second name, or written to by somebody else, or closed by this
    /// program.
    SegmentTampered,
    /// The segment that is continued can be read by every user, which it could not when it was made.
    SegmentExposed,
    /// The lock of the chain was removed, replaced, or closed by this program; another chain was taken.
    LockReplaced,
    /// An earlier run did not end in order.
    Recovered,
    /// Records that had been durable are bad or missing.
    Damage,
    /// A chain that was seen before is gone.
    ChainMissing,
    /// The lock file of a chain does not say how far the chain came: it is new, a copy, or of an earlier version. The
    /// chain was opened by its files alone.
    HeadUnknown,
    /// The durable head could not be noted in the lock file; it is tried again.
    HeadNotNoted,
    /// The chain was written on another machine until now.
    MachineChanged,
    /// The wall clock and the monotonic clock moved apart by more than a second.
    ClockStep,
    /// A record is over a day later than the one before it, and until records span a day beyond it, retention measures
    /// ages at the time before. Only where there is a limit of age.
    TimeJumped,
    /// The directory is on a file system that forgets everything at a restart, or with its container.
    VolatileFileSystem,
    /// The system has no boot id, so that a restart is not noticed. What could not be synced is not tried again then.
    BootIdMissing,
    /// Segments were removed by retention.
    Pruned,
    /// Retention could not remove a segment.
    RetentionFailed,
    /// Segments that retention would remove stay, because a forwarder does not say yet that its store has them. Told
    /// once, until none waits any more.
    RetentionWaits,
    /// A layer nearer to the registry vetoes audit events.
    Vetoed,
}

named!(NoticeKind, "kind of a notice", [
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
    fn what_was_not_told_was_told_never() {
        let told = NoticeCount { kind: NoticeKind::Failing, count: 3 };
        let stats = Stats { notices: vec![told], ..Stats::default() };
        assert_eq!((stats.noticed(NoticeKind::Failing), stats.noticed(NoticeKind::Healed)), (3, 0));
    }
}
