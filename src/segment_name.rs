//! The names of the files of a log, printed and parsed side by side.

use std::fmt;

/// The number of a chain in its log: three decimal digits, `000` to `999`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct ChainNumber(u16);

impl ChainNumber {
    pub(crate) const FIRST: Self = Self(0);
    const MAX: u16 = 999;

    pub(crate) fn new(number: u16) -> Option<Self> {
        (number <= Self::MAX).then_some(Self(number))
    }

    pub(crate) const fn get(self) -> u16 {
        self.0
    }

    /// Returns every possible chain number in ascending order.
    pub(crate) fn all() -> impl Iterator<Item = Self> {
        (0..=Self::MAX).map(Self)
    }

    /// Returns the name of the lock file that the writer of this chain holds.
    pub(crate) fn lock_name(self) -> String {
        format!("chain-{self}.lock")
    }

    /// Returns a shell pattern that matches the segments of this chain.
    pub(crate) fn segment_pattern(self) -> String {
        format!("audit-{self}-*.jsonl")
    }

    pub(crate) fn parse(text: &str) -> Option<Self> {
        decimal(text, 3).and_then(|number| Self::new(u16::try_from(number).ok()?))
    }

    /// Parses the name of a lock file and returns its chain.
    pub(crate) fn parse_lock_name(name: &str) -> Option<Self> {
        Self::parse(name.strip_prefix("chain-")?.strip_suffix(".lock")?)
    }
}

impl fmt::Display for ChainNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:03}", self.0)
    }
}

/// The name of a segment: `audit-<chain>-<segment>.jsonl`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct SegmentName {
    pub(crate) chain: ChainNumber,
    /// Counted from 1; a number is never used twice.
    pub(crate) segment: u32,
}

impl SegmentName {
    /// The largest number with eight digits.
    pub(crate) const MAX_SEGMENT: u32 = 99_999_999;

    pub(crate) fn parse(name: &str) -> Option<Self> {
        let (chain, segment) = name.strip_prefix("audit-")?.strip_suffix(".jsonl")?.split_once('-')?;
        let segment = decimal(segment, 8)?;
        (segment > 0).then_some(Self { chain: ChainNumber::parse(chain)?, segment })
    }
}

impl fmt::Display for SegmentName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "audit-{}-{:08}.jsonl", self.chain, self.segment)
    }
}

/// The file in the log directory that names the required forwarders: a segment is removed only when the store of each
/// of them has it.
pub(crate) const FORWARD_REQUIRED: &str = "forward-required";
/// The maximum size of that file: one sector, which a disk writes whole or not at all.
pub(crate) const MAX_FORWARD_REQUIRED: usize = 512;

/// Returns whether a forwarder can have this name.
pub(crate) fn is_forwarder_name(name: &str) -> bool {
    let is_right = |byte: u8| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-');
    (1..=32).contains(&name.len()) && name.bytes().all(is_right)
}

/// Returns the name of the file in `control` in which a forwarder records what its store has.
pub(crate) fn position_name(forwarder: &str) -> String {
    format!("forward-{forwarder}")
}

/// Returns whether a file in `control` has such a name. A forwarder's lock and its other files have a dot in theirs.
pub(crate) fn is_position_name(name: &str) -> bool {
    name.strip_prefix("forward-").is_some_and(is_forwarder_name)
}

/// Parses exactly `digits` decimal digits, so that a number has only one name.
fn decimal(text: &str, digits: usize) -> Option<u32> {
    (text.len() == digits && text.bytes().all(|byte| byte.is_ascii_digit()))
        .then(|| text.parse().ok())
        .flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_printed_name_parses_to_itself() {
        let name = SegmentName { chain: ChainNumber(17), segment: 42 };
        assert_eq!(name.to_string(), "audit-017-00000042.jsonl");
        assert_eq!(SegmentName::parse("audit-017-00000042.jsonl"), Some(name));
        assert_eq!(ChainNumber::parse_lock_name("chain-017.lock"), Some(name.chain));
    }

    #[test]
    fn only_the_position_file_of_a_forwarder_has_such_a_name() {
        assert!(is_position_name(&position_name("postgres-2")));
        let long = position_name(&"a".repeat(33));
        for name in
            ["forward-", "forward-a.lock", "forward-a.new", "forward-a.rejected.jsonl", "forward-A", &long]
        {
            assert!(!is_position_name(name), "{name}");
        }
    }

    #[test]
    fn a_foreign_name_is_refused() {
        for name in [
            "audit-0-00000001.jsonl",
            "audit-000-00000000.jsonl",
            "audit-000-1.jsonl",
            "audit-000-+0000001.jsonl",
            "audit-000-000000001.jsonl",
            "audit-000-00000001.json",
            "audit-000-00000001.jsonl.gz",
            "hold",
        ] {
            assert_eq!(SegmentName::parse(name), None, "{name}");
        }
    }
}
