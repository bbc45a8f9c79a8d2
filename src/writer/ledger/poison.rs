//! The poison entry of a chain, and how the chain is let go of: whoever takes it next must know what is wrong with
//! it.

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
    /// The last segment is not to be trusted any more: its lock file says so from here on, because
    /// an opener under this boot would sync it, and be lied to.
    pub(super) fn poison(&mut self) {
        self.poison = Poison::Wanted;
        // Where this fails it is tried again before anything else is.
        drop(self.write_poison());
    }

    pub(super) fn write_poison(&mut self) -> io::Result<()> {
        self.poison = Poison::Wanted;
        let entry = LockState::Poison { boot: self.storage.boot_id(), point: self.durable };
        let written = self.lock.write(&entry);
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

    /// Somebody replaced the lock, or let go of it: the one at its path says the same. Where another process holds that already, it has looked before us.
    fn warn_next_holder(&self, entry: &LockState) -> io::Result<()> {
        let segment = SegmentName { chain: self.chain(), segment: self.durable.segment };
        if self.storage.stat(Dir::Log, &segment.to_string())?.is_none() {
            // Gone with the directory: nobody can be lied to.
            return Ok(());
        }
        match ChainLock::try_take(&self.storage, self.chain(), None)? {
            Tried::Taken(lock) => lock.write(entry),
            Tried::HeldBy(_) => Ok(()),
        }
    }

    /// Before another chain is taken: whoever takes this one must know what is wrong with it.
    pub(in crate::writer) fn leave(&mut self) -> io::Result<()> {
        self.sync_before_leaving();
        if self.poison == Poison::None && self.hand_over_names().is_ok() {
            Ok(())
        } else {
            self.write_poison()
        }
    }

    /// The next chain says for ever where refused records stand in this one, and nobody else may get their numbers. So
    /// what is written here is made durable, and is not acknowledged; where that fails it is void.
    fn sync_before_leaving(&mut self) {
        let Some(mut live) = self.live.take_if(|live| live.bytes > live.synced) else { return };
        match live.sync() {
            Err(error) => {
                self.poison();
                self.end_segment(&live, Cause::SyncFailed, &error.to_string());
            }
            Ok(()) if matches!(live.tampering(), Ok(None)) => self.live = Some(live),
            Ok(()) => self.end_segment(&live, Cause::Replaced, "somebody else changed the file"),
        }
    }

    /// Whether files of ours lie behind the last segment, and their names may not be durable.
    pub(in crate::writer) fn has_idle_files(&self) -> bool {
        !self.failed.is_empty() || !self.failed_before.is_empty() || self.empty.is_some()
    }

    /// While this chain is held, nobody decides anything from files that came to nothing. Afterwards the
    /// next opener does, and a sync of the directory that had failed meanwhile would be hidden from it.
    /// Once: they are the next opener's from then on.
    fn hand_over_names(&mut self) -> io::Result<()> {
        if self.has_idle_files() {
            self.storage.sync_dir(Dir::Log)?;
        }
        self.failed.clear();
        self.failed_before.clear();
        self.empty = None;
        Ok(())
    }

    /// Lets go of the chain, before anybody is told that the log is closed. Nothing is written to it
    /// any more, except that its last segment lies, where that could not be said before.
    pub(in crate::writer) fn let_go(&mut self) {
        if self.poison == Poison::Wanted || self.poison == Poison::None && self.hand_over_names().is_err() {
            self.poison();
        }
        self.poison = Poison::None;
        self.lock.release();
    }
}

impl Drop for Ledger {
    fn drop(&mut self) {
        self.let_go();
    }
}
