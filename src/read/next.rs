//! The next record of a chain, on its way into the merge of chains.

use std::cmp::Ordering;

use super::item::ReadItem;
use crate::{clock::Timestamp, record::Record};

/// Which way a log is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Direction {
    Forward,
    Backward,
}

/// The next record of a chain, ordered so that a heap has the first to hand out on top.
#[derive(Debug)]
pub(super) struct Next {
    pub(super) at: Timestamp,
    /// Whose it is.
    pub(super) chain: usize,
    pub(super) direction: Direction,
    /// What has to be said before it, which is rare.
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
