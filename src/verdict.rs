//! What a verification can find a log to be.

use crate::named::named;

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

named!(Verdict, "verdict", [
    Intact => "intact",
    Unclean => "unclean",
    Damaged => "damaged",
]);
