//! `tracing-audit query`.

use std::{path::PathBuf, process::ExitCode};

use clap::Args;

/// Finds records.
#[derive(Debug, Args)]
pub(crate) struct Query {
    /// The directory of the log.
    log: PathBuf,
}

impl Query {
    pub(crate) fn run(self) -> anyhow::Result<ExitCode> {
        anyhow::bail!("{}: not written yet", self.log.display())
    }
}
