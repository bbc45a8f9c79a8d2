//! Parses the object that is named like the kind of a line. Recovery and verification both use this rule to
//! decide whether a line is good.

use super::{
    Format, Line, RecordKind, SegmentInfo, Unconfirmed, Witnesses, names_machine, read_first, read_gap,
    read_prune, read_recovery, read_unconfirmed, read_witnesses,
};
use crate::chain::Digest;

/// The content of a line that is not an event.
#[derive(Debug)]
pub(crate) enum Control {
    Segment(Box<SegmentInfo>),
    /// A `segment` line of a format that this version cannot judge.
    Later(u64),
    Open {
        seen: Witnesses,
        /// Whether the previous version of this library wrote it, whose first writes held more than one line.
        is_old: bool,
    },
    Mark(Witnesses),
    Close(Witnesses),
    Gap {
        reason: String,
        critical: u64,
        routine: u64,
    },
    Unconfirmed(Unconfirmed),
    Recovery {
        cause: String,
        segment: Option<u32>,
    },
    Prune {
        through: u64,
        hash: Digest,
    },
}

/// Parses the content of a good line. Returns `Err` if the line is of a known kind and its object cannot be parsed. It
/// also does so if no version puts such a line there: a segment of a later format always begins a file.
pub(crate) fn control_of(line: &Line<'_>, begins_file: bool) -> Result<Option<Control>, &'static str> {
    const UNREADABLE: &str = "the object named like the kind cannot be read";
    const LATER_INSIDE: &str = "a `segment` line of a later format inside a file";
    let detail = line.detail.unwrap_or_default();
    let control = match line.kind {
        RecordKind::Event | RecordKind::Notice | RecordKind::Other => return Ok(None),
        RecordKind::Segment => match read_first(detail) {
            None => None,
            Some(Format::Later(_)) if !begins_file => return Err(LATER_INSIDE),
            Some(Format::Later(format)) => Some(Control::Later(format)),
            Some(Format::Known(info)) => info.map(Control::Segment),
        },
        RecordKind::Open => {
            read_witnesses(detail).map(|seen| Control::Open { seen, is_old: !names_machine(detail) })
        }
        RecordKind::Mark => read_witnesses(detail).map(Control::Mark),
        RecordKind::Close => read_witnesses(detail).map(Control::Close),
        RecordKind::Gap => {
            read_gap(detail).map(|(reason, critical, routine)| Control::Gap { reason, critical, routine })
        }
        RecordKind::Unconfirmed => read_unconfirmed(detail).map(Control::Unconfirmed),
        RecordKind::Recovery => {
            read_recovery(detail).map(|(cause, segment)| Control::Recovery { cause, segment })
        }
        RecordKind::Prune => {
            read_prune(detail).map(|prune| Control::Prune { through: prune.through, hash: prune.hash })
        }
    };
    control.map(Some).ok_or(UNREADABLE)
}

/// Returns whether a line is valid in itself.
pub(crate) fn is_right(line: &Line<'_>, begins_file: bool) -> bool {
    line.hash_is_right() && control_of(line, begins_file).is_ok()
}
