//! Where in a chain which record stands, roughly: enough to find one again without reading it all.

/// How many places are kept. When there are more, every second one is dropped, so that a log of any
/// length takes the same memory.
const MAX_ENTRIES: usize = 32 * 1024;
/// At most how far apart places are at first: no piece is longer.
const PIECE_BYTES: u64 = 1024 * 1024;

#[derive(Debug, Clone, Copy)]
struct Entry {
    /// The number that the first line at this place should have.
    seq: u64,
    segment: u32,
    offset: u64,
}

/// A sparse index of one chain.
#[derive(Debug, Default)]
pub(super) struct Index {
    entries: Vec<Entry>,
    /// Every how many places one is kept, as a power of two.
    sparse: u32,
    offered: u64,
}

impl Index {
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
        self.entries.push(Entry { seq, segment, offset });
    }

    /// The last place at or before a record, and how many bytes from there on it may be.
    pub(super) fn before(&self, seq: u64) -> Option<(u32, u64, u64)> {
        let after = self.entries.partition_point(|entry| entry.seq <= seq);
        let entry = self.entries.get(after.saturating_sub(1))?;
        Some((entry.segment, entry.offset, PIECE_BYTES.checked_shl(self.sparse + 2)?))
    }
}
