//! Whether a writer holds a chain.

use std::io;

use crate::{
    segment_name::ChainNumber,
    storage::{Access, Dir, File, LockKind, Storage},
};

/// The result of probing the lock of a chain.
#[derive(Debug)]
pub(super) enum Probe {
    /// A writer holds the chain.
    Held,
    /// No writer holds the chain, and none can take it while this guard lives.
    Free(Guard),
    /// The lock could not be read, and the system does not show whether it is held.
    Unknown(&'static str),
}

/// A shared lock that keeps writers out. It must be dropped soon: a writer that opens the log waits only 100 ms.
#[derive(Debug)]
pub(super) struct Guard(Option<Box<dyn File>>);

impl Drop for Guard {
    fn drop(&mut self) {
        if let Some(file) = &self.0 {
            // Closing the file right after this releases the lock in any case.
            drop(file.unlock());
        }
    }
}

/// Takes a shared lock on the chain's lock file if no writer holds it.
pub(super) fn probe(storage: &dyn Storage, chain: ChainNumber) -> Probe {
    let file = match storage.open(Dir::Control, &chain.lock_name(), Access::Read) {
        Ok(file) => file,
        // A copy of a log may have no lock files.
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
