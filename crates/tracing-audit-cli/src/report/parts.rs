//! The parts of the page that are tables of counts.

use maud::{Markup, html};

use super::tally::{Count, Names};
use crate::output::{escape, grouped};

/// Limit of the rows of a table.
const ROWS: usize = 12;

/// Escapes what no reader of the page would see in a text: characters that reorder text or have no width.
///
/// Markup is escaped separately, by `maud`.
pub(super) fn shown(text: &str) -> String {
    escape(text).into_owned()
}

/// Formats a count with its noun: `1 record`, `2 records`.
pub(super) fn plural(number: u64, what: &str) -> String {
    format!("{} {what}{}", grouped(number), if number == 1 { "" } else { "s" })
}

/// Renders a table of the names with the most events, and one row each for events without a name and for all others.
pub(super) fn names(title: &str, what: &str, names: &Names, total: u64) -> Markup {
    // All bars of a table have the scale of its highest row.
    let (top, more, rest) = names.top(ROWS);
    let highest = top.first().map_or(1, |(_, count)| count.events).max(1);
    html! {
        section class="card" {
            h3 { (title) }
            table {
                thead { tr { th { (what) } th class="bar" {} th class="n" { "Events" } th class="n" { "Failed" } th class="n" { "Unconf." } } }
                tbody {
                    @for (name, count) in &top { (row(&shown(name), "name", *count, highest)) }
                    @if names.unnamed.events > 0 { (row("none given", "aside", names.unnamed, highest)) }
                    // All others together may have more events than any name, so their bar has its own scale.
                    @if rest.events > 0 { (row(&others_named(more, names), "aside", rest, rest.events.max(highest))) }
                    @if total == 0 { tr { td class="aside" colspan="5" { "no events" } } }
                }
            }
            @if names.is_full() {
                p class="aside" {
                    "Counted one by one: the first " (grouped(names.len() as u64)) " names. The events of those that came later are counted together."
                }
            }
        }
    }
}

fn others_named(more: usize, names: &Names) -> String {
    if names.is_full() { "all others".to_owned() } else { plural(more as u64, "other") }
}

fn row(name: &str, class: &str, count: Count, highest: u64) -> Markup {
    let number = |number: u64| if number == 0 { "–".to_owned() } else { grouped(number) };
    html! {
        tr {
            td class=(class) { (if name.is_empty() { "an empty text" } else { name }) }
            td class="bar" { (bar(count, highest)) }
            td class="n" { (grouped(count.events)) }
            td class={ "n" (if count.failed > 0 { " bad" } else { "" }) } { (number(count.failed)) }
            td class={ "n" (if count.unconfirmed > 0 { " odd" } else { "" }) } { (number(count.unconfirmed)) }
        }
    }
}

/// Renders a bar of at most a hundred units, beginning with the failed part.
fn bar(count: Count, highest: u64) -> Markup {
    let part = |number: u64| u128::from(number) * 100 / u128::from(highest);
    // At least one unit, so that no count disappears.
    let all = part(count.events).max(1);
    let failed = if count.failed == 0 { 0 } else { part(count.failed).max(1) };
    html! {
        svg viewBox="0 0 100 8" preserveAspectRatio="none" aria-hidden="true" {
            rect class="routine" x="0" y="0" width=(all) height="8" {}
            @if failed > 0 { rect class="critical" x="0" y="0" width=(failed) height="8" {} }
        }
    }
}
