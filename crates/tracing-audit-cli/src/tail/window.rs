//! The newest records that match: where they stand, so that what is written meanwhile moves nothing.

use std::collections::BTreeMap;

use tracing_audit::{Error, Head, Reader, Record, Segment, segments};

use super::Tail;

/// Which records are shown at first.
#[derive(Debug)]
pub(super) enum Window {
    /// All that match: there are no more than were asked for.
    All,
    /// None; those that come.
    None,
    /// Of each chain those from the first number on. Who does not follow sees none behind the second.
    From(BTreeMap<u16, (u64, u64)>),
}

impl Window {
    pub(super) fn find(tail: &Tail) -> Result<Self, Error> {
        if tail.lines == 0 {
            return Ok(Self::None);
        }
        let chains = match segments(&tail.log) {
            // It may begin any moment.
            Err(Error::NoLog { .. }) if tail.follow && tail.log.is_dir() => return Ok(Self::All),
            all => all?.iter().map(Segment::chain).collect::<std::collections::BTreeSet<u16>>(),
        };
        // Of a chain in which nothing matches, what comes is shown.
        let mut from: BTreeMap<u16, (u64, u64)> = BTreeMap::new();
        for chain in chains {
            let last = Reader::new(&tail.log).chain(chain).last(1).records()?.find_map(Result::ok);
            from.insert(chain, (last.map_or(1, |last| last.seq() + 1), 0));
        }
        let mut found = 0;
        // What cannot be read is said when it is read forward.
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

    /// A reader that begins as late as it may.
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

    /// Records of a chain from this number on belong to it.
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

/// The newest record before this one that is durable, and so stays where it is.
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
