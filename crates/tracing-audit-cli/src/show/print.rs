//! Prints a record for people, with every member in full.

use std::fmt::Write as _;

use anstyle::{AnsiColor, Style};
use serde_json::Value;

use super::{Link, Shown};
use crate::output::{escape, grouped};

const BOLD: Style = Style::new().bold();
const DIM: Style = Style::new().dimmed();
const GOOD: Style = AnsiColor::Green.on_default();
const BAD: Style = AnsiColor::Red.on_default().bold();

/// The order in which members are printed, which is that of the format.
const ORDER: [&str; 24] = [
    "seq",
    "ts",
    "kind",
    "severity",
    "level",
    "action",
    "actor",
    "resource",
    "outcome",
    "reason",
    "session_id",
    "request_id",
    "source",
    "trace_id",
    "span_id",
    "message",
    "target",
    "module",
    "fields",
    "incomplete",
    "redacted",
    "repeated",
    "truncated",
    "durable",
];

/// Members that are printed above the others, as links.
const ABOVE: [&str; 2] = ["_prev_hash", "_hash"];

pub(super) fn print(shown: &Shown) {
    let mut text = String::new();
    facts(&mut text, shown);
    // A line that is too long to be read is only described.
    let (Some(line), Some(check), Some(computed)) = (&shown.text, &shown.check, &shown.computed) else {
        return crate::print(text.trim_end());
    };
    match serde_json::from_str(line) {
        Ok(Value::Object(members)) => {
            text.push('\n');
            // Unknown members come before `durable`, which is last in the format.
            let place = |name: &str| ORDER.iter().position(|known| *known == name).unwrap_or(ORDER.len() - 2);
            let mut members: Vec<_> =
                members.into_iter().filter(|(name, _)| !ABOVE.contains(&name.as_str())).collect();
            members.sort_by_key(|(name, _)| place(name));
            put_all(&mut text, &members, 0);
        }
        // Not a JSON object, so there are no members to print.
        _ => put(&mut text, 0, "line", line),
    }
    writeln!(text, "\nTo check the hash without this tool:\n\n  {}", escape(check)).unwrap_or_default();
    write!(text, "\nIt prints {computed}").unwrap_or_default();
    crate::print(&text);
}

/// Appends the position of the record, and whether its hash and links are right.
fn facts(text: &mut String, shown: &Shown) {
    let Shown { chain, seq, file, line, offset, bytes, .. } = shown;
    let computed = shown.computed.as_deref().unwrap_or_default();
    writeln!(text, "{BOLD}record {chain:03}/{seq}{BOLD:#}").unwrap_or_default();
    if shown.unconfirmed {
        let says = "UNCONFIRMED: a caller got an error for it, so the action may have been refused";
        fact(text, "", Some(false), says);
    }
    let place = format!(
        "{}, line {}, from byte {}, {}",
        escape(file),
        grouped(*line),
        grouped(*offset),
        bytes.map_or_else(|| "longer than 1 MiB".to_owned(), |bytes| format!("{} bytes", grouped(bytes)))
    );
    fact(text, "position", None, &place);
    match &shown.hash {
        Some(_) if shown.hash_is_right => fact(text, "hash", Some(true), &format!("right: {computed}")),
        Some(hash) => {
            fact(text, "hash", Some(false), &format!("WRONG: {} is in the line", escape(hash)));
            fact(text, "", Some(false), &format!("       {computed} is the hash of the line as it is now"));
        }
        None if bytes.is_none() => {
            fact(text, "hash", Some(false), "none: the line is too long for a record");
        }
        None => {
            fact(text, "hash", Some(false), "WRONG: the line does not end with one, as every record does");
        }
    }
    match shown.is_the_one {
        Some(true) => fact(text, "", Some(true), "the requested hash"),
        Some(false) => fact(text, "", Some(false), "NOT the requested hash: this is another record"),
        None => {}
    }
    fact(text, "previous", shown.previous.is_right, &link(*chain, &shown.previous));
    fact(text, "next", shown.next.is_right, &link(*chain, &shown.next));
    let durable = match shown.provisional {
        None => "not known: the line is not a record",
        Some(true) => "not known yet: a power cut may lose the record",
        Some(false) => "yes",
    };
    fact(text, "durable", None, durable);
}

fn link(chain: u16, link: &Link) -> String {
    let right = match link.is_right {
        Some(true) => "right: ",
        Some(false) => "WRONG: ",
        None => "",
    };
    let who = link.seq.map(|seq| format!("{chain:03}/{seq} ")).unwrap_or_default();
    format!("{right}{who}{}", link.says)
}

fn fact(text: &mut String, name: &str, is_right: Option<bool>, says: &str) {
    let style = match is_right {
        Some(true) => GOOD,
        Some(false) => BAD,
        None => Style::new(),
    };
    writeln!(text, "  {DIM}{name:<10}{DIM:#}{style}{says}{style:#}").unwrap_or_default();
}

fn put_all(text: &mut String, members: &[(String, Value)], depth: usize) {
    // A long foreign name must not push all values to the right.
    let width = members.iter().map(|(name, _)| escape(name).chars().count()).max().unwrap_or(0).min(24);
    for (name, value) in members {
        let name = format!("{:<width$}", escape(name));
        match value {
            Value::Object(inner) if !inner.is_empty() => {
                put(text, depth, &name, "");
                let inner: Vec<_> = inner.clone().into_iter().collect();
                put_all(text, &inner, depth + 1);
            }
            Value::String(value) => put(text, depth, &name, value),
            other => put(text, depth, &name, &other.to_string()),
        }
    }
}

/// Appends a member. Further lines of its text get a bar in front, so that none can look like a member.
fn put(text: &mut String, depth: usize, name: &str, value: &str) {
    let indent = 2 + depth * 2;
    let mut lines = value.split('\n');
    let first = lines.next().unwrap_or_default();
    writeln!(text, "{:indent$}{DIM}{name}{DIM:#}  {}", "", escape(first)).unwrap_or_default();
    for line in lines {
        let indent = indent + name.chars().count();
        writeln!(text, "{:indent$}{DIM}│{DIM:#} {}", "", escape(line)).unwrap_or_default();
    }
}
