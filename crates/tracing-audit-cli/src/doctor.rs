//! `tracing-audit doctor`.

use std::{path::PathBuf, process::ExitCode};

use clap::Args;

/// Looks for what needs doing about a log.
#[derive(Debug, Args)]
pub(crate) struct Doctor {
    /// The directory of the log.
    log: PathBuf,
}

impl Doctor {
    pub(crate) fn run(self) -> anyhow::Result<ExitCode> {
        anyhow::bail!("{}: not written yet", self.log.display())
    }
}
