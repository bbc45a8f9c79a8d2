//! Crafted logs: every kind of finding, and every clause of section 6, "Damage", in docs/format.md.

mod auditor;
mod clauses;
mod disk;
mod document;
mod edits;
mod exact;
mod false_alarms;
mod first_lines;
mod flips;
mod honest;
mod live;
pub(crate) mod log;
mod looks;
mod marks;
mod model;
mod mutations;
mod printed;
mod python;
mod tampering;

use crate::{FindingKind, Report, Verdict};

/// Notes that a test cannot run here, in the file whose lines `.ci/run` counts.
pub(crate) fn skip(test: &str, why: &str) {
    use std::io::Write as _;
    eprintln!("SKIPPED {test}: {why}");
    let list = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("target/tmp");
    std::fs::create_dir_all(&list).unwrap();
    let list = list.join("skipped");
    let mut list = std::fs::OpenOptions::new().create(true).append(true).open(list).unwrap();
    writeln!(list, "{test}: {why}").unwrap();
}

/// Compares the verdict and the kinds of findings.
#[track_caller]
fn check(report: &Report, verdict: Verdict, kinds: &[FindingKind]) {
    let found: Vec<FindingKind> = report.findings().iter().map(crate::Finding::kind).collect();
    assert_eq!((report.verdict(), found.as_slice()), (verdict, kinds), "{report}");
}
