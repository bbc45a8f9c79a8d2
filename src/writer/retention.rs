//! Removes old segments: a durable `prune` record first, then the files, then their names.

use std::{collections::BTreeMap, io, sync::Arc};

use super::{
    forwarded::Required,
    keep::{Sealed, removable},
    ledger::{Ledger, Trouble},
    open::{close_chain, take_free_chain, write_through},
};
use crate::{
    chain::Digest,
    chain_reader::{Directory, FirstLine, SegmentStart},
    clock::{Clock, Moment, Timestamp},
    format::{ChainId, PruneInfo, PruneReason},
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
    /// Whether every chain was looked at.
    pub(super) is_whole: bool,
    /// Of which chains something stays that would go if it were forwarded, and why.
    pub(super) waits: BTreeMap<ChainNumber, String>,
    /// The ledger's own segment failed while the `prune` record was written.
    pub(super) trouble: Option<Trouble>,
}

/// The old segments of one chain, oldest first, as far back as they are understood.
#[derive(Debug, Default)]
struct Old {
    /// `None` where not even the newest first line can be read.
    id: Option<ChainId>,
    segments: Vec<OldSegment>,
    /// Files before what retention left. A power cut can bring back what was removed last, a removal can have been
    /// stopped behind its record, and files that were begun in vain before the first record go only now. Oldest first.
    leftovers: Vec<Leftover>,
    newest_bytes: u64,
}

/// A file that a `prune` record calls removed.
#[derive(Debug)]
struct Leftover {
    name: SegmentName,
    bytes: u64,
    /// The last record that it can hold.
    through: u64,
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
    /// How many of the oldest segments go if so many may, and why.
    fn removable(&self, retention: &Retention, allowed: usize, now: &Moment) -> Option<(usize, PruneReason)> {
        let sealed: Vec<Sealed> = self.segments.iter().map(|old| old.sealed).collect();
        removable(retention, &sealed, allowed, self.newest_bytes, now.wall)
    }

    /// The last record and the bytes of each leftover, and of so many of the oldest segments, oldest first.
    fn ends(&self, segments: usize) -> Vec<(u64, u64)> {
        let leftovers = self.leftovers.iter().map(|file| (file.through, file.bytes));
        let segments = self.segments.iter().take(segments).map(|old| (old.through.0, old.sealed.bytes));
        leftovers.chain(segments).collect()
    }
}

/// How many of the oldest make so much room.
fn making_room(ends: &[(u64, u64)], mut bytes: u64) -> usize {
    let is_needed = |(_, freed): &&(u64, u64)| {
        let needed = bytes > 0;
        bytes = bytes.saturating_sub(*freed);
        needed
    };
    ends.iter().take_while(is_needed).count()
}

/// What of a chain goes.
#[derive(Debug, Clone, Copy)]
struct Doom {
    /// How many of the oldest leftovers.
    leftovers: usize,
    /// How many of the oldest segments, and why.
    segments: Option<(usize, PruneReason)>,
    /// Up to which record the forwarders have everything. What goes behind it goes because there is no room.
    forwarded: u64,
}

impl Doom {
    /// What must have been forwarded for a file to go that ends with this record.
    fn wanted(&self, id: Option<ChainId>, through: u64) -> Option<(ChainId, u64)> {
        id.filter(|_| through <= self.forwarded).map(|id| (id, through))
    }
}

/// A file that goes.
#[derive(Debug)]
struct Doomed {
    name: SegmentName,
    /// The chain, and the record up to which it must have been forwarded, if it must.
    wanted: Option<(ChainId, u64)>,
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
    let required = Required::read(storage.as_ref(), &retention.require_forwarded);
    let directory = Directory::read(storage.as_ref())?;
    let own = ledger.chain();
    prune(storage, retention, ledger, &directory, now, outcome)?;
    if outcome.trouble.is_some() {
        // Our own segment comes first.
        return Ok(());
    }
    for chain in directory.chains.keys().copied().filter(|chain| *chain != own) {
        let old = survey(storage, &directory, chain, 0)?;
        let doom = choose(storage, retention, &required, (chain, &old), now, outcome)?;
        if doom.segments.is_none() && (doom.leftovers == 0 || required.is_hold()) {
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
    outcome.is_whole = true;
    Ok(())
}

/// Decides what of a chain goes. What stays only because it was not forwarded is noted in `outcome`.
fn choose(
    storage: &Arc<dyn Storage>,
    retention: &Retention,
    required: &Required,
    (chain, old): (ChainNumber, &Old),
    now: &Moment,
    outcome: &mut Outcome,
) -> io::Result<Doom> {
    let segments = old.removable(retention, usize::MAX, now);
    let ends = old.ends(segments.map_or(0, |(count, _)| count));
    let leftovers = old.leftovers.len();
    let Some(limit) = old.id.and_then(|id| required.limit(storage.as_ref(), id)) else {
        return Ok(Doom { leftovers, segments, forwarded: u64::MAX });
    };
    let has = ends.iter().take_while(|(through, _)| *through <= limit.through).count();
    let Some((end, _)) = ends.last().filter(|_| has < ends.len()) else {
        return Ok(Doom { leftovers, segments, forwarded: limit.through });
    };
    let missing_bytes = match retention.unless_free_below {
        Some(least) if !required.is_hold() => least.saturating_sub(storage.free_bytes()?),
        _ => 0,
    };
    let allowed = has.max(making_room(&ends, missing_bytes));
    if allowed < ends.len() {
        let message = format!(
            "chain {chain} keeps old records up to {end}, which retention would remove: {}",
            limit.kept_by
        );
        outcome.waits.insert(chain, message);
    }
    let segments = old.removable(retention, allowed.saturating_sub(leftovers), now);
    Ok(Doom { leftovers: leftovers.min(allowed), segments, forwarded: limit.through })
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
    let required = Required::read(storage.as_ref(), &retention.require_forwarded);
    let doom = choose(storage, retention, &required, (ledger.chain(), &old), now, outcome)?;
    let id = old.id;
    let leftovers = old.leftovers.drain(..doom.leftovers);
    // No store is believed for ever: one that has lost a leftover since gets it again.
    let leftovers = leftovers.map(|file| Doomed { name: file.name, wanted: doom.wanted(id, file.through) });
    let mut doomed: Vec<Doomed> = leftovers.collect();
    if let Some((count, reason)) = doom.segments {
        let removed: Vec<OldSegment> = old.segments.drain(..count).collect();
        let (Some(first), Some(last)) = (removed.first(), removed.last()) else { return Ok(()) };
        let (through, hash) = last.through;
        let numbers =
            [first.files.first(), last.files.last()].map(|name| name.map_or(0, |name| name.segment));
        let files = numbers.into();
        let info = PruneInfo { through, hash, files, reason: reason.as_str().to_owned() };
        let mut batch = Chunks::default();
        batch.push(&info.payload(now.wall), None, None);
        let files = removed.into_iter().flat_map(|old| {
            let wanted = doom.wanted(id, old.through.0);
            old.files.into_iter().map(move |name| Doomed { name, wanted })
        });
        doomed.extend(files);
        if let Err(trouble) = write_through(ledger, &mut batch, now) {
            // The record may not be durable, so no file goes.
            outcome.trouble = Some(trouble);
            return Ok(());
        }
        ledger.pruned = Some((through, hash));
    }
    remove(storage, retention, &doomed, outcome)
}

fn remove(
    storage: &Arc<dyn Storage>,
    retention: &Retention,
    doomed: &[Doomed],
    outcome: &mut Outcome,
) -> io::Result<()> {
    for Doomed { name, wanted } in doomed {
        let name = name.to_string();
        if !may_go(storage, retention, *wanted)? {
            // It changed while the record was written. What the record says is gone stays as a leftover.
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

/// Whether a file may go now: there is no hold, and whoever must have it has it.
fn may_go(
    storage: &Arc<dyn Storage>,
    retention: &Retention,
    wanted: Option<(ChainId, u64)>,
) -> io::Result<bool> {
    if storage.stat(Dir::Log, HOLD)?.is_some() {
        return Ok(false);
    }
    let required = Required::read(storage.as_ref(), &retention.require_forwarded);
    let has_all = wanted.is_none_or(|(id, through)| {
        let limit = required.limit(storage.as_ref(), id);
        limit.is_none_or(|limit| through <= limit.through)
    });
    Ok(!required.is_hold() && has_all)
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
            old.id = after.as_ref().map(|(start, _)| start.info.id);
            continue;
        };
        let said = next.info.pruned.filter(|(through, _)| *through < next.seq);
        pruned = pruned.max(said.map_or(0, |(through, _)| through));
        let through = (next.seq.saturating_sub(1), next.previous);
        let counted = next.info.after.iter().find(|after| after.bytes > 0).map(|after| after.segment);
        if pruned > 0 && through.0 <= pruned {
            let first = first_line(storage, *name)?;
            if first.as_ref().is_some_and(|(first, _)| first.seq > pruned) {
                // Removed it was not: numbers go backwards here, and that is for verification to judge.
                old.leftovers.clear();
                break;
            }
            old.leftovers.push(Leftover { name: *name, bytes: stat.bytes, through: through.0 });
            // Where it is not known which file comes before, the last record of the one behind it counts for all.
            let is_before =
                |first: &SegmentStart| counted == Some(name.segment) && old.id == Some(first.info.id);
            after = first.filter(|(first, _)| is_before(first)).or(after);
            continue;
        }
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
