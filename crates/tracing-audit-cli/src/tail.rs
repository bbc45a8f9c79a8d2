//! `tracing-audit tail`.

use std::{path::PathBuf, process::ExitCode};

use clap::Args;

/// Prints the newest records.
#[derive(Debug, Args)]
pub(crate) struct Tail {
    /// The directory of the log.
    log: PathBuf,
}

impl Tail {
    pub(crate) fn run(self) -> anyhow::Result<ExitCode> {
        anyhow::bail!("{}: not written yet", self.log.display())
    }
}
