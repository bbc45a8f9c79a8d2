//! The names of the members met so far, so that none stands twice in an object.

use std::{collections::HashSet, ops::Range};

/// The names met so far in the objects that are open: a stack, so that nothing is allocated.
#[derive(Debug, Default)]
pub(super) struct Names {
    ranges: Vec<Range<usize>>,
}

/// One open object.
#[derive(Debug)]
pub(super) struct Members {
    first: usize,
    /// Names with escapes, decoded, and then every other name too, because `a` and `\u0061` are one.
    decoded: Option<HashSet<Vec<u8>>>,
}

/// From this many members on, names are kept in a hash set, so that time stays linear.
const MANY: usize = 16;

impl Names {
    pub(super) fn clear(&mut self) {
        self.ranges.clear();
    }

    pub(super) fn open(&mut self) -> Members {
        Members { first: self.ranges.len(), decoded: None }
    }

    /// Takes in a name, given as its place in `bytes`; says whether it is new in its object. `None` if
    /// this or a name before it has no place in `bytes`.
    pub(super) fn add(
        &mut self,
        members: &mut Members,
        bytes: &[u8],
        range: Range<usize>,
        escaped: bool,
    ) -> Option<bool> {
        let name = bytes.get(range.clone())?;
        let mut known = self.ranges.get(members.first..)?.iter().map(|range| bytes.get(range.clone()));
        if members.decoded.is_none() && (escaped || known.len() >= MANY) {
            members.decoded = Some(known.by_ref().map(|name| Some(decode(name?))).collect::<Option<_>>()?);
        }
        let is_new = match &mut members.decoded {
            Some(decoded) => decoded.insert(decode(name)),
            None => known.try_fold(true, |is_new, known| Some(is_new && known? != name))?,
        };
        self.ranges.push(range);
        Some(is_new)
    }

    #[expect(clippy::needless_pass_by_value, reason = "an object is closed once")]
    pub(super) fn close(&mut self, members: Members) {
        self.ranges.truncate(members.first);
    }
}

/// What the inside of a string with escapes says.
pub(super) fn decode(name: &[u8]) -> Vec<u8> {
    let mut quoted = Vec::with_capacity(name.len() + 2);
    quoted.push(b'"');
    quoted.extend_from_slice(name);
    quoted.push(b'"');
    serde_json::from_slice::<String>(&quoted).map_or(quoted, String::into_bytes)
}
