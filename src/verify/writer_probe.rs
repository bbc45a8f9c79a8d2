//! Whether a writer holds a chain.

use std::io;

use crate::{
    segment_name::ChainNumber,
    storage::{Access, Dir, File, LockKind, Storage},
};

/// What a glance at the lock of a chain says.
#[derive(Debug)]
pub(super) enum Probe {
    /// A writer is at work.
    Held,
    /// Nobody is, and while this guard lives, nobody begins.
    Free(Guard),
    /// The lock could not be looked at, and what the system says of it does not help.
    Unknown(&'static str),
}

/// Keeps writers out. To be dropped soon: an opener waits 100 ms and no longer.
#[derive(Debug)]
pub(super) struct Guard(Option<Box<dyn File>>);

impl Drop for Guard {
    fn drop(&mut self) {
        if let Some(file) = &self.0 {
            // Closing the file, right after this, lets go of the lock in any case.
            drop(file.unlock());
        }
    }
}

pub(super) fn probe(storage: &dyn Storage, chain: ChainNumber) -> Probe {
    let file = match storage.open(Dir::Control, &chain.lock_name(), Access::Read) {
        Ok(file) => file,
        // A copy of a log need not have locks.
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Probe::Free(Guard(None)),
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            let is_seen = storage.is_seen_locked(Dir::Control, &chain.lock_name());
            let unseen = Probe::Unknown(", and /proc/locks does not show a lock on it");
            return if is_seen { Probe::Held } else { unseen };
        }
        Err(_) => return Probe::Unknown(""),
    };
    match file.try_lock(LockKind::Shared) {
        Ok(true) => Probe::Free(Guard(Some(file))),
        Ok(false) => Probe::Held,
        Err(_) => Probe::Unknown(""),
    }
}
