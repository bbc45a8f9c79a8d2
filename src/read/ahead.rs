//! What was read of a chain and is not handed out yet, and which records somebody was told are not confirmed.

use std::collections::{BTreeMap, VecDeque};

use super::next::Next;
use crate::{
    error::Error,
    format::{Line, RecordKind, read_unconfirmed},
};

/// First and last numbers of records of which somebody was told that they are not confirmed.
#[derive(Debug, Default)]
pub(super) struct Refused(BTreeMap<u64, u64>);

impl Refused {
    /// Takes in what a line says of records. Returns whether it is one that names any.
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

    pub(super) fn names(&self, seq: u64) -> bool {
        self.0.range(..=seq).any(|(_, last)| *last >= seq)
    }

    /// For who goes forward and is at this record.
    pub(super) fn forget_below(&mut self, seq: u64) {
        while self.0.first_key_value().is_some_and(|(_, last)| *last < seq) {
            self.0.pop_first();
        }
    }

    /// For who goes backward and is at this record.
    pub(super) fn forget_above(&mut self, seq: u64) {
        while self.0.last_key_value().is_some_and(|(first, _)| *first > seq) {
            self.0.pop_last();
        }
    }
}

/// What was read and not handed out yet: whether a record was refused stands behind it, at the latest where a mark says
/// that it is durable.
#[derive(Debug, Default)]
pub(super) struct Ahead {
    read: VecDeque<Result<Next, Error>>,
    bytes: usize,
    /// The highest mark so far.
    mark: u64,
    /// Whether what was read last names refused records: another such line may follow.
    is_naming: bool,
    refused: Refused,
}

/// How much is read ahead at most. A writer has no more that is not durable, unless its queue is set to more.
const MAX_AHEAD: usize = 32 << 20;

/// What something that was read takes, roughly.
fn length(next: &Result<Next, Error>) -> usize {
    next.as_ref().map_or(256, |next| next.record.length())
}

impl Ahead {
    /// Takes in what a line says of others.
    #[inline]
    pub(super) fn note(&mut self, line: &Line<'_>) {
        self.mark = self.mark.max(line.durable.unwrap_or(0));
        self.is_naming = self.refused.note(line);
    }

    /// Whether enough was read to hand out the next.
    pub(super) fn is_ready(&self) -> bool {
        match self.read.front() {
            Some(Ok(next)) => next.record.seq() <= self.mark && !self.is_naming || self.bytes > MAX_AHEAD,
            Some(Err(_)) => true,
            None => false,
        }
    }

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

    /// Forgets which records were refused: others have their numbers.
    pub(super) fn forget(&mut self) {
        *self = Self { mark: self.mark, ..Self::default() };
    }
}
