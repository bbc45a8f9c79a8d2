//! The statements of a segment's first line about the files before it.

use serde_json::Value as Json;

use super::control::small;
use crate::clock::Timestamp;

/// The lowest and the highest time of some records.
pub(crate) type Times = (Timestamp, Timestamp);

/// The statement of a segment about an earlier file of the chain, or about several in a row that count nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct After {
    pub(crate) segment: u32,
    /// How many of its bytes count.
    pub(crate) bytes: u64,
    /// The first of several files in a row that count nothing and end with this one. The previous version of this
    /// library named each of them separately, without this member.
    pub(crate) from: Option<u32>,
    /// The times of the records that count, if there are any. The previous version did not write them.
    pub(crate) times: Option<Times>,
    /// Whether the bytes behind the part that counts were given up because of damage.
    pub(crate) is_damaged: bool,
}

impl After {
    /// Returns the statement that so many bytes of a file count.
    pub(crate) fn counted(segment: u32, bytes: u64, times: Option<Times>) -> Self {
        Self { segment, bytes, from: None, times, is_damaged: false }
    }

    /// Returns the statement that files in a row count nothing.
    pub(crate) fn nothing(first: u32, last: u32) -> Self {
        Self { from: Some(first), ..Self::counted(last, 0, None) }
    }

    /// Returns statements that some files count nothing, one for each row of consecutive files. The files are
    /// ascending.
    pub(crate) fn rows(files: &[u32]) -> impl Iterator<Item = Self> {
        files
            .chunk_by(|file, next| file.checked_add(1) == Some(*next))
            .filter_map(|row| Some(Self::nothing(*row.first()?, *row.last()?)))
    }

    pub(super) fn json(&self) -> String {
        let Self { segment, bytes, from, times, is_damaged } = self;
        let from = from.map(|from| format!(",\"from\":{from}")).unwrap_or_default();
        let times =
            times.map(|(from, to)| format!(",\"from\":\"{from}\",\"to\":\"{to}\"")).unwrap_or_default();
        let damage = if *is_damaged { ",\"damage\":true" } else { "" };
        format!("{{\"segment\":{segment},\"bytes\":{bytes}{from}{times}{damage}}}")
    }

    /// Parses the object. `from` names a file if it is a number, and a time if it is a text.
    pub(super) fn read(json: &Json) -> Option<Self> {
        let time = |name| Timestamp::parse(json.get(name)?.as_str()?.as_bytes());
        let after = Self {
            segment: small(json.get("segment")?)?,
            bytes: json.get("bytes")?.as_u64()?,
            from: json.get("from").and_then(small),
            times: time("from").zip(time("to")),
            is_damaged: json.get("damage").and_then(Json::as_bool).unwrap_or(false),
        };
        // Only files that count nothing can be named in a row.
        (after.from.is_none_or(|from| after.bytes == 0 && from <= after.segment)).then_some(after)
    }
}
