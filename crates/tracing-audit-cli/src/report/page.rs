//! The page. `maud` escapes everything that is put into it, except the style sheet, which is part of this program.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use maud::{DOCTYPE, Markup, PreEscaped, html};
use sha2::{Digest as _, Sha256};
use tracing_audit::{ChainState, FindingKind, Verdict};

use super::{
    PageData,
    parts::{names, plural, shown},
    sums::Sum,
    svg,
};
use crate::{output::grouped, time::short};

const STYLE: &str = include_str!("style.css");

/// Limits of the findings, notes and segments that are listed; all are counted.
const MAX_FINDINGS: usize = 100;
const MAX_NOTES: usize = 50;
const MAX_SEGMENTS: usize = 500;

/// Renders the page.
pub(super) fn page(data: &PageData<'_>) -> Markup {
    // The page may load, send and run nothing, and use no style sheet but this one.
    // The hash allows this one inline style sheet, without `'unsafe-inline'`.
    let policy = format!(
        "default-src 'none'; style-src 'sha256-{}'; base-uri 'none'; form-action 'none'",
        STANDARD.encode(Sha256::digest(STYLE))
    );
    html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta http-equiv="Content-Security-Policy" content=(policy);
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                meta name="referrer" content="no-referrer";
                meta name="robots" content="noindex";
                title { "Audit log: " (data.report.verdict()) " · " (shown(&data.path)) }
                style { (PreEscaped(STYLE)) }
            }
            body {
                main {
                    (head(data))
                    (figures(data))
                    (heads(data))
                    (findings(data))
                    (timeline(data))
                    (counts(data))
                    (unconfirmed(data))
                    (notes(data))
                    (not_checked(data))
                    (chains(data))
                    (segments(data))
                    (by_hand(data))
                    (foot(data))
                }
            }
        }
    }
}

fn head(data: &PageData<'_>) -> Markup {
    let (class, word, meaning) = match data.report.verdict() {
        Verdict::Intact => ("good", "Intact", "Every record that was durable is there and unaltered."),
        Verdict::Unclean => {
            ("odd", "Unclean", "Nothing durable is altered, but the log did not end in order.")
        }
        _ => ("bad", "Damaged", "Records that had been durable are altered or missing."),
    };
    let known = match data.heads_given {
        [] => {
            "No head kept elsewhere was given, so a truncated or completely rewritten log cannot be detected."
                .to_owned()
        }
        heads => format!("Compared with {} kept elsewhere.", plural(heads.len() as u64, "head")),
    };
    html! {
        header {
            p class="kind" { "Audit log report" }
            h1 class="path" { (shown(&data.path)) }
            p class="aside" { "Made " (data.made) " by tracing-audit " (env!("CARGO_PKG_VERSION")) ". All times are UTC." }
        }
        section class={ "verdict " (class) } {
            p class="word" { (word) }
            p { (meaning) }
            p class="aside" { (known) " See " a href="#not-checked" { "what was not checked" } "." }
        }
    }
}

/// Renders the most important numbers.
fn figures(data: &PageData<'_>) -> Markup {
    let report = &data.report;
    let total = finding_count(data);
    let lost = |of: fn(&tracing_audit::ChainReport) -> u64| report.chains().iter().map(of).sum::<u64>();
    let lost =
        lost(tracing_audit::ChainReport::lost_critical) + lost(tracing_audit::ChainReport::lost_routine);
    let [_, critical] = data.tally.severities;
    let period =
        |time: &Option<String>| time.as_deref().map_or_else(|| "–".to_owned(), |time| shown(&short(time)));
    let figures = [
        ("Events", grouped(report.events()), ""),
        ("Critical events", grouped(critical), ""),
        ("Failed or denied", grouped(failed(data)), ""),
        // Only numbers that an auditor should look into are coloured.
        ("Findings", grouped(total), if total > 0 { "bad" } else { "" }),
        (
            "Unconfirmed",
            grouped(data.tally.unconfirmed_records),
            if data.tally.unconfirmed_records > 0 { "odd" } else { "" },
        ),
        ("Events lost", grouped(lost), if lost > 0 { "odd" } else { "" }),
    ];
    html! {
        dl class="figures" {
            @for (name, number, class) in &figures { div { dt { (name) } dd class=(class) { (number) } } }
        }
        p class="aside period" {
            (plural(report.records(), "record")) " of all kinds in " (plural(report.chains().len() as u64, "chain"))
            ", from " (period(&data.tally.first)) " to " (period(&data.tally.last)) "."
        }
    }
}

fn failed(data: &PageData<'_>) -> u64 {
    let names = &data.tally.outcomes;
    let (all, ..) = names.top(usize::MAX);
    all.iter().map(|(_, count)| count.failed).sum::<u64>() + names.others.failed
}

fn finding_count(data: &PageData<'_>) -> u64 {
    FindingKind::ALL.iter().map(|kind| data.report.count(*kind)).sum()
}

fn heads(data: &PageData<'_>) -> Markup {
    let heads = data.report.heads();
    html! {
        section {
            h2 { "Heads to write down" }
            p {
                "A head names the last durable record of a chain. Keep it where whoever can write the log cannot: the next check finds everything that is changed before it, if it is given this line."
            }
            @if heads.is_empty() { p class="aside" { "No chain has a durable record." } }
            @else { pre { @for head in heads { (head) "\n" } } }
            @if !data.report.is_intact() {
                p class="aside" { "This log is not intact: these are the heads that it still has. Do not let them replace kept ones." }
            }
        }
    }
}

fn findings(data: &PageData<'_>) -> Markup {
    let total = finding_count(data);
    let findings = data.report.findings();
    html! {
        section {
            h2 { "Findings" }
            @if total == 0 { p { "None." } }
            @else {
                p { @for kind in FindingKind::ALL { @let count = data.report.count(*kind); @if count > 0 { span class="tag" { (grouped(count)) " " (kind.as_str().replace('_', " ")) } " " } } }
                ul class="list" {
                    @for finding in findings.iter().take(MAX_FINDINGS) {
                        li {
                            p { span class="tag bad" { (finding.kind().as_str().replace('_', " ")) } " " (shown(finding.message())) }
                            p class="aside" { (place_of(finding)) }
                        }
                    }
                }
                @if total > MAX_FINDINGS as u64 {
                    p class="aside" { "The first " (MAX_FINDINGS) " of " (grouped(total)) "; " code { "tracing-audit verify" } " has details." }
                }
            }
        }
    }
}

fn place_of(finding: &tracing_audit::Finding) -> String {
    let chain = finding.chain();
    let mut place = match finding.segment() {
        Some(segment) => format!("audit-{chain:03}-{segment:08}.jsonl"),
        None => format!("chain {chain:03}"),
    };
    if let (Some(line), Some(offset)) = (finding.line(), finding.offset()) {
        place = format!("{place}, line {}, byte {}", grouped(line), grouped(offset));
    }
    if let Some(seq) = finding.seq() {
        place = format!("{place}, record {chain:03}/{seq}");
    }
    place
}

fn timeline(data: &PageData<'_>) -> Markup {
    let timeline = &data.tally.timeline;
    let first = timeline.buckets().next().map_or(0, |(begin, _)| begin);
    let last = timeline.buckets().last().map_or(0, |(begin, _)| begin + timeline.width());
    let highest = timeline.buckets().map(|(_, counts)| counts.events()).max().unwrap_or(0);
    html! {
        section {
            h2 { "Timeline" }
            @if timeline.is_empty() { p class="aside" { "No record has a time." } }
            @else {
                figure {
                    p class="aside scale" { "Up to " (plural(highest, "event")) " in each " (svg::span(timeline.width())) }
                    (svg::timeline(timeline))
                    p class="aside axis" { span { (svg::time(first)) } span class="middle" { (svg::time(first.midpoint(last))) } span { (svg::time(last)) } }
                    ul class="legend" {
                        li { i class="critical" {} "critical" } li { i class="routine" {} "routine" }
                        li { i class="gap" {} "events lost" } li { i class="recovery" {} "recovery" } li { i class="finding" {} "finding" }
                    }
                    @if data.tally.without_time > 0 {
                        p class="aside" { (plural(data.tally.without_time, "finding")) " cannot be placed on the timeline." }
                    }
                }
                p class="aside" { "Times are those of the clocks of the machines that wrote the log. The order of records is that of their numbers." }
            }
        }
    }
}

fn counts(data: &PageData<'_>) -> Markup {
    let tally = &data.tally;
    let total = tally.kinds.get("event").copied().unwrap_or(0);
    html! {
        section {
            h2 { "Who did what" }
            @if tally.bad_lines > 0 || tally.missing > 0 {
                p class="aside" {
                    "Only what could be read is counted: " (plural(tally.bad_lines, "line")) " without a record and " (plural(tally.missing, "missing record")) " are not in these tables."
                }
            }
            div class="cards" {
                (names("Actors", "Actor", &tally.actors, total))
                (names("Actions", "Action", &tally.actions, total))
                (names("Resources", "Resource", &tally.resources, total))
                (names("Sources", "From where", &tally.sources, total))
                (names("Outcomes", "Outcome", &tally.outcomes, total))
                section class="card" {
                    h3 { "Kinds of records" }
                    table {
                        thead { tr { th { "Kind" } th class="n" { "Records" } } }
                        tbody { @for (kind, count) in &tally.kinds { tr { td { (kind) } td class="n" { (grouped(*count)) } } } }
                    }
                }
            }
            @if tally.provisional > 0 {
                p class="aside" { (plural(tally.provisional, "record")) " of these were not known to be durable when the page was made: a power cut may lose them." }
            }
        }
    }
}

fn unconfirmed(data: &PageData<'_>) -> Markup {
    let tally = &data.tally;
    let total = tally.unconfirmed_records;
    html! {
        @if total > 0 { section {
            h2 { "Unconfirmed records" }
            p {
                "These records are in the log, but the program that wrote them got an error, and may have refused the action. They are not evidence that it was done, whatever outcome they have."
            }
            div class="wide" { table class="stack" {
                thead { tr { th { "Record" } th { "Time" } th { "Actor" } th { "Action" } th { "Recorded outcome" } th { "Where" } } }
                tbody { @for record in &tally.unconfirmed { tr {
                    td data-label="Record" { code { (record.position) } }
                    td data-label="Time" class="place" { (shown(&record.time)) }
                    td data-label="Actor" class="name" { (shown(&record.actor)) }
                    td data-label="Action" class="name" { (shown(&record.action)) }
                    td data-label="Recorded outcome" class="name" { (shown(&record.outcome)) }
                    td data-label="Where" class="place" { (record.place) }
                } } }
            } }
            @if total > tally.unconfirmed.len() as u64 {
                p class="aside" { "The first " (tally.unconfirmed.len()) " of " (grouped(total)) "." }
            }
        } }
    }
}

fn notes(data: &PageData<'_>) -> Markup {
    let notes = data.report.notes();
    let total = notes.len() as u64 + data.report.more_notes();
    html! {
        section {
            h2 { "Notes" }
            @if total == 0 { p { "None." } }
            @else {
                p { "Facts that an auditor should know, but that are not faults." }
                ul class="list" { @for note in notes.iter().take(MAX_NOTES) { li {
                    span class="tag" { (note.kind().as_str()) } " "
                    @if let Some(chain) = note.chain() { "chain " (format!("{chain:03}")) ": " }
                    (shown(note.message()))
                } } }
                @if total > MAX_NOTES as u64 { p class="aside" { "The first " (MAX_NOTES) " of " (grouped(total)) "." } }
            }
        }
    }
}

fn not_checked(data: &PageData<'_>) -> Markup {
    html! {
        section id="not-checked" {
            h2 { "Not checked" }
            p { "It was not checked:" }
            ul { @for item in data.report.not_checked() { li {
                @if let Some(chain) = item.chain() { "chain " (format!("{chain:03}")) ": " }
                (shown(item.message()))
            } } }
        }
    }
}

fn chains(data: &PageData<'_>) -> Markup {
    let state = |state| match state {
        ChainState::Closed => "closed in order",
        ChainState::Live => "being written",
        ChainState::NotClosed => "ended without close",
        _ => "end not judged",
    };
    let number = |number: Option<u64>| number.map_or_else(|| "–".to_owned(), grouped);
    html! {
        section {
            h2 { "Chains" }
            div class="wide" { table class="stack" {
                thead { tr { th { "Chain" } th class="n" { "First" } th class="n" { "Last" } th class="n" { "Records" } th class="n" { "Events" } th class="n" { "Lost" } th { "End" } } }
                tbody { @for chain in data.report.chains() { tr {
                    td data-label="Chain" { code { (format!("{:03}", chain.chain())) } }
                    td data-label="First" class="n" { (number(chain.first_seq())) }
                    td data-label="Last" class="n" { (number(chain.last_seq())) }
                    td data-label="Records" class="n" { (grouped(chain.records())) }
                    td data-label="Events" class="n" { (grouped(chain.events())) }
                    td data-label="Lost" class="n" { (grouped(chain.lost_critical() + chain.lost_routine())) }
                    td data-label="End" { (state(chain.state())) }
                } } }
            } }
        }
    }
}

fn segments(data: &PageData<'_>) -> Markup {
    let shown = data.sums.len().min(MAX_SEGMENTS);
    html! {
        section {
            h2 { "Segments" }
            p {
                "The SHA-256 of the bytes of each file that count: as many as are given here, from the first on. "
                "Bytes that a later segment declares void are not included. The newest file of a chain may grow; its sum is of the bytes that it had."
            }
            div class="wide" { table class="stack" {
                thead { tr { th { "File" } th class="n" { "First record" } th class="n" { "Bytes" } th { "SHA-256" } } }
                tbody { @for sum in data.sums.iter().take(shown) { (segment(sum)) } }
            } }
            @if data.sums.len() > shown {
                p class="aside" { "The first " (shown) " of " (grouped(data.sums.len() as u64)) " segments." }
            }
        }
    }
}

fn segment(sum: &Sum) -> Markup {
    html! {
        tr {
            td data-label="File" { code { (shown(&sum.name)) } @if sum.has_more { br; span class="tag odd" { "more bytes than count" } } @if sum.is_newest { br; span class="tag" { "newest" } } }
            td data-label="First record" class="n" { @match sum.first_seq { Some(seq) => (format!("{:03}/{seq}", sum.chain)), None => "–" } }
            td data-label="Bytes" class="n" { (grouped(sum.bytes)) }
            td data-label="SHA-256" { @match &sum.sha256 { Some(sha256) => { code class="sum" { (sha256) } }, None => { "removed while the page was made" } } }
        }
    }
}

fn by_hand(data: &PageData<'_>) -> Markup {
    // A segment that still exists, so that the printed commands work.
    let example = data.sums.iter().find(|sum| sum.sha256.is_some());
    html! {
        section {
            h2 { "How to check this without this tool" }
            ol {
                li {
                    "A whole log, with a program in the documentation that shares no code with this one (" code { "docs/verify.py" } "):"
                    pre { "python3 verify.py " (quoted(&data.path)) }
                }
                @if let Some(sum) = example { li {
                    "A segment: this prints the sum above."
                    pre { "head -c " (sum.bytes) " " (shown(&sum.name)) " | sha256sum" }
                } }
                li {
                    "A record, for instance line 3 of a file: this prints its " code { "_hash" } ", which is also the " code { "_prev_hash" } " of the next line."
                    // 77 bytes: `,"_hash":"` (10), the digits (64), `"}` (2) and the line feed.
                    pre { "sed -n 3p " (example.map_or_else(|| "audit-000-00000001.jsonl".to_owned(), |sum| shown(&sum.name))) " | { printf '\\0'; head -c -77; printf '}'; } | sha256sum" }
                }
                li { "The end of the log: compare the heads above with those kept elsewhere." }
            }
        }
    }
}

/// Quotes a path for a shell.
fn quoted(path: &str) -> String {
    format!("'{}'", shown(path).replace('\'', r"'\''"))
}

fn foot(data: &PageData<'_>) -> Markup {
    html! {
        footer {
            p {
                "This page is no evidence by itself: the log is, with heads kept elsewhere. Made " (data.made)
                " by tracing-audit " (env!("CARGO_PKG_VERSION")) ". All records were verified; those written while the page was made may be counted in some of its parts only."
            }
        }
    }
}
