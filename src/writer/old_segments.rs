//! What retention finds of a chain: its old segments, and what was to go before.

use std::{io, sync::Arc};

use super::{
    age::Stretch,
    keep::{Sealed, removable},
};
use crate::{
    chain::Digest,
    chain_reader::{Directory, FirstLine, SegmentStart},
    clock::Timestamp,
    format::{ChainId, PruneReason},
    segment_name::{ChainNumber, SegmentName},
    settings::Retention,
    storage::{Access, Dir, Storage},
};

/// The old segments of one chain, oldest first, as far back as they are understood.
#[derive(Debug)]
pub(super) struct Old {
    /// `None` where not even the newest first line can be read.
    pub(super) id: Option<ChainId>,
    pub(super) segments: Vec<OldSegment>,
    /// Files before what retention left. A power cut can bring back what was removed last, a removal can have been
    /// stopped behind its record, and files that were begun in vain before the first record go only now. Oldest first.
    pub(super) leftovers: Vec<Leftover>,
    newest_bytes: u64,
    /// The highest time before the oldest segment, as far as its first line says it, and not before there was a log.
    floor: Timestamp,
    /// The newest file with a good first line.
    newest: Option<Stretch>,
}

/// A file that a `prune` record calls removed.
#[derive(Debug)]
pub(super) struct Leftover {
    pub(super) name: SegmentName,
    pub(super) bytes: u64,
    /// The last record that it can hold.
    pub(super) through: u64,
}

/// A segment that counts, and the files behind it that do not.
#[derive(Debug)]
pub(super) struct OldSegment {
    pub(super) sealed: Sealed,
    /// Oldest first.
    pub(super) files: Vec<SegmentName>,
    /// The record before the first of the segment after it.
    pub(super) through: (u64, Digest),
    /// What counts of it.
    stretch: Stretch,
}

/// 2026-01-01, in seconds. This library did not exist before, so no record of it is older: a clock that begins in 1970,
/// as without a battery, is not believed.
const FIRST_YEAR: i64 = 1_767_225_600;

impl Default for Old {
    fn default() -> Self {
        Self {
            id: None,
            segments: Vec::new(),
            leftovers: Vec::new(),
            newest_bytes: 0,
            floor: Timestamp::from_unix(FIRST_YEAR, 0),
            newest: None,
        }
    }
}

impl Old {
    /// How many of the oldest segments go if so many may, and why.
    pub(super) fn removable(
        &self,
        retention: &Retention,
        allowed: usize,
        now: Timestamp,
    ) -> Option<(usize, PruneReason)> {
        let sealed: Vec<Sealed> = self.segments.iter().map(|old| old.sealed).collect();
        removable(retention, &sealed, self.floor, allowed, self.newest_bytes, now)
    }

    /// The last record and the bytes of each leftover, and of so many of the oldest segments, oldest first.
    pub(super) fn ends(&self, segments: usize) -> Vec<(u64, u64)> {
        let leftovers = self.leftovers.iter().map(|file| (file.through, file.bytes));
        let segments = self.segments.iter().take(segments).map(|old| (old.through.0, old.sealed.bytes));
        leftovers.chain(segments).collect()
    }

    /// When the newest segment was begun.
    pub(super) fn begun(&self) -> Timestamp {
        self.newest.map_or(Timestamp::EARLIEST, |newest| newest.begun)
    }

    /// What counts of the chain, newest first.
    pub(super) fn stretches(&self) -> Vec<Stretch> {
        self.newest.into_iter().chain(self.segments.iter().rev().map(|old| old.stretch)).collect()
    }
}

/// Follows a chain back from its newest first line to where retention cut it. Where a first line cannot
/// be read, or a file is missing that retention did not remove, what is older is not understood and so
/// not removed. `pruned` is the last record that is known to be removed; first lines may know of more. `step` is called
/// before each file; `None` where it says that nobody wants to know any more.
pub(super) fn survey(
    storage: &Arc<dyn Storage>,
    directory: &Directory,
    chain: ChainNumber,
    mut pruned: u64,
    mut step: impl FnMut() -> bool,
) -> io::Result<Option<Old>> {
    let mut old = Old::default();
    let mut after: Option<(SegmentStart, Timestamp)> = None;
    // Files between, which count nothing: they go with the segment before them.
    let mut idle: Vec<(SegmentName, u64)> = Vec::new();
    for name in directory.segments(chain).iter().rev() {
        if !step() {
            return Ok(None);
        }
        let Some(stat) = storage.stat(Dir::Log, &name.to_string())? else { continue };
        let Some((next, begun)) = &after else {
            let Some(first) = unless_gone(first_line(storage, *name))? else { continue };
            old.newest_bytes += stat.bytes;
            after = first;
            old.id = after.as_ref().map(|(start, _)| start.info.id);
            old.newest = after.as_ref().map(|(_, begun)| Stretch {
                name: *name,
                end: None,
                begun: *begun,
                times: None,
            });
            continue;
        };
        let said = next.info.pruned.filter(|(through, _)| *through < next.seq);
        pruned = pruned.max(said.map_or(0, |(through, _)| through));
        let through = (next.seq.saturating_sub(1), next.previous);
        let counted = next.info.after.iter().find(|after| after.bytes > 0);
        if pruned > 0 && through.0 <= pruned {
            let Some(first) = unless_gone(first_line(storage, *name))? else { continue };
            if first.as_ref().is_some_and(|(first, _)| first.seq > pruned) {
                // Removed it was not: numbers go backwards here, and that is for verification to judge.
                old.leftovers.clear();
                break;
            }
            old.leftovers.push(Leftover { name: *name, bytes: stat.bytes, through: through.0 });
            // Where it is not known which file comes before, the last record of the one behind it counts for all.
            let is_before = |first: &SegmentStart| {
                counted.is_some_and(|counted| counted.segment == name.segment)
                    && old.id == Some(first.info.id)
            };
            after = first.filter(|(first, _)| is_before(first)).or(after);
            continue;
        }
        if counted.is_some_and(|counted| counted.segment < name.segment) {
            idle.push((*name, stat.bytes));
            continue;
        }
        let Some(counted) = counted.filter(|counted| counted.segment == name.segment) else { break };
        let Some(first) = unless_gone(first_line(storage, *name))? else { continue };
        let Some(first) = first else { break };
        idle.push((*name, stat.bytes));
        let bytes = idle.iter().map(|(_, bytes)| bytes).sum();
        let stretch = Stretch { name: *name, end: Some(counted.bytes), begun: first.1, times: counted.times };
        let own_highest = counted.times.map_or(first.1, |(_, highest)| highest);
        let before = first.0.info.after.iter().find(|after| after.bytes > 0).and_then(|after| after.times);
        let first_year = Timestamp::from_unix(FIRST_YEAR, 0);
        old.floor = before.map_or(first_year, |(_, highest)| highest.max(first_year));
        old.segments.push(OldSegment {
            sealed: Sealed { segment: name.segment, bytes, ended: own_highest.max(*begun) },
            files: idle.drain(..).rev().map(|(name, _)| name).collect(),
            through,
            stretch,
        });
        after = Some(first);
    }
    old.segments.reverse();
    old.leftovers.reverse();
    Ok(Some(old))
}

/// The first line of a segment and its time, where both can be read.
fn first_line(
    storage: &Arc<dyn Storage>,
    name: SegmentName,
) -> io::Result<Option<(SegmentStart, Timestamp)>> {
    let name_of = |error| named(storage, name, &error);
    let file = storage.open(Dir::Log, &name.to_string(), Access::Read).map_err(name_of)?;
    let first = FirstLine::read(file.as_ref(), name).map_err(name_of)?.segment();
    Ok(first.and_then(|first| first.at.map(|at| (first, at))))
}

/// `None` for a file that another process has removed since it was listed: that is no failure.
pub(super) fn unless_gone<T>(read: io::Result<T>) -> io::Result<Option<T>> {
    match read {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        read => read.map(Some),
    }
}

/// The same error, which says of which file.
pub(super) fn named(storage: &Arc<dyn Storage>, name: SegmentName, error: &io::Error) -> io::Error {
    let path = storage.path(Dir::Log, &name.to_string());
    io::Error::new(error.kind(), format!("cannot read {}: {error}", path.display()))
}
