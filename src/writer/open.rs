//! Opening a log to write: takes a chain, recovers it, and recovers what others left.

use std::{cell::Cell, collections::BTreeSet, io, sync::Arc, time::Duration};

use super::{
    WriterSettings,
    chain_lock::{ChainLock, Holder, Tried},
    forwarded,
    ledger::{Ledger, Story, Trouble},
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

/// How long an opener passes over all locks at least before it makes a new number or gives up: verification and
/// retention probe them for a moment.
const PROBE_TIME: Duration = Duration::from_millis(100);

/// The longest and the shortest pause between two passes. Who has waited for long asks more often than who has just come,
/// so that nobody is overtaken for ever.
const LONGEST_PAUSE: Duration = Duration::from_millis(12);
const SHORTEST_PAUSE: Duration = Duration::from_millis(2);
const IMPATIENCE: u32 = 16;

/// A holder that took its lock less than this ago may be a short one, and is waited for.
const JUST_TAKEN: Duration = Duration::from_secs(1);

/// How long whoever had to make the lock file of a chain that has segments waits: a writer whose lock was removed
/// looks at its path every 100 ms.
const LOCK_WAS_REMOVED: Duration = Duration::from_millis(200);

/// Heads of other chains that `open` and `mark` name at most.
pub(super) const FEW: usize = 16;

/// An open log, with its `open` record durable.
#[derive(Debug)]
pub(crate) struct Opened {
    pub(super) ledger: Ledger,
    pub(super) found: Vec<ChainRecovery>,
    pub(super) notices: Vec<(NoticeKind, String)>,
}

impl Opened {
    /// What had to be recovered.
    pub(crate) fn found(&self) -> &[ChainRecovery] {
        &self.found
    }

    /// What the log's operator must hear of opening it.
    pub(crate) fn notices(&self) -> &[(NoticeKind, String)] {
        &self.notices
    }
}

/// What a writer that has to move knows of the log that it moves in.
#[derive(Debug, Default)]
pub(crate) struct Former {
    /// The chain that it leaves, and must not take again.
    pub(super) left: Option<ChainNumber>,
    /// The heads that it knows, of the chain that it leaves too: whatever happens to the directory,
    /// they stay witnessed.
    pub(super) seen: Witnesses,
}

/// A chain that was taken, and what was found in it.
struct Taken {
    ledger: Ledger,
    closed: bool,
    story: Option<Story>,
    report: Option<ChainRecovery>,
    notices: Vec<(NoticeKind, String)>,
}

/// Opens the log: the lowest-numbered chain that is free, or a new one.
pub(crate) fn open(
    storage: &Arc<dyn Storage>,
    settings: &WriterSettings,
    former: &Former,
    clock: Clock,
    now: &Moment,
) -> Result<Opened, Error> {
    let mut opener = Opener::new(storage, clock, now, settings.exclusive);
    let taken = opener.take_a_chain(settings, former)?;
    forwarded::require(storage.as_ref(), &settings.retention.require_forwarded, clock)
        .map_err(Error::io("write", storage.path(Dir::Log, FORWARD_REQUIRED)))?;
    opener.begin_run(taken, settings, former)
}

/// One pass over a log by somebody who opens it: what it has read of the chains, and found.
struct Opener<'a> {
    storage: &'a Arc<dyn Storage>,
    clock: Clock,
    now: &'a Moment,
    is_exclusive: bool,
    /// Whether the directory could not be synced: then no name that was in it is known to be durable, of no
    /// chain, and the next sync would say that all are.
    names_lie: Cell<bool>,
    found: Vec<ChainRecovery>,
    /// Chains that somebody left alone before, and that are as they were.
    passed_over: BTreeSet<ChainNumber>,
}

impl<'a> Opener<'a> {
    fn new(storage: &'a Arc<dyn Storage>, clock: Clock, now: &'a Moment, is_exclusive: bool) -> Self {
        Self {
            storage,
            clock,
            now,
            is_exclusive,
            names_lie: Cell::new(false),
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

    fn knows(&self, chain: ChainNumber) -> bool {
        self.passed_over.contains(&chain) || self.found.iter().any(|report| report.chain == chain.get())
    }

    /// Takes the lowest-numbered chain that is free and can be continued, or makes the next number.
    fn take_a_chain(&mut self, settings: &WriterSettings, former: &Former) -> Result<Taken, Error> {
        let mut pauses = Pauses::new(self.storage.process_id());
        loop {
            let directory = self.list()?;
            let chains = self.chains(&directory)?;
            let mut holders = Vec::new();
            let known =
                if settings.exclusive { BTreeSet::from([ChainNumber::FIRST]) } else { chains.clone() };
            for chain in known {
                if former.left == Some(chain) || self.knows(chain) {
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
            // Where another opener was faster, the next look finds the number in use.
            if let Some(taken) = self.take(next, &mut holders)? {
                return Ok(taken);
            }
        }
    }

    /// Takes a chain, if it is free and can be continued.
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

    /// The lowest number that no chain has, and that no chain says another had.
    fn next_number(
        &self,
        directory: &Directory,
        chains: &BTreeSet<ChainNumber>,
        former: &Former,
    ) -> Option<ChainNumber> {
        let mut used: BTreeSet<ChainNumber> =
            chains.iter().copied().chain(former.left).chain(former.seen.keys().copied()).collect();
        for chain in chains {
            used.extend(others::ever_seen_by(self.storage.as_ref(), directory, *chain).unwrap_or_default());
        }
        ChainNumber::all().take(usize::from(MAX_CHAINS)).find(|number| !used.contains(number))
    }

    fn try_chain(&mut self, chain: ChainNumber) -> Result<Attempt, Error> {
        let lock_path = || self.storage.path(Dir::Control, &chain.lock_name());
        let tried = ChainLock::try_take(self.storage, chain, Some(self.clock.wall()));
        let mut lock = match tried.map_err(Error::io("lock", lock_path()))? {
            Tried::Taken(lock) => lock,
            Tried::HeldBy(holder) => return Ok(Attempt::HeldBy(holder)),
        };
        let mut directory = self.list()?;
        if lock.is_new && directory.chains.contains_key(&chain) {
            // Whoever wrote it may not know yet that its lock was removed.
            self.clock.sleep(LOCK_WAS_REMOVED);
            directory = self.list()?;
        }
        // Whoever held the lock until now may have begun a segment since the directory was listed.
        let names = directory.segments(chain);
        let noted = lock.slots.noted.as_ref();
        let mut witnessed: Vec<Witness> = noted.and_then(Noted::head).into_iter().collect();
        if witnessed.is_empty() || lock.slots.is_one_lost {
            // A newer head may have stood there, and others may have seen it.
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
            names_lie: &self.names_lie,
            begins_anew: self.is_exclusive && lock.is_new,
            now: self.now.wall,
        };
        Ok(match recovery.run()? {
            Recovered::PassedOver(report) => Attempt::PassedOver(report),
            Recovered::LeftAlone { report, is_for_good } => {
                if is_for_good {
                    // Where that cannot be noted, the next opener finds the same.
                    drop(others::note_left(self.storage.as_ref(), &mut lock, &directory.segments(chain)));
                }
                Attempt::LeftAlone(report)
            }
            Recovered::Ready { start, closed, story, report } => {
                let ledger = Ledger::new(Arc::clone(self.storage), *lock, *start);
                Attempt::Taken(Box::new(Taken { ledger, closed, story, report, notices }))
            }
        })
    }

    /// What the other chains say of one. A chain that cannot be read says nothing: its failure is its own.
    fn witnesses_of(&self, directory: &Directory, chain: ChainNumber) -> Vec<Witness> {
        let wanted = BTreeSet::from([chain]);
        let others = directory.chains.keys().filter(|other| **other != chain);
        let said = others.filter_map(|other| {
            said_of(self.storage.as_ref(), &directory.segments(*other), Some(&wanted)).ok()
        });
        said.flat_map(Witnesses::into_values).collect()
    }

    /// Writes `open` and what was found into the chain that was taken, and recovers what others left.
    fn begin_run(
        mut self,
        mut taken: Taken,
        settings: &WriterSettings,
        former: &Former,
    ) -> Result<Opened, Error> {
        let chain = taken.ledger.chain();
        taken.ledger.know(former.seen.iter().filter(|(seen, _)| **seen != chain));
        let directory = self.list()?;
        let mut notices = taken.notices;
        let missing = others::refresh(self.storage.as_ref(), &mut taken.ledger, &directory);
        notices.extend(missing.into_iter().map(missing_chain));
        let filesystem = self.storage.filesystem();
        notices.extend(notices_of_the_place(&filesystem, &taken.ledger));
        // Elsewhere it is missing on every machine, and nobody can do anything about it.
        if self.storage.boot_id().is_empty() && cfg!(any(target_os = "linux", target_os = "android")) {
            let message = "this system has no boot id (/proc/sys/kernel/random/boot_id), so no restart is noticed: a \
                           chain whose last segment cannot be synced once is left alone until the machine was restarted \
                           and then, while no program writes, its lock file was moved away";
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
        tell_story(&mut batch, taken.story.as_ref(), self.now);
        self.found.extend(taken.report.take());
        notices.extend(self.found.iter().map(notice_of));
        put_notices(&mut batch, &notices, self.now);
        self.write(&mut taken.ledger, &mut batch)?;
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

    fn write(&self, ledger: &mut Ledger, batch: &mut DraftBuffers) -> Result<(), Error> {
        let chain = ledger.chain();
        write_through(ledger, batch, self.now).map_err(|trouble| trouble.into_error(self.storage, chain))
    }

    /// Recovers each free chain that ended without `close`, and lets go of it. What fails here is left for the
    /// next opener.
    fn recover_others(
        &mut self,
        directory: &Directory,
        passed_over: [Option<ChainNumber>; 2],
    ) -> (Vec<ChainRecovery>, Vec<(NoticeKind, String)>) {
        let (mut found, mut notices) = (Vec::new(), Vec::new());
        for chain in directory.chains.keys() {
            if passed_over.contains(&Some(*chain)) || self.knows(*chain) {
                continue;
            }
            if others::rests(self.storage.as_ref(), directory, *chain) {
                continue;
            }
            match self.try_chain(*chain) {
                Ok(Attempt::Taken(mut taken)) => {
                    notices.append(&mut taken.notices);
                    // Where it needs a new segment, that names every chain, too.
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

/// The pauses of one opener between its looks at all locks: ever shorter, and of no two openers the same.
struct Pauses {
    waited: Duration,
    random: u32,
}

impl Pauses {
    fn new(process: u32) -> Self {
        Self { waited: Duration::ZERO, random: process }
    }

    /// The next one: between half and all of what is left of the longest.
    fn next(&mut self) -> Duration {
        // The generator of Numerical Recipes: any will do that differs from process to process.
        self.random = self.random.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        let longest = LONGEST_PAUSE.saturating_sub(self.waited / IMPATIENCE).max(SHORTEST_PAUSE);
        let pause = longest / 2 + longest / 2 * (self.random >> 24) / 256;
        self.waited += pause;
        pause
    }
}

/// What an operator must hear of where the log lies.
fn notices_of_the_place(filesystem: &FileSystem, ledger: &Ledger) -> Vec<(NoticeKind, String)> {
    let mut notices = Vec::new();
    if let Some(when) = filesystem.forgets_at() {
        let message = format!("the log is on {filesystem}, {when}");
        notices.push((NoticeKind::VolatileFileSystem, message));
    }
    if let Some(path) = ledger.exposed() {
        let message = format!("{} can be read by every user; find out why (chmod o=)", path.display());
        notices.push((NoticeKind::SegmentExposed, message));
    }
    notices
}

/// What an operator must hear of a chain that is gone.
pub(super) fn missing_chain(chain: ChainNumber) -> (NoticeKind, String) {
    (NoticeKind::ChainMissing, format!("chain {chain} was seen before and is gone; verify the log"))
}

/// What an operator must hear of a recovery.
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

fn tell_story(batch: &mut DraftBuffers, story: Option<&Story>, now: &Moment) {
    if let Some(story) = story {
        batch.push(&story.as_info().payload(now.wall), None, None);
    }
}

/// Appends a batch and makes it durable, in a new segment if there is none to go on in.
pub(super) fn write_through(
    ledger: &mut Ledger,
    batch: &mut DraftBuffers,
    now: &Moment,
) -> Result<(), Trouble> {
    let begin = ledger.live().is_none();
    ledger.append(batch, now)?;
    if begin { ledger.begin_segment(now) } else { ledger.sync() }
}

/// Ends a chain in order: everything else first, then `close` as a write of its own.
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
        // Its writer ended before it could note so. Where we cannot either, the next opener can.
        drop(taken.ledger.note(NotedState::Closed));
        return None;
    }
    let mut batch = DraftBuffers::default();
    tell_story(&mut batch, taken.story.as_ref(), now);
    let ended = write_through(&mut taken.ledger, &mut batch, now)
        .and_then(|()| close_chain(&mut taken.ledger, 0, true, now));
    ended.ok().and(taken.report)
}

/// Opens a free chain that retention wants to shorten; `None` when it is held or cannot go on.
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
    /// What opening says when its first record could not be made durable.
    pub(super) fn into_error(self, storage: &Arc<dyn Storage>, chain: ChainNumber) -> Error {
        let name = SegmentName { chain, segment: self.segment };
        Error::Io { action: self.action, path: storage.path(Dir::Log, &name.to_string()), source: self.error }
    }
}
