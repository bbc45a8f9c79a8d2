//! `tracing-audit demo`.

use std::{path::PathBuf, process::ExitCode};

use clap::Args;

/// Writes a log to try this command on.
#[derive(Debug, Args)]
pub(crate) struct Demo {
    /// The directory of the log.
    log: PathBuf,
}

impl Demo {
    pub(crate) fn run(self) -> anyhow::Result<ExitCode> {
        anyhow::bail!("{}: not written yet", self.log.display())
    }
}
