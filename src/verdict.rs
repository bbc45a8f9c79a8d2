//! The possible results of a verification.

use crate::named::named;

/// The result of a verification.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Verdict {
    /// Every durable record that retention did not remove is present and unaltered, except as
    /// [`Report::not_checked`](crate::Report::not_checked) states. Each chain ends with `close` or is being written.
    Intact,
    /// Nothing durable is altered. But a chain ends without `close` or with a torn tail, and no process is known to
    /// hold it. Or a segment has a later format, which this version cannot judge.
    Unclean,
    /// Durable records are altered or missing.
    Damaged,
}

named!(Verdict, "verdict", [
    Intact => "intact",
    Unclean => "unclean",
    Damaged => "damaged",
]);
