//! The whole writer on a simulated machine on which everything fails, reproducible from one seed.
//!
//! `world` is the machine with the processes that have the log open. `oracle` compares what they
//! left with what they promised. `run` draws one run from its seed, `mischief` changes the files
//! and the clock, and `copies` does the same to copies of them. The tests of `writer` drive the
//! first two by hand. The program in `crates/tracing-audit-faults` runs seeds by the million.
//! `fuzz` checks what must hold for arbitrary bytes.

#![cfg_attr(not(test), allow(dead_code, reason = "a test takes from it what a run of seeds does not need"))]
#![cfg_attr(
    not(audit_simulation),
    expect(unreachable_pub, reason = "what is public here can be reached with `--cfg audit_simulation`")
)]
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "this is a test that is also a program: a panic is how it fails"
)]

mod copies;
pub mod fuzz;
mod mischief;
pub(crate) mod oracle;
mod run;
pub(crate) mod world;

use std::fmt;

use crate::Verdict;

/// Returns how many times a test repeats its work: `few` times, or as often as an environment
/// variable says. The steps of `.ci/run` set it for the figures in docs/durability.md.
#[cfg(test)]
pub(crate) fn times(variable: &str, few: u64) -> u64 {
    let Some(text) = std::env::var_os(variable) else { return few };
    text.to_str().and_then(|text| text.parse().ok()).unwrap_or_else(|| panic!("{variable} must be a number"))
}

/// The actions and findings of one seed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Outcome {
    /// How many events were emitted.
    pub emitted: u64,
    /// Of these, how many were acknowledged.
    pub acknowledged: u64,
    /// How often a log was opened.
    pub opened: u64,
    /// How often the power was cut.
    pub power_cuts: u64,
    /// How often a sync of the directory failed for one process while a file of another was not
    /// synced either. The file system then stopped until the power was cut.
    pub file_systems_stopped: u64,
    /// How many processes were killed.
    pub kills: u64,
    /// How many calls were hit by a fault.
    pub faults: u64,
    /// How many syncs failed.
    pub failed_syncs: u64,
    /// How often recovery was run twice, once with a crash in it, with the same result.
    pub recoveries_repeated: u64,
    /// How often an unaltered log was verified, also while it was being written.
    pub honest_logs: u64,
    /// Why nothing was promised, if so. Then only panics and hangs count as failures.
    pub promises_nothing: Option<&'static str>,
    /// The verdict of the verifier at the end.
    pub verdict: Option<Verdict>,
    /// A hash over every call to the disk and every byte that was left.
    pub fingerprint: u64,
}

/// How a seed failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Failure {
    /// An acknowledged record is gone.
    Lost(String),
    /// An unaltered log was called damaged.
    FalseAlarm(String),
    /// Any other violation, including panics.
    Other(String),
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Lost(what) => write!(f, "an acknowledged record is lost: {what}"),
            Self::FalseAlarm(what) => write!(f, "a false alarm: {what}"),
            Self::Other(what) => f.write_str(what),
        }
    }
}

impl From<String> for Failure {
    fn from(what: String) -> Self {
        Self::Other(what)
    }
}

/// Runs one seed.
///
/// # Errors
///
/// Returns what was found. The same seed always finds the same.
pub fn run(seed: u64) -> Result<Outcome, Failure> {
    run::run(seed, None)
}

/// Runs one seed, and passes every call to the disk and every remaining file to `show`.
///
/// # Errors
///
/// As for `run`.
pub fn replay(seed: u64, mut show: impl FnMut(&str)) -> Result<Outcome, Failure> {
    run::run(seed, Some(&mut show))
}
