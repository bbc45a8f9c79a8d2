//! The simulated file system: what a disk, a kernel and a power supply may do to a log, repeatable
//! from one seed.
//!
//! ```text
//! let disk = SimDisk::new(seed);
//! let writer = disk.process();                    // one process; its Storage is writer.storage()
//! disk.cut_power_at(17, Applied::Seeded);         // or fault(…), kill_at(…), set_capacity(…)
//! …run until writer.is_alive() is false…          // and note what was acknowledged
//! …open again with disk.process().storage(), and compare…
//! ```
//!
//! What it assumes is what docs/durability.md states: bytes outside a written range keep their value,
//! and what an honest sync covered stays. Everything else it is free to take away. A name is never
//! made durable by the sync of its file, although most file systems do that.

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
/// Files are named as they lie in the directory: `audit-000-00000001.jsonl`,
/// `control/chain-000.lock`.
#[derive(Clone)]
pub(crate) struct SimDisk(Arc<Shared>);

impl fmt::Debug for SimDisk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let machine = self.0.lock();
        f.debug_struct("SimDisk").field("seed", &machine.seed).field("boots", &machine.boots).finish()
    }
}

/// Processes, crashes, and what they leave.
impl SimDisk {
    /// A machine with an empty log directory. The same seed and the same calls give the same outcome.
    pub(crate) fn new(seed: u64) -> Self {
        Self(Arc::new(Shared::new(Machine::new(seed))))
    }

    /// A machine on which these files are durable.
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

    /// Cuts the power: every process ends, and of what was not synced each sector, length and name
    /// survives or not, by the seed.
    pub(crate) fn power_cut(&self) {
        self.0.lock().cut_power();
        self.0.changed.notify_all();
    }

    /// Cuts the power at the nth call from now on that changes something, whoever makes it.
    pub(crate) fn cut_power_at(&self, nth: u64, applied: Applied) {
        self.0.lock().faults.crash_at(Crash::PowerCut, nth, applied);
    }

    /// Another machine as this one would be after a power cut now; this one goes on undisturbed, and
    /// faults, capacity and held calls stay with it.
    pub(crate) fn after_power_cut(&self, seed: u64) -> Self {
        let mut machine = self.0.lock().clone();
        machine.reseed(seed);
        machine.calm();
        machine.cut_power();
        Self(Arc::new(Shared::new(machine)))
    }

    /// Another machine that is as this one is now, with the same chances from here on; the processes
    /// that ran here do not run there, and faults, capacity and held calls stay here.
    pub(crate) fn copy(&self) -> Self {
        let mut machine = self.0.lock().clone();
        machine.calm();
        machine.end_processes();
        Self(Arc::new(Shared::new(machine)))
    }

    /// How many power cuts there were.
    pub(crate) fn power_cuts(&self) -> u64 {
        self.0.lock().boots
    }

    /// Crash points that no call has reached yet.
    pub(crate) fn crashes_to_come(&self) -> usize {
        self.0.lock().faults.crashes_to_come()
    }

    /// Makes everything durable, as an orderly shutdown does.
    pub(crate) fn sync_everything(&self) {
        self.0.lock().sync_everything();
    }
}

/// What goes wrong.
impl SimDisk {
    pub(crate) fn inject(&self, fault: Fault) {
        self.0.lock().faults.inject(fault);
    }

    /// Ends all faults, and forgets the crash points that were not reached.
    pub(crate) fn clear_faults(&self) {
        self.0.lock().faults.clear();
    }

    /// How many calls a fault struck: zero means that the run met none.
    pub(crate) fn faults_struck(&self) -> u64 {
        self.0.lock().faults.struck
    }

    /// What a failing sync of a file leaves behind. Default: as ext4.
    pub(crate) fn set_sync_failure(&self, failure: SyncFailure) {
        self.0.lock().sync_failure = failure;
    }

    /// The kernel writes a file back by itself and fails; the next sync of each open file says so.
    pub(crate) fn fail_writeback(&self, name: &str, errno: Errno) -> bool {
        self.0.lock().fail_writeback(name, errno)
    }

    /// How many bytes all files together may hold; a write beyond is short, the next one `ENOSPC`.
    pub(crate) fn set_capacity(&self, bytes: Option<usize>) {
        self.0.lock().capacity = bytes;
    }

    /// Sets the capacity so that this much is free now.
    pub(crate) fn set_free_bytes(&self, bytes: usize) {
        let mut machine = self.0.lock();
        machine.capacity = Some(machine.used_bytes().saturating_add(bytes));
    }

    /// `RLIMIT_FSIZE`, with SIGXFSZ ignored: a write beyond is short, the next one `EFBIG`.
    pub(crate) fn set_file_size_limit(&self, bytes: Option<usize>) {
        self.0.lock().largest_file = bytes;
    }

    /// A system that has no boot id.
    pub(crate) fn hide_boot_id(&self) {
        self.0.lock().has_boot_id = false;
    }

    /// The disk is in another machine now, or this one is a clone with an identity of its own.
    pub(crate) fn move_to_machine(&self, id: &str) {
        id.clone_into(&mut self.0.lock().id);
    }

    /// Lets calls of this kind wait until they are released, as on a frozen disk. A sync that waits
    /// covers what was written before it was called, and nothing later.
    pub(crate) fn hold(&self, op: Op) {
        self.0.lock().held.insert(op);
    }

    /// Lets every call go on, and no longer wait.
    pub(crate) fn release(&self) {
        self.0.lock().held.clear();
        self.0.changed.notify_all();
    }

    /// Waits until so many calls wait; false when that took longer than `bound`.
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

/// What somebody does to the files behind the back of every process; durable at once, unless said
/// otherwise. False: there is no such file.
impl SimDisk {
    pub(crate) fn remove_behind_back(&self, name: &str) -> bool {
        self.0.lock().put_at(name, None)
    }

    /// Puts another file under a name; the old one lives on for those who have it open.
    pub(crate) fn replace(&self, name: &str, bytes: &[u8]) {
        self.0.lock().put_at(name, Some(Inode::with_bytes(bytes)));
    }

    /// Overwrites a file in place, whatever was open stays open.
    pub(crate) fn overwrite(&self, name: &str, bytes: &[u8]) -> bool {
        self.0.lock().inode_at(name).map(|inode| inode.rewrite(bytes)).is_some()
    }

    /// Cuts a file in place, or lengthens it with zeros.
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

    /// Flips a bit in the page cache and on the medium. False also when the file is too short.
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

    /// `rm -rf` of the log directory: open files go on without a name.
    pub(crate) fn remove_directory(&self) {
        self.0.lock().detach(true);
    }

    /// Moves the log directory elsewhere: who has it open goes on in it.
    pub(crate) fn move_directory_away(&self) {
        self.0.lock().detach(false);
    }
}

/// What can be seen.
impl SimDisk {
    /// What a process would read in a file now.
    pub(crate) fn contents(&self, name: &str) -> Option<Vec<u8>> {
        self.0.lock().contents(name, false)
    }

    /// What would be there after a power cut that nothing un-synced survives.
    pub(crate) fn durable_contents(&self, name: &str) -> Option<Vec<u8>> {
        self.0.lock().contents(name, true)
    }

    /// Whether a segment of this chain whose name is durable holds these bytes on the medium.
    pub(crate) fn has_on_medium(&self, chain: u16, bytes: &[u8]) -> bool {
        self.0.lock().has_on_medium(&format!("audit-{chain:03}-"), bytes)
    }

    /// How many files any process has open.
    pub(crate) fn open_files(&self) -> usize {
        self.0.lock().open_files()
    }

    /// Every file with what a process would read in it.
    pub(crate) fn snapshot(&self) -> BTreeMap<String, Vec<u8>> {
        self.0.lock().snapshot()
    }

    /// How many calls were made, of all kinds.
    pub(crate) fn operations(&self) -> u64 {
        Op::ALL.into_iter().map(|op| self.count(op)).sum()
    }

    /// How many calls were made that change something: where crash points can be set.
    pub(crate) fn changes(&self) -> u64 {
        Op::CHANGES.into_iter().map(|op| self.count(op)).sum()
    }

    /// How many calls of a kind were made.
    pub(crate) fn count(&self, op: Op) -> u64 {
        self.0.lock().calls(op).made
    }

    /// How many of them failed.
    pub(crate) fn failures(&self, op: Op) -> u64 {
        self.0.lock().calls(op).failed
    }

    /// Whether, since the machine started, the sync of the log's directory failed for one process while a
    /// file of another was not synced: the other cannot know.
    pub(crate) fn others_are_in_doubt(&self) -> bool {
        self.0.lock().others_are_in_doubt
    }

    /// A hash over every call so far, its data and its outcome.
    pub(crate) fn trace_hash(&self) -> u64 {
        self.0.lock().trace.hash
    }

    /// Begins to keep the text of every call, to look at a seed that failed.
    pub(crate) fn record_trace(&self) {
        self.0.lock().trace.lines = Some(Vec::new());
    }

    /// The calls since then.
    pub(crate) fn trace(&self) -> Vec<String> {
        self.0.lock().trace.lines.clone().unwrap_or_default()
    }
}
