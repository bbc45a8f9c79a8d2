//! `tracing-audit show`.

use std::{path::PathBuf, process::ExitCode};

use clap::Args;

/// Shows one record, and how to check it.
#[derive(Debug, Args)]
pub(crate) struct Show {
    /// The directory of the log.
    log: PathBuf,
}

impl Show {
    pub(crate) fn run(self) -> anyhow::Result<ExitCode> {
        anyhow::bail!("{}: not written yet", self.log.display())
    }
}
