//! Formats a record as one line for people: aligned, coloured, and safe for a terminal.

use std::{fmt::Write as _, io::IsTerminal as _, sync::OnceLock};

use anstyle::{AnsiColor, Style};
use tracing_audit::{Record, RecordKind, Severity, Value};
use unicode_width::UnicodeWidthStr as _;

use crate::{export::meaning::Outcome, filter::text_of, output::escape, time::short};

/// Length at which a value is cut, in bytes; `show` prints all of a record.
const MAX_SHOWN: usize = 160;

/// Length of a printed time.
const TIME: usize = "2026-11-21 08:00:03.250Z".len();

const DIM: Style = Style::new().dimmed();
const BOLD: Style = Style::new().bold();
const RED: Style = AnsiColor::Red.on_default().bold();
const YELLOW: Style = AnsiColor::Yellow.on_default();
const GREEN: Style = AnsiColor::Green.on_default();
const CYAN: Style = AnsiColor::Cyan.on_default();

/// The minimal widths of the columns. A wider value moves the rest of its line.
#[derive(Debug)]
struct Columns {
    /// Number of characters that are left out at the beginning and the end of the time.
    time: (usize, usize),
    position: usize,
    mark: usize,
    action: usize,
    actor: usize,
    outcome: usize,
}

const WIDE: Columns = Columns { time: (0, 0), position: 12, mark: 8, action: 20, actor: 14, outcome: 8 };
/// Narrow columns, without the year and fractions of a second.
const NARROW: Columns = Columns { time: (5, 5), position: 7, mark: 5, action: 12, actor: 8, outcome: 7 };

/// Width of a terminal below which it gets narrow columns.
const NARROW_BELOW: u16 = 110;

/// Returns the columns for standard output. The width of a terminal is queried only once.
fn columns() -> &'static Columns {
    static IS_NARROW: OnceLock<bool> = OnceLock::new();
    let is_narrow = IS_NARROW.get_or_init(|| {
        let is_terminal = std::io::stdout().is_terminal();
        let size = terminal_size::terminal_size_of(std::io::stdout());
        is_terminal && size.is_some_and(|(width, _)| width.0 < NARROW_BELOW)
    });
    if *is_narrow { &NARROW } else { &WIDE }
}

/// Formats a record: time, position, severity, action, actor, outcome, resource, and the rest.
///
/// ```text
/// 2026-11-21 08:00:03.250Z  000/3      CRIT     auth.failure      mallory     denied  203.0.113.9  login refused  attempt=3
/// ```
///
/// The caller knows whether the record is named unconfirmed: its own line never states that.
pub(crate) fn line_with(record: &Record, is_unconfirmed: bool) -> String {
    line_in(record, is_unconfirmed, columns())
}

fn line_in(record: &Record, is_unconfirmed: bool, columns: &Columns) -> String {
    let mut line = String::with_capacity(160);
    // A foreign line may have any text as its time. It is cut to narrow columns only if it has the usual length.
    let time = record.timestamp().map_or_else(|| "no time".to_owned(), short);
    let (skipped, cut) = columns.time;
    let shown = time.get(skipped..time.len().saturating_sub(cut)).filter(|_| time.len() == TIME);
    put(&mut line, DIM, shown.unwrap_or(&time), TIME - skipped - cut);
    put(&mut line, Style::new(), &position(record), columns.position);
    let (style, mark) = match (record.severity(), record.kind()) {
        (Some(Severity::Critical), _) => (RED, "CRIT"),
        (_, RecordKind::Event) => (Style::new(), "event"),
        (_, RecordKind::Gap | RecordKind::Recovery | RecordKind::Unconfirmed) => {
            (YELLOW, record.kind().as_str())
        }
        (_, RecordKind::Other) => (DIM, kind_of(record)),
        _ => (DIM, record.kind().as_str()),
    };
    put(&mut line, style, mark, columns.mark);
    if is_unconfirmed {
        put(&mut line, RED, "UNCONFIRMED", 11);
    }
    if record.is_provisional() {
        put(&mut line, YELLOW, "not yet durable", 15);
    }
    match record.kind() {
        // A kind of a later version is shown like an event, as far as it has those members.
        RecordKind::Event | RecordKind::Other => event(&mut line, record, is_unconfirmed, columns),
        kind => detail(&mut line, record, kind),
    }
    line.truncate(line.trim_end().len());
    line
}

/// Returns the kind as it is in the line, including one that only a later version knows.
pub(crate) fn kind_of(record: &Record) -> &str {
    match record.kind() {
        RecordKind::Other => record.get("kind").and_then(Value::as_str).unwrap_or("other"),
        kind => kind.as_str(),
    }
}

/// Formats the position of a record as in heads: `000/42`.
pub(crate) fn position(record: &Record) -> String {
    format!("{:03}/{}", record.chain(), record.seq())
}

fn event(line: &mut String, record: &Record, is_unconfirmed: bool, columns: &Columns) {
    let style = if record.severity() == Some(Severity::Critical) { RED } else { BOLD };
    put(line, style, record.action().unwrap_or("-"), columns.action);
    put(line, CYAN, record.actor().unwrap_or("-"), columns.actor);
    let outcome = record.outcome().unwrap_or("-");
    put(line, style_of_outcome(outcome, is_unconfirmed), outcome, columns.outcome);
    for text in [record.resource(), record.source(), record.reason(), record.message()].into_iter().flatten()
    {
        put(line, Style::new(), text, 0);
    }
    let ids =
        [("session", record.session_id()), ("request", record.request_id()), ("trace", record.trace_id())];
    for (name, text) in ids {
        if let Some(text) = text {
            named(line, name, text);
        }
    }
    for (name, value) in record.fields() {
        named(line, name, &text_of(value));
    }
    // These lists name what the record lacks.
    for list in ["incomplete", "redacted", "repeated", "truncated"] {
        let names: Vec<&str> = match record.get(list) {
            Some(Value::List(names)) => names.iter().filter_map(Value::as_str).collect(),
            Some(Value::Object(names)) => names.keys().map(String::as_str).collect(),
            _ => continue,
        };
        put(line, YELLOW, &format!("{list}: {}", names.join(", ")), 0);
    }
}

/// Appends the detail of one of the log's own records: the members of the object that is named like its kind.
fn detail(line: &mut String, record: &Record, kind: RecordKind) {
    let Some(Value::Object(detail)) = record.get(kind.as_str()) else { return };
    for name in ["code", "cause", "reason", "message"] {
        if let Some(text) = detail.get(name).and_then(Value::as_str) {
            put(line, if name == "message" { Style::new() } else { BOLD }, text, 0);
        }
    }
    let is_done = |name: &str| ["code", "cause", "reason", "message", "chains", "after"].contains(&name);
    for (name, value) in detail.iter().filter(|(name, _)| !is_done(name)) {
        named(line, name, &text_of(value));
    }
}

/// Returns the colour of an outcome. An unconfirmed record is never shown as a success.
fn style_of_outcome(outcome: &str, is_unconfirmed: bool) -> Style {
    match Outcome::of_word(outcome) {
        Outcome::Success if !is_unconfirmed => GREEN,
        Outcome::Failure => RED,
        _ => Style::new(),
    }
}

fn named(line: &mut String, name: &str, text: &str) {
    put(line, DIM, &format!("{name}={text}"), 0);
}

/// Appends a column of at least this width, and two spaces.
fn put(line: &mut String, style: Style, text: &str, width: usize) {
    let mut end = text.len().min(MAX_SHOWN);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    let cut = if end < text.len() { "…" } else { "" };
    let shown = escape(text.get(..end).unwrap_or_default());
    // Pad by display width, not by characters: a CJK character is two columns wide.
    let padding = width.saturating_sub(shown.width() + cut.width());
    write!(line, "{style}{shown}{cut}{style:#}{:padding$}  ", "").unwrap_or_default();
}
