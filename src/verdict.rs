//! What a verification can find a log to be.

use std::fmt;

/// What a verification found the log to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Verdict {
    /// Every record that was durable is there and unaltered, and every run ended in order or is
    /// still going on.
    Intact,
    /// Nothing durable is altered, but a run ended without `close`, or left a torn tail.
    Unclean,
    /// Records that had been durable are altered or missing.
    Damaged,
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Intact => "intact",
            Self::Unclean => "unclean",
            Self::Damaged => "damaged",
        })
    }
}
