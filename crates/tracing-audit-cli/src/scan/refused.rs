//! Records of which somebody was told that they are not confirmed, and what names them.

use std::collections::{BTreeMap, HashMap};

use tracing_audit::{Record, RecordKind, Value};

use super::{
    log::{Chain, Log},
    needles::Needles,
    pieces::{PIECE, Window},
};

/// How far behind a record of the same chain the line stands at most that names it; the library looks as far.
const AHEAD: u64 = (32 << 20) / PIECE;

/// Which records are named, by chain: first and last numbers, apart from each other.
#[derive(Debug, Default, Clone)]
pub(crate) struct Refused(HashMap<u16, BTreeMap<u64, u64>>);

impl Refused {
    pub(crate) fn names(&self, chain: u16, seq: u64) -> bool {
        let ranges = self.0.get(&chain).filter(|ranges| !ranges.is_empty());
        ranges.and_then(|ranges| ranges.range(..=seq).next_back()).is_some_and(|(_, last)| *last >= seq)
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

/// Looks for lines that name records, where it was not looked yet.
pub(crate) struct Search<'a> {
    log: &'a Log,
    needles: Needles,
    refused: Refused,
    /// Which pieces of the only chain were looked at; `None` where all were.
    looked: Option<Vec<bool>>,
    window: Window,
}

impl<'a> Search<'a> {
    /// With several chains one may name records of another, anywhere behind them: everything is looked through at once, with
    /// so many threads.
    pub(crate) fn new(log: &'a Log, threads: usize) -> Self {
        let mut search = Self {
            log,
            needles: Needles::unconfirmed(),
            refused: log.refused.clone(),
            looked: None,
            window: Window::default(),
        };
        match log.chains.as_slice() {
            [only] => search.looked = Some(vec![false; only.all.count()]),
            _ => search.refused = everywhere(log, threads),
        }
        search
    }

    pub(crate) fn names(&mut self, chain: &Chain, record: &Record) -> bool {
        self.look_behind(chain, record);
        record.is_unconfirmed() || self.refused.names(record.chain(), record.seq())
    }

    fn look_behind(&mut self, chain: &Chain, record: &Record) {
        let Some(looked) = &mut self.looked else { return };
        let segment = chain.segment_of(record);
        let Some(first) = segment.and_then(|segment| chain.all.number_of(segment, record.offset())) else {
            return;
        };
        let last = looked.len().min(first.saturating_add(usize::try_from(AHEAD).unwrap_or(usize::MAX)));
        for (number, looked) in looked.iter_mut().enumerate().take(last).skip(first) {
            if !std::mem::replace(looked, true) {
                note_in(&mut self.refused, self.log, chain, number, &self.needles, &mut self.window);
            }
        }
    }
}

/// All that is named in the log.
pub(crate) fn everywhere(log: &Log, threads: usize) -> Refused {
    let needles = Needles::unconfirmed();
    let found = log.each_piece(
        threads,
        |chain| &chain.all,
        Refused::default,
        |refused, window, chain, number| {
            note_in(refused, log, chain, number, &needles, window);
        },
    );
    let mut refused = log.refused.clone();
    for found in found {
        refused.merge(found);
    }
    refused
}

/// What a piece cannot be read for is said by who reads it for its records.
fn note_in(
    refused: &mut Refused,
    log: &Log,
    chain: &Chain,
    number: usize,
    needles: &Needles,
    window: &mut Window,
) {
    let Some(piece) = chain.all.get(number) else { return };
    let Ok(Some((offset, lines))) = window.read(&piece) else { return };
    needles.each_line(lines, |start, line| {
        if let Some(record) = piece.span.segment.record(offset + start as u64, line) {
            refused.note(&record, &log.ids);
        }
    });
}
