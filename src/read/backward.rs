//! Reads one chain from its newer records to its older ones.

use std::io;

use super::{
    ahead::Refused,
    cursor::{Cursor, FilePosition, Wanted},
    item::ReadItem,
    next::{Direction, Next},
    start::{CLOCK_STEP, From, StartPosition},
};
use crate::{
    chain::Digest,
    chain_reader::{LayoutFromEnd, LinesBackward, SegmentFile, lines_between, open_segment},
    clock::Timestamp,
    error::Error,
    format::{ChainId, LineParser, is_right},
    record::Record,
    segment_name::{ChainNumber, SegmentName},
    storage::{Dir, File, Storage},
};

/// The state of a chain that is read backward.
#[derive(Debug)]
pub(super) struct Backward {
    index: usize,
    chain: ChainNumber,
    wanted: Wanted,
    id: Option<ChainId>,
    durable: u64,
    /// Where the chain ends.
    end: FilePosition,
    /// The files that were read to find the end, and the ones before them.
    files: Vec<SegmentFile>,
    older: LayoutFromEnd,
    current: Option<Current>,
    parser: LineParser,
    refused: Refused,
    /// The record that the next one must precede, if one was returned.
    below: Option<Below>,
    last: Timestamp,
    is_at_end: bool,
}

/// A record, and the hash of the one before it.
#[derive(Debug, Clone, Copy)]
struct Below {
    seq: u64,
    previous: Digest,
}

/// How far before a line the expected line is searched for.
const NEAR: u64 = 1 << 20;

/// State for recognising lines that were inserted between a record and the one before it.
#[derive(Debug)]
struct Inserted {
    /// The offset of the expected line, if it was found nearby.
    right: Option<u64>,
    /// How far back was searched for it, so that no part of the file is searched twice.
    looked: u64,
}

impl Inserted {
    /// Returns whether a line at this offset, which is not the one before a record, comes after that one.
    fn has(&mut self, offset: u64, below: Below, file: &dyn File) -> io::Result<bool> {
        if self.right.is_none_or(|right| offset <= right) && offset <= self.looked {
            self.right = None;
            self.looked = offset.saturating_sub(NEAR);
            let (mut parser, mut lines) = (LineParser::default(), LinesBackward::new(offset, self.looked));
            while let Some((at, line)) = lines.next(file)? {
                let line = line.and_then(|line| parser.parse(line).ok());
                if line.is_some_and(|line| line.hash == below.previous) {
                    (self.right, self.looked) = (Some(at), at);
                    break;
                }
            }
        }
        Ok(self.right.is_some_and(|right| right < offset))
    }
}

#[derive(Debug)]
struct Current {
    name: SegmentName,
    file: Box<dyn File>,
    lines: LinesBackward,
    inserted: Inserted,
    /// The line whose number was counted last: its offset and its number.
    numbered: Option<(u64, u64)>,
}

impl Current {
    /// Returns the number of the line at an offset, which must be before all offsets asked for earlier. Apart from the
    /// first call, no part of the file is counted twice.
    fn number_of(&mut self, offset: u64) -> io::Result<u64> {
        let number = match self.numbered {
            Some((later, number)) => number.saturating_sub(lines_between(&*self.file, offset, later)?),
            None => lines_between(&*self.file, 0, offset)? + 1,
        };
        self.numbered = Some((offset, number));
        Ok(number)
    }
}

impl Backward {
    /// Begins at the end of a chain: after the last record that reading forward would return.
    pub(super) fn new(
        storage: &dyn Storage,
        index: usize,
        chain: ChainNumber,
        numbers: &[u32],
        wanted: Wanted,
    ) -> Result<Self, Error> {
        // The end is found by reading forward from the last durable record: only so can a torn tail be recognised.
        let start = StartPosition::find(storage, chain, numbers, From::Seq(u64::MAX), 0)?;
        let everything = Wanted { durable_only: wanted.durable_only, ..Wanted::default() };
        let (mut forward, older) = Cursor::new(index, chain, start, everything, None);
        while let Some(next) = forward.next(storage) {
            // A line that is not a record is found again on the way back; but behind an unreadable file, nothing is.
            if let Err(error @ Error::Io { .. }) = next {
                return Err(error);
            }
        }
        let (end, durable) = (forward.returned(), forward.durable());
        Ok(Self {
            index,
            chain,
            wanted,
            id: forward.id(),
            durable,
            end,
            files: forward.into_files(),
            older,
            current: None,
            parser: LineParser::default(),
            refused: Refused::default(),
            below: None,
            last: Timestamp::from_unix(i64::MAX, 0),
            is_at_end: false,
        })
    }

    pub(super) fn chain(&self) -> ChainNumber {
        self.chain
    }

    pub(super) fn id(&self) -> Option<ChainId> {
        self.id
    }

    /// Returns the preceding record. After an error, reading continues before what was wrong.
    pub(super) fn next(&mut self, storage: &dyn Storage) -> Option<Result<Next, Error>> {
        while !self.is_at_end {
            match self.read(storage) {
                Ok(Some(next)) => return Some(Ok(next)),
                Ok(None) => {}
                Err(error) => return Some(Err(error)),
            }
        }
        None
    }

    /// Returns the preceding record, if the next line is one and is wanted.
    fn read(&mut self, storage: &dyn Storage) -> Result<Option<Next>, Error> {
        let Some(mut current) = self.current.take() else {
            self.current = self.open_older(storage).inspect_err(|_| self.is_at_end = true)?;
            self.is_at_end = self.current.is_none();
            return Ok(None);
        };
        let name = current.name;
        let path = || storage.path(Dir::Log, &name.to_string());
        let read = current.lines.next(&*current.file).map_err(Error::io("read", path()));
        let Some((offset, line)) = read.inspect_err(|_| self.is_at_end = true)? else { return Ok(None) };
        let (file, inserted) = (&*current.file, &mut current.inserted);
        let is_inserted = |below| inserted.has(offset, below, file);
        let record = line.map(|line| self.record(name, offset, line, is_inserted)).transpose();
        let record = record.map_err(Error::io("read", path()))?.flatten();
        // A line number is needed only for an error, and costs reading the file up to the line.
        let number = record.is_none().then(|| current.number_of(offset));
        self.current = Some(current);
        let Some((record, below)) = record else {
            let line = number.transpose().map_err(Error::io("read", path()))?.unwrap_or(0);
            return Err(Error::BadLine { path: path(), line });
        };
        Ok(self.wanted_next(record, below))
    }

    /// Returns the record in a line, if it is one and belongs before the last that was read, with the number of that
    /// one.
    fn record(
        &mut self,
        name: SegmentName,
        offset: u64,
        line: &[u8],
        is_inserted: impl FnOnce(Below) -> io::Result<bool>,
    ) -> io::Result<Option<(Record, Option<u64>)>> {
        let Some(line) = self.parser.parse(line).ok().filter(|line| is_right(line, offset == 0)) else {
            return Ok(None);
        };
        let is_wrong = match self.below {
            None => false,
            Some(below) if line.seq >= below.seq => true,
            Some(below) => line.hash != below.previous && is_inserted(below)?,
        };
        let Some(mut record) = Record::of(name, offset, &line, self.durable).filter(|_| !is_wrong) else {
            return Ok(None);
        };
        self.refused.note(&line);
        self.refused.forget_above(line.seq);
        if self.refused.names(line.seq) {
            record.set_unconfirmed();
        }
        let below = self.below.replace(Below { seq: line.seq, previous: line.previous });
        Ok(Some((record, below.map(|below| below.seq))))
    }

    fn wanted_next(&mut self, record: Record, below: Option<u64>) -> Option<Next> {
        let (seq, at) = (record.seq(), record.at());
        let is_older = |since: Timestamp| at.is_some_and(|at| since.since(at) > CLOCK_STEP);
        // Times may go back a little within a chain, so only a record that is much older ends the reading.
        if seq < self.wanted.from_seq || self.wanted.since.is_some_and(is_older) {
            self.is_at_end = true;
            return None;
        }
        let gap = below.and_then(|below| {
            let (first_seq, last_seq) = (seq.saturating_add(1), below.saturating_sub(1));
            let chain = record.chain();
            (first_seq <= last_seq).then_some(ReadItem::Gap { chain, first_seq, last_seq })
        });
        if !self.wanted.has(&record) {
            return None;
        }
        // Within a chain the order is `seq`, whatever the clock did.
        self.last = at.unwrap_or(self.last).min(self.last);
        Some(Next {
            at: self.last,
            chain: self.index,
            direction: Direction::Backward,
            before: gap.into_iter().collect(),
            record,
        })
    }

    /// Opens the next older file that counts and still exists.
    fn open_older(&mut self, storage: &dyn Storage) -> Result<Option<Current>, Error> {
        loop {
            if self.files.is_empty() && self.older.older(storage)?.is_some() {
                self.files = self.older.take_files();
            }
            let Some(file) = self.files.pop() else { return Ok(None) };
            // Files behind the end of the chain hold nothing but its torn tail.
            if file.counted == Some(0) || file.name.segment > self.end.segment {
                continue;
            }
            let Some(open) = open_segment(storage, file.name)? else { continue };
            let end = if file.name.segment == self.end.segment {
                self.end.offset
            } else {
                file.counted.unwrap_or(file.bytes).min(file.bytes)
            };
            return Ok(Some(Current {
                name: file.name,
                file: open,
                lines: LinesBackward::new(end, 0),
                inserted: Inserted { right: None, looked: end },
                numbered: None,
            }));
        }
    }
}
