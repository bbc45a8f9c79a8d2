//! Records of which somebody was told that they are not confirmed, and what names them.

use std::{
    collections::{BTreeMap, HashMap},
    ops::RangeInclusive,
    path::Path,
};

use tracing_audit::{Record, RecordKind, Value};

use super::{
    Hit, Trouble,
    log::{Chain, Log},
    needles::Needles,
    pieces::{Lines, Piece, Window},
};

/// The format that is known.
const FORMAT: u64 = 1;

/// Which records are named, by chain: first and last numbers, apart from each other.
#[derive(Debug, Default, Clone)]
pub(crate) struct Refused(HashMap<u16, BTreeMap<u64, u64>>);

impl Refused {
    fn names(&self, chain: u16, seq: u64) -> bool {
        let ranges = self.0.get(&chain).filter(|ranges| !ranges.is_empty());
        ranges.and_then(|ranges| ranges.range(..=seq).next_back()).is_some_and(|(_, last)| *last >= seq)
    }

    /// The record, and whether anything names it.
    pub(crate) fn hit(&self, record: Record) -> Hit {
        let is_unconfirmed = record.is_unconfirmed() || self.names(record.chain(), record.seq());
        Hit { record, is_unconfirmed }
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
        said.take_in(record, ids);
        said
    }

    fn take_in(&mut self, record: &Record, ids: &HashMap<u16, String>) {
        if record.kind() != RecordKind::Unconfirmed {
            return;
        }
        let Some(named) = record.get("unconfirmed") else { return };
        let chain = match named.get("chain").and_then(Value::as_str) {
            None => Some(record.chain()),
            // Another chain of this number, of before the log was begun anew, is not meant.
            Some(chain) => chain.parse().ok().filter(|chain| {
                named.get("id").and_then(Value::as_str) == ids.get(chain).map(String::as_str)
            }),
        };
        let Some(chain) = chain else { return };
        for range in named.get("records").and_then(Value::as_list).unwrap_or_default() {
            if let Some([first, last]) = range.as_list()
                && let (Some(first), Some(last)) = (first.as_u64(), last.as_u64())
                && first <= last
            {
                self.add(chain, first, last);
            }
        }
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

/// What one pass over everything that is durable finds, before anything is searched for.
#[derive(Debug, Default)]
pub(crate) struct Survey {
    pub(crate) refused: Refused,
    /// The number of the first record of each piece, by the number of its chain.
    firsts: HashMap<u16, BTreeMap<usize, u64>>,
    pub(crate) trouble: Trouble,
}

/// Looks through the whole log, with so many threads: a record may be named anywhere behind it, also in another chain.
pub(crate) fn survey(log: &Log, threads: usize) -> Survey {
    let needles = Needles::unconfirmed();
    let found = log.each_piece(
        threads,
        |chain| &chain.all,
        Survey::default,
        |survey, window, chain, number| {
            survey.look_at(log, chain, number, &needles, window);
        },
    );
    let mut all = Survey { refused: log.refused.clone(), ..Survey::default() };
    for Survey { refused, firsts, trouble } in found {
        all.refused.merge(refused);
        for (chain, firsts) in firsts {
            all.firsts.entry(chain).or_default().extend(firsts);
        }
        all.trouble.merge(trouble);
    }
    all
}

impl Survey {
    /// What a piece cannot be read for is said by who reads it for its records.
    fn look_at(&mut self, log: &Log, chain: &Chain, number: usize, needles: &Needles, window: &mut Window) {
        let Some(piece) = chain.all.get(number) else { return };
        let Ok(Some(Lines { offset, bytes: lines, .. })) = window.read(&piece) else { return };
        let segment = &piece.span.segment;
        let first = lines.split(|byte| *byte == b'\n').next().unwrap_or_default();
        if let Some(record) = segment.record(offset, first) {
            if piece.span.has(record.seq()) {
                self.firsts.entry(chain.number).or_default().insert(number, record.seq());
            }
            if offset == 0 {
                self.note_format(&record, segment.path());
            }
        }
        needles.each_line(lines, |start, line| {
            if let Some(record) = segment.record(offset + start as u64, line) {
                self.refused.note(&record, &log.ids);
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

    /// The numbers that records of a piece can have: lines that were copied from elsewhere have others.
    pub(crate) fn numbers_of(&self, chain: &Chain, piece: &Piece<'_>) -> RangeInclusive<u64> {
        let firsts = self.firsts.get(&chain.number);
        let (Some(number), Some(firsts)) = (chain.all.number_of(piece), firsts) else { return 0..=u64::MAX };
        let mut later = firsts.range(number + 1..).map(|(_, first)| *first);
        let own = firsts.get(&number).copied().unwrap_or(0);
        // The first line of a piece may be the copy itself.
        let first = if later.clone().next().is_none_or(|next| own < next) { own } else { 0 };
        first..=later.find(|next| *next > first).map_or(u64::MAX, |next| next - 1)
    }
}
