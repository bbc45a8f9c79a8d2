//! Judges a chain: how far it was durable, and what each anomaly therefore is.

use crate::{
    chain::{Digest, Head},
    chain_reader::{Anomaly, Durable, Fault, Good, Last, LinePosition, durable_by_itself, missing_records},
    error::Error,
    format::RecordKind,
    storage::Storage,
};

use super::{
    finding::{Finding, FindingKind, NotChecked, NotCheckedKind, Note, NoteKind},
    report::{ChainReport, ChainState, Findings},
    track::{LookedUp, Track},
    witness::{Claim, ClaimSource},
};

/// How many lines out of place are compared with the line that they may duplicate.
const MAX_COPIES: usize = 100;

/// The evidence about a chain besides its own lines.
#[derive(Debug)]
pub(super) struct Evidence<'a> {
    /// Claims of others that the chain had a record.
    pub(super) claims: &'a [Claim],
    /// Everything up to here is trusted.
    pub(super) trusted: Option<Head>,
    /// Who holds the chain.
    pub(super) holder: Holder,
}

impl Evidence<'_> {
    fn is_held(&self) -> bool {
        self.holder == Holder::Writer
    }
}

/// Whether a writer holds a chain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Holder {
    Writer,
    Nobody,
    /// It could not be determined.
    Unknown,
}

/// Judges one chain and adds what it finds to one report.
#[derive(Debug)]
pub(super) struct Judge<'a> {
    pub(super) track: &'a Track,
    pub(super) evidence: &'a Evidence<'a>,
    pub(super) findings: &'a mut Findings,
    pub(super) not_checked: &'a mut Vec<NotChecked>,
    durable: Durable,
    /// The records that claims and anomalies refer to, as the chain has them.
    looked_up: LookedUp,
    /// Whether the torn tail of the chain was found. There is at most one.
    is_torn: bool,
}

impl<'a> Judge<'a> {
    /// Determines how far the chain was durable, and looks up the records that judging it needs.
    pub(super) fn new(
        track: &'a Track,
        evidence: &'a Evidence<'a>,
        storage: &'a dyn Storage,
        findings: &'a mut Findings,
        not_checked: &'a mut Vec<NotChecked>,
    ) -> Result<Self, Error> {
        let trusted = evidence.trusted.map(|head| (head.seq, head.hash));
        let claimed = evidence.claims.iter().filter(|claim| is_meant(claim, track)).map(|claim| claim.seq);
        let durable = Durable::of(&track.follow, &track.files, trusted, claimed);
        let (through, own) = (durable.floor.0, durable_by_itself(&track.follow));
        let last = track.follow.good.last.map(|last| last.seq);
        // Every record that is needed again is looked up in one pass over the files. The last one is known already.
        let named = evidence.claims.iter().map(|claim| claim.seq).filter(|seq| Some(*seq) != last);
        let inserted =
            track.follow.anomalies.kept().iter().filter(|anomaly| anomaly.fault == Fault::Inserted);
        let copied = inserted.filter_map(|anomaly| anomaly.records).map(|(seq, _)| seq).take(MAX_COPIES);
        let is_left = track.follow.start.is_some_and(|start| start.seq <= through);
        let floor = [through, through.saturating_add(1)].into_iter().filter(|_| is_left);
        let head = Some(own).filter(|own| last.is_some_and(|last| last > *own));
        let looked_up = track.look_up(storage, &named.chain(copied).chain(floor).chain(head).collect())?;
        Ok(Self { track, evidence, findings, not_checked, durable, looked_up, is_torn: false })
    }

    /// Judges the chain, and returns its part of the report.
    pub(super) fn run(mut self) -> (ChainReport, Vec<Note>) {
        self.absent_segments();
        self.destroyed_segments();
        self.start();
        let good = self.anomalies();
        let is_unfinished = self.unfinished();
        self.claims();
        self.floor_hash();
        let last = good.last;
        let is_closed = last.is_some_and(|last| last.kind == RecordKind::Close);
        let state = match (&self.track.follow.later_format, self.evidence.is_held(), is_closed) {
            (Some((position, format)), ..) => {
                self.later_format(*position, *format);
                ChainState::Unknown
            }
            (None, true, _) => ChainState::Live,
            (None, false, true) => {
                self.stillborn_end();
                ChainState::Closed
            }
            (None, false, false) => {
                let holder = match self.evidence.holder {
                    Holder::Unknown => {
                        "whether a writer holds it is not known: it is unclean, or still being written"
                    }
                    Holder::Nobody | Holder::Writer => "no writer holds it",
                };
                let message = format!("the chain ends without `close`, and {holder}");
                self.find(FindingKind::NotClosed, None, last.map(|last| last.seq), message);
                ChainState::NotClosed
            }
        };
        self.summary(good, state, is_unfinished)
    }

    fn find(&mut self, kind: FindingKind, position: Option<LinePosition>, seq: Option<u64>, message: String) {
        self.findings.push(Finding { kind, chain: self.track.chain, position, seq, message });
    }

    /// Finds files that a later segment counts and that are missing although retention did not remove them.
    fn absent_segments(&mut self) {
        for absent in &self.track.absent {
            if absent.bytes == 0 || absent.before_seq <= self.durable.floor.0.saturating_add(1) {
                continue;
            }
            let position = LinePosition { segment: absent.segment, line: 0, offset: 0 };
            let message = format!("the file is missing, but {} bytes of it count", absent.bytes);
            self.find(FindingKind::MissingSegment, Some(position), None, message);
        }
    }

    /// Finds files that count nothing but hold more than the first write that they held when they were given up.
    fn destroyed_segments(&mut self) {
        for file in &self.track.files {
            // A file before the first record that retention kept is a leftover.
            let (through, _) = self.durable.floor;
            let is_left_over = |before: u64| through > 0 && before <= through.saturating_add(1);
            if file.destroyed_before.is_none_or(is_left_over) {
                continue;
            }
            let position = LinePosition { segment: file.name.segment, line: 1, offset: 0 };
            let message = format!(
                "the file was given up when it held at most one line, but now has {} bytes: it was overwritten, or \
                 its content was destroyed",
                file.bytes
            );
            self.find(FindingKind::Destroyed, Some(position), None, message);
        }
    }

    /// Checks that the chain begins at record 1, or directly after what retention removed.
    fn start(&mut self) {
        let Some(start) = self.track.follow.start else { return };
        let first = self.durable.floor.0.saturating_add(1);
        let missing = start.seq.saturating_sub(first).saturating_sub(start.holes);
        let is_damage = start.is_segment || first <= self.durable.through;
        if missing > 0 && is_damage {
            let message = format!("{}, the first of the chain", missing_records(missing));
            self.find(FindingKind::Deleted, Some(start.position), Some(first), message);
        } else if start.seq == first && start.holes == 0 && start.previous != self.durable.floor.1 {
            let message = if first == 1 {
                "the first record does not link to 64 zeros".to_owned()
            } else {
                format!("the line does not link to record {}, the last before it", self.durable.floor.0)
            };
            self.find(FindingKind::BrokenLink, Some(start.position), Some(start.seq), message);
        }
    }

    /// Separates damage from a torn tail; returns how far the chain is good.
    fn anomalies(&mut self) -> Good {
        let track = self.track;
        let mut tail: Option<&Anomaly> = None;
        let mut is_only_unfinished = true;
        let mut copies = 0;
        let last_good = track.follow.files.iter().rfind(|file| file.good.records > 0);
        let last_good = last_good.map_or(0, |file| file.segment);
        // What comes behind the start of a later format is not judged.
        for anomaly in track.follow.anomalies.kept().iter().take(track.follow.judged) {
            let Some(here) = self.durable.above_floor(anomaly) else { continue };
            if !self.durable.makes_damage(anomaly) {
                // A file that its writer has just begun may not have a good line yet.
                is_only_unfinished &= anomaly.is_unfinished || anomaly.position.segment > last_good;
                tail = tail.or(Some(anomaly));
                continue;
            }
            let mut finding = Finding::of(&here, track.chain);
            if anomaly.fault == Fault::Inserted && copies < MAX_COPIES {
                copies += 1;
                self.name_copy(anomaly, &mut finding);
            }
            self.findings.push(finding);
        }
        if let Some(beyond) = track.follow.anomalies.damage_beyond(self.durable.through) {
            self.findings.count_more(beyond);
        }
        let Some(tail) = tail else { return track.follow.good };
        // A writer that holds the chain may be in the middle of a write, so an incomplete last line is normal then.
        if !(is_only_unfinished && self.evidence.is_held()) {
            self.is_torn = true;
            let lines = track.follow.good.records.saturating_sub(tail.before.records);
            let message = format!(
                "the end of the chain from here on was never durable and is torn ({lines} good lines in it)"
            );
            self.find(FindingKind::TornTail, Some(tail.position), Some(tail.at), message);
        }
        tail.before
    }

    /// Reports a file without a good line behind the end of a closed chain. Its writer may have crashed while it began
    /// the file, or its content was destroyed.
    fn stillborn_end(&mut self) {
        let Some(last) = self.track.follow.files.last().filter(|file| file.good.records == 0) else { return };
        let is_named = self.track.files.last().is_none_or(|file| file.counted.is_some());
        if self.is_torn || is_named {
            return;
        }
        let position = LinePosition { segment: last.segment, line: 1, offset: 0 };
        let message = "the file has no good line: its first write was torn, or its content was destroyed";
        self.find(FindingKind::TornTail, Some(position), None, message.to_owned());
    }

    /// Reports an inserted line as a duplicate if it is a copy of another line.
    fn name_copy(&self, anomaly: &Anomaly, finding: &mut Finding) {
        let (Some((seq, _)), Some(hash)) = (anomaly.records, anomaly.hash) else { return };
        if self.looked_up.get(&seq).is_some_and(|(known, _)| *known == hash) {
            finding.kind = FindingKind::Duplicate;
            "the line occurs a second time".clone_into(&mut finding.message);
        }
    }

    /// Judges the bytes behind the last line feed. Returns whether there are any.
    fn unfinished(&mut self) -> bool {
        let Some((offset, length)) = self.track.unfinished else { return false };
        let follow = &self.track.follow;
        let file = follow.files.last();
        let position = LinePosition {
            segment: file.map_or(0, |file| file.segment),
            line: follow.line.saturating_add(1),
            offset,
        };
        // The record that belongs here was durable.
        if follow.next <= self.durable.through {
            let message = format!("the line is incomplete ({length} bytes)");
            self.find(FindingKind::Malformed, Some(position), Some(follow.next), message);
        } else if !self.evidence.is_held() && !self.is_torn {
            let message = format!("the last line is incomplete ({length} bytes) and was never durable");
            self.find(FindingKind::TornTail, Some(position), Some(follow.next), message);
            self.is_torn = true;
        }
        true
    }

    /// Compares the chain with its own marks and with the claims of others.
    fn claims(&mut self) {
        let follow = &self.track.follow;
        // Bad lines at the end have findings of their own, and may be the records that are claimed.
        let reach = (follow.next - 1).saturating_add(follow.holes);
        if follow.later_format.is_none() && reach < follow.control.mark {
            let message = format!(
                "the chain ends with record {reach}, but its own lines say that record {} was durable",
                follow.control.mark
            );
            self.find(FindingKind::Ahead, None, Some(follow.control.mark), message);
        }
        // Records of a later format are not judged, but those read before it are.
        let is_judged = |claim: &&Claim| follow.later_format.is_none() || claim.seq <= reach;
        for claim in self.evidence.claims.iter().filter(is_judged) {
            self.claim(claim, reach);
        }
    }

    fn claim(&mut self, claim: &Claim, reach: u64) {
        let (chain, who) = (self.track.chain, claim.who());
        if !is_meant(claim, self.track) {
            let message = format!("{who} names a chain with another id, which is missing");
            self.find(FindingKind::MissingChain, None, None, message);
        } else if claim.seq > reach {
            let message = format!(
                "the chain ends with record {reach}, but {who} names record {}: it was truncated, or \
                 copied before that",
                claim.seq
            );
            self.find(FindingKind::Ahead, None, Some(claim.seq), message);
        } else if claim.seq < self.durable.floor.0 {
            if claim.source == ClaimSource::Kept {
                let message = format!(
                    "the head for record {} (the record was removed by retention, or is trusted)",
                    claim.seq
                );
                self.not_checked.push(NotChecked::of(NotCheckedKind::Head, Some(chain), message));
            }
        } else if self.hash_of(claim.seq).is_some_and(|hash| hash != claim.hash) {
            let message = format!("{who} names a different hash for this record: the chain was rewritten");
            self.find(FindingKind::HeadMismatch, None, Some(claim.seq), message);
        }
    }

    /// Returns the hash of a record. For the last removed record, it is the hash that retention recorded.
    fn hash_of(&self, seq: u64) -> Option<Digest> {
        if seq == self.durable.floor.0 {
            return Some(self.durable.floor.1);
        }
        let last = self.track.follow.good.last.filter(|last| last.seq == seq);
        last.map(|last| last.hash).or_else(|| self.looked_up.get(&seq).map(|(hash, _)| *hash))
    }

    /// Checks the last removed or trusted record, if it still exists, against the hash recorded for it.
    fn floor_hash(&mut self) {
        let (through, hash) = self.durable.floor;
        let is_left = self.track.follow.start.is_some_and(|start| start.seq <= through);
        if !is_left {
            return;
        }
        let message = match self.looked_up.get(&through) {
            Some((known, _)) if *known == hash => return,
            Some(_) => "the record does not have the hash that the chain continues from",
            None => match self.looked_up.get(&through.saturating_add(1)) {
                Some((_, previous)) if *previous != hash => "the next record does not link to this one",
                _ => return,
            },
        };
        self.find(FindingKind::HeadMismatch, None, Some(through), message.to_owned());
    }

    fn later_format(&mut self, position: LinePosition, format: u64) {
        let message = format!("the segment has format {format}, which this version cannot judge");
        self.find(FindingKind::UnsupportedFormat, Some(position), None, message);
        let message =
            format!("everything from segment {} on, whose format {format} is unknown here", position.segment);
        self.not_checked.push(NotChecked::of(NotCheckedKind::Format, Some(self.track.chain), message));
    }

    fn summary(self, good: Good, state: ChainState, is_unfinished: bool) -> (ChainReport, Vec<Note>) {
        let chain = self.track.chain;
        let mut notes = self.track.notes.kept.clone();
        // A writer that holds the chain may be about to remove these files.
        for segment in self.track.leftovers.iter().filter(|_| !self.evidence.is_held()) {
            let message = format!("segment {segment} was removed by retention and exists again");
            notes.push(Note::of(NoteKind::Leftover, chain, message));
        }
        if self.evidence.is_held() {
            let what = if is_unfinished { "; its last line is being written" } else { "" };
            notes.push(Note::of(NoteKind::Live, chain, format!("a writer holds the chain{what}")));
        }
        if let Some((through, _)) = self.track.follow.control.pruned {
            let message = format!("records 1 to {through}, removed by retention");
            self.not_checked.push(NotChecked::of(NotCheckedKind::Pruned, Some(chain), message));
        }
        if let Some(head) = self.evidence.trusted {
            let message = format!("everything up to record {}, which is trusted", head.seq);
            self.not_checked.push(NotChecked::of(NotCheckedKind::Trusted, Some(chain), message));
        }
        let head = self.head(good.last);
        let provisional =
            good.last.map_or(0, |last| last.seq.saturating_sub(head.map_or(0, |head| head.seq)));
        let report = ChainReport {
            chain,
            first: self.track.follow.start.map(|start| start.seq).filter(|_| good.records > 0),
            last: good.last.map(|last| last.seq),
            records: good.records,
            events: good.events,
            segments: self.track.follow.files.len() as u64,
            head,
            provisional,
            state,
            lost: self.track.notes.lost,
            unconfirmed: self.track.notes.unconfirmed,
        };
        (report, notes)
    }

    /// Returns the last durable record that exists.
    fn head(&self, last: Option<Last>) -> Option<Head> {
        let last = last?;
        let chain = self.track.chain;
        let durable = durable_by_itself(&self.track.follow);
        if last.seq <= durable {
            return Some(Head { chain, seq: last.seq, hash: last.hash });
        }
        if durable == 0 {
            return None;
        }
        let found = self.looked_up.get(&durable);
        found.map(|(hash, _)| Head { chain, seq: durable, hash: *hash })
    }
}

/// Returns whether a claim is about this chain, and not about another one that had the same number.
fn is_meant(claim: &Claim, track: &Track) -> bool {
    claim.id.zip(track.follow.control.id).is_none_or(|(claimed, own)| claimed == own)
}
