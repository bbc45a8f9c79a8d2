//! `tracing-audit hold`.

use std::{path::PathBuf, process::ExitCode};

use clap::Args;

/// Keeps retention from removing anything.
#[derive(Debug, Args)]
pub(crate) struct Hold {
    /// The directory of the log.
    log: PathBuf,
}

impl Hold {
    pub(crate) fn run(self) -> anyhow::Result<ExitCode> {
        anyhow::bail!("{}: not written yet", self.log.display())
    }
}
