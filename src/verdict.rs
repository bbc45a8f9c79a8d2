//! The possible results of a verification.

use crate::named::named;

/// The result of a verification.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Verdict {
    /// Every durable record is present and unaltered, and each chain ends with `close` or is
    /// being written.
    Intact,
    /// Nothing durable is altered, but a chain ends without `close` or with a torn tail and no process holds it, or a
    /// later version wrote it.
    Unclean,
    /// Durable records are altered or missing.
    Damaged,
}

named!(Verdict, "verdict", [
    Intact => "intact",
    Unclean => "unclean",
    Damaged => "damaged",
]);
