//! `tracing-audit query`.

mod rows;

use std::{num::NonZero, ops::ControlFlow, path::PathBuf, process::ExitCode};

use anyhow::Result;
use clap::{Args, ValueEnum};

use crate::{
    filter::Filter,
    output::{grouped, is_broken_pipe, print, print_stderr},
    scan::Scan,
};
use rows::Rows;

/// Finds records.
///
/// Prints the records that match, in the order of their numbers, with chains merged by time. Works while programs write the
/// log. This is not a verification: any line that matches its own hash is accepted.
///
/// UNCONFIRMED marks a record for which a program got an error: the action may have been refused.
#[derive(Debug, Args)]
#[command(after_help = "\
Exit codes: 0 something matches, 1 nothing does, 2 something could not be read.

Examples:
  tracing-audit query /var/log/shop --actor mallory --since yesterday
  tracing-audit query /var/log/shop --action 'auth.*' --outcome denied --reverse --limit 20
  tracing-audit query /var/log/shop --field tenant=acme --output csv > acme.csv
  tracing-audit query /var/log/shop --severity critical --output jsonl | jq .message
  tracing-audit query /var/log/shop --actor mallory --count")]
pub(crate) struct Query {
    /// The directory of the log.
    log: PathBuf,

    #[command(flatten)]
    filter: Filter,

    /// Print at most N records, and read no further.
    #[arg(long, value_name = "N", conflicts_with = "count")]
    limit: Option<NonZero<u64>>,

    /// Print the newest first.
    #[arg(long)]
    reverse: bool,

    /// Print only the number of matches.
    #[arg(long, conflicts_with_all = ["output", "reverse"])]
    count: bool,

    /// How to print records.
    #[arg(long, value_enum, default_value_t, value_name = "FORM")]
    output: Output,

    /// Number of threads. Default: as many as can run at once, at most 16.
    #[arg(long, value_name = "N")]
    threads: Option<NonZero<usize>>,
}

/// How records are printed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum Output {
    /// A line per record, for people.
    #[default]
    Text,
    /// The lines of the log, unchanged; the number of unconfirmed ones goes to standard error.
    Jsonl,
    /// A JSON object per record: its position, whether it is unconfirmed, and the record.
    Wrapped,
    /// A table for spreadsheets; a cell that could be taken for a formula begins with an apostrophe.
    Csv,
}

impl Query {
    pub(crate) fn run(self) -> Result<ExitCode> {
        let scan = Scan::new(&self.log, &self.filter)?.threads(self.threads).reverse(self.reverse);
        let (found, unconfirmed, trouble) = if self.count { count(&scan)? } else { self.print(&scan)? };
        // The other outputs mark the records themselves.
        if unconfirmed > 0 && (self.count || self.output == Output::Jsonl) {
            let unconfirmed = grouped(unconfirmed);
            print_stderr(&format!(
                "tracing-audit: {unconfirmed} of these records are UNCONFIRMED: the actions may have been refused"
            ));
        }
        Ok(ExitCode::from(match (trouble.report(), found) {
            (true, _) => 2,
            (false, 0) => 1,
            (false, _) => 0,
        }))
    }

    fn print(&self, scan: &Scan) -> Result<(u64, u64, crate::scan::Trouble)> {
        let mut rows = Rows::new(self.output);
        let (mut found, mut unconfirmed) = (0, 0);
        let limit = self.limit.map_or(u64::MAX, NonZero::get);
        let mut is_closed = false;
        let trouble = scan.for_each(|hit| {
            found += 1;
            unconfirmed += u64::from(hit.is_unconfirmed);
            match rows.push(&hit) {
                // A closed pipe is no error: its reader has enough.
                Err(error) if is_broken_pipe(&error) => is_closed = true,
                pushed => pushed?,
            }
            // After a closed pipe, searching on would only cost time.
            Ok(if found >= limit || is_closed { ControlFlow::Break(()) } else { ControlFlow::Continue(()) })
        })?;
        match rows.finish() {
            Err(error) if !is_broken_pipe(&error) => return Err(error),
            _ => {}
        }
        Ok((found, unconfirmed, trouble))
    }
}

fn count(scan: &Scan) -> Result<(u64, u64, crate::scan::Trouble)> {
    // Counting needs no order, so all threads can work at the same time.
    let (counts, trouble) = scan.fold(
        || (0, 0),
        |(found, unconfirmed), hit| {
            *found += 1_u64;
            *unconfirmed += u64::from(hit.is_unconfirmed);
        },
    )?;
    let found = counts.iter().map(|(found, _)| found).sum::<u64>();
    print(&found.to_string());
    Ok((found, counts.iter().map(|(_, unconfirmed)| unconfirmed).sum(), trouble))
}
