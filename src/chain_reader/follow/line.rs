//! One line of a chain: does it belong where it stands, and if not, what happened there?

use super::{
    super::anomaly::{Anomaly, Fault, Last, LinePosition},
    FirstGood, Follow, Jump, missing_records,
};
use crate::{
    format::{Control, Line, RecordKind, SegmentInfo, Witness, control_of},
    segment_name::SegmentName,
};

impl Follow {
    pub(super) fn anomaly(&self, fault: Fault, place: LinePosition, message: String) -> Anomaly {
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

    pub(super) fn malformed(&mut self, place: LinePosition, why: String) {
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
    pub(super) fn end_bad_start(&mut self, seq: u64) {
        let bad = self.bad_start.take().and_then(|number| self.anomalies.get_mut(number));
        if let Some(anomaly) = bad.filter(|anomaly| anomaly.at == seq) {
            anomaly.at = seq.saturating_sub(1).max(1);
        }
    }

    pub(super) fn edited(&mut self, line: &Line<'_>, place: LinePosition) {
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
    pub(super) fn good_line(&mut self, line: &Line<'_>, place: LinePosition) -> bool {
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
        if let (Some(at), Some(file)) = (line.at(), self.files.last_mut()) {
            let (from, to) = file.times.unwrap_or((at, at));
            file.times = Some((from.min(at), to.max(at)));
        }
        let is_another = |named: &Witness| named.seq == line.seq && named.hash != line.hash;
        self.is_contradicted |= self.named.iter().any(is_another);
        let last = Last { seq: line.seq, hash: line.hash, kind: line.kind };
        self.accept(last, 1, u64::from(line.kind == RecordKind::Event));
        true
    }

    /// Decides whether a line is the next of the chain, and notes what does not fit.
    fn fits(&mut self, line: &Line<'_>, place: LinePosition, is_segment: bool) -> bool {
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

    fn begin(&mut self, line: &Line<'_>, place: LinePosition, is_segment: bool) {
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
            Some(FirstGood { seq: line.seq, previous: line.previous, holes: self.holes, place, is_segment });
    }

    /// Judged by the record before: a mark for that one says that what stood there was durable, and
    /// it is no longer what the next one links to.
    fn broken_link(&mut self, line: &Line<'_>, place: LinePosition) {
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

    fn skip_to(&mut self, line: &Line<'_>, place: LinePosition) {
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

    fn stray(&mut self, line: &Line<'_>, place: LinePosition, is_segment: bool) {
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
    fn check_segment(&mut self, line: &Line<'_>, info: Option<&SegmentInfo>, place: LinePosition) -> bool {
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
    fn segment_begins(&mut self, seq: u64, place: LinePosition) {
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

    pub(super) fn absorb(&mut self, seq: u64, control: Control) {
        self.facts.absorb(seq, &control);
        self.said.push((seq, control));
    }

    /// Takes in that a line says that this record was durable.
    pub(super) fn mark(&mut self, durable: u64) {
        self.facts.mark = self.facts.mark.max(durable);
        if let Some(file) = self.files.last_mut() {
            file.mark = file.mark.max(durable);
        }
    }

    pub(super) fn accept(&mut self, last: Last, lines: u64, events: u64) {
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
