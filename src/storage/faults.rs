//! A disk that fails on request, for tests of applications. Compiled only with the feature
//! `fault-injection`.

use std::{
    io,
    path::PathBuf,
    sync::{Arc, Condvar, Mutex, PoisonError},
};

use rustix::io::Errno;

use super::{Access, Dir, File, FileSystem, LockKind, Stat, Storage};

/// A switch that makes the disk of a log fail, for tests of an application only. Needs the feature
/// `fault-injection`.
///
/// Pass it to [`Builder::faults`](crate::Builder::faults), cloned or not, before the log is opened,
/// and use it at any time after that. Each call replaces the previous one. The log then behaves as
/// on a real disk, as described in `docs/durability.md`. Only writing fails, so a log can be read
/// and verified meanwhile.
#[derive(Debug, Clone, Default)]
pub struct Faults {
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    /// Guards the fault that is on. Held to read or replace it, and released while a sync hangs.
    fault: Mutex<Option<Fault>>,
    /// Notified when the fault changes.
    changed: Condvar,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    Fail,
    Stall,
    Fill,
}

impl Faults {
    /// Makes writes, syncs and removals fail with `EIO` from now on. The log becomes
    /// [`Health::Failing`](crate::Health::Failing) when it next writes or syncs.
    pub fn fail(&self) {
        self.set(Some(Fault::Fail));
    }

    /// Makes syncs hang from now on. The log becomes [`Health::Stalled`](crate::Health::Stalled)
    /// once a caller has waited for as long as the wait bound. Opening a log hangs as well, until
    /// [`heal`](Self::heal) is called.
    pub fn stall(&self) {
        self.set(Some(Fault::Stall));
    }

    /// Makes the disk full: writes and new files fail with `ENOSPC`, and no bytes are free. What
    /// was written before can still be synced. The log becomes
    /// [`Health::Failing`](crate::Health::Failing) when it next writes.
    pub fn fill(&self) {
        self.set(Some(Fault::Fill));
    }

    /// Makes the disk work again. Syncs that hang continue at once. A log that was failing tries
    /// again after a pause that grows with each attempt, up to 2 s.
    pub fn heal(&self) {
        self.set(None);
    }

    fn set(&self, fault: Option<Fault>) {
        *self.shared.fault.lock().unwrap_or_else(PoisonError::into_inner) = fault;
        self.shared.changed.notify_all();
    }

    fn fault(&self) -> Option<Fault> {
        *self.shared.fault.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Decides about a call that needs space on the disk.
    fn before_growth(&self) -> io::Result<()> {
        match self.fault() {
            Some(Fault::Fill) => Err(Errno::NOSPC.into()),
            _ => self.before_change(),
        }
    }

    /// Decides about a call that changes the disk in place.
    fn before_change(&self) -> io::Result<()> {
        if self.fault() == Some(Fault::Fail) { Err(Errno::IO.into()) } else { Ok(()) }
    }

    /// Decides about a sync, and blocks it while syncs hang.
    fn before_sync(&self) -> io::Result<()> {
        let fault = self.shared.fault.lock().unwrap_or_else(PoisonError::into_inner);
        let waited = self.shared.changed.wait_while(fault, |fault| *fault == Some(Fault::Stall));
        drop(waited.unwrap_or_else(PoisonError::into_inner));
        self.before_change()
    }
}

/// A storage whose writes obey a switch.
#[derive(Debug)]
pub(crate) struct FaultyStorage {
    storage: Arc<dyn Storage>,
    faults: Faults,
}

impl FaultyStorage {
    pub(crate) fn new(storage: Arc<dyn Storage>, faults: Faults) -> Self {
        Self { storage, faults }
    }
}

impl Storage for FaultyStorage {
    fn path(&self, dir: Dir, name: &str) -> PathBuf {
        self.storage.path(dir, name)
    }

    fn list(&self, dir: Dir) -> io::Result<Vec<String>> {
        self.storage.list(dir)
    }

    fn open(&self, dir: Dir, name: &str, access: Access) -> io::Result<Box<dyn File>> {
        if access == Access::Create {
            self.faults.before_growth()?;
        }
        let file = self.storage.open(dir, name, access)?;
        Ok(Box::new(FaultyFile { file: file.into(), faults: self.faults.clone() }))
    }

    fn remove(&self, dir: Dir, name: &str) -> io::Result<()> {
        self.faults.before_change()?;
        self.storage.remove(dir, name)
    }

    fn sync_dir(&self, dir: Dir) -> io::Result<()> {
        self.faults.before_sync()?;
        self.storage.sync_dir(dir)
    }

    fn stat(&self, dir: Dir, name: &str) -> io::Result<Option<Stat>> {
        self.storage.stat(dir, name)
    }

    fn is_seen_locked(&self, dir: Dir, name: &str) -> bool {
        self.storage.is_seen_locked(dir, name)
    }

    fn reattach(&self) -> io::Result<()> {
        self.faults.before_sync()?;
        self.storage.reattach()
    }

    fn apart(&self) -> io::Result<Arc<dyn Storage>> {
        Ok(Arc::new(Self::new(self.storage.apart()?, self.faults.clone())))
    }

    fn free_bytes(&self) -> io::Result<u64> {
        if self.faults.fault() == Some(Fault::Fill) { Ok(0) } else { self.storage.free_bytes() }
    }

    fn boot_id(&self) -> String {
        self.storage.boot_id()
    }

    fn machine_id(&self) -> String {
        self.storage.machine_id()
    }

    fn filesystem(&self) -> FileSystem {
        self.storage.filesystem()
    }

    fn file_size_limit(&self) -> Option<u64> {
        self.storage.file_size_limit()
    }

    fn random(&self) -> io::Result<u128> {
        self.storage.random()
    }
}

#[derive(Debug)]
struct FaultyFile {
    file: Arc<dyn File>,
    faults: Faults,
}

impl File for FaultyFile {
    fn append(&self, bytes: &[u8]) -> io::Result<usize> {
        self.faults.before_growth()?;
        self.file.append(bytes)
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<usize> {
        self.faults.before_change()?;
        self.file.write_at(bytes, offset)
    }

    fn read_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<usize> {
        self.file.read_at(bytes, offset)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.faults.before_sync()?;
        self.file.sync_data()
    }

    fn sync_all(&self) -> io::Result<()> {
        self.faults.before_sync()?;
        self.file.sync_all()
    }

    fn stat(&self) -> io::Result<Stat> {
        self.file.stat()
    }

    fn birth(&self) -> io::Result<u64> {
        self.file.birth()
    }

    fn try_lock(&self, kind: LockKind) -> io::Result<bool> {
        self.file.try_lock(kind)
    }

    fn unlock(&self) -> io::Result<()> {
        self.file.unlock()
    }

    fn keep(self: Arc<Self>) {
        Arc::clone(&self.file).keep();
    }
}
