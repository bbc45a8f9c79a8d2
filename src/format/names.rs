//! The names of the members met so far, so that none stands twice in an object.

use std::collections::HashSet;

use super::plain::ends;

/// The names met so far in the objects that are open: a stack, so that nothing is allocated.
#[derive(Debug, Default)]
pub(super) struct Names {
    ranges: Vec<Name>,
}

#[derive(Debug, Clone)]
struct Name {
    start: usize,
    end: usize,
}

/// One open object.
#[derive(Debug)]
pub(super) struct Members {
    first: usize,
    /// A set of what may have been seen; a name not in it is new.
    filter: [u64; 4],
    /// Names with escapes, decoded, and then every other name too, because `a` and `\u0061` are one.
    decoded: Option<HashSet<Vec<u8>>>,
}

/// From this many members on, names are kept in a hash set, so that time stays linear.
const MANY: usize = 64;

impl Names {
    pub(super) fn clear(&mut self) {
        self.ranges.clear();
    }

    pub(super) fn open(&mut self) -> Members {
        Members { first: self.ranges.len(), filter: [0; 4], decoded: None }
    }

    /// Takes in a name, given as its place in `bytes`; says whether it is new in its object.
    pub(super) fn add(
        &mut self,
        members: &mut Members,
        bytes: &[u8],
        range: std::ops::Range<usize>,
        escaped: bool,
    ) -> bool {
        let name = bytes.get(range.clone()).unwrap_or_default();
        let known = self.ranges.get(members.first..).unwrap_or_default();
        let text = |name: &Name| bytes.get(name.start..name.end).unwrap_or_default();
        if members.decoded.is_none() && (escaped || known.len() >= MANY) {
            members.decoded = Some(known.iter().map(|name| decode(text(name))).collect());
        }
        let is_new = match &mut members.decoded {
            Some(decoded) => decoded.insert(decode(name)),
            None => members.note(name) || !known.iter().any(|known| text(known) == name),
        };
        self.ranges.push(Name { start: range.start, end: range.end });
        is_new
    }

    #[expect(clippy::needless_pass_by_value, reason = "an object is closed once")]
    pub(super) fn close(&mut self, members: Members) {
        self.ranges.truncate(members.first);
    }
}

impl Members {
    /// Notes a name; true when it is surely new.
    fn note(&mut self, name: &[u8]) -> bool {
        // Its first and its last eight bytes tell almost all names apart; for the others there is the
        // comparison.
        let (first, last) = ends(name);
        let hash = (first ^ last.rotate_left(29) ^ name.len() as u64).wrapping_mul(0x517C_C1B7_2722_0A95);
        let bit = 1 << (hash >> 58);
        let Some(word) = self.filter.get_mut((hash >> 56 & 3) as usize) else { return false };
        let is_new = *word & bit == 0;
        *word |= bit;
        is_new
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
