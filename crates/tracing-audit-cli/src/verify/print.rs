//! Prints the report for people.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
};

use anstyle::{AnsiColor, Style};
use tracing_audit::{
    ChainReport, ChainState, Finding, FindingKind, Head, NotChecked, NotCheckedKind, NoteKind, Report,
    Verdict,
};

use super::{
    Checked, MAX_PRINTED,
    against::{Chain, Comparison, LinePosition},
    neighbours::raw,
};
use crate::{
    output::{escape, grouped},
    time::short,
};

const DIM: Style = Style::new().dimmed();
const BOLD: Style = Style::new().bold();

fn style_of(result: &str) -> Style {
    match result {
        "PASS" => AnsiColor::Green.on_default().bold(),
        "UNCLEAN" | "UNCOMPARED" => AnsiColor::Yellow.on_default().bold(),
        _ => AnsiColor::Red.on_default().bold(),
    }
}

/// Appends a formatted line.
macro_rules! line {
    ($text:expr, $($arguments:tt)*) => { $text.extend([format!($($arguments)*).as_str(), "
"]) };
}

/// Formats everything that is printed about one log.
pub(super) fn text(checked: &Checked) -> String {
    let report = &checked.report;
    let mut text = String::new();
    let (result, style) = (checked.result(), style_of(checked.result()));
    let meaning = match report.verdict() {
        // A difference from the copy is a failure, whatever the verdict on the log alone.
        Verdict::Intact if checked.parts() => {
            "every durable record is there and unaltered, but the copy differs"
        }
        Verdict::Unclean if checked.parts() => {
            "the copy differs from the log, which did not end in order either"
        }
        Verdict::Intact if checked.compared_nothing() => {
            "every durable record is there and unaltered, but no record could be compared with the copy"
        }
        Verdict::Unclean if checked.compared_nothing() => {
            "the log did not end in order, and no record could be compared with the copy"
        }
        Verdict::Intact => "every durable record is there and unaltered",
        Verdict::Unclean => "nothing durable is altered, but the log did not end in order",
        _ => "records that had been durable are altered or missing",
    };
    line!(text, "{style}{result}{style:#}: {meaning}");
    line!(text, "  log      {}", escape(&report.path().display().to_string()));
    line!(text, "  records  {} ({} events)", grouped(report.records()), grouped(report.events()));
    for chain in report.chains() {
        chain_text(&mut text, chain, checked);
    }
    heads(&mut text, report);
    findings(&mut text, checked);
    notes(&mut text, report);
    if let Some(comparison) = &checked.against {
        against(&mut text, comparison);
    }
    line!(text, "\nnot checked");
    for words in unchecked(checked) {
        line!(text, "  - {}", escape(&words));
    }
    text
}

fn counted(count: u64, what: &str) -> String {
    format!("{} {what}{}", grouped(count), if count == 1 { "" } else { "s" })
}

fn chain_text(text: &mut String, chain: &ChainReport, checked: &Checked) {
    let end = match chain.state() {
        ChainState::Closed => "closed",
        ChainState::Live => "being written",
        ChainState::NotClosed => "ended without close",
        _ => "its end was not judged",
    };
    let (records, segments) = (counted(chain.records(), "record"), counted(chain.segments(), "segment"));
    line!(text, "  chain {:03}: {records} in {segments}, {end}", chain.chain());
    if let (Some(first), Some(last)) = (chain.first_seq(), chain.last_seq()) {
        line!(text, "    records  {first} to {last}");
    }
    if let Some((Some(first), Some(last))) = checked.times.get(&chain.chain()) {
        line!(text, "    times    {} to {}", escape(&short(first)), escape(&short(last)));
    }
    if chain.provisional() > 0 {
        line!(text, "    pending  {} not known to be durable", counted(chain.provisional(), "record"));
    }
    let (critical, routine) = (chain.lost_critical(), chain.lost_routine());
    // Only what the chain itself counted: a killed process may have lost more.
    if critical + routine > 0 {
        let (critical, routine) = (grouped(critical), grouped(routine));
        line!(text, "    lost     {critical} critical and {routine} routine events, by its own count");
    }
    if chain.unconfirmed() > 0 {
        let records = counted(chain.unconfirmed(), "record");
        line!(text, "    unsure   {records}: a caller got an error, so the actions may have been refused");
    }
}

fn heads(text: &mut String, report: &Report) {
    if report.heads().is_empty() {
        return;
    }
    let what = match report.verdict() {
        // Whoever altered the log may have made these heads.
        Verdict::Damaged => "heads that the log still has: do not let them replace kept ones",
        _ => "heads, to be kept elsewhere",
    };
    line!(text, "\n{what}");
    for head in report.heads() {
        line!(text, "  {BOLD}{head}{BOLD:#}");
    }
}

fn findings(text: &mut String, checked: &Checked) {
    let report = &checked.report;
    let total: u64 = FindingKind::ALL.iter().map(|kind| report.count(*kind)).sum();
    if total == 0 {
        return;
    }
    line!(text, "\nfindings ({})", grouped(total));
    for kind in FindingKind::ALL.iter().filter(|kind| report.count(**kind) > 0) {
        let count = report.count(*kind);
        line!(text, "  {BOLD}{kind}{BOLD:#} ({})", grouped(count));
        // The index is that in the report, by which the lines around a finding are known.
        let of_kind = report.findings().iter().enumerate().filter(|(_, finding)| finding.kind() == *kind);
        let mut printed = 0;
        for (index, finding) in of_kind.take(MAX_PRINTED) {
            printed += 1;
            line!(text, "  - {}: {}", place_of(finding), escape(finding.message()));
            let Some(place) = checked.places.get(&index) else { continue };
            for (name, shown) in place.shown() {
                let shown = shown.unwrap_or_else(|| format!("{DIM}nothing{DIM:#}"));
                line!(text, "      {DIM}{name:<6}{DIM:#}  {shown}");
            }
        }
        if count > printed {
            line!(text, "  - and {} more", grouped(count - printed));
        }
    }
    // The usual reason of a missing segment, which is no tampering.
    if report.count(FindingKind::MissingSegment) > 0 && has_packed(report) {
        line!(
            text,
            "  Compressed segments are not read: unpack them in a copy of the directory, and verify that."
        );
    }
}

fn has_packed(report: &Report) -> bool {
    let names = std::fs::read_dir(report.path()).into_iter().flatten().filter_map(Result::ok);
    names.into_iter().any(|entry| entry.file_name().to_str().is_some_and(crate::directory::is_packed))
}

/// Formats the position of a finding: the file or chain, and the line, byte and record if it is about one.
fn place_of(finding: &Finding) -> String {
    let mut place = match finding.segment() {
        Some(segment) => format!("audit-{:03}-{segment:08}.jsonl", finding.chain()),
        None => format!("chain {:03}", finding.chain()),
    };
    if let (Some(line), Some(offset)) = (finding.line(), finding.offset()) {
        place.extend([format!(", line {line} (byte {offset})")]);
    }
    if let Some(seq) = finding.seq() {
        place.extend([format!(", record {seq}")]);
    }
    place
}

fn notes(text: &mut String, report: &Report) {
    if report.notes().is_empty() {
        return;
    }
    // Grouped by kind, so that many notes of one kind do not hide the others.
    let mut kinds: BTreeMap<NoteKind, Vec<String>> = BTreeMap::new();
    for note in report.notes() {
        let chain = note.chain().map(|chain| format!("chain {chain:03}: ")).unwrap_or_default();
        kinds.entry(note.kind()).or_default().push(format!("{chain}{}", note.message()));
    }
    line!(text, "\nnotes ({})", grouped(report.notes().len() as u64 + report.more_notes()));
    for (kind, notes) in kinds {
        for note in notes.iter().take(MAX_PRINTED) {
            line!(text, "  - {kind}: {}", escape(note));
        }
        let more = notes.len().saturating_sub(MAX_PRINTED) as u64;
        if more > 0 {
            line!(text, "  - {kind}: and {} more", grouped(more));
        }
    }
    if report.more_notes() > 0 {
        line!(text, "  - and {} more that are only counted", grouped(report.more_notes()));
    }
}

fn against(text: &mut String, comparison: &Comparison) {
    let what = match comparison.same {
        _ if comparison.parts => "differs from the log",
        0 => "has no record in common with the log: nothing could be compared",
        _ => "has the same records, as far as it goes",
    };
    line!(text, "\nthe copy {} {what}", escape(&comparison.copy));
    for chain in &comparison.chains {
        line!(text, "  chain {:03}: {} in both", chain.number, counted(chain.same, "record"));
        only(text, chain);
        let Some(parting) = &chain.parting else { continue };
        line!(text, "    {BOLD}{}{BOLD:#}", escape(&parting.what));
        side(text, "log", parting.log.as_ref());
        side(text, "copy", parting.copy.as_ref());
    }
    for finding in &comparison.copy_findings {
        line!(text, "  - in the copy: {}", escape(finding));
    }
    let more = comparison.copy_finding_count.saturating_sub(comparison.copy_findings.len() as u64);
    if more > 0 {
        line!(text, "  - in the copy: {} more", grouped(more));
    }
}

fn only(text: &mut String, chain: &Chain) {
    for (ranges, whose) in [(&chain.only_in_log, "log"), (&chain.only_in_copy, "copy")] {
        for (first, last) in ranges.iter().take(MAX_PRINTED) {
            line!(text, "    only in the {whose}: records {first} to {last}");
        }
    }
}

/// Appends the line of one side at a difference.
fn side(text: &mut String, whose: &str, line: Option<&LinePosition>) {
    match line {
        Some(LinePosition { file, line, offset, text: found, unconfirmed, .. }) => {
            let file = escape(file);
            let mark = if *unconfirmed { "UNCONFIRMED " } else { "" };
            line!(
                text,
                "      {DIM}{whose:<5}{DIM:#} {file}, line {line} (byte {offset}): {mark}{}",
                raw(found)
            );
        }
        None => line!(text, "      {DIM}{whose:<5}{DIM:#} nothing"),
    }
}

/// A kind of thing that was not checked, with the chains and messages that one sentence covers.
pub(super) struct Unchecked {
    kind: NotCheckedKind,
    /// The number of the newest head of the chain that was given.
    given: Option<u64>,
    chains: Vec<String>,
    messages: Vec<String>,
}

impl Unchecked {
    pub(super) fn of(what: &NotChecked, kept: &[Head]) -> Self {
        let of_chain = kept.iter().filter(|head| Some(head.chain()) == what.chain());
        Self {
            kind: what.kind(),
            given: of_chain.map(Head::seq).max(),
            chains: what.chain().map(|chain| format!("{chain:03}")).into_iter().collect(),
            messages: vec![what.message().to_owned()],
        }
    }

    /// Returns whether one sentence can cover both.
    fn takes(&self, other: &Self) -> bool {
        // A chain with a given head has a sentence of its own, which has the number of that head.
        self.kind == other.kind
            && (self.kind != NotCheckedKind::End || (self.given.is_none() && other.given.is_none()))
    }

    /// Makes a sentence for readers who know nothing about chains and hashes.
    pub(super) fn words(&self) -> String {
        let list = |texts: &[String]| {
            // Several chains often have the same message.
            let different: BTreeSet<&str> = texts.iter().map(String::as_str).collect();
            let shown: Vec<&str> = different.iter().copied().take(MAX_PRINTED).collect();
            let more = different.len() - shown.len();
            let more = if more > 0 { format!(" and {more} more") } else { String::new() };
            format!("{}{more}", shown.join(", "))
        };
        let plural = if self.chains.len() > 1 { "chains" } else { "chain" };
        let (chains, messages) = (format!("{plural} {}", list(&self.chains)), list(&self.messages));
        match (self.kind, self.given) {
            (NotCheckedKind::End, None) => format!(
                "No head was given for {chains}, so a truncated log, a restored older copy, or a completely rewritten log \
                 cannot be detected. Keep the heads above elsewhere, and pass them next time (--heads)."
            ),
            (NotCheckedKind::End, Some(seq)) => format!(
                "The newest head that was given for {chains} is of record {seq}: whether later records were cut off or \
                 replaced cannot be detected."
            ),
            (NotCheckedKind::Head, _) => format!("Heads that were given could not be compared: {messages}."),
            (NotCheckedKind::Pruned, _) => {
                format!("Records that retention removed can no longer be read: {messages}.")
            }
            (NotCheckedKind::Trusted, _) => format!("Trusted records were not read: {messages}."),
            (NotCheckedKind::Format, _) => {
                format!("A later version wrote a part of the log, which this version cannot check: {messages}.")
            }
            (NotCheckedKind::Lock, _) => format!(
                "It is not known whether a program is writing to {chains} at this moment. If one is, a log that does not \
                 end in order is no fault. Run as the owner of the log to find out ({messages})."
            ),
            (NotCheckedKind::NotedHead, _) => format!(
                "The program's own note of its last durable record could not be used, as in every copy of a log. Heads kept \
                 elsewhere show more ({messages})."
            ),
            (NotCheckedKind::Chains, _) => "If everything that one process wrote was removed, this cannot be detected unless \
                                            somebody kept a head of it, or another process mentions it."
                .to_owned(),
            (NotCheckedKind::Author, _) => "The author of the records cannot be verified: anyone who could write to the log \
                                            could append records that look like the program's. Only signatures would show it."
                .to_owned(),
            _ => format!("{messages}."),
        }
    }
}

fn unchecked(checked: &Checked) -> Vec<String> {
    let mut all: Vec<Unchecked> = Vec::new();
    for what in checked.report.not_checked() {
        let what = Unchecked::of(what, &checked.kept);
        // Chains with the same gap in the check share one sentence.
        match all.iter_mut().find(|known| known.takes(&what)) {
            Some(known) => {
                known.chains.extend(what.chains);
                known.messages.extend(what.messages);
            }
            None => all.push(what),
        }
    }
    all.iter().map(Unchecked::words).collect()
}

/// A line of the table at the end.
pub(super) struct Row {
    pub(super) exit_code: u8,
    result: &'static str,
    records: String,
    chains: String,
    findings: String,
    log: String,
}

impl Row {
    pub(super) fn of(log: &Path, checked: &Checked) -> Self {
        let report = &checked.report;
        let findings = FindingKind::ALL.iter().map(|kind| report.count(*kind)).sum();
        Self {
            exit_code: checked.exit_code(),
            result: checked.result(),
            records: grouped(report.records()),
            chains: grouped(report.chains().len() as u64),
            findings: grouped(findings),
            log: escape(&log.to_string_lossy()).into_owned(),
        }
    }

    pub(super) fn failed(log: &Path) -> Self {
        let none = || "-".to_owned();
        let log = format!("{}, which could not be checked", escape(&log.to_string_lossy()));
        Self { exit_code: 2, result: "ERROR", records: none(), chains: none(), findings: none(), log }
    }
}

/// Formats the table, with one line per log.
pub(super) fn table(rows: &[Row]) -> String {
    let mut text =
        format!("{BOLD}{:<8}{:>14}{:>8}{:>10}  log{BOLD:#}\n", "", "records", "chains", "findings");
    for Row { result, records, chains, findings, log, .. } in rows {
        let style = style_of(result);
        line!(text, "{style}{result:<8}{style:#}{records:>14}{chains:>8}{findings:>10}  {log}");
    }
    text.trim_end().to_owned()
}
