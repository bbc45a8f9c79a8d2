//! The next record of a chain, ordered for the merge of chains.

use std::cmp::Ordering;

use super::item::ReadItem;
use crate::{clock::Timestamp, record::Record};

/// The direction in which a log is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Direction {
    Forward,
    Backward,
}

/// The next record of a chain, ordered so that the record to return first is at the top of a heap.
#[derive(Debug)]
pub(super) struct Next {
    pub(super) at: Timestamp,
    /// The index of its chain.
    pub(super) chain: usize,
    pub(super) direction: Direction,
    /// The items to return before it; there rarely are any.
    pub(super) before: Vec<ReadItem>,
    pub(super) record: Record,
}

impl Ord for Next {
    fn cmp(&self, other: &Self) -> Ordering {
        let order = (self.at, self.chain).cmp(&(other.at, other.chain));
        if self.direction == Direction::Forward { order.reverse() } else { order }
    }
}

impl PartialOrd for Next {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Next {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Next {}
