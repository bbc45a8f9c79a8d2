//! A single line of a chain: whether it belongs where it is, and if not, what happened there.

use super::{
    super::anomaly::{Anomaly, Fault, Last, LinePosition},
    FirstGood, Follow, Jump, missing_records,
};
use crate::{
    format::{Control, Line, RecordKind, SegmentInfo, Witness, control_of},
    segment_name::SegmentName,
};

impl Follow {
    /// Returns an anomaly at the present position in the chain, without adding it.
    pub(super) fn anomaly(&self, fault: Fault, position: LinePosition, message: String) -> Anomaly {
        Anomaly {
            fault,
            at: self.next,
            records: None,
            position,
            message,
            before: self.good,
            is_certain: false,
            is_unfinished: false,
            link: None,
            hash: None,
        }
    }

    /// Adds an anomaly for bytes that are not a record.
    pub(super) fn malformed(&mut self, position: LinePosition, why: String) {
        self.holes += 1;
        self.note_bad_start();
        let anomaly = self.anomaly(Fault::Malformed, position, why);
        self.anomalies.push(anomaly);
    }

    /// Remembers the next anomaly if it is about the first line of the file, whose position may be corrected later.
    fn note_bad_start(&mut self) {
        if self.line == 1 {
            self.bad_start = Some(self.anomalies.len());
        }
    }

    /// Corrects the position of a bad first line when the first good line of its file is read. The bad line takes the
    /// position before it, even if the chain had already reached that one. Without a line that names the file, nothing
    /// shows that it is one line too many.
    pub(super) fn end_bad_start(&mut self, seq: u64) {
        let bad = self.bad_start.take().and_then(|number| self.anomalies.get_mut(number));
        if let Some(anomaly) = bad.filter(|anomaly| anomaly.at == seq) {
            anomaly.at = seq.saturating_sub(1).max(1);
        }
    }

    /// Adds an anomaly for a line that does not match its own hash.
    pub(super) fn edited(&mut self, line: &Line<'_>, position: LinePosition) {
        self.note_bad_start();
        let mut anomaly =
            self.anomaly(Fault::Edited, position, "the line does not match its own hash".to_owned());
        if self.start.is_some() && line.seq == self.next {
            anomaly.records = Some((line.seq, line.seq));
            // The line is in its place. Which part of it was changed is unknown, so the next line may link to
            // anything: the damage is already recorded.
            self.next = line.seq.saturating_add(1);
            self.hash = None;
        } else {
            self.holes += 1;
        }
        self.anomalies.push(anomaly);
    }

    /// Takes in a line that is valid in itself. Returns whether it belongs here.
    pub(super) fn good_line(&mut self, line: &Line<'_>, position: LinePosition) -> bool {
        let control = match control_of(line, self.line == 1) {
            Ok(Some(Control::Later(format))) => {
                self.later_format = Some((position, format));
                self.judged = self.anomalies.len();
                return false;
            }
            Ok(control) => control,
            Err(why) => {
                self.malformed(position, why.to_owned());
                return false;
            }
        };
        let info = match &control {
            Some(Control::Segment(info)) => Some(&**info),
            _ => None,
        };
        let name = SegmentName { chain: self.chain, segment: position.segment };
        let begins = self.line == 1 && info.is_some_and(|info| info.is_of(name));
        self.end_bad_start(line.seq);
        if !self.fits(line, position, begins) {
            return false;
        }
        if begins {
            self.segment_begins(line.seq, position);
        }
        // A mark was true when its line was written, so it counts even if the line is in the wrong place.
        let belongs = self.check_segment(line, info, position);
        self.mark(line.durable.unwrap_or(0));
        // A `segment` line in the wrong place says nothing about this chain.
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

    /// Decides whether a line is the next of the chain, and records what does not fit.
    fn fits(&mut self, line: &Line<'_>, position: LinePosition, is_segment: bool) -> bool {
        if self.start.is_none() {
            self.begin(line, position, is_segment);
        } else if line.seq == self.next {
            // A file whose first line is not its `segment` line has an anomaly for that already. The line may be stale
            // content of a torn sector, so its link says nothing about the record before it.
            let belongs = is_segment || self.line > 1;
            if belongs && self.hash.is_some_and(|hash| hash != line.previous) {
                self.broken_link(line, position);
            }
            self.jump = None;
        } else if self.returns_from_jump(line) {
            self.jump = None;
        } else if line.seq > self.next {
            self.skip_to(line, position);
        } else {
            self.stray(line, position, is_segment);
            return false;
        }
        true
    }

    /// Begins the chain with its first good line, and corrects the positions of the anomalies before it.
    fn begin(&mut self, line: &Line<'_>, position: LinePosition, is_segment: bool) {
        // Only now are the sequence numbers of the bad lines before it known.
        let first_hole = line.seq.saturating_sub(self.holes).max(1);
        for number in 0..self.anomalies.len() {
            if let Some(anomaly) = self.anomalies.get_mut(number) {
                // If a file is too short, the missing bytes held the records before this one.
                let is_missing = anomaly.fault == Fault::Missing;
                anomaly.at = if is_missing { line.seq.saturating_sub(1) } else { first_hole };
            }
        }
        self.start = Some(FirstGood {
            seq: line.seq,
            previous: line.previous,
            holes: self.holes,
            position,
            is_segment,
        });
    }

    /// Adds an anomaly for a line that does not link to the one before. Its position is that of the record before. If
    /// a mark covers that record, a durable one was replaced, because this line links to something else.
    fn broken_link(&mut self, line: &Line<'_>, position: LinePosition) {
        let message = "the line does not link to the line before it: one of the two was replaced".to_owned();
        let mut anomaly = self.anomaly(Fault::BrokenLink, position, message);
        anomaly.at = line.seq.saturating_sub(1);
        anomaly.records = Some((line.seq, line.seq));
        anomaly.link = Some(line.previous);
        self.anomalies.push(anomaly);
    }

    /// Returns whether a line continues the chain from before the jump to a line with too high a number.
    fn returns_from_jump(&mut self, line: &Line<'_>) -> bool {
        let Some(jump) = &self.jump else { return false };
        if line.seq != jump.next || jump.hash.is_some_and(|hash| hash != line.previous) {
            return false;
        }
        if let Some(anomaly) = jump.anomaly.and_then(|number| self.anomalies.get_mut(number)) {
            // The anomaly was about the missing records before the line. Now it is about the line itself.
            anomaly.fault = Fault::Inserted;
            "the line is in the wrong place".clone_into(&mut anomaly.message);
            anomaly.records =
                anomaly.records.map(|(_, last)| (last.saturating_add(1), last.saturating_add(1)));
        }
        true
    }

    /// Accepts a line with too high a number, and adds an anomaly for the missing records.
    fn skip_to(&mut self, line: &Line<'_>, position: LinePosition) {
        let missing = line.seq - self.next;
        let mut number = None;
        // Each bad line since the last good one accounts for one of the missing numbers.
        if missing > self.holes {
            let last = line.seq - 1;
            let message = missing_records(missing - self.holes);
            let mut anomaly = self.anomaly(Fault::Missing, position, message);
            anomaly.records = Some((self.next + self.holes, last));
            anomaly.link = Some(line.previous);
            number = Some(self.anomalies.len());
            self.anomalies.push(anomaly);
        }
        self.jump = Some(Jump { next: self.next, hash: self.hash, anomaly: number });
    }

    /// Adds an anomaly for a line with too low a number.
    fn stray(&mut self, line: &Line<'_>, position: LinePosition, is_segment: bool) {
        // Wherever the line is now, its mark was true when it was written. If it were ignored, a single line
        // moved forward would invalidate the marks of all lines that then seem to come too late.
        self.mark(line.durable.unwrap_or(0));
        if !is_segment {
            self.note_bad_start();
        }
        let is_copy = self.good.last.is_some_and(|last| last.hash == line.hash);
        let (fault, message) = if is_copy {
            (Fault::Duplicate, "the line occurs a second time")
        } else {
            (Fault::Inserted, "the line is in the wrong place")
        };
        let mut anomaly = self.anomaly(fault, position, message.to_owned());
        anomaly.records = Some((line.seq, line.seq));
        anomaly.hash = Some(line.hash);
        // A segment begins where the chain before it ends, and declares what is void. So this line is damage.
        anomaly.is_certain = is_segment;
        self.anomalies.push(anomaly);
    }

    /// Checks that a file begins with the `segment` line that names it, and that no other line names a file. Returns
    /// whether the line passes.
    fn check_segment(&mut self, line: &Line<'_>, info: Option<&SegmentInfo>, position: LinePosition) -> bool {
        let is_first = self.line == 1;
        let name = SegmentName { chain: self.chain, segment: position.segment };
        let problem = match info {
            None if is_first => Some("the file does not begin with a `segment` line".to_owned()),
            Some(info) if !info.is_of(name) => {
                Some(format!("the line belongs to segment {} of chain {}", info.segment, info.chain))
            }
            Some(info) if self.control.id.is_some_and(|id| id != info.id) => {
                Some("the segment belongs to a chain with another id".to_owned())
            }
            Some(_) if !is_first => Some("a `segment` line is not the first line of its file".to_owned()),
            _ => None,
        };
        if let Some(info) = info {
            self.control.id.get_or_insert(info.id);
        }
        let Some(problem) = problem else { return true };
        let mut anomaly = self.anomaly(Fault::Misplaced, position, problem);
        anomaly.at = line.seq;
        anomaly.records = Some((line.seq, line.seq));
        self.anomalies.push(anomaly);
        false
    }

    /// Begins a segment: everything in earlier files that is not void counts from here on.
    fn segment_begins(&mut self, seq: u64, position: LinePosition) {
        self.anomalies.make_certain();
        let void_mark = std::mem::take(&mut self.void_mark);
        if void_mark >= seq {
            let message = format!(
                "the segment declares everything from record {seq} on void, but the chain was durable \
                 up to record {void_mark}"
            );
            let mut anomaly = self.anomaly(Fault::Voided, position, message);
            anomaly.records = Some((seq, void_mark));
            anomaly.is_certain = true;
            self.anomalies.push(anomaly);
        }
    }

    /// Takes in the content of a control line.
    pub(super) fn absorb(&mut self, seq: u64, control: Control) {
        self.control.absorb(seq, &control);
        self.controls.push((seq, control));
    }

    /// Takes in the statement of a line that this record was durable.
    pub(super) fn mark(&mut self, durable: u64) {
        self.control.mark = self.control.mark.max(durable);
        if let Some(file) = self.files.last_mut() {
            file.mark = file.mark.max(durable);
        }
    }

    /// Takes in good lines that end with this one.
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
