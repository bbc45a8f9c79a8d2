//! Unconfirmed records, and the lines that name them.

use std::{
    collections::{BTreeMap, HashMap},
    ops::RangeInclusive,
    path::Path,
};

use tracing_audit::{Record, RecordKind, Value};

use super::{
    Hit, Trouble,
    chunks::{Chunk, Lines, Window},
    log::{Chain, Log},
    needles::Needles,
};

/// The log format that this version knows.
const FORMAT: u64 = 1;

/// A set of unconfirmed records, as disjoint ranges by chain: the last number, by the first.
#[derive(Debug, Default, Clone)]
pub(crate) struct UnconfirmedSet(HashMap<u16, BTreeMap<u64, u64>>);

impl UnconfirmedSet {
    pub(crate) fn names(&self, chain: u16, seq: u64) -> bool {
        let ranges = self.0.get(&chain).filter(|ranges| !ranges.is_empty());
        ranges.and_then(|ranges| ranges.range(..=seq).next_back()).is_some_and(|(_, last)| *last >= seq)
    }

    /// Makes a hit of a record, which is unconfirmed if the set has it or its own chain says so.
    pub(crate) fn hit(&self, record: Record) -> Hit {
        let is_named = self.names(record.chain(), record.seq());
        let hit = Hit::of(record);
        Hit { is_unconfirmed: hit.is_unconfirmed || is_named, ..hit }
    }

    /// Adds the records that a line names. `ids` are the ids of the chains by their numbers.
    pub(crate) fn note(&mut self, record: &Record, ids: &HashMap<u16, String>) {
        self.merge(Self::said_by(record, ids));
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Returns whether both have a record in common.
    pub(crate) fn overlaps(&self, other: &Self) -> bool {
        other.0.iter().any(|(chain, ranges)| {
            ranges.iter().any(|(first, last)| {
                // Ranges are disjoint, so only the last one that begins before the end of the other can overlap it.
                let before = self.0.get(chain).and_then(|ranges| ranges.range(..=last).next_back());
                before.is_some_and(|(_, end)| end >= first)
            })
        })
    }

    /// Returns the records that a line names.
    pub(crate) fn said_by(record: &Record, ids: &HashMap<u16, String>) -> Self {
        let mut set = Self::default();
        let Some(Named { chain, is_other, id, ranges }) = named_by(record) else { return set };
        // An earlier chain may have had this number, before the log was restarted from scratch. Only the id distinguishes them.
        if !is_other || id == ids.get(&chain).map(String::as_str) {
            for (first, last) in ranges {
                set.add(chain, first, last);
            }
        }
        set
    }

    pub(crate) fn merge(&mut self, other: Self) {
        for (chain, ranges) in other.0 {
            for (first, last) in ranges {
                self.add(chain, first, last);
            }
        }
    }

    pub(crate) fn add(&mut self, chain: u16, mut first: u64, mut last: u64) {
        let ranges = self.0.entry(chain).or_default();
        // Join all ranges that overlap, so that a set has few ranges however often a record is named.
        while let Some((from, to)) = ranges.range(..=last).next_back().map(|(from, to)| (*from, *to)) {
            if to < first {
                break;
            }
            (first, last) = (first.min(from), last.max(to));
            ranges.remove(&from);
        }
        ranges.insert(first, last);
    }
}

/// The records that an `unconfirmed` line names.
pub(crate) struct Named<'a> {
    pub(crate) chain: u16,
    /// Whether the line has the number and id of the chain, as a line in another chain does.
    is_other: bool,
    id: Option<&'a str>,
    /// First and last numbers.
    pub(crate) ranges: Vec<(u64, u64)>,
}

/// Reads which records a line names. Returns `None` if it has another kind or an invalid chain.
pub(crate) fn named_by(record: &Record) -> Option<Named<'_>> {
    let named = record.get("unconfirmed").filter(|_| record.kind() == RecordKind::Unconfirmed)?;
    let text = |name| named.get(name).and_then(Value::as_str);
    let other = text("chain");
    // Without a `chain` member the line is about its own chain.
    let chain = other.map_or(Some(record.chain()), |chain| chain.parse().ok())?;
    // A foreign line may have invalid ranges, which are ignored.
    let range = |range: &Value| match range.as_list()? {
        [first, last] => Some((first.as_u64()?, last.as_u64()?)).filter(|(first, last)| first <= last),
        _ => None,
    };
    let ranges = named.get("records").and_then(Value::as_list).unwrap_or_default();
    Some(Named {
        chain,
        is_other: other.is_some(),
        id: text("id"),
        ranges: ranges.iter().filter_map(range).collect(),
    })
}

/// What one pass over the durable part of the log finds, before the search.
#[derive(Debug, Default)]
pub(crate) struct Survey {
    pub(crate) unconfirmed: UnconfirmedSet,
    /// The number of the first record in each chunk, by chain.
    firsts: HashMap<u16, BTreeMap<usize, u64>>,
    pub(crate) trouble: Trouble,
}

/// Surveys the whole log: the line that names a record may come much later, and in another chain.
pub(crate) fn survey(log: &Log, threads: usize) -> Survey {
    let needles = Needles::unconfirmed();
    let found = log.each_chunk(
        threads,
        |chain| &chain.all,
        Survey::default,
        |survey, window, chain, number| {
            survey.look_at(log, chain, number, &needles, window);
        },
    );
    let mut all = Survey { unconfirmed: log.unconfirmed.clone(), ..Survey::default() };
    for Survey { unconfirmed, firsts, trouble } in found {
        all.unconfirmed.merge(unconfirmed);
        for (chain, firsts) in firsts {
            all.firsts.entry(chain).or_default().extend(firsts);
        }
        all.trouble.merge(trouble);
    }
    all
}

impl Survey {
    /// Surveys a chunk. Errors are ignored here: the search meets and reports them again.
    fn look_at(&mut self, log: &Log, chain: &Chain, number: usize, needles: &Needles, window: &mut Window) {
        let Some(chunk) = chain.all.get(number) else { return };
        let Ok(Some(Lines { offset, bytes: lines, .. })) = window.read(&chunk) else { return };
        let segment = &chunk.span.segment;
        let first = lines.split(|byte| *byte == b'\n').next().unwrap_or_default();
        if let Some(record) = segment.record(offset, first) {
            if chunk.span.has(record.seq()) {
                self.firsts.entry(chain.number).or_default().insert(number, record.seq());
            }
            // The first line of a file is its `segment` line, which has the format.
            if offset == 0 {
                self.note_format(&record, segment.path());
            }
        }
        needles.each_line(lines, |start, line| {
            if let Some(record) = segment.record(offset + start as u64, line) {
                self.unconfirmed.note(&record, &log.ids);
            }
        });
    }

    fn note_format(&mut self, record: &Record, path: &Path) {
        let format = record.get("segment").and_then(|segment| segment.get("format")).and_then(Value::as_u64);
        if let Some(format) = format.filter(|format| *format > FORMAT) {
            self.trouble.bad(format!(
                "{} has format {format}, and this version knows format {FORMAT}: its records may mean more than is shown",
                path.display()
            ));
        }
    }

    /// Returns the numbers that records in a chunk can have. A line that was copied from elsewhere has another.
    pub(crate) fn numbers_of(&self, chain: &Chain, chunk: &Chunk<'_>) -> RangeInclusive<u64> {
        let firsts = self.firsts.get(&chain.number);
        let (Some(number), Some(firsts)) = (chain.all.number_of(chunk), firsts) else { return 0..=u64::MAX };
        // The first valid numbers of later chunks bound this one from above: numbers increase along the chain.
        let mut later = firsts.range(number + 1..).map(|(_, first)| *first);
        let own = firsts.get(&number).copied().unwrap_or(0);
        // A first line with a number above that of a later chunk is itself a copy, so it gives no lower bound.
        let first = if later.clone().next().is_none_or(|next| own < next) { own } else { 0 };
        first..=later.find(|next| *next > first).map_or(u64::MAX, |next| next - 1)
    }
}
