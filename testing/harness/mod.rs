//! The whole writer on a simulated machine where everything goes wrong, repeatable from one seed.
//!
//! `world` is the machine with the processes that have the log open, `oracle` holds what they left
//! against what they promised, `run` draws one run from its seed, `mischief` is what it does to the
//! files and the clock, `copies` to copies of them. The tests of `writer` drive the first two by hand; the program in
//! `crates/tracing-audit-faults` runs seeds by the million. `fuzz` is what must hold for any bytes.

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

/// How many times a test does what it does: few times, or as often as a variable of the environment says. The
/// steps of `.ci/run` ask for the figures of docs/durability.md.
#[cfg(test)]
pub(crate) fn times(variable: &str, few: u64) -> u64 {
    let Some(text) = std::env::var_os(variable) else { return few };
    text.to_str().and_then(|text| text.parse().ok()).unwrap_or_else(|| panic!("{variable} must be a number"))
}

/// What one seed did and found.
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
    /// How often the directory could not be synced for one process while a file of another was not
    /// synced either, so that the file system stopped until the power was cut.
    pub file_systems_stopped: u64,
    /// How many processes were killed.
    pub kills: u64,
    /// How many calls a fault struck.
    pub faults: u64,
    /// How many syncs failed.
    pub failed_syncs: u64,
    /// How often recovery was done twice, with a crash between, and had the same result.
    pub recoveries_repeated: u64,
    /// How often an honest log was verified, also while it was written.
    pub honest_logs: u64,
    /// Why nothing was promised, if so: then it is only asked that nothing panics or hangs.
    pub promises_nothing: Option<&'static str>,
    /// What the verifier said at the end.
    pub verdict: Option<Verdict>,
    /// A hash over every call to the disk and every byte that was left.
    pub fingerprint: u64,
}

/// How a seed failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Failure {
    /// Something that had been acknowledged is gone.
    Lost(String),
    /// An honest log was called damaged.
    FalseAlarm(String),
    /// Anything else that must not be, panics included.
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
/// What was found. The same seed finds the same.
pub fn run(seed: u64) -> Result<Outcome, Failure> {
    run::run(seed, None)
}

/// Runs one seed and hands over every call to the disk, and every file that was left.
///
/// # Errors
///
/// As `run`.
pub fn replay(seed: u64, mut show: impl FnMut(&str)) -> Result<Outcome, Failure> {
    run::run(seed, Some(&mut show))
}
