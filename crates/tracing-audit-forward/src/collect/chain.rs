//! A chain as it was collected, and what a line means for it. Nothing here touches a file or reads the clock.

use serde::{Deserialize, Serialize};
use tracing_audit::{Digest, Head};

use crate::{
    copy::{CopiedLine, CopyFindingKind, Witnessed},
    origin::Origin,
    sink::Gap,
    timestamp::parse_time,
};

/// The longest lists of missing ranges and of gaps. Further ranges are merged into the last one.
const MAX_RANGES: usize = 100;

/// A chain as it was collected: a row of the table of heads.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct CollectedChain {
    /// The service that writes it.
    pub service: String,
    /// The host that it comes from.
    pub host: String,
    /// The id of the chain.
    pub chain_id: String,
    /// The number of the chain in its log, once a line has shown it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub chain: Option<u16>,
    /// The directory of its log below `logs`, once a line was written.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub log: Option<String>,
    /// The number of its newest segment; 0 while there is none.
    pub segment: u32,
    /// The number of bytes of that segment that are written.
    pub bytes: u64,
    /// The sequence number of its last record; 0 while there is none.
    pub seq: u64,
    /// The sequence number of the first record in the copy; 0 while there is none.
    #[serde(default)]
    pub first: u64,
    /// The hash of the last record.
    #[serde(default, with = "as_text", skip_serializing_if = "Option::is_none")]
    pub hash: Option<Digest>,
    /// The time of that record, as written there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ts: Option<String>,
    /// Whether that record is a `close`: nothing more is expected until a program opens the log again.
    pub closed: bool,
    /// When it was received, in milliseconds since 1970 by the clock of the collector.
    pub received_ms: u64,
    /// The milliseconds between its time and its reception, by the clocks of both machines.
    pub lag_ms: u64,
    /// Ranges of records that never arrived, without an explanation.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub missing: Vec<(u64, u64)>,
    /// Ranges of records that retention had removed before they were sent, according to the forwarder.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub gaps: Vec<(u64, u64)>,
    /// The last record that retention had removed from the chain, according to the log itself.
    #[serde(default)]
    pub pruned_through: u64,
    /// When the last gap was reported.
    #[serde(default)]
    pub(super) gap_ms: u64,
    /// The number of records that arrived before the first one that begins a segment. They are not in the
    /// copy.
    #[serde(default)]
    pub unplaced: u64,
    /// The first message that was not taken because the copy is damaged. It is read again once the file is
    /// back.
    #[serde(default)]
    pub(super) untaken: u64,
    /// The first fault that was found.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fault: Option<Fault>,
    /// The number of faulty messages.
    #[serde(default)]
    pub faults: u64,
    /// The newest record that another chain of the log names as durable, and since when one has been missing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) witnessed: Option<Witness>,
}

/// Something wrong with what was sent of a chain.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Fault {
    /// The kind.
    pub kind: FaultKind,
    /// The record, as far as it can be determined.
    pub seq: u64,
    /// The place of the message in the stream, where it can be inspected.
    pub place: u64,
    /// What is wrong, in words.
    pub what: String,
}

/// What can be wrong with what was sent of a chain.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum FaultKind {
    /// Two records under one number: the log was restored, cloned or rewritten.
    Forked,
    /// A line that was not appended: it does not match its hash, does not link to the one before, or belongs to
    /// another chain or segment. Or the copy is damaged, or lacks a record that arrived late or again.
    Altered,
}

/// What another chain says about this one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Witness {
    pub(super) seq: u64,
    #[serde(with = "as_text")]
    pub(super) hash: Option<Digest>,
    pub(super) at_ms: u64,
}

/// What to do with a line.
#[derive(Debug)]
pub(super) enum Next {
    /// The line follows the last one: append it.
    Append {
        /// Whether the line begins a segment.
        begins_segment: bool,
        /// The records of other chains that the line names.
        witnessed: Vec<Witnessed>,
    },
    /// There is already a record under its number: compare the two.
    Compare { seq: u64, hash: Digest },
    /// Nothing.
    Nothing,
}

impl CollectedChain {
    pub(super) fn new(origin: &Origin, chain_id: &str) -> Self {
        Self {
            service: origin.service().to_owned(),
            host: origin.host().to_owned(),
            chain_id: chain_id.to_owned(),
            chain: None,
            log: None,
            segment: 0,
            bytes: 0,
            seq: 0,
            first: 0,
            hash: None,
            ts: None,
            closed: false,
            received_ms: 0,
            lag_ms: 0,
            missing: Vec::new(),
            gaps: Vec::new(),
            pruned_through: 0,
            gap_ms: 0,
            unplaced: 0,
            untaken: 0,
            fault: None,
            faults: 0,
            witnessed: None,
        }
    }

    /// Returns the last record, to be kept or compared elsewhere.
    #[must_use]
    pub fn head(&self) -> Option<Head> {
        format!("{:03}/{}:{}", self.chain?, self.seq, self.hash?).parse().ok()
    }

    /// Returns the origin of its log. `None` if the names in the table are not valid.
    #[must_use]
    pub fn origin(&self) -> Option<Origin> {
        Origin::new(&*self.service, &*self.host).ok()
    }

    /// Returns the name of the file of its newest segment.
    pub(super) fn file_name(&self) -> String {
        format!("audit-{:03}-{:08}.jsonl", self.chain.unwrap_or_default(), self.segment)
    }

    /// Judges a line, and updates the state if the line follows the last one.
    pub(super) fn take(&mut self, line: &[u8], place: u64, now_ms: u64) -> Next {
        let parsed = match CopiedLine::parse(line) {
            Ok(parsed) => parsed,
            Err(what) => return self.altered(self.seq + 1, place, &what.to_string()),
        };
        let seq = parsed.seq;
        if seq <= self.seq {
            // What lies before the first record was never in the copy.
            let is_before = seq < self.first;
            return if is_before { Next::Nothing } else { Next::Compare { seq, hash: parsed.hash } };
        }
        let identity = parsed.identity();
        if identity.as_ref().is_some_and(|identity| identity.id != self.chain_id) {
            return self.altered(seq, place, "the record names another chain");
        }
        // A chain is written from the first line of a segment on, because only that shows to which file it
        // belongs.
        if self.segment == 0 && identity.is_none() {
            self.unplaced += 1;
            return Next::Nothing;
        }
        if let Some(identity) = &identity
            && (identity.segment <= self.segment || self.chain.is_some_and(|chain| chain != identity.chain))
        {
            return self.altered(seq, place, "the record begins a segment that is out of order");
        }
        if seq == self.seq + 1 && !self.is_linked(&parsed) {
            let what = CopyFindingKind::Link;
            return self.altered(seq, place, &what.to_string());
        }
        let expected = self.expected();
        if seq < expected {
            self.note(
                FaultKind::Forked,
                seq,
                place,
                "the record arrived although its forwarder had reported it as removed",
            );
        }
        let pruned = parsed.prune().map_or(0, |(through, _)| through).min(seq - 1);
        self.pruned_through = self.pruned_through.max(pruned);
        if seq > expected {
            // A chain may begin where retention ended, if its first line says so.
            let begun = if self.seq == 0 { pruned } else { 0 };
            let first = expected.max(begun + 1);
            if first < seq {
                add_range(&mut self.missing, first, seq - 1);
            }
        }
        if let Some(identity) = &identity {
            (self.chain, self.segment, self.bytes) = (Some(identity.chain), identity.segment, 0);
        }
        self.advance(&parsed, now_ms);
        self.bytes += line.len() as u64 + 1;
        Next::Append { begins_segment: identity.is_some(), witnessed: parsed.witnessed() }
    }

    /// Returns the number of the next record.
    fn expected(&self) -> u64 {
        let behind_gap = self.gaps.last().map_or(0, |(_, last)| *last);
        self.seq.max(behind_gap) + 1
    }

    /// Returns whether a line links to the last record, or to none if it is the first of all.
    fn is_linked(&self, line: &CopiedLine<'_>) -> bool {
        match self.hash {
            Some(hash) => line.previous == hash,
            None => line.previous.as_bytes() == &[0; 32],
        }
    }

    fn advance(&mut self, line: &CopiedLine<'_>, now_ms: u64) {
        (self.seq, self.hash) = (line.seq, Some(line.hash));
        if self.first == 0 {
            self.first = line.seq;
        }
        let ts = line.members.get("ts").map(|ts| ts.get().trim_matches('"').to_owned());
        let written_ms = ts.as_deref().and_then(|ts| parse_time(ts.as_bytes())).map(|(at, _)| millis(at));
        self.lag_ms = written_ms.map_or(0, |written| now_ms.saturating_sub(written));
        self.ts = ts;
        self.closed = line.kind() == Some("close");
        self.received_ms = now_ms;
        if let Some(witness) = self.witnessed.take_if(|witness| witness.seq <= self.seq)
            && witness.seq == self.seq
            && witness.hash != self.hash
        {
            let what = "another chain of the log names another record here";
            self.note(FaultKind::Forked, line.seq, 0, what);
        }
    }

    /// Adds the gap of records that retention removed.
    pub(super) fn gap(&mut self, gap: &Gap, now_ms: u64) {
        self.gap_ms = now_ms;
        self.chain.get_or_insert(gap.chain);
        let expected = self.expected();
        if gap.first_seq > expected {
            add_range(&mut self.missing, expected, gap.first_seq - 1);
        }
        let first = gap.first_seq.max(expected);
        if first <= gap.last_seq {
            add_range(&mut self.gaps, first, gap.last_seq);
        }
    }

    /// Records what another chain of the log says about this one.
    pub(super) fn witness(&mut self, witnessed: &Witnessed, place: u64, now_ms: u64) {
        self.chain.get_or_insert(witnessed.chain);
        if witnessed.seq == self.seq && self.hash != Some(witnessed.hash) {
            self.note(
                FaultKind::Forked,
                self.seq,
                place,
                "another chain of the log names another record here",
            );
        }
        if witnessed.seq > self.seq.max(self.witnessed.as_ref().map_or(0, |known| known.seq)) {
            let hash = Some(witnessed.hash);
            // The wait begins when something is first known to be missing.
            let at_ms = self.witnessed.as_ref().map_or(now_ms, |known| known.at_ms);
            self.witnessed = Some(Witness { seq: witnessed.seq, hash, at_ms });
        }
    }

    /// Records the result of comparing a record with the one under its number. `None` if that one is not in
    /// the copy.
    pub(super) fn compared(&mut self, seq: u64, hash: Digest, here: Option<Digest>, place: u64) {
        match here {
            Some(here) if here == hash => {}
            Some(here) => {
                let what =
                    format!("the record {hash} arrived under a number that has the record {here} already");
                self.note(FaultKind::Forked, seq, place, &what);
            }
            None => {
                let what = "the record came late, or a second time, and is not in the copy: it was passed over, or the copy was \
                            damaged; it is in the stream";
                self.note(FaultKind::Altered, seq, place, what);
            }
        }
    }

    /// Returns the gaps that the log itself does not explain by retention.
    pub(super) fn unexplained_gaps(&self) -> Vec<(u64, u64)> {
        self.gaps.iter().copied().filter(|(_, last)| *last > self.pruned_through).collect()
    }

    /// Returns whether there is anything for [`settle`](Self::settle) to clear.
    pub(super) fn has_alarm(&self) -> bool {
        let is_missing = !self.missing.is_empty() || self.unplaced > 0 || !self.unexplained_gaps().is_empty();
        self.fault.is_some() || self.witnessed.is_some() || is_missing
    }

    /// Clears what was found.
    pub(super) fn settle(&mut self) {
        (self.fault, self.faults, self.witnessed) = (None, 0, None);
        self.unplaced = 0;
        self.pruned_through = self.pruned_through.max(self.gaps.last().map_or(0, |(_, last)| *last));
        self.missing.clear();
    }

    fn altered(&mut self, seq: u64, place: u64, what: &str) -> Next {
        self.note(FaultKind::Altered, seq, place, what);
        Next::Nothing
    }

    pub(super) fn note(&mut self, kind: FaultKind, seq: u64, place: u64, what: &str) {
        self.faults += 1;
        self.fault.get_or_insert_with(|| Fault { kind, seq, place, what: what.to_owned() });
    }
}

/// Adds a range after the others.
fn add_range(ranges: &mut Vec<(u64, u64)>, first: u64, last: u64) {
    let is_full = ranges.len() >= MAX_RANGES;
    match ranges.last_mut() {
        Some(before) if before.1 + 1 == first || is_full => before.1 = last,
        _ => ranges.push((first, last)),
    }
}

/// Returns the milliseconds since 1970.
pub(super) fn millis(at: std::time::SystemTime) -> u64 {
    let since = at.duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// Serialises a hash as its digits.
mod as_text {
    use serde::{Deserialize, Deserializer, Serializer, de::Error};
    use tracing_audit::Digest;

    #[expect(clippy::ref_option, reason = "serde gives it so")]
    pub(super) fn serialize<S: Serializer>(hash: &Option<Digest>, serializer: S) -> Result<S::Ok, S::Error> {
        match hash {
            Some(hash) => serializer.collect_str(hash),
            None => serializer.serialize_none(),
        }
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Option<Digest>, D::Error> {
        let text = Option::<String>::deserialize(deserializer)?;
        text.map(|text| text.parse().map_err(D::Error::custom)).transpose()
    }
}
