//! The files of a log, as those see them who search it themselves.

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

/// A file of a log: how many of its bytes count, and which times its records have. For programs that search many
/// segments at the same time, or look for bytes before they look at records: [`Reader`] is simpler, and follows
/// the links of a chain, which this does not.
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

/// Lists the segments of a log: chain by chain, in the order in which they were begun. Reads the first line of each, and
/// the end of each chain. Works while other processes write, rotate and prune.
///
/// # Errors
///
/// [`Error::NoLog`] where there is no segment, [`Error::Io`] where one cannot be read.
pub fn segments(dir: impl AsRef<Path>) -> Result<Vec<Segment>, Error> {
    let dir = dir.as_ref();
    let storage = Reader::new(dir).storage()?;
    segments_of(&storage, dir)
}

/// The same wherever the log is stored.
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

    /// The number of the chain, as [`Record::chain`] gives it.
    #[must_use]
    pub fn chain(&self) -> u16 {
        self.name.chain.get()
    }

    /// The number of the segment, which is in its name.
    #[must_use]
    pub fn number(&self) -> u32 {
        self.name.segment
    }

    /// Where the file is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The id of the chain: 32 digits, the same in all its segments. `None` where the first line does not say it.
    #[must_use]
    pub fn chain_id(&self) -> Option<&str> {
        self.id.as_deref()
    }

    /// The length of the file when it was looked at.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// How many of its bytes count. What stands behind them was never acknowledged, and a later segment voids it.
    #[must_use]
    pub fn counted_bytes(&self) -> u64 {
        self.counted
    }

    /// The number of its first record. `None` where the first line is no line that begins a segment.
    #[must_use]
    pub fn first_seq(&self) -> Option<u64> {
        self.first_seq
    }

    /// The time of its first record.
    #[must_use]
    pub fn first_time(&self) -> Option<SystemTime> {
        self.first_at.map(Timestamp::to_system_time)
    }

    /// Bounds of the times of its records, as the segment behind it says them. `None` for the newest segment of a chain,
    /// and where nothing of it counts.
    #[must_use]
    pub fn times(&self) -> Option<(SystemTime, SystemTime)> {
        self.times.map(|(from, to)| (from.to_system_time(), to.to_system_time()))
    }

    /// The highest number of a record of this chain that the chain itself says is durable. Records above it, all of them
    /// at the end of the newest segments, may be part of a torn tail: read these with a [`Reader`].
    #[must_use]
    pub fn durable(&self) -> u64 {
        self.durable
    }

    /// Reads a line of this segment, given without its line feed, that begins at this offset. `None` where it is no
    /// line of the format, or does not match its own hash. Whether it is
    /// [`unconfirmed`](Record::is_unconfirmed) a line does not say of itself.
    #[must_use]
    pub fn record(&self, offset: u64, line: &[u8]) -> Option<Record> {
        let line = LineParser::default().parse(line).ok().filter(Line::hash_is_right)?;
        Record::of(self.name, offset, &line, self.durable)
    }
}
