//! `tracing-audit stats`.

use std::{path::PathBuf, process::ExitCode};

use clap::Args;

/// Counts records.
#[derive(Debug, Args)]
pub(crate) struct Stats {
    /// The directory of the log.
    log: PathBuf,
}

impl Stats {
    pub(crate) fn run(self) -> anyhow::Result<ExitCode> {
        anyhow::bail!("{}: not written yet", self.log.display())
    }
}
