//! The names of the members of an object so far, so that no name can occur twice.

use std::{collections::HashSet, ops::Range};

/// The names so far in the objects that are open. They form one stack, so that an object needs no allocation of its
/// own.
#[derive(Debug, Default)]
pub(super) struct Names {
    ranges: Vec<Range<usize>>,
}

/// One open object.
#[derive(Debug)]
pub(super) struct Members {
    /// The index of its first name.
    first: usize,
    /// The decoded names, once one of them has escapes (`a` and `\u0061` are the same name) or there are many.
    decoded: Option<HashSet<Vec<u8>>>,
}

/// From this number of members on, names are kept in a hash set, so that the time stays linear.
const MANY: usize = 16;

impl Names {
    pub(super) fn clear(&mut self) {
        self.ranges.clear();
    }

    /// Begins an object.
    pub(super) fn open(&mut self) -> Members {
        Members { first: self.ranges.len(), decoded: None }
    }

    /// Adds a name, given as its range in `bytes`, and returns whether it is new in its object. `None` if this
    /// name or an earlier one is not within `bytes`.
    pub(super) fn add(
        &mut self,
        members: &mut Members,
        bytes: &[u8],
        range: Range<usize>,
        escaped: bool,
    ) -> Option<bool> {
        let name = bytes.get(range.clone())?;
        let mut known = self.ranges.get(members.first..)?.iter().map(|range| bytes.get(range.clone()));
        // From here on, all names of the object are compared in their decoded form.
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

/// Decodes the inside of a string with escapes.
pub(super) fn decode(name: &[u8]) -> Vec<u8> {
    let mut quoted = Vec::with_capacity(name.len() + 2);
    quoted.push(b'"');
    quoted.extend_from_slice(name);
    quoted.push(b'"');
    serde_json::from_slice::<String>(&quoted).map_or(quoted, String::into_bytes)
}
