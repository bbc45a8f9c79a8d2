//! `tracing-audit heads`.

use std::{path::PathBuf, process::ExitCode};

use clap::Args;

/// Prints the heads of a log, to be kept elsewhere.
#[derive(Debug, Args)]
pub(crate) struct Heads {
    /// The directory of the log.
    log: PathBuf,
}

impl Heads {
    pub(crate) fn run(self) -> anyhow::Result<ExitCode> {
        anyhow::bail!("{}: not written yet", self.log.display())
    }
}
