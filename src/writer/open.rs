//! Opens a log for writing: takes a chain, recovers it, and recovers chains that other processes
//! left unclosed.

use std::{cell::Cell, collections::BTreeSet, io, sync::Arc, time::Duration};

use super::{
    WriterSettings,
    chain_lock::{ChainLock, Holder, Tried},
    forwarded,
    ledger::{Ledger, RecoveryReason, Trouble},
    others,
    recover::{Recovered, Recovery},
};
use crate::{
    chain_reader::{Directory, MAX_CHAINS, Noted, NotedState, said_of},
    clock::{Clock, Moment},
    error::{Error, NoChainReason},
    format::{CloseInfo, NoticeInfo, OpenInfo, Witness, Witnesses},
    queue::DraftBuffers,
    segment_name::{ChainNumber, FORWARD_REQUIRED, SegmentName},
    stats::{ChainRecovery, NoticeKind},
    storage::{Dir, FileSystem, Storage},
};

/// The least time for which an opener keeps trying all locks before it makes a new chain or gives
/// up. Verification and retention may hold a lock for a moment.
const PROBE_TIME: Duration = Duration::from_millis(100);

/// The longest and the shortest pause between two passes over the locks. The longer an opener has
/// waited, the more often it tries, so that newcomers cannot overtake it for ever.
const LONGEST_PAUSE: Duration = Duration::from_millis(12);
const SHORTEST_PAUSE: Duration = Duration::from_millis(2);
/// Divides the time waited, to get how much shorter the pauses become.
const IMPATIENCE: u32 = 16;

/// A lock taken less than this ago may be released soon, so it is waited for.
const JUST_TAKEN: Duration = Duration::from_secs(1);

/// How long to wait after creating the lock file of a chain that already has segments. Its writer
/// may still run without knowing that its lock was removed: it checks the path every 100 ms.
const LOCK_WAS_REMOVED: Duration = Duration::from_millis(200);

/// The most heads of other chains that one `open` or `mark` record names.
pub(super) const FEW: usize = 16;

/// An open log, whose `open` record is durable.
#[derive(Debug)]
pub(crate) struct Opened {
    pub(super) ledger: Ledger,
    pub(super) found: Vec<ChainRecovery>,
    pub(super) notices: Vec<(NoticeKind, String)>,
}

impl Opened {
    /// Returns what had to be recovered.
    pub(crate) fn found(&self) -> &[ChainRecovery] {
        &self.found
    }

    /// Returns the notices about opening the log.
    pub(crate) fn notices(&self) -> &[(NoticeKind, String)] {
        &self.notices
    }
}

/// What a writer that moves to another chain knows of the log.
#[derive(Debug, Default)]
pub(crate) struct Former {
    /// The chain that it leaves, and must not take again.
    pub(super) left: Option<ChainNumber>,
    /// The heads that it knows, including that of the chain it leaves. They stay witnessed whatever
    /// happens to the directory.
    pub(super) seen: Witnesses,
}

/// A chain that was taken, and what was found in it.
struct Taken {
    ledger: Ledger,
    closed: bool,
    reason: Option<RecoveryReason>,
    report: Option<ChainRecovery>,
    notices: Vec<(NoticeKind, String)>,
}

/// Opens the log in the free chain with the lowest number, or in a new one.
pub(crate) fn open(
    storage: &Arc<dyn Storage>,
    settings: &WriterSettings,
    former: &Former,
    clock: Clock,
    now: &Moment,
) -> Result<Opened, Error> {
    let mut opener = Opener::new(storage, clock, now, settings.exclusive);
    let taken = opener.take_a_chain(settings, former)?;
    // Durable before `open` returns: from the first event on, no process may remove what these
    // forwarders still need.
    forwarded::require(storage.as_ref(), &settings.retention.require_forwarded, clock)
        .map_err(Error::io("write", storage.path(Dir::Log, FORWARD_REQUIRED)))?;
    opener.begin_run(taken, settings, former)
}

/// One attempt to open a log: what was read of its chains, and found.
struct Opener<'a> {
    storage: &'a Arc<dyn Storage>,
    clock: Clock,
    now: &'a Moment,
    is_exclusive: bool,
    /// Whether a sync of the directory failed. Then no name in it, of any chain, is known to be
    /// durable, and a later sync could succeed without making them so.
    names_in_doubt: Cell<bool>,
    found: Vec<ChainRecovery>,
    /// Chains that an earlier opener left alone and that have not changed since.
    passed_over: BTreeSet<ChainNumber>,
}

impl<'a> Opener<'a> {
    fn new(storage: &'a Arc<dyn Storage>, clock: Clock, now: &'a Moment, is_exclusive: bool) -> Self {
        Self {
            storage,
            clock,
            now,
            is_exclusive,
            names_in_doubt: Cell::new(false),
            found: Vec::new(),
            passed_over: BTreeSet::new(),
        }
    }

    fn list(&self) -> Result<Directory, Error> {
        Directory::read(self.storage.as_ref()).map_err(self.cannot("read the directory"))
    }

    fn chains(&self, directory: &Directory) -> Result<BTreeSet<ChainNumber>, Error> {
        others::chains(self.storage.as_ref(), directory).map_err(self.cannot("read the directory"))
    }

    fn cannot(&self, action: &'static str) -> impl FnOnce(io::Error) -> Error + use<> {
        Error::io(action, self.storage.path(Dir::Log, ""))
    }

    /// Returns whether a chain is already known to be unusable.
    fn is_unusable(&self, chain: ChainNumber) -> bool {
        self.passed_over.contains(&chain) || self.found.iter().any(|report| report.chain == chain.get())
    }

    /// Takes the free chain with the lowest number that can be continued, or makes a new one.
    fn take_a_chain(&mut self, settings: &WriterSettings, former: &Former) -> Result<Taken, Error> {
        let mut pauses = Pauses::new(self.storage.process_id());
        loop {
            let directory = self.list()?;
            let chains = self.chains(&directory)?;
            let mut holders = Vec::new();
            let known =
                if settings.exclusive { BTreeSet::from([ChainNumber::FIRST]) } else { chains.clone() };
            for chain in known {
                if former.left == Some(chain) || self.is_unusable(chain) {
                    continue;
                }
                if let Some(taken) = self.take(chain, &mut holders)? {
                    return Ok(taken);
                }
            }
            let now = self.clock.wall();
            let is_just_taken = |holder: &Holder| {
                holder.since.is_some_and(|since| since <= now && now.since(since) < JUST_TAKEN)
            };
            let bound = if holders.iter().any(is_just_taken) {
                settings.wait_for_chain.max(PROBE_TIME)
            } else {
                PROBE_TIME
            };
            // In an empty directory there is no holder to wait for.
            if pauses.waited < bound && (settings.exclusive || !chains.is_empty()) {
                self.clock.sleep(pauses.next());
                continue;
            }
            let path = self.storage.path(Dir::Log, "");
            if settings.exclusive {
                return Err(Error::Locked { path, pid: holders.first().map(|holder| holder.pid) });
            }
            let Some(next) = self.next_number(&directory, &chains, former) else {
                return Err(Error::NoChain { path, reason: NoChainReason::TooMany { chains: MAX_CHAINS } });
            };
            // If another opener was faster, the next pass finds this number in use.
            if let Some(taken) = self.take(next, &mut holders)? {
                return Ok(taken);
            }
        }
    }

    /// Takes a chain if it is free and can be continued.
    fn take(&mut self, chain: ChainNumber, holders: &mut Vec<Holder>) -> Result<Option<Taken>, Error> {
        let report = match self.try_chain(chain)? {
            Attempt::Taken(taken) => return Ok(Some(*taken)),
            Attempt::HeldBy(holder) => {
                holders.extend(holder);
                return Ok(None);
            }
            Attempt::PassedOver(_) if !self.is_exclusive => {
                self.passed_over.insert(chain);
                return Ok(None);
            }
            Attempt::LeftAlone(report) | Attempt::PassedOver(report) => report,
        };
        if self.is_exclusive {
            let path = self.storage.path(Dir::Log, "");
            let reason = NoChainReason::LeftAlone { chain: chain.get(), why: report.message };
            return Err(Error::NoChain { path, reason });
        }
        self.found.push(report);
        Ok(None)
    }

    /// Returns the lowest number that no chain has, and that no chain has ever witnessed.
    fn next_number(
        &self,
        directory: &Directory,
        chains: &BTreeSet<ChainNumber>,
        former: &Former,
    ) -> Option<ChainNumber> {
        let mut used: BTreeSet<ChainNumber> =
            chains.iter().copied().chain(former.left).chain(former.seen.keys().copied()).collect();
        // A number that was ever used must not be reused: other chains may still name the head of
        // the lost chain.
        for chain in chains {
            used.extend(others::ever_seen_by(self.storage.as_ref(), directory, *chain).unwrap_or_default());
        }
        ChainNumber::all().take(usize::from(MAX_CHAINS)).find(|number| !used.contains(number))
    }

    /// Locks a chain, and finds out whether and where it can be continued.
    fn try_chain(&mut self, chain: ChainNumber) -> Result<Attempt, Error> {
        let lock_path = || self.storage.path(Dir::Control, &chain.lock_name());
        let tried = ChainLock::try_take(self.storage, chain, Some(self.clock.wall()));
        let mut lock = match tried.map_err(Error::io("lock", lock_path()))? {
            Tried::Taken(lock) => lock,
            Tried::HeldBy(holder) => return Ok(Attempt::HeldBy(holder)),
        };
        // Listed again, under the lock: its last holder may have begun a segment since the caller's listing.
        let mut directory = self.list()?;
        if lock.is_new && directory.chains.contains_key(&chain) {
            // Its writer may not know yet that its lock was removed. Give it the time to find out.
            self.clock.sleep(LOCK_WAS_REMOVED);
            directory = self.list()?;
        }
        let names = directory.segments(chain);
        let noted = lock.slots.noted.as_ref();
        let mut witnessed: Vec<Witness> = noted.and_then(Noted::head).into_iter().collect();
        if witnessed.is_empty() || lock.slots.is_one_lost {
            // The lost slot may have held a newer head, which other chains may have witnessed.
            witnessed.extend(self.witnesses_of(&directory, chain));
        }
        let mut notices = Vec::new();
        if let Some(noted) = noted.filter(|noted| others::is_of_another_machine(self.storage.as_ref(), noted))
        {
            let message =
                format!("chain {chain} was written on another machine ({}) until now", noted.machine);
            notices.push((NoticeKind::MachineChanged, message));
        }
        if noted.is_none() && !names.is_empty() {
            notices.push((NoticeKind::HeadUnknown, others::unknown_head(chain, &lock)));
        }
        let recovery = Recovery {
            storage: self.storage,
            lock: &lock,
            names,
            witnessed: &witnessed,
            names_in_doubt: &self.names_in_doubt,
            begins_anew: self.is_exclusive && lock.is_new,
            now: self.now.wall,
        };
        Ok(match recovery.run()? {
            Recovered::PassedOver(report) => Attempt::PassedOver(report),
            Recovered::LeftAlone { report, is_for_good } => {
                if is_for_good {
                    // If that cannot be noted, the next opener finds the same.
                    drop(others::note_left(self.storage.as_ref(), &mut lock, &directory.segments(chain)));
                }
                Attempt::LeftAlone(report)
            }
            Recovered::Ready { start, closed, reason, report } => {
                let ledger = Ledger::new(Arc::clone(self.storage), *lock, *start);
                Attempt::Taken(Box::new(Taken { ledger, closed, reason, report, notices }))
            }
        })
    }

    /// Returns what the other chains witnessed of one. A chain that cannot be read is skipped: its
    /// own opener reports the failure.
    fn witnesses_of(&self, directory: &Directory, chain: ChainNumber) -> Vec<Witness> {
        let wanted = BTreeSet::from([chain]);
        let others = directory.chains.keys().filter(|other| **other != chain);
        let said = others.filter_map(|other| {
            said_of(self.storage.as_ref(), &directory.segments(*other), Some(&wanted)).ok()
        });
        said.flat_map(Witnesses::into_values).collect()
    }

    /// Writes `open` and the findings to the chain that was taken, and recovers the chains of
    /// others.
    fn begin_run(
        mut self,
        mut taken: Taken,
        settings: &WriterSettings,
        former: &Former,
    ) -> Result<Opened, Error> {
        let chain = taken.ledger.chain();
        taken.ledger.add_heads(former.seen.iter().filter(|(seen, _)| **seen != chain));
        let directory = self.list()?;
        let mut notices = taken.notices;
        let missing = others::refresh(self.storage.as_ref(), &mut taken.ledger, &directory);
        notices.extend(missing.into_iter().map(missing_chain));
        let filesystem = self.storage.filesystem();
        notices.extend(notices_about_location(&filesystem, &taken.ledger));
        // On other systems no machine has a boot id, and no operator could change that.
        if self.storage.boot_id().is_empty() && cfg!(any(target_os = "linux", target_os = "android")) {
            let message = "this system has no boot id (/proc/sys/kernel/random/boot_id), so restarts cannot be \
                           detected: a chain whose last segment could not be synced is left alone until, after a \
                           restart and while no program writes, its lock file is moved away";
            notices.push((NoticeKind::BootIdMissing, message.to_owned()));
        }
        let open = OpenInfo {
            writer: settings.writer_id,
            service: &settings.service,
            host: &settings.host,
            pid: self.storage.process_id(),
            machine: &others::machine(&[&self.storage.machine_id(), &settings.host]),
            flush_mode: &settings.flush_mode.to_string(),
            filesystem: &filesystem.to_string(),
            chains: &taken.ledger.name_others(FEW),
        };
        let mut batch = DraftBuffers::default();
        batch.push(&open.payload(self.now.wall), None, None);
        push_recovery(&mut batch, taken.reason.as_ref(), self.now);
        self.found.extend(taken.report.take());
        notices.extend(self.found.iter().map(notice_of));
        put_notices(&mut batch, &notices, self.now);
        self.write(&mut taken.ledger, &mut batch)?;
        // Only now that the own chain is open and durable: trouble with another chain must not keep
        // this log from opening.
        let (others, more) = self.recover_others(&directory, [Some(chain), former.left]);
        let of_others: Vec<_> = more.into_iter().chain(others.iter().map(notice_of)).collect();
        if !of_others.is_empty() {
            put_notices(&mut batch, &of_others, self.now);
            self.write(&mut taken.ledger, &mut batch)?;
        }
        notices.extend(of_others);
        self.found.extend(others);
        Ok(Opened { ledger: taken.ledger, found: self.found, notices })
    }

    /// Appends a batch and makes it durable.
    fn write(&self, ledger: &mut Ledger, batch: &mut DraftBuffers) -> Result<(), Error> {
        let chain = ledger.chain();
        write_through(ledger, batch, self.now).map_err(|trouble| trouble.into_error(self.storage, chain))
    }

    /// Recovers each free chain that ended without `close`, and releases it. A failure here is left
    /// to the next opener.
    fn recover_others(
        &mut self,
        directory: &Directory,
        passed_over: [Option<ChainNumber>; 2],
    ) -> (Vec<ChainRecovery>, Vec<(NoticeKind, String)>) {
        let (mut found, mut notices) = (Vec::new(), Vec::new());
        for chain in directory.chains.keys() {
            if passed_over.contains(&Some(*chain)) || self.is_unusable(*chain) {
                continue;
            }
            if others::is_at_rest(self.storage.as_ref(), directory, *chain) {
                continue;
            }
            match self.try_chain(*chain) {
                Ok(Attempt::Taken(mut taken)) => {
                    notices.append(&mut taken.notices);
                    // If the chain needs a new segment, the first line of that names every other
                    // chain.
                    others::refresh(self.storage.as_ref(), &mut taken.ledger, directory);
                    found.extend(end_chain(*taken, self.now));
                }
                Ok(Attempt::LeftAlone(report)) => found.push(report),
                Ok(Attempt::PassedOver(_) | Attempt::HeldBy(_)) | Err(_) => {}
            }
        }
        (found, notices)
    }
}

enum Attempt {
    Taken(Box<Taken>),
    HeldBy(Option<Holder>),
    LeftAlone(ChainRecovery),
    PassedOver(ChainRecovery),
}

/// The pauses of one opener between its passes over all locks. They become shorter, and differ
/// between openers so that these do not collide again and again.
struct Pauses {
    waited: Duration,
    random: u32,
}

impl Pauses {
    fn new(process: u32) -> Self {
        Self { waited: Duration::ZERO, random: process }
    }

    /// Returns the next pause: between half and all of the longest that is left.
    fn next(&mut self) -> Duration {
        // The linear congruential generator of Numerical Recipes. Its quality does not matter: the
        // pauses need only differ between processes.
        self.random = self.random.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        let longest = LONGEST_PAUSE.saturating_sub(self.waited / IMPATIENCE).max(SHORTEST_PAUSE);
        let pause = longest / 2 + longest / 2 * (self.random >> 24) / 256;
        self.waited += pause;
        pause
    }
}

/// Returns the notices about the file system and the permissions of the log.
fn notices_about_location(filesystem: &FileSystem, ledger: &Ledger) -> Vec<(NoticeKind, String)> {
    let mut notices = Vec::new();
    if let Some(when) = filesystem.forgets_at() {
        let message = format!("the log is on {filesystem}, {when}");
        notices.push((NoticeKind::VolatileFileSystem, message));
    }
    if let Some(path) = ledger.exposed() {
        let message = format!(
            "{} is readable by every user; find out why, and remove that permission with chmod o=",
            path.display()
        );
        notices.push((NoticeKind::SegmentExposed, message));
    }
    notices
}

/// Returns the notice about a chain that is gone.
pub(super) fn missing_chain(chain: ChainNumber) -> (NoticeKind, String) {
    (NoticeKind::ChainMissing, format!("chain {chain} was seen before and is gone; verify the log"))
}

/// Returns the notice about a recovery.
fn notice_of(report: &ChainRecovery) -> (NoticeKind, String) {
    let kind = if report.damaged { NoticeKind::Damage } else { NoticeKind::Recovered };
    (kind, report.message.clone())
}

fn put_notices(batch: &mut DraftBuffers, notices: &[(NoticeKind, String)], now: &Moment) {
    for (kind, message) in notices {
        let notice = NoticeInfo { code: kind.as_str(), message };
        batch.push(&notice.payload(now.wall), None, None);
    }
}

fn push_recovery(batch: &mut DraftBuffers, reason: Option<&RecoveryReason>, now: &Moment) {
    if let Some(reason) = reason {
        batch.push(&reason.as_info().payload(now.wall), None, None);
    }
}

/// Appends a batch and makes it durable, in a new segment if there is none to continue.
pub(super) fn write_through(
    ledger: &mut Ledger,
    batch: &mut DraftBuffers,
    now: &Moment,
) -> Result<(), Trouble> {
    let begin = ledger.live().is_none();
    ledger.append(batch, now)?;
    if begin { ledger.begin_segment(now) } else { ledger.sync() }
}

/// Ends a chain in order: makes everything else durable first, then writes `close` on its own.
pub(super) fn close_chain(
    ledger: &mut Ledger,
    events: u64,
    is_last: bool,
    now: &Moment,
) -> Result<(), Trouble> {
    let payload = CloseInfo { events, chains: &ledger.name_others(usize::MAX) }.payload(now.wall);
    ledger.close(&payload, is_last, now)
}

fn end_chain(mut taken: Taken, now: &Moment) -> Option<ChainRecovery> {
    if taken.closed {
        // The last writer ended before it could note that. If this fails too, the next opener can
        // do it.
        drop(taken.ledger.note(NotedState::Closed));
        return None;
    }
    let mut batch = DraftBuffers::default();
    push_recovery(&mut batch, taken.reason.as_ref(), now);
    let ended = write_through(&mut taken.ledger, &mut batch, now)
        .and_then(|()| close_chain(&mut taken.ledger, 0, true, now));
    ended.ok().and(taken.report)
}

/// Opens a free chain that retention wants to shorten. Returns `None` if it is held or cannot be
/// continued.
pub(super) fn take_free_chain(
    storage: &Arc<dyn Storage>,
    chain: ChainNumber,
    clock: Clock,
    now: &Moment,
) -> Option<Ledger> {
    match Opener::new(storage, clock, now, false).try_chain(chain).ok()? {
        Attempt::Taken(mut taken) if taken.closed => {
            let directory = Directory::read(storage.as_ref()).ok()?;
            others::refresh(storage.as_ref(), &mut taken.ledger, &directory);
            Some(taken.ledger)
        }
        _ => None,
    }
}

impl Trouble {
    /// Converts the trouble with the first record into the error of opening.
    pub(super) fn into_error(self, storage: &Arc<dyn Storage>, chain: ChainNumber) -> Error {
        let name = SegmentName { chain, segment: self.segment };
        Error::Io { action: self.action, path: storage.path(Dir::Log, &name.to_string()), source: self.error }
    }
}
