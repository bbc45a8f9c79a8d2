//! The old segments of a chain as retention finds them, and what earlier passes left to remove.

use std::{io, sync::Arc};

use super::{
    age::CountedPart,
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

/// The old segments of one chain, oldest first, as far back as they can be read.
#[derive(Debug)]
pub(super) struct Old {
    /// `None` if not even the newest first line can be read.
    pub(super) id: Option<ChainId>,
    pub(super) segments: Vec<OldSegment>,
    /// Files before the first record that retention left, oldest first. A power cut can bring back
    /// removed files, and a pass can stop after its record. Files begun in vain before the first
    /// record are removed only now.
    pub(super) leftovers: Vec<Leftover>,
    newest_bytes: u64,
    /// The highest time before the oldest segment, as its first line records it, but not before
    /// this library existed.
    floor: Timestamp,
    /// The newest file with a good first line.
    newest: Option<CountedPart>,
}

/// A file that a `prune` record already covers.
#[derive(Debug)]
pub(super) struct Leftover {
    pub(super) name: SegmentName,
    pub(super) bytes: u64,
    /// The highest record that it can hold.
    pub(super) through: u64,
}

/// A segment that counts, with the unused files behind it.
#[derive(Debug)]
pub(super) struct OldSegment {
    pub(super) sealed: Sealed,
    /// Oldest first.
    pub(super) files: Vec<SegmentName>,
    /// The last record before the first one of the next segment.
    pub(super) through: (u64, Digest),
    /// The part of it that counts.
    part: CountedPart,
}

/// 2026-01-01, in Unix seconds. The library did not exist before, so no record is older. A machine
/// without a battery-backed clock starts in 1970, and that time must not be trusted.
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
    /// Returns how many of the oldest segments to remove, at most `allowed`, and why.
    pub(super) fn removable(
        &self,
        retention: &Retention,
        allowed: usize,
        now: Timestamp,
    ) -> Option<(usize, PruneReason)> {
        let sealed: Vec<Sealed> = self.segments.iter().map(|old| old.sealed).collect();
        removable(retention, &sealed, self.floor, allowed, self.newest_bytes, now)
    }

    /// Returns the last record and the bytes of each leftover and of the oldest `segments`
    /// segments, oldest first.
    pub(super) fn ends(&self, segments: usize) -> Vec<(u64, u64)> {
        let leftovers = self.leftovers.iter().map(|file| (file.through, file.bytes));
        let segments = self.segments.iter().take(segments).map(|old| (old.through.0, old.sealed.bytes));
        leftovers.chain(segments).collect()
    }

    /// Returns when the newest segment was begun.
    pub(super) fn begun(&self) -> Timestamp {
        self.newest.map_or(Timestamp::EARLIEST, |newest| newest.begun)
    }

    /// Returns the parts of the chain that count, newest first.
    pub(super) fn counted_parts(&self) -> Vec<CountedPart> {
        self.newest.into_iter().chain(self.segments.iter().rev().map(|old| old.part)).collect()
    }
}

/// Follows a chain back from its newest first line to where retention cut it.
///
/// It stops at a first line that cannot be read, and at a missing file that retention did not
/// remove. What is older is not understood, and so not removed. `pruned` is the last record known
/// to be removed; first lines may show a higher one. `step` is called before each file. If it
/// returns false, the pass is to end, and the result is `None`.
pub(super) fn survey(
    storage: &Arc<dyn Storage>,
    directory: &Directory,
    chain: ChainNumber,
    mut pruned: u64,
    mut step: impl FnMut() -> bool,
) -> io::Result<Option<Old>> {
    let mut old = Old::default();
    let mut after: Option<(SegmentStart, Timestamp)> = None;
    // Unused files: they are removed with the segment before them.
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
            old.newest = after.as_ref().map(|(_, begun)| CountedPart {
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
                // This was never removed: the sequence numbers go backwards here. That is for
                // verification to judge.
                old.leftovers.clear();
                break;
            }
            old.leftovers.push(Leftover { name: *name, bytes: stat.bytes, through: through.0 });
            // If it is not known which file comes before, the last record of this one bounds all
            // older ones.
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
        let part =
            CountedPart { name: *name, end: Some(counted.bytes), begun: first.1, times: counted.times };
        let own_highest = counted.times.map_or(first.1, |(_, highest)| highest);
        let before = first.0.info.after.iter().find(|after| after.bytes > 0).and_then(|after| after.times);
        let first_year = Timestamp::from_unix(FIRST_YEAR, 0);
        old.floor = before.map_or(first_year, |(_, highest)| highest.max(first_year));
        old.segments.push(OldSegment {
            sealed: Sealed { segment: name.segment, bytes, ended: own_highest.max(*begun) },
            files: idle.drain(..).rev().map(|(name, _)| name).collect(),
            through,
            part,
        });
        after = Some(first);
    }
    old.segments.reverse();
    old.leftovers.reverse();
    Ok(Some(old))
}

/// Returns the first line of a segment and its time, if both can be read.
fn first_line(
    storage: &Arc<dyn Storage>,
    name: SegmentName,
) -> io::Result<Option<(SegmentStart, Timestamp)>> {
    let name_of = |error| named(storage, name, &error);
    let file = storage.open(Dir::Log, &name.to_string(), Access::Read).map_err(name_of)?;
    let first = FirstLine::read(file.as_ref(), name).map_err(name_of)?.segment();
    Ok(first.and_then(|first| first.at.map(|at| (first, at))))
}

/// Turns a file that another process removed since it was listed into `None`: that is not a
/// failure.
pub(super) fn unless_gone<T>(read: io::Result<T>) -> io::Result<Option<T>> {
    match read {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        read => read.map(Some),
    }
}

/// Returns the error with the path of its file.
pub(super) fn named(storage: &Arc<dyn Storage>, name: SegmentName, error: &io::Error) -> io::Error {
    let path = storage.path(Dir::Log, &name.to_string());
    io::Error::new(error.kind(), format!("cannot read {}: {error}", path.display()))
}
