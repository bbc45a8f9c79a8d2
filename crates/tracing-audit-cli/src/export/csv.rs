//! Records as a table for spreadsheets.

use std::{borrow::Cow, io};

use anyhow::Result;

use super::meaning::Outcome;
use crate::{output::escape, scan::Hit};

/// The first row.
const COLUMNS: [&str; 29] = [
    "time",
    "chain",
    "seq",
    "kind",
    "severity",
    "level",
    "action",
    "actor",
    "resource",
    "outcome",
    "recorded_outcome",
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
    "detail",
    "incomplete",
    "redacted",
    "truncated",
    "file",
    "byte",
    "_hash",
];

/// A writer of rows.
pub(super) struct Table<W: io::Write>(csv::Writer<W>);

impl<W: io::Write> Table<W> {
    /// Makes a table, and writes the row with the names of the columns.
    pub(super) fn new(to: W) -> Result<Self> {
        // Quotes around every cell keep a spreadsheet from guessing where one ends.
        let mut table = csv::WriterBuilder::new().quote_style(csv::QuoteStyle::Always).from_writer(to);
        table.write_record(COLUMNS).map_err(cause_of)?;
        Ok(Self(table))
    }

    pub(super) fn write(&mut self, hit: &Hit) -> Result<()> {
        let record = &hit.record;
        let yes = |is: bool| if is { "yes" } else { "no" };
        let member = |name: &str| record.get(name).map(ToString::to_string);
        let recorded = record.outcome().unwrap_or_default();
        let outcome = if Outcome::of(hit) == Outcome::Unconfirmed { "unconfirmed" } else { recorded };
        // The kind as it is in the line, because `record.kind()` is only `other` for one that this version does not
        // know.
        let kind = member("kind").unwrap_or_default();
        // Another program may have written the line, so any of these members may have another type than text.
        let cells: [Cow<'_, str>; COLUMNS.len()] = [
            record.timestamp().unwrap_or_default().into(),
            format!("{:03}", record.chain()).into(),
            record.seq().to_string().into(),
            kind.clone().into(),
            member("severity").unwrap_or_default().into(),
            record.level().unwrap_or_default().into(),
            record.action().unwrap_or_default().into(),
            record.actor().unwrap_or_default().into(),
            record.resource().unwrap_or_default().into(),
            outcome.into(),
            recorded.into(),
            yes(hit.is_unconfirmed).into(),
            yes(record.is_provisional()).into(),
            record.reason().unwrap_or_default().into(),
            record.source().unwrap_or_default().into(),
            record.session_id().unwrap_or_default().into(),
            record.request_id().unwrap_or_default().into(),
            record.trace_id().unwrap_or_default().into(),
            record.span_id().unwrap_or_default().into(),
            record.message().unwrap_or_default().into(),
            record.target().unwrap_or_default().into(),
            member("fields").unwrap_or_default().into(),
            member(&kind).unwrap_or_default().into(),
            member("incomplete").unwrap_or_default().into(),
            member("redacted").unwrap_or_default().into(),
            member("truncated").unwrap_or_default().into(),
            record.file_name().into(),
            record.offset().to_string().into(),
            record.hash().to_string().into(),
        ];
        let row = cells.iter().map(|cell| safe(cell).into_owned());
        self.0.write_record(row).map_err(cause_of)?;
        Ok(())
    }

    /// Flushes the table, and returns the underlying writer.
    pub(super) fn finish(self) -> Result<W> {
        self.0.into_inner().map_err(|error| error.into_error().into())
    }
}

/// Returns the I/O error inside an error of the `csv` crate, so that a closed pipe is recognised as one.
pub(crate) fn cause_of(error: csv::Error) -> io::Error {
    match error.into_kind() {
        csv::ErrorKind::Io(error) => error,
        other => io::Error::other(format!("{other:?}")),
    }
}

/// Makes a cell that no spreadsheet takes for a formula: an apostrophe is put before anything that could begin one.
///
/// Characters that move a terminal or reorder text are escaped. A line feed is one of them, so a record is one line.
///
/// A spreadsheet that separates cells at `;` does not keep a cell together by the quotes of a comma-separated file. So a
/// formula may also begin after a `;`.
pub(crate) fn safe(cell: &str) -> Cow<'_, str> {
    let cell = escape(cell);
    let is_sign = |character| {
        matches!(character, '=' | '+' | '-' | '@' | '|' | '%' | '＝' | '＋' | '－' | '＠' | '｜' | '％')
    };
    // Spreadsheets skip white space and quotes, and treat full-width signs like ASCII ones.
    let begins_formula = |part: &str| {
        let mut rest =
            part.chars().skip_while(|character| character.is_whitespace() || "\"“”".contains(*character));
        rest.next().is_some_and(is_sign)
    };
    // Most cells need no change and no copy.
    if !cell.split(';').any(begins_formula) {
        return cell;
    }
    let mut safe = String::with_capacity(cell.len() + 8);
    for (index, part) in cell.split(';').enumerate() {
        safe.push_str(if index > 0 { ";" } else { "" });
        safe.push_str(if begins_formula(part) { "'" } else { "" });
        safe.push_str(part);
    }
    safe.into()
}

#[cfg(test)]
mod tests {
    use super::safe;

    #[test]
    fn no_cell_begins_a_formula() {
        for formula in ["=1+1", "+1", "-1", "@SUM(A1)", " =1", "\u{a0}=1", "＝1", "|calc", "\"=1", "\" =1"] {
            assert!(safe(formula).starts_with('\''), "{formula}");
            let inside = safe(&format!("a;{formula};b")).into_owned();
            assert_eq!(inside, format!("a;'{formula};b"));
        }
        for escaped in ["\t=1", "\r=1", "\n=1", "\u{200b}=1", "\u{feff}=1"] {
            assert!(safe(escaped).starts_with("\\u{"), "{escaped:?}");
            assert!(!safe(&format!("a{escaped}")).contains(|character: char| character.is_control()));
        }
        for harmless in ["a=1", "'=1", "a;b=1", ";", "", "a, -1"] {
            assert_eq!(safe(harmless), harmless);
        }
    }
}
