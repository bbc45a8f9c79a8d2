//! Line by line through one chain: what fits, and for what does not, what happened there and how to go on
//! behind it. Recovery, verification and reading all take from here what may follow a line.

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

/// The first good line that was read of a chain.
#[derive(Debug, Clone, Copy)]
pub(crate) struct FirstGood {
    pub(crate) seq: u64,
    pub(crate) previous: Digest,
    /// How many bad lines stand before it.
    pub(crate) holes: u64,
    pub(crate) place: LinePosition,
    /// Whether it begins its file and names it, as it must.
    pub(crate) is_segment: bool,
}

/// Where a chain stood when a line with too high a number came: if the right one follows, the odd
/// one was inserted, and nothing is missing.
#[derive(Debug)]
struct Jump {
    next: u64,
    hash: Option<Digest>,
    /// The name of the anomaly that it made.
    anomaly: Option<usize>,
}

/// Where a chain stands, to go on there later.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Standing {
    segment: u32,
    line: u64,
    start: Option<FirstGood>,
    next: u64,
    hash: Option<Digest>,
    holes: u64,
    id: Option<ChainId>,
}

/// What one file holds.
#[derive(Debug, Clone, Copy)]
pub(crate) struct FileCount {
    pub(crate) segment: u32,
    pub(crate) good: Good,
    /// The highest `durable` mark in it.
    pub(crate) mark: u64,
    /// The times of its records, where all of them were followed line by line.
    pub(crate) times: Option<Times>,
    pub(crate) void_bytes: u64,
    /// Whether anything stands in it at all.
    pub(crate) is_empty: bool,
    /// The number of the record that belongs at its beginning.
    begins: u64,
    /// Whether the version before this one wrote the last run in front of it.
    is_old: bool,
}

/// The state of one chain while it is read.
#[derive(Debug)]
pub(crate) struct Follow {
    pub(crate) chain: ChainNumber,
    pub(crate) start: Option<FirstGood>,
    /// The number that the next line must have.
    pub(crate) next: u64,
    /// What the next line must link to; `None` where that cannot be known.
    hash: Option<Digest>,
    /// Bad lines since the last good one.
    pub(crate) holes: u64,
    jump: Option<Jump>,
    pub(crate) good: Good,
    pub(crate) facts: ControlState,
    /// What lines said that are no events, and their numbers, until somebody takes it.
    pub(crate) said: Vec<(u64, Control)>,
    pub(crate) anomalies: Anomalies,
    pub(crate) files: Vec<FileCount>,
    /// How many lines were read of the current file.
    pub(crate) line: u64,
    /// The anomaly of its first line, as long as no good one came behind it.
    bad_start: Option<usize>,
    /// The highest mark in bytes that a later segment declares void.
    void_mark: u64,
    /// Where a segment of a later format begins; nothing from there on is judged.
    pub(crate) later_format: Option<(LinePosition, u64)>,
    /// How many anomalies there were before it.
    pub(crate) judged: usize,
    /// Whether what was read last is a record of the chain.
    pub(crate) ends_well: bool,
    /// Records that others name, and their hashes.
    named: Vec<Witness>,
    /// Whether one of them is another record here.
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
            facts: ControlState::default(),
            said: Vec::new(),
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

    /// A chain that goes on where it stood.
    pub(crate) fn at(chain: ChainNumber, standing: Standing) -> Self {
        let Standing { segment, line, start, next, hash, holes, id } = standing;
        let mut follow = Self::new(chain);
        if start.is_some() {
            follow.begin_file(SegmentName { chain, segment });
            (follow.line, follow.start, follow.next, follow.hash) = (line, start, next, hash);
            (follow.holes, follow.facts.id) = (holes, id);
        }
        follow
    }

    /// Where the chain stands.
    pub(crate) fn standing(&self) -> Standing {
        let Self { line, start, next, hash, holes, .. } = *self;
        Standing { segment: self.segment(), line, start, next, hash, holes, id: self.facts.id }
    }

    /// A chain whose last record that was looked at is the noted one, of this kind.
    fn behind(chain: ChainNumber, noted: &Noted, kind: RecordKind) -> Self {
        let Point { segment, seq, hash, .. } = noted.point;
        let mut follow = Self::new(chain);
        follow.begin_file(SegmentName { chain, segment });
        // Where lines stand in their file is for verification to tell, which reads all of them.
        follow.line = 1;
        follow.next = seq;
        let place = follow.place(0);
        follow.start = Some(FirstGood { seq, previous: Digest::ZERO, holes: 0, place, is_segment: true });
        follow.facts.id = Some(noted.id);
        follow.facts.pruned = noted.pruned;
        follow.mark(seq);
        if let Some(file) = follow.files.last_mut() {
            file.times = noted.times;
        }
        follow.accept(Last { seq, hash, kind }, 1, 0);
        follow.ends_well = true;
        follow
    }

    /// Follows a chain through what counts of its files, keeping nothing that lines say of other things. With a noted
    /// head and its kind, only from there on: it stands in the first of the files. Lines are held against what others
    /// say of these records.
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
            follow.said.clear();
            if let Part::Counted(Chunk::Lines { bytes, .. }) = part {
                source.reuse(bytes);
            }
        }
        Ok(follow)
    }

    /// Takes in what comes next in the files of a chain. Returns how many bytes that are.
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

    /// A file of which nothing was taken in is begun again whenever it is looked at again.
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
                is_old: self.facts.is_old,
            });
        }
    }

    /// The last record that must have been durable because a file without a good line holds more than the first write
    /// of a segment, which is durable before anything follows it. Of the version before, files tell nothing of this.
    pub(super) fn durable_by_looks(&self, files: &[SegmentFile]) -> u64 {
        let is_destroyed = |count: &&FileCount| {
            let file = files.iter().find(|file| file.name.segment == count.segment);
            let is_claimed = file.is_none_or(|file| file.counted.is_some() || file.looks_stillborn);
            count.good.records == 0 && !count.is_empty && !count.is_old && !is_claimed
        };
        self.files.iter().filter(is_destroyed).map(|count| count.begins).max().unwrap_or(0)
    }

    /// The segment that is being read.
    pub(crate) fn segment(&self) -> u32 {
        self.files.last().map_or(0, |file| file.segment)
    }

    fn place(&self, offset: u64) -> LinePosition {
        LinePosition { segment: self.segment(), line: self.line, offset }
    }

    /// Takes in a faultless piece, if it goes on where the chain stands.
    pub(crate) fn join(&mut self, summary: &mut Summary) -> bool {
        let fits = summary.first_seq == self.next && self.hash == Some(summary.previous);
        let begins_file = self.line == 0;
        // The first line of each file says which file it is; and a chain begins with a closer look.
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

    /// Reads whole lines one by one.
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
        let place = self.place(offset);
        self.ends_well = match parsed {
            Err(Malformed(why)) => {
                self.malformed(place, why.to_owned());
                false
            }
            Ok(line) if !line.hash_is_right() => {
                self.edited(&line, place);
                false
            }
            Ok(line) => self.good_line(&line, place),
        };
        self.ends_well
    }

    /// A stretch of bytes that is no line.
    pub(crate) fn bad_bytes(&mut self, offset: u64, length: u64, is_unfinished: bool) {
        self.line += 1;
        self.ends_well = false;
        if let Some(file) = self.files.last_mut() {
            file.is_empty = false;
        }
        let place = self.place(offset);
        let what = if is_unfinished { "the line has no end" } else { "the line is longer than 60 KiB" };
        let number = self.anomalies.len();
        self.malformed(place, format!("{what} ({length} bytes)"));
        if let Some(anomaly) = self.anomalies.get_mut(number) {
            anomaly.is_unfinished = is_unfinished;
        }
    }

    /// A file ended before what a later segment says it holds.
    fn too_short(&mut self, offset: u64, counted: u64) {
        self.line += 1;
        self.ends_well = false;
        let message =
            format!("the file ends here, and the next segment says that {counted} bytes of it count");
        let mut anomaly = self.anomaly(Fault::Missing, self.place(offset), message);
        anomaly.is_certain = true;
        self.anomalies.push(anomaly);
    }

    /// Bytes that a later segment declares void: only how far they were durable matters.
    fn void(&mut self, parser: &mut LineParser, bytes: &[u8]) {
        for (_, line) in split(bytes) {
            let Ok(line) = parser.parse(line) else { continue };
            let claims = line.durable.is_some() || line.kind == RecordKind::Prune;
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

    fn count_void(&mut self, length: u64) {
        if let Some(file) = self.files.last_mut() {
            file.void_bytes += length;
            file.is_empty = false;
        }
    }
}

/// For messages.
pub(crate) fn missing_records(count: u64) -> String {
    match count {
        1 => "1 record is missing before this line".to_owned(),
        count => format!("{count} records are missing before this line"),
    }
}
