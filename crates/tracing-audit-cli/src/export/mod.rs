//! `tracing-audit export`.

pub(crate) mod csv;
mod ecs;
mod json;
pub(crate) mod meaning;
mod ocsf;

use std::{io::Write, path::PathBuf, process::ExitCode};

use anyhow::{Context, Result};
use clap::{Args, ValueEnum};
use tracing_audit::{Error, ReadItem, Reader, Record, RecordKind};

use crate::{
    directory::explain,
    filter::Filter,
    output::grouped,
    output_file::OutputFile,
    say,
    scan::{Hit, Unconfirmed},
};

/// How many unconfirmed records are named on standard error.
const MAX_NAMED: usize = 10;

/// Translates records for other tools.
///
/// A translation is not the evidence: it has no hashes that could be checked without the log. Each row keeps the `_hash` of
/// its record and where it stands (chain, sequence number, file, byte), so that `tracing-audit show` finds it. Lines of
/// `jsonl` stand as they do in the log, byte for byte.
///
/// A record that was not confirmed to who wrote it is exported as unconfirmed, never as a success: what it says was done may
/// have been refused.
///
/// Exits 0 when all was written, 1 when it was written and lines of the log could not be read or records are missing, and
/// 2 when it could not be done.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  tracing-audit export /var/log/audit --format csv -o audit.csv
  tracing-audit export /var/log/audit --format ecs --since yesterday -o - | gzip > audit.ndjson.gz
  tracing-audit export /var/log/audit --format ocsf --action 'auth.*' --outcome denied -o denied.jsonl")]
pub(crate) struct Export {
    /// The directory of the log.
    log: PathBuf,

    /// What to write.
    #[arg(long, value_enum)]
    format: Format,

    /// The file to write, outside of the log's directory; `-` is standard output. It appears when it is complete.
    #[arg(long, short, value_name = "FILE")]
    output: PathBuf,

    #[command(flatten)]
    filter: Filter,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    /// A table for spreadsheets, formulas neutralised.
    Csv,
    /// The lines as they stand in the log.
    Jsonl,
    /// Events of the Open Cybersecurity Schema Framework 1.5.0, one a line.
    Ocsf,
    /// Documents of the Elastic Common Schema 8.17, one a line.
    Ecs,
}

/// Writes records in a format.
enum Translator {
    Csv(Box<csv::Table<OutputFile>>),
    Lines(Format, OutputFile),
}

/// What was written, and what is to be said of it.
#[derive(Debug, Default)]
struct Done {
    records: u64,
    unconfirmed: u64,
    provisional: u64,
    bad_lines: u64,
    missing: u64,
    /// The first unconfirmed records, by their positions.
    named: Vec<String>,
    /// Chain and number of the first unconfirmed record of each chain that was written.
    first_unconfirmed: Vec<(u16, u64)>,
}

impl Export {
    pub(crate) fn run(self) -> Result<ExitCode> {
        let named = Unconfirmed::named_elsewhere(&self.log)?;
        let output = OutputFile::create(&self.output, &self.log)?;
        let mut translator = Translator::new(self.format, output)?;
        let mut done = Done::default();
        for item in self.reader().items().map_err(|error| explain(&self.log, error))? {
            match item {
                Ok(ReadItem::Record(record)) => self.take(&named.hit(record), &mut translator, &mut done)?,
                Ok(ReadItem::Gap { first_seq, last_seq, .. }) => {
                    done.missing = done.missing.saturating_add(last_seq - first_seq).saturating_add(1);
                }
                // A reading that does not follow withdraws nothing.
                Ok(_) => {}
                Err(Error::BadLine { .. }) => done.bad_lines += 1,
                Err(error) => return Err(error).with_context(|| self.failed()),
            }
        }
        translator.finish()?;
        self.tell(&done);
        Ok(ExitCode::from(u8::from(done.bad_lines > 0 || done.missing > 0)))
    }

    /// Leaves out what the filter can name beforehand; the filter itself is asked for each record.
    fn reader(&self) -> Reader {
        let reader = self.filter.chain.iter().fold(Reader::new(&self.log), Reader::chain);
        let reader = match self.filter.seq {
            Some(range) => reader.from_seq(range.first),
            None => reader,
        };
        match self.filter.since {
            Some(since) => reader.since(since.system_time()),
            None => reader,
        }
    }

    fn failed(&self) -> String {
        format!("cannot export {}", self.log.display())
    }

    fn take(&self, hit: &Hit, translator: &mut Translator, done: &mut Done) -> Result<()> {
        let record = &hit.record;
        if !self.filter.matches(record) && !self.is_needed(record, done) {
            return Ok(());
        }
        translator.write(hit)?;
        done.count(hit);
        Ok(())
    }

    /// A line that stands as it does in the log cannot say that it is unconfirmed. The line that says it goes with it.
    fn is_needed(&self, record: &Record, done: &Done) -> bool {
        self.format == Format::Jsonl
            && record.kind() == RecordKind::Unconfirmed
            && done
                .first_unconfirmed
                .iter()
                .any(|(chain, seq)| *chain == record.chain() && names_one_from(record, *seq))
    }

    fn tell(&self, done: &Done) {
        let count = |number: u64, what: &str| {
            format!("{} {what}{}", grouped(number), if number == 1 { "" } else { "s" })
        };
        say(&format!(
            "{} written; a translation is not the evidence: the log is",
            count(done.records, "record")
        ));
        if done.unconfirmed > 0 {
            let more = if done.unconfirmed > done.named.len() as u64 { ", …" } else { "" };
            say(&format!(
                "{} unconfirmed, which may have been refused: {}{more}",
                count(done.unconfirmed, "record"),
                done.named.join(", ")
            ));
        }
        if done.provisional > 0 {
            say(&format!("{} not known to be durable yet", count(done.provisional, "record")));
        }
        if done.bad_lines > 0 || done.missing > 0 {
            say(&format!(
                "left out: {} without a record, {} missing; `tracing-audit verify {}` says more",
                count(done.bad_lines, "line"),
                count(done.missing, "record"),
                self.log.display()
            ));
        }
    }
}

impl Done {
    fn count(&mut self, hit: &Hit) {
        let record = &hit.record;
        self.records += 1;
        self.provisional += u64::from(record.is_provisional());
        if !hit.is_unconfirmed {
            return;
        }
        self.unconfirmed += 1;
        if self.named.len() < MAX_NAMED {
            self.named.push(crate::line::position(record));
        }
        if self.first_unconfirmed.iter().all(|(chain, _)| *chain != record.chain()) {
            self.first_unconfirmed.push((record.chain(), record.seq()));
        }
    }
}

/// Whether an `unconfirmed` record names one of these numbers or a later one.
fn names_one_from(record: &Record, seq: u64) -> bool {
    let ranges = record.get("unconfirmed").and_then(|object| object.get("records")?.as_list());
    let last = |range: &tracing_audit::Value| range.as_list()?.last()?.as_u64();
    ranges.into_iter().flatten().filter_map(last).any(|last| last >= seq)
}

impl Translator {
    fn new(format: Format, output: OutputFile) -> Result<Self> {
        Ok(match format {
            Format::Csv => Self::Csv(Box::new(csv::Table::new(output)?)),
            Format::Jsonl | Format::Ocsf | Format::Ecs => Self::Lines(format, output),
        })
    }

    fn write(&mut self, hit: &Hit) -> Result<()> {
        match self {
            Self::Csv(table) => table.write(hit),
            Self::Lines(Format::Ocsf, output) => json::write(output, &ocsf::event(hit)?),
            Self::Lines(Format::Ecs, output) => json::write(output, &ecs::document(hit)?),
            Self::Lines(_, output) => Ok(writeln!(output, "{}", hit.record.as_json())?),
        }
    }

    fn finish(self) -> Result<()> {
        match self {
            Self::Csv(table) => table.finish()?.finish(),
            Self::Lines(_, output) => output.finish(),
        }
    }
}
