//! `tracing-audit export`.

use std::{path::PathBuf, process::ExitCode};

use clap::Args;

/// Translates records for other tools.
#[derive(Debug, Args)]
pub(crate) struct Export {
    /// The directory of the log.
    log: PathBuf,
}

impl Export {
    pub(crate) fn run(self) -> anyhow::Result<ExitCode> {
        anyhow::bail!("{}: not written yet", self.log.display())
    }
}
