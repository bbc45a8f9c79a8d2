//! One chain on its way through a reader.

use std::{
    cmp::Ordering,
    collections::{BTreeMap, VecDeque},
};

use crate::{
    chain_reader::{Follow, Layout, Part, Piece, SegmentFile, Source, SourcePlace, last_mark, open_segment},
    clock::Timestamp,
    error::Error,
    format::{Line, LineParser, RecordKind, read_unconfirmed},
    record::Record,
    segment_name::ChainNumber,
    storage::{Dir, Storage},
};

/// The next record of a chain, ordered so that a heap has the earliest on top.
#[derive(Debug)]
pub(super) struct Head {
    at: Timestamp,
    pub(super) cursor: usize,
    pub(super) record: Record,
}

impl Ord for Head {
    fn cmp(&self, other: &Self) -> Ordering {
        (other.at, other.cursor).cmp(&(self.at, self.cursor))
    }
}

impl PartialOrd for Head {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Head {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Head {}

/// Where a chain is being read.
#[derive(Debug)]
pub(super) struct Cursor {
    index: usize,
    files: Vec<SegmentFile>,
    /// The last record known to be durable.
    durable: u64,
    follow: Follow,
    place: SourcePlace,
    parser: LineParser,
    /// The piece that is being handed out, where it stands in its file, and where in it the next line begins.
    piece: Vec<u8>,
    offset: u64,
    at: usize,
    /// The time of the last record: one without a time follows at once.
    last: Timestamp,
    is_at_end: bool,
    ahead: Ahead,
}

/// What was read and not handed out yet: whether a record was refused stands behind it, at the latest where a mark says
/// that it is durable.
#[derive(Debug, Default)]
struct Ahead {
    read: VecDeque<Result<Head, Error>>,
    bytes: usize,
    /// The highest mark so far.
    mark: u64,
    /// Whether what was read last names refused records: another such line may follow.
    is_naming: bool,
    /// First and last numbers of refused records.
    refused: BTreeMap<u64, u64>,
}

/// How much is read ahead at most. A writer has no more that is not durable, unless its queue is set to more.
const MAX_AHEAD: usize = 32 << 20;

/// What something that was read takes, roughly.
fn length(next: &Result<Head, Error>) -> usize {
    next.as_ref().map_or(256, |head| head.record.length())
}

impl Ahead {
    /// Takes in what a line says of others.
    fn note(&mut self, line: &Line<'_>) {
        self.mark = self.mark.max(line.durable.unwrap_or(0));
        self.is_naming = line.kind == RecordKind::Unconfirmed;
        if !self.is_naming {
            return;
        }
        let named = line.detail.and_then(read_unconfirmed).filter(|named| named.chain.is_none());
        for (first, last) in named.into_iter().flat_map(|named| named.records) {
            let known = self.refused.entry(first).or_insert(last);
            *known = last.max(*known);
        }
    }

    /// Whether enough was read to hand out the next.
    fn is_ready(&self) -> bool {
        match self.read.front() {
            Some(Ok(head)) => head.record.seq() <= self.mark && !self.is_naming || self.bytes > MAX_AHEAD,
            Some(Err(_)) => true,
            None => false,
        }
    }

    fn push(&mut self, next: Result<Head, Error>) {
        self.bytes += length(&next);
        self.read.push_back(next);
    }

    fn pop(&mut self) -> Option<Result<Head, Error>> {
        let mut next = self.read.pop_front()?;
        self.bytes -= length(&next);
        if let Ok(head) = &mut next {
            let seq = head.record.seq();
            while self.refused.first_key_value().is_some_and(|(_, last)| *last < seq) {
                self.refused.pop_first();
            }
            if self.refused.range(..=seq).any(|(_, last)| *last >= seq) {
                head.record.set_unconfirmed();
            }
        }
        Some(next)
    }
}

impl Cursor {
    pub(super) fn new(
        storage: &dyn Storage,
        chain: ChainNumber,
        numbers: &[u32],
        index: usize,
    ) -> Result<Self, Error> {
        let files = Layout::of(storage, chain, numbers, None)?.files;
        let durable = durable_by_itself(storage, &files)?;
        Ok(Self {
            index,
            files,
            durable,
            follow: Follow::new(chain),
            place: SourcePlace::default(),
            parser: LineParser::default(),
            piece: Vec::new(),
            offset: 0,
            at: 0,
            last: Timestamp::from_unix(i64::MIN, 0),
            is_at_end: false,
            ahead: Ahead::default(),
        })
    }

    /// The next record. After an error it goes on behind what was wrong, unless that was a file.
    pub(super) fn next(&mut self, storage: &dyn Storage) -> Option<Result<Head, Error>> {
        while !self.ahead.is_ready() {
            let Some(next) = self.read_next(storage) else { break };
            self.ahead.push(next);
        }
        self.ahead.pop()
    }

    fn read_next(&mut self, storage: &dyn Storage) -> Option<Result<Head, Error>> {
        while !self.is_at_end {
            // Taken out while a line of it is looked at.
            let piece = std::mem::take(&mut self.piece);
            let (_, rest) = piece.split_at(self.at);
            let Some(end) = memchr::memchr(b'\n', rest) else {
                self.piece = piece;
                match self.next_piece(storage) {
                    Ok(None) => continue,
                    Ok(Some(bad)) => return Some(Err(bad)),
                    Err(error) => {
                        self.is_at_end = true;
                        return Some(Err(error));
                    }
                }
            };
            let (line, _) = rest.split_at(end);
            let offset = self.offset + self.at as u64;
            self.at += end + 1;
            let record = self.record(line, offset);
            self.piece = piece;
            if self.ends_here() {
                return None;
            }
            return Some(match record {
                Some(record) => Ok(self.head(record)),
                None => Err(self.bad_line(storage)),
            });
        }
        None
    }

    /// The record in a line, if it is one and belongs there.
    fn record(&mut self, line: &[u8], offset: u64) -> Option<Record> {
        let parsed = self.parser.parse(line);
        let is_next = self.follow.one_line(parsed, offset);
        self.follow.said.clear();
        // What a later version wrote is handed out as far as it can be read.
        let is_later = self.follow.later_format.is_some();
        let line = parsed.ok().filter(|line| is_next || is_later && line.hash_is_right())?;
        self.ahead.note(&line);
        Record::of(self.follow.chain, &line, self.durable)
    }

    fn head(&mut self, record: Record) -> Head {
        // Inside a chain the order is `seq`, whatever the clock did.
        self.last = record.at().unwrap_or(self.last).max(self.last);
        Head { at: self.last, cursor: self.index, record }
    }

    /// Reads on; returns what cannot be a record in it.
    fn next_piece(&mut self, storage: &dyn Storage) -> Result<Option<Error>, Error> {
        self.at = 0;
        // A chain can have pieces that count nothing, so this is said again and again.
        let mut source = Source::resume(storage, &self.files, std::mem::take(&mut self.place));
        source.reuse(std::mem::take(&mut self.piece));
        let part = source.next();
        self.place = source.suspend();
        match part? {
            None => self.is_at_end = true,
            Some(Part::Begin(name)) => self.follow.begin_file(name),
            Some(Part::Counted(Piece::Lines { offset, bytes })) => {
                (self.offset, self.piece) = (offset, bytes);
            }
            Some(Part::Counted(
                ref bad @ (Piece::Overlong { offset, length } | Piece::Unfinished { offset, length }),
            )) => {
                self.follow.bad_bytes(offset, length, matches!(bad, Piece::Unfinished { .. }));
                return Ok((!self.ends_here()).then(|| self.bad_line(storage)));
            }
            Some(Part::TooShort { .. } | Part::Void(_)) => {}
        }
        Ok(None)
    }

    /// Whether what was just read is where the chain ends: what does not fit there was never durable, and no
    /// later segment was begun behind it. Files that never got their first line change nothing.
    fn ends_here(&mut self) -> bool {
        let is_torn = self.follow.anomalies.take_lowest_new().is_some_and(|at| at > self.durable);
        let is_last = || self.files.iter().skip(self.place.file() + 1).all(|file| file.first_seq.is_none());
        self.is_at_end |= is_torn && is_last();
        self.is_at_end
    }

    fn bad_line(&self, storage: &dyn Storage) -> Error {
        let name = self.files.get(self.place.file()).map_or_else(String::new, |file| file.name.to_string());
        Error::BadLine { path: storage.path(Dir::Log, &name), line: self.follow.line }
    }
}

/// The highest record that the chain says was durable, looked for from its end on.
fn durable_by_itself(storage: &dyn Storage, files: &[SegmentFile]) -> Result<u64, Error> {
    for file in files.iter().rev().filter(|file| file.counted != Some(0)) {
        let Some(open) = open_segment(storage, file.name)? else { continue };
        let mark =
            open.stat().and_then(|stat| last_mark(&*open, file.counted.unwrap_or(u64::MAX).min(stat.bytes)));
        let path = || storage.path(Dir::Log, &file.name.to_string());
        if let Some(mark) = mark.map_err(|error| Error::io("read", path())(error))? {
            return Ok(mark);
        }
    }
    Ok(0)
}
