//! A record in one line, for people: aligned, coloured, and with nothing in it that moves a terminal.

use std::fmt::Write as _;

use anstyle::{AnsiColor, Style};
use tracing_audit::{Record, RecordKind, Severity, Value};

use crate::{filter::text_of, output::escape, time::short};

/// How long a value may be before the rest of it is left out; `show` prints all of a record.
const MAX_SHOWN: usize = 160;

const DIM: Style = Style::new().dimmed();
const BOLD: Style = Style::new().bold();
const RED: Style = AnsiColor::Red.on_default().bold();
const YELLOW: Style = AnsiColor::Yellow.on_default();
const GREEN: Style = AnsiColor::Green.on_default();
const CYAN: Style = AnsiColor::Cyan.on_default();

/// Prints a record: time, position, severity, what, who, with which result, on what, and the rest.
///
/// ```text
/// 2026-11-21 08:00:03.250Z  000/3      CRIT     auth.failure      mallory     denied  203.0.113.9  login refused  attempt=3
/// ```
pub(crate) fn line_of(record: &Record) -> String {
    line_with(record, record.is_unconfirmed())
}

/// The same where it is known from elsewhere whether the record is named unconfirmed.
pub(crate) fn line_with(record: &Record, is_unconfirmed: bool) -> String {
    let mut line = String::with_capacity(160);
    let time =
        record.timestamp().map_or_else(|| "no time".to_owned(), |time| escape(&short(time)).into_owned());
    put(&mut line, DIM, &time, 24);
    put(&mut line, Style::new(), &position(record), 12);
    let (style, mark) = match (record.severity(), record.kind()) {
        (Some(Severity::Critical), _) => (RED, "CRIT"),
        (_, RecordKind::Event) => (Style::new(), "event"),
        (_, RecordKind::Gap | RecordKind::Recovery | RecordKind::Unconfirmed) => {
            (YELLOW, record.kind().as_str())
        }
        _ => (DIM, record.kind().as_str()),
    };
    put(&mut line, style, mark, 8);
    if is_unconfirmed {
        put(&mut line, RED, "UNCONFIRMED", 11);
    }
    if record.is_provisional() {
        put(&mut line, YELLOW, "not yet durable", 15);
    }
    match record.kind() {
        RecordKind::Event => event(&mut line, record),
        kind => detail(&mut line, record, kind),
    }
    line.truncate(line.trim_end().len());
    line
}

/// Chain and number, as files and heads have them: `000/42`.
pub(crate) fn position(record: &Record) -> String {
    format!("{:03}/{}", record.chain(), record.seq())
}

fn event(line: &mut String, record: &Record) {
    put(line, BOLD, record.action().unwrap_or("-"), 20);
    put(line, CYAN, record.actor().unwrap_or("-"), 14);
    let outcome = record.outcome().unwrap_or("-");
    put(line, style_of_outcome(outcome), outcome, 8);
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
    for list in ["incomplete", "redacted", "repeated", "truncated"] {
        let names: Vec<&str> = match record.get(list) {
            Some(Value::List(names)) => names.iter().filter_map(Value::as_str).collect(),
            Some(Value::Object(names)) => names.keys().map(String::as_str).collect(),
            _ => continue,
        };
        put(line, YELLOW, &format!("{list}: {}", names.join(", ")), 0);
    }
}

/// What the log says of itself: the members of the object that is named like the kind.
fn detail(line: &mut String, record: &Record, kind: RecordKind) {
    let Some(Value::Object(detail)) = record.get(kind.as_str()) else { return };
    for name in ["code", "cause", "reason", "message"] {
        if let Some(text) = detail.get(name).and_then(Value::as_str) {
            put(line, if name == "message" { Style::new() } else { BOLD }, text, 0);
        }
    }
    let is_said = |name: &str| ["code", "cause", "reason", "message", "chains", "after"].contains(&name);
    for (name, value) in detail.iter().filter(|(name, _)| !is_said(name)) {
        named(line, name, &text_of(value));
    }
}

/// A refusal is seen before it is read.
fn style_of_outcome(outcome: &str) -> Style {
    match outcome {
        "success" | "ok" | "allowed" | "granted" | "true" => GREEN,
        outcome if is_failure(outcome) => RED,
        _ => Style::new(),
    }
}

/// Whether an outcome says that something was not done.
pub(crate) fn is_failure(outcome: &str) -> bool {
    matches!(outcome, "failure" | "failed" | "denied" | "refused" | "error" | "false")
}

fn named(line: &mut String, name: &str, text: &str) {
    put(line, DIM, &format!("{name}={text}"), 0);
}

/// Adds a column of at least this width, and two spaces.
fn put(line: &mut String, style: Style, text: &str, width: usize) {
    let mut end = text.len().min(MAX_SHOWN);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    let cut = if end < text.len() { "…" } else { "" };
    let shown = escape(text.get(..end).unwrap_or_default());
    let padding = width.saturating_sub(shown.chars().count() + cut.chars().count());
    drop(write!(line, "{style}{shown}{cut}{style:#}{:padding$}  ", ""));
}
