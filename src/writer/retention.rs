//! Removes old segments: a durable `prune` record first, then the files, then their names.

use std::{io, sync::Arc};

use super::{
    keep::{Sealed, removable},
    ledger::{Ledger, Trouble},
    open::{close_chain, take_free_chain, write_through},
};
use crate::{
    chain::Digest,
    chain_reader::{Directory, FirstLine, SegmentStart},
    clock::{Clock, Moment, Timestamp},
    format::{PruneInfo, PruneReason},
    queue::Chunks,
    segment_name::{ChainNumber, SegmentName},
    settings::Retention,
    storage::{Access, Dir, Storage},
};

/// The name of the file that stops all removal while it exists.
const HOLD: &str = "hold";

/// What happened, for notices.
#[derive(Debug, Default)]
pub(super) struct Outcome {
    pub(super) removed: Vec<String>,
    pub(super) failed: Option<(String, io::Error)>,
    /// The ledger's own segment failed while the `prune` record was written.
    pub(super) trouble: Option<Trouble>,
}

/// The old segments of one chain, oldest first, as far back as they are understood.
#[derive(Debug, Default)]
struct Old {
    segments: Vec<OldSegment>,
    /// Files before what retention left. A power cut can bring back what was removed last, and files
    /// that were begun in vain before the first record go only now. Oldest first.
    leftovers: Vec<SegmentName>,
    newest_bytes: u64,
}

/// A segment that counts, and the files behind it that do not.
#[derive(Debug)]
struct OldSegment {
    sealed: Sealed,
    /// Oldest first.
    files: Vec<SegmentName>,
    /// The record before the first of the segment after it.
    through: (u64, Digest),
}

impl Old {
    fn removable(&self, retention: &Retention, now: &Moment) -> Option<(usize, PruneReason)> {
        let sealed: Vec<Sealed> = self.segments.iter().map(|old| old.sealed).collect();
        removable(retention, &sealed, self.newest_bytes, now.wall)
    }
}

/// Applies retention to the chain of `ledger`, and to every chain that nobody holds.
pub(super) fn run(
    storage: &Arc<dyn Storage>,
    retention: &Retention,
    ledger: &mut Ledger,
    clock: Clock,
    now: &Moment,
) -> Outcome {
    let mut outcome = Outcome::default();
    if let Err(error) = run_all(storage, retention, ledger, (clock, now), &mut outcome) {
        outcome.failed = Some(("the old segments".to_owned(), error));
    }
    outcome
}

fn run_all(
    storage: &Arc<dyn Storage>,
    retention: &Retention,
    ledger: &mut Ledger,
    (clock, now): (Clock, &Moment),
    outcome: &mut Outcome,
) -> io::Result<()> {
    if ledger.has_idle_files() {
        // A directory sync that failed here would hide from the next segment that theirs are in doubt.
        return Ok(());
    }
    // Where it cannot be asked whether there is a hold, there might be one.
    if storage.stat(Dir::Log, HOLD)?.is_some() {
        return Ok(());
    }
    let directory = Directory::read(storage.as_ref())?;
    let own = ledger.chain();
    prune(storage, retention, ledger, &directory, now, outcome)?;
    if outcome.trouble.is_some() {
        // Our own segment comes first.
        return Ok(());
    }
    for chain in directory.chains.keys().copied().filter(|chain| *chain != own) {
        let old = survey(storage, &directory, chain, 0)?;
        if old.leftovers.is_empty() && old.removable(retention, now).is_none() {
            continue;
        }
        if let Some(mut free) = take_free_chain(storage, chain, clock, now) {
            let head = free.head();
            let pruned = prune(storage, retention, &mut free, &directory, now, outcome);
            // The trouble of a chain that is not ours ends with it: the next opener recovers it.
            let is_written = outcome.trouble.take().is_none() && free.head() != head;
            if is_written && close_chain(&mut free, 0, true, now).is_err() {
                continue;
            }
            pruned?;
        }
    }
    Ok(())
}

fn prune(
    storage: &Arc<dyn Storage>,
    retention: &Retention,
    ledger: &mut Ledger,
    directory: &Directory,
    now: &Moment,
    outcome: &mut Outcome,
) -> io::Result<()> {
    let pruned = ledger.pruned.map_or(0, |(through, _)| through);
    let mut old = survey(storage, directory, ledger.chain(), pruned)?;
    let mut doomed = std::mem::take(&mut old.leftovers);
    if let Some((count, reason)) = old.removable(retention, now) {
        let removed: Vec<OldSegment> = old.segments.drain(..count).collect();
        let (Some(first), Some(last)) = (removed.first(), removed.last()) else { return Ok(()) };
        let (through, hash) = last.through;
        let numbers =
            [first.files.first(), last.files.last()].map(|name| name.map_or(0, |name| name.segment));
        let files = numbers.into();
        let info = PruneInfo { through, hash, files, reason: reason.as_str().to_owned() };
        let mut batch = Chunks::default();
        batch.push(&info.payload(now.wall), None, None);
        let files = removed.into_iter().flat_map(|old| old.files);
        doomed.extend(files);
        if let Err(trouble) = write_through(ledger, &mut batch, now) {
            // The record may not be durable, so no file goes.
            outcome.trouble = Some(trouble);
            return Ok(());
        }
        ledger.pruned = Some((through, hash));
    }
    remove(storage, &doomed, outcome)
}

fn remove(storage: &Arc<dyn Storage>, doomed: &[SegmentName], outcome: &mut Outcome) -> io::Result<()> {
    for name in doomed {
        let name = name.to_string();
        if storage.stat(Dir::Log, HOLD)?.is_some() {
            // It came while the record was written. What the record says is gone stays as a leftover.
            break;
        }
        match storage.remove(Dir::Log, &name) {
            Ok(()) => outcome.removed.push(name),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => {
                outcome.failed = Some((name, error));
                break;
            }
        }
    }
    if outcome.removed.is_empty() { Ok(()) } else { storage.sync_dir(Dir::Log) }
}

/// Follows a chain back from its newest first line to where retention cut it. Where a first line cannot
/// be read, or a file is missing that retention did not remove, what is older is not understood and so
/// not removed. `pruned` is the last record that is known to be removed; first lines may know of more.
fn survey(
    storage: &Arc<dyn Storage>,
    directory: &Directory,
    chain: ChainNumber,
    mut pruned: u64,
) -> io::Result<Old> {
    let mut old = Old::default();
    let mut after: Option<(SegmentStart, Timestamp)> = None;
    // Files between, which count nothing: they go with the segment before them.
    let mut idle: Vec<(SegmentName, u64)> = Vec::new();
    for name in directory.segments(chain).iter().rev() {
        let Some(stat) = storage.stat(Dir::Log, &name.to_string())? else { continue };
        let Some((next, begun)) = &after else {
            old.newest_bytes += stat.bytes;
            after = first_line(storage, *name)?;
            continue;
        };
        let said = next.info.pruned.filter(|(through, _)| *through < next.seq);
        pruned = pruned.max(said.map_or(0, |(through, _)| through));
        let through = (next.seq.saturating_sub(1), next.previous);
        if pruned > 0 && through.0 <= pruned {
            if first_line(storage, *name)?.is_some_and(|(first, _)| first.seq > pruned) {
                // Removed it was not: numbers go backwards here, and that is for verification to judge.
                old.leftovers.clear();
                break;
            }
            old.leftovers.push(*name);
            continue;
        }
        let counted = next.info.after.iter().find(|after| after.bytes > 0).map(|after| after.segment);
        if counted.is_some_and(|counted| counted < name.segment) {
            idle.push((*name, stat.bytes));
            continue;
        }
        if counted != Some(name.segment) {
            break;
        }
        let Some(first) = first_line(storage, *name)? else { break };
        idle.push((*name, stat.bytes));
        let sealed =
            Sealed { segment: name.segment, bytes: idle.iter().map(|(_, bytes)| bytes).sum(), ended: *begun };
        let files = idle.drain(..).rev().map(|(name, _)| name).collect();
        old.segments.push(OldSegment { sealed, files, through });
        after = Some(first);
    }
    old.segments.reverse();
    old.leftovers.reverse();
    Ok(old)
}

/// The first line of a segment and its time, where both can be read.
fn first_line(
    storage: &Arc<dyn Storage>,
    name: SegmentName,
) -> io::Result<Option<(SegmentStart, Timestamp)>> {
    let file = storage.open(Dir::Log, &name.to_string(), Access::Read)?;
    let first = FirstLine::read(file.as_ref(), name)?.segment();
    Ok(first.and_then(|first| first.at.map(|at| (first, at))))
}
