//! Records of a chain that were read and not returned yet, and which records callers were told are not confirmed.

use std::collections::{BTreeMap, VecDeque};

use super::next::Next;
use crate::{
    error::Error,
    format::{Line, RecordKind, read_unconfirmed},
};

/// Ranges of records that callers were told are not confirmed, from the first to the last sequence number.
#[derive(Debug, Default)]
pub(super) struct Refused(BTreeMap<u64, u64>);

impl Refused {
    /// Takes in a line. Returns whether it names refused records.
    pub(super) fn note(&mut self, line: &Line<'_>) -> bool {
        if line.kind != RecordKind::Unconfirmed {
            return false;
        }
        let named = line.detail.and_then(read_unconfirmed).filter(|named| named.chain.is_none());
        for (first, last) in named.into_iter().flat_map(|named| named.records) {
            let known = self.0.entry(first).or_insert(last);
            *known = last.max(*known);
        }
        true
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Returns whether this record was refused.
    pub(super) fn names(&self, seq: u64) -> bool {
        self.0.range(..=seq).any(|(_, last)| *last >= seq)
    }

    /// Removes ranges below this record, which a forward reader has reached.
    pub(super) fn forget_below(&mut self, seq: u64) {
        while self.0.first_key_value().is_some_and(|(_, last)| *last < seq) {
            self.0.pop_first();
        }
    }

    /// Removes ranges above this record, which a backward reader has reached.
    pub(super) fn forget_above(&mut self, seq: u64) {
        while self.0.last_key_value().is_some_and(|(first, _)| *first > seq) {
            self.0.pop_last();
        }
    }
}

/// The records that were read and not returned yet. Whether a record was refused is stated behind it, at the latest
/// where a mark makes it durable, so reading goes ahead that far.
#[derive(Debug, Default)]
pub(super) struct Ahead {
    read: VecDeque<Result<Next, Error>>,
    bytes: usize,
    /// The highest mark so far.
    mark: u64,
    /// Whether the last line that was read names refused records: another such line may follow.
    is_naming: bool,
    refused: Refused,
}

/// How many bytes are read ahead at most. A writer never has more that is not durable, unless its queue is set larger.
const MAX_AHEAD: usize = 32 << 20;

/// Returns the approximate size of a result in memory.
fn length(next: &Result<Next, Error>) -> usize {
    next.as_ref().map_or(256, |next| next.record.length())
}

impl Ahead {
    /// Takes in what a line states about other records.
    #[inline]
    pub(super) fn note(&mut self, line: &Line<'_>) {
        self.mark = self.mark.max(line.durable.unwrap_or(0));
        self.is_naming = self.refused.note(line);
    }

    /// Returns whether enough was read to return the next record.
    pub(super) fn is_ready(&self) -> bool {
        match self.read.front() {
            // When a mark covers the record, the line that would refuse it was read, unless more such lines follow.
            Some(Ok(next)) => next.record.seq() <= self.mark && !self.is_naming || self.bytes > MAX_AHEAD,
            Some(Err(_)) => true,
            None => false,
        }
    }

    /// Adds a result that was read.
    pub(super) fn push(&mut self, next: Result<Next, Error>) {
        self.bytes += length(&next);
        self.read.push_back(next);
    }

    #[inline]
    pub(super) fn pop(&mut self) -> Option<Result<Next, Error>> {
        let mut next = self.read.pop_front()?;
        self.bytes -= length(&next);
        if let Ok(next) = &mut next {
            let seq = next.record.seq();
            if !self.refused.is_empty() {
                self.refused.forget_below(seq);
                if self.refused.names(seq) {
                    next.record.set_unconfirmed();
                }
            }
        }
        Some(next)
    }

    /// Forgets which records were refused, because other records now have their sequence numbers.
    pub(super) fn forget(&mut self) {
        *self = Self { mark: self.mark, ..Self::default() };
    }
}
