//! `tracing-audit report`.

use std::{path::PathBuf, process::ExitCode};

use clap::Args;

/// Writes a page that shows a log.
#[derive(Debug, Args)]
pub(crate) struct Report {
    /// The directory of the log.
    log: PathBuf,
}

impl Report {
    pub(crate) fn run(self) -> anyhow::Result<ExitCode> {
        anyhow::bail!("{}: not written yet", self.log.display())
    }
}
