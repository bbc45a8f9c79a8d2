//! The results of a run, for the terminal and as docs/benchmarks.md.

use std::{
    fs,
    path::{Path, PathBuf},
};

use crate::{
    Result, charts, contestants,
    figures::{Results, Spread},
    judge::{self, Judged},
    machine,
    plan::Plan,
    rounds,
    tables::{TABLES, Table, Unit, grouped},
};

/// The growth charts.
pub(crate) const GROWTH: [Growth; 4] = [
    Growth {
        measure: "growth-events",
        title: "Cost of an event by number of events",
        x: "events",
        y: "ns for each event",
        note: "With few events, the one sync at their end dominates; with many, waiting for room in the queue.",
    },
    Growth {
        measure: "growth-threads",
        title: "Events per second by threads",
        x: "threads",
        y: "events/s",
        note: "Durable events share syncs, so throughput rises with the threads until the one writer is busy. \
               Routine events do not get faster with more threads, because one thread chains them.",
    },
    Growth {
        measure: "growth-sizes",
        title: "Cost of an event by its size",
        x: "bytes of text",
        y: "ns for each event",
        note: "Proportional to the size once the bytes cost more than the event itself.",
    },
    Growth {
        measure: "growth-segments",
        title: "Opening and verifying by segments",
        x: "segments",
        y: "ms",
        note: "The same records, spread over more files. Opening lists the directory and reads what follows the noted head.",
    },
];

pub(crate) struct Growth {
    pub(crate) measure: &'static str,
    pub(crate) title: &'static str,
    pub(crate) x: &'static str,
    pub(crate) y: &'static str,
    note: &'static str,
}

impl Growth {
    /// Returns the points of each line, sorted by x.
    pub(crate) fn lines(&self, results: &Results) -> Vec<(String, Vec<(f64, f64)>)> {
        let mut lines: Vec<(String, Vec<(f64, f64)>)> = Vec::new();
        for (name, spread) in results.under(&format!("ours/{}/", self.measure)) {
            let Some((line, x)) = name.split_once('.') else { continue };
            let Ok(x) = x.parse() else { continue };
            match lines.iter_mut().find(|(known, _)| known == line) {
                Some((_, points)) => points.push((x, spread.median)),
                None => lines.push((line.to_owned(), vec![(x, spread.median)])),
            }
        }
        for (_, points) in &mut lines {
            points.sort_by(|one, other| one.0.total_cmp(&other.0));
        }
        lines
    }
}

fn cell(unit: Unit, spread: Option<Spread>) -> String {
    spread.map_or_else(
        || "–".to_owned(),
        |Spread { median, min, max }| {
            format!("{} ({}–{})", unit.print(median), unit.print(min), unit.print(max))
        },
    )
}

/// Explains the last column of the table of goals.
const BARE: &str = "The last column shows the same ratio without the work of this log. For durable events, it is that of \
    the ideal group commit: a thread that writes and syncs what waits, with no tracing, chain or checks. For the critical \
    event, it is that of a bare write and fdatasync every millisecond, relative to its own median. If this column misses \
    the goal as well, this log is not the only cause. Ours can be ahead of it, because events that arrive while it writes \
    are included in the same sync.";

fn goals_table(judged: &[Judged]) -> String {
    let mut text = String::from(
        "| goal | required | measured: median (min–max) | | without this log's work |\n|---|---|---|---|---|\n",
    );
    let print = |spread: Option<Spread>| {
        spread.map_or_else(
            || "not measured".to_owned(),
            |Spread { median, min, max }| format!("{median:.2} ({min:.2}–{max:.2})"),
        )
    };
    for goal in judged {
        let verdict = if goal.passes { "pass" } else { "**fail**" };
        let bare = if goal.has_bare { format!(" {}", print(goal.bare)) } else { String::new() };
        text.push_str(&format!(
            "| {} | {} | {} | {verdict} |{bare} |\n",
            goal.what,
            goal.must,
            print(goal.is)
        ));
    }
    let passed = judged.iter().filter(|goal| goal.passes).count();
    text.push_str(&format!("\n{passed} of {} goals reached.\n", judged.len()));
    if judged.iter().any(|goal| goal.has_bare) {
        text.push_str(&format!("\n{BARE}\n"));
    }
    text
}

fn missed(judged: &[Judged]) -> String {
    let (known, unknown) = judge::reasons(judged);
    if known.is_empty() && unknown.is_empty() {
        return String::new();
    }
    let mut text = String::from("## Why goals were missed\n\n");
    for reason in known {
        text.push_str(&format!("- {reason}\n"));
    }
    for goal in unknown {
        text.push_str(&format!("- No reason is known for: {goal}.\n"));
    }
    text.push('\n');
    text
}

fn table(table: &Table, results: &Results) -> Option<String> {
    let rows = table.rows(results);
    if rows.is_empty() {
        return None;
    }
    let mut text = format!("| {} |", table.unit.name());
    for (title, _) in table.columns {
        text.push_str(&format!(" {title} |"));
    }
    text.push_str("\n|---|");
    text.push_str(&"--:|".repeat(table.columns.len()));
    text.push('\n');
    for (contestant, figures) in rows {
        text.push_str(&format!("| {} |", contestant.name));
        for figure in figures {
            text.push_str(&format!(" {} |", cell(table.unit, figure)));
        }
        text.push('\n');
    }
    Some(text)
}

fn growth_table(growth: &Growth, results: &Results) -> Option<String> {
    let lines = growth.lines(results);
    let (_, first) = lines.first()?;
    let mut text = format!("| {} |", growth.x);
    for (name, _) in &lines {
        text.push_str(&format!(" {name} |"));
    }
    text.push_str("\n|--:|");
    text.push_str(&"--:|".repeat(lines.len()));
    text.push('\n');
    for (index, (x, _)) in first.iter().enumerate() {
        text.push_str(&format!("| {} |", grouped(*x)));
        for (_, points) in &lines {
            let y = points.get(index).map_or(f64::NAN, |(_, y)| *y);
            text.push_str(&if y < 100.0 { format!(" {y:.1} |") } else { format!(" {} |", grouped(y)) });
        }
        text.push('\n');
    }
    Some(text)
}

/// Formats the figures that are in no table of contestants.
fn others(results: &Results) -> String {
    let mut text = String::from("| figure | median (min–max) |\n|---|--:|\n");
    for measure in ["mixed", "processes", "memory", "memory-stalled", "large"] {
        for (name, Spread { median, min, max }) in results.under(&format!("ours/{measure}/")) {
            let print = |value: f64| if value < 100.0 { format!("{value:.2}") } else { grouped(value) };
            let (median, min, max) = (print(median), print(min), print(max));
            text.push_str(&format!("| {measure}, {name} | {median} ({min}–{max}) |\n"));
        }
    }
    text
}

/// Formats the tables without their charts.
pub(crate) fn for_terminal(results: &Results) -> String {
    let mut text = String::new();
    for one in TABLES {
        if let Some(rows) = table(one, results) {
            text.push_str(&format!("\n{}\n\n{rows}", one.title));
        }
    }
    for growth in &GROWTH {
        if let Some(rows) = growth_table(growth, results) {
            text.push_str(&format!("\n{}\n\n{rows}", growth.title));
        }
    }
    // A partial run shows only the goals that it measured.
    let mut judged = judge::judge(results);
    judged.retain(|goal| goal.is.is_some());
    text.push_str(&format!("\nOther figures\n\n{}\nGoals\n\n{}", others(results), goals_table(&judged)));
    text
}

/// Returns the HTML for a chart, with which a page picks the light or the dark picture.
fn picture(name: &str, title: &str) -> String {
    format!(
        "<picture>\n  <source media=\"(prefers-color-scheme: dark)\" srcset=\"benchmarks/{name}-dark.svg\">\n  \
         <img alt=\"{title}\" src=\"benchmarks/{name}-light.svg\">\n</picture>\n\n"
    )
}

fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

const HEAD: &str = "\
# Benchmarks

Two other pages cover [many short processes, many chains and large segments][benchmarks/bursts.md], and
[critical events during retention][benchmarks/removal.md].

This page is written by the command below, except [Forwarding](#forwarding), which has its own command.

All contestants have the same workload, each in its own process: an event with target, action, actor, resource, outcome and
a number, inside a span with session and request. That is about 300 bytes of JSON without hashes. Because the speed of a disk
drifts, contestants take turns: one turn in each round, or three short ones where syncs are compared. A figure is the median
of the turns, with the minimum and maximum. Ratios are computed within a turn, and only ratios carry over to other machines.

";

/// The start of the section that is kept from the previous document.
const FORWARDING: &str = "\n## Forwarding\n";

/// Writes docs/benchmarks.md and its charts.
pub(crate) fn write(plan: &Plan, results: &Results) -> Result<()> {
    let docs = repository().join("docs");
    let dir = docs.join("benchmarks");
    fs::create_dir_all(&dir)?;
    let mut text = HEAD.to_owned();
    text.push_str(&format!("```sh\n{}\n```\n\n| | |\n|---|---|\n", plan.command));
    for (name, value) in machine::describe(&rounds::data_dir()?) {
        text.push_str(&format!("| {name} | {value} |\n"));
    }
    text.push_str(&format!("| rounds | {} |\n\n", plan.rounds));
    if plan.scale.is_quick {
        text.push_str("**A quick run: it only shows that everything runs. Its figures mean nothing.**\n\n");
    }
    let judged = judge::judge(results);
    text.push_str(&format!("## Goals\n\n{}\n", goals_table(&judged)));
    text.push_str(ELSEWHERE);
    text.push_str(&missed(&judged));
    for one in TABLES {
        let Some(rows) = table(one, results) else { continue };
        text.push_str(&format!("## {}\n\n", one.title));
        for figure in one.charted {
            let name = format!("{}-{}", one.measure.name(), figure.replace('.', "-"));
            charts::bars(&dir, &name, one, figure, results)?;
            text.push_str(&picture(&name, one.title));
        }
        text.push_str(&format!("{}\n\n{rows}\n", one.note));
    }
    text.push_str("## How costs grow\n\n");
    for growth in &GROWTH {
        let Some(rows) = growth_table(growth, results) else { continue };
        charts::lines(&dir, growth, &growth.lines(results))?;
        let shown = picture(growth.measure, growth.title);
        text.push_str(&format!("### {} ({})\n\n{shown}{}\n\n{rows}\n", growth.title, growth.y, growth.note));
    }
    text.push_str(&format!("## Other figures\n\nTimes are in nanoseconds and speeds in bytes per second, unless noted otherwise.\n\n{}\n", others(results)));
    text.push_str("## Contestants\n\n| name | what it is |\n|---|---|\n");
    for contestant in contestants::ALL {
        text.push_str(&format!("| {} | {} |\n", contestant.name, contestant.about));
    }
    for (name, why) in contestants::LEFT_OUT {
        text.push_str(&format!("| {name} | left out: {why} |\n"));
    }
    if !results.failures.is_empty() {
        text.push_str("\n## What could not be measured\n\n");
        for failure in &results.failures {
            text.push_str(&format!("- {failure}\n"));
        }
    }
    // Another program measures forwarding, so its section is kept, with the link definitions behind it.
    let before = fs::read_to_string(docs.join("benchmarks.md")).unwrap_or_default();
    if let Some((_, section)) = before.split_once(FORWARDING) {
        text.push_str(FORWARDING);
        text.push_str(section);
    }
    fs::write(docs.join("benchmarks.md"), text)?;
    println!("written: docs/benchmarks.md and docs/benchmarks/");
    Ok(())
}

const ELSEWHERE: &str = "\
Checked elsewhere: an event allocates nothing on the calling thread (`cargo test --test allocations`). Instructions are
counted by `ci/instructions`: those of emitting, sealing and verifying, and those that the layer adds to other events and
spans.

";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_goal_is_shown_beside_the_same_without_this_log() {
        let spread = |median| Some(Spread { median, min: 1.0, max: 4.0 });
        let goal = |what: &str, passes, has_bare, bare| Judged {
            what: what.to_owned(),
            must: "≥ 2".to_owned(),
            is: spread(if passes { 3.0 } else { 1.5 }),
            passes,
            has_bare,
            bare,
        };
        let mut judged = vec![
            goal("a", true, false, None),
            goal("b", false, true, spread(2.5)),
            goal("c", false, true, None),
        ];
        let text = goals_table(&judged);
        for line in [
            "| a | ≥ 2 | 3.00 (1.00–4.00) | pass | |",
            "| b | ≥ 2 | 1.50 (1.00–4.00) | **fail** | 2.50 (1.00–4.00) |",
            "| c | ≥ 2 | 1.50 (1.00–4.00) | **fail** | not measured |",
            "1 of 3 goals reached.",
            BARE,
        ] {
            assert!(text.lines().any(|found| found == line), "{line} in {text}");
        }
        judged.truncate(1);
        assert!(!goals_table(&judged).contains(BARE));
    }
}
