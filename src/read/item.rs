//! What a reader hands out.

use crate::record::Record;

/// What a [`Reader`](crate::Reader) hands out: a record, or what has to be known about those before and behind it.
///
/// Within a chain, records come with consecutive numbers, except where a `Gap` or a `Withdrawn` stands between them.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum ReadItem {
    /// A record. It says in which chain, file and place it stands, and has the raw line.
    Record(Record),

    /// Records that should come here and do not. Retention removed them before they were read, or their lines are no
    /// records any more: which of both, [`verify`](crate::verify()) says. If what was removed said that records before
    /// were void, nothing withdraws these: [provisional](Record::is_provisional) records before a gap may be void.
    #[non_exhaustive]
    Gap {
        /// The number of the chain.
        chain: u16,
        /// The first record that is missing.
        first_seq: u64,
        /// The last record that is missing.
        last_seq: u64,
    },

    /// All records of the chain from this number on that were handed out before are void: a new segment begins with
    /// this number. They had been [provisional](Record::is_provisional). Most of them come again, with other numbers or
    /// neighbours.
    #[non_exhaustive]
    Withdrawn {
        /// The number of the chain.
        chain: u16,
        /// The first record that is withdrawn.
        from_seq: u64,
    },
}

impl ReadItem {
    /// The record, if it is one.
    #[must_use]
    pub fn into_record(self) -> Option<Record> {
        match self {
            Self::Record(record) => Some(record),
            Self::Gap { .. } | Self::Withdrawn { .. } => None,
        }
    }
}
