//! The positions of the newest records that match, fixed at the start, so that later writes do not change what is shown.

use std::collections::BTreeMap;

use tracing_audit::{Error, Head, Reader, Record, Segment, segments};

use super::Tail;

/// The records that are shown.
#[derive(Debug)]
pub(super) enum Window {
    /// All that match: there are no more than requested.
    All,
    /// Only those that are written from now on.
    None,
    /// By chain, those from the first number on. Without `--follow`, only up to the second number.
    From(BTreeMap<u16, (u64, u64)>),
}

impl Window {
    pub(super) fn find(tail: &Tail) -> Result<Self, Error> {
        if tail.lines == 0 {
            return Ok(Self::None);
        }
        let chains = match segments(&tail.log) {
            // A program may start to write at any moment.
            Err(Error::NoLog { .. }) if tail.follow && tail.log.is_dir() => return Ok(Self::All),
            all => all?.iter().map(Segment::chain).collect::<std::collections::BTreeSet<u16>>(),
        };
        // Without a match in a chain, only its new records are shown.
        let mut from: BTreeMap<u16, (u64, u64)> = BTreeMap::new();
        for chain in chains {
            let last = Reader::new(&tail.log).chain(chain).last(1).records()?.find_map(Result::ok);
            from.insert(chain, (last.map_or(1, |last| last.seq() + 1), 0));
        }
        let mut found = 0;
        // Errors are ignored here: reading forward meets and reports them.
        // Backward through all chains by time, until enough records match.
        for record in tail.reader().reverse(true).records()?.filter_map(Result::ok) {
            if tail.filter.matches(&record) {
                let (first, last) = from.entry(record.chain()).or_insert((u64::MAX, 0));
                (*first, *last) = (record.seq().min(*first), record.seq().max(*last));
                found += 1;
                if found == tail.lines {
                    return Ok(Self::From(from));
                }
            }
        }
        Ok(Self::All)
    }

    /// Makes a reader that begins as late as possible.
    pub(super) fn begin(&self, tail: &Tail) -> Result<Reader, Error> {
        let reader = tail.reader();
        match self {
            Self::All => Ok(reader),
            Self::None => Ok(reader.last(0)),
            Self::From(from) => from.iter().try_fold(reader, |reader, (chain, (first, _))| {
                Ok(match head_before(tail, *chain, *first)? {
                    Some(head) => reader.after(head),
                    None => reader,
                })
            }),
        }
    }

    /// Extends the window to the records of a chain from this number on.
    pub(super) fn reach(&mut self, chain: u16, seq: u64) {
        if let Self::From(from) = self
            && let Some((first, _)) = from.get_mut(&chain)
        {
            *first = seq.min(*first);
        }
    }

    pub(super) fn has(&self, record: &Record, is_followed: bool) -> bool {
        let Self::From(from) = self else { return true };
        let (first, last) = from.get(&record.chain()).copied().unwrap_or((1, 0));
        (first..).contains(&record.seq()) && (is_followed || record.seq() <= last)
    }
}

/// Returns the head of a durable record before this one, which cannot be withdrawn.
fn head_before(tail: &Tail, chain: u16, seq: u64) -> Result<Option<Head>, Error> {
    let reader = Reader::new(&tail.log).chain(chain);
    let durable = reader.clone().durable_only(true).reverse(true).records()?.find_map(Result::ok);
    let Some(durable) = durable else { return Ok(None) };
    if durable.seq() < seq {
        return Ok(Some(durable.head()));
    }
    let before = seq.saturating_sub(1);
    let found = reader.from_seq(before).records()?.find_map(Result::ok);
    Ok(found.filter(|found| found.seq() == before).map(|found| found.head()))
}
