//! What a writer knows of the other chains of its log: their durable heads, and whether they are at
//! rest. A chain at rest costs one small read, because its lock file holds its head.

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

/// Returns every chain that has a segment or a lock file, lowest number first.
pub(super) fn chains(storage: &dyn Storage, directory: &Directory) -> io::Result<BTreeSet<ChainNumber>> {
    Ok(directory.chains.keys().copied().chain(chains_with_a_lock(storage)?).collect())
}

/// Reads the note in the lock file of a chain that another process may hold.
fn noted(storage: &dyn Storage, chain: ChainNumber) -> io::Result<Option<Noted>> {
    Ok(read_noted(storage, chain)?.and_then(|slots| slots.noted))
}

/// Returns the durable head of another chain: as noted, or from its lines if none is noted.
fn head(storage: &dyn Storage, directory: &Directory, chain: ChainNumber) -> io::Result<Option<Witness>> {
    match noted(storage, chain)?.and_then(|noted| noted.head()) {
        Some(head) => Ok(Some(head)),
        None => durable_head(storage, &directory.segments(chain)),
    }
}

/// Returns whether a chain is unchanged since its last writer noted its end. If not, it must be
/// examined.
pub(super) fn is_at_rest(storage: &dyn Storage, directory: &Directory, chain: ChainNumber) -> bool {
    let Ok(Some(noted)) = noted(storage, chain) else { return false };
    let newest = directory.segments(chain).pop().filter(|newest| newest.segment == noted.point.segment);
    let stat = newest.and_then(|newest| storage.stat(Dir::Log, &newest.to_string()).ok()?);
    noted.state != NotedState::Open && stat.is_some_and(|stat| stat.bytes == noted.point.end)
}

/// Returns all chain numbers that a chain has ever witnessed.
pub(super) fn ever_seen_by(
    storage: &dyn Storage,
    directory: &Directory,
    chain: ChainNumber,
) -> io::Result<BTreeSet<ChainNumber>> {
    // A note written without a known head holds no witnessed chains either.
    match noted(storage, chain)?.filter(|noted| noted.head().is_some()) {
        Some(noted) => Ok(noted.witnessed),
        None => Ok(said_of(storage, &directory.segments(chain), None)?.into_keys().collect()),
    }
}

/// Updates a ledger with the durable heads of all other chains. Returns the chains that it had seen
/// before, that are gone now, and that were not reported yet.
pub(super) fn refresh(storage: &dyn Storage, ledger: &mut Ledger, directory: &Directory) -> Vec<ChainNumber> {
    let own = ledger.chain();
    let Ok(chains) = chains(storage, directory) else { return Vec::new() };
    let others = chains.into_iter().filter(|chain| *chain != own);
    // A chain that cannot be read keeps its last known head.
    let heads: Vec<_> =
        others.filter_map(|chain| Some((chain, head(storage, directory, chain).ok()??))).collect();
    let unsure = ledger.must_look_up(&heads);
    if !unsure.is_empty()
        && let Ok(said) = said_of(storage, &directory.segments(own), Some(&unsure))
    {
        ledger.add_heads(&said);
    }
    ledger.witness(heads, directory)
}

/// Notes in the lock file that a chain must be left as it is, for as long as its newest file does
/// not change.
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

/// Returns a hash of what identifies a machine, or an empty string if nothing does. It shows that
/// the machine is another one, but not which.
pub(super) fn machine(parts: &[&str]) -> String {
    if parts.iter().all(|part| part.is_empty()) {
        return String::new();
    }
    Digest::of_body(parts.join("\n").as_bytes()).to_string().chars().take(MACHINE_DIGITS).collect()
}

/// Returns this machine as it is written to lock files.
pub(super) fn this_machine(storage: &dyn Storage) -> String {
    machine(&[&storage.machine_id()])
}

/// Returns whether a note was written on another machine.
pub(super) fn is_of_another_machine(storage: &dyn Storage, noted: &Noted) -> bool {
    let here = this_machine(storage);
    !here.is_empty() && noted.machine != "-" && noted.machine != here
}

/// Returns the notice about a chain whose head is not noted.
pub(super) fn unknown_head(chain: ChainNumber, lock: &ChainLock) -> String {
    let why = if lock.slots.is_of_another_file {
        "is a copy, or was restored from a backup"
    } else {
        "is new, was written by an earlier version, or cannot be read"
    };
    format!("chain {chain} was opened by its files alone: control/{} {why}", chain.lock_name())
}
