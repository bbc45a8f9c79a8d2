//! What each call does.

use std::io;

use rustix::io::Errno;

use super::{CONTROL, CONTROL_INODE, DEVICE, Handle, Machine, Mode, PLENTY, fail};
use crate::error::InsecureReason;
use crate::storage::{
    Access, Dir, LockKind, Stat,
    sim::{
        fault::{Op, SyncFailure},
        inode::{Inode, Nature},
    },
};

impl Machine {
    // Calls on the directory.

    pub(crate) fn list(&mut self, process: usize, dir: Dir) -> io::Result<Vec<String>> {
        let tree = self.tree_of(process)?;
        let mut names: Vec<String> = tree.directory(dir).names().map(|(name, _)| name.to_owned()).collect();
        if dir == Dir::Log && !tree.removed {
            names.push(CONTROL.to_owned());
        }
        // readdir(3) returns names in no particular order.
        self.order.shuffle(&mut names);
        Ok(names)
    }

    /// Returns the kind of an open call: some create the file.
    pub(crate) fn open_op(&self, process: usize, dir: Dir, name: &str, access: Access) -> Op {
        let exists = self.tree_of(process).is_ok_and(|tree| tree.directory(dir).get(name).is_some());
        match access {
            Access::Create => Op::Create,
            Access::Lock if !exists => Op::Create,
            Access::Lock | Access::Read | Access::Append => Op::Open,
        }
    }

    pub(crate) fn open(&mut self, process: usize, dir: Dir, name: &str, access: Access) -> io::Result<u64> {
        let tree = self.tree_of(process)?;
        let removed = tree.removed;
        let existing = tree.directory(dir).get(name);
        let inode = match (existing, access) {
            // In a removed directory nothing can be created, even by a process that has it open.
            (None, Access::Create | Access::Lock) if removed => return fail(Errno::NOENT),
            (None, Access::Create | Access::Lock) => {
                let inode = self.add_inode(Inode::default());
                self.directory(process, dir)?.set(name, Some(inode), process);
                inode
            }
            (None, Access::Read | Access::Append) => return fail(Errno::NOENT),
            (Some(_), Access::Create) => return fail(Errno::EXIST),
            (Some(inode), Access::Read | Access::Append | Access::Lock) => inode,
        };
        let links = self.links(inode);
        let Some(found) = self.inodes.get(&inode) else { return fail(Errno::IO) };
        match found.nature {
            Nature::Symlink => return fail(Errno::LOOP),
            Nature::Insecure(reason) if access != Access::Read => return Err(refusal(reason)),
            _ if access != Access::Read && links != 1 => {
                return Err(refusal(InsecureReason::HardLinked));
            }
            Nature::Regular | Nature::Insecure(_) => {}
        }
        let handle = Handle {
            inode,
            access,
            lock: None,
            failures_reported: found.failures_reported_at_open(),
            owners: [process].into(),
        };
        self.next_handle += 1;
        self.handles.insert(self.next_handle, handle);
        Ok(self.next_handle)
    }

    pub(crate) fn remove(&mut self, process: usize, dir: Dir, name: &str) -> io::Result<()> {
        let directory = self.directory(process, dir)?;
        if directory.get(name).is_none() {
            return fail(Errno::NOENT);
        }
        directory.set(name, None, process);
        Ok(())
    }

    pub(crate) fn sync_dir(&mut self, process: usize, dir: Dir, mode: Mode) -> io::Result<()> {
        let directory = self.directory(process, dir)?;
        match mode {
            Mode::Lying => Ok(()),
            Mode::Failing(errno) => {
                let is_of_another = directory.fail_to_sync(process);
                self.others_are_in_doubt |= is_of_another && dir == Dir::Log;
                fail(errno)
            }
            Mode::Honest | Mode::Short(_) | Mode::Part(_) => {
                directory.sync();
                // Only now can no power cut bring back a removed file.
                self.forget_unreachable();
                Ok(())
            }
        }
    }

    /// Looks up the path, so that a directory that was moved away is detected.
    pub(crate) fn stat_path(&self, process: usize, dir: Dir, name: &str) -> io::Result<Option<Stat>> {
        self.tree_of(process)?;
        Ok(self.stat_at_path(dir, name))
    }

    fn stat_at_path(&self, dir: Dir, name: &str) -> Option<Stat> {
        let tree = self.trees.get(self.at_path?)?;
        if dir == Dir::Log && name == CONTROL {
            return Some(Stat { device: DEVICE, inode: CONTROL_INODE, bytes: 4096, links: 2, mode: 0o700 });
        }
        self.stat_inode(tree.directory(dir).get(name)?)
    }

    pub(crate) fn reattach(&mut self, process: usize) {
        let tree = self.tree_at_path();
        if let Some(process) = self.processes.get_mut(process) {
            process.tree = Some(tree);
        }
    }

    pub(crate) fn free_bytes(&self) -> usize {
        self.capacity.map_or(PLENTY, |capacity| capacity.saturating_sub(self.used_bytes()))
    }

    pub(crate) fn random(&mut self) -> u128 {
        u128::from(self.identifiers.next()) << 64 | u128::from(self.identifiers.next())
    }

    // Calls on an open file.

    pub(crate) fn append(&mut self, handle: u64, bytes: &[u8], mode: Mode) -> io::Result<usize> {
        match self.handle(handle)?.access {
            Access::Append | Access::Create => {}
            Access::Read => return fail(Errno::BADF),
            // Without O_APPEND it would write at a file offset that nothing maintains.
            Access::Lock => return fail(Errno::INVAL),
        }
        let end = self.inode(handle)?.cache().len();
        self.write(handle, end, bytes, mode)
    }

    pub(crate) fn write_at(
        &mut self,
        handle: u64,
        bytes: &[u8],
        offset: u64,
        mode: Mode,
    ) -> io::Result<usize> {
        let offset = match self.handle(handle)?.access {
            Access::Lock => usize::try_from(offset).or_else(|_| fail(Errno::FBIG))?,
            // On Linux, pwrite(2) to a file opened with O_APPEND appends, whatever the offset.
            Access::Append | Access::Create => self.inode(handle)?.cache().len(),
            Access::Read => return fail(Errno::BADF),
        };
        self.write(handle, offset, bytes, mode)
    }

    fn write(&mut self, handle: u64, offset: usize, bytes: &[u8], mode: Mode) -> io::Result<usize> {
        let length = self.inode(handle)?.cache().len();
        let below_limit = self.largest_file.map_or(usize::MAX, |limit| limit.saturating_sub(offset));
        // Overwriting needs no space, growing does.
        let room = length.saturating_sub(offset).saturating_add(match self.capacity {
            Some(_) => self.free_bytes().saturating_sub(offset.saturating_sub(length)),
            None => PLENTY,
        });
        if below_limit == 0 && !bytes.is_empty() {
            return fail(Errno::FBIG);
        }
        if room == 0 && !bytes.is_empty() {
            return fail(Errno::NOSPC);
        }
        let written = mode.limit(bytes.len()).min(below_limit).min(room);
        let bytes = bytes.get(..written).unwrap_or(bytes);
        self.moment += 1;
        let moment = self.moment;
        self.inode(handle)?.write(offset, bytes, moment);
        self.trace.note(bytes);
        Ok(written)
    }

    pub(crate) fn read_at(
        &mut self,
        handle: u64,
        bytes: &mut [u8],
        offset: u64,
        mode: Mode,
    ) -> io::Result<usize> {
        let offset = usize::try_from(offset).unwrap_or(usize::MAX);
        let source = self.inode(handle)?.cache().get(offset..).unwrap_or_default();
        let read = mode.limit(source.len().min(bytes.len()));
        if let (Some(target), Some(source)) = (bytes.get_mut(..read), source.get(..read)) {
            target.copy_from_slice(source);
        }
        // What is read follows from what was written, and that is in the trace already.
        self.trace.note(&read.to_le_bytes());
        Ok(read)
    }

    /// Syncs what was written up to `until`, the moment at which the call began.
    pub(crate) fn sync(&mut self, handle: u64, until: u64, mode: Mode) -> io::Result<()> {
        let failure = self.sync_failure;
        let Self { handles, inodes, cut, .. } = self;
        let Some(handle) = handles.get_mut(&handle) else { return fail(Errno::IO) };
        let Some(inode) = inodes.get_mut(&handle.inode) else { return fail(Errno::IO) };
        if matches!(mode, Mode::Lying) {
            return Ok(());
        }
        let earlier = inode.take_failure(&mut handle.failures_reported);
        match (earlier, mode, failure) {
            // These file systems report an earlier error before they write.
            (Some(errno), _, SyncFailure::Ext4Data | SyncFailure::Btrfs) => fail(errno),
            // The bytes are in the journal, so the call succeeds. Writing them to their place fails
            // later.
            (_, Mode::Failing(errno), SyncFailure::Ext4Data) => {
                inode.fail_to_sync(until, false, cut);
                inode.note_failure(errno);
                Ok(())
            }
            (_, Mode::Failing(errno), _) => {
                match failure {
                    SyncFailure::Btrfs => inode.revert(),
                    _ => inode.fail_to_sync(until, failure == SyncFailure::Xfs, cut),
                }
                inode.note_failure(errno);
                // This call reports the failure to its own file. Every other open file still has it
                // to report.
                inode.take_failure(&mut handle.failures_reported).map_or(Ok(()), fail)
            }
            (earlier, _, _) => {
                inode.sync(until);
                earlier.map_or(Ok(()), fail)
            }
        }
    }

    pub(crate) fn stat_handle(&self, handle: u64) -> io::Result<Stat> {
        self.stat_inode(self.handle(handle)?.inode).ok_or_else(|| Errno::IO.into())
    }

    /// Locks as flock(2) does: changing the kind of a lock releases it first.
    pub(crate) fn try_lock(&mut self, handle: u64, kind: LockKind) -> io::Result<bool> {
        let inode = self.handle(handle)?.inode;
        let taken = self.handles.iter().any(|(other, held)| {
            *other != handle
                && held.inode == inode
                && held.lock.is_some_and(|lock| lock == LockKind::Exclusive || kind == LockKind::Exclusive)
        });
        if let Some(handle) = self.handles.get_mut(&handle) {
            // On Linux, the conversion of a lock is not atomic: if it fails, the old lock is gone.
            let keeps_its_own = handle.lock == Some(kind);
            handle.lock = (!taken || keeps_its_own).then_some(kind);
        }
        self.trace.note(&[u8::from(taken)]);
        Ok(!taken)
    }

    pub(crate) fn unlock(&mut self, handle: u64) -> io::Result<()> {
        self.handles.get_mut(&handle).map_or_else(
            || fail(Errno::IO),
            |handle| {
                handle.lock = None;
                Ok(())
            },
        )
    }

    /// Closes an open file for one process. The last one releases it.
    pub(crate) fn close(&mut self, handle: u64, process: usize) {
        if let Some(open) = self.handles.get_mut(&handle) {
            open.owners.remove(&process);
            if open.owners.is_empty() {
                self.handles.remove(&handle);
            }
        }
    }
}

fn refusal(reason: InsecureReason) -> io::Error {
    io::Error::new(io::ErrorKind::PermissionDenied, reason)
}
