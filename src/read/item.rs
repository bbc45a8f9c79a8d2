//! What a reader returns.

use crate::record::Record;

/// What a [`Reader`](crate::Reader) returns: a record, or a statement about the records before and after it.
///
/// Within a chain, records have consecutive sequence numbers, except across a `Gap` or a `Withdrawn`.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum ReadItem {
    /// A record, with its chain, its file, its position in the file and the raw line.
    Record(Record),

    /// Records that belong here and are missing. Retention removed them before they were read, or their lines are no
    /// longer records; [`verify`](crate::verify()) reports which. A missing line may have declared earlier records
    /// void. No `Withdrawn` reports that, so [provisional](Record::is_provisional) records before a gap may be void.
    #[non_exhaustive]
    Gap {
        /// The number of the chain.
        chain: u16,
        /// The first record that is missing.
        first_seq: u64,
        /// The last record that is missing.
        last_seq: u64,
    },

    /// All records of the chain that were returned before, from this sequence number on, are void: a new segment
    /// begins with this number. They had been [provisional](Record::is_provisional), or were a `close` at the end of
    /// the log. Most of them are returned again, with other numbers or neighbours.
    #[non_exhaustive]
    Withdrawn {
        /// The number of the chain.
        chain: u16,
        /// The first record that is withdrawn.
        from_seq: u64,
    },
}

impl ReadItem {
    /// Returns the record, if it is one.
    #[must_use]
    pub fn into_record(self) -> Option<Record> {
        match self {
            Self::Record(record) => Some(record),
            Self::Gap { .. } | Self::Withdrawn { .. } => None,
        }
    }
}
