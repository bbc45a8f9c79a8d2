//! The poison entry of a chain, and the release of the chain. Its next holder must learn that a
//! segment failed.

use std::io;

use super::{
    super::chain_lock::{ChainLock, LockState, Tried},
    Ledger, Poison,
};
use crate::{
    format::Cause,
    segment_name::SegmentName,
    storage::{Dir, is_closed_under_us},
};

impl Ledger {
    /// Marks the last segment as poisoned in the lock file. Without that entry, an opener under
    /// this boot would sync the segment, get success, and trust bytes that never reached the disk.
    pub(super) fn poison(&mut self) {
        self.poison = Poison::Wanted;
        // If this fails, it is tried again before any new segment.
        drop(self.write_poison());
    }

    /// Writes the poison entry and makes it durable. If the lock was lost, the entry goes to the
    /// lock file that is now at its path.
    pub(super) fn write_poison(&mut self) -> io::Result<()> {
        self.poison = Poison::Wanted;
        let entry = LockState::Poison { boot: self.storage.boot_id(), point: self.durable };
        let written = self.lock.write(&entry);
        // If the program closed the descriptor, the lock is lost as well, and the file at the path
        // counts.
        if written.as_ref().is_err_and(|error| !is_closed_under_us(error)) {
            return written;
        }
        if self.lock.loss()?.is_some() {
            self.warn_next_holder(&entry)?;
        } else {
            written?;
        }
        self.poison = Poison::Written;
        Ok(())
    }

    /// Writes the entry to the lock file now at the path, because this process has lost its own
    /// lock. A process that already holds that file read it before the entry could be written.
    fn warn_next_holder(&self, entry: &LockState) -> io::Result<()> {
        let segment = SegmentName { chain: self.chain(), segment: self.durable.segment };
        if self.storage.stat(Dir::Log, &segment.to_string())?.is_none() {
            // The segment is gone with its directory, so no opener can trust it.
            return Ok(());
        }
        match ChainLock::try_take(&self.storage, self.chain(), None)? {
            Tried::Taken(lock) => lock.write(entry),
            Tried::HeldBy(_) => Ok(()),
        }
    }

    /// Prepares for moving to another chain. The next holder of this one must find its files in a
    /// state that it can trust, or the poison entry.
    pub(in crate::writer) fn leave(&mut self) -> io::Result<()> {
        self.sync_before_leaving();
        if self.poison == Poison::None && self.hand_over_names().is_ok() {
            Ok(())
        } else {
            self.write_poison()
        }
    }

    /// Syncs what is written before the chain is left. The next chain names, permanently, which
    /// records of this one were refused, so no other process may get their sequence numbers. The
    /// records become durable but are not acknowledged. If the sync fails, they are void.
    fn sync_before_leaving(&mut self) {
        let Some(mut live) = self.live.take_if(|live| live.bytes > live.synced) else { return };
        match live.sync() {
            Err(error) => {
                self.poison();
                self.end_segment(&live, Cause::SyncFailed, &error.to_string());
            }
            // Not acknowledged, because the lock is lost: another process may already continue this
            // chain.
            Ok(()) if matches!(live.tampering(), Ok(None)) => self.live = Some(live),
            Ok(()) => self.end_segment(&live, Cause::Replaced, "somebody else changed the file"),
        }
    }

    /// Returns whether unused files of this chain follow its last segment. Their names may not be
    /// durable.
    pub(in crate::writer) fn has_idle_files(&self) -> bool {
        !self.failed.is_empty() || !self.failed_before.is_empty() || self.empty.is_some()
    }

    /// Makes the names of unused files durable before the chain is released. While it is held, no
    /// process decides anything from these files, but its next opener does. A directory sync that
    /// failed meanwhile would be hidden from that opener, because the error is reported only once.
    /// The files are then forgotten: they belong to the next opener.
    fn hand_over_names(&mut self) -> io::Result<()> {
        if self.has_idle_files() {
            self.storage.sync_dir(Dir::Log)?;
        }
        self.failed.clear();
        self.failed_before.clear();
        self.empty = None;
        Ok(())
    }

    /// Releases the chain, before the log is reported as closed. Nothing more is written to it,
    /// except a poison entry that could not be written before.
    pub(in crate::writer) fn release(&mut self) {
        if self.poison == Poison::Wanted || self.poison == Poison::None && self.hand_over_names().is_err() {
            self.poison();
        }
        // `drop` calls this again, and must not write to a chain that another process may hold by
        // then.
        self.poison = Poison::None;
        self.lock.release();
    }
}

impl Drop for Ledger {
    fn drop(&mut self) {
        self.release();
    }
}
