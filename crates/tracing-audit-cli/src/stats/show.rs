//! Prints counts as tables for people, and as JSON.

use std::{cmp::Reverse, fmt::Write as _};

use anstyle::{AnsiColor, Style};
use anyhow::Result;
use serde_json::{Value, json};

use super::{
    By, Stats,
    count::{Count, Counts, Table},
};
use crate::{
    output::{escape, escape_json, grouped, print},
    time::short,
};

const DEFAULT_TOP: usize = 20;
/// Characters of a value before it is cut.
const WIDEST: usize = 40;
/// Width of a full bar, in characters.
const BAR: usize = 24;
const BOLD: Style = Style::new().bold();
const DIM: Style = Style::new().dimmed();
const RED: Style = AnsiColor::Red.on_default().bold();
const YELLOW: Style = AnsiColor::Yellow.on_default();
const CYAN: Style = AnsiColor::Cyan.on_default();

/// Which kinds of the log's own records the filter can match.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Finds {
    pub(crate) gaps: bool,
    pub(crate) recoveries: bool,
}

/// A row of a table.
type Row<'a> = (Option<&'a str>, &'a Count);

/// Returns the rows to print, the sum of all others, and the number of rows left out by `--top`.
fn rows_of<'a>(table: &'a Table, stats: &Stats) -> (Vec<Row<'a>>, Count, usize) {
    let mut rows: Vec<Row<'_>> =
        table.rows.iter().map(|(value, count)| (Some(value.as_str()), count)).collect();
    if table.none != Count::default() {
        rows.push((None, &table.none));
    }
    let top = match stats.top {
        Some(top) => top.get(),
        None if table.by.is_time() => usize::MAX,
        None => DEFAULT_TOP,
    };
    let mut rest = Vec::new();
    if table.by.is_time() {
        // Hours and days are in chronological order, and `--top` keeps the latest.
        rows.sort_by_key(|(value, _)| *value);
        rest = rows.drain(..rows.len().saturating_sub(top)).collect();
    } else {
        // Equal counts are ordered by value, so that the output is the same in each run.
        rows.sort_by_key(|(value, count)| (Reverse(count.events), *value));
        if rows.len() > top {
            rest = rows.split_off(top);
        }
    }
    let mut others = table.others;
    for (_, count) in &rest {
        others.add(**count);
    }
    (rows, others, rest.len())
}

/// Prints the summary and all tables.
pub(crate) fn text(counts: &Counts, stats: &Stats, finds: Finds) {
    summary(counts, finds);
    for table in &counts.tables {
        print("");
        print_table(table, counts, stats);
    }
}

fn summary(counts: &Counts, finds: Finds) {
    let line = |name: &str, style: Style, text: &str| {
        print(&format!("{BOLD}{name:<12}{BOLD:#}  {style}{text}{style:#}"));
    };
    let plain = Style::new();
    let warn = |number: u64, style| if number > 0 { style } else { plain };
    let chains: Vec<String> = counts.chains.iter().map(|chain| format!("{chain:03}")).collect();
    let total = &counts.total;
    line("records", plain, &format!("{}, chains: {}", grouped(counts.records), listed(&chains)));
    if let Some((first, last)) = &counts.times {
        line("time", plain, &format!("{} to {}", escape(&short(first)), escape(&short(last))));
    }
    line("events", plain, &grouped(total.events));
    line("critical", plain, &part(total.critical, total.events));
    line("failed", warn(total.failed, RED), &part(total.failed, total.events));
    line("unconfirmed", warn(total.unconfirmed, RED), &part(total.unconfirmed, total.events));
    if finds.gaps {
        let lost = format!(
            "{} in {} gaps",
            part(total.lost, total.events.saturating_add(total.lost)),
            grouped(counts.gaps)
        );
        line("not recorded", warn(counts.gaps, YELLOW), &lost);
    } else {
        line("not recorded", DIM, "not looked for: gaps do not match such a filter");
    }
    if finds.recoveries {
        line("recoveries", warn(counts.recoveries, YELLOW), &grouped(counts.recoveries));
    }
}

fn listed(chains: &[String]) -> String {
    match chains {
        [] => "none".to_owned(),
        [first, .., last] if chains.len() > 8 => format!("{} from {first} to {last}", chains.len()),
        _ => chains.join(" "),
    }
}

/// Formats a number with its share of the whole.
fn part(number: u64, of: u64) -> String {
    format!("{} ({})", grouped(number), percent(number, of))
}

fn percent(number: u64, of: u64) -> String {
    // A share that is not zero must not be printed as 0.00 %.
    // `u128`, because the product may not fit into 64 bits.
    let hundredths = u128::from(number) * 10_000 / u128::from(of.max(1));
    match hundredths {
        0 if number > 0 => "<0.01 %".to_owned(),
        _ => format!("{}.{:02} %", hundredths / 100, hundredths % 100),
    }
}

fn print_table(table: &Table, counts: &Counts, stats: &Stats) {
    let (rows, others, left_out) = rows_of(table, stats);
    let names: Vec<String> = rows.iter().map(|(value, _)| name_of(table.by, *value)).collect();
    let width =
        names.iter().map(|name| name.chars().count()).max().unwrap_or(0).max(table.by.name().len()).max(6);
    let most = rows.iter().map(|(_, count)| count.events).max().unwrap_or(0);
    let has_unconfirmed = counts.total.unconfirmed > 0;
    let has_lost = table.by.is_time() && counts.gaps > 0;
    let mut head = format!(
        "{:<width$}  {:>12}  {:>9}  {:<BAR$}  {:>9}",
        table.by.name(),
        "events",
        "share",
        "",
        "failed"
    );
    if has_unconfirmed {
        head.push_str("  unconfirmed");
    }
    if has_lost {
        head.push_str("  not recorded");
    }
    print(&format!("{BOLD}{head}{BOLD:#}"));
    let row = |name: &str, count: &Count, most: u64| {
        let share = percent(count.events, counts.total.events);
        let failed = if count.failed > 0 { percent(count.failed, count.events) } else { String::new() };
        let bar = bar(count.events, most);
        let mut line = format!(
            "{name}{:pad$}  {:>12}  {share:>9}  {CYAN}{bar}{CYAN:#}{:rest$}  {RED}{failed:>9}{RED:#}",
            "",
            grouped(count.events),
            "",
            pad = width.saturating_sub(name.chars().count()),
            rest = BAR.saturating_sub(bar.chars().count()),
        );
        for (is_shown, number, style, width) in
            [(has_unconfirmed, count.unconfirmed, RED, 11), (has_lost, count.lost, YELLOW, 12)]
        {
            if is_shown {
                let number = if number > 0 { grouped(number) } else { String::new() };
                write!(line, "  {style}{number:>width$}{style:#}").unwrap_or_default();
            }
        }
        print(line.trim_end());
    };
    for ((_, count), name) in rows.iter().zip(&names) {
        row(name, count, most);
    }
    if others != Count::default() {
        // Without a bar: the others together may have more events than any row.
        row("others", &others, 0);
    }
    if left_out > 0 {
        print(&format!(
            "{DIM}{} more rows are among the others; --top N shows more{DIM:#}",
            grouped(left_out as u64)
        ));
    }
    if table.too_low_by > 0 {
        print(&format!(
            "{DIM}There are too many values to keep all: rare ones are among the others, and each row may be too low by up to {}{DIM:#}",
            grouped(table.too_low_by)
        ));
    }
}

/// Formats a value as the first column of a row.
fn name_of(by: By, value: Option<&str>) -> String {
    let Some(value) = value else { return "(none)".to_owned() };
    match by {
        By::Hour => format!("{}:00Z", escape(value).replace('T', " ")),
        _ if value.is_empty() => "(empty)".to_owned(),
        _ => {
            let shown = escape(value);
            match shown.char_indices().nth(WIDEST) {
                Some((end, _)) => format!("{}…", shown.get(..end).unwrap_or_default()),
                None => shown.into_owned(),
            }
        }
    }
}

/// Draws a bar, to an eighth of a character.
fn bar(number: u64, most: u64) -> String {
    const EIGHTHS: [&str; 8] = ["", "▏", "▎", "▍", "▌", "▋", "▊", "▉"];
    let eighths = u128::from(number) * (BAR as u128 * 8) / u128::from(most.max(1));
    // At least one eighth, so that no count disappears.
    let eighths = usize::try_from(eighths).unwrap_or(0).max(usize::from(number > 0 && most > 0)).min(BAR * 8);
    let eighths = if most == 0 { 0 } else { eighths };
    format!("{}{}", "█".repeat(eighths / 8), EIGHTHS.get(eighths % 8).copied().unwrap_or_default())
}

/// Formats the counts as one JSON object.
pub(crate) fn json(counts: &Counts, stats: &Stats, finds: Finds) -> Result<String> {
    let total = &counts.total;
    let tables: Vec<Value> = counts
        .tables
        .iter()
        .map(|table| {
            let (rows, others, left_out) = rows_of(table, stats);
            let rows: Vec<Value> = rows.iter().map(|(value, count)| with_value(*value, count)).collect();
            json!({
                "by": table.by.name(),
                "rows": rows,
                "others": object(&others),
                "rows_left_out": left_out,
                "too_low_by": table.too_low_by,
            })
        })
        .collect();
    let chains: Vec<String> = counts.chains.iter().map(|chain| format!("{chain:03}")).collect();
    let all = json!({
        "format": 1,
        "log": stats.log.display().to_string(),
        "records": counts.records,
        "chains": chains,
        "first_time": counts.times.as_ref().map(|(first, _)| first),
        "last_time": counts.times.as_ref().map(|(_, last)| last),
        "events": total.events,
        "critical": total.critical,
        "failed": total.failed,
        "unconfirmed": total.unconfirmed,
        "gaps": finds.gaps.then_some(counts.gaps),
        "lost": finds.gaps.then_some(total.lost),
        "recoveries": finds.recoveries.then_some(counts.recoveries),
        "tables": tables,
    });
    Ok(escape_json(&serde_json::to_string(&all)?).into_owned())
}

fn object(count: &Count) -> Value {
    let Count { events, critical, failed, unconfirmed, lost } = count;
    json!({ "events": events, "critical": critical, "failed": failed, "unconfirmed": unconfirmed, "lost": lost })
}

fn with_value(value: Option<&str>, count: &Count) -> Value {
    let mut object = object(count);
    if let Some(members) = object.as_object_mut() {
        members.insert("value".to_owned(), value.into());
    }
    object
}
