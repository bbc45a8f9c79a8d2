//! Opening a log to write: takes a chain, recovers it, and recovers what others left.

use std::{cell::Cell, sync::Arc, time::Duration};

use super::{
    WriterSettings,
    ledger::{Ledger, Story, Trouble},
    lock::{ChainLock, Tried},
    recover::{Recovered, recover},
    witness,
};
use crate::{
    ChainRecovery, Error, NoticeCode,
    clock::{Clock, Moment},
    format::{CloseInfo, NoticeInfo, OpenInfo, Witness, Witnesses},
    queue::Chunks,
    segment_name::{ChainNumber, SegmentName},
    storage::{Dir, Storage},
};

/// How long an opener passes over all locks before it makes a new number or gives up: verification
/// and retention probe them for a moment.
const PROBE_PAUSE: Duration = Duration::from_millis(5);
const PROBES: u32 = 20;

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

/// What the directory holds, as of one look.
struct Survey {
    segments: Vec<SegmentName>,
    chains: Vec<ChainNumber>,
}

impl Survey {
    fn make(storage: &Arc<dyn Storage>) -> Result<Self, Error> {
        let read = || {
            let segments = witness::segments(storage.as_ref())?;
            let chains = witness::chains(storage.as_ref(), &segments)?;
            Ok(Self { segments, chains })
        };
        read().map_err(Error::io("read the directory", storage.path(Dir::Log, "")))
    }

    fn has_segments(&self, chain: ChainNumber) -> bool {
        self.segments.iter().any(|name| name.chain == chain)
    }
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
    let mut found = Vec::new();
    let names_lie = Cell::new(false);
    let mut taken = take_a_chain(storage, settings, former, clock, &names_lie, &mut found)?;
    let mut notices = Vec::new();
    let chain = taken.ledger.chain();
    let seen = former.seen.iter().filter(|(seen, _)| **seen != chain);
    taken.ledger.witnesses.extend(seen.map(|(chain, witness)| (*chain, *witness)));
    let survey = Survey::make(storage)?;
    for missing in refresh_witnesses(storage, &survey.segments, &mut taken.ledger) {
        taken.ledger.missing.insert(missing);
        let message = format!("chain {missing} was seen before and is gone; verify the log");
        notices.push((NoticeCode::ChainMissing, message));
    }
    let filesystem = storage.filesystem();
    if matches!(filesystem.as_str(), "tmpfs" | "ramfs") {
        let message = format!("the log is on {filesystem}, which forgets everything at a restart");
        notices.push((NoticeCode::VolatileFileSystem, message));
    }
    if let Some(path) = taken.ledger.exposed() {
        let message = format!("{} can be read by every user; find out why (chmod o=)", path.display());
        notices.push((NoticeCode::SegmentExposed, message));
    }
    let mut batch = Chunks::default();
    let open = OpenInfo {
        writer: settings.writer_id,
        service: &settings.service,
        host: &settings.host,
        pid: storage.process_id(),
        flush_mode: &settings.flush_mode.to_string(),
        filesystem: &filesystem,
        chains: &taken.ledger.witnesses,
    };
    batch.push(&open.payload(now.wall), None, None);
    tell_story(&mut batch, taken.story.as_ref(), now);
    found.extend(taken.report.take());
    notices.extend(found.iter().map(notice_of));
    put_notices(&mut batch, &notices, now);
    write_through(&mut taken.ledger, &mut batch, now)
        .map_err(|trouble| trouble.into_error(storage, chain))?;
    let others = recover_others(storage, &survey, [Some(chain), former.left], &found, &names_lie, now);
    let of_others: Vec<_> = others.iter().map(notice_of).collect();
    if !of_others.is_empty() {
        put_notices(&mut batch, &of_others, now);
        write_through(&mut taken.ledger, &mut batch, now)
            .map_err(|trouble| trouble.into_error(storage, chain))?;
    }
    notices.extend(of_others);
    found.extend(others);
    Ok(Opened { ledger: taken.ledger, found, notices })
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

/// Takes the lowest-numbered chain that is free and can be continued, or makes the next number.
fn take_a_chain(
    storage: &Arc<dyn Storage>,
    settings: &WriterSettings,
    former: &Former,
    clock: Clock,
    names_lie: &Cell<bool>,
    found: &mut Vec<ChainRecovery>,
) -> Result<Taken, Error> {
    let mut probes = 0;
    let log = || storage.path(Dir::Log, "");
    loop {
        let survey = Survey::make(storage)?;
        let mut holder = None;
        let known = if settings.exclusive { vec![ChainNumber::FIRST] } else { survey.chains.clone() };
        for chain in known {
            if former.left == Some(chain) || found.iter().any(|report| report.chain == chain.get()) {
                continue;
            }
            match try_chain(storage, chain, names_lie)? {
                Attempt::Taken(taken) => return Ok(*taken),
                Attempt::HeldBy(pid) => holder = pid.or(holder),
                Attempt::LeftAlone(report) if settings.exclusive => {
                    return Err(Error::NoChain { path: log(), reason: report.message });
                }
                Attempt::LeftAlone(report) => found.push(report),
            }
        }
        if probes < PROBES && (settings.exclusive || !survey.chains.is_empty()) {
            probes += 1;
            clock.sleep(PROBE_PAUSE);
            continue;
        }
        if settings.exclusive {
            return Err(Error::Locked { path: log(), pid: holder });
        }
        let Some(next) = next_number(storage, &survey, former)? else {
            let reason = format!("it has {MAX_CHAINS} already; close some of the processes that write it");
            return Err(Error::NoChain { path: log(), reason });
        };
        match try_chain(storage, next, names_lie)? {
            Attempt::Taken(taken) => return Ok(*taken),
            Attempt::LeftAlone(report) => found.push(report),
            // Another opener was faster; the next look finds the number in use.
            Attempt::HeldBy(_) => {}
        }
    }
}

/// The lowest number that no chain has, and that no chain says another had.
fn next_number(
    storage: &Arc<dyn Storage>,
    survey: &Survey,
    former: &Former,
) -> Result<Option<ChainNumber>, Error> {
    let mut witnessed: Vec<ChainNumber> =
        former.left.into_iter().chain(former.seen.keys().copied()).collect();
    for chain in &survey.chains {
        let seen = witness::read_last_witnesses(storage, &survey.segments, *chain)
            .map_err(Error::io("read the chains of", storage.path(Dir::Log, "")))?;
        witnessed.extend(seen.into_keys());
    }
    Ok(ChainNumber::all()
        .take(usize::from(MAX_CHAINS))
        .find(|number| !survey.chains.contains(number) && !witnessed.contains(number)))
}

enum Attempt {
    Taken(Box<Taken>),
    HeldBy(Option<u32>),
    LeftAlone(ChainRecovery),
}

fn try_chain(
    storage: &Arc<dyn Storage>,
    chain: ChainNumber,
    names_lie: &Cell<bool>,
) -> Result<Attempt, Error> {
    let lock_path = storage.path(Dir::Control, &chain.lock_name());
    let lock = match ChainLock::try_take(storage, chain).map_err(Error::io("lock", lock_path))? {
        Tried::Taken(lock) => lock,
        Tried::HeldBy(pid) => return Ok(Attempt::HeldBy(pid)),
    };
    // Whoever held the lock until now may have begun a segment since the directory was listed.
    let fresh = Survey::make(storage)?;
    let witnessed = witnesses_of(storage, &fresh, chain)?;
    match recover(storage, &lock, &fresh.segments, &witnessed, names_lie)? {
        Recovered::LeftAlone(report) => Ok(Attempt::LeftAlone(report)),
        Recovered::Ready { start, closed, story, report } => {
            let ledger = Ledger::new(Arc::clone(storage), lock, *start);
            Ok(Attempt::Taken(Box::new(Taken { ledger, closed, story, report })))
        }
    }
}

/// What the other chains say of one.
fn witnesses_of(
    storage: &Arc<dyn Storage>,
    survey: &Survey,
    chain: ChainNumber,
) -> Result<Vec<Witness>, Error> {
    let mut all = Vec::new();
    for other in survey.chains.iter().filter(|other| **other != chain) {
        let seen = witness::read_last_witnesses(storage, &survey.segments, *other)
            .map_err(Error::io("read the chains of", storage.path(Dir::Log, "")))?;
        all.extend(seen.get(&chain).copied());
    }
    Ok(all)
}

/// Reads the durable heads of all other chains into what this one witnesses. Returns those that
/// were seen before and are gone. What cannot be read keeps its last known head.
pub(super) fn refresh_witnesses(
    storage: &Arc<dyn Storage>,
    segments: &[SegmentName],
    ledger: &mut Ledger,
) -> Vec<ChainNumber> {
    let own = ledger.chain();
    let mut chains: Vec<ChainNumber> =
        segments.iter().map(|name| name.chain).filter(|chain| *chain != own).collect();
    chains.dedup();
    let before: Witnesses = ledger.witnesses.clone();
    for chain in &chains {
        let tail = witness::read_tail(storage, segments, *chain);
        if let Ok(Some(head)) = tail.map(|tail| tail.and_then(|tail| tail.durable)) {
            let known = ledger.witnesses.get(chain);
            // A chain that goes back, or is another one now, is for verification to judge: what
            // was seen of the first one stays.
            if known.is_none_or(|known| known.id == head.id && known.seq <= head.seq) {
                ledger.witnesses.insert(*chain, head);
            }
        }
    }
    before.into_keys().filter(|chain| !chains.contains(chain)).collect()
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

/// Recovers each free chain that ended without `close`, and lets go of it. What fails here is left
/// for the next opener.
fn recover_others(
    storage: &Arc<dyn Storage>,
    survey: &Survey,
    passed_over: [Option<ChainNumber>; 2],
    known: &[ChainRecovery],
    names_lie: &Cell<bool>,
    now: &Moment,
) -> Vec<ChainRecovery> {
    let mut found = Vec::new();
    for chain in survey.chains.iter().filter(|chain| survey.has_segments(**chain)) {
        if passed_over.contains(&Some(*chain)) || known.iter().any(|report| report.chain == chain.get()) {
            continue;
        }
        let tail = witness::read_tail(storage, &survey.segments, *chain);
        if matches!(tail, Ok(Some(tail)) if tail.closed) {
            continue;
        }
        match try_chain(storage, *chain, names_lie) {
            Ok(Attempt::Taken(taken)) => found.extend(end_chain(*taken, now)),
            Ok(Attempt::LeftAlone(report)) => found.push(report),
            Ok(Attempt::HeldBy(_)) | Err(_) => {}
        }
    }
    found
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
pub(super) fn take_free_chain(storage: &Arc<dyn Storage>, chain: ChainNumber) -> Option<Ledger> {
    match try_chain(storage, chain, &Cell::new(false)).ok()? {
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
