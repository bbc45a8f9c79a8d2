//! `tracing-audit report`.

mod page;
mod parts;
mod sums;
mod svg;
mod tally;
mod timeline;

use std::{io::Write as _, path::PathBuf, process::ExitCode, time::SystemTime};

use anyhow::{Context, Result};
use clap::Args;
use tracing_audit::{Error, Head, ReadItem, Reader, Verifier};

use crate::{
    output_file::{OutputFile, unless_unread},
    print_stderr,
    scan::Unconfirmed,
    verify::exit_code_of,
};
use tally::Tally;

/// Verifies a log and writes an HTML page about it.
///
/// The page is one file that loads and runs nothing. It has the verdict, the heads, a timeline, counts of who did what with
/// which result, unconfirmed records, and segments with their sums. It also states what was not checked, and how to check the
/// log without this program.
///
/// The page itself is not evidence: the log is, together with heads kept elsewhere.
///
/// Exit codes are those of `verify`: 0 intact, 1 damaged, 3 unclean, with the page written in each case; 2 the page could
/// not be written.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  tracing-audit report /var/log/audit -o report.html
  tracing-audit report /mnt/case-17/audit --head 000/5121:4c7e… -o case-17.html")]
pub(crate) struct Report {
    /// The directory of the log.
    log: PathBuf,

    /// The file to write, outside the directory of the log; `-` is standard output. The file appears when it is complete.
    #[arg(long, short, value_name = "FILE")]
    output: PathBuf,

    /// A head kept elsewhere, which the log must have. May be given more than once.
    #[arg(long = "head", value_name = "HEAD")]
    heads: Vec<Head>,
}

/// The data of a page.
struct PageData<'a> {
    path: String,
    made: String,
    heads_given: &'a [Head],
    report: tracing_audit::Report,
    tally: Tally,
    sums: Vec<sums::Sum>,
}

impl Report {
    pub(crate) fn run(self) -> Result<ExitCode> {
        unless_unread(self.write())
    }

    fn write(self) -> Result<ExitCode> {
        // The reader alone would miss unconfirmed records that another chain names.
        let named = Unconfirmed::named_elsewhere(&self.log)?;
        let mut output = OutputFile::create(&self.output, &self.log)?;
        let log = self.log.display();
        let verifier = self.heads.iter().fold(Verifier::new(&self.log), |all, head| all.expect_head(*head));
        let report = verifier.run().with_context(|| format!("cannot verify {log}"))?;
        let verdict = report.verdict();
        let mut tally = Tally::new(report.findings());
        self.read(&named, &mut tally).with_context(|| format!("cannot read {log}"))?;
        let data = PageData {
            // The full path, because the page will be read elsewhere.
            path: self.log.canonicalize().unwrap_or_else(|_| self.log.clone()).display().to_string(),
            made: now()?,
            heads_given: &self.heads,
            tally,
            sums: sums::sum_all(&self.log)?,
            report,
        };
        output.write_all(page::page(&data).into_string().as_bytes())?;
        output.finish()?;
        print_stderr(&format!("{verdict}: the page is written; it is no evidence by itself: the log is"));
        Ok(ExitCode::from(exit_code_of(verdict)))
    }

    fn read(&self, named: &Unconfirmed, tally: &mut Tally) -> Result<(), Error> {
        for item in Reader::new(&self.log).items()? {
            match item {
                Ok(ReadItem::Record(record)) => tally.count(&named.hit(record)),
                Ok(ReadItem::Gap { first_seq, last_seq, .. }) => {
                    tally.missing = tally.missing.saturating_add(last_seq - first_seq).saturating_add(1);
                }
                // `Withdrawn` comes only when a log is followed.
                Ok(_) => {}
                Err(Error::BadLine { .. }) => tally.bad_lines += 1,
                Err(error) => return Err(error),
            }
        }
        tally.finish();
        Ok(())
    }
}

fn now() -> Result<String> {
    let now = jiff::Timestamp::try_from(SystemTime::now())?;
    Ok(now.strftime("%Y-%m-%d %H:%M:%S UTC").to_string())
}
