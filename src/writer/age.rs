//! The time at which the ages of segments are measured, taken from the records and robust against a
//! wrong clock.
//!
//! If the clock were years ahead at one start, every segment would look old enough to remove. So a
//! record more than a day later than the one before it is not trusted at first. It is trusted once
//! the records span a day beyond it; until then, ages are measured at the record before the jump.
//! The decision depends on the records alone, so it is the same after every restart.

use std::{io, ops::ControlFlow, sync::Arc, time::Duration};

use super::old_segments::{named, unless_gone};
use crate::{
    chain_reader::times_backward,
    clock::Timestamp,
    format::Times,
    segment_name::SegmentName,
    storage::{Access, Dir, Storage},
};

/// The largest step between two records that is trusted without proof, and the span of later
/// records that proves a larger one.
pub(super) const DAY: Duration = Duration::from_secs(24 * 3600);

/// The part of one file of a chain that counts.
#[derive(Debug, Clone, Copy)]
pub(super) struct CountedPart {
    pub(super) name: SegmentName,
    /// The number of bytes that count, if a newer file records it.
    pub(super) end: Option<u64>,
    /// The time of the first line.
    pub(super) begun: Timestamp,
    /// The lowest and the highest time in the file, if a newer file records them.
    pub(super) times: Option<Times>,
}

/// The current time, as far as the records show it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Now {
    /// The time at which ages are measured.
    pub(super) at: Timestamp,
    /// The time of the newest record, if it is not trusted yet.
    pub(super) untrusted: Option<Timestamp>,
    /// Whether the records span a day without a jump. Then `at` is also the time for other chains.
    is_proven: bool,
}

impl Now {
    /// The time if no record shows one: nothing is old then.
    pub(super) const UNKNOWN: Self = Self { at: Timestamp::EARLIEST, untrusted: None, is_proven: false };

    /// Returns the time at which the segments of another chain are measured, whose newest file was
    /// begun at `begun`. `theirs` is the time that the records of that chain show.
    ///
    /// A chain that was just begun has no earlier records to check its clock against. The records
    /// of the other chain may come from the same wrong clock.
    pub(super) fn for_other(&self, begun: Timestamp, theirs: &Self) -> Timestamp {
        let at = if self.is_proven || self.at.since(begun) <= DAY { self.at } else { begun };
        if self.is_proven || theirs.untrusted.is_none() { at } else { at.min(theirs.at) }
    }
}

/// Returns the time that the records of a chain show. `files` are its files, newest first.
pub(super) fn now_of(storage: &Arc<dyn Storage>, files: &[CountedPart]) -> io::Result<Now> {
    let mut newest = None;
    // The time of the oldest record that was looked at so far.
    let mut next: Option<Timestamp> = None;
    for part in files {
        let newest_at = match newest {
            Some(at) => at,
            None => *newest.insert(newest_in(storage, part)?),
        };
        let is_old = |at: Timestamp| newest_at.since(at) >= DAY;
        let (lowest, highest) = part.times.unwrap_or((part.begun, Timestamp::LATEST));
        if !is_old(lowest) {
            next = Some(part.begun);
            continue;
        }
        // Within one day, no record can be more than a day later than another.
        let highest_behind = if is_old(highest) { next.unwrap_or(highest).max(highest) } else { highest };
        if highest_behind.since(lowest) <= DAY {
            return Ok(Now { at: newest_at, untrusted: None, is_proven: true });
        }
        let mut old = None;
        times_of(storage, part, |at| {
            if is_old(at) {
                old = Some(at);
                return ControlFlow::Break(());
            }
            next = Some(at);
            ControlFlow::Continue(())
        })?;
        let Some(before) = old else { continue };
        return Ok(if next.is_some_and(|next| next.since(before) > DAY) {
            Now { at: before, untrusted: Some(newest_at), is_proven: false }
        } else {
            Now { at: newest_at, untrusted: None, is_proven: true }
        });
    }
    Ok(newest.map_or(Now::UNKNOWN, |at| Now { at, untrusted: None, is_proven: false }))
}

/// Returns the time of the last record in a file. The first line is always one.
fn newest_in(storage: &Arc<dyn Storage>, part: &CountedPart) -> io::Result<Timestamp> {
    let mut newest = part.begun;
    times_of(storage, part, |at| {
        newest = at;
        ControlFlow::Break(())
    })?;
    Ok(newest)
}

/// Calls `each` with the times of the records in a file, newest first, until it breaks.
fn times_of(
    storage: &Arc<dyn Storage>,
    part: &CountedPart,
    each: impl FnMut(Timestamp) -> ControlFlow<()>,
) -> io::Result<()> {
    let opened = storage.open(Dir::Log, &part.name.to_string(), Access::Read);
    let name_of = |error| named(storage, part.name, &error);
    // Another process may remove the file meanwhile; then it no longer counts.
    let Some(file) = unless_gone(opened).map_err(name_of)? else { return Ok(()) };
    let end = match part.end {
        Some(end) => end,
        None => file.stat()?.bytes,
    };
    times_backward(file.as_ref(), end, each).map_err(name_of)
}
