//! `tracing-audit export`.

pub(crate) mod csv;
mod ecs;
mod json;
pub(crate) mod meaning;
mod ocsf;

use std::{
    collections::{BTreeMap, HashMap},
    fs::File,
    io::{BufRead as _, BufReader, Read as _, Write},
    path::PathBuf,
    process::ExitCode,
};

use anyhow::{Context, Result};
use clap::{Args, ValueEnum};
use tracing_audit::{Error, ReadItem, Reader, Record, RecordKind};

use crate::{
    directory::explain,
    filter::Filter,
    output::grouped,
    output_file::{OutputFile, unless_unread},
    print_stderr,
    scan::{Hit, LONGEST_LINE, Scan, Unconfirmed, UnconfirmedSet},
};

/// Limit of the unconfirmed records that are named on standard error.
const MAX_NAMED: usize = 10;

/// The newest log format that this version knows.
const FORMAT: f64 = 1.0;

/// Exports records in the formats of other tools.
///
/// An export is not the evidence: its hashes cannot be checked without the log. Each row keeps the `_hash` of its record and
/// its position (chain, sequence number, file, byte), so that `tracing-audit show` finds it. `jsonl` copies the lines of the
/// log byte for byte.
///
/// For an unconfirmed record, the program that wrote it got an error, so the action may have been refused. It is exported as
/// unconfirmed, never as a success.
///
/// Exit codes: 0 everything was written; 1 it was written, but lines of the log could not be read, records are missing, or
/// some have a format that this version does not know; 2 the export failed.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  tracing-audit export /var/log/audit --format csv -o audit.csv
  tracing-audit export /var/log/audit --format ecs --since yesterday -o - | gzip > audit.ndjson.gz
  tracing-audit export /var/log/audit --format ocsf --action 'auth.*' --outcome denied -o denied.jsonl")]
pub(crate) struct Export {
    /// The directory of the log.
    log: PathBuf,

    /// The format to write.
    #[arg(long, value_enum)]
    format: Format,

    /// The file to write, outside the directory of the log; `-` is standard output. The file appears when it is complete.
    #[arg(long, short, value_name = "FILE")]
    output: PathBuf,

    #[command(flatten)]
    filter: Filter,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    /// A table for spreadsheets, with formulas neutralised.
    Csv,
    /// The lines of the log, unchanged.
    Jsonl,
    /// Events of the Open Cybersecurity Schema Framework 1.5.0, one per line.
    Ocsf,
    /// Documents of the Elastic Common Schema 8.17, one per line.
    Ecs,
}

/// Writes records in one of the formats.
enum Translator {
    Csv(Box<csv::Table<OutputFile>>),
    Lines(Format, OutputFile),
}

/// What was written, and what to report about it.
#[derive(Debug, Default)]
struct Done {
    records: u64,
    unconfirmed: u64,
    provisional: u64,
    bad_lines: u64,
    missing: u64,
    /// The positions of the first unconfirmed records.
    named: Vec<String>,
    /// The unconfirmed records that are written, or will be.
    unconfirmed_records: UnconfirmedSet,
    /// The last readable time in each chain so far.
    times: HashMap<u16, jiff::Timestamp>,
    /// The first segment of each chain in a format that this version does not know, and that format.
    later: BTreeMap<u16, (String, String)>,
    /// The file of the last record written from each chain.
    files: HashMap<u16, String>,
    /// Number of records written from segments in a later format.
    of_later: u64,
}

impl Export {
    pub(crate) fn run(self) -> Result<ExitCode> {
        unless_unread(self.write())
    }

    fn write(&self) -> Result<ExitCode> {
        let scan = Scan::new(&self.log, &self.filter)?;
        let named = scan.unconfirmed();
        let output = OutputFile::create(&self.output, &self.log)?;
        let mut translator = Translator::new(self.format, output)?;
        let mut done = Done { unconfirmed_records: self.unconfirmed(&scan)?, ..Done::default() };
        let reader = self.reader(done.unconfirmed_records.is_empty());
        for item in reader.items().map_err(|error| explain(&self.log, error))? {
            match item {
                Ok(ReadItem::Record(record)) => self.take(&named, record, &mut translator, &mut done)?,
                Ok(ReadItem::Gap { first_seq, last_seq, .. }) => {
                    done.missing = done.missing.saturating_add(last_seq - first_seq).saturating_add(1);
                }
                // `Withdrawn` comes only when a log is followed.
                Ok(_) => {}
                Err(Error::BadLine { .. }) => done.bad_lines += 1,
                Err(error) => return Err(error).with_context(|| self.failed()),
            }
        }
        translator.finish()?;
        self.report(&done);
        // The file is complete in itself, but somebody has to look at the log.
        Ok(ExitCode::from(u8::from(done.bad_lines > 0 || done.missing > 0 || done.of_later > 0)))
    }

    /// Finds the unconfirmed records that will be written as lines.
    ///
    /// The lines that name them have to be exported too, and may be anywhere in the log. So they must be known beforehand.
    fn unconfirmed(&self, scan: &Scan) -> Result<UnconfirmedSet> {
        let mut all = UnconfirmedSet::default();
        if self.format == Format::Jsonl {
            let note = |found: &mut UnconfirmedSet, hit: &Hit| {
                if hit.is_unconfirmed {
                    found.add(hit.record.chain(), hit.record.seq(), hit.record.seq());
                }
            };
            // Errors are dropped here: the export itself meets and reports them again.
            let (found, _) = scan.fold(UnconfirmedSet::default, note)?;
            for found in found {
                all.merge(found);
            }
        }
        Ok(all)
    }

    /// Makes a reader that skips what the filter excludes by chain or number. The filter is still applied to each record.
    ///
    /// Times skip nothing, because a clock may have been set back. Nothing is skipped either if lines that name unconfirmed
    /// records must be found, which may be anywhere.
    fn reader(&self, may_leave_out: bool) -> Reader {
        if !may_leave_out {
            return Reader::new(&self.log);
        }
        let reader = self.filter.chain.iter().fold(Reader::new(&self.log), Reader::chain);
        match self.filter.seq {
            Some(range) => reader.from_seq(range.first),
            None => reader,
        }
    }

    fn failed(&self) -> String {
        format!("cannot export {}", self.log.display())
    }

    fn take(
        &self,
        named: &Unconfirmed,
        record: Record,
        translator: &mut Translator,
        done: &mut Done,
    ) -> Result<()> {
        let hit = named.hit(record);
        // Before the filter: a record that is not exported may give its time to one that has none.
        let at = done.time_of(&hit.record);
        if self.filter.matches(&hit.record) || self.is_needed(named, &hit.record, done) {
            translator.write(&hit, at)?;
            done.count(&hit);
            done.note_format(self, &hit.record);
        }
        Ok(())
    }

    /// Returns whether a record must be written although the filter does not match it.
    ///
    /// In `jsonl` a line is unchanged and cannot state that it is unconfirmed, so the line that names it is written too.
    fn is_needed(&self, named: &Unconfirmed, record: &Record, done: &Done) -> bool {
        self.format == Format::Jsonl
            && record.kind() == RecordKind::Unconfirmed
            && named.is_said_by(record, &done.unconfirmed_records)
    }

    /// Returns the format of a segment if this version does not know it.
    fn later_format(&self, file_name: &str) -> Option<String> {
        let file = File::open(self.log.join(file_name)).ok()?;
        let mut line = Vec::new();
        BufReader::new(file.take(LONGEST_LINE)).read_until(b'\n', &mut line).ok()?;
        let line: serde_json::Value = serde_json::from_slice(&line).ok()?;
        let format = line.get("segment")?.get("format")?;
        (format.as_f64()? > FORMAT).then(|| format.to_string())
    }

    fn report(&self, done: &Done) {
        let count = |number: u64, what: &str| {
            format!("{} {what}{}", grouped(number), if number == 1 { "" } else { "s" })
        };
        print_stderr(&format!(
            "{} written; an export is not the evidence: the log is",
            count(done.records, "record")
        ));
        if done.unconfirmed > 0 {
            let more = if done.unconfirmed > done.named.len() as u64 { ", …" } else { "" };
            print_stderr(&format!(
                "{} unconfirmed, which may have been refused: {}{more}",
                count(done.unconfirmed, "record"),
                done.named.join(", ")
            ));
        }
        if done.provisional > 0 {
            print_stderr(&format!("{} not known to be durable yet", count(done.provisional, "record")));
        }
        for (chain, (file, format)) in &done.later {
            print_stderr(&format!(
                "chain {chain:03}: from {file} on it has format {format}, which this version does not know; the exported records may mean something else"
            ));
        }
        if done.bad_lines > 0 || done.missing > 0 {
            print_stderr(&format!(
                "left out: {} without a record, {} missing; run `tracing-audit verify {}` for details",
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
        // This may be one that was written to the log after the search for unconfirmed records.
        self.unconfirmed_records.add(record.chain(), record.seq(), record.seq());
    }

    /// Returns the time of a record; without a readable one, that of the nearest record before it in its chain that has one.
    fn time_of(&mut self, record: &Record) -> jiff::Timestamp {
        let time = record.time().and_then(|time| jiff::Timestamp::try_from(time).ok());
        if let Some(time) = time {
            self.times.insert(record.chain(), time);
        }
        self.times.get(&record.chain()).copied().unwrap_or(jiff::Timestamp::UNIX_EPOCH)
    }

    fn note_format(&mut self, export: &Export, record: &Record) {
        let file = record.file_name();
        // Each file is examined once: a segment has one format.
        if self.files.get(&record.chain()).is_none_or(|known| *known != file) {
            if let Some(format) = export.later_format(&file) {
                self.later.entry(record.chain()).or_insert_with(|| (file.clone(), format));
            }
            self.files.insert(record.chain(), file);
        }
        // A chain does not return to an earlier format, so every later record counts too.
        self.of_later += u64::from(self.later.contains_key(&record.chain()));
    }
}

impl Translator {
    fn new(format: Format, output: OutputFile) -> Result<Self> {
        Ok(match format {
            Format::Csv => Self::Csv(Box::new(csv::Table::new(output)?)),
            Format::Jsonl | Format::Ocsf | Format::Ecs => Self::Lines(format, output),
        })
    }

    fn write(&mut self, hit: &Hit, at: jiff::Timestamp) -> Result<()> {
        match self {
            Self::Csv(table) => table.write(hit),
            Self::Lines(Format::Ocsf, output) => json::write(output, &ocsf::event(hit, at)?),
            Self::Lines(Format::Ecs, output) => json::write(output, &ecs::document(hit, at)?),
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
