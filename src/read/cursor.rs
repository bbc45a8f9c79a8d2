//! One chain on its way through a reader.

use std::cmp::Ordering;

use crate::{
    Error,
    clock::Timestamp,
    format::{Kind, LineParser, is_right},
    record::Record,
    segment_name::ChainNumber,
    storage::{Dir, File, Storage, read_full},
};

use super::{
    layout::{Layout, SegmentFile, open_segment},
    lines::Piece,
    source::{Part, Place, Source},
};

/// How much of the end of a chain is looked at first for its last mark.
const FIRST_LOOK: u64 = 64 * 1024;
/// How much at most. A writer never has as much that is not durable.
const LAST_LOOK: u64 = 64 * 1024 * 1024;

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
    chain: ChainNumber,
    index: usize,
    files: Vec<SegmentFile>,
    /// The last record known to be durable.
    durable: u64,
    place: Place,
    parser: LineParser,
    /// The piece that is being handed out, where in it the next line begins, and its number.
    piece: Vec<u8>,
    at: usize,
    line: u64,
    /// The number that the next record should have.
    expected: u64,
    /// The time of the last record: one without a time follows at once.
    last: Timestamp,
    is_at_end: bool,
}

impl Cursor {
    pub(super) fn new(
        storage: &dyn Storage,
        chain: ChainNumber,
        numbers: &[u32],
        index: usize,
    ) -> Result<Self, Error> {
        let files = Layout::of(storage, chain, numbers)?.files;
        let durable = last_mark(storage, &files)?;
        Ok(Self {
            chain,
            index,
            files,
            durable,
            place: Place::default(),
            parser: LineParser::default(),
            piece: Vec::new(),
            at: 0,
            line: 0,
            expected: 0,
            last: Timestamp::from_unix(i64::MIN, 0),
            is_at_end: false,
        })
    }

    /// The next record. After an error it goes on behind what was wrong, unless that was a file.
    pub(super) fn next(&mut self, storage: &dyn Storage) -> Option<Result<Head, Error>> {
        while !self.is_at_end {
            let rest = self.piece.get(self.at..).unwrap_or_default();
            let Some(end) = memchr::memchr(b'\n', rest) else {
                match self.next_piece(storage) {
                    Ok(None) => continue,
                    Ok(Some(bad)) => return Some(Err(bad)),
                    Err(error) => {
                        self.is_at_end = true;
                        return Some(Err(error));
                    }
                }
            };
            let line = rest.get(..end).unwrap_or_default();
            self.at += end + 1;
            self.line += 1;
            let begins_file = self.line == 1;
            let parsed = self.parser.parse(line).ok().filter(|line| is_right(line, begins_file));
            match parsed.and_then(|line| Record::of(self.chain, &line, self.durable)) {
                Some(record) => return Some(Ok(self.head(record))),
                None => {
                    if let Some(bad) = self.bad_line(storage) {
                        return Some(Err(bad));
                    }
                }
            }
        }
        None
    }

    fn head(&mut self, record: Record) -> Head {
        self.expected = record.seq().saturating_add(1);
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
            Some(Part::Begin(_)) => self.line = 0,
            Some(Part::Counted(Piece::Lines { bytes, .. })) => self.piece = bytes,
            Some(Part::Counted(Piece::Overlong { .. } | Piece::Unfinished { .. })) => {
                self.line += 1;
                return Ok(self.bad_line(storage));
            }
            Some(Part::TooShort { .. } | Part::Void(_)) => {}
        }
        Ok(None)
    }

    /// A line that is no record. At the end of the chain, above what was durable, it is a torn tail,
    /// and the chain ends before it. Files behind it that never got their first line change nothing.
    fn bad_line(&mut self, storage: &dyn Storage) -> Option<Error> {
        let number = self.place.file();
        let is_last = self.files.iter().skip(number + 1).all(|file| file.first_seq.is_none());
        if is_last && self.expected > self.durable {
            self.is_at_end = true;
            return None;
        }
        let name = self.files.get(number).map_or_else(String::new, |file| file.name.to_string());
        Some(Error::BadLine { path: storage.path(Dir::Log, &name), line: self.line })
    }
}

/// The highest record that the chain says was durable: its last mark, or a `close` at its end. Marks
/// only grow, so the last one is looked for from the end on; each write begins with one.
fn last_mark(storage: &dyn Storage, files: &[SegmentFile]) -> Result<u64, Error> {
    for file in files.iter().rev().filter(|file| file.counted != Some(0)) {
        let Some(open) = open_segment(storage, file.name)? else { continue };
        let mut length = FIRST_LOOK;
        loop {
            let path = || storage.path(Dir::Log, &file.name.to_string());
            let (mark, is_whole) =
                mark_in_end(&*open, file, length).map_err(|error| Error::io("read", path())(error))?;
            if let Some(mark) = mark {
                return Ok(mark);
            }
            if is_whole || length >= LAST_LOOK {
                break;
            }
            length = length.saturating_mul(4);
        }
    }
    Ok(0)
}

/// The last mark in the last `length` bytes that count of a file, and whether these are all.
fn mark_in_end(file: &dyn File, of: &SegmentFile, length: u64) -> std::io::Result<(Option<u64>, bool)> {
    let end = of.counted.unwrap_or(u64::MAX).min(file.stat()?.bytes);
    let start = end.saturating_sub(length);
    let mut bytes = vec![0; usize::try_from(end - start).unwrap_or(usize::MAX)];
    let read = read_full(file, &mut bytes, start)?;
    bytes.truncate(read);
    let mut parser = LineParser::default();
    let mut is_end = true;
    // The first piece may be half a line; that one is no record then.
    for line in bytes.split(|byte| *byte == b'\n').rev() {
        let Ok(line) = parser.parse(line) else { continue };
        if !is_right(&line, false) {
            continue;
        }
        if is_end && line.kind == Kind::Close {
            return Ok((Some(line.seq), start == 0));
        }
        is_end = false;
        if let Some(mark) = line.durable {
            return Ok((Some(mark), start == 0));
        }
    }
    Ok((None, start == 0))
}
