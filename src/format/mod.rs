//! A record and its one line of bytes: the only room that knows JSON. No I/O.
//!
//! docs/format.md specifies what stands here; the two change together.

mod after;
mod control;
mod detail;
mod encode;
mod event;
mod names;
mod plain;
mod strict;
mod unconfirmed;
mod value;

pub(crate) use after::{After, Times};
pub(crate) use control::{
    Cause, ChainId, CloseInfo, Format, GapInfo, NoticeInfo, OpenInfo, PruneInfo, PruneReason, RecoveryInfo,
    SegmentInfo, Witness, Witnesses, mark_payload, read_first, read_gap, read_prune, read_recovery,
    read_witnesses, says_machine,
};
pub(crate) use detail::{Control, control_of, is_right};
pub(crate) use encode::{Beginning, MAX_PAYLOAD, Payload, escape_into, push_if_plain, seal, time_of};
pub(crate) use strict::{Line, LineParser, Malformed, seq_of};
pub(crate) use unconfirmed::{MAX_RANGES, NotConfirmed, Unconfirmed, read_unconfirmed};
pub use value::Value;
pub(crate) use value::{parse_object, parse_value, text_of};

/// The longest line, with its line feed.
pub(crate) const MAX_LINE: usize = 60 * 1024;

/// The version of the format that this library writes.
pub(crate) const FORMAT_VERSION: u64 = 1;

/// The kinds of record that this library knows. Readers accept others.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Kind {
    Segment,
    Open,
    Event,
    Mark,
    Gap,
    Unconfirmed,
    Notice,
    Recovery,
    Prune,
    Close,
    /// A kind of a later version.
    Other,
}

impl Kind {
    const NAMED: [(Self, &'static str); 10] = [
        (Self::Event, "event"),
        (Self::Segment, "segment"),
        (Self::Open, "open"),
        (Self::Mark, "mark"),
        (Self::Gap, "gap"),
        (Self::Unconfirmed, "unconfirmed"),
        (Self::Notice, "notice"),
        (Self::Recovery, "recovery"),
        (Self::Prune, "prune"),
        (Self::Close, "close"),
    ];

    #[cfg(test)]
    pub(crate) fn names() -> impl Iterator<Item = &'static str> {
        Self::NAMED.iter().map(|(_, name)| *name)
    }

    pub(crate) fn as_str(self) -> &'static str {
        Self::NAMED.iter().find(|(kind, _)| *kind == self).map_or("other", |(_, name)| name)
    }

    pub(crate) fn parse(name: &[u8]) -> Self {
        Self::NAMED.iter().find(|(_, known)| known.as_bytes() == name).map_or(Self::Other, |(kind, _)| *kind)
    }
}
