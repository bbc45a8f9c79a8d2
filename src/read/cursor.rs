//! Reads one chain from its older records to its newer ones.
//!
//! A reader that follows the log makes a series of passes. Each goes to the end of what exists, and the next begins
//! where the last one ended.

use std::collections::VecDeque;

use super::{
    ahead::Ahead,
    item::ReadItem,
    next::{Direction, Next},
    start::{StartPosition, durable_by_itself},
};
use crate::{
    chain::Head,
    chain_reader::{
        ChainBytes, Chunk, Follow, Layout, LayoutFromEnd, Part, ReadPosition, ResumePoint, SegmentFile,
        lines_between, log_path, open_segment,
    },
    clock::Timestamp,
    error::Error,
    format::{ChainId, Line, LineParser, seq_of},
    record::Record,
    segment_name::{ChainNumber, SegmentName},
    storage::{Dir, Storage},
};

/// How many earlier files are remembered, with how far they were read: a later segment may declare them void in part.
const MAX_PASSED: usize = 64;

/// Which records of a chain are wanted.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Wanted {
    /// Only records that are known to be durable.
    pub(super) durable_only: bool,
    /// Only records from this number on.
    pub(super) from_seq: u64,
    /// Only records of this time and later.
    pub(super) since: Option<Timestamp>,
    /// Whether another pass follows at the end of this one.
    pub(super) follows: bool,
}

impl Wanted {
    /// Returns whether this record is wanted.
    pub(super) fn has(&self, record: &Record) -> bool {
        record.seq() >= self.from_seq
            && !(self.durable_only && record.is_provisional())
            && self.since.is_none_or(|since| record.at().is_none_or(|at| at >= since))
    }
}

/// A position in the files of a chain: the end of what was returned.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct FilePosition {
    /// 0 if nothing was returned yet.
    pub(super) segment: u32,
    pub(super) offset: u64,
}

/// The state of a chain that is read forward.
#[derive(Debug)]
pub(super) struct Cursor {
    index: usize,
    wanted: Wanted,
    files: Vec<SegmentFile>,
    /// The id of the chain, once it was read.
    id: Option<ChainId>,
    /// The last record known to be durable.
    durable: u64,
    /// The last record known to be durable from elsewhere.
    trusted: u64,
    follow: Follow,
    position: ReadPosition,
    parser: LineParser,
    /// The chunk that is being returned, its offset in the file, and the offset of the next line in it.
    chunk: Vec<u8>,
    offset: u64,
    at: usize,
    /// Whether reading began in the middle of the file, so that the lines before are not counted.
    began_inside: bool,
    /// How many lines of the file precede the counted ones, once that was needed.
    lines_before: Option<u64>,
    /// The time of the last record, which also stands for a following record without a time.
    last: Timestamp,
    state: State,
    ahead: Ahead,
    /// A record that must exist before the first one that is returned.
    must_have: Option<Head>,
    /// The sequence number that follows the last record that was returned.
    expected: Option<u64>,
    /// The items to return before the next record.
    before: Vec<ReadItem>,
    /// Where the next pass begins.
    returned: FilePosition,
    resume_point: ResumePoint,
    /// How far the earlier files were read.
    passed: VecDeque<FilePosition>,
    /// The files that existed when the pass began, and the length of the first.
    seen: Option<(Vec<u32>, u64)>,
}

/// The state of a pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Reading,
    AtEnd,
    /// The file system returned an error.
    Failed,
    /// The chain does not have the record that it must have, so there is no other pass.
    Over,
}

impl Cursor {
    /// Begins to read a chain. With `after`, the chain must have that record, or must have had it.
    pub(super) fn new(
        index: usize,
        chain: ChainNumber,
        start: StartPosition,
        wanted: Wanted,
        after: Option<Head>,
    ) -> (Self, LayoutFromEnd) {
        let StartPosition { mut files, offset, durable, older } = start;
        pass_over_empty(&mut files);
        let behind = after.map(|head| head.seq.saturating_add(1));
        let is_there = |file: &SegmentFile| file.first_seq.is_some_and(|first| first <= wanted.from_seq);
        let mut cursor = Self {
            index,
            wanted,
            durable,
            trusted: after.map_or(0, |head| head.seq),
            follow: Follow::new(chain),
            position: ReadPosition::default(),
            parser: LineParser::default(),
            chunk: Vec::new(),
            offset: 0,
            at: 0,
            began_inside: false,
            lines_before: None,
            last: Timestamp::from_unix(i64::MIN, 0),
            state: State::Reading,
            ahead: Ahead::default(),
            must_have: after,
            // From a position inside a damaged file, records may be skipped without a gap.
            expected: behind.or_else(|| files.first().is_some_and(is_there).then_some(wanted.from_seq)),
            id: id_in(&files),
            files,
            before: Vec::new(),
            returned: FilePosition::default(),
            resume_point: ResumePoint::default(),
            passed: VecDeque::new(),
            seen: None,
        };
        cursor.returned.segment = cursor.files.first().map_or(0, |file| file.name.segment);
        cursor.returned.offset = offset;
        cursor.begin(0);
        (cursor, older)
    }

    /// Marks a chain that began while others were read: what retention already removed of it is a gap.
    pub(super) fn expect_the_first(&mut self) {
        // With a start time, what precedes it was not read.
        self.expected = self.wanted.since.is_none().then(|| self.wanted.from_seq.max(1));
    }

    pub(super) fn chain(&self) -> ChainNumber {
        self.follow.chain
    }

    pub(super) fn id(&self) -> Option<ChainId> {
        self.id
    }

    /// Treats a record and all before it as durable, on the word of the caller.
    pub(super) fn trust(&mut self, seq: u64) {
        if seq > self.durable.max(self.trusted) {
            // The record may exist already, so the next look must read even if no file has changed.
            self.seen = None;
        }
        self.trusted = self.trusted.max(seq);
        self.durable = self.durable.max(seq);
    }

    /// Returns the end of what was returned.
    pub(super) fn returned(&self) -> FilePosition {
        self.returned
    }

    pub(super) fn durable(&self) -> u64 {
        self.durable
    }

    pub(super) fn into_files(self) -> Vec<SegmentFile> {
        self.files
    }

    /// Begins a pass with a file. If it is the file that was read last, it begins behind what was read.
    fn begin(&mut self, file: usize) {
        let name = self.files.get(file).map(|file| file.name);
        let offset = if name.is_some_and(|name| name.segment == self.returned.segment) {
            self.returned.offset
        } else {
            0
        };
        if let Some(name) = name.filter(|_| offset > 0 && self.follow.start.is_none()) {
            self.follow.begin_file(name);
            // Any number but 0: this is not the first line.
            self.follow.line = 1;
            self.began_inside = true;
            self.lines_before = None;
        }
        self.position = ReadPosition::at(file, offset);
        self.chunk.clear();
        self.at = 0;
        self.state = State::Reading;
    }

    /// Lists the files again, and begins a pass if there is more than at the last look. Returns whether it does.
    pub(super) fn look_again(&mut self, storage: &dyn Storage, numbers: &[u32]) -> Result<bool, Error> {
        let numbers: Vec<u32> =
            numbers.iter().copied().filter(|number| *number >= self.returned.segment).collect();
        if self.state == State::Over || numbers.is_empty() || self.has_seen(storage, &numbers)? {
            return Ok(false);
        }
        let known = self.files.iter().find(|file| file.name.segment == self.returned.segment);
        let layout = Layout::of(storage, self.chain(), &numbers, known)?;
        let current = layout.files.first().filter(|file| file.name.segment == self.returned.segment);
        let length = current.map_or(0, |file| file.bytes);
        let is_cut =
            current.is_some_and(|file| file.counted.is_some_and(|counted| counted < self.returned.offset));
        let is_withdrawn = is_cut
            || layout.absent.iter().any(|claim| {
                let is_named =
                    |passed: &&FilePosition| (claim.from..=claim.segment).contains(&passed.segment);
                let read = self.passed.iter().chain([&self.returned]);
                read.filter(is_named).any(|passed| claim.bytes < passed.offset)
            });
        let durable = durable_by_itself(storage, &layout.files)?;
        // A `close` that was treated as durable may be withdrawn.
        self.durable = if is_withdrawn { durable.max(self.trusted) } else { durable.max(self.durable) };
        self.files = layout.files;
        self.id = self.id.or_else(|| id_in(&self.files));
        pass_over_empty(&mut self.files);
        self.seen = Some((numbers, length));
        // What counts of a cut file was returned already, so the next file is read.
        let first = usize::from(is_cut);
        if is_withdrawn {
            self.withdraw(first);
        } else {
            self.follow = Follow::resume(self.chain(), self.resume_point);
        }
        self.begin(first);
        Ok(true)
    }

    /// Returns whether nothing has changed since the last look.
    fn has_seen(&self, storage: &dyn Storage, numbers: &[u32]) -> Result<bool, Error> {
        let Some((files, length)) = self.seen.as_ref().filter(|_| self.state != State::Failed) else {
            return Ok(false);
        };
        let [segment] = *numbers else { return Ok(false) };
        if *files != [segment] || segment != self.returned.segment {
            return Ok(false);
        }
        let name = SegmentName { chain: self.chain(), segment }.to_string();
        let stat =
            storage.stat(Dir::Log, &name).map_err(Error::io("look at", storage.path(Dir::Log, &name)))?;
        // A new segment would be another file, so a single file of the same length is unchanged.
        Ok(stat.is_some_and(|stat| stat.bytes == *length))
    }

    /// Discards the state that a new segment declares void, and continues with this file.
    fn withdraw(&mut self, first: usize) {
        self.passed.clear();
        self.follow = Follow::new(self.chain());
        self.resume_point = ResumePoint::default();
        let segment = self.files.get(first).map_or(self.returned.segment, |file| file.name.segment);
        self.returned = FilePosition { segment, offset: 0 };
        self.began_inside = false;
        self.ahead.forget();
        // The records that replace the withdrawn ones are wanted too, even below the first number asked for.
        if self.expected.is_some_and(|expected| expected > self.wanted.from_seq) {
            self.wanted.from_seq = 0;
        }
    }

    /// Returns the next record. After an error, reading continues behind what was wrong, unless that was a file.
    pub(super) fn next(&mut self, storage: &dyn Storage) -> Option<Result<Next, Error>> {
        loop {
            // A record waits until a later line can state whether it was refused. At the end it is returned without
            // that.
            while !self.ahead.is_ready() {
                let Some(next) = self.read_next(storage) else { break };
                self.ahead.push(next);
            }
            match self.ahead.pop() {
                Some(Ok(mut next)) => {
                    if self.may_hand_out(&mut next) {
                        return Some(Ok(next));
                    }
                }
                Some(Err(error)) => return Some(Err(error)),
                None => return self.missing(storage).map(Err),
            }
        }
    }

    /// Returns whether a record is wanted, and queues the items that belong between it and the one before it.
    fn may_hand_out(&mut self, next: &mut Next) -> bool {
        let seq = next.record.seq();
        if seq < self.wanted.from_seq || self.wanted.durable_only && next.record.is_provisional() {
            return false;
        }
        let (chain, first_seq) = (next.record.chain(), self.expected.unwrap_or(seq));
        if first_seq < seq {
            self.before.push(ReadItem::Gap { chain, first_seq, last_seq: seq - 1 });
        } else if first_seq > seq {
            self.before.push(ReadItem::Withdrawn { chain, from_seq: seq });
        }
        self.expected = Some(seq.saturating_add(1));
        let has = self.wanted.has(&next.record);
        if has {
            next.before = std::mem::take(&mut self.before);
        }
        has
    }

    /// Returns the error for a record that the chain must have and does not have at its end.
    fn missing(&mut self, storage: &dyn Storage) -> Option<Error> {
        if self.state == State::Failed {
            return None;
        }
        let head = self.must_have.take()?;
        self.state = State::Over;
        Some(Error::NoSuchRecord { path: log_path(storage), head })
    }

    fn read_next(&mut self, storage: &dyn Storage) -> Option<Result<Next, Error>> {
        while self.state == State::Reading {
            // Taken out of `self` while a line in it is borrowed.
            let chunk = std::mem::take(&mut self.chunk);
            let (_, rest) = chunk.split_at(self.at);
            let Some(end) = memchr::memchr(b'\n', rest) else {
                self.chunk = chunk;
                match self.next_chunk(storage) {
                    Ok(None) => continue,
                    Ok(Some(bad)) => return Some(Err(bad)),
                    Err(error) => {
                        self.state = State::Failed;
                        return Some(Err(error));
                    }
                }
            };
            let (line, _) = rest.split_at(end);
            // The line is left for the next pass, when it may be durable.
            if self.wanted.durable_only && self.is_beyond(line) {
                self.state = State::AtEnd;
                return None;
            }
            let offset = self.offset + self.at as u64;
            self.at += end + 1;
            let record = self.record(line, offset);
            self.chunk = chunk;
            if self.state == State::Over {
                return self.missing(storage).map(Err);
            }
            if self.ends_here() {
                return None;
            }
            self.set_returned(self.offset + self.at as u64);
            return Some(match record {
                Some(record) => Ok(self.with_merge_time(record)),
                None => Err(self.bad_line(storage, offset)),
            });
        }
        None
    }

    /// Returns whether a line is behind the durable part. A line with too high a number among others is judged as
    /// usual.
    fn is_beyond(&self, line: &[u8]) -> bool {
        let follow = &self.follow;
        let next = follow.next.saturating_add(follow.holes);
        let is_later = follow.later_format.is_some();
        let may_end = follow.line == 0 || follow.start.is_none() || next > self.durable || is_later;
        may_end && seq_of(line).is_some_and(|seq| seq > self.durable)
    }

    /// Returns the record in a line, if it is one and belongs there.
    fn record(&mut self, line: &[u8], offset: u64) -> Option<Record> {
        let parsed = self.parser.parse(line);
        let is_next = self.follow.one_line(parsed, offset);
        self.follow.controls.clear();
        // Lines of a later format are returned as far as they can be read.
        let is_later = self.follow.later_format.is_some();
        let line = parsed.ok().filter(|line| is_next || is_later && line.hash_is_right())?;
        self.ahead.note(&line);
        if self.must_have.is_some_and(|head| contradicts(head, &line)) {
            self.state = State::Over;
            return None;
        }
        // Once this record or a later one was read, it is no longer required.
        self.must_have = self.must_have.filter(|head| line.seq < head.seq);
        let name = SegmentName { chain: self.chain(), segment: self.follow.segment() };
        Record::of(name, offset, &line, self.durable)
    }

    fn with_merge_time(&mut self, record: Record) -> Next {
        // Within a chain the order is `seq`, whatever the clock did.
        self.last = record.at().unwrap_or(self.last).max(self.last);
        Next { at: self.last, chain: self.index, direction: Direction::Forward, before: Vec::new(), record }
    }

    /// Takes in that everything before this offset was returned.
    fn set_returned(&mut self, offset: u64) {
        let segment = self.follow.segment();
        if segment != self.returned.segment {
            self.passed.push_back(self.returned);
            if self.passed.len() > MAX_PASSED {
                self.passed.pop_front();
            }
        }
        self.returned = FilePosition { segment, offset };
        if self.wanted.follows {
            self.resume_point = self.follow.resume_point();
        }
    }

    /// Reads the next part of the files. Returns an error for bytes that cannot be a record, and `None` otherwise,
    /// even after a part without any record.
    fn next_chunk(&mut self, storage: &dyn Storage) -> Result<Option<Error>, Error> {
        self.at = 0;
        let mut source = ChainBytes::resume(storage, &self.files, std::mem::take(&mut self.position));
        source.reuse(std::mem::take(&mut self.chunk));
        let part = source.next();
        self.position = source.suspend();
        match part? {
            None => self.state = State::AtEnd,
            Some(Part::Begin(name)) => {
                self.follow.begin_file(name);
                self.began_inside = false;
            }
            Some(Part::Counted(Chunk::Lines { offset, bytes })) => {
                (self.offset, self.chunk) = (offset, bytes);
            }
            Some(Part::Counted(
                ref bad @ (Chunk::Overlong { offset, length } | Chunk::Unfinished { offset, length }),
            )) => {
                self.follow.bad_bytes(offset, length, matches!(bad, Chunk::Unfinished { .. }));
                if self.ends_here() {
                    return Ok(None);
                }
                self.set_returned(offset + length);
                return Ok(Some(self.bad_line(storage, offset)));
            }
            Some(Part::TooShort { .. } | Part::Void(_)) => {}
        }
        Ok(None)
    }

    /// Returns whether the chain ends at what was just read: an anomaly that was never durable, and no later segment
    /// was begun behind it. Files that never got their first line do not count as begun.
    fn ends_here(&mut self) -> bool {
        let is_torn = self.follow.anomalies.take_lowest_new().is_some_and(|at| at > self.durable);
        let is_last =
            || self.files.iter().skip(self.position.file() + 1).all(|file| file.first_seq.is_none());
        if is_torn && is_last() {
            self.state = State::AtEnd;
        }
        self.state != State::Reading
    }

    fn bad_line(&mut self, storage: &dyn Storage, offset: u64) -> Error {
        let Some(name) = self.files.get(self.position.file()).map(|file| file.name) else {
            return Error::BadLine { path: log_path(storage), line: self.follow.line };
        };
        if self.began_inside && self.lines_before.is_none() {
            match number_of(storage, name, offset) {
                Ok(number) => self.lines_before = Some(number.saturating_sub(self.follow.line)),
                Err(error) => return error,
            }
        }
        let before = self.lines_before.filter(|_| self.began_inside).unwrap_or(0);
        Error::BadLine {
            path: storage.path(Dir::Log, &name.to_string()),
            line: before.saturating_add(self.follow.line),
        }
    }
}

fn id_in(files: &[SegmentFile]) -> Option<ChainId> {
    files.iter().find_map(|file| file.id)
}

/// Leaves files that were empty when they were listed to the next look. When such a file gets its first line, that
/// line may state that less of the earlier files counts.
fn pass_over_empty(files: &mut [SegmentFile]) {
    for file in files.iter_mut().filter(|file| file.bytes == 0) {
        file.counted = Some(0);
    }
}

/// Returns whether a line shows that the chain has a different record from this head. If the record was pruned, no line
/// shows anything.
fn contradicts(head: Head, line: &Line<'_>) -> bool {
    line.seq == head.seq && line.hash != head.hash
        || line.seq.checked_sub(1) == Some(head.seq) && line.previous != head.hash
}

/// Returns the number of the line at an offset of a file, counted from 1.
fn number_of(storage: &dyn Storage, name: SegmentName, offset: u64) -> Result<u64, Error> {
    let Some(open) = open_segment(storage, name)? else { return Ok(1) };
    lines_between(&*open, 0, offset)
        .map(|before| before + 1)
        .map_err(|error| Error::io("read", storage.path(Dir::Log, &name.to_string()))(error))
}
