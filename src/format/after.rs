//! What the first line of a segment says of the files before it.

use serde_json::Value as Json;

use super::control::small;
use crate::clock::Timestamp;

/// The lowest and the highest time of some records.
pub(crate) type Times = (Timestamp, Timestamp);

/// What a segment says of an earlier file of the chain, or of several in a row that count nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct After {
    pub(crate) segment: u32,
    /// How many of its bytes count.
    pub(crate) bytes: u64,
    /// The first of several files in a row that count nothing and end with this one. The version before named
    /// each by itself, and had no such member.
    pub(crate) from: Option<u32>,
    /// The times of the records that count, where there are any. The version before did not say them.
    pub(crate) times: Option<Times>,
    /// Whether what stands behind the bytes that count was given up because of damage.
    pub(crate) is_damaged: bool,
}

impl After {
    pub(crate) fn counted(segment: u32, bytes: u64, times: Option<Times>) -> Self {
        Self { segment, bytes, from: None, times, is_damaged: false }
    }

    /// Files in a row that count nothing.
    pub(crate) fn nothing(first: u32, last: u32) -> Self {
        Self { from: Some(first), ..Self::counted(last, 0, None) }
    }

    /// Names some files that count nothing, ascending, as few rows as they make.
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

    /// A number as `from` names a file, a text is a time.
    pub(super) fn read(json: &Json) -> Option<Self> {
        let time = |name| Timestamp::parse(json.get(name)?.as_str()?.as_bytes());
        let after = Self {
            segment: small(json.get("segment")?)?,
            bytes: json.get("bytes")?.as_u64()?,
            from: json.get("from").and_then(small),
            times: time("from").zip(time("to")),
            is_damaged: json.get("damage").and_then(Json::as_bool).unwrap_or(false),
        };
        (after.from.is_none_or(|from| after.bytes == 0 && from <= after.segment)).then_some(after)
    }
}
