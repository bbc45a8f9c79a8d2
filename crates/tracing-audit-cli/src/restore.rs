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

/// Brings a log back from an archive.
///
/// Writes its segments into a new or empty directory, byte for byte, for their owner only, and verifies them. The exit code is that of
/// `verify`. A log that was still written when it was archived last has no end, so it is UNCLEAN. Of what fails, nothing
/// counts: remove the directory, and begin again.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  tracing-audit restore 's3://audit-archive/logs?service=web&host=n1' back
  tracing-audit restore 'archive:/mnt/archive?service=web&host=n1' back

Exit codes: 0 intact, 1 damaged, 2 could not restore, or not all chains, 3 unclean.")]
pub(crate) struct Restore {
    /// The archive: `s3://BUCKET/PREFIX` or `archive:DIR`, with `?service=NAME&host=NAME` where it has several logs.
    #[arg(value_name = "URL")]
    from: String,

    /// The directory to write to.
    #[arg(value_name = "DIR")]
    to: PathBuf,

    /// Only the chain with this id, where a log was begun anew. May be given several times.
    #[arg(long = "chain-id", value_name = "ID")]
    chain_ids: Vec<String>,
}

impl Restore {
    pub(crate) fn run(self) -> Result<ExitCode> {
        let Store::Objects(url) = store::of(&self.from)? else {
            bail!("only an archive is restored: s3://BUCKET/PREFIX or archive:DIR");
        };
        let restored = Archive::new(url)?.restore(&self.to, &self.chain_ids)?;
        let Restored { origin, files, bytes, left_out, .. } = &restored;
        let to = self.to.display().to_string();
        print(&format!("{origin}: {files} segments, {bytes} bytes, are in {}", escape(&to)));
        let report =
            tracing_audit::verify(&self.to).with_context(|| format!("cannot verify {}", escape(&to)))?;
        let verdict = report.verdict();
        print(match verdict {
            Verdict::Intact => "intact: tracing-audit verify says more",
            Verdict::Unclean => {
                "unclean: the log has no end, as it has where it was still written when it was archived last, or where its \
                 program was killed; nothing durable is altered"
            }
            _ => "DAMAGED: tracing-audit verify says where",
        });
        for id in left_out {
            print(&format!(
                "chain {} is left out: its forwarding began within a segment, and nothing says yet which chain it is",
                escape(id)
            ));
        }
        match exit_code_of(verdict) {
            0 | 3 if !left_out.is_empty() => Ok(ExitCode::from(2)),
            code => Ok(ExitCode::from(code)),
        }
    }
}
