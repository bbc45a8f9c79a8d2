//! What a writer knows of the other chains of its log: their durable heads, and whether they rest. A chain that rests
//! costs one small read: its lock file says how far it came.

use std::{collections::BTreeSet, io};

use super::{chain_lock::ChainLock, ledger::Ledger};
use crate::{
    chain::Digest,
    chain_reader::{
        Directory, MACHINE_DIGITS, Noted, NotedState, Point, chains_with_a_lock, durable_head, read_noted,
        said_of,
    },
    format::{ChainId, Witness},
    segment_name::{ChainNumber, SegmentName},
    storage::{Dir, Storage},
};

/// Every chain that has a segment or a lock, lowest first.
pub(super) fn chains(storage: &dyn Storage, directory: &Directory) -> io::Result<BTreeSet<ChainNumber>> {
    Ok(directory.chains.keys().copied().chain(chains_with_a_lock(storage)?).collect())
}

/// What stands in the lock file of a chain that somebody else may hold.
fn noted(storage: &dyn Storage, chain: ChainNumber) -> io::Result<Option<Noted>> {
    Ok(read_noted(storage, chain)?.and_then(|slots| slots.noted))
}

/// The durable head of another chain: as noted, or where nothing is, as its lines say.
fn head(storage: &dyn Storage, directory: &Directory, chain: ChainNumber) -> io::Result<Option<Witness>> {
    match noted(storage, chain)?.and_then(|noted| noted.head()) {
        Some(head) => Ok(Some(head)),
        None => durable_head(storage, &directory.segments(chain)),
    }
}

/// Whether a chain is as its last writer left it, who noted so. Else it must be looked at.
pub(super) fn rests(storage: &dyn Storage, directory: &Directory, chain: ChainNumber) -> bool {
    let Ok(Some(noted)) = noted(storage, chain) else { return false };
    let newest = directory.segments(chain).pop().filter(|newest| newest.segment == noted.point.segment);
    let stat = newest.and_then(|newest| storage.stat(Dir::Log, &newest.to_string()).ok()?);
    noted.state != NotedState::Open && stat.is_some_and(|stat| stat.bytes == noted.point.end)
}

/// All numbers that a chain ever saw another chain have.
pub(super) fn ever_seen_by(
    storage: &dyn Storage,
    directory: &Directory,
    chain: ChainNumber,
) -> io::Result<BTreeSet<ChainNumber>> {
    // What left a chain alone without knowing its head knows nothing of what it saw, either.
    match noted(storage, chain)?.filter(|noted| noted.head().is_some()) {
        Some(noted) => Ok(noted.witnessed),
        None => Ok(said_of(storage, &directory.segments(chain), None)?.into_keys().collect()),
    }
}

/// Takes the durable heads of all other chains into what a ledger knows. Returns the chains that it saw before, are
/// gone, and were not told of yet.
pub(super) fn refresh(storage: &dyn Storage, ledger: &mut Ledger, directory: &Directory) -> Vec<ChainNumber> {
    let own = ledger.chain();
    let Ok(chains) = chains(storage, directory) else { return Vec::new() };
    let others = chains.into_iter().filter(|chain| *chain != own);
    // What cannot be read keeps its last known head.
    let heads: Vec<_> =
        others.filter_map(|chain| Some((chain, head(storage, directory, chain).ok()??))).collect();
    let unsure = ledger.must_look_up(&heads);
    if !unsure.is_empty()
        && let Ok(said) = said_of(storage, &directory.segments(own), Some(&unsure))
    {
        ledger.know(&said);
    }
    ledger.witness(heads, directory)
}

/// Says in the lock file that a chain must stay as it is, as long as its newest file does.
pub(super) fn note_left(
    storage: &dyn Storage,
    lock: &mut ChainLock,
    segments: &[SegmentName],
) -> io::Result<()> {
    let (segment, bytes) = match segments.last() {
        Some(newest) => {
            (newest.segment, storage.stat(Dir::Log, &newest.to_string())?.map_or(0, |stat| stat.bytes))
        }
        None => (0, 0),
    };
    let unknown = Noted {
        state: NotedState::Left,
        id: ChainId(0),
        point: Point::NOWHERE,
        times: None,
        pruned: None,
        witnessed: BTreeSet::new(),
        machine: this_machine(storage),
    };
    let known = lock.slots.noted.clone().unwrap_or(unknown);
    let point = Point { segment, end: bytes, ..known.point };
    lock.note(Noted { state: NotedState::Left, point, ..known })
}

/// A hash of what tells a machine from another; empty where there is nothing. Enough to see that it is another one,
/// and not which.
pub(super) fn machine(parts: &[&str]) -> String {
    if parts.iter().all(|part| part.is_empty()) {
        return String::new();
    }
    Digest::of_body(parts.join("\n").as_bytes()).to_string().chars().take(MACHINE_DIGITS).collect()
}

/// What the lock files of this machine say.
pub(super) fn this_machine(storage: &dyn Storage) -> String {
    machine(&[&storage.machine_id()])
}

pub(super) fn is_of_another_machine(storage: &dyn Storage, noted: &Noted) -> bool {
    let here = this_machine(storage);
    !here.is_empty() && noted.machine != "-" && noted.machine != here
}

/// What an operator must hear of a chain whose head is not noted.
pub(super) fn unknown_head(chain: ChainNumber, lock: &ChainLock) -> String {
    let why = if lock.slots.is_of_another_file {
        "is a copy, or was restored from a backup"
    } else {
        "is new, was written by an earlier version, or cannot be read"
    };
    format!("chain {chain} was opened by its files alone: control/{} {why}", chain.lock_name())
}
