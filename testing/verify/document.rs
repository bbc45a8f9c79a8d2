//! Tests docs/format.md: its vectors are logs of this format.

use super::{
    check,
    log::{Log, name},
};
use crate::{
    chain::Digest,
    format::{Cause, LineParser, PruneReason, RecordKind},
    stats::LossReason,
    verdict::Verdict,
};

const DOCUMENT: &str = include_str!("../../docs/format.md");

/// Returns the lines of the fenced block behind a mark in the document.
fn block(mark: &str) -> Vec<&'static str> {
    let (_, rest) = DOCUMENT.split_once(mark).expect(mark);
    let (_, block) = rest.split_once("```json\n").expect("a block");
    block.split_once("```").expect("its end").0.lines().collect()
}

#[test]
fn the_vector_is_an_intact_log() {
    let lines = block("<!-- vector -->");
    let mut parser = LineParser::default();
    for line in &lines {
        assert!(parser.parse(line.as_bytes()).unwrap().hash_is_right());
    }
    let mut log = Log::default();
    log.files.insert(name(0, 1), (lines.join("\n") + "\n").into_bytes());
    let report = log.verify();
    check(&report, Verdict::Intact, &[]);
    assert_eq!((report.records(), report.events()), (5, 1));
    assert!(DOCUMENT.contains(&format!("e.g. `{}`", report.heads()[0])));
    let records = crate::Reader::new("/log").records_of(std::sync::Arc::new(log)).unwrap();
    let event = records.map(Result::unwrap).find(crate::Record::is_event).unwrap();
    assert_eq!((event.actor(), event.action()), (Some("mallory"), Some("auth.failure")));
    assert_eq!(event.field("tenant").and_then(crate::Value::as_str), Some("café"));
}

#[test]
fn the_example_and_its_body_are_part_of_the_vector() {
    let (example, body) = (block("<!-- example -->")[0], block("<!-- body -->")[0]);
    assert!(block("<!-- vector -->").contains(&example));
    let hash = Digest::of_body(body.as_bytes());
    assert!(DOCUMENT.contains(&format!("these bytes is `{hash}`")));
    let (start, _) = example.split_once(",\"_hash\":").unwrap();
    assert_eq!(format!("{start}}}"), body);
}

/// Returns the code words in the paragraph that begins with these words.
fn words_of(start: &str) -> Vec<&'static str> {
    let (_, rest) = DOCUMENT.split_once(start).expect(start);
    let paragraph = rest.split_once('\n').expect("its end").0;
    paragraph.split('`').skip(1).step_by(2).collect()
}

/// The log once wrote a cause that the document did not list, for a year.
#[test]
fn every_code_word_of_the_log_is_in_the_document() {
    let causes = words_of("- **`recovery`**");
    assert_eq!(causes[..Cause::ALL.len()], Cause::ALL.map(Cause::as_str));
    let reasons = words_of("- **`gap`**");
    assert!(reasons.into_iter().eq(LossReason::ALL.iter().map(|reason| reason.as_str())));
    let reasons = words_of("- **`prune`**");
    assert!(reasons.ends_with(&PruneReason::ALL.map(PruneReason::as_str)), "{reasons:?}");
    let kinds: std::collections::BTreeSet<&str> = words_of("| `kind` |").into_iter().collect();
    let named = RecordKind::ALL.iter().filter(|kind| **kind != RecordKind::Other);
    assert_eq!(kinds, named.map(|kind| kind.as_str()).collect());
}
