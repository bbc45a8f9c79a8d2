//! `tracing-audit restore`.

use std::{path::PathBuf, process::ExitCode};

use anyhow::{Context as _, Result, bail};
use clap::Args;
use tracing_audit::Verdict;
use tracing_audit_forward::{Archive, Restored};

use crate::{
    output::escape,
    print,
    store::{self, Store},
    verify::exit_code_of,
};

/// Restores a log from an archive.
///
/// Writes its segments into a new or empty directory, byte for byte, readable by their owner only, and verifies them. A log
/// that was still being written when it was last archived has no end, so it is UNCLEAN. If a restore fails, remove the
/// directory and start again.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  tracing-audit restore 's3://audit-archive/logs?service=web&host=n1' back
  tracing-audit restore 'archive:/mnt/archive?service=web&host=n1' back

Exit codes: 0 intact, 1 damaged, 2 could not restore, or not all chains, 3 unclean.")]
pub(crate) struct Restore {
    /// The archive: `s3://BUCKET/PREFIX` or `archive:DIR`, with `?service=NAME&host=NAME` if it has several logs.
    #[arg(value_name = "URL")]
    from: String,

    /// The directory to write to. It must not exist, or be empty.
    #[arg(value_name = "DIR")]
    to: PathBuf,

    /// Restore only the chain with this id, if the log was restarted from scratch. May be given more than once.
    #[arg(long = "chain-id", value_name = "ID")]
    chain_ids: Vec<String>,
}

impl Restore {
    pub(crate) fn run(self) -> Result<ExitCode> {
        let Store::Objects(url) = store::of(&self.from)? else {
            bail!("only an archive can be restored: s3://BUCKET/PREFIX or archive:DIR");
        };
        let restored = Archive::new(url)?.restore(&self.to, &self.chain_ids)?;
        let Restored { origin, files, bytes, left_out, .. } = &restored;
        let to = self.to.display().to_string();
        print(&format!("{origin}: {files} segments, {bytes} bytes, are in {}", escape(&to)));
        let report =
            tracing_audit::verify(&self.to).with_context(|| format!("cannot verify {}", escape(&to)))?;
        let verdict = report.verdict();
        print(match verdict {
            Verdict::Intact => "intact: run tracing-audit verify for details",
            Verdict::Unclean => {
                "unclean: the log has no end, because it was still being written when it was last archived, or its program \
                 was killed; nothing durable is altered"
            }
            _ => "DAMAGED: run tracing-audit verify for details",
        });
        for id in left_out {
            print(&format!(
                "chain {} is left out: its forwarding began within a segment, and its number is not known yet",
                escape(id)
            ));
        }
        match exit_code_of(verdict) {
            // An intact part of a log is not the log.
            0 | 3 if !left_out.is_empty() => Ok(ExitCode::from(2)),
            code => Ok(ExitCode::from(code)),
        }
    }
}
