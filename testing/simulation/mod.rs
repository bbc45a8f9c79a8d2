//! The simulated file system: what a disk, a kernel and a power supply may do to a log,
//! reproducible from one seed.
//!
//! ```text
//! let disk = SimDisk::new(seed);
//! let writer = disk.process();                    // one process; its Storage is writer.storage()
//! disk.cut_power_at(17, Applied::Seeded);         // or fault(…), kill_at(…), set_capacity(…)
//! …run until writer.is_alive() is false…          // and note what was acknowledged
//! …open again with disk.process().storage(), and compare…
//! ```
//!
//! It assumes only what docs/durability.md states: bytes outside a written range keep their value,
//! and what an honest sync covered stays. It may take everything else away. Syncing a file never
//! makes its name durable here, although most file systems do that.

#![allow(dead_code, reason = "a test takes from it what it needs, and a build without tests nothing")]

mod directory;
mod fault;
mod inode;
mod machine;
mod prng;
mod process;

#[cfg(test)]
mod tests;

use std::{
    collections::BTreeMap,
    fmt,
    sync::{Arc, PoisonError},
    time::Duration,
};

pub(crate) use rustix::io::Errno;

pub(crate) use fault::{Applied, Fault, Op, SyncFailure};
pub(crate) use prng::Prng;
pub(crate) use process::SimProcess;

use crate::error::InsecureReason;
use fault::Crash;
use inode::{Inode, Nature};
use machine::Machine;
use process::Shared;

/// A simulated machine with one log directory. Clones are the same machine.
///
/// Files are named relative to that directory: `audit-000-00000001.jsonl`,
/// `control/chain-000.lock`.
#[derive(Clone)]
pub(crate) struct SimDisk(Arc<Shared>);

impl fmt::Debug for SimDisk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let machine = self.0.lock();
        f.debug_struct("SimDisk").field("seed", &machine.seed).field("boots", &machine.boots).finish()
    }
}

/// Processes, crashes, and their results.
impl SimDisk {
    /// Creates a machine with an empty log directory. The same seed and the same calls give the
    /// same outcome.
    pub(crate) fn new(seed: u64) -> Self {
        Self(Arc::new(Shared::new(Machine::new(seed))))
    }

    /// Creates a machine on which these files are durable.
    pub(crate) fn with_files(seed: u64, files: &BTreeMap<String, Vec<u8>>) -> Self {
        let disk = Self::new(seed);
        for (name, bytes) in files {
            disk.replace(name, bytes);
        }
        disk
    }

    /// Starts a process.
    pub(crate) fn process(&self) -> SimProcess {
        let id = self.0.lock().start_process();
        SimProcess::new(Arc::clone(&self.0), id)
    }

    /// Cuts the power. Every process ends. Each sector, length and name that was not synced
    /// survives or not, drawn from the seed.
    pub(crate) fn power_cut(&self) {
        self.0.lock().cut_power();
        self.0.changed.notify_all();
    }

    /// Cuts the power at the nth changing call from now on, whichever process makes it.
    pub(crate) fn cut_power_at(&self, nth: u64, applied: Applied) {
        self.0.lock().faults.crash_at(Crash::PowerCut, nth, applied);
    }

    /// Returns the machine that a power cut now would leave. This one continues undisturbed;
    /// faults, capacity and held calls stay with it.
    pub(crate) fn after_power_cut(&self, seed: u64) -> Self {
        let mut machine = self.0.lock().clone();
        machine.reseed(seed);
        machine.calm();
        machine.cut_power();
        Self(Arc::new(Shared::new(machine)))
    }

    /// Returns a copy of this machine with the same random sequences from here on. Its processes do
    /// not run in the copy, and faults, capacity and held calls stay here.
    pub(crate) fn copy(&self) -> Self {
        let mut machine = self.0.lock().clone();
        machine.calm();
        machine.end_processes();
        Self(Arc::new(Shared::new(machine)))
    }

    /// Returns how many power cuts there were.
    pub(crate) fn power_cuts(&self) -> u64 {
        self.0.lock().boots
    }

    /// Returns how many crash points no call has reached yet.
    pub(crate) fn crashes_to_come(&self) -> usize {
        self.0.lock().faults.crashes_to_come()
    }

    /// Makes everything durable, as an orderly shutdown does.
    pub(crate) fn sync_everything(&self) {
        self.0.lock().sync_everything();
    }
}

/// Faults and limits.
impl SimDisk {
    pub(crate) fn inject(&self, fault: Fault) {
        self.0.lock().faults.inject(fault);
    }

    /// Ends all faults, and forgets the crash points that were not reached.
    pub(crate) fn clear_faults(&self) {
        self.0.lock().faults.clear();
    }

    /// Returns how many calls a fault hit. Zero means that the run met none.
    pub(crate) fn faults_hit(&self) -> u64 {
        self.0.lock().faults.hit_calls
    }

    /// Sets what a failed sync of a file leaves behind. Default: as ext4.
    pub(crate) fn set_sync_failure(&self, failure: SyncFailure) {
        self.0.lock().sync_failure = failure;
    }

    /// Fails a writeback that the kernel begins by itself. The next sync of each open file reports
    /// it.
    pub(crate) fn fail_writeback(&self, name: &str, errno: Errno) -> bool {
        self.0.lock().fail_writeback(name, errno)
    }

    /// Sets how many bytes all files together may hold. A write beyond that is short, and the next
    /// one fails with `ENOSPC`.
    pub(crate) fn set_capacity(&self, bytes: Option<usize>) {
        self.0.lock().capacity = bytes;
    }

    /// Sets the capacity so that this much is free now.
    pub(crate) fn set_free_bytes(&self, bytes: usize) {
        let mut machine = self.0.lock();
        machine.capacity = Some(machine.used_bytes().saturating_add(bytes));
    }

    /// Sets `RLIMIT_FSIZE`, with SIGXFSZ ignored. A write beyond that is short, and the next one
    /// fails with `EFBIG`.
    pub(crate) fn set_file_size_limit(&self, bytes: Option<usize>) {
        self.0.lock().largest_file = bytes;
    }

    /// Simulates a system without a boot id.
    pub(crate) fn hide_boot_id(&self) {
        self.0.lock().has_boot_id = false;
    }

    /// Moves the disk to another machine, or gives a cloned machine an identity of its own.
    pub(crate) fn move_to_machine(&self, id: &str) {
        id.clone_into(&mut self.0.lock().id);
    }

    /// Blocks calls of this kind until they are released, as on a frozen disk. A blocked sync
    /// covers what was written before it was called, and nothing later.
    pub(crate) fn hold(&self, op: Op) {
        self.0.lock().held.insert(op);
    }

    /// Releases all blocked calls, and blocks no more.
    pub(crate) fn release(&self) {
        self.0.lock().held.clear();
        self.0.changed.notify_all();
    }

    /// Waits until this many calls are blocked. Returns false if that takes longer than `bound`.
    pub(crate) fn wait_until_held(&self, calls: usize, bound: Duration) -> bool {
        let machine = self.0.lock();
        let (machine, _) = self
            .0
            .changed
            .wait_timeout_while(machine, bound, |machine| machine.waiting < calls)
            .unwrap_or_else(PoisonError::into_inner);
        machine.waiting >= calls
    }
}

/// Changes that are made to the files behind the back of every process; durable at once, unless
/// stated otherwise. They return false if there is no such file.
impl SimDisk {
    pub(crate) fn remove_behind_back(&self, name: &str) -> bool {
        self.0.lock().put_at(name, None)
    }

    /// Puts another file under a name. Processes that have the old one open keep it.
    pub(crate) fn replace(&self, name: &str, bytes: &[u8]) {
        self.0.lock().put_at(name, Some(Inode::with_bytes(bytes)));
    }

    /// Overwrites a file in place. Open files stay open.
    pub(crate) fn overwrite(&self, name: &str, bytes: &[u8]) -> bool {
        self.0.lock().inode_at(name).map(|inode| inode.rewrite(bytes)).is_some()
    }

    /// Cuts a file in place, or extends it with zeros.
    pub(crate) fn truncate(&self, name: &str, bytes: usize) -> bool {
        let mut machine = self.0.lock();
        let Some(inode) = machine.inode_at(name) else { return false };
        let mut contents = inode.cache().to_vec();
        contents.resize(bytes, 0);
        inode.rewrite(&contents);
        true
    }

    /// Appends as another process would, without a sync.
    pub(crate) fn append_foreign(&self, name: &str, bytes: &[u8]) -> bool {
        self.0.lock().append_foreign(name, bytes)
    }

    /// Flips a bit in the page cache and on the medium. Also returns false if the file is too
    /// short.
    pub(crate) fn flip_bit(&self, name: &str, offset: usize, bit: u8) -> bool {
        self.0.lock().inode_at(name).is_some_and(|inode| inode.flip_bit(offset, bit))
    }

    /// Gives a file a second name.
    pub(crate) fn hard_link(&self, name: &str, new_name: &str) -> bool {
        self.0.lock().hard_link(name, new_name)
    }

    /// Puts a symlink under a name: opening it fails with `ELOOP`.
    pub(crate) fn put_symlink(&self, name: &str) {
        self.0.lock().put_at(name, Some(Inode::with_nature(Nature::Symlink)));
    }

    /// Makes a file one that the disk refuses to write to, for this reason.
    pub(crate) fn make_insecure(&self, name: &str, reason: InsecureReason) -> bool {
        let mut machine = self.0.lock();
        machine.inode_at(name).map(|inode| inode.nature = Nature::Insecure(reason)).is_some()
    }

    /// Removes the log directory with its contents (`rm -rf`). Open files stay open without a name.
    pub(crate) fn remove_directory(&self) {
        self.0.lock().detach(true);
    }

    /// Moves the log directory elsewhere. Processes that have it open keep using it.
    pub(crate) fn move_directory_away(&self) {
        self.0.lock().detach(false);
    }
}

/// Observations.
impl SimDisk {
    /// Returns what a process would read in a file now.
    pub(crate) fn contents(&self, name: &str) -> Option<Vec<u8>> {
        self.0.lock().contents(name, false)
    }

    /// Returns what is left of a file after a power cut that nothing unsynced survives.
    pub(crate) fn durable_contents(&self, name: &str) -> Option<Vec<u8>> {
        self.0.lock().contents(name, true)
    }

    /// Returns whether a segment of this chain, with a durable name, holds these bytes on the
    /// medium.
    pub(crate) fn has_on_medium(&self, chain: u16, bytes: &[u8]) -> bool {
        self.0.lock().has_on_medium(&format!("audit-{chain:03}-"), bytes)
    }

    /// Returns how many files the processes have open.
    pub(crate) fn open_files(&self) -> usize {
        self.0.lock().open_files()
    }

    /// Returns every file with what a process would read in it.
    pub(crate) fn snapshot(&self) -> BTreeMap<String, Vec<u8>> {
        self.0.lock().snapshot()
    }

    /// Returns how many calls of all kinds were made.
    pub(crate) fn operations(&self) -> u64 {
        Op::ALL.into_iter().map(|op| self.count(op)).sum()
    }

    /// Returns how many changing calls were made: these can be crash points.
    pub(crate) fn changes(&self) -> u64 {
        Op::CHANGES.into_iter().map(|op| self.count(op)).sum()
    }

    /// Returns how many calls of a kind were made.
    pub(crate) fn count(&self, op: Op) -> u64 {
        self.0.lock().calls(op).made
    }

    /// Returns how many of them failed.
    pub(crate) fn failures(&self, op: Op) -> u64 {
        self.0.lock().calls(op).failed
    }

    /// Returns whether, since the machine started, a sync of the log directory failed for one
    /// process while a file of another was not synced. The other process cannot learn of that.
    pub(crate) fn others_are_in_doubt(&self) -> bool {
        self.0.lock().others_are_in_doubt
    }

    /// Returns a hash over every call so far, its data and its outcome.
    pub(crate) fn trace_hash(&self) -> u64 {
        self.0.lock().trace.hash
    }

    /// Begins to keep the text of every call, to investigate a seed that failed.
    pub(crate) fn record_trace(&self) {
        self.0.lock().trace.lines = Some(Vec::new());
    }

    /// Returns the text of the calls since then.
    pub(crate) fn trace(&self) -> Vec<String> {
        self.0.lock().trace.lines.clone().unwrap_or_default()
    }
}
