//! Line by line through one chain: what fits, and for what does not, what happened there and how to go on
//! behind it. Recovery, verification and reading all take from here what may follow a line.

use super::{
    anomaly::{Anomalies, Anomaly, Fault, Good, Last, Place},
    facts::Facts,
    layout::SegmentFile,
    lines::{Piece, split},
    piece::Summary,
    source::{Part, Source},
};
use crate::{
    chain::Digest,
    error::Error,
    format::{Control, Kind, Line, LineParser, Malformed, SegmentInfo, control_of},
    segment_name::{ChainNumber, SegmentName},
    storage::Storage,
};

/// The first good line that was read of a chain.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Start {
    pub(crate) seq: u64,
    pub(crate) previous: Digest,
    /// How many bad lines stand before it.
    pub(crate) holes: u64,
    pub(crate) place: Place,
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

/// What one file holds.
#[derive(Debug, Clone, Copy)]
pub(crate) struct FileCount {
    pub(crate) segment: u32,
    pub(crate) good: Good,
    /// The highest `durable` mark in it.
    pub(crate) mark: u64,
    pub(crate) void_bytes: u64,
    /// Whether anything stands in it at all.
    pub(crate) is_empty: bool,
}

/// The state of one chain while it is read.
#[derive(Debug)]
pub(crate) struct Follow {
    pub(crate) chain: ChainNumber,
    pub(crate) start: Option<Start>,
    /// The number that the next line must have.
    pub(crate) next: u64,
    /// What the next line must link to; `None` where that cannot be known.
    hash: Option<Digest>,
    /// Bad lines since the last good one.
    pub(crate) holes: u64,
    jump: Option<Jump>,
    pub(crate) good: Good,
    pub(crate) facts: Facts,
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
    pub(crate) later_format: Option<(Place, u64)>,
    /// How many anomalies there were before it.
    pub(crate) judged: usize,
    /// Whether what was read last is a record of the chain.
    pub(crate) ends_well: bool,
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
            facts: Facts::default(),
            said: Vec::new(),
            anomalies: Anomalies::default(),
            files: Vec::new(),
            line: 0,
            bad_start: None,
            void_mark: 0,
            later_format: None,
            judged: usize::MAX,
            ends_well: false,
        }
    }

    /// Follows a chain through files, from the first of them on, keeping nothing that lines say of other things.
    pub(crate) fn through(
        storage: &dyn Storage,
        chain: ChainNumber,
        files: &[SegmentFile],
    ) -> Result<Self, Error> {
        let mut follow = Self::new(chain);
        let mut parser = LineParser::default();
        let mut source = Source::new(storage, files, 0, 0);
        while let Some(part) = source.next()? {
            follow.take_in(&mut parser, &part);
            follow.said.clear();
            if let Part::Counted(Piece::Lines { bytes, .. }) | Part::Void(Piece::Lines { bytes, .. }) = part {
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
            Part::Counted(Piece::Lines { offset, ref bytes }) => {
                self.lines(parser, bytes, offset);
                return bytes.len() as u64;
            }
            Part::Counted(Piece::Overlong { offset, length }) => {
                self.bad_bytes(offset, length, false);
                return length;
            }
            Part::Counted(Piece::Unfinished { offset, length }) => {
                self.bad_bytes(offset, length, true);
                return length;
            }
            Part::Void(Piece::Lines { ref bytes, .. }) => {
                self.void(parser, bytes);
                self.count_void(bytes.len() as u64);
                return bytes.len() as u64;
            }
            Part::Void(Piece::Overlong { length, .. } | Piece::Unfinished { length, .. }) => {
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
                void_bytes: 0,
                is_empty: true,
            });
        }
    }

    /// The segment that is being read.
    pub(crate) fn segment(&self) -> u32 {
        self.files.last().map_or(0, |file| file.segment)
    }

    fn place(&self, offset: u64) -> Place {
        Place { segment: self.segment(), line: self.line, offset }
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
        if self.later_format.is_some() {
            return false;
        }
        self.line += 1;
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
            let claims = line.durable.is_some() || line.kind == Kind::Prune;
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

    fn anomaly(&self, fault: Fault, place: Place, message: String) -> Anomaly {
        Anomaly {
            fault,
            at: self.next,
            records: None,
            place,
            message,
            before: self.good,
            is_certain: false,
            is_unfinished: false,
            link: None,
            hash: None,
        }
    }

    fn malformed(&mut self, place: Place, why: String) {
        self.holes += 1;
        self.note_bad_start();
        let anomaly = self.anomaly(Fault::Malformed, place, why);
        self.anomalies.push(anomaly);
    }

    fn note_bad_start(&mut self) {
        if self.line == 1 {
            self.bad_start = Some(self.anomalies.len());
        }
    }

    /// What stands before the first good line of a file has the place before it, also where the chain had
    /// come that far already: without the line that names the file nothing tells that it is one too many.
    fn end_bad_start(&mut self, seq: u64) {
        let bad = self.bad_start.take().and_then(|number| self.anomalies.get_mut(number));
        if let Some(anomaly) = bad.filter(|anomaly| anomaly.at == seq) {
            anomaly.at = seq.saturating_sub(1).max(1);
        }
    }

    fn edited(&mut self, line: &Line<'_>, place: Place) {
        self.note_bad_start();
        let mut anomaly =
            self.anomaly(Fault::Edited, place, "the line does not match its own hash".to_owned());
        if self.start.is_some() && line.seq == self.next {
            anomaly.records = Some((line.seq, line.seq));
            // The line stands in its place. Which of its parts was changed cannot be told, so
            // whatever the next one links to is accepted: the finding is made.
            self.next = line.seq.saturating_add(1);
            self.hash = None;
        } else {
            self.holes += 1;
        }
        self.anomalies.push(anomaly);
    }

    /// A line that is right in itself: returns whether it belongs here.
    fn good_line(&mut self, line: &Line<'_>, place: Place) -> bool {
        let control = match control_of(line, self.line == 1) {
            Ok(Some(Control::Later(format))) => {
                self.later_format = Some((place, format));
                self.judged = self.anomalies.len();
                return false;
            }
            Ok(control) => control,
            Err(why) => {
                self.malformed(place, why.to_owned());
                return false;
            }
        };
        let info = match &control {
            Some(Control::Segment(info)) => Some(&**info),
            _ => None,
        };
        let name = SegmentName { chain: self.chain, segment: place.segment };
        let begins = self.line == 1 && info.is_some_and(|info| info.is_of(name));
        self.end_bad_start(line.seq);
        if !self.fits(line, place, begins) {
            return false;
        }
        if begins {
            self.segment_begins(line.seq, place);
        }
        let belongs = self.check_segment(line, info, place);
        self.mark(line.durable.unwrap_or(0));
        // A `segment` line where none belongs says nothing of this chain.
        let is_segment = info.is_some();
        if let Some(control) = control.filter(|_| belongs || !is_segment) {
            self.absorb(line.seq, control);
        }
        let last = Last { seq: line.seq, hash: line.hash, kind: line.kind };
        self.accept(last, 1, u64::from(line.kind == Kind::Event));
        true
    }

    /// Decides whether a line is the next of the chain, and notes what does not fit.
    fn fits(&mut self, line: &Line<'_>, place: Place, is_segment: bool) -> bool {
        if self.start.is_none() {
            self.begin(line, place, is_segment);
        } else if line.seq == self.next {
            // What does not begin its file as it must is judged by that: it may be what a torn sector held
            // before, and says nothing of the record before it.
            let belongs = is_segment || self.line > 1;
            if belongs && self.hash.is_some_and(|hash| hash != line.previous) {
                self.broken_link(line, place);
            }
            self.jump = None;
        } else if self.returns_from_jump(line) {
            self.jump = None;
        } else if line.seq > self.next {
            self.skip_to(line, place);
        } else {
            self.stray(line, place, is_segment);
            return false;
        }
        true
    }

    fn begin(&mut self, line: &Line<'_>, place: Place, is_segment: bool) {
        // Only now is it known where the bad lines before it stood.
        let first_hole = line.seq.saturating_sub(self.holes).max(1);
        for number in 0..self.anomalies.len() {
            if let Some(anomaly) = self.anomalies.get_mut(number) {
                // Bytes that a file lacks were the records before this one.
                let is_missing = anomaly.fault == Fault::Missing;
                anomaly.at = if is_missing { line.seq.saturating_sub(1) } else { first_hole };
            }
        }
        self.start =
            Some(Start { seq: line.seq, previous: line.previous, holes: self.holes, place, is_segment });
    }

    /// Judged by the record before: a mark for that one says that what stood there was durable, and
    /// it is no longer what the next one links to.
    fn broken_link(&mut self, line: &Line<'_>, place: Place) {
        let message = "the line does not link to the line before it: one of the two was replaced".to_owned();
        let mut anomaly = self.anomaly(Fault::BrokenLink, place, message);
        anomaly.at = line.seq.saturating_sub(1);
        anomaly.records = Some((line.seq, line.seq));
        anomaly.link = Some(line.previous);
        self.anomalies.push(anomaly);
    }

    /// Whether a line fits where the chain stood before a line with too high a number came.
    fn returns_from_jump(&mut self, line: &Line<'_>) -> bool {
        let Some(jump) = &self.jump else { return false };
        if line.seq != jump.next || jump.hash.is_some_and(|hash| hash != line.previous) {
            return false;
        }
        if let Some(anomaly) = jump.anomaly.and_then(|number| self.anomalies.get_mut(number)) {
            anomaly.fault = Fault::Inserted;
            "a line stands where it does not belong".clone_into(&mut anomaly.message);
            anomaly.records =
                anomaly.records.map(|(_, last)| (last.saturating_add(1), last.saturating_add(1)));
        }
        true
    }

    fn skip_to(&mut self, line: &Line<'_>, place: Place) {
        let missing = line.seq - self.next;
        let mut number = None;
        if missing > self.holes {
            let last = line.seq - 1;
            let message = missing_records(missing - self.holes);
            let mut anomaly = self.anomaly(Fault::Missing, place, message);
            anomaly.records = Some((self.next + self.holes, last));
            anomaly.link = Some(line.previous);
            number = Some(self.anomalies.len());
            self.anomalies.push(anomaly);
        }
        self.jump = Some(Jump { next: self.next, hash: self.hash, anomaly: number });
    }

    fn stray(&mut self, line: &Line<'_>, place: Place, is_segment: bool) {
        // Wherever it stands, it was written when that record was durable. Without it, one line put
        // in too early would take the marks from all lines that it makes come too late.
        self.mark(line.durable.unwrap_or(0));
        if !is_segment {
            self.note_bad_start();
        }
        let is_copy = self.good.last.is_some_and(|last| last.hash == line.hash);
        let (fault, message) = if is_copy {
            (Fault::Duplicate, "the line stands a second time")
        } else {
            (Fault::Inserted, "a line stands where it does not belong")
        };
        let mut anomaly = self.anomaly(fault, place, message.to_owned());
        anomaly.records = Some((line.seq, line.seq));
        anomaly.hash = Some(line.hash);
        // A segment is begun where the chain before it ends, and says what is void of that.
        anomaly.is_certain = is_segment;
        self.anomalies.push(anomaly);
    }

    /// Every file begins with the `segment` line that names it, and no other line names a file. Returns whether
    /// that holds for this line.
    fn check_segment(&mut self, line: &Line<'_>, info: Option<&SegmentInfo>, place: Place) -> bool {
        let is_first = self.line == 1;
        let name = SegmentName { chain: self.chain, segment: place.segment };
        let problem = match info {
            None if is_first => Some("the file does not begin with a `segment` line".to_owned()),
            Some(info) if !info.is_of(name) => {
                Some(format!("the line belongs to segment {} of chain {}", info.segment, info.chain))
            }
            Some(info) if self.facts.id.is_some_and(|id| id != info.id) => {
                Some("the segment belongs to a chain with another id".to_owned())
            }
            Some(_) if !is_first => Some("a `segment` line stands inside a file".to_owned()),
            _ => None,
        };
        if let Some(info) = info {
            self.facts.id.get_or_insert(info.id);
        }
        let Some(problem) = problem else { return true };
        let mut anomaly = self.anomaly(Fault::Misplaced, place, problem);
        anomaly.at = line.seq;
        anomaly.records = Some((line.seq, line.seq));
        self.anomalies.push(anomaly);
        false
    }

    /// What stands in earlier files and is not void counts from here on.
    fn segment_begins(&mut self, seq: u64, place: Place) {
        self.anomalies.make_certain();
        let void_mark = std::mem::take(&mut self.void_mark);
        if void_mark >= seq {
            let message = format!(
                "the segment declares everything from record {seq} on void, but up to record {void_mark} \
                 it had been durable"
            );
            let mut anomaly = self.anomaly(Fault::Voided, place, message);
            anomaly.records = Some((seq, void_mark));
            anomaly.is_certain = true;
            self.anomalies.push(anomaly);
        }
    }

    fn absorb(&mut self, seq: u64, control: Control) {
        self.facts.absorb(seq, &control);
        self.said.push((seq, control));
    }

    /// Takes in that a line says that this record was durable.
    fn mark(&mut self, durable: u64) {
        self.facts.mark = self.facts.mark.max(durable);
        if let Some(file) = self.files.last_mut() {
            file.mark = file.mark.max(durable);
        }
    }

    fn accept(&mut self, last: Last, lines: u64, events: u64) {
        self.holes = 0;
        self.next = last.seq.saturating_add(1);
        self.hash = Some(last.hash);
        let file = self.files.last_mut().map(|file| {
            file.is_empty = false;
            &mut file.good
        });
        for good in [Some(&mut self.good), file].into_iter().flatten() {
            good.records += lines;
            good.events += events;
            good.last = Some(last);
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
