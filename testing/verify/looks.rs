//! A log that changes between two listings: what exactly is counted, and what is left out.

use super::log::{Chain, Log, name};
use crate::{NoteKind, Report, format::After};

/// Returns a log that changes each time its directory is listed, to the next of these states.
fn changing(states: &[&Log]) -> Log {
    let log = states[0].clone();
    *log.script.lock().unwrap() = states.iter().rev().map(|state| state.files.clone()).collect();
    log.hold(0)
}

/// Returns the log without a file.
fn without(log: &Log, segment: u32) -> Log {
    let mut log = log.clone();
    log.files.remove(&name(0, segment)).unwrap();
    log
}

fn after(chain: &Chain, segment: u32) -> After {
    After::counted(segment, chain.segments[&segment].len() as u64, None)
}

/// Checks for an intact log with this many records and segments, and these notes besides the one that it is held.
#[track_caller]
fn check(report: &Report, records: u64, segments: u64, notes: &[&str]) {
    check_counts(report, records, segments, notes);
    assert!(report.is_intact(), "{report}");
}

#[track_caller]
fn check_counts(report: &Report, records: u64, segments: u64, notes: &[&str]) {
    let found: Vec<String> =
        report.notes().iter().filter(|note| note.kind() != NoteKind::Live).map(ToString::to_string).collect();
    let expected: Vec<String> = notes.iter().map(ToString::to_string).collect();
    let numbers = (report.records(), report.chains[0].segments);
    assert_eq!((numbers, found.as_slice()), ((records, segments), expected.as_slice()), "{report}");
}

/// At each listing, retention has removed the file that was the last one before.
#[test]
fn a_directory_that_is_rewritten_at_every_look_is_judged_as_it_was_last() {
    let mut chain = Chain::new(0);
    let mut states = Vec::new();
    for _ in 0..60 {
        let (through, segment) = (chain.seq, chain.segment);
        chain = chain.roll().prune(through, (segment, segment));
        let mut log = Log::of(&[&chain]);
        log.files.retain(|file, _| *file >= name(0, segment));
        states.push(log);
    }
    let twice = |states: &[Log]| -> Vec<Log> {
        states.iter().flat_map(|state| [state.clone(), state.clone()]).collect()
    };
    let script = [&states[..1], &twice(&states[..9]), &states[8..9], &twice(&states[9..])].concat();
    let log = changing(&script.iter().collect::<Vec<_>>());
    let report = log.verify();
    check(&report, 4, 2, &[]);
    // Three times, it read on and began anew eight times. Each beginning lists the directory twice. There is one more
    // listing for the chains that exist, and one before the second look.
    let looks = 1 + 9 * 2 + 1 + 2 * 9 * 2;
    assert_eq!(log.script.lock().unwrap().len(), script.len() - looks);
}

#[test]
fn files_before_the_one_that_holds_the_first_kept_record_are_leftovers() {
    let note = "leftover: chain 000: segment 1 was removed by retention and exists again";
    for last in [Some(4), Some(5)] {
        let chain = Chain::new(0).events(2).event_marked("x", last);
        let chain = chain.roll().roll().prune(5, (1, 1)).close();
        check(&Log::of(&[&chain]).verify(), 4, 2, &[note]);
    }
}

#[test]
fn a_file_that_was_read_before_it_was_removed_counts() {
    let chain = Chain::new(0).events(3).roll().prune(5, (1, 1));
    let whole = Log::of(&[&chain]);
    let gone = without(&whole, 1);
    check(&changing(&[&whole, &whole, &gone]).verify(), 7, 2, &[]);
    // Nor is it read again when the chain continues.
    let grown = without(&Log::of(&[&chain.clone().events(2)]), 1);
    check(&changing(&[&whole, &whole, &gone, &gone, &grown]).verify(), 9, 2, &[]);
    check(&changing(&[&gone]).verify(), 2, 1, &[]);
}

#[test]
fn a_new_segment_that_confirms_what_was_read_changes_nothing() {
    let chain = Chain::new(0).events(3).roll().event("x");
    let whole = Log::of(&[&chain]);
    let claims = vec![after(&chain, 1), after(&chain, 2)];
    let longer = chain.segment(claims).prune(5, (1, 1));
    let gone = without(&Log::of(&[&longer]), 1);
    check(&changing(&[&whole, &whole, &whole, &gone]).verify(), 9, 3, &[]);
}

/// Between the two files there was one whose writer was killed before its first line.
#[test]
fn a_new_segment_that_counts_less_of_an_earlier_file_makes_reading_begin_anew() {
    let chain = Chain::new(0).events(3);
    let counted = after(&chain, 1);
    let lost = chain.clone().event_marked("lost", None);
    let mut torn = Log::of(&[&lost]);
    torn.files.insert(name(0, 2), Vec::new());
    let bytes = lost.segments[&1].len() as u64 - counted.bytes;
    let next = Chain { segments: lost.segments, segment: 2, ..chain };
    let next = next.segment(vec![counted, After::counted(2, 0, None)]).recovery().event("x");
    let mut recovered = Log::of(&[&next]);
    recovered.files.insert(name(0, 2), Vec::new());
    let notes = [
        "recovery: chain 000: record 7: the chain was continued after a recovery (torn)".to_owned(),
        format!("void: chain 000: {bytes} bytes of segment 1 are void"),
        "stillborn: chain 000: segment 2 is empty".to_owned(),
    ];
    let notes: Vec<&str> = notes.iter().map(String::as_str).collect();
    check(&changing(&[&torn, &torn, &torn, &recovered]).verify(), 8, 3, &notes);
}

#[test]
fn a_file_that_became_shorter_than_what_was_read_is_read_again() {
    let chain = Chain::new(0).events(3);
    let whole = Log::of(&[&chain]);
    let counted = chain.segments[&1].len();
    let mut cut = Log::of(&[&chain.roll().event("x")]);
    cut.edit(0, 1, |lines| drop(lines.pop()));
    let offset = cut.file(0, 1).len();
    let report = changing(&[&whole, &whole, &whole, &cut]).verify();
    let found: Vec<String> = report.findings().iter().map(ToString::to_string).collect();
    let expected = [
        format!(
            "deleted: chain 000, segment 1, line 5 (byte {offset}): the file ends here, but the next segment \
             says that {counted} bytes of it count"
        ),
        "deleted: chain 000, segment 2, line 1 (byte 0), record 5: 1 record is missing before this line"
            .to_owned(),
    ];
    assert_eq!(found, expected);
}

/// A file from which nothing could be taken in yet was once begun again at each look, and counted each time.
#[test]
fn an_empty_file_at_the_end_is_counted_once() {
    let mut log = Log::of(&[&Chain::new(0).events(3).close()]);
    log.files.insert(name(0, 2), Vec::new());
    let report = log.verify();
    check_counts(&report, 6, 2, &["stillborn: chain 000: segment 2 is empty"]);
    let found: Vec<String> = report.findings().iter().map(ToString::to_string).collect();
    let lost = "torn_tail: chain 000, segment 2, line 1 (byte 0): the file has no good line: its first write was torn, \
                or its content was destroyed";
    assert_eq!(found, [lost]);
}

#[test]
fn a_file_that_was_empty_at_the_first_look_is_counted_once() {
    let chain = Chain::new(0).events(3);
    let mut empty = Log::of(&[&chain]);
    empty.files.insert(name(0, 2), Vec::new());
    let begun = Log::of(&[&chain.roll().event("x")]);
    check(&changing(&[&empty, &empty, &empty, &begun]).verify(), 7, 2, &[]);
}
