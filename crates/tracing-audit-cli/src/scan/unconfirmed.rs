//! Records of which somebody was told that they are not confirmed, and what names them.

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

/// The format that is known.
const FORMAT: u64 = 1;

/// Which records are named, by chain: first and last numbers, apart from each other.
#[derive(Debug, Default, Clone)]
pub(crate) struct UnconfirmedSet(HashMap<u16, BTreeMap<u64, u64>>);

impl UnconfirmedSet {
    pub(crate) fn names(&self, chain: u16, seq: u64) -> bool {
        let ranges = self.0.get(&chain).filter(|ranges| !ranges.is_empty());
        ranges.and_then(|ranges| ranges.range(..=seq).next_back()).is_some_and(|(_, last)| *last >= seq)
    }

    /// The record, and whether anything names it.
    pub(crate) fn hit(&self, record: Record) -> Hit {
        let is_named = self.names(record.chain(), record.seq());
        let hit = Hit::of(record);
        Hit { is_unconfirmed: hit.is_unconfirmed || is_named, ..hit }
    }

    /// Takes in what a record says of others; `ids` are those of the chains.
    pub(crate) fn note(&mut self, record: &Record, ids: &HashMap<u16, String>) {
        self.merge(Self::said_by(record, ids));
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether both name a record.
    pub(crate) fn overlaps(&self, other: &Self) -> bool {
        other.0.iter().any(|(chain, ranges)| {
            ranges.iter().any(|(first, last)| {
                let before = self.0.get(chain).and_then(|ranges| ranges.range(..=last).next_back());
                before.is_some_and(|(_, end)| end >= first)
            })
        })
    }

    /// What one record says of others.
    pub(crate) fn said_by(record: &Record, ids: &HashMap<u16, String>) -> Self {
        let mut said = Self::default();
        let Some(Named { chain, is_other, id, ranges }) = named_by(record) else { return said };
        // Another chain of this number, of before the log was begun anew, is not meant.
        if !is_other || id == ids.get(&chain).map(String::as_str) {
            for (first, last) in ranges {
                said.add(chain, first, last);
            }
        }
        said
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

/// What an `unconfirmed` line names.
pub(crate) struct Named<'a> {
    pub(crate) chain: u16,
    /// Whether it names the chain, with its id, as a line of another chain does.
    is_other: bool,
    id: Option<&'a str>,
    /// First and last numbers.
    pub(crate) ranges: Vec<(u64, u64)>,
}

/// Reads which records a line names. `None` where it is of another kind, or names none that could be.
pub(crate) fn named_by(record: &Record) -> Option<Named<'_>> {
    let named = record.get("unconfirmed").filter(|_| record.kind() == RecordKind::Unconfirmed)?;
    let text = |name| named.get(name).and_then(Value::as_str);
    let other = text("chain");
    let chain = other.map_or(Some(record.chain()), |chain| chain.parse().ok())?;
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

/// What one pass over everything that is durable finds, before anything is searched for.
#[derive(Debug, Default)]
pub(crate) struct Survey {
    pub(crate) unconfirmed: UnconfirmedSet,
    /// The number of the first record of each chunk, by the number of its chain.
    firsts: HashMap<u16, BTreeMap<usize, u64>>,
    pub(crate) trouble: Trouble,
}

/// Looks through the whole log, with so many threads: a record may be named anywhere behind it, also in another chain.
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
    /// What a chunk cannot be read for is said by who reads it for its records.
    fn look_at(&mut self, log: &Log, chain: &Chain, number: usize, needles: &Needles, window: &mut Window) {
        let Some(chunk) = chain.all.get(number) else { return };
        let Ok(Some(Lines { offset, bytes: lines, .. })) = window.read(&chunk) else { return };
        let segment = &chunk.span.segment;
        let first = lines.split(|byte| *byte == b'\n').next().unwrap_or_default();
        if let Some(record) = segment.record(offset, first) {
            if chunk.span.has(record.seq()) {
                self.firsts.entry(chain.number).or_default().insert(number, record.seq());
            }
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
                "{} is of format {format}, and this command knows format {FORMAT}: its records may mean more than is shown",
                path.display()
            ));
        }
    }

    /// The numbers that records of a chunk can have: lines that were copied from elsewhere have others.
    pub(crate) fn numbers_of(&self, chain: &Chain, chunk: &Chunk<'_>) -> RangeInclusive<u64> {
        let firsts = self.firsts.get(&chain.number);
        let (Some(number), Some(firsts)) = (chain.all.number_of(chunk), firsts) else { return 0..=u64::MAX };
        let mut later = firsts.range(number + 1..).map(|(_, first)| *first);
        let own = firsts.get(&number).copied().unwrap_or(0);
        // The first line of a chunk may be the copy itself.
        let first = if later.clone().next().is_none_or(|next| own < next) { own } else { 0 };
        first..=later.find(|next| *next > first).map_or(u64::MAX, |next| next - 1)
    }
}
