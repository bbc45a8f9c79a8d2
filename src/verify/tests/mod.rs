//! Crafted logs: every kind of finding, every clause of "Damage or not".

mod clauses;
mod disk;
mod document;
mod live;
pub(crate) mod log;
mod mutations;
mod python;

use crate::{FindingKind, Report, Verdict};

/// The verdict, and the kinds that were found.
#[track_caller]
fn check(report: &Report, verdict: Verdict, kinds: &[FindingKind]) {
    let found: Vec<FindingKind> = report.findings().iter().map(crate::Finding::kind).collect();
    assert_eq!((report.verdict(), found.as_slice()), (verdict, kinds), "{report}");
}
