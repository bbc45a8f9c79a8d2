//! The timeline as an SVG picture: bars of events, and a row of marks each for gaps, recoveries and findings.

use maud::{Markup, html};

use super::timeline::{Counts, Mark, Timeline};
use crate::output::grouped;

/// The height of the bars, in units of the picture.
const BARS: u64 = 120;
/// The height of a row of marks.
const ROW: u64 = 9;
/// The space between rows.
const SPACE: u64 = 3;
/// The width of a span.
const SPAN: u64 = 8;

/// The rows below the bars, with the class that colours each.
const ROWS: [(Mark, &str); 3] =
    [(Mark::Gap, "gap"), (Mark::Recovery, "recovery"), (Mark::Finding, "finding")];

/// Draws the timeline. Only numbers and times come from the log, no text.
pub(super) fn timeline(timeline: &Timeline) -> Markup {
    let buckets: Vec<(i64, Counts)> = timeline.buckets().collect();
    let highest = buckets.iter().map(|(_, counts)| counts.events()).max().unwrap_or(0).max(1);
    let width = SPAN * buckets.len() as u64;
    let height = BARS + ROWS.len() as u64 * (ROW + SPACE);
    html! {
        svg viewBox=(format!("0 0 {width} {height}")) preserveAspectRatio="none" role="img"
            aria-label="Events over time by severity, with gaps, recoveries and findings" {
            line class="axis" x1="0" x2=(width) y1=(BARS) y2=(BARS) {}
            @for (index, (begin, counts)) in (0_u64..).zip(&buckets) {
                @if *counts != Counts::default() {
                    g { title { (described(*begin, counts)) } (bar(index * SPAN, counts, highest)) (marks(index * SPAN, counts)) }
                }
            }
        }
    }
}

/// Draws a bar, with critical events at the bottom, where their heights can be compared. Any event makes a visible bar.
fn bar(x: u64, counts: &Counts, highest: u64) -> Markup {
    let height = |count: u64| {
        // At least 2 units, so that any event is visible. The 4 units off the full height leave room for two such
        // bars.
        if count == 0 { 0 } else { (u128::from(count) * u128::from(BARS - 4) / u128::from(highest)).max(2) }
    };
    let critical = height(counts.of(Mark::Critical));
    let routine = height(counts.of(Mark::Routine));
    let bars = u128::from(BARS);
    html! {
        @if routine > 0 {
            rect class="routine" x=(x + 1) width=(SPAN - 2) y=(bars.saturating_sub(critical + routine)) height=(routine) {}
        }
        @if critical > 0 {
            rect class="critical" x=(x + 1) width=(SPAN - 2) y=(bars.saturating_sub(critical)) height=(critical) {}
        }
    }
}

fn marks(x: u64, counts: &Counts) -> Markup {
    html! {
        @for (row, (mark, class)) in (0_u64..).zip(ROWS) {
            @if counts.of(mark) > 0 {
                rect class=(class) x=(x) width=(SPAN) y=(BARS + SPACE + row * (ROW + SPACE)) height=(ROW) {}
            }
        }
    }
}

/// Describes a span, for tooltips and screen readers.
fn described(begin: i64, counts: &Counts) -> String {
    let mut text = format!(
        "{}: {} routine, {} critical",
        time(begin),
        grouped(counts.of(Mark::Routine)),
        grouped(counts.of(Mark::Critical))
    );
    for (mark, name) in [(Mark::Gap, "gaps"), (Mark::Recovery, "recoveries"), (Mark::Finding, "findings")] {
        if counts.of(mark) > 0 {
            text = format!("{text}, {} {name}", grouped(counts.of(mark)));
        }
    }
    text
}

/// Formats a time of the axis.
pub(super) fn time(milliseconds: i64) -> String {
    match jiff::Timestamp::from_millisecond(milliseconds) {
        Ok(time) => time.strftime("%Y-%m-%d %H:%M:%S").to_string(),
        Err(_) => "outside of the calendar".to_owned(),
    }
}

/// Formats the width of a span in words.
pub(super) fn span(milliseconds: i64) -> String {
    let (number, unit) = match milliseconds {
        ..1_000 => (milliseconds, "millisecond"),
        1_000..60_000 => (milliseconds / 1_000, "second"),
        60_000..3_600_000 => (milliseconds / 60_000, "minute"),
        3_600_000..86_400_000 => (milliseconds / 3_600_000, "hour"),
        _ => (milliseconds / 86_400_000, "day"),
    };
    if number == 1 { unit.to_owned() } else { format!("{number} {unit}s") }
}
