//! Pieces of the page that are tables of counts.

use maud::{Markup, html};

use super::tally::{Count, Names};
use crate::output::{escape, grouped};

/// How many rows such a table has.
const ROWS: usize = 12;

/// A text of a record as the page shows it. Markup is escaped where it is put into the page; this takes care of what no
/// reader would see: characters that turn a text around, or have no width.
pub(super) fn shown(text: &str) -> String {
    escape(text).into_owned()
}

/// `1 record`, `2 records`.
pub(super) fn plural(number: u64, what: &str) -> String {
    format!("{} {what}{}", grouped(number), if number == 1 { "" } else { "s" })
}

/// Names with the most events first, and what is left in one row each.
pub(super) fn names(title: &str, what: &str, names: &Names, total: u64) -> Markup {
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
                    // The bar is of these alone: together they may outweigh every name.
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

/// A bar of a hundred units, the failed part of it first.
fn bar(count: Count, highest: u64) -> Markup {
    let part = |number: u64| u128::from(number) * 100 / u128::from(highest);
    let all = part(count.events).max(1);
    let failed = if count.failed == 0 { 0 } else { part(count.failed).max(1) };
    html! {
        svg viewBox="0 0 100 8" preserveAspectRatio="none" aria-hidden="true" {
            rect class="routine" x="0" y="0" width=(all) height="8" {}
            @if failed > 0 { rect class="critical" x="0" y="0" width=(failed) height="8" {} }
        }
    }
}
