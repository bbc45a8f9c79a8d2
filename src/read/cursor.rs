//! One chain on its way through a reader, from its older records to its newer ones.
//!
//! A reading that follows the log is a row of passes: each goes to the end of what is there, and the next begins where
//! the last one stood.

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
        ChainBytes, Chunk, Follow, Layout, LayoutFromEnd, Part, ReadPosition, SegmentFile, Standing,
        lines_between, log_path, open_segment,
    },
    clock::Timestamp,
    error::Error,
    format::{ChainId, Line, LineParser, seq_of},
    record::Record,
    segment_name::{ChainNumber, SegmentName},
    storage::{Dir, Storage},
};

/// How many files a chain may have begun since a file that is declared void in part.
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
    /// Whether there is another pass behind what is there now.
    pub(super) follows: bool,
}

impl Wanted {
    pub(super) fn has(&self, record: &Record) -> bool {
        record.seq() >= self.from_seq
            && !(self.durable_only && record.is_provisional())
            && self.since.is_none_or(|since| record.at().is_none_or(|at| at >= since))
    }
}

/// Behind what was handed out last.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Stand {
    /// 0 where nothing was.
    pub(super) segment: u32,
    pub(super) offset: u64,
}

/// Where a chain is being read.
#[derive(Debug)]
pub(super) struct Cursor {
    index: usize,
    wanted: Wanted,
    files: Vec<SegmentFile>,
    /// The id of the chain, once it was read.
    id: Option<ChainId>,
    /// The last record known to be durable.
    durable: u64,
    /// The one known to be from elsewhere.
    trusted: u64,
    follow: Follow,
    position: ReadPosition,
    parser: LineParser,
    /// The piece that is being handed out, where it stands in its file, and where in it the next line begins.
    piece: Vec<u8>,
    offset: u64,
    at: usize,
    /// Whether reading began in the middle of the file, so that its lines were not counted.
    began_inside: bool,
    /// How many lines of the file stand before those that were counted, once it was asked for.
    lines_before: Option<u64>,
    /// The time of the last record: one without a time follows at once.
    last: Timestamp,
    state: State,
    ahead: Ahead,
    /// A record that must be there, before the first that is handed out.
    must_have: Option<Head>,
    /// The number that follows what was handed out.
    expected: Option<u64>,
    /// What has to be said before the next record.
    before: Vec<ReadItem>,
    /// What the next pass begins with.
    stand: Stand,
    standing: Standing,
    /// How far the files before were read.
    passed: VecDeque<Stand>,
    /// What a pass was begun with: the files there were, and the length of the first.
    seen: Option<(Vec<u32>, u64)>,
}

/// How a pass goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Reading,
    AtEnd,
    /// The file system refused something.
    Failed,
    /// The chain is not the one that was to be read: there is no other pass.
    Over,
}

impl Cursor {
    /// Begins to read a chain. With `after`, that record must be there, or have been.
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
            piece: Vec::new(),
            offset: 0,
            at: 0,
            began_inside: false,
            lines_before: None,
            last: Timestamp::from_unix(i64::MIN, 0),
            state: State::Reading,
            ahead: Ahead::default(),
            must_have: after,
            // From a place in a damaged file records may be passed over.
            expected: behind.or_else(|| files.first().is_some_and(is_there).then_some(wanted.from_seq)),
            id: id_in(&files),
            files,
            before: Vec::new(),
            stand: Stand::default(),
            standing: Standing::default(),
            passed: VecDeque::new(),
            seen: None,
        };
        cursor.stand.segment = cursor.files.first().map_or(0, |file| file.name.segment);
        cursor.stand.offset = offset;
        cursor.begin(0);
        (cursor, older)
    }

    /// A chain that began while others were being read: what is gone of it by now is missed.
    pub(super) fn expect_the_first(&mut self) {
        // What lies before a time was not looked at.
        self.expected = self.wanted.since.is_none().then(|| self.wanted.from_seq.max(1));
    }

    pub(super) fn chain(&self) -> ChainNumber {
        self.follow.chain
    }

    pub(super) fn id(&self) -> Option<ChainId> {
        self.id
    }

    /// Takes a record for durable, and all before it, that somebody knows to be.
    pub(super) fn trust(&mut self, seq: u64) {
        if seq > self.durable.max(self.trusted) {
            // It may be there already, and be waited for.
            self.seen = None;
        }
        self.trusted = self.trusted.max(seq);
        self.durable = self.durable.max(seq);
    }

    /// Where what was handed out ends.
    pub(super) fn stand(&self) -> Stand {
        self.stand
    }

    pub(super) fn durable(&self) -> u64 {
        self.durable
    }

    pub(super) fn into_files(self) -> Vec<SegmentFile> {
        self.files
    }

    /// Begins a pass with a file: where it is the one that was read last, behind what was.
    fn begin(&mut self, file: usize) {
        let name = self.files.get(file).map(|file| file.name);
        let offset =
            if name.is_some_and(|name| name.segment == self.stand.segment) { self.stand.offset } else { 0 };
        if let Some(name) = name.filter(|_| offset > 0 && self.follow.start.is_none()) {
            self.follow.begin_file(name);
            // Not the first, whichever it is.
            self.follow.line = 1;
            self.began_inside = true;
            self.lines_before = None;
        }
        self.position = ReadPosition::at(file, offset);
        self.piece.clear();
        self.at = 0;
        self.state = State::Reading;
    }

    /// Looks whether there is more than at the last look, among the files that there are now, and begins a pass if so.
    pub(super) fn look_again(&mut self, storage: &dyn Storage, numbers: &[u32]) -> Result<bool, Error> {
        let numbers: Vec<u32> =
            numbers.iter().copied().filter(|number| *number >= self.stand.segment).collect();
        if self.state == State::Over || numbers.is_empty() || self.has_seen(storage, &numbers)? {
            return Ok(false);
        }
        let known = self.files.iter().find(|file| file.name.segment == self.stand.segment);
        let layout = Layout::of(storage, self.chain(), &numbers, known)?;
        let current = layout.files.first().filter(|file| file.name.segment == self.stand.segment);
        let length = current.map_or(0, |file| file.bytes);
        let is_cut =
            current.is_some_and(|file| file.counted.is_some_and(|counted| counted < self.stand.offset));
        let is_withdrawn = is_cut
            || layout.absent.iter().any(|claim| {
                let is_named = |passed: &&Stand| (claim.from..=claim.segment).contains(&passed.segment);
                let read = self.passed.iter().chain([&self.stand]);
                read.filter(is_named).any(|passed| claim.bytes < passed.offset)
            });
        let durable = durable_by_itself(storage, &layout.files)?;
        // A `close` that was taken for durable may be withdrawn.
        self.durable = if is_withdrawn { durable.max(self.trusted) } else { durable.max(self.durable) };
        self.files = layout.files;
        self.id = self.id.or_else(|| id_in(&self.files));
        pass_over_empty(&mut self.files);
        self.seen = Some((numbers, length));
        let first = usize::from(is_cut);
        if is_withdrawn {
            self.withdraw(first);
        } else {
            self.follow = Follow::at(self.chain(), self.standing);
        }
        self.begin(first);
        Ok(true)
    }

    /// Whether there is nothing but what there was.
    fn has_seen(&self, storage: &dyn Storage, numbers: &[u32]) -> Result<bool, Error> {
        let Some((files, length)) = self.seen.as_ref().filter(|_| self.state != State::Failed) else {
            return Ok(false);
        };
        let [segment] = *numbers else { return Ok(false) };
        if *files != [segment] || segment != self.stand.segment {
            return Ok(false);
        }
        let name = SegmentName { chain: self.chain(), segment }.to_string();
        let stat =
            storage.stat(Dir::Log, &name).map_err(Error::io("look at", storage.path(Dir::Log, &name)))?;
        Ok(stat.is_some_and(|stat| stat.bytes == *length))
    }

    /// Forgets what a new segment declares void, to go on with this file.
    fn withdraw(&mut self, first: usize) {
        self.passed.clear();
        self.follow = Follow::new(self.chain());
        self.standing = Standing::default();
        let segment = self.files.get(first).map_or(self.stand.segment, |file| file.name.segment);
        self.stand = Stand { segment, offset: 0 };
        self.began_inside = false;
        self.ahead.forget();
        if self.expected.is_some_and(|expected| expected > self.wanted.from_seq) {
            self.wanted.from_seq = 0;
        }
    }

    /// The next record. After an error it goes on behind what was wrong, unless that was a file.
    pub(super) fn next(&mut self, storage: &dyn Storage) -> Option<Result<Next, Error>> {
        loop {
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

    /// Whether a record is wanted. Notes what lies between it and the one before it.
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

    /// The error of a record that must be there, and where the chain ends it is not.
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
            // Taken out while a line of it is looked at.
            let piece = std::mem::take(&mut self.piece);
            let (_, rest) = piece.split_at(self.at);
            let Some(end) = memchr::memchr(b'\n', rest) else {
                self.piece = piece;
                match self.next_piece(storage) {
                    Ok(None) => continue,
                    Ok(Some(bad)) => return Some(Err(bad)),
                    Err(error) => {
                        self.state = State::Failed;
                        return Some(Err(error));
                    }
                }
            };
            let (line, _) = rest.split_at(end);
            if self.wanted.durable_only && self.is_beyond(line) {
                self.state = State::AtEnd;
                return None;
            }
            let offset = self.offset + self.at as u64;
            self.at += end + 1;
            let record = self.record(line, offset);
            self.piece = piece;
            if self.state == State::Over {
                return self.missing(storage).map(Err);
            }
            if self.ends_here() {
                return None;
            }
            self.stand_at(self.offset + self.at as u64);
            return Some(match record {
                Some(record) => Ok(self.place_in_time(record)),
                None => Err(self.bad_line(storage, offset)),
            });
        }
        None
    }

    /// Whether what is durable ends before a line. One with too high a number among others is judged as usual.
    fn is_beyond(&self, line: &[u8]) -> bool {
        let follow = &self.follow;
        let next = follow.next.saturating_add(follow.holes);
        let is_later = follow.later_format.is_some();
        let may_end = follow.line == 0 || follow.start.is_none() || next > self.durable || is_later;
        may_end && seq_of(line).is_some_and(|seq| seq > self.durable)
    }

    /// The record in a line, if it is one and belongs there.
    fn record(&mut self, line: &[u8], offset: u64) -> Option<Record> {
        let parsed = self.parser.parse(line);
        let is_next = self.follow.one_line(parsed, offset);
        self.follow.controls.clear();
        // What a later version wrote is handed out as far as it can be read.
        let is_later = self.follow.later_format.is_some();
        let line = parsed.ok().filter(|line| is_next || is_later && line.hash_is_right())?;
        self.ahead.note(&line);
        if self.must_have.is_some_and(|head| contradicts(head, &line)) {
            self.state = State::Over;
            return None;
        }
        self.must_have = self.must_have.filter(|head| line.seq < head.seq);
        let name = SegmentName { chain: self.chain(), segment: self.follow.segment() };
        Record::of(name, offset, &line, self.durable)
    }

    fn place_in_time(&mut self, record: Record) -> Next {
        // Inside a chain the order is `seq`, whatever the clock did.
        self.last = record.at().unwrap_or(self.last).max(self.last);
        Next { at: self.last, chain: self.index, direction: Direction::Forward, before: Vec::new(), record }
    }

    /// Notes that everything before this offset was handed out.
    fn stand_at(&mut self, offset: u64) {
        let segment = self.follow.segment();
        if segment != self.stand.segment {
            self.passed.push_back(self.stand);
            if self.passed.len() > MAX_PASSED {
                self.passed.pop_front();
            }
        }
        self.stand = Stand { segment, offset };
        if self.wanted.follows {
            self.standing = self.follow.standing();
        }
    }

    /// Reads on; returns what cannot be a record in it.
    fn next_piece(&mut self, storage: &dyn Storage) -> Result<Option<Error>, Error> {
        self.at = 0;
        // A chain can have pieces that count nothing, so this is said again and again.
        let mut source = ChainBytes::resume(storage, &self.files, std::mem::take(&mut self.position));
        source.reuse(std::mem::take(&mut self.piece));
        let part = source.next();
        self.position = source.suspend();
        match part? {
            None => self.state = State::AtEnd,
            Some(Part::Begin(name)) => {
                self.follow.begin_file(name);
                self.began_inside = false;
            }
            Some(Part::Counted(Chunk::Lines { offset, bytes })) => {
                (self.offset, self.piece) = (offset, bytes);
            }
            Some(Part::Counted(
                ref bad @ (Chunk::Overlong { offset, length } | Chunk::Unfinished { offset, length }),
            )) => {
                self.follow.bad_bytes(offset, length, matches!(bad, Chunk::Unfinished { .. }));
                if self.ends_here() {
                    return Ok(None);
                }
                self.stand_at(offset + length);
                return Ok(Some(self.bad_line(storage, offset)));
            }
            Some(Part::TooShort { .. } | Part::Void(_)) => {}
        }
        Ok(None)
    }

    /// Whether what was just read is where the chain ends: what does not fit there was never durable, and no
    /// later segment was begun behind it. Files that never got their first line change nothing.
    fn ends_here(&mut self) -> bool {
        let is_torn = self.follow.anomalies.take_lowest_new().is_some_and(|at| at > self.durable);
        let is_last = || self.files.iter().skip(self.position.file() + 1).all(|file| file.first_seq.is_none());
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

/// What comes to a file that was empty at the look is for the next one: its first line may say that less of the files
/// before counts.
fn pass_over_empty(files: &mut [SegmentFile]) {
    for file in files.iter_mut().filter(|file| file.bytes == 0) {
        file.counted = Some(0);
    }
}

/// Whether a line shows that the chain has another record than this head. What was pruned behind it shows nothing.
fn contradicts(head: Head, line: &Line<'_>) -> bool {
    line.seq == head.seq && line.hash != head.hash
        || line.seq.checked_sub(1) == Some(head.seq) && line.previous != head.hash
}

/// The number of the line that begins at an offset of a file, counted from 1.
fn number_of(storage: &dyn Storage, name: SegmentName, offset: u64) -> Result<u64, Error> {
    let Some(open) = open_segment(storage, name)? else { return Ok(1) };
    lines_between(&*open, 0, offset)
        .map(|before| before + 1)
        .map_err(|error| Error::io("read", storage.path(Dir::Log, &name.to_string()))(error))
}
