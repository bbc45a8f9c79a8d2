//! Opening a log to write: takes a chain, recovers it, and recovers what others left.

use std::{
    cell::Cell,
    collections::{BTreeMap, BTreeSet},
    io,
    sync::Arc,
    time::Duration,
};

use super::{
    WriterSettings,
    ledger::{Ledger, Story, Trouble},
    lock::{ChainLock, Tried},
    recover::{Recovered, recover},
};
use crate::{
    chain::Digest,
    chain_reader::{ChainEnd, Directory, chains_with_a_lock},
    clock::{Clock, Moment},
    error::Error,
    format::{CloseInfo, NoticeInfo, OpenInfo, Witness, Witnesses},
    queue::Chunks,
    segment_name::{ChainNumber, SegmentName},
    stats::{ChainRecovery, NoticeCode},
    storage::{Dir, FileSystem, Storage},
};

/// How long an opener passes over all locks before it makes a new number or gives up: verification
/// and retention probe them for a moment.
const PROBE_PAUSE: Duration = Duration::from_millis(5);
const PROBES: u32 = 20;

/// Digits of a hash that stand for a machine.
const MACHINE_DIGITS: usize = 16;

/// Chains that one log can have: what every chain says of all others must fit a line.
const MAX_CHAINS: u16 = 256;

/// An open log, with its `open` record durable.
#[derive(Debug)]
pub(crate) struct Opened {
    pub(super) ledger: Ledger,
    pub(super) found: Vec<ChainRecovery>,
    pub(super) notices: Vec<(NoticeCode, String)>,
}

impl Opened {
    /// What had to be recovered.
    pub(crate) fn found(&self) -> &[ChainRecovery] {
        &self.found
    }

    /// What the log's operator must hear of opening it.
    pub(crate) fn notices(&self) -> &[(NoticeCode, String)] {
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
}

/// Opens the log: the lowest-numbered chain that is free, or a new one.
pub(crate) fn open(
    storage: &Arc<dyn Storage>,
    settings: &WriterSettings,
    former: &Former,
    clock: Clock,
    now: &Moment,
) -> Result<Opened, Error> {
    let mut opener = Opener::new(storage, now);
    let taken = opener.take_a_chain(settings, former, clock)?;
    opener.begin_run(taken, settings, former)
}

/// One pass over a log by somebody who opens it: what it has read of the chains, and found.
struct Opener<'a> {
    storage: &'a Arc<dyn Storage>,
    now: &'a Moment,
    /// The end of each chain that was looked at, read at most once.
    ends: BTreeMap<ChainNumber, ChainEnd>,
    /// Whether the directory could not be synced: then no name that was in it is known to be durable, of no
    /// chain, and the next sync would say that all are.
    names_lie: Cell<bool>,
    found: Vec<ChainRecovery>,
}

impl<'a> Opener<'a> {
    fn new(storage: &'a Arc<dyn Storage>, now: &'a Moment) -> Self {
        Self { storage, now, ends: BTreeMap::new(), names_lie: Cell::new(false), found: Vec::new() }
    }

    fn list(&self) -> Result<Directory, Error> {
        Directory::read(self.storage.as_ref()).map_err(self.cannot("read the directory"))
    }

    /// Every chain that has a segment or a lock, lowest first.
    fn chains(&self, directory: &Directory) -> Result<BTreeSet<ChainNumber>, Error> {
        let locks = chains_with_a_lock(self.storage.as_ref()).map_err(self.cannot("read the directory"))?;
        Ok(directory.chains.keys().copied().chain(locks).collect())
    }

    fn cannot(&self, action: &'static str) -> impl FnOnce(io::Error) -> Error + use<> {
        Error::io(action, self.storage.path(Dir::Log, ""))
    }

    /// The end of a chain, as of the first time that it is asked for and has files.
    fn end(&mut self, directory: &Directory, chain: ChainNumber) -> io::Result<&ChainEnd> {
        static NOTHING: ChainEnd = ChainEnd::NOTHING;
        if !self.ends.contains_key(&chain) && directory.chains.contains_key(&chain) {
            let end = ChainEnd::read(self.storage, &directory.segments(chain))?;
            self.ends.insert(chain, end.unwrap_or_default());
        }
        Ok(self.ends.get(&chain).unwrap_or(&NOTHING))
    }

    fn knows(&self, chain: ChainNumber) -> bool {
        self.found.iter().any(|report| report.chain == chain.get())
    }

    /// Takes the lowest-numbered chain that is free and can be continued, or makes the next number.
    fn take_a_chain(
        &mut self,
        settings: &WriterSettings,
        former: &Former,
        clock: Clock,
    ) -> Result<Taken, Error> {
        let mut probes = 0;
        loop {
            let directory = self.list()?;
            let chains = self.chains(&directory)?;
            let mut holder = None;
            let known =
                if settings.exclusive { BTreeSet::from([ChainNumber::FIRST]) } else { chains.clone() };
            for chain in known {
                if former.left == Some(chain) || self.knows(chain) {
                    continue;
                }
                match self.try_chain(chain)? {
                    Attempt::Taken(taken) => return Ok(*taken),
                    Attempt::HeldBy(pid) => holder = pid.or(holder),
                    Attempt::LeftAlone(report) if settings.exclusive => {
                        let path = self.storage.path(Dir::Log, "");
                        return Err(Error::NoChain { path, reason: report.message });
                    }
                    Attempt::LeftAlone(report) => self.found.push(report),
                }
            }
            if probes < PROBES && (settings.exclusive || !chains.is_empty()) {
                probes += 1;
                clock.sleep(PROBE_PAUSE);
                continue;
            }
            let path = self.storage.path(Dir::Log, "");
            if settings.exclusive {
                return Err(Error::Locked { path, pid: holder });
            }
            let Some(next) = self.next_number(&directory, &chains, former)? else {
                let reason =
                    format!("it has {MAX_CHAINS} already; close some of the processes that write it");
                return Err(Error::NoChain { path, reason });
            };
            match self.try_chain(next)? {
                Attempt::Taken(taken) => return Ok(*taken),
                Attempt::LeftAlone(report) => self.found.push(report),
                // Another opener was faster; the next look finds the number in use.
                Attempt::HeldBy(_) => {}
            }
        }
    }

    /// The lowest number that no chain has, and that no chain says another had.
    fn next_number(
        &mut self,
        directory: &Directory,
        chains: &BTreeSet<ChainNumber>,
        former: &Former,
    ) -> Result<Option<ChainNumber>, Error> {
        let mut used: BTreeSet<ChainNumber> =
            chains.iter().copied().chain(former.left).chain(former.seen.keys().copied()).collect();
        for chain in chains {
            let cannot = self.cannot("read the chains of");
            used.extend(self.end(directory, *chain).map_err(cannot)?.witnesses.keys());
        }
        Ok(ChainNumber::all().take(usize::from(MAX_CHAINS)).find(|number| !used.contains(number)))
    }

    fn try_chain(&mut self, chain: ChainNumber) -> Result<Attempt, Error> {
        let lock_path = self.storage.path(Dir::Control, &chain.lock_name());
        let lock = match ChainLock::try_take(self.storage, chain).map_err(Error::io("lock", lock_path))? {
            Tried::Taken(lock) => lock,
            Tried::HeldBy(pid) => return Ok(Attempt::HeldBy(pid)),
        };
        // Whoever held the lock until now may have begun a segment since the directory was listed.
        let directory = self.list()?;
        let witnessed = self.witnesses_of(&directory, chain)?;
        let names = directory.segments(chain);
        Ok(match recover(self.storage, &lock, names, &witnessed, &self.names_lie, self.now.wall)? {
            Recovered::LeftAlone(report) => Attempt::LeftAlone(report),
            Recovered::Ready { start, closed, story, report } => {
                let ledger = Ledger::new(Arc::clone(self.storage), lock, *start);
                Attempt::Taken(Box::new(Taken { ledger, closed, story, report }))
            }
        })
    }

    /// What the other chains say of one.
    fn witnesses_of(&mut self, directory: &Directory, chain: ChainNumber) -> Result<Vec<Witness>, Error> {
        let mut all = Vec::new();
        for other in directory.chains.keys().filter(|other| **other != chain) {
            let cannot = self.cannot("read the chains of");
            all.extend(self.end(directory, *other).map_err(cannot)?.witnesses.get(&chain).copied());
        }
        Ok(all)
    }

    /// Writes `open` and what was found into the chain that was taken, and recovers what others left.
    fn begin_run(
        mut self,
        mut taken: Taken,
        settings: &WriterSettings,
        former: &Former,
    ) -> Result<Opened, Error> {
        let chain = taken.ledger.chain();
        let seen = former.seen.iter().filter(|(seen, _)| **seen != chain);
        taken.ledger.witnesses.extend(seen.map(|(chain, witness)| (*chain, *witness)));
        let directory = self.list()?;
        let mut notices = self.witness_others(&directory, &mut taken.ledger);
        let filesystem = self.storage.filesystem();
        notices.extend(notices_of_the_place(&filesystem, &taken.ledger));
        let open = OpenInfo {
            writer: settings.writer_id,
            service: &settings.service,
            host: &settings.host,
            pid: self.storage.process_id(),
            machine: &machine_of(self.storage.as_ref(), &settings.host),
            flush_mode: &settings.flush_mode.to_string(),
            filesystem: &filesystem.to_string(),
            chains: &taken.ledger.witnesses,
        };
        let mut batch = Chunks::default();
        batch.push(&open.payload(self.now.wall), None, None);
        tell_story(&mut batch, taken.story.as_ref(), self.now);
        self.found.extend(taken.report.take());
        notices.extend(self.found.iter().map(notice_of));
        put_notices(&mut batch, &notices, self.now);
        self.write(&mut taken.ledger, &mut batch)?;
        let others = self.recover_others(&directory, [Some(chain), former.left]);
        let of_others: Vec<_> = others.iter().map(notice_of).collect();
        if !of_others.is_empty() {
            put_notices(&mut batch, &of_others, self.now);
            self.write(&mut taken.ledger, &mut batch)?;
        }
        notices.extend(of_others);
        self.found.extend(others);
        Ok(Opened { ledger: taken.ledger, found: self.found, notices })
    }

    fn write(&self, ledger: &mut Ledger, batch: &mut Chunks) -> Result<(), Error> {
        let chain = ledger.chain();
        write_through(ledger, batch, self.now).map_err(|trouble| trouble.into_error(self.storage, chain))
    }

    /// Takes the durable heads of all other chains into what this one witnesses. Returns a notice for each that
    /// was seen before and is gone.
    fn witness_others(&mut self, directory: &Directory, ledger: &mut Ledger) -> Vec<(NoticeCode, String)> {
        let heads = directory.chains.keys().filter_map(|chain| {
            // What cannot be read keeps its last known head.
            let end = self.end(directory, *chain).ok()?;
            Some((*chain, end.durable?))
        });
        let heads: Vec<_> = heads.collect();
        ledger.witness(heads, directory.chains.keys()).into_iter().map(missing_chain).collect()
    }

    /// Recovers each free chain that ended without `close`, and lets go of it. What fails here is left for the
    /// next opener.
    fn recover_others(
        &mut self,
        directory: &Directory,
        passed_over: [Option<ChainNumber>; 2],
    ) -> Vec<ChainRecovery> {
        let mut found = Vec::new();
        for chain in directory.chains.keys() {
            if passed_over.contains(&Some(*chain)) || self.knows(*chain) {
                continue;
            }
            if matches!(self.end(directory, *chain), Ok(end) if end.closed) {
                continue;
            }
            match self.try_chain(*chain) {
                Ok(Attempt::Taken(taken)) => found.extend(end_chain(*taken, self.now)),
                Ok(Attempt::LeftAlone(report)) => found.push(report),
                Ok(Attempt::HeldBy(_)) | Err(_) => {}
            }
        }
        found
    }
}

enum Attempt {
    Taken(Box<Taken>),
    HeldBy(Option<u32>),
    LeftAlone(ChainRecovery),
}

/// What the `open` record says of the machine: enough to tell two apart, and not which they are.
fn machine_of(storage: &dyn Storage, host: &str) -> String {
    let identity = format!("{}\n{host}", storage.machine_id());
    Digest::of_body(identity.as_bytes()).to_string().chars().take(MACHINE_DIGITS).collect()
}

/// What an operator must hear of where the log lies.
fn notices_of_the_place(filesystem: &FileSystem, ledger: &Ledger) -> Vec<(NoticeCode, String)> {
    let mut notices = Vec::new();
    if filesystem.is_volatile() {
        let message = format!("the log is on {filesystem}, which forgets everything at a restart");
        notices.push((NoticeCode::VolatileFileSystem, message));
    }
    if let Some(path) = ledger.exposed() {
        let message = format!("{} can be read by every user; find out why (chmod o=)", path.display());
        notices.push((NoticeCode::SegmentExposed, message));
    }
    notices
}

/// What an operator must hear of a chain that is gone.
pub(super) fn missing_chain(chain: ChainNumber) -> (NoticeCode, String) {
    (NoticeCode::ChainMissing, format!("chain {chain} was seen before and is gone; verify the log"))
}

/// What an operator must hear of a recovery.
fn notice_of(report: &ChainRecovery) -> (NoticeCode, String) {
    let code = if report.damaged { NoticeCode::Damage } else { NoticeCode::Recovered };
    (code, report.message.clone())
}

fn put_notices(batch: &mut Chunks, notices: &[(NoticeCode, String)], now: &Moment) {
    for (code, message) in notices {
        let notice = NoticeInfo { code: code.as_str(), message };
        batch.push(&notice.payload(now.wall), None, None);
    }
}

/// Reads the durable heads of all other chains into what this one witnesses. Returns those that were seen before,
/// are gone, and were not told of yet.
pub(super) fn refresh_witnesses(storage: &Arc<dyn Storage>, ledger: &mut Ledger) -> Vec<ChainNumber> {
    let Ok(directory) = Directory::read(storage.as_ref()) else { return Vec::new() };
    let own = ledger.chain();
    let heads = directory.chains.keys().filter(|chain| **chain != own).filter_map(|chain| {
        let head = ChainEnd::durable_head(storage, &directory.segments(*chain)).ok()??;
        Some((*chain, head))
    });
    let heads: Vec<_> = heads.collect();
    ledger.witness(heads, directory.chains.keys())
}

fn tell_story(batch: &mut Chunks, story: Option<&Story>, now: &Moment) {
    if let Some(story) = story {
        batch.push(&story.as_info().payload(now.wall), None, None);
    }
}

/// Appends a batch and makes it durable, in a new segment if there is none to go on in.
pub(super) fn write_through(ledger: &mut Ledger, batch: &mut Chunks, now: &Moment) -> Result<(), Trouble> {
    let begin = ledger.live().is_none();
    ledger.append(batch, now)?;
    if begin { ledger.begin_segment(now) } else { ledger.sync() }
}

/// Ends a chain in order: everything else first, then `close` as a write of its own.
pub(super) fn close_chain(ledger: &mut Ledger, events: u64, now: &Moment) -> Result<(), Trouble> {
    let payload = CloseInfo { events, chains: &ledger.witnesses }.payload(now.wall);
    ledger.close(&payload, now)
}

fn end_chain(mut taken: Taken, now: &Moment) -> Option<ChainRecovery> {
    if taken.closed {
        return None;
    }
    let mut batch = Chunks::default();
    tell_story(&mut batch, taken.story.as_ref(), now);
    let ended = write_through(&mut taken.ledger, &mut batch, now)
        .and_then(|()| close_chain(&mut taken.ledger, 0, now));
    ended.ok().and(taken.report)
}

/// Opens a free chain that retention wants to shorten; `None` when it is held or cannot go on.
pub(super) fn take_free_chain(
    storage: &Arc<dyn Storage>,
    chain: ChainNumber,
    now: &Moment,
) -> Option<Ledger> {
    match Opener::new(storage, now).try_chain(chain).ok()? {
        Attempt::Taken(taken) if taken.closed => Some(taken.ledger),
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
