//! The files of a log, for programs that search them themselves.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::SystemTime,
};

use super::{Reader, start::durable_by_itself};
use crate::{
    chain_reader::{Directory, Layout, SegmentFile},
    clock::Timestamp,
    error::Error,
    format::{Line, LineParser, Times},
    record::Record,
    segment_name::SegmentName,
    storage::{Dir, Storage},
};

/// A file of a log: how many of its bytes count, and the times of its records. For programs that search many segments
/// in parallel, or search for bytes before they parse records. [`Reader`] is simpler, and it follows the links of a
/// chain, which this does not.
#[derive(Debug, Clone)]
pub struct Segment {
    name: SegmentName,
    path: PathBuf,
    id: Option<String>,
    bytes: u64,
    counted: u64,
    first_seq: Option<u64>,
    first_at: Option<Timestamp>,
    times: Option<Times>,
    durable: u64,
}

/// Lists the segments of a log: chain by chain, in the order in which they were begun. Reads the first line of each
/// segment and the end of each chain. Works while other processes write, rotate and prune.
///
/// # Errors
///
/// [`Error::NoLog`] where there is no segment, [`Error::Io`] where one cannot be read.
pub fn segments(dir: impl AsRef<Path>) -> Result<Vec<Segment>, Error> {
    let dir = dir.as_ref();
    let storage = Reader::new(dir).storage()?;
    segments_of(&storage, dir)
}

/// Lists the segments of a log in any storage.
pub(super) fn segments_of(storage: &Arc<dyn Storage>, dir: &Path) -> Result<Vec<Segment>, Error> {
    let directory = Directory::list_without_holes(&**storage)?;
    if directory.chains.is_empty() {
        return Err(Error::NoLog { path: dir.to_owned() });
    }
    let mut all = Vec::new();
    for (chain, numbers) in &directory.chains {
        let layout = Layout::of(&**storage, *chain, numbers, None)?;
        let durable = durable_by_itself(&**storage, &layout.files)?;
        all.extend(layout.files.into_iter().map(|file| Segment::of(&**storage, &file, durable)));
    }
    Ok(all)
}

impl Segment {
    fn of(storage: &dyn Storage, file: &SegmentFile, durable: u64) -> Self {
        Self {
            name: file.name,
            path: storage.path(Dir::Log, &file.name.to_string()),
            id: file.id.map(|id| id.to_string()),
            bytes: file.bytes,
            counted: file.counted.map_or(file.bytes, |counted| counted.min(file.bytes)),
            first_seq: file.first_seq,
            first_at: file.first_at,
            times: file.times,
            durable,
        }
    }

    /// Returns the number of the chain, like [`Record::chain`].
    #[must_use]
    pub fn chain(&self) -> u16 {
        self.name.chain.get()
    }

    /// Returns the number of the segment, which is in its name.
    #[must_use]
    pub fn number(&self) -> u32 {
        self.name.segment
    }

    /// Returns the path of the file.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Returns the id of the chain: 32 digits, the same in all its segments. `None` if the first line does not state
    /// it.
    #[must_use]
    pub fn chain_id(&self) -> Option<&str> {
        self.id.as_deref()
    }

    /// Returns the length of the file when it was read.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Returns how many of its bytes count. The bytes behind them were never acknowledged, and a later segment voids
    /// them.
    #[must_use]
    pub fn counted_bytes(&self) -> u64 {
        self.counted
    }

    /// Returns the sequence number of its first record. `None` if the first line is not a valid `segment` line.
    #[must_use]
    pub fn first_seq(&self) -> Option<u64> {
        self.first_seq
    }

    /// Returns the time of its first record.
    #[must_use]
    pub fn first_time(&self) -> Option<SystemTime> {
        self.first_at.map(Timestamp::to_system_time)
    }

    /// Returns bounds of the times of its records, as the next segment states them. `None` for the newest segment of a
    /// chain, and if nothing of the segment counts.
    #[must_use]
    pub fn times(&self) -> Option<(SystemTime, SystemTime)> {
        self.times.map(|(from, to)| (from.to_system_time(), to.to_system_time()))
    }

    /// Returns the highest sequence number of this chain that the chain itself states to be durable. Records above it,
    /// all of them at the end of the newest segments, may be part of a torn tail: read these with a [`Reader`].
    #[must_use]
    pub fn durable(&self) -> u64 {
        self.durable
    }

    /// Parses a line of this segment that begins at this offset, given without its line feed. Returns `None` if it is
    /// not a line of the format, or does not match its own hash. The line itself does not state whether the record is
    /// [`unconfirmed`](Record::is_unconfirmed).
    #[must_use]
    pub fn record(&self, offset: u64, line: &[u8]) -> Option<Record> {
        let line = LineParser::default().parse(line).ok().filter(Line::hash_is_right)?;
        Record::of(self.name, offset, &line, self.durable)
    }
}
