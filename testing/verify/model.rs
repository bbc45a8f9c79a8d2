//! The expected result of an edit of a log, computed without any code of the verifier. A log is read as plain JSON,
//! line by line, and the rules of docs/format.md section 6 are applied to what an edit did.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value as Json;

use super::log::Log;
use crate::{Verdict, segment_name::SegmentName};

/// A record that counts, and its position.
#[derive(Debug, Clone)]
pub(super) struct Row {
    pub(super) segment: u32,
    /// The index of its line in the file.
    pub(super) line: usize,
    pub(super) seq: u64,
    pub(super) kind: String,
    pub(super) bytes: Vec<u8>,
    pub(super) hash: String,
    /// Its `durable`, or its `through` if that is higher.
    mark: u64,
    /// The last record that retention removed, as it states.
    through: Option<u64>,
    /// The heads of other chains that it names.
    witnessed: Vec<(u16, u64)>,
    pub(super) ts: String,
}

/// A file of a chain.
#[derive(Debug, Clone, Default)]
pub(super) struct Chunk {
    pub(super) bytes: Vec<u8>,
    /// How many of its bytes count.
    pub(super) counted: usize,
    /// Its statements about earlier files.
    after: Vec<(u32, u64)>,
}

/// A chain as it was written.
#[derive(Debug, Clone, Default)]
pub(super) struct Written {
    pub(super) files: BTreeMap<u32, Chunk>,
    pub(super) rows: Vec<Row>,
    /// Whether any bytes follow the last record of the last file.
    pub(super) has_torn_end: bool,
    /// Whether files that retention removed exist again.
    has_leftovers: bool,
}

/// A log as it was written.
#[derive(Debug, Clone)]
pub(super) struct Honest {
    pub(super) name: &'static str,
    pub(super) log: Log,
    pub(super) chains: BTreeMap<u16, Written>,
}

/// The effect of an edit on one chain.
#[derive(Debug, Clone)]
pub(super) struct Effect {
    pub(super) chain: u16,
    /// The sequence number of the first record that is no longer in its place.
    pub(super) first: u64,
    /// The records whose own marks may be gone or out of place after the edit.
    pub(super) touched: BTreeSet<u64>,
    pub(super) shape: Shape,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Shape {
    /// There is something that cannot belong there, or a record is missing before others.
    Visible,
    /// The same, where more may be wrong than the model follows: the verdict is at least this bad.
    AtLeast,
    /// Everything from this record on is gone, cut at the end of a line.
    Cut,
    /// The same, and the file that held the records is left without a line.
    Emptied,
    /// Records from this one on have different content and matching hashes.
    Rewritten,
    /// Good lines follow the end; whether the last of them is `close`.
    Appended { closed: bool },
    /// Only bytes that do not count were changed.
    Void,
    /// The whole chain is missing.
    Gone,
}

/// The expected result of a verification.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Expected {
    pub(super) verdict: Verdict,
    /// Whether a worse verdict is accepted too.
    pub(super) or_worse: bool,
}

fn number(json: &Json) -> u64 {
    json.as_u64().unwrap_or(0)
}

/// Parses a line as JSON; `None` if it is not a record.
fn row(segment: u32, line: usize, bytes: &[u8]) -> Option<(Row, Json)> {
    let json: Json = serde_json::from_slice(bytes.strip_suffix(b"\n")?).ok()?;
    let kind = json["kind"].as_str()?.to_owned();
    let own = &json[&kind];
    let cut = if kind == "segment" { &own["pruned"] } else { own };
    let through = cut["through"].as_u64();
    let prune = if kind == "prune" { number(&own["through"]) } else { 0 };
    let witnessed = own["chains"].as_object().into_iter().flatten();
    let witnessed = witnessed.map(|(chain, seen)| (chain.parse().unwrap(), number(&seen["seq"]))).collect();
    let row = Row {
        segment,
        line,
        seq: json["seq"].as_u64()?,
        kind,
        bytes: bytes.to_vec(),
        hash: json["_hash"].as_str()?.to_owned(),
        mark: number(&json["durable"]).max(prune),
        through,
        witnessed,
        ts: json["ts"].as_str()?.to_owned(),
    };
    Some((row, json))
}

impl Written {
    fn of(files: BTreeMap<u32, Vec<u8>>) -> Self {
        let mut chain = Self::default();
        let mut counts = BTreeMap::new();
        for (segment, bytes) in files.into_iter().rev() {
            let counted = counts.get(&segment).copied().unwrap_or(bytes.len() as u64);
            let first =
                bytes.split_inclusive(|byte| *byte == b'\n').next().and_then(|line| row(segment, 0, line));
            let claims = first.map(|(_, json)| json["segment"]["after"].clone()).unwrap_or_default();
            let claims = claims.as_array().cloned().unwrap_or_default();
            let after: Vec<_> = claims
                .iter()
                .map(|claim| (u32::try_from(number(&claim["segment"])).unwrap(), number(&claim["bytes"])))
                .collect();
            if counted > 0 {
                for (earlier, bytes) in &after {
                    counts.entry(*earlier).or_insert(*bytes);
                }
            }
            let counted = usize::try_from(counted).unwrap();
            chain.files.insert(segment, Chunk { bytes, counted, after });
        }
        chain.read();
        chain
    }

    fn read(&mut self) {
        for (segment, file) in &self.files {
            let counted = &file.bytes[..file.counted];
            for (line, bytes) in counted.split_inclusive(|byte| *byte == b'\n').enumerate() {
                let Some((row, _)) = row(*segment, line, bytes) else {
                    self.has_torn_end = true;
                    break;
                };
                assert!(!self.has_torn_end, "only the last file may be torn");
                self.rows.push(row);
            }
        }
        let through = self.rows.iter().filter_map(|row| row.through).max().unwrap_or(0);
        self.has_leftovers = self.rows[0].seq <= through;
        self.rows.retain(|row| row.seq > through);
        assert!(self.rows.windows(2).all(|pair| pair[0].seq + 1 == pair[1].seq));
    }

    pub(super) fn last(&self) -> &Row {
        self.rows.last().unwrap()
    }

    pub(super) fn last_file(&self) -> u32 {
        self.last().segment
    }

    /// Returns whether the first line of a file declares existing bytes void.
    pub(super) fn voids(&self, segment: u32) -> bool {
        self.files[&segment].after.iter().any(|(earlier, bytes)| {
            self.files.get(earlier).is_some_and(|file| file.bytes.len() as u64 > *bytes)
        })
    }

    pub(super) fn rows_of(&self, segment: u32) -> impl Iterator<Item = &Row> {
        self.rows.iter().filter(move |row| row.segment == segment)
    }

    /// Returns the files with records that count.
    pub(super) fn live_files(&self) -> Vec<u32> {
        let files: BTreeSet<u32> = self.rows.iter().map(|row| row.segment).collect();
        files.into_iter().collect()
    }

    /// Returns the highest mark that an edit leaves in the lines of the chain itself.
    fn own_mark(&self, left: impl Fn(&Row) -> bool) -> u64 {
        let marks = self.rows.iter().filter(|row| left(row)).map(|row| row.mark);
        let closed = Some(self.last()).filter(|last| last.kind == "close" && left(last)).map(|last| last.seq);
        marks.chain(closed).max().unwrap_or(0)
    }

    /// Returns whether the first record that an edit leaves is the first possible one.
    fn begins_well(&self, left: impl Fn(&Row) -> bool) -> bool {
        let first = self.rows[0].seq;
        let said = |row: &Row| row.through == Some(first - 1) && left(row);
        first == 1 || self.has_leftovers || self.rows.iter().any(said)
    }
}

fn witnessed_by<'a>(rows: impl Iterator<Item = &'a Row>, chain: u16) -> Option<u64> {
    let seen = rows.flat_map(|row| &row.witnessed).filter(|(about, _)| *about == chain);
    seen.map(|(_, seq)| *seq).max()
}

impl Honest {
    pub(super) fn new(name: &'static str, log: Log) -> Self {
        let mut files: BTreeMap<u16, BTreeMap<u32, Vec<u8>>> = BTreeMap::new();
        for (file, bytes) in &log.files {
            let parsed = SegmentName::parse(file).unwrap();
            files.entry(parsed.chain.get()).or_default().insert(parsed.segment, bytes.clone());
        }
        let chains = files.into_iter().map(|(chain, files)| (chain, Written::of(files))).collect();
        let honest = Self { name, log, chains };
        let report = honest.log.verify();
        assert_eq!(report.verdict(), honest.as_it_was(None), "{name}\n{report}");
        honest
    }

    /// Returns the verdict on how the chains ended, all but one.
    fn as_it_was(&self, without: Option<u16>) -> Verdict {
        let ended = |chain: &Written| {
            let is_clean = chain.last().kind == "close" && !chain.has_torn_end;
            if is_clean { Verdict::Intact } else { Verdict::Unclean }
        };
        let others = self.chains.iter().filter(|(number, _)| Some(**number) != without);
        others.map(|(_, chain)| ended(chain)).max().unwrap_or(Verdict::Intact)
    }

    /// Returns the highest record of a chain that another one names.
    fn witnessed(&self, chain: u16) -> Option<u64> {
        let others = self.chains.iter().filter(|(number, _)| **number != chain);
        witnessed_by(others.flat_map(|(_, other)| &other.rows), chain)
    }

    /// Returns the last record of a chain that is known to be durable.
    pub(super) fn durable(&self, chain: u16) -> u64 {
        self.chains[&chain].own_mark(|_| true).max(self.witnessed(chain).unwrap_or(0))
    }

    /// Returns the expected result if every chain was cut. What was cut off can no longer witness anything.
    pub(super) fn all_cut(&self, effects: &[Effect], kept: impl Fn(u16) -> Option<u64>) -> Expected {
        let verdicts = effects.iter().map(|effect| {
            let others = effects.iter().filter(|other| other.chain != effect.chain);
            let left = others
                .flat_map(|other| self.chains[&other.chain].rows.iter().filter(|row| row.seq < other.first));
            self.cut(effect, witnessed_by(left, effect.chain).max(kept(effect.chain)))
        });
        Expected { verdict: verdicts.max().unwrap_or(Verdict::Intact), or_worse: false }
    }

    /// Returns the verdict on a single chain that was cut; `named` is the highest record that is named elsewhere.
    fn cut(&self, effect: &Effect, named: Option<u64>) -> Verdict {
        let chain = &self.chains[&effect.chain];
        let left = |row: &Row| row.seq < effect.first;
        let last = chain.rows.iter().rfind(|row| left(row));
        if named.is_some_and(|named| effect.first <= named) || !chain.begins_well(left) {
            Verdict::Damaged
        } else if last.is_some_and(|row| row.kind == "close") {
            Verdict::Intact
        } else {
            Verdict::Unclean
        }
    }

    /// Returns the expected result after an edit; `kept` is the sequence number of the head that is given.
    pub(super) fn expected(&self, effect: &Effect, kept: Option<u64>) -> Expected {
        let chain = &self.chains[&effect.chain];
        let others = self.as_it_was(Some(effect.chain));
        let named = self.witnessed(effect.chain).max(kept);
        let (first, reach) = (effect.first, named.unwrap_or(0));
        let exactly = |verdict: Verdict| Expected { verdict: verdict.max(others), or_worse: false };
        let damaged_if =
            |is_damaged: bool, else_: Verdict| exactly(if is_damaged { Verdict::Damaged } else { else_ });
        let is_clean = |is_clean: bool| if is_clean { Verdict::Intact } else { Verdict::Unclean };
        match effect.shape {
            Shape::Void => exactly(self.as_it_was(None)),
            Shape::Gone => damaged_if(named.is_some(), Verdict::Intact),
            Shape::Rewritten => damaged_if(first <= reach, self.as_it_was(None)),
            Shape::Appended { closed } => exactly(is_clean(closed)),
            Shape::Cut => exactly(self.cut(effect, named)),
            Shape::Emptied => exactly(self.cut(effect, named).max(Verdict::Unclean)),
            Shape::Visible | Shape::AtLeast => {
                let left = |row: &Row| !effect.touched.contains(&row.seq);
                let here = chain.rows.iter().find(|row| row.seq == first).map_or(u32::MAX, |row| row.segment);
                // A later segment that is unchanged and does not declare it void.
                let stands = |row: &Row| row.line == 0 && row.segment > here && left(row);
                let is_damaged = first <= chain.own_mark(left).max(reach)
                    || chain.rows.iter().any(stands)
                    || !chain.begins_well(left);
                let or_worse = effect.shape == Shape::AtLeast;
                Expected { or_worse, ..damaged_if(is_damaged, Verdict::Unclean) }
            }
        }
    }
}
