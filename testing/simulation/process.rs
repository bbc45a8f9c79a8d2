//! A simulated process: the `Storage` and the `File`s for the code under test.

use std::{
    io,
    path::PathBuf,
    sync::{
        Arc, Condvar, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

use rustix::io::Errno;

use super::{
    fault::{Applied, Call, Crash, Op},
    machine::{CONTROL, Machine, Mode, fail, full_name},
};
use crate::storage::{Access, Dir, File, FileSystem, LockKind, Stat, Storage};

const ROOT: &str = "/simulated/audit-log";

/// The machine, as all processes share it.
#[derive(Debug)]
pub(super) struct Shared {
    /// Guards the whole machine. Held for the length of one call, by the thread that makes it.
    machine: Mutex<Machine>,
    /// Notified when a call blocks, is released, or is ended by a crash.
    pub(super) changed: Condvar,
    /// In a model of threads: locked before each call, so that the model can switch threads there.
    #[cfg(any(loom, shuttle))]
    turn: crate::sync::Mutex<()>,
}

impl Shared {
    pub(super) fn new(machine: Machine) -> Self {
        Self {
            machine: Mutex::new(machine),
            changed: Condvar::new(),
            #[cfg(any(loom, shuttle))]
            turn: crate::sync::Mutex::default(),
        }
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, Machine> {
        self.machine.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One process of a simulated machine. Clones are the same process.
#[derive(Debug, Clone)]
pub(crate) struct SimProcess {
    shared: Arc<Shared>,
    id: usize,
}

impl SimProcess {
    pub(super) fn new(shared: Arc<Shared>, id: usize) -> Self {
        Self { shared, id }
    }

    /// Returns the number of this process, as in the trace.
    pub(crate) fn id(&self) -> usize {
        self.id
    }

    /// Returns the storage for the code under test.
    pub(crate) fn storage(&self) -> Arc<dyn Storage> {
        Arc::new(self.clone())
    }

    /// Ends the process as SIGKILL does: its locks are released, the page cache stays, and every
    /// later call of this process fails.
    pub(crate) fn kill(&self) {
        self.shared.lock().kill(self.id);
        self.shared.changed.notify_all();
    }

    /// Returns how many locks it holds.
    pub(crate) fn locks(&self) -> usize {
        self.shared.lock().locks_of(self.id)
    }

    /// Kills the process at its nth changing call from now on.
    pub(crate) fn kill_at(&self, nth: u64, applied: Applied) {
        self.shared.lock().faults.crash_at(Crash::Kill(self.id), nth, applied);
    }

    /// Closes every file and directory of the process, behind the back of the code under test.
    pub(crate) fn close_descriptors(&self) {
        self.shared.lock().close_descriptors(self.id);
    }

    /// Returns false once the process was killed or the power was cut.
    pub(crate) fn is_alive(&self) -> bool {
        self.shared.lock().is_alive(self.id)
    }

    /// Starts a child that inherits every open file, and with it every lock, until it is killed.
    pub(crate) fn fork(&self) -> Self {
        let id = self.shared.lock().fork(self.id);
        Self::new(Arc::clone(&self.shared), id)
    }

    /// Makes one call: blocks while that kind is held, counts it, applies faults, and carries it
    /// out. `act` gets the moment at which the call began.
    fn call<T>(
        &self,
        op: impl Fn(&Machine) -> Op,
        name: &str,
        handle: Option<u64>,
        act: impl FnOnce(&mut Machine, Mode, u64) -> io::Result<T>,
    ) -> io::Result<T> {
        #[cfg(any(loom, shuttle))]
        drop(self.shared.turn.lock());
        let mut machine = self.shared.lock();
        let began = machine.moment();
        let op = op(&machine);
        // A process may close its descriptors or die while its call is blocked.
        let may_go = |machine: &Machine| {
            machine.is_alive(self.id) && handle.is_none_or(|handle| machine.is_open(handle))
        };
        if machine.held.contains(&op) && may_go(&machine) {
            machine.waiting += 1;
            self.shared.changed.notify_all();
            let waits = |machine: &mut Machine| machine.held.contains(&op) && may_go(machine);
            machine = self.shared.changed.wait_while(machine, waits).unwrap_or_else(PoisonError::into_inner);
            machine.waiting -= 1;
        }
        if !may_go(&machine) {
            return fail(if machine.is_alive(self.id) { Errno::BADF } else { Errno::IO });
        }
        let call = Call { process: self.id, op, name };
        let plan = machine.plan(&call);
        let result = machine.carry_out(&call, plan, |machine, mode| act(machine, mode, began));
        if !may_go(&machine) {
            self.shared.changed.notify_all();
        }
        result
    }
}

fn directory_name(dir: Dir) -> &'static str {
    match dir {
        Dir::Log => ".",
        Dir::Control => "control/",
    }
}

impl Storage for SimProcess {
    fn path(&self, dir: Dir, name: &str) -> PathBuf {
        match dir {
            Dir::Log => PathBuf::from(ROOT).join(name),
            Dir::Control => PathBuf::from(ROOT).join(CONTROL).join(name),
        }
    }

    fn list(&self, dir: Dir) -> io::Result<Vec<String>> {
        self.call(|_| Op::List, directory_name(dir), None, |machine, _, _| machine.list(self.id, dir))
    }

    fn open(&self, dir: Dir, name: &str, access: Access) -> io::Result<Box<dyn File>> {
        let mut opened = None;
        let result = self.call(
            |machine| machine.open_op(self.id, dir, name, access),
            &full_name(dir, name),
            None,
            |machine, _, _| {
                opened = Some(machine.open(self.id, dir, name, access)?);
                Ok(())
            },
        );
        // Created even if the call failed, so that a file opened nevertheless is closed.
        let file = opened.map(|handle| SimFile {
            process: self.clone(),
            handle,
            name: full_name(dir, name),
            is_kept: AtomicBool::new(false),
        });
        result.and(file.ok_or_else(|| Errno::IO.into())).map(|file| Box::new(file) as Box<dyn File>)
    }

    fn remove(&self, dir: Dir, name: &str) -> io::Result<()> {
        let remove = |machine: &mut Machine, _, _| machine.remove(self.id, dir, name);
        self.call(|_| Op::Remove, &full_name(dir, name), None, remove)
    }

    fn sync_dir(&self, dir: Dir) -> io::Result<()> {
        let sync = |machine: &mut Machine, mode, _| machine.sync_dir(self.id, dir, mode);
        self.call(|_| Op::SyncDir, directory_name(dir), None, sync)
    }

    fn stat(&self, dir: Dir, name: &str) -> io::Result<Option<Stat>> {
        let stat = |machine: &mut Machine, _, _| machine.stat_path(self.id, dir, name);
        self.call(|_| Op::Stat, &full_name(dir, name), None, stat)
    }

    fn is_seen_locked(&self, _: Dir, _: &str) -> bool {
        false
    }

    fn reattach(&self) -> io::Result<()> {
        let reattach = |machine: &mut Machine, _, _| {
            machine.reattach(self.id);
            Ok(())
        };
        self.call(|_| Op::Reattach, directory_name(Dir::Log), None, reattach)
    }

    fn apart(&self) -> io::Result<Arc<dyn Storage>> {
        Ok(self.storage())
    }

    fn free_bytes(&self) -> io::Result<u64> {
        let free = |machine: &mut Machine, _, _| Ok(machine.free_bytes() as u64);
        self.call(|_| Op::FreeBytes, directory_name(Dir::Log), None, free)
    }

    fn boot_id(&self) -> String {
        self.shared.lock().boot_id()
    }

    fn machine_id(&self) -> String {
        self.shared.lock().id.clone()
    }

    fn filesystem(&self) -> FileSystem {
        FileSystem::Ext4
    }

    fn file_size_limit(&self) -> Option<u64> {
        self.shared.lock().largest_file.map(|limit| limit as u64)
    }

    fn random(&self) -> io::Result<u128> {
        self.call(|_| Op::Random, "", None, |machine, _, _| Ok(machine.random()))
    }

    /// Returns an id that always has four digits, so that no line's length depends on it.
    fn process_id(&self) -> u32 {
        1000 + u32::try_from(self.id % 9000).unwrap_or_default()
    }
}

/// An open file of a simulated process. Closed when dropped.
#[derive(Debug)]
struct SimFile {
    process: SimProcess,
    handle: u64,
    name: String,
    is_kept: AtomicBool,
}

impl SimFile {
    fn call<T>(&self, op: Op, act: impl FnOnce(&mut Machine, Mode, u64) -> io::Result<T>) -> io::Result<T> {
        self.process.call(|_| op, &self.name, Some(self.handle), act)
    }
}

impl File for SimFile {
    fn append(&self, bytes: &[u8]) -> io::Result<usize> {
        self.call(Op::Append, |machine, mode, _| machine.append(self.handle, bytes, mode))
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<usize> {
        self.call(Op::WriteAt, |machine, mode, _| machine.write_at(self.handle, bytes, offset, mode))
    }

    fn read_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<usize> {
        self.call(Op::Read, |machine, mode, _| machine.read_at(self.handle, bytes, offset, mode))
    }

    fn sync_data(&self) -> io::Result<()> {
        self.call(Op::SyncData, |machine, mode, began| machine.sync(self.handle, began, mode))
    }

    fn sync_all(&self) -> io::Result<()> {
        self.call(Op::SyncAll, |machine, mode, began| machine.sync(self.handle, began, mode))
    }

    fn stat(&self) -> io::Result<Stat> {
        self.call(Op::Stat, |machine, _, _| machine.stat_handle(self.handle))
    }

    /// Returns the inode number, which is never reused here.
    fn birth(&self) -> io::Result<u64> {
        self.call(Op::Stat, |machine, _, _| machine.stat_handle(self.handle)).map(|stat| stat.inode)
    }

    fn try_lock(&self, kind: LockKind) -> io::Result<bool> {
        self.call(Op::Lock, |machine, _, _| machine.try_lock(self.handle, kind))
    }

    fn unlock(&self) -> io::Result<()> {
        self.call(Op::Unlock, |machine, _, _| machine.unlock(self.handle))
    }

    fn keep(self: Arc<Self>) {
        self.is_kept.store(true, Ordering::Relaxed);
    }
}

impl Drop for SimFile {
    fn drop(&mut self) {
        if !self.is_kept.load(Ordering::Relaxed) {
            self.process.shared.lock().close(self.handle, self.process.id);
        }
    }
}
