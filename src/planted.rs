//! Bugs that are planted on purpose, to see that a test finds each of them.
//!
//! Where a bug would live stands `planted!(ItsName)`, which is `false` in every build but that of the
//! tests inside this crate. There it is true for the one bug that `AUDIT_PLANTED` names;
//! `writer::tests::planted` says which test finds it, and sees that it does.

#[cfg(not(test))]
macro_rules! planted {
    ($bug:ident) => {
        false
    };
}

#[cfg(test)]
macro_rules! planted {
    ($bug:ident) => {
        $crate::planted::is($crate::planted::Bug::$bug)
    };
}

/// The variable that names the bug that is on in this process.
#[cfg(test)]
pub(crate) const VARIABLE: &str = "AUDIT_PLANTED";

#[cfg(test)]
pub(crate) fn is(bug: Bug) -> bool {
    static ON: std::sync::OnceLock<Option<Bug>> = std::sync::OnceLock::new();
    let on = ON.get_or_init(|| {
        let name = std::env::var(VARIABLE).ok()?;
        Some(Bug::ALL.into_iter().find(|bug| format!("{bug:?}") == name).expect("there is no such bug"))
    });
    *on == Some(bug)
}

#[cfg(test)]
macro_rules! bugs {
    ($($(#[$doc:meta])* $bug:ident,)*) => {
        /// What goes wrong while it is on.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub(crate) enum Bug { $($(#[$doc])* $bug,)* }

        impl Bug {
            pub(crate) const ALL: [Self; [$(stringify!($bug)),*].len()] = [$(Self::$bug),*];
        }
    };
}

#[cfg(test)]
bugs! {
    // Acknowledgement.
    /// A record is acknowledged before the sync.
    AcknowledgedBeforeSync,
    /// A failed sync is tried again, and believed.
    FailedSyncBelieved,
    /// The `durable` mark is ahead of the sync.
    MarkAheadOfSync,
    /// Lines before a full disk are acknowledged without a sync.
    FullDiskUnsynced,
    /// What somebody did to the open file is not looked at.
    OpenFileNotWatched,
    /// Nor is its name.
    NameNotWatched,
    /// The log's own records are taken for events that held room.
    OwnRecordsHoldRoom,
    // Names.
    /// The directory is not synced after a file is made.
    NewNameNotSynced,
    /// Nor before a chain is let go of whose last file came to nothing.
    IdleNamesNotSynced,
    /// Nor after one is removed.
    RemovedNameNotSynced,
    /// A segment is removed before the `prune` record is durable.
    PrunedBeforeRecord,
    // Failure.
    /// What is not durable is forgotten when its segment ends.
    DraftsNotRetained,
    /// A write that took a part is not continued.
    ShortWriteNotContinued,
    /// The poison entry is never written.
    PoisonNotWritten,
    /// It is never cleared.
    PoisonNotCleared,
    /// It is not heeded, and the segment used again.
    PoisonIgnored,
    /// What is not durable stays behind when the chain changes.
    DraftsLeftInChain,
    /// The directory is not followed when it is moved or removed.
    LostDirectoryNotFollowed,
    /// An interrupted call counts as failed: a lock that was interrupted as not held.
    InterruptedCallFails,
    // Recovery.
    /// Recovery goes on behind a bad line.
    HolesKept,
    /// It decides about bytes that it has not synced.
    TailNotSynced,
    /// It takes a torn tail for damage.
    TornTailIsDamage,
    /// It declares damage below the mark void, as if it were torn.
    DamageIsTorn,
    /// An empty file is not used again.
    EmptyFileNotUsed,
    /// A `close` that may not have been synced is witnessed.
    UnsyncedCloseWitnessed,
    // Verification.
    /// Verification takes damage below the mark for a torn tail.
    VerifierIgnoresMark,
    /// Hex is compared without case.
    HexWithoutCase,
    // Gaps and the queue.
    /// A loss is counted apart from the queue, and can be lost itself.
    GapNotAtomic,
    /// A `gap` stands behind the event that was queued after the loss.
    GapAfterNextEvent,
    /// Routine events use what is kept for critical ones.
    ReservedShareIgnored,
    /// The writer pauses without looking whether something is urgent.
    PauseWithoutLook,
    /// Threads that sleep over an event are not woken when it is durable.
    SleepersNotWoken,
    /// A thread that falls asleep late is put among those who came since.
    LateSleepersApart,
    // Locks.
    /// The lock file is removed at the end.
    LockFileRemoved,
    /// The lock is let go of after everybody heard that the log is closed.
    LockReleasedLate,
    // Capture.
    /// Fields of an event stand beside the members of the format.
    FieldsAtTopLevel,
    /// An event of a thread of the log is queued.
    OwnThreadQueued,
}
