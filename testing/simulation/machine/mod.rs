//! The simulated machine: its inodes, directories, open files, locks and processes. `fault` decides
//! which calls fail.

mod behind_back;
mod calls;

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt, io,
};

use rustix::io::Errno;

use super::{
    directory::Directory,
    fault::{Call, Crash, Effect, Faults, Op, Plan, SyncFailure},
    inode::Inode,
    prng::Prng,
};
use crate::storage::{Access, Dir, LockKind, Stat};

const DEVICE: u64 = 0x51;
/// Inode numbers of the directories, as `stat` returns them.
const CONTROL_INODE: u64 = 2;
const FIRST_FILE_INODE: u64 = 11;
/// The free bytes if no capacity is set.
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
    pub(super) has_boot_id: bool,
    /// The id of this machine.
    pub(super) id: String,
    pub(super) boots: u64,
    /// Whether, since the machine started, a sync of the log directory failed that was to cover a
    /// file of another process.
    pub(super) others_are_in_doubt: bool,
    /// The kinds of call that block until they are released.
    pub(super) held: BTreeSet<Op>,
    /// How many calls are blocked.
    pub(super) waiting: usize,
    calls: BTreeMap<Op, Calls>,
    /// One sequence for each purpose: power cuts, the order of listed names, and identifiers.
    cut: Prng,
    order: Prng,
    identifiers: Prng,
    /// Rises with every write, so that a sync covers only what was written before it began.
    moment: u64,
    inodes: BTreeMap<u64, Inode>,
    next_inode: u64,
    /// Every directory that ever existed. A process keeps its own open when another replaces it.
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
    /// Removed from the file system. A process that has it open can still list it, but create
    /// nothing in it.
    removed: bool,
}

/// An open file description: a lock belongs to it, not to a process or a file (flock(2)).
#[derive(Debug, Clone)]
struct Handle {
    inode: u64,
    access: Access,
    lock: Option<LockKind>,
    failures_reported: u64,
    /// The processes that hold it: more than one after a fork.
    owners: BTreeSet<usize>,
}

#[derive(Debug, Clone)]
struct Process {
    alive: bool,
    /// The directories that it has open; `None` after it closed them.
    tree: Option<usize>,
}

/// How a call is carried out.
#[derive(Debug, Clone, Copy)]
pub(super) enum Mode {
    Honest,
    /// At most so many bytes.
    Short(usize),
    /// So many thousandths of a write, and at least one byte.
    Part(u16),
    /// A sync that fails.
    Failing(Errno),
    /// A sync that succeeds but makes nothing durable.
    Lying,
}

impl Mode {
    /// Returns how many of `bytes` are transferred.
    fn limit(self, bytes: usize) -> usize {
        match self {
            Self::Short(limit) => bytes.min(limit),
            Self::Part(per_mille) => bytes.min((bytes * usize::from(per_mille) / 1000).max(1)),
            Self::Honest | Self::Failing(_) | Self::Lying => bytes,
        }
    }
}

/// A running hash over every call and its outcome and, on request, their text.
#[derive(Debug, Clone)]
pub(super) struct Trace {
    pub(super) hash: u64,
    pub(super) lines: Option<Vec<String>>,
}

impl Trace {
    /// Hashes as FNV-1a does, but by words: every byte of every write passes through here.
    pub(super) fn note(&mut self, bytes: &[u8]) {
        let (words, rest) = bytes.as_chunks::<8>();
        for word in words {
            self.mix(u64::from_le_bytes(*word));
        }
        for byte in rest {
            self.mix(u64::from(*byte));
        }
    }

    fn mix(&mut self, word: u64) {
        self.hash = (self.hash ^ word).wrapping_mul(0x0100_0000_01B3).rotate_left(29);
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
            has_boot_id: true,
            id: "a simulated machine".to_owned(),
            boots: 0,
            others_are_in_doubt: false,
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

    /// Continues with other random sequences from here on.
    pub(super) fn reseed(&mut self, seed: u64) {
        self.seed = seed;
        self.faults = Faults::new(Prng::for_purpose(seed, 1));
        self.cut = Prng::for_purpose(seed, 2);
        self.order = Prng::for_purpose(seed, 3);
        self.identifiers = Prng::for_purpose(seed, 4);
    }

    /// Ends all faults and limits.
    pub(super) fn calm(&mut self) {
        self.faults.clear();
        self.capacity = None;
        self.largest_file = None;
        self.held.clear();
        self.waiting = 0;
    }

    pub(super) fn end_processes(&mut self) {
        self.processes.iter_mut().for_each(|process| process.alive = false);
        self.handles.clear();
    }

    pub(super) fn moment(&self) -> u64 {
        self.moment
    }

    pub(super) fn calls(&self, op: Op) -> Calls {
        self.calls.get(&op).copied().unwrap_or_default()
    }

    // Processes and crashes.

    /// Starts a process. Creates the log directory if it is missing.
    pub(super) fn start_process(&mut self) -> usize {
        let tree = Some(self.tree_at_path());
        self.processes.push(Process { alive: true, tree });
        self.processes.len() - 1
    }

    /// Starts a child that holds every open file of its parent and does nothing with them.
    pub(super) fn fork(&mut self, parent: usize) -> usize {
        let tree = self.processes.get(parent).and_then(|parent| parent.tree);
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

    /// Returns how many locks a process holds.
    pub(super) fn locks_of(&self, process: usize) -> usize {
        // After a fork, parent and child share a lock, and it counts for both.
        let is_held = |handle: &&Handle| handle.lock.is_some() && handle.owners.contains(&process);
        self.handles.values().filter(is_held).count()
    }

    pub(super) fn open_files(&self) -> usize {
        self.handles.len()
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

    /// Kills a process: its files are closed, the page cache stays.
    pub(super) fn kill(&mut self, process: usize) {
        if let Some(process) = self.processes.get_mut(process) {
            process.alive = false;
        }
        self.close_files(process);
        self.trace.note(b"kill");
        self.trace.line(format_args!("p{process} is killed"));
    }

    fn close_files(&mut self, process: usize) {
        self.handles.retain(|_, handle| {
            handle.owners.remove(&process);
            !handle.owners.is_empty()
        });
    }

    pub(super) fn close_descriptors(&mut self, process: usize) {
        if let Some(process) = self.processes.get_mut(process) {
            process.tree = None;
        }
        self.close_files(process);
        self.trace.note(b"close");
        self.trace.line(format_args!("p{process} closes its descriptors"));
    }

    pub(super) fn cut_power(&mut self) {
        self.end_processes();
        for inode in self.inodes.values_mut() {
            inode.cut_power(&mut self.cut);
        }
        for tree in &mut self.trees {
            tree.log.cut_power(&mut self.cut);
            tree.control.cut_power(&mut self.cut);
        }
        self.forget_unreachable();
        // Changes the boot id.
        self.boots += 1;
        self.others_are_in_doubt = false;
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

    /// Carries out a call according to its plan. At a crash, the part that still takes effect is
    /// done, and the error is returned to a caller that no longer exists.
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
            // A sync that fails has effects, too: it marks pages as clean.
            Plan::Fault(Effect::Refuse(errno)) if is_sync => act(self, Mode::Failing(errno)),
            Plan::Fault(Effect::Refuse(errno)) => fail(errno),
            Plan::Fault(Effect::ApplyAndFail(errno)) => act(self, Mode::Honest).and(fail(errno)),
            Plan::Fault(Effect::Lie) => act(self, Mode::Lying),
            Plan::Crash(crash, still_done) => {
                // The caller is gone, and the outcome of the call with it.
                still_done.and_then(|per_mille| act(self, Mode::Part(per_mille)).ok());
                self.crash(crash);
                fail(Errno::IO)
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

    // Directories, open files, inodes.

    fn tree_of(&self, process: usize) -> io::Result<&Tree> {
        let tree = self.processes.get(process).and_then(|process| process.tree).ok_or(Errno::BADF)?;
        self.trees.get(tree).ok_or_else(|| Errno::IO.into())
    }

    fn directory(&mut self, process: usize, dir: Dir) -> io::Result<&mut Directory> {
        let tree = self.processes.get(process).and_then(|process| process.tree).ok_or(Errno::BADF)?;
        self.trees.get_mut(tree).map(|tree| tree.directory_mut(dir)).ok_or_else(|| Errno::IO.into())
    }

    fn tree_at_path(&mut self) -> usize {
        *self.at_path.get_or_insert_with(|| {
            self.trees.push(Tree::default());
            self.trees.len() - 1
        })
    }

    fn handle(&self, handle: u64) -> io::Result<&Handle> {
        self.handles.get(&handle).ok_or_else(|| Errno::IO.into())
    }

    fn inode(&mut self, handle: u64) -> io::Result<&mut Inode> {
        let inode = self.handle(handle)?.inode;
        self.inodes.get_mut(&inode).ok_or_else(|| Errno::IO.into())
    }

    fn add_inode(&mut self, inode: Inode) -> u64 {
        // Numbers are never reused, so an open file keeps its own.
        let number = self.next_inode;
        self.next_inode += 1;
        self.inodes.insert(number, inode);
        number
    }

    fn stat_inode(&self, inode: u64) -> Option<Stat> {
        let bytes = self.inodes.get(&inode)?.cache().len() as u64;
        Some(Stat { device: DEVICE, inode, bytes, links: self.links(inode), mode: 0o600 })
    }

    fn links(&self, inode: u64) -> u64 {
        let trees = self.trees.iter().filter(|tree| !tree.removed);
        let names = trees.flat_map(|tree| tree.log.names().chain(tree.control.names()));
        names.filter(|(_, named)| *named == inode).count() as u64
    }

    /// Returns how many bytes all files hold that have a name or are open.
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

/// Returns a name as faults, traces and snapshots show it.
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
