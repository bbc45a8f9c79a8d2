//! The simulated machine: its inodes, directories, open files, locks and processes. What each call
//! does when nothing goes wrong; what does go wrong is decided in `fault`.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt, io,
};

use rustix::io::Errno;

use super::{
    directory::Directory,
    fault::{Call, Crash, Effect, Faults, Op, Plan, SyncFailure},
    inode::{Inode, Nature},
    prng::Prng,
};
use crate::storage::{Access, Dir, LockKind, Refusal, Stat};

const DEVICE: u64 = 0x51;
/// Inodes of the directories themselves, as `stat` shows them.
const CONTROL_INODE: u64 = 2;
const FIRST_FILE_INODE: u64 = 11;
/// What `statfs` says when no capacity is set.
const PLENTY: usize = 1 << 40;
pub(super) const CONTROL: &str = "control";

#[derive(Debug, Clone)]
pub(super) struct Machine {
    pub(super) seed: u64,
    pub(super) faults: Faults,
    pub(super) trace: Trace,
    pub(super) sync_failure: SyncFailure,
    /// How many bytes all files together may hold.
    pub(super) capacity: Option<usize>,
    pub(super) largest_file: Option<usize>,
    pub(super) filesystem: String,
    pub(super) has_boot_id: bool,
    pub(super) boots: u64,
    /// The kinds of call that wait until they are released, and how many calls wait.
    pub(super) held: BTreeSet<Op>,
    pub(super) waiting: usize,
    calls: BTreeMap<Op, Calls>,
    /// What a power cut does; what order names are listed in; what identifiers are drawn.
    cut: Prng,
    order: Prng,
    identifiers: Prng,
    /// Rises with every write, so that a sync covers only what was written before it began.
    moment: u64,
    inodes: BTreeMap<u64, Inode>,
    next_inode: u64,
    /// Every directory there ever was; a process keeps its own open when another takes its place.
    trees: Vec<Tree>,
    /// Which of them is at the path of the log.
    at_path: Option<usize>,
    handles: BTreeMap<u64, Handle>,
    next_handle: u64,
    processes: Vec<Process>,
}

#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Calls {
    pub(super) made: u64,
    pub(super) failed: u64,
}

#[derive(Debug, Clone, Default)]
struct Tree {
    log: Directory,
    control: Directory,
    /// Removed from the file system; who holds it open can still list it, and make nothing in it.
    removed: bool,
}

/// An open file description: the lock belongs to it, not to a process or a file.
#[derive(Debug, Clone)]
struct Handle {
    inode: u64,
    name: String,
    access: Access,
    lock: Option<LockKind>,
    failures_heard: u64,
    /// The processes that hold it; more than one after a fork.
    owners: BTreeSet<usize>,
}

#[derive(Debug, Clone)]
struct Process {
    alive: bool,
    tree: usize,
}

/// How a call is carried out.
#[derive(Debug, Clone, Copy)]
pub(super) enum Mode {
    Honest,
    /// At most so many bytes.
    Short(usize),
    /// A sync that fails, or lies.
    Failing(Errno),
    Lying,
}

impl Mode {
    fn limit(self) -> usize {
        match self {
            Self::Short(bytes) => bytes,
            _ => usize::MAX,
        }
    }
}

/// A running hash over every call and its outcome, and on request their text.
#[derive(Debug, Clone)]
pub(super) struct Trace {
    pub(super) hash: u64,
    pub(super) lines: Option<Vec<String>>,
}

impl Trace {
    /// FNV-1a.
    pub(super) fn note(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.hash = (self.hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01B3);
        }
    }

    pub(super) fn line(&mut self, line: fmt::Arguments<'_>) {
        if let Some(lines) = &mut self.lines {
            lines.push(line.to_string());
        }
    }
}

pub(super) fn fail<T>(errno: Errno) -> io::Result<T> {
    Err(errno.into())
}

impl Machine {
    pub(super) fn new(seed: u64) -> Self {
        Self {
            seed,
            faults: Faults::new(Prng::for_purpose(seed, 1)),
            trace: Trace { hash: 0xCBF2_9CE4_8422_2325, lines: None },
            sync_failure: SyncFailure::default(),
            capacity: None,
            largest_file: None,
            filesystem: "ext4".to_owned(),
            has_boot_id: true,
            boots: 0,
            held: BTreeSet::new(),
            waiting: 0,
            calls: BTreeMap::new(),
            cut: Prng::for_purpose(seed, 2),
            order: Prng::for_purpose(seed, 3),
            identifiers: Prng::for_purpose(seed, 4),
            moment: 0,
            inodes: BTreeMap::new(),
            next_inode: FIRST_FILE_INODE,
            trees: vec![Tree::default()],
            at_path: Some(0),
            handles: BTreeMap::new(),
            next_handle: 0,
            processes: Vec::new(),
        }
    }

    /// The same machine with other chances from here on.
    pub(super) fn reseed(&mut self, seed: u64) {
        self.seed = seed;
        self.faults = Faults::new(Prng::for_purpose(seed, 1));
        self.cut = Prng::for_purpose(seed, 2);
        self.order = Prng::for_purpose(seed, 3);
        self.identifiers = Prng::for_purpose(seed, 4);
    }

    pub(super) fn moment(&self) -> u64 {
        self.moment
    }

    pub(super) fn calls(&self, op: Op) -> Calls {
        self.calls.get(&op).copied().unwrap_or_default()
    }

    // Processes and crashes.

    /// Starts a process; makes the directory of the log when it is missing.
    pub(super) fn start_process(&mut self) -> usize {
        let tree = self.tree_at_path();
        self.processes.push(Process { alive: true, tree });
        self.processes.len() - 1
    }

    /// A child that holds every file its parent has open, and does nothing with them.
    pub(super) fn fork(&mut self, parent: usize) -> usize {
        let tree = self.processes.get(parent).map_or(0, |parent| parent.tree);
        self.processes.push(Process { alive: self.is_alive(parent), tree });
        let child = self.processes.len() - 1;
        for handle in self.handles.values_mut().filter(|handle| handle.owners.contains(&parent)) {
            handle.owners.insert(child);
        }
        child
    }

    pub(super) fn is_alive(&self, process: usize) -> bool {
        self.processes.get(process).is_some_and(|process| process.alive)
    }

    pub(super) fn is_open(&self, handle: u64) -> bool {
        self.handles.contains_key(&handle)
    }

    pub(super) fn crash(&mut self, crash: Crash) {
        match crash {
            Crash::PowerCut => self.cut_power(),
            Crash::Kill(process) => self.kill(process),
        }
    }

    /// A process dies: its files are closed, the page cache stays.
    pub(super) fn kill(&mut self, process: usize) {
        if let Some(process) = self.processes.get_mut(process) {
            process.alive = false;
        }
        self.handles.retain(|_, handle| {
            handle.owners.remove(&process);
            !handle.owners.is_empty()
        });
        self.trace.note(b"kill");
        self.trace.line(format_args!("p{process} is killed"));
    }

    pub(super) fn cut_power(&mut self) {
        self.processes.iter_mut().for_each(|process| process.alive = false);
        self.handles.clear();
        for inode in self.inodes.values_mut() {
            inode.cut_power(&mut self.cut);
        }
        for tree in &mut self.trees {
            tree.log.cut_power(&mut self.cut);
            tree.control.cut_power(&mut self.cut);
        }
        self.forget_unreachable();
        self.boots += 1;
        self.trace.note(b"power cut");
        self.trace.line(format_args!("power cut"));
    }

    pub(super) fn boot_id(&self) -> String {
        if self.has_boot_id {
            format!("{:08x}-0000-4000-8000-{:012x}", self.seed & 0xFFFF_FFFF, self.boots)
        } else {
            String::new()
        }
    }

    // How a call goes.

    /// Counts a call and decides what happens to it.
    pub(super) fn plan(&mut self, call: &Call<'_>) -> Plan {
        self.calls.entry(call.op).or_default().made += 1;
        self.faults.plan(call)
    }

    /// Carries out a call under its plan. Where the plan is a crash, the call does what it still does,
    /// and its outcome is the error that nobody is left to see.
    pub(super) fn carry_out<T>(
        &mut self,
        call: &Call<'_>,
        plan: Plan,
        act: impl FnOnce(&mut Self, Mode) -> io::Result<T>,
    ) -> io::Result<T> {
        let is_sync = Op::SYNCS.contains(&call.op);
        let result = match plan {
            Plan::Go => act(self, Mode::Honest),
            Plan::Fault(Effect::Short(bytes)) => act(self, Mode::Short(bytes)),
            Plan::Fault(Effect::Refuse(errno)) if is_sync => act(self, Mode::Failing(errno)),
            Plan::Fault(Effect::Refuse(errno)) => fail(errno),
            Plan::Fault(Effect::ApplyAndFail(errno)) => act(self, Mode::Honest).and(fail(errno)),
            Plan::Fault(Effect::Lie) => act(self, Mode::Lying),
            Plan::Crash(crash, still_done) => {
                let done = still_done.map(|bytes| act(self, Mode::Short(bytes)).map(drop));
                self.crash(crash);
                done.unwrap_or(Ok(())).and(fail(Errno::IO))
            }
        };
        if result.is_err() {
            self.calls.entry(call.op).or_default().failed += 1;
        }
        self.note_call(call, result.as_ref().err());
        result
    }

    fn note_call(&mut self, call: &Call<'_>, error: Option<&io::Error>) {
        let code = error.map_or(0, |error| error.raw_os_error().unwrap_or(-1));
        let Call { process, op, name } = call;
        self.trace.note(&process.to_le_bytes());
        self.trace.note(&[*op as u8]);
        self.trace.note(name.as_bytes());
        self.trace.note(&code.to_le_bytes());
        match error {
            Some(error) => self.trace.line(format_args!("p{process} {op:?} {name}: {error}")),
            None => self.trace.line(format_args!("p{process} {op:?} {name}")),
        }
    }

    // Calls on the directory.

    fn tree_of(&self, process: usize) -> io::Result<&Tree> {
        let process = self.processes.get(process);
        process.and_then(|process| self.trees.get(process.tree)).ok_or_else(|| Errno::IO.into())
    }

    fn directory(&mut self, process: usize, dir: Dir) -> io::Result<&mut Directory> {
        let process = self.processes.get(process);
        let tree = process.and_then(|process| self.trees.get_mut(process.tree));
        tree.map(|tree| tree.directory_mut(dir)).ok_or_else(|| Errno::IO.into())
    }

    fn tree_at_path(&mut self) -> usize {
        *self.at_path.get_or_insert_with(|| {
            self.trees.push(Tree::default());
            self.trees.len() - 1
        })
    }

    pub(super) fn list(&mut self, process: usize, dir: Dir) -> io::Result<Vec<String>> {
        let tree = self.tree_of(process)?;
        let mut names: Vec<String> = tree.directory(dir).names().map(|(name, _)| name.to_owned()).collect();
        if dir == Dir::Log && !tree.removed {
            names.push(CONTROL.to_owned());
        }
        self.order.shuffle(&mut names);
        Ok(names)
    }

    /// What kind of call opening a file is: some make it.
    pub(super) fn open_op(&self, process: usize, dir: Dir, name: &str, access: Access) -> Op {
        let exists = self.tree_of(process).is_ok_and(|tree| tree.directory(dir).get(name).is_some());
        match access {
            Access::Create => Op::Create,
            Access::Lock if !exists => Op::Create,
            Access::Lock | Access::Read | Access::Append => Op::Open,
        }
    }

    pub(super) fn open(&mut self, process: usize, dir: Dir, name: &str, access: Access) -> io::Result<u64> {
        let tree = self.tree_of(process)?;
        let removed = tree.removed;
        let existing = tree.directory(dir).get(name);
        let inode = match (existing, access) {
            (None, Access::Create | Access::Lock) if removed => return fail(Errno::NOENT),
            (None, Access::Create | Access::Lock) => {
                let inode = self.add_inode(Inode::default());
                self.directory(process, dir)?.set(name, Some(inode));
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
            Nature::Unsafe(reason) if access != Access::Read => return Err(refusal(reason)),
            _ if access != Access::Read && links != 1 => {
                return Err(refusal("it has more than one name; remove the hard links"));
            }
            Nature::Regular | Nature::Unsafe(_) => {}
        }
        let handle = Handle {
            inode,
            name: full_name(dir, name),
            access,
            lock: None,
            failures_heard: found.failures_heard_at_open(),
            owners: [process].into(),
        };
        self.next_handle += 1;
        self.handles.insert(self.next_handle, handle);
        Ok(self.next_handle)
    }

    pub(super) fn remove(&mut self, process: usize, dir: Dir, name: &str) -> io::Result<()> {
        let directory = self.directory(process, dir)?;
        if directory.get(name).is_none() {
            return fail(Errno::NOENT);
        }
        directory.set(name, None);
        Ok(())
    }

    pub(super) fn sync_dir(&mut self, process: usize, dir: Dir, mode: Mode) -> io::Result<()> {
        let directory = self.directory(process, dir)?;
        match mode {
            Mode::Lying => Ok(()),
            Mode::Failing(errno) => {
                directory.fail_to_sync();
                fail(errno)
            }
            Mode::Honest | Mode::Short(_) => {
                directory.sync();
                self.forget_unreachable();
                Ok(())
            }
        }
    }

    /// By the path, so that a directory that was moved away is noticed.
    pub(super) fn stat_path(&self, dir: Dir, name: &str) -> Option<Stat> {
        let tree = self.trees.get(self.at_path?)?;
        if dir == Dir::Log && name == CONTROL {
            return Some(Stat { device: DEVICE, inode: CONTROL_INODE, bytes: 4096, links: 2 });
        }
        self.stat_inode(tree.directory(dir).get(name)?)
    }

    pub(super) fn reattach(&mut self, process: usize) {
        let tree = self.tree_at_path();
        if let Some(process) = self.processes.get_mut(process) {
            process.tree = tree;
        }
    }

    pub(super) fn free_bytes(&self) -> usize {
        self.capacity.map_or(PLENTY, |capacity| capacity.saturating_sub(self.used_bytes()))
    }

    pub(super) fn random(&mut self) -> u128 {
        u128::from(self.identifiers.next()) << 64 | u128::from(self.identifiers.next())
    }

    // Calls on an open file.

    pub(super) fn name_of(&self, handle: u64) -> String {
        self.handles.get(&handle).map_or_else(String::new, |handle| handle.name.clone())
    }

    fn handle(&self, handle: u64) -> io::Result<&Handle> {
        self.handles.get(&handle).ok_or_else(|| Errno::IO.into())
    }

    fn inode(&mut self, handle: u64) -> io::Result<&mut Inode> {
        let inode = self.handle(handle)?.inode;
        self.inodes.get_mut(&inode).ok_or_else(|| Errno::IO.into())
    }

    pub(super) fn append(&mut self, handle: u64, bytes: &[u8], mode: Mode) -> io::Result<usize> {
        match self.handle(handle)?.access {
            Access::Append | Access::Create => {}
            Access::Read => return fail(Errno::BADF),
            // It would write at a position that nobody keeps.
            Access::Lock => return fail(Errno::INVAL),
        }
        let end = self.inode(handle)?.cache().len();
        self.write(handle, end, bytes, mode)
    }

    pub(super) fn write_at(
        &mut self,
        handle: u64,
        bytes: &[u8],
        offset: u64,
        mode: Mode,
    ) -> io::Result<usize> {
        let offset = match self.handle(handle)?.access {
            Access::Lock => usize::try_from(offset).or_else(|_| fail(Errno::FBIG))?,
            // On Linux a file opened to append is appended to, wherever the write was to go.
            Access::Append | Access::Create => self.inode(handle)?.cache().len(),
            Access::Read => return fail(Errno::BADF),
        };
        self.write(handle, offset, bytes, mode)
    }

    fn write(&mut self, handle: u64, offset: usize, bytes: &[u8], mode: Mode) -> io::Result<usize> {
        let length = self.inode(handle)?.cache().len();
        let below_limit = self.largest_file.map_or(usize::MAX, |limit| limit.saturating_sub(offset));
        // Overwriting needs no room, growing does.
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
        let written = bytes.len().min(mode.limit()).min(below_limit).min(room);
        let bytes = bytes.get(..written).unwrap_or(bytes);
        self.moment += 1;
        let moment = self.moment;
        self.inode(handle)?.write(offset, bytes, moment);
        self.trace.note(bytes);
        Ok(written)
    }

    pub(super) fn read_at(
        &mut self,
        handle: u64,
        bytes: &mut [u8],
        offset: u64,
        mode: Mode,
    ) -> io::Result<usize> {
        let offset = usize::try_from(offset).unwrap_or(usize::MAX);
        let source = self.inode(handle)?.cache().get(offset..).unwrap_or_default();
        let read = source.len().min(bytes.len()).min(mode.limit());
        for (byte, source) in bytes.iter_mut().zip(source).take(read) {
            *byte = *source;
        }
        self.trace.note(bytes.get(..read).unwrap_or_default());
        Ok(read)
    }

    /// Syncs what was written up to `until`, when the call began.
    pub(super) fn sync(&mut self, handle: u64, until: u64, mode: Mode) -> io::Result<()> {
        let failure = self.sync_failure;
        let Self { handles, inodes, cut, .. } = self;
        let Some(handle) = handles.get_mut(&handle) else { return fail(Errno::IO) };
        let Some(inode) = inodes.get_mut(&handle.inode) else { return fail(Errno::IO) };
        if matches!(mode, Mode::Lying) {
            return Ok(());
        }
        let earlier = inode.take_failure(&mut handle.failures_heard);
        match (earlier, mode, failure) {
            // These report before they write.
            (Some(errno), _, SyncFailure::Ext4Data | SyncFailure::Btrfs) => fail(errno),
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
                inode.take_failure(&mut handle.failures_heard).map_or(Ok(()), fail)
            }
            (earlier, _, _) => {
                inode.sync(until);
                earlier.map_or(Ok(()), fail)
            }
        }
    }

    pub(super) fn stat_handle(&self, handle: u64) -> io::Result<Stat> {
        self.stat_inode(self.handle(handle)?.inode).ok_or_else(|| Errno::IO.into())
    }

    /// As flock does it: changing the kind of a lock lets go of it first.
    pub(super) fn try_lock(&mut self, handle: u64, kind: LockKind) -> io::Result<bool> {
        let inode = self.handle(handle)?.inode;
        let taken = self.handles.iter().any(|(other, held)| {
            *other != handle
                && held.inode == inode
                && held.lock.is_some_and(|lock| lock == LockKind::Exclusive || kind == LockKind::Exclusive)
        });
        if let Some(handle) = self.handles.get_mut(&handle) {
            let keeps_its_own = handle.lock == Some(kind);
            handle.lock = (!taken || keeps_its_own).then_some(kind);
        }
        self.trace.note(&[u8::from(taken)]);
        Ok(!taken)
    }

    pub(super) fn unlock(&mut self, handle: u64) -> io::Result<()> {
        self.handles.get_mut(&handle).map_or_else(
            || fail(Errno::IO),
            |handle| {
                handle.lock = None;
                Ok(())
            },
        )
    }

    /// One process lets go of an open file; the last one closes it.
    pub(super) fn close(&mut self, handle: u64, process: usize) {
        if let Some(open) = self.handles.get_mut(&handle) {
            open.owners.remove(&process);
            if open.owners.is_empty() {
                self.handles.remove(&handle);
            }
        }
    }

    // Inodes.

    fn add_inode(&mut self, inode: Inode) -> u64 {
        // Numbers are never used again: what held a number while it was open still has it.
        let number = self.next_inode;
        self.next_inode += 1;
        self.inodes.insert(number, inode);
        number
    }

    fn stat_inode(&self, inode: u64) -> Option<Stat> {
        let bytes = self.inodes.get(&inode)?.cache().len() as u64;
        Some(Stat { device: DEVICE, inode, bytes, links: self.links(inode) })
    }

    fn links(&self, inode: u64) -> u64 {
        let trees = self.trees.iter().filter(|tree| !tree.removed);
        let names = trees.flat_map(|tree| tree.log.names().chain(tree.control.names()));
        names.filter(|(_, named)| *named == inode).count() as u64
    }

    /// What all files hold that have a name or are open.
    pub(super) fn used_bytes(&self) -> usize {
        let trees = self.trees.iter().filter(|tree| !tree.removed);
        let named =
            trees.flat_map(|tree| tree.log.names().chain(tree.control.names())).map(|(_, inode)| inode);
        let used: BTreeSet<u64> = named.chain(self.handles.values().map(|handle| handle.inode)).collect();
        used.iter().filter_map(|inode| self.inodes.get(inode)).map(|inode| inode.cache().len()).sum()
    }

    fn forget_unreachable(&mut self) {
        let trees = self.trees.iter().flat_map(|tree| tree.log.reachable().chain(tree.control.reachable()));
        let reachable: BTreeSet<u64> =
            trees.chain(self.handles.values().map(|handle| handle.inode)).collect();
        self.inodes.retain(|inode, _| reachable.contains(inode));
    }

    // What tests do behind the back of every process, at the path of the log. Names in `control` begin
    // with `control/`.

    pub(super) fn contents(&self, name: &str, durable: bool) -> Option<Vec<u8>> {
        let (dir, name) = split_name(name);
        let directory = self.trees.get(self.at_path?)?.directory(dir);
        let inode = if durable { directory.get_durable(name) } else { directory.get(name) }?;
        let inode = self.inodes.get(&inode)?;
        Some(if durable { inode.durable() } else { inode.cache() }.to_vec())
    }

    pub(super) fn snapshot(&self) -> BTreeMap<String, Vec<u8>> {
        let Some(tree) = self.at_path.and_then(|tree| self.trees.get(tree)) else { return BTreeMap::new() };
        [Dir::Log, Dir::Control]
            .into_iter()
            .flat_map(|dir| tree.directory(dir).names().map(move |(name, inode)| (dir, name, inode)))
            .filter_map(|(dir, name, inode)| {
                Some((full_name(dir, name), self.inodes.get(&inode)?.cache().to_vec()))
            })
            .collect()
    }

    pub(super) fn inode_at(&mut self, name: &str) -> Option<&mut Inode> {
        let (dir, name) = split_name(name);
        let inode = self.trees.get(self.at_path?)?.directory(dir).get(name)?;
        self.inodes.get_mut(&inode)
    }

    /// Puts another inode, or nothing, under a name, durable at once. False when nothing was there.
    pub(super) fn put_at(&mut self, name: &str, inode: Option<Inode>) -> bool {
        let inode = inode.map(|inode| self.add_inode(inode));
        self.link_at(name, inode)
    }

    fn link_at(&mut self, name: &str, inode: Option<u64>) -> bool {
        let tree = self.tree_at_path();
        let (dir, name) = split_name(name);
        let Some(tree) = self.trees.get_mut(tree) else { return false };
        let existed = tree.directory(dir).get(name).is_some();
        tree.directory_mut(dir).set_durable(name, inode);
        existed
    }

    pub(super) fn hard_link(&mut self, name: &str, new_name: &str) -> bool {
        let (dir, name) = split_name(name);
        let tree = self.at_path.and_then(|tree| self.trees.get(tree));
        let Some(inode) = tree.and_then(|tree| tree.directory(dir).get(name)) else { return false };
        self.link_at(new_name, Some(inode));
        true
    }

    pub(super) fn append_foreign(&mut self, name: &str, bytes: &[u8]) -> bool {
        self.moment += 1;
        let moment = self.moment;
        self.inode_at(name).map(|inode| inode.write(inode.cache().len(), bytes, moment)).is_some()
    }

    /// The kernel writes back by itself, and it fails: the next sync of every open file says so.
    pub(super) fn fail_writeback(&mut self, name: &str, errno: Errno) -> bool {
        let until = self.moment;
        let mut chance = Prng::new(self.cut.next());
        let failed = self.inode_at(name).map(|inode| {
            inode.fail_to_sync(until, false, &mut chance);
            inode.note_failure(errno);
        });
        failed.is_some()
    }

    pub(super) fn sync_everything(&mut self) {
        let until = self.moment;
        self.inodes.values_mut().for_each(|inode| inode.sync(until));
        for tree in &mut self.trees {
            tree.log.sync();
            tree.control.sync();
        }
    }

    /// Takes the directory away from the path of the log: removed with all that is in it, or only moved.
    pub(super) fn detach(&mut self, removed: bool) {
        if let Some(tree) = self.at_path.take().and_then(|tree| self.trees.get_mut(tree)) {
            tree.removed = removed;
            if removed {
                tree.log = Directory::default();
                tree.control = Directory::default();
            }
        }
    }
}

impl Tree {
    fn directory(&self, dir: Dir) -> &Directory {
        match dir {
            Dir::Log => &self.log,
            Dir::Control => &self.control,
        }
    }

    fn directory_mut(&mut self, dir: Dir) -> &mut Directory {
        match dir {
            Dir::Log => &mut self.log,
            Dir::Control => &mut self.control,
        }
    }
}

fn refusal(reason: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::PermissionDenied, Refusal(reason))
}

/// A name as faults, traces and snapshots show it.
pub(super) fn full_name(dir: Dir, name: &str) -> String {
    match dir {
        Dir::Log => name.to_owned(),
        Dir::Control => format!("{CONTROL}/{name}"),
    }
}

fn split_name(name: &str) -> (Dir, &str) {
    match name.split_once('/') {
        Some((CONTROL, name)) => (Dir::Control, name),
        _ => (Dir::Log, name),
    }
}
