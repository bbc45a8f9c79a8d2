//! A sparse index of the records of a chain: enough to find one again without reading the whole chain.

/// How many entries are kept. When there are more, every second one is dropped, so that memory is bounded for a log of
/// any length.
const MAX_ENTRIES: usize = 32 * 1024;
/// The maximum distance between entries at first: no chunk is longer.
const CHUNK_BYTES: u64 = 1024 * 1024;

#[derive(Debug, Clone, Copy)]
struct IndexEntry {
    /// The sequence number that the first line at this offset should have.
    seq: u64,
    segment: u32,
    offset: u64,
}

/// A sparse index of one chain.
#[derive(Debug, Default)]
pub(super) struct Index {
    entries: Vec<IndexEntry>,
    /// One entry in two to the power of this many is kept.
    sparse: u32,
    offered: u64,
}

impl Index {
    /// Offers an entry, and keeps it if it is one of every so many. Entries are offered in the order of the chain.
    pub(super) fn add(&mut self, seq: u64, segment: u32, offset: u64) {
        let is_kept = self.offered.trailing_zeros() >= self.sparse;
        self.offered += 1;
        if !is_kept {
            return;
        }
        if self.entries.len() >= MAX_ENTRIES {
            let mut number = 0_usize;
            self.entries.retain(|_| {
                number += 1;
                number % 2 == 1
            });
            self.sparse += 1;
        }
        self.entries.push(IndexEntry { seq, segment, offset });
    }

    /// Returns the last entry at or before a record, and within how many bytes of it the record must be.
    pub(super) fn before(&self, seq: u64) -> Option<(u32, u64, u64)> {
        let after = self.entries.partition_point(|entry| entry.seq <= seq);
        let entry = self.entries.get(after.saturating_sub(1))?;
        Some((entry.segment, entry.offset, CHUNK_BYTES.checked_shl(self.sparse + 2)?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1024 * 1024;

    /// An index with entries 10 records apart; the offset is the number of the entry.
    fn filled(count: u64) -> Index {
        let mut index = Index::default();
        (0..count).for_each(|number| index.add(1 + 10 * number, 7, number));
        index
    }

    #[test]
    fn a_record_is_found_behind_the_last_entry_before_it() {
        assert_eq!(Index::default().before(1), None);
        let index = filled(3);
        for (seq, number) in [(1, 0), (10, 0), (11, 1), (20, 1), (21, 2), (1_000, 2)] {
            assert_eq!(index.before(seq), Some((7, number, 4 * MIB)), "{seq}");
        }
    }

    #[test]
    fn a_full_index_keeps_every_second_entry() {
        let full = filled(32 * 1024);
        assert_eq!(full.entries.len(), 32 * 1024);
        assert_eq!(full.before(11), Some((7, 1, 4 * MIB)));
        let half = filled(32 * 1024 + 4);
        assert_eq!(half.entries.len(), 16 * 1024 + 2);
        for (number, kept) in
            [(0, 0), (1, 0), (2, 2), (32_767, 32_766), (32_768, 32_768), (32_769, 32_768), (32_771, 32_770)]
        {
            assert_eq!(half.before(1 + 10 * number), Some((7, kept, 8 * MIB)), "{number}");
        }
        let quarter = filled(64 * 1024 + 8);
        assert_eq!(quarter.entries.len(), 16 * 1024 + 2);
        for (number, kept) in
            [(3, 0), (4, 4), (65_535, 65_532), (65_536, 65_536), (65_539, 65_536), (65_541, 65_540)]
        {
            assert_eq!(quarter.before(1 + 10 * number), Some((7, kept, 16 * MIB)), "{number}");
        }
    }
}
