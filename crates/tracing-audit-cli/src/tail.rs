//! `tracing-audit tail`.

mod shown;
mod window;

use std::{
    io::{self, Write as _},
    path::PathBuf,
    process::ExitCode,
    time::Duration,
};

use anyhow::Result;
use clap::Args;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use tracing_audit::{Error, ReadItem, Reader, Record, Segment, segments};

use crate::{
    directory::explain,
    filter::Filter,
    line::{line_with, position},
    output::escape,
    print_stderr,
    scan::{Hit, Unconfirmed, named_by},
    shell::quoted,
};
use shown::Shown;
use window::Window;

/// Prints the newest records, one per line, and with `-f` also new ones as they are written.
///
/// All chains are merged by time. With options that select records, prints the newest that match. Following continues through
/// rotation, new chains, restarts and retention, until Ctrl-C.
///
/// Remarks are printed between the records. They report records that were withdrawn, because a crash lost them before they
/// were acknowledged, records that a later line names UNCONFIRMED, and missing records. `--json` prints the lines of the log
/// unchanged, and the remarks to standard error.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Tail {
    /// The directory of the log.
    log: PathBuf,

    /// Number of records.
    #[arg(short = 'n', long = "lines", value_name = "N", default_value_t = 10)]
    lines: u64,

    /// Keep printing new records.
    #[arg(short, long)]
    follow: bool,

    /// Print the lines of the log unchanged: one JSON object per record.
    #[arg(long)]
    json: bool,

    #[command(flatten)]
    filter: Filter,
}

const EXAMPLES: &str = "\
Examples:
  tracing-audit tail /var/log/shop/audit
  tracing-audit tail -f /var/log/shop/audit
  tracing-audit tail -f -n 0 /var/log/shop/audit --severity critical
  tracing-audit tail -n 100 /var/log/shop/audit --action 'auth.*' --outcome denied
  tracing-audit tail -f --json /var/log/shop/audit | jq -c 'select(.actor == \"mallory\")'

Exit codes: 0 printed, 1 printed, but lines were not records or records are missing (see `tracing-audit verify`),
2 could not read.";

/// How often a closed pipe is checked for while an idle log is followed.
const PAUSE: Duration = Duration::from_secs(1);

/// Returns whether standard output is a pipe whose other end is closed.
///
/// A write would fail, but there may be nothing to write for hours. poll(2) reports `POLLERR` without one.
fn has_nobody_to_read() -> bool {
    let stdout = io::stdout();
    // `POLLERR` is reported even if no events are requested.
    let mut asked = [PollFd::new(&stdout, PollFlags::empty())];
    let now = Timespec { tv_sec: 0, tv_nsec: 0 };
    poll(&mut asked, Some(&now)).is_ok() && asked.iter().any(|one| one.revents().contains(PollFlags::ERR))
}

/// The output of a log as it grows.
struct View<'a> {
    tail: &'a Tail,
    out: anstream::AutoStream<io::Stdout>,
    window: Window,
    /// The records that other chains name unconfirmed, if there are several chains.
    elsewhere: Option<Unconfirmed>,
    shown: Shown,
    /// Whether lines were not records, or records are missing.
    is_poor: bool,
    last_error: Option<String>,
}

impl Tail {
    pub(crate) fn run(self) -> Result<ExitCode> {
        let elsewhere = self.named_elsewhere()?;
        let window = Window::find(&self).map_err(|error| explain(&self.log, error))?;
        let items = window.begin(&self).and_then(|reader| reader.follow(self.follow).items());
        let mut items = items.map_err(|error| explain(&self.log, error))?;
        let (out, shown) = (anstream::stdout(), Shown::default());
        let mut view = View { tail: &self, out, window, elsewhere, shown, is_poor: false, last_error: None };
        loop {
            // The timeout only serves to notice a closed pipe; without `--follow` the items just end.
            match items.next_within(PAUSE) {
                Some(item) => match view.show(item) {
                    // A closed pipe is no error.
                    Err(error) if error.kind() == io::ErrorKind::BrokenPipe => return Ok(ExitCode::SUCCESS),
                    shown => shown?,
                },
                None if self.follow && !has_nobody_to_read() => {}
                None => break,
            }
        }
        Ok(ExitCode::from(u8::from(view.is_poor)))
    }

    /// Makes a reader of the part of the log that can have matches.
    fn reader(&self) -> Reader {
        let mut reader = Reader::new(&self.log);
        for chain in &self.filter.chain {
            reader = reader.chain(chain);
        }
        if let Some(since) = self.filter.since {
            reader = reader.since(since.system_time());
        }
        reader.from_seq(self.filter.seq.map_or(1, |range| range.first))
    }

    /// Searches the whole log for records that are named unconfirmed, if there are several chains.
    ///
    /// Lines that are written later are read anyway.
    fn named_elsewhere(&self) -> Result<Option<Unconfirmed>> {
        // Segments are sorted by chain, so the first and the last show whether there are several chains.
        let has_several = self.lines > 0
            && segments(&self.log)
                .is_ok_and(|all| all.first().map(Segment::chain) != all.last().map(Segment::chain));
        has_several.then(|| Unconfirmed::named_elsewhere(&self.log)).transpose()
    }
}

impl View<'_> {
    fn show(&mut self, item: Result<ReadItem, Error>) -> io::Result<()> {
        match item {
            Ok(ReadItem::Record(record)) => {
                self.last_error = None;
                self.record(record)
            }
            Ok(ReadItem::Gap { chain, first_seq, last_seq, .. }) => {
                self.is_poor = true;
                let records = records(&[(first_seq, last_seq)]);
                self.note(&format!(
                    "{records} of chain {chain:03} {} missing here: removed by retention, or no longer records",
                    are(&[(first_seq, last_seq)])
                ))
            }
            Ok(ReadItem::Withdrawn { chain, from_seq, .. }) => {
                // New records take these numbers, and belong to the window as the old ones did.
                self.window.reach(chain, from_seq);
                let withdrawn = self.shown.withdraw(chain, from_seq);
                if withdrawn.is_empty() {
                    return Ok(());
                }
                let is_one = is_one(&withdrawn);
                self.note(&format!(
                    "{} of chain {chain:03}, shown above, {} withdrawn: {} never acknowledged",
                    records(&withdrawn),
                    if is_one { "was" } else { "were" },
                    if is_one { "it was" } else { "they were" },
                ))
            }
            // `ReadItem` is non-exhaustive.
            Ok(_) => Ok(()),
            Err(error) => self.trouble(&error),
        }
    }

    fn record(&mut self, record: Record) -> io::Result<()> {
        // A record that is not shown may still name a shown one, so it is examined below all the same.
        let is_shown = self.window.has(&record, self.tail.follow) && self.tail.filter.matches(&record);
        let Hit { record, is_unconfirmed } = match &self.elsewhere {
            Some(elsewhere) => elsewhere.hit(record),
            None => Hit::of(record),
        };
        if is_shown {
            let line =
                if self.tail.json { record.as_json().to_owned() } else { line_with(&record, is_unconfirmed) };
            writeln!(self.out, "{line}")?;
            if is_unconfirmed {
                // The line itself, or the remark here, is enough: no second remark when a later line names it.
                self.shown.forget(record.chain(), record.seq());
                if self.tail.json {
                    self.unconfirmed(&format!("record {}", position(&record)))?;
                }
            } else {
                self.shown.add(record.chain(), record.seq());
            }
        }
        if let Some(named) = named_by(&record) {
            let chain = named.chain;
            for seq in self.shown.take(chain, &named.ranges) {
                self.unconfirmed(&format!("record {chain:03}/{seq} above"))?;
            }
        }
        Ok(())
    }

    fn unconfirmed(&mut self, what: &str) -> io::Result<()> {
        self.note(&format!(
            "{what} is UNCONFIRMED: a caller got an error for it, so the action may have been refused"
        ))
    }

    /// Prints a remark: between the records, or with `--json` to standard error.
    fn note(&mut self, text: &str) -> io::Result<()> {
        const STYLE: anstyle::Style = anstyle::AnsiColor::Yellow.on_default().bold();
        if self.tail.json {
            print_stderr(&format!("tracing-audit: {text}"));
            return Ok(());
        }
        writeln!(self.out, "{STYLE}-- {}{STYLE:#}", escape(text))
    }

    /// Prints an error, but not the same one again: while following, reading is retried.
    fn trouble(&mut self, error: &Error) -> io::Result<()> {
        self.is_poor = true;
        let log = quoted(&self.tail.log);
        let text = match error {
            Error::BadLine { .. } => {
                format!("{error}; run `tracing-audit verify {log}` to see what happened")
            }
            _ => format!("{:#}", anyhow::anyhow!("{error}").context(cause_of(error))),
        };
        // While following, a persistent error comes again with each retry.
        if self.last_error.as_ref() == Some(&text) {
            return Ok(());
        }
        self.note(&text)?;
        self.last_error = Some(text);
        Ok(())
    }
}

/// Returns the cause of an error, which is printed before it.
fn cause_of(error: &Error) -> String {
    std::error::Error::source(error).map_or_else(|| "cannot continue reading".to_owned(), ToString::to_string)
}

fn is_one(ranges: &[(u64, u64)]) -> bool {
    matches!(ranges, [(first, last)] if first == last)
}

fn are(ranges: &[(u64, u64)]) -> &'static str {
    if is_one(ranges) { "is" } else { "are" }
}

/// Formats ranges of numbers: `records 17 to 20 and 23`.
fn records(ranges: &[(u64, u64)]) -> String {
    let texts: Vec<String> = ranges
        .iter()
        .map(|(first, last)| if first == last { first.to_string() } else { format!("{first} to {last}") })
        .collect();
    format!("{} {}", if is_one(ranges) { "record" } else { "records" }, texts.join(" and "))
}
