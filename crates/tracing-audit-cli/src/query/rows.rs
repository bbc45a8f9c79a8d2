//! Prints records, one after the other.

use std::{
    borrow::Cow,
    io::{self, BufWriter, IsTerminal, Write},
};

use anyhow::Result;
use serde::Serialize;
use tracing_audit::{Record, Severity, Value};

use super::Output;
use crate::{
    export::csv::{cause_of, safe},
    line::{kind_of, line_with},
    scan::Hit,
};

/// The columns of a table.
const COLUMNS: [&str; 22] = [
    "chain",
    "seq",
    "time",
    "kind",
    "severity",
    "level",
    "action",
    "actor",
    "resource",
    "outcome",
    "unconfirmed",
    "provisional",
    "reason",
    "source",
    "session_id",
    "request_id",
    "trace_id",
    "span_id",
    "message",
    "target",
    "fields",
    "_hash",
];

/// A printer of records.
pub(super) struct Rows {
    form: Form,
    /// Whether standard output is a terminal, so that each record is flushed.
    is_terminal: bool,
}

enum Form {
    Text(BufWriter<anstream::Stdout>),
    Lines(BufWriter<io::Stdout>, bool),
    Csv(Box<csv::Writer<io::Stdout>>),
}

/// A record with facts that its line does not have.
#[derive(Serialize)]
struct Wrapped<'a> {
    chain: u16,
    seq: u64,
    file: String,
    offset: u64,
    unconfirmed: bool,
    provisional: bool,
    record: &'a serde_json::value::RawValue,
}

impl Rows {
    pub(super) fn new(output: Output) -> Self {
        let form = match output {
            Output::Text => Form::Text(BufWriter::with_capacity(64 << 10, anstream::stdout())),
            Output::Jsonl => Form::Lines(BufWriter::with_capacity(64 << 10, io::stdout()), false),
            Output::Wrapped => Form::Lines(BufWriter::with_capacity(64 << 10, io::stdout()), true),
            Output::Csv => Form::Csv(Box::new(csv::Writer::from_writer(io::stdout()))),
        };
        let mut rows = Self { form, is_terminal: io::stdout().is_terminal() };
        if let Form::Csv(table) = &mut rows.form {
            // The table is buffered: a failure comes with a later write, which is checked.
            drop(table.write_record(COLUMNS));
        }
        rows
    }

    pub(super) fn push(&mut self, hit: &Hit) -> Result<()> {
        let record = &hit.record;
        match &mut self.form {
            Form::Text(out) => writeln!(out, "{}", line_with(record, hit.is_unconfirmed))?,
            Form::Lines(out, false) => writeln!(out, "{}", record.as_json())?,
            // `RawValue` keeps the bytes of the line: no number is rounded, and no member is reordered.
            Form::Lines(out, true) => {
                let wrapped = Wrapped {
                    chain: record.chain(),
                    seq: record.seq(),
                    file: record.file_name(),
                    offset: record.offset(),
                    unconfirmed: hit.is_unconfirmed,
                    provisional: record.is_provisional(),
                    record: serde_json::from_str(record.as_json())?,
                };
                serde_json::to_writer(&mut *out, &wrapped).map_err(io::Error::from)?;
                out.write_all(b"\n")?;
            }
            Form::Csv(table) => {
                table.write_record(cells(hit).map(|cell| safe(&cell).into_owned())).map_err(cause_of)?;
            }
        }
        if self.is_terminal { self.flush() } else { Ok(()) }
    }

    pub(super) fn finish(mut self) -> Result<()> {
        self.flush()
    }

    fn flush(&mut self) -> Result<()> {
        match &mut self.form {
            Form::Text(out) => out.flush()?,
            Form::Lines(out, _) => out.flush()?,
            Form::Csv(table) => table.flush()?,
        }
        Ok(())
    }
}

fn cells(hit: &Hit) -> [Cow<'_, str>; COLUMNS.len()] {
    let record: &Record = &hit.record;
    let text = |text: Option<&'_ str>| text.map_or(Cow::Borrowed(""), |text| Cow::Owned(text.to_owned()));
    [
        format!("{:03}", record.chain()).into(),
        record.seq().to_string().into(),
        text(record.timestamp()),
        text(record.get("kind").and_then(Value::as_str)),
        text(record.severity().map(Severity::as_str)),
        text(record.level()),
        text(record.action()),
        text(record.actor()),
        text(record.resource()),
        text(record.outcome()),
        (if hit.is_unconfirmed { "UNCONFIRMED" } else { "" }).into(),
        (if record.is_provisional() { "provisional" } else { "" }).into(),
        text(record.reason()),
        text(record.source()),
        text(record.session_id()),
        text(record.request_id()),
        text(record.trace_id()),
        text(record.span_id()),
        text(record.message()),
        text(record.target()),
        // The log's own records have an object that is named like their kind.
        record
            .get(if record.is_event() { "fields" } else { kind_of(record) })
            .map_or(Cow::Borrowed(""), |fields| fields.to_string().into()),
        record.hash().to_string().into(),
    ]
}
