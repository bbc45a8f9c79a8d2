//! Goes through one chain line by line: whether a line fits, and if not, what happened there and how the chain
//! continues behind it. Recovery, verification and reading all use this to decide what may follow a line.

mod line;

use super::{
    anomaly::{Anomalies, Fault, Good, Last, LinePosition},
    chain_bytes::{ChainBytes, Part},
    chunk_summary::Summary,
    control_state::ControlState,
    layout::SegmentFile,
    lines::{Chunk, split},
    noted::{Noted, Point},
};
use crate::{
    chain::Digest,
    error::Error,
    format::{ChainId, Control, Line, LineParser, Malformed, RecordKind, Times, Witness, control_of},
    segment_name::{ChainNumber, SegmentName},
    storage::Storage,
};

/// The first good line of a chain that was read.
#[derive(Debug, Clone, Copy)]
pub(crate) struct FirstGood {
    pub(crate) seq: u64,
    pub(crate) previous: Digest,
    /// How many bad lines precede it.
    pub(crate) holes: u64,
    pub(crate) position: LinePosition,
    /// Whether it is the first line of its file and names that file, as it must.
    pub(crate) is_segment: bool,
}

/// The state of a chain before a line with too high a number. If the expected line follows after all, the line
/// was inserted, and nothing is missing.
#[derive(Debug)]
struct Jump {
    next: u64,
    hash: Option<Digest>,
    /// The index of the anomaly that was recorded for it.
    anomaly: Option<usize>,
}

/// The position and state of a chain, from which it can be followed further later.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct ResumePoint {
    segment: u32,
    line: u64,
    start: Option<FirstGood>,
    next: u64,
    hash: Option<Digest>,
    holes: u64,
    id: Option<ChainId>,
}

/// The content of one file, counted.
#[derive(Debug, Clone, Copy)]
pub(crate) struct FileCount {
    pub(crate) segment: u32,
    pub(crate) good: Good,
    /// The highest `durable` mark in it.
    pub(crate) mark: u64,
    /// Bounds of the times of its records, if all of them were followed line by line.
    pub(crate) times: Option<Times>,
    pub(crate) void_bytes: u64,
    /// Whether nothing at all was read from it.
    pub(crate) is_empty: bool,
    /// The sequence number that the first line of the file must have.
    begins: u64,
    /// Whether the previous version of this library wrote the last run before it.
    is_old: bool,
}

/// The state of one chain while it is read.
#[derive(Debug)]
pub(crate) struct Follow {
    pub(crate) chain: ChainNumber,
    pub(crate) start: Option<FirstGood>,
    /// The number that the next line must have.
    pub(crate) next: u64,
    /// The hash that the next line must link to; `None` where it cannot be known.
    hash: Option<Digest>,
    /// Bad lines since the last good one.
    pub(crate) holes: u64,
    jump: Option<Jump>,
    pub(crate) good: Good,
    pub(crate) control: ControlState,
    /// The contents of control lines, with their sequence numbers, until they are taken.
    pub(crate) controls: Vec<(u64, Control)>,
    pub(crate) anomalies: Anomalies,
    pub(crate) files: Vec<FileCount>,
    /// The number of lines read of the current file.
    pub(crate) line: u64,
    /// The index of the anomaly of its first line, until a good line follows.
    bad_start: Option<usize>,
    /// The highest mark in bytes that a later segment declares void.
    void_mark: u64,
    /// Where a segment of a later format begins. Nothing from there on is judged.
    pub(crate) later_format: Option<(LinePosition, u64)>,
    /// The number of anomalies before it.
    pub(crate) judged: usize,
    /// Whether the last line that was read is a record of the chain.
    pub(crate) ends_well: bool,
    /// Records that others name, with their hashes.
    named: Vec<Witness>,
    /// Whether the chain has a different record in place of one of them.
    pub(crate) is_contradicted: bool,
}

impl Follow {
    pub(crate) fn new(chain: ChainNumber) -> Self {
        Self {
            chain,
            start: None,
            next: 1,
            hash: None,
            holes: 0,
            jump: None,
            good: Good::default(),
            control: ControlState::default(),
            controls: Vec::new(),
            anomalies: Anomalies::default(),
            files: Vec::new(),
            line: 0,
            bad_start: None,
            void_mark: 0,
            later_format: None,
            judged: usize::MAX,
            ends_well: false,
            named: Vec::new(),
            is_contradicted: false,
        }
    }

    /// Returns the state of a chain that continues at this point.
    pub(crate) fn resume(chain: ChainNumber, point: ResumePoint) -> Self {
        let ResumePoint { segment, line, start, next, hash, holes, id } = point;
        let mut follow = Self::new(chain);
        if start.is_some() {
            follow.begin_file(SegmentName { chain, segment });
            (follow.line, follow.start, follow.next, follow.hash) = (line, start, next, hash);
            (follow.holes, follow.control.id) = (holes, id);
        }
        follow
    }

    /// Returns the point at which the chain can be continued later.
    pub(crate) fn resume_point(&self) -> ResumePoint {
        let Self { line, start, next, hash, holes, .. } = *self;
        ResumePoint { segment: self.segment(), line, start, next, hash, holes, id: self.control.id }
    }

    /// Returns the state of a chain whose last record read is the noted one, of this kind.
    fn behind(chain: ChainNumber, noted: &Noted, kind: RecordKind) -> Self {
        let Point { segment, seq, hash, .. } = noted.point;
        let mut follow = Self::new(chain);
        follow.begin_file(SegmentName { chain, segment });
        // Exact line numbers matter only to verification, which reads files from their start. Here it is enough that
        // this is not the first line.
        follow.line = 1;
        // The noted record itself is not read again. It is entered as if it had been.
        follow.next = seq;
        let position = follow.position(0);
        follow.start = Some(FirstGood { seq, previous: Digest::ZERO, holes: 0, position, is_segment: true });
        follow.control.id = Some(noted.id);
        follow.control.pruned = noted.pruned;
        follow.mark(seq);
        if let Some(file) = follow.files.last_mut() {
            file.times = noted.times;
        }
        follow.accept(Last { seq, hash, kind }, 1, 0);
        follow.ends_well = true;
        follow
    }

    /// Follows a chain through what counts of its files and discards the contents of control lines. With a noted head
    /// and its kind, it begins there: the first of the files must hold that record. Lines are compared with what
    /// others name of these records.
    pub(crate) fn through(
        storage: &dyn Storage,
        chain: ChainNumber,
        files: &[SegmentFile],
        noted: Option<(&Noted, RecordKind)>,
        named: &[Witness],
    ) -> Result<Self, Error> {
        let mut follow =
            noted.map_or_else(|| Self::new(chain), |(noted, kind)| Self::behind(chain, noted, kind));
        follow.named = named.to_vec();
        let mut parser = LineParser::default();
        let offset = noted.map_or(0, |(noted, _)| noted.point.end);
        let mut source = ChainBytes::of_what_counts(storage, files, offset);
        while let Some(part) = source.next()? {
            follow.take_in(&mut parser, &part);
            follow.controls.clear();
            if let Part::Counted(Chunk::Lines { bytes, .. }) = part {
                source.reuse(bytes);
            }
        }
        Ok(follow)
    }

    /// Takes in the next part of the files of a chain. Returns its length in bytes.
    pub(crate) fn take_in(&mut self, parser: &mut LineParser, part: &Part) -> u64 {
        match *part {
            Part::Begin(name) => self.begin_file(name),
            Part::TooShort { offset, counted } => self.too_short(offset, counted),
            Part::Counted(Chunk::Lines { offset, ref bytes }) => {
                self.lines(parser, bytes, offset);
                return bytes.len() as u64;
            }
            Part::Counted(Chunk::Overlong { offset, length }) => {
                self.bad_bytes(offset, length, false);
                return length;
            }
            Part::Counted(Chunk::Unfinished { offset, length }) => {
                self.bad_bytes(offset, length, true);
                return length;
            }
            Part::Void(Chunk::Lines { ref bytes, .. }) => {
                self.void(parser, bytes);
                self.count_void(bytes.len() as u64);
                return bytes.len() as u64;
            }
            Part::Void(Chunk::Overlong { length, .. } | Chunk::Unfinished { length, .. }) => {
                self.count_void(length);
                return length;
            }
        }
        0
    }

    /// Begins a file. If it is already the last one, it is begun again, because nothing was taken in from it before.
    pub(crate) fn begin_file(&mut self, name: SegmentName) {
        self.line = 0;
        self.bad_start = None;
        if self.files.last().is_none_or(|last| last.segment != name.segment) {
            let good = Good::default();
            self.files.push(FileCount {
                segment: name.segment,
                good,
                mark: 0,
                times: None,
                void_bytes: 0,
                is_empty: true,
                begins: self.next,
                is_old: self.control.is_old,
            });
        }
    }

    /// Returns the last record that must have been durable because of how a file looks. A file without a good line
    /// that holds more than the first write of a segment proves that this write was durable. Nothing is written behind
    /// it before that. Files of the previous version prove nothing of this kind.
    pub(super) fn durable_by_looks(&self, files: &[SegmentFile]) -> u64 {
        let is_destroyed = |count: &&FileCount| {
            let file = files.iter().find(|file| file.name.segment == count.segment);
            let is_claimed = file.is_none_or(|file| file.counted.is_some() || file.looks_stillborn);
            count.good.records == 0 && !count.is_empty && !count.is_old && !is_claimed
        };
        self.files.iter().filter(is_destroyed).map(|count| count.begins).max().unwrap_or(0)
    }

    /// Returns the number of the segment that is being read.
    pub(crate) fn segment(&self) -> u32 {
        self.files.last().map_or(0, |file| file.segment)
    }

    fn position(&self, offset: u64) -> LinePosition {
        LinePosition { segment: self.segment(), line: self.line, offset }
    }

    /// Takes in a faultless chunk, if it continues the chain. Returns whether it does.
    pub(crate) fn join(&mut self, summary: &mut Summary) -> bool {
        let fits = summary.first_seq == self.next && self.hash == Some(summary.previous);
        let begins_file = self.line == 0;
        // The first line of a file says which file it is, so it is checked by `one_line`; so is the start of a chain.
        if !fits || begins_file || self.later_format.is_some() {
            return false;
        }
        if summary.controls.iter().any(|(_, control)| matches!(control, Control::Segment(_))) {
            return false;
        }
        self.end_bad_start(summary.first_seq);
        for (seq, control) in summary.controls.drain(..) {
            self.absorb(seq, control);
        }
        self.mark(summary.mark);
        self.line += summary.lines;
        self.ends_well = true;
        self.jump = None;
        self.accept(
            Last { seq: summary.last_seq, hash: summary.last_hash, kind: summary.last_kind },
            summary.lines,
            summary.events,
        );
        true
    }

    /// Takes in whole lines one by one.
    fn lines(&mut self, parser: &mut LineParser, bytes: &[u8], offset: u64) {
        for (start, line) in split(bytes) {
            self.one_line(parser.parse(line), offset + start);
        }
    }

    /// Takes in the next whole line. Returns whether it is a record of the chain.
    pub(crate) fn one_line(&mut self, parsed: Result<Line<'_>, Malformed>, offset: u64) -> bool {
        self.line += 1;
        if self.later_format.is_some() {
            return false;
        }
        if let Some(file) = self.files.last_mut() {
            file.is_empty = false;
        }
        let position = self.position(offset);
        self.ends_well = match parsed {
            Err(Malformed(why)) => {
                self.malformed(position, why.to_owned());
                false
            }
            Ok(line) if !line.hash_is_right() => {
                self.edited(&line, position);
                false
            }
            Ok(line) => self.good_line(&line, position),
        };
        self.ends_well
    }

    /// Takes in a run of bytes that is not a line.
    pub(crate) fn bad_bytes(&mut self, offset: u64, length: u64, is_unfinished: bool) {
        self.line += 1;
        self.ends_well = false;
        if let Some(file) = self.files.last_mut() {
            file.is_empty = false;
        }
        let position = self.position(offset);
        let what = if is_unfinished { "the line is incomplete" } else { "the line is longer than 60 KiB" };
        // Beyond the limit the anomaly is only counted, and `get_mut` finds none.
        let number = self.anomalies.len();
        self.malformed(position, format!("{what} ({length} bytes)"));
        if let Some(anomaly) = self.anomalies.get_mut(number) {
            anomaly.is_unfinished = is_unfinished;
        }
    }

    /// Adds an anomaly for a file that is shorter than a later segment states.
    fn too_short(&mut self, offset: u64, counted: u64) {
        self.line += 1;
        self.ends_well = false;
        let message =
            format!("the file ends here, but the next segment says that {counted} bytes of it count");
        let mut anomaly = self.anomaly(Fault::Missing, self.position(offset), message);
        anomaly.is_certain = true;
        self.anomalies.push(anomaly);
    }

    /// Takes in bytes that a later segment declares void. All that matters of them is how far they were durable.
    fn void(&mut self, parser: &mut LineParser, bytes: &[u8]) {
        for (_, line) in split(bytes) {
            let Ok(line) = parser.parse(line) else { continue };
            let claims = line.durable.is_some() || line.kind == RecordKind::Prune;
            // Only a line that could have followed what counts can state how far that was durable.
            if line.seq < self.next || !claims || !line.hash_is_right() {
                continue;
            }
            let through = match control_of(&line, false) {
                Err(_) => continue,
                Ok(Some(Control::Prune { through, .. })) => through,
                Ok(_) => 0,
            };
            self.void_mark = self.void_mark.max(line.durable.unwrap_or(0)).max(through);
        }
    }

    /// Counts void bytes of the current file.
    fn count_void(&mut self, length: u64) {
        if let Some(file) = self.files.last_mut() {
            file.void_bytes += length;
            file.is_empty = false;
        }
    }
}

/// Returns the message for missing records.
pub(crate) fn missing_records(count: u64) -> String {
    match count {
        1 => "1 record is missing before this line".to_owned(),
        count => format!("{count} records are missing before this line"),
    }
}
