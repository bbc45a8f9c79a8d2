//! Finds the position at which reading a chain begins, without reading what precedes it.

use std::time::Duration;

use crate::{
    chain_reader::{LayoutFromEnd, SegmentFile, last_mark, open_segment, seek_line},
    clock::Timestamp,
    error::Error,
    segment_name::{ChainNumber, SegmentName},
    storage::{Dir, Storage},
};

/// By how much the times of a chain may go back, because a clock is set or threads take turns. If they never go back by
/// more, then a line that is older than a time by this much is preceded only by lines older than that time.
pub(super) const CLOCK_STEP: Duration = Duration::from_secs(600);

/// The record of a chain with which to begin.
#[derive(Debug, Clone, Copy)]
pub(super) enum From {
    Beginning,
    /// The record with this number, or one before it.
    Seq(u64),
    /// A record before the first one that can have this time or a later one.
    Time(Timestamp),
}

/// The position at which to begin.
#[derive(Debug)]
pub(super) struct StartPosition {
    /// The files from the first one to read on.
    pub(super) files: Vec<SegmentFile>,
    /// The offset in the first file.
    pub(super) offset: u64,
    /// The last record known to be durable.
    pub(super) durable: u64,
    /// The files before them.
    pub(super) older: LayoutFromEnd,
}

impl StartPosition {
    /// Finds the position. Files are examined from the newest one backward, and no more of them than needed. `trusted`
    /// is known to be durable from elsewhere. What is not durable is always read, because only from there can the
    /// start of a torn tail be determined.
    pub(super) fn find(
        storage: &dyn Storage,
        chain: ChainNumber,
        numbers: &[u32],
        from: From,
        trusted: u64,
    ) -> Result<Self, Error> {
        let mut older = LayoutFromEnd::new(chain, numbers);
        let mut mark = None;
        let mut offset = 0;
        while let Some(file) = older.older(storage)? {
            if file.counted == Some(0) {
                continue;
            }
            if mark.is_none() {
                mark = mark_in(storage, file)?;
            }
            // Without a mark nothing is known to be durable yet, so older files are needed too.
            let Some(durable) = mark.map(|mark| mark.max(trusted)) else { continue };
            let is_before = |seq: u64, at: Option<Timestamp>| match from {
                From::Beginning => false,
                From::Seq(first) => seq < first.min(durable),
                From::Time(first) => seq < durable && at.is_some_and(|at| first.since(at) > CLOCK_STEP),
            };
            if file.first_seq.is_some_and(|seq| is_before(seq, file.first_at)) {
                let end = file.counted.map_or(file.bytes, |counted| counted.min(file.bytes));
                offset = seek(storage, file.name, end, is_before)?;
                break;
            }
        }
        let durable = mark.unwrap_or(0).max(trusted);
        Ok(Self { files: older.take_files(), offset, durable, older })
    }
}

fn seek(
    storage: &dyn Storage,
    name: SegmentName,
    end: u64,
    is_before: impl Fn(u64, Option<Timestamp>) -> bool,
) -> Result<u64, Error> {
    let Some(open) = open_segment(storage, name)? else { return Ok(0) };
    seek_line(&*open, end, |line| is_before(line.seq, line.at()))
        .map_err(|error| Error::io("read", storage.path(Dir::Log, &name.to_string()))(error))
}

/// Returns the highest record that a file states to be durable. Only the bytes that it had when its first line was
/// read are considered. A mark after the first line of a newer segment says nothing about how much of the earlier
/// files counts.
pub(super) fn mark_in(storage: &dyn Storage, file: &SegmentFile) -> Result<Option<u64>, Error> {
    let Some(open) = open_segment(storage, file.name)? else { return Ok(None) };
    let end = open.stat().map(|stat| file.counted.unwrap_or(file.bytes).min(file.bytes).min(stat.bytes));
    end.and_then(|end| last_mark(&*open, end))
        .map_err(|error| Error::io("read", storage.path(Dir::Log, &file.name.to_string()))(error))
}

/// Returns the highest record that the chain states to be durable, searching from its end.
pub(super) fn durable_by_itself(storage: &dyn Storage, files: &[SegmentFile]) -> Result<u64, Error> {
    for file in files.iter().rev().filter(|file| file.counted != Some(0)) {
        if let Some(mark) = mark_in(storage, file)? {
            return Ok(mark);
        }
    }
    Ok(0)
}
