//! `tracing-audit heads`.

use std::{collections::BTreeSet, path::PathBuf, process::ExitCode};

use anyhow::Context as _;
use clap::Args;
use tracing_audit::{Head, ReadItem, Reader, segments};

use crate::{directory::explain, head_file::HeadFile, print, print_stderr};

/// Prints the heads of a log, to be kept elsewhere.
///
/// A head names the last durable record of a chain and its hash. Kept where the owner of the log cannot write, it shows
/// later whether records were cut off or rewritten (`verify --heads`). Heads are read from the end of the log, also while it
/// is being written. Nothing is verified: `verify --append-heads` does both.
///
/// A log notes in its next write that a record is durable. So the last records of an idle log may be missing for up to a
/// minute.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  tracing-audit heads /var/lib/shop/audit-log
  tracing-audit heads /var/lib/shop/audit-log --append /var/lib/auditor/heads
  tracing-audit heads /var/lib/shop/audit-log | ssh vault 'flock heads cat >> heads'

Exit codes: 0 there are heads, 1 no record is durable yet, 2 the log cannot be read.")]
pub(crate) struct Heads {
    /// The directory of the log.
    log: PathBuf,

    /// Append new heads to this file, durably, instead of printing them. It must not be in the directory of the log. If it
    /// does not exist, it is created, readable by its owner only.
    #[arg(long, value_name = "FILE")]
    append: Option<PathBuf>,
}

impl Heads {
    pub(crate) fn run(self) -> anyhow::Result<ExitCode> {
        // The file is checked before the log is read: a bad file must fail at once.
        let kept = self.append.as_ref().map(|file| HeadFile::to_append(file, &self.log)).transpose()?;
        let read = || format!("cannot read the heads of {}", self.log.display());
        let listed = segments(&self.log).map_err(|error| explain(&self.log, error)).with_context(read)?;
        let chains: BTreeSet<u16> = listed.iter().map(tracing_audit::Segment::chain).collect();
        let mut heads = Vec::new();
        for chain in chains {
            match self.head_of(chain).map_err(|error| explain(&self.log, error)).with_context(read)? {
                Some(head) => heads.push(head),
                None => {
                    print_stderr(&format!("chain {chain:03} has no record yet that is known to be durable"));
                }
            }
        }
        match kept {
            Some(kept) => kept.append(&heads)?,
            None => heads.iter().for_each(|head| print(&head.to_string())),
        }
        Ok(ExitCode::from(u8::from(heads.is_empty())))
    }

    /// Returns the newest durable record of a chain. Bad lines at its end are reported and left to `verify`.
    fn head_of(&self, chain: u16) -> Result<Option<Head>, tracing_audit::Error> {
        // Backward, so that little more than the last record is read.
        let reader = Reader::new(&self.log).chain(chain).durable_only(true).reverse(true);
        for item in reader.items()? {
            match item {
                Ok(ReadItem::Record(record)) => return Ok(Some(record.head())),
                Ok(_) => {}
                Err(error @ tracing_audit::Error::BadLine { .. }) => {
                    print_stderr(&format!("tracing-audit: {error}; verify the log"));
                }
                Err(error) => return Err(error),
            }
        }
        Ok(None)
    }
}
