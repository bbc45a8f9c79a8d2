//! Verification of layout, hash and link alone.

use super::{
    check, honest,
    log::{Chain, Log},
};
use crate::{
    FindingKind, Report, Verdict,
    clock::Timestamp,
    format::{Kind, Payload},
};

const SAYS_SO: &str = "whether event records are well formed beyond their layout (hashes only)";

fn hashes_only(log: &Log) -> Report {
    log.verifier().hashes_only().run_on(log).unwrap()
}

/// A record that is no JSON, with hashes that are right.
fn broken(kind: Kind) -> Vec<u8> {
    let mut payload = Vec::new();
    Payload::begin(&mut payload, Timestamp::from_unix(1_800_000_000, 5), kind).raw("reason", b"nothing");
    payload
}

#[test]
fn an_honest_log_gets_the_same_report_and_is_told_what_was_not_checked() {
    let log = honest::three_segments();
    let (whole, hashes) = (log.verify(), hashes_only(&log));
    check(&hashes, Verdict::Intact, &[]);
    assert_eq!((hashes.records(), hashes.events()), (whole.records(), whole.events()));
    assert_eq!(hashes.heads(), whole.heads());
    assert!(!whole.not_checked().iter().any(|what| what == SAYS_SO));
    assert_eq!(hashes.not_checked(), [whole.not_checked(), &[SAYS_SO.to_owned()]].concat());
}

#[test]
fn an_event_that_is_no_json_is_found_by_a_whole_verification_only() {
    let chain = Chain::new(0).event("a").put(&broken(Kind::Event), Some(3)).event("b").close();
    let log = Log::of(&[&chain]);
    check(&log.verify(), Verdict::Damaged, &[FindingKind::Malformed]);
    check(&hashes_only(&log), Verdict::Intact, &[]);
}

#[test]
fn every_other_record_is_checked_as_always() {
    let chain = Chain::new(0).event("a").put(&broken(Kind::Mark), Some(3)).event("b").close();
    let log = Log::of(&[&chain]);
    check(&log.verify(), Verdict::Damaged, &[FindingKind::Malformed]);
    check(&hashes_only(&log), Verdict::Damaged, &[FindingKind::Malformed]);
}

#[test]
fn marks_are_read_behind_events_that_are_not_looked_at() {
    // The last event says that the one before was durable; without its mark the edit were a torn tail.
    let chain = Chain::new(0).event_marked("a", None).event_marked("b", Some(3));
    let mut log = Log::of(&[&chain]);
    log.edit(0, 1, |lines| lines[2][60] ^= 1);
    for report in [log.verify(), hashes_only(&log)] {
        assert_eq!(report.verdict(), Verdict::Damaged, "{report}");
    }
}

/// A head that was kept, or that another chain witnesses, is looked up where the scan took a record in at a
/// glance: it once was not found there, and a log rewritten with such a record was intact.
#[test]
fn heads_are_held_against_records_that_are_not_looked_at() {
    let kept = Chain::new(0).event("a").event("b");
    let rewritten = || Chain::new(0).event("a").put(&broken(Kind::Event), Some(3)).event("c").close();
    let log = Log::of(&[&rewritten()]);
    let report = log.verifier().expect_head(kept.head()).hashes_only().run_on(&log).unwrap();
    check(&report, Verdict::Damaged, &[FindingKind::HeadMismatch]);
    // Where the chain ends with it, no record behind it tells by its link.
    let log = Log::of(&[&Chain::new(0).event("a").put(&broken(Kind::Event), Some(3))]).hold(0);
    let report = log.verifier().from(kept.head()).hashes_only().run_on(&log).unwrap();
    check(&report, Verdict::Damaged, &[FindingKind::HeadMismatch]);
    let log = Log::of(&[&rewritten(), &Chain::new(1).sees(&kept).mark().close()]);
    check(&hashes_only(&log), Verdict::Damaged, &[FindingKind::HeadMismatch]);
    // The head of a chain that ends so is named.
    let chain = Chain::new(0).event("a").put(&broken(Kind::Event), Some(3)).mark();
    let report = hashes_only(&Log::of(&[&chain]).hold(0));
    assert_eq!(report.heads(), [chain.head_at(4)]);
}
