//! Converts a record to its line of bytes and back: the only module that knows JSON. No I/O.
//!
//! docs/format.md specifies what is implemented here; the two change together.

mod after;
mod control;
mod detail;
mod encode;
mod fast_path;
mod names;
#[cfg(feature = "serde")]
mod ordered;
mod plain;
mod position;
mod strict;
mod unconfirmed;
mod value;

use crate::named::named;

pub(crate) use after::{After, Times};
pub(crate) use control::{
    Cause, ChainId, CloseInfo, Format, GapInfo, NoticeInfo, OpenInfo, PruneInfo, PruneReason, RecoveryInfo,
    SegmentInfo, Witness, Witnesses, mark_payload, names_machine, read_first, read_gap, read_prune,
    read_recovery, read_witnesses,
};
pub(crate) use detail::{Control, control_of, is_right};
pub(crate) use encode::{
    Beginning, MAX_PAYLOAD, Payload, escape_into, push_if_plain, seal, time_of, time_of_line,
};
#[cfg(feature = "serde")]
pub(crate) use ordered::serialize_line;
pub(crate) use position::Position;
pub(crate) use strict::{Line, LineParser, Malformed, seq_of};
pub(crate) use unconfirmed::{MAX_RANGES, NotConfirmed, Unconfirmed, read_unconfirmed};
pub use value::Value;
pub(crate) use value::{parse_object, parse_value, text_of};

/// The maximum length of a line, with its line feed.
pub(crate) const MAX_LINE: usize = 60 * 1024;

/// The version of the format that this library writes.
pub(crate) const FORMAT_VERSION: u64 = 1;

/// The kind of a record: an audit event of the application, or a statement of the log about itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum RecordKind {
    /// An audit event.
    Event,
    /// The first line of each segment: the identity of the chain, and how much of the earlier files counts.
    Segment,
    /// A process opened the log.
    Open,
    /// Everything before this record was durable at its time.
    Mark,
    /// A number of events that could not be recorded.
    Gap,
    /// Records that are durable although a caller was told that they are not confirmed.
    Unconfirmed,
    /// A notice to the operator.
    Notice,
    /// The chain was continued after a crash, a failure or damage.
    Recovery,
    /// Retention removes segments.
    Prune,
    /// The run ended with `close`.
    Close,
    /// A kind of a later version.
    Other,
}

named!(RecordKind, "kind of record", [
    Event => "event",
    Segment => "segment",
    Open => "open",
    Mark => "mark",
    Gap => "gap",
    Unconfirmed => "unconfirmed",
    Notice => "notice",
    Recovery => "recovery",
    Prune => "prune",
    Close => "close",
    Other => "other",
]);

impl RecordKind {
    /// Parses the name of a kind in a line.
    pub(crate) fn parse(name: &[u8]) -> Self {
        Self::ALL.iter().find(|kind| kind.as_str().as_bytes() == name).map_or(Self::Other, |kind| *kind)
    }
}
