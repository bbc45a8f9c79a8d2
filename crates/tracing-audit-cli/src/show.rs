//! `tracing-audit show`.

mod found;
mod print;

use std::{path::PathBuf, process::ExitCode, str::FromStr};

use anyhow::{Result, anyhow, bail};
use clap::Args;
use serde::Serialize;
use tracing_audit::{Digest, Head};

use crate::{filter, output::escape_json};

/// Shows one record in full, and how to check it without this tool.
///
/// The hash of the record is computed again from its line, and the links to the records before and after it are checked. The
/// record is found by its number, without reading the whole log.
///
/// A correct record with correct links shows that nobody changed this record alone. Only `tracing-audit verify`, with a head
/// kept elsewhere, shows that nothing in the log was changed.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Show {
    /// The directory of the log.
    log: PathBuf,

    /// The record, as CHAIN/NUMBER; or a head or receipt, CHAIN/NUMBER:HASH, whose hash is compared too.
    record: Wanted,

    /// Print one JSON object.
    #[arg(long)]
    json: bool,
}

const EXAMPLES: &str = "\
Examples:
  tracing-audit show /var/log/shop/audit 000/42
  tracing-audit show /var/log/shop/audit 000/5:4c7ea54f39d9c65d0c586e56363f134caf7a178906844a3330e8f612c03c0ae8
  tracing-audit show /var/log/shop/audit 000/42 --json | jq .next

Exit codes: 0 shown, with correct hash and links; 1 missing, another record than the one named, or a wrong hash or link;
2 could not read.";

/// The record to show, and its expected hash.
#[derive(Debug, Clone, Copy)]
struct Wanted {
    chain: u16,
    seq: u64,
    hash: Option<Digest>,
}

impl FromStr for Wanted {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        let text = text.trim();
        // A receipt has the same form as a head.
        if let Ok(head) = text.parse::<Head>() {
            return Ok(Self { chain: head.chain(), seq: head.seq(), hash: Some(head.hash()) });
        }
        let no_record = || anyhow!("`{text}` is not a record: write CHAIN/NUMBER, as in 000/42");
        let (chain, seq) = text.split_once('/').ok_or_else(no_record)?;
        if seq.contains(':') {
            bail!("`{text}` has no hash of 64 digits after the colon");
        }
        let seq: u64 = seq.parse().map_err(|_| no_record())?;
        if seq == 0 {
            bail!("records are counted from 1");
        }
        Ok(Self { chain: filter::chain(chain)?, seq, hash: None })
    }
}

/// What is shown of a record, and the schema of `--json`.
#[derive(Debug, Serialize)]
struct Shown {
    chain: u16,
    seq: u64,
    /// The hash in the line.
    hash: Option<String>,
    /// The hash computed from the line; `null` if the line is longer than 1 MiB.
    computed: Option<String>,
    /// Whether both are the same.
    hash_is_right: bool,
    /// Whether the computed hash is the requested one; `null` if none was requested.
    is_the_one: Option<bool>,
    file: String,
    /// Counted from 1.
    line: u64,
    /// Where the line begins in the file, in bytes.
    offset: u64,
    /// Length of the line in bytes, without its line feed; `null` if it is longer than 1 MiB.
    bytes: Option<u64>,
    previous: Link,
    next: Link,
    /// Whether the record is not known to be durable; `null` if the line is not a record.
    provisional: Option<bool>,
    unconfirmed: bool,
    /// The shell command that prints the hash; `null` if the line is longer than 1 MiB.
    check: Option<String>,
    /// The line; `null` if it is longer than 1 MiB.
    text: Option<String>,
}

/// A neighbour and the link to it.
#[derive(Debug, Serialize)]
struct Link {
    seq: Option<u64>,
    hash: Option<String>,
    /// `null` if there is nothing to check.
    is_right: Option<bool>,
    /// The result in words.
    says: String,
}

impl Shown {
    fn is_right(&self) -> bool {
        self.hash_is_right
            && self.is_the_one != Some(false)
            && self.previous.is_right != Some(false)
            && self.next.is_right != Some(false)
    }
}

impl Show {
    pub(crate) fn run(self) -> Result<ExitCode> {
        let Some(shown) = found::find(&self.log, self.record)? else { return Ok(ExitCode::FAILURE) };
        if self.json {
            crate::print(&escape_json(&serde_json::to_string(&shown)?));
        } else {
            print::print(&shown);
        }
        Ok(ExitCode::from(u8::from(!shown.is_right())))
    }
}
