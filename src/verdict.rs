//! The possible results of a verification.

use crate::named::named;

/// The result of a verification.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Verdict {
    /// Every durable record is present and unaltered, and every run ended cleanly or is still
    /// in progress.
    Intact,
    /// Nothing durable is altered, but a run ended without `close` or left a torn tail.
    Unclean,
    /// Durable records are altered or missing.
    Damaged,
}

named!(Verdict, "verdict", [
    Intact => "intact",
    Unclean => "unclean",
    Damaged => "damaged",
]);
