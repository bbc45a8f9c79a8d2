//! What a run found: for the terminal, and as docs/benchmarks.md.

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

/// The charts of growth: figure, title, what is on either axis, what it shows.
pub(crate) const GROWTH: [Growth; 4] = [
    Growth {
        measure: "growth-events",
        title: "Cost of an event by how many there are",
        x: "events",
        y: "ns for each event",
        note: "Few events carry the one sync at their end; many, that they wait for room in the queue.",
    },
    Growth {
        measure: "growth-threads",
        title: "Events per second by threads",
        x: "threads",
        y: "events/s",
        note: "Durable events share syncs, so more threads write more until one writer's time is used up. \
               Routine events do not become faster with more threads: one thread chains them.",
    },
    Growth {
        measure: "growth-sizes",
        title: "Cost of an event by its size",
        x: "bytes of text",
        y: "ns for each event",
        note: "A straight line once the bytes cost more than the event.",
    },
    Growth {
        measure: "growth-segments",
        title: "Opening and verifying by segments",
        x: "segments",
        y: "ms",
        note: "The same records in more files. Opening lists the directory and reads the last file.",
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
    /// The points of each line, by x.
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

/// What stands in the last column of the table of goals.
const BARE: &str = "Without this log's work: what the ideal group commit comes to in its place, for durable events (a \
    thread that writes and syncs what waits, with no tracing, chain or checks); and for the critical event a bare write \
    and fdatasync, a millisecond after the last, in its own median. Where that misses as well, this log is not the \
    only reason. Ours can be ahead of it: it takes what came while it wrote into the same sync.";

fn goals_table(judged: &[Judged]) -> String {
    let mut text = String::from(
        "| what | must be | is: median (min–max) | | without this log's work |\n|---|---|---|---|---|\n",
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
    text.push_str(&format!("\n{passed} of {} reached.\n", judged.len()));
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
    let mut text = String::from("## What keeps the missed ones from being reached\n\n");
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

/// Figures that stand in no table of contestants.
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

/// The same tables without their charts.
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
    // Of a part of the measurements, the goals that it says something about.
    let mut judged = judge::judge(results);
    judged.retain(|goal| goal.is.is_some());
    text.push_str(&format!("\nOthers\n\n{}\nFigures to reach\n\n{}", others(results), goals_table(&judged)));
    text
}

/// Both pictures of a chart; the reader's page picks one.
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

Written by the command below, all but [Forwarding](#forwarding), which has a command of its own.
Every contestant runs in a process of its own, all on one workload: an event with target, action, actor, resource, outcome
and a number, inside a span with session and request, about 300 bytes of JSON without hashes. Contestants take turns,
because the speed of a disk drifts: one turn in each round, and three short ones where syncs are compared. Ratios are taken
within a turn, and only they mean anything on another machine. A figure is the median of the turns, with the least and the
most.

";

/// How the section begins that is kept.
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
        text.push_str("**A quick run: it shows that everything runs. Its figures mean nothing.**\n\n");
    }
    let judged = judge::judge(results);
    text.push_str(&format!("## Against the figures to reach\n\n{}\n", goals_table(&judged)));
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
    text.push_str("## How it grows\n\n");
    for growth in &GROWTH {
        let Some(rows) = growth_table(growth, results) else { continue };
        charts::lines(&dir, growth, &growth.lines(results))?;
        let shown = picture(growth.measure, growth.title);
        text.push_str(&format!("### {} ({})\n\n{shown}{}\n\n{rows}\n", growth.title, growth.y, growth.note));
    }
    text.push_str(&format!("## Other figures\n\nTimes are in nanoseconds and speeds in bytes per second, where nothing else is said.\n\n{}\n", others(results)));
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
    // Another program measures it.
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
Measured elsewhere: that an event allocates nothing on its caller (`cargo test --test allocations`), and the
instructions of emitting, sealing and verifying, and what the layer costs events and spans that are not its own
(`ci/instructions`).

";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_goal_stands_beside_what_is_bare_of_this_log() {
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
            "1 of 3 reached.",
            BARE,
        ] {
            assert!(text.lines().any(|found| found == line), "{line} in {text}");
        }
        judged.truncate(1);
        assert!(!goals_table(&judged).contains(BARE));
    }
}
