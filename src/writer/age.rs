//! What time it is where the age of segments matters: what the records say, and no clock that was set wrong.
//!
//! A clock that is years ahead at one start would make everything look old. So a record that is over a day later than
//! the one before it is not believed until records span a day beyond it; until then it is as late as it was before. That
//! is decided from the records alone, and so the same after every restart.

use std::{io, ops::ControlFlow, sync::Arc, time::Duration};

use super::old_segments::{named, unless_gone};
use crate::{
    chain_reader::times_backward,
    clock::Timestamp,
    format::Times,
    segment_name::SegmentName,
    storage::{Access, Dir, Storage},
};

/// How much later than the one before it a record can be and be believed, and how long what follows it must span where
/// it is not.
pub(super) const DAY: Duration = Duration::from_secs(24 * 3600);

/// What counts of one file of a chain.
#[derive(Debug, Clone, Copy)]
pub(super) struct Stretch {
    pub(super) name: SegmentName,
    /// How many bytes count, where a newer file says so.
    pub(super) end: Option<u64>,
    /// The time of the first line.
    pub(super) begun: Timestamp,
    /// The lowest and the highest time in it, where a newer file says so.
    pub(super) times: Option<Times>,
}

/// How late it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Now {
    /// The time at which ages are measured.
    pub(super) at: Timestamp,
    /// The time of the newest record, where that is not believed yet.
    pub(super) unbelieved: Option<Timestamp>,
    /// Whether the records span a day without a jump: then it is the time for other chains too.
    is_proven: bool,
}

impl Now {
    /// Where no record says anything nothing is old.
    pub(super) const UNKNOWN: Self = Self { at: Timestamp::EARLIEST, unbelieved: None, is_proven: false };

    /// The time at which the segments of another chain are measured, whose newest file was begun then. A chain that was
    /// just begun knows no time before its own, and so not whether its clock is right; and `theirs`, what the records of
    /// that chain say, may be of the same wrong clock.
    pub(super) fn for_other(&self, begun: Timestamp, theirs: &Self) -> Timestamp {
        let at = if self.is_proven || self.at.since(begun) <= DAY { self.at } else { begun };
        if self.is_proven || theirs.unbelieved.is_none() { at } else { at.min(theirs.at) }
    }
}

/// What the records of a chain say, whose files are given, the newest first.
pub(super) fn now_of(storage: &Arc<dyn Storage>, files: &[Stretch]) -> io::Result<Now> {
    let mut newest = None;
    // The time of the record behind the files that were looked at.
    let mut next: Option<Timestamp> = None;
    for stretch in files {
        let newest_at = match newest {
            Some(at) => at,
            None => *newest.insert(newest_in(storage, stretch)?),
        };
        let is_old = |at: Timestamp| newest_at.since(at) >= DAY;
        let (lowest, highest) = stretch.times.unwrap_or((stretch.begun, Timestamp::LATEST));
        if !is_old(lowest) {
            next = Some(stretch.begun);
            continue;
        }
        // Within a day no record is over a day later than another.
        let highest_behind = if is_old(highest) { next.unwrap_or(highest).max(highest) } else { highest };
        if highest_behind.since(lowest) <= DAY {
            return Ok(Now { at: newest_at, unbelieved: None, is_proven: true });
        }
        let mut old = None;
        times_of(storage, stretch, |at| {
            if is_old(at) {
                old = Some(at);
                return ControlFlow::Break(());
            }
            next = Some(at);
            ControlFlow::Continue(())
        })?;
        let Some(before) = old else { continue };
        return Ok(if next.is_some_and(|next| next.since(before) > DAY) {
            Now { at: before, unbelieved: Some(newest_at), is_proven: false }
        } else {
            Now { at: newest_at, unbelieved: None, is_proven: true }
        });
    }
    Ok(newest.map_or(Now::UNKNOWN, |at| Now { at, unbelieved: None, is_proven: false }))
}

/// The time of the last record in a file; at least its first line is one.
fn newest_in(storage: &Arc<dyn Storage>, stretch: &Stretch) -> io::Result<Timestamp> {
    let mut newest = stretch.begun;
    times_of(storage, stretch, |at| {
        newest = at;
        ControlFlow::Break(())
    })?;
    Ok(newest)
}

fn times_of(
    storage: &Arc<dyn Storage>,
    stretch: &Stretch,
    each: impl FnMut(Timestamp) -> ControlFlow<()>,
) -> io::Result<()> {
    let opened = storage.open(Dir::Log, &stretch.name.to_string(), Access::Read);
    let name_of = |error| named(storage, stretch.name, &error);
    // What another process removes meanwhile says nothing any more.
    let Some(file) = unless_gone(opened).map_err(name_of)? else { return Ok(()) };
    let end = match stretch.end {
        Some(end) => end,
        None => file.stat()?.bytes,
    };
    times_backward(file.as_ref(), end, each).map_err(name_of)
}
