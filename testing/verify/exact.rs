//! The exact contents of a report: which line, which record, how many, and in which words.

use super::{
    check,
    log::{Chain, Log, name},
};
use crate::{
    FindingKind::{Deleted, Duplicate, Inserted, Malformed, NotClosed, TornTail},
    Head, Report,
    Verdict::{Damaged, Intact, Unclean},
    chain::Digest,
    clock::Timestamp,
    format::{After, PruneInfo, SegmentInfo},
};

pub(super) const NOT_CLOSED: &str = "the chain ends without `close`, and no writer holds it";
/// The maximum length of the first chunk of a file, and of the others.
pub(super) const FIRST_PIECE: usize = 64 * 1024;
const PIECE: usize = 256 * 1024;

fn closed() -> Chain {
    Chain::new(0).events(6).close()
}

pub(super) fn other() -> Digest {
    Digest::of_bytes(b"other")
}

fn after(segment: u32, bytes: usize) -> After {
    After::counted(segment, bytes as u64, None)
}

/// Compares the findings as they print.
#[track_caller]
pub(super) fn finds<T: AsRef<str>>(report: &Report, expected: &[T]) {
    let found: Vec<String> = report.findings().iter().map(ToString::to_string).collect();
    let expected: Vec<&str> = expected.iter().map(AsRef::as_ref).collect();
    assert_eq!(found, expected, "{report}");
}

/// Returns the position of a line of chain 0 as it prints.
pub(super) fn at(log: &Log, segment: u32, line: usize) -> String {
    let lines = log.files[&name(0, segment)].split_inclusive(|byte| *byte == b'\n');
    let offset: usize = lines.take(line - 1).map(<[u8]>::len).sum();
    format!("chain 000, segment {segment}, line {line} (byte {offset})")
}

/// Returns the closed log after a change to its lines; record n is in line n.
fn edited(change: impl FnOnce(&mut Vec<Vec<u8>>)) -> Log {
    let mut log = Log::of(&[&closed()]);
    log.edit(0, 1, change);
    log
}

#[test]
fn a_chain_begins_with_64_zeros_or_with_the_hash_where_it_was_cut() {
    let chain = Chain { hash: other(), ..Chain::bare(0) };
    let chain = chain.segment(Vec::new()).open().events(1).close();
    let log = Log::of(&[&chain]);
    let broken =
        format!("broken_link: {}, record 1: the first record does not link to 64 zeros", at(&log, 1, 1));
    finds(&log.verify(), &[broken]);
    let chain = Chain { hash: other(), ..Chain::new(0).events(3) };
    let chain = chain.roll().prune(5, (1, 1)).close();
    let mut log = Log::of(&[&chain]);
    log.files.remove(&name(0, 1));
    let broken = format!(
        "broken_link: {}, record 6: the line does not link to record 5, the last before it",
        at(&log, 2, 1)
    );
    finds(&log.verify(), &[broken]);
}

#[test]
fn a_chain_that_begins_too_late_lacks_its_first_records() {
    let log = edited(|lines| drop(lines.drain(..2)));
    let places = [at(&log, 1, 1)];
    finds(
        &log.verify(),
        &[
            format!(
                "deleted: {}, record 1: 2 records are missing before this line, the first of the chain",
                places[0]
            ),
            format!(
                "renamed_segment: {}, record 3: the file does not begin with a `segment` line",
                places[0]
            ),
        ],
    );
}

/// Returns a chain of records 1 to 5 in one segment and 6 to 15 in the next, without some of these.
fn without(gone: std::ops::RangeInclusive<usize>) -> (Chain, Log) {
    let chain = Chain::new(0).events(3).roll().events(8).close();
    let mut log = Log::of(&[&chain]);
    log.edit(0, 2, |lines| drop(lines.drain(gone.start() - 6..=gone.end() - 6)));
    (chain, log)
}

#[test]
fn records_missing_across_a_trusted_head_are_missing_from_there_on() {
    for (gone, line, missing) in [(8..=10, 3, "2 records are"), (8..=9, 3, "1 record is")] {
        let (chain, log) = without(gone);
        let report = log.verifier().start_after(chain.head_at(8)).run_on(&log).unwrap();
        let deleted = format!("deleted: {}, record 9: {missing} missing before this line", at(&log, 2, line));
        finds(&report, &[deleted]);
    }
}

#[test]
fn records_missing_up_to_a_trusted_head_are_as_trusted_as_it_is() {
    let (chain, log) = without(7..=8);
    check(&log.verifier().start_after(chain.head_at(8)).run_on(&log).unwrap(), Intact, &[]);
    let wrong = Head { hash: other(), ..chain.head_at(8) };
    let report = log.verifier().start_after(wrong).run_on(&log).unwrap();
    let broken = format!(
        "broken_link: {}, record 7: the line does not link to record 8, the last that was removed",
        at(&log, 2, 2)
    );
    let mismatch = "head_mismatch: chain 000, record 8: the next record does not link to this one";
    finds(&report, &[broken.as_str(), mismatch]);
    let (chain, log) = without(7..=7);
    check(&log.verifier().start_after(chain.head_at(9)).run_on(&log).unwrap(), Intact, &[]);
    let wrong = Head { hash: other(), ..chain.head_at(9) };
    let report = log.verifier().start_after(wrong).run_on(&log).unwrap();
    let mismatch = "head_mismatch: chain 000, record 9: the record does not have the hash that the chain \
                    continues from";
    finds(&report, &[mismatch]);
}

#[test]
fn an_edit_counts_only_after_the_trusted_record() {
    let chain = Chain::new(0).events(3).roll().events(8).close();
    let mut log = Log::of(&[&chain]);
    log.edit(0, 2, |lines| lines[2][20] ^= 1);
    check(&log.verifier().start_after(chain.head_at(8)).run_on(&log).unwrap(), Intact, &[]);
    let report = log.verifier().start_after(chain.head_at(7)).run_on(&log).unwrap();
    finds(&report, &[format!("edited: {}, record 8: the line does not match its own hash", at(&log, 2, 3))]);
}

/// What is trusted is not even read.
#[test]
fn reading_begins_at_a_trusted_head() {
    let chain = Chain::new(0).events(3).roll().events(3).roll().events(2).close();
    let log = Log::of(&[&chain]);
    for (seq, records, segments) in [(5, 13, 3), (6, 8, 2), (9, 8, 2), (10, 4, 1), (13, 4, 1)] {
        let report = log.verifier().start_after(chain.head_at(seq)).run_on(&log).unwrap();
        assert_eq!((report.records(), report.chains[0].segments), (records, segments), "{seq}");
    }
    // Reading does not begin in a file that counts nothing.
    let one = Chain::new(0).events(3);
    let bytes = one.segments[&1].len();
    let two = Chain { segments: one.clone().roll().segments, segment: 2, ..one };
    let three = two.segment(vec![after(1, bytes), after(2, 0)]).event("x").close();
    let log = Log::of(&[&three]);
    let report = log.verifier().start_after(three.head_at(7)).run_on(&log).unwrap();
    assert_eq!((report.records(), report.chains[0].segments), (3, 1), "{report}");
    let report = log.verifier().start_after(three.head_at(5)).run_on(&log).unwrap();
    assert_eq!((report.records(), report.chains[0].segments), (8, 3), "{report}");
}

#[test]
fn missing_bytes_of_a_file_with_only_trusted_records_are_not_damage() {
    let chain = Chain::new(0).events(3).roll().events(3).close();
    let mut log = Log::of(&[&chain]);
    log.file(0, 1).clear();
    check(&log.verifier().start_after(chain.head_at(5)).run_on(&log).unwrap(), Intact, &[]);
    assert_eq!(log.verify().verdict(), Damaged);
}

fn not_checked(report: &crate::Report) -> Vec<String> {
    report.not_checked().iter().map(ToString::to_string).collect()
}

#[test]
fn the_last_of_two_trusted_heads_counts_and_each_chain_has_its_own() {
    let (first, second) = (closed(), Chain::new(1).events(2).close());
    let log = Log::of(&[&first, &second]);
    let verifier = log
        .verifier()
        .start_after(first.head_at(4))
        .start_after(second.head_at(3))
        .start_after(first.head_at(7));
    let report = verifier.run_on(&log).unwrap();
    check(&report, Intact, &[]);
    assert_eq!(
        not_checked(&report)[..2],
        [
            "chain 000: everything up to record 7, which is trusted",
            "chain 001: everything up to record 3, which is trusted",
        ]
    );
}

#[test]
fn a_head_one_beyond_the_end_is_ahead() {
    let chain = closed();
    let log = Log::of(&[&chain]);
    let beyond = Head { seq: 10, ..chain.head() };
    let report = log.verifier().expect_head(beyond).run_on(&log).unwrap();
    let ahead = "ahead: chain 000, record 10: the chain ends with record 9, but a head that was kept \
                 elsewhere names record 10: it was truncated, or copied before that";
    finds(&report, &[ahead]);
}

#[test]
fn the_lines_of_a_chain_state_how_far_it_was_durable() {
    let mut chain = Chain::new(0).events(2).event_marked("x", Some(5));
    let not_closed = format!("not_closed: chain 000, record 5: {NOT_CLOSED}");
    let report = Log::of(&[&chain]).verify();
    finds(&report, &[&not_closed]);
    assert_eq!((report.heads(), report.chains[0].provisional), (&[chain.head()][..], 0));
    chain = Chain::new(0).events(2).event_marked("x", Some(6));
    let ahead = "ahead: chain 000, record 6: the chain ends with record 5, but its own lines say that record 6 \
                 was durable";
    finds(&Log::of(&[&chain]).verify(), &[ahead, &not_closed]);
}

#[test]
fn records_after_the_last_mark_are_provisional() {
    let chain = Chain::new(0).events(2).event_marked("x", None).event_marked("y", None);
    let report = Log::of(&[&chain]).verify();
    assert_eq!((report.heads(), report.chains[0].provisional), (&[chain.head_at(3)][..], 3));
}

#[test]
fn a_head_of_a_removed_record_cannot_be_checked() {
    let chain = Chain::new(0).events(3).roll().prune(5, (1, 1)).close();
    let third = Chain { seq: 3, hash: chain.hashes[&3], ..chain.clone() };
    let witness = Chain::new(1).sees(&third).mark().close();
    let mut log = Log::of(&[&chain, &witness]);
    log.files.remove(&name(0, 1));
    let general = [
        "chain 001: whether its end was cut off at a line, an older copy was put back, or all of it was \
         rewritten (no head kept elsewhere was given)",
        "whether a chain was removed that no other chain witnessed and of which no head was given",
        "who wrote the lines: well-formed lines appended by somebody else, a forged `prune` among them, look \
         like the log's own (only signatures would show the difference)",
    ];
    let wrong = |seq: u64| Head { hash: other(), ..chain.head_at(seq) };
    let report = log.verifier().expect_head(wrong(4)).run_on(&log).unwrap();
    check(&report, Intact, &[]);
    let expected = [
        "chain 000: the head for record 4 (the record was removed by retention, or is trusted)",
        "chain 000: records 1 to 5, removed by retention",
        "chain 000: whether records after 4 were cut off or rewritten (no later head was given)",
    ];
    assert_eq!(not_checked(&report), [&expected[..], &general[..]].concat());
    // The hash of the last removed record is known.
    let report = log.verifier().expect_head(chain.head_at(5)).run_on(&log).unwrap();
    assert_eq!((report.not_checked().len(), report.is_intact()), (5, true), "{report}");
    let report = log.verifier().expect_head(wrong(5)).run_on(&log).unwrap();
    finds(
        &report,
        &[
            "head_mismatch: chain 000, record 5: a head that was kept elsewhere names a different hash for this record: \
           the chain was rewritten",
        ],
    );
}

#[test]
fn a_hundred_copies_are_named() {
    let log = edited(|lines| {
        let copy = lines[2].clone();
        lines[1][20] ^= 1;
        lines.splice(6..6, std::iter::repeat_n(copy, 102));
    });
    let report = log.verify();
    assert_eq!((report.count(Duplicate), report.count(Inserted), report.findings().len()), (100, 2, 103));
    let found: Vec<String> = report.findings()[99..].iter().map(ToString::to_string).collect();
    let expected = [
        format!("duplicate: {}, record 3: the line occurs a second time", at(&log, 1, 105)),
        format!("duplicate: {}, record 3: the line occurs a second time", at(&log, 1, 106)),
        format!("inserted: {}, record 3: the line is in the wrong place", at(&log, 1, 107)),
        format!("inserted: {}, record 3: the line is in the wrong place", at(&log, 1, 108)),
    ];
    assert_eq!(found, expected);
}

#[test]
fn claims_within_reach_of_a_later_format_are_judged() {
    let chain = Chain::new(0).events(3);
    let info = SegmentInfo {
        id: chain.id,
        chain: chain.number,
        segment: 2,
        after: vec![after(1, chain.segments[&1].len())],
        chains: chain.witnesses.clone(),
        pruned: None,
    };
    let payload = String::from_utf8(info.payload(Timestamp::from_unix(1_795_248_900, 5))).unwrap();
    let payload = payload.replace("\"format\":1", "\"format\":2");
    let mut chain = Chain { segment: 2, ..chain }.put(payload.as_bytes(), Some(5));
    chain = chain.events(2);
    let log = Log::of(&[&chain]);
    let unsupported = format!(
        "unsupported_format: {}: the segment has format 2, which this version cannot judge",
        at(&log, 2, 1)
    );
    for (seq, is_judged) in [(3, true), (4, true), (5, true), (6, false), (8, false), (20, false)] {
        let wrong = Head { chain: chain.number, seq, hash: other() };
        let report = log.verifier().expect_head(wrong).run_on(&log).unwrap();
        let mismatch = format!(
            "head_mismatch: chain 000, record {seq}: a head that was kept elsewhere names a different hash for this \
             record: the chain was rewritten"
        );
        let expected = [&mismatch, &unsupported];
        finds(&report, &expected[usize::from(!is_judged)..]);
        assert_eq!((report.records(), report.events()), (5, 3));
        assert_eq!(report.heads(), [chain.head_at(4)]);
        assert_eq!(
            not_checked(&report)[0],
            "chain 000: everything from segment 2 on, whose format 2 is unknown here"
        );
    }
}

#[test]
fn an_edited_line_with_the_right_number_keeps_its_position() {
    let message = "the line does not match its own hash";
    let log = edited(|lines| lines[3][20] ^= 1);
    finds(&log.verify(), &[format!("edited: {}, record 4: {message}", at(&log, 1, 4))]);
    let log = edited(|lines| lines[3][7] = b'9');
    finds(&log.verify(), &[format!("edited: {}: {message}", at(&log, 1, 4))]);
    // Before the first good line, no line has a known position in the chain.
    let log = edited(|lines| lines[0][20] ^= 1);
    finds(&log.verify(), &[format!("edited: {}: {message}", at(&log, 1, 1))]);
}

#[test]
fn each_bad_line_accounts_for_one_missing_record() {
    let log = edited(|lines| drop(lines.drain(3..6)));
    finds(
        &log.verify(),
        &[format!("deleted: {}, record 4: 3 records are missing before this line", at(&log, 1, 4))],
    );
    let log = edited(|lines| {
        lines[3] = b"{}\n".to_vec();
        drop(lines.drain(4..6));
    });
    let report = log.verify();
    check(&report, Damaged, &[Malformed, Deleted]);
    assert_eq!((report.findings()[0].line(), report.findings()[0].seq()), (Some(4), None));
    assert_eq!(
        report.findings()[1].to_string(),
        format!("deleted: {}, record 5: 2 records are missing before this line", at(&log, 1, 5))
    );
}

#[test]
fn a_line_that_comes_too_early_is_one_finding() {
    let log = edited(|lines| lines.insert(4, lines[6].clone()));
    finds(
        &log.verify(),
        &[format!("inserted: {}, record 7: the line is in the wrong place", at(&log, 1, 5))],
    );
    // A line with the right number does not end that either, if it links to another record.
    let forged = Chain::new(0).events(1).event("forged").events(1).segments[&1].clone();
    let forged = forged.split_inclusive(|byte| *byte == b'\n').nth(4).unwrap().to_vec();
    let log = edited(|lines| {
        lines.insert(4, lines[6].clone());
        lines.insert(5, forged);
    });
    let found: Vec<_> =
        log.verify().findings().iter().map(|finding| (finding.line(), finding.seq())).collect();
    assert_eq!(found, [(Some(5), Some(7)), (Some(6), Some(5))]);
}

#[test]
fn only_the_first_line_of_a_file_names_it() {
    let info = |chain: &Chain| SegmentInfo {
        id: chain.id,
        chain: chain.number,
        segment: 1,
        after: Vec::new(),
        chains: chain.witnesses.clone(),
        pruned: None,
    };
    let time = Timestamp::from_unix(1_795_248_900, 5);
    let chain = Chain::new(0).events(2);
    let payload = info(&chain).payload(time);
    let inside = chain.put(&payload, Some(4)).close();
    let log = Log::of(&[&inside]);
    let renamed = format!(
        "renamed_segment: {}, record 5: a `segment` line is not the first line of its file",
        at(&log, 1, 5)
    );
    finds(&log.verify(), &[renamed]);
    // Nor does it make certain what precedes it.
    let mut chain = Chain::new(0).events(2);
    chain.segments.get_mut(&1).unwrap().extend_from_slice(b"x\n");
    let log = Log::of(&[&chain.put(&payload, None)]);
    let torn = format!(
        "torn_tail: {}, record 5: the end of the chain from here on was never durable and is torn (1 good \
         lines in it)",
        at(&log, 1, 5)
    );
    let report = log.verify();
    finds(&report, &[torn, format!("not_closed: chain 000, record 4: {NOT_CLOSED}")]);
    assert_eq!((report.verdict(), report.records()), (Unclean, 4));
}

#[test]
fn a_held_lock_excuses_only_an_incomplete_line_and_files_without_a_good_line() {
    let torn = [TornTail, NotClosed];
    for (end, stillborn, held) in [
        (&b"half"[..], None, &[][..]),
        (b"half", Some(&b""[..]), &[]),
        (b"half", Some(b"x\n"), &[]),
        (b"x\n", None, &[TornTail]),
        (b"x\nhalf", None, &[TornTail]),
    ] {
        let mut log = Log::of(&[&Chain::new(0).events(3)]);
        log.file(0, 1).extend_from_slice(end);
        log.files.extend(stillborn.map(|bytes| (name(0, 2), bytes.to_vec())));
        check(&log.verify(), Unclean, &torn);
        check(&log.hold(0).verify(), if held.is_empty() { Intact } else { Unclean }, held);
    }
}

#[test]
fn missing_bytes_of_a_file_are_reported_at_its_end() {
    let chain = Chain::new(0).events(3).roll().close();
    let mut log = Log::of(&[&chain]);
    let counted = log.file(0, 1).len();
    log.edit(0, 1, |lines| drop(lines.pop()));
    let short = format!("the file ends here, but the next segment says that {counted} bytes of it count");
    finds(
        &log.verify(),
        &[
            format!("deleted: {}: {short}", at(&log, 1, 5)),
            format!("deleted: {}, record 5: 1 record is missing before this line", at(&log, 2, 1)),
        ],
    );
}

#[test]
fn bytes_that_are_not_a_line_count_as_one() {
    let log = edited(|lines| {
        lines[4][20] ^= 1;
        lines.insert(3, [vec![b'x'; 400_000], b"\n".to_vec()].concat());
    });
    finds(
        &log.verify(),
        &[
            format!("malformed: {}: the line is longer than 60 KiB (400001 bytes)", at(&log, 1, 4)),
            format!("edited: {}, record 5: the line does not match its own hash", at(&log, 1, 6)),
        ],
    );
    let mut chain = Chain::new(0).events(3);
    chain.segments.get_mut(&1).unwrap().extend_from_slice(b"half");
    let log = Log::of(&[&chain.roll().close()]);
    finds(&log.verify(), &[format!("malformed: {}: the line is incomplete (4 bytes)", at(&log, 1, 6))]);
}

/// Verifies a log that has this line behind what counts of segment 1, before record 6.
fn with_void(seq: u64, write: impl FnOnce(Chain) -> Chain) -> Report {
    let chain = Chain::new(0).events(3);
    let counted = chain.segments[&1].len();
    let void = write(Chain { seq: seq - 1, ..chain.clone() });
    let chain = Chain { segments: void.segments, ..chain };
    Log::of(&[&chain.segment(vec![after(1, counted)]).close()]).verify()
}

#[test]
fn void_lines_count_only_for_their_marks() {
    let voided = |durable| {
        format!(
            "voided: chain 000, segment 2, line 1 (byte 0), record 6: the segment declares everything from \
             record 6 on void, but the chain was durable up to record {durable}"
        )
    };
    let prune = |chain: Chain| {
        let prune = PruneInfo { through: 6, hash: other(), files: (1, 1), reason: "max_age".into() };
        chain.put(&prune.payload(Timestamp::from_unix(1_795_248_900, 5)), None)
    };
    finds(&with_void(7, prune), &[voided(6)]);
    finds(&with_void(6, |chain| chain.event_marked("x", Some(6))), &[voided(6)]);
    finds(&with_void(8, |chain| chain.event_marked("x", Some(7))), &[voided(7)]);
    // Ignored are a mark below the void records, a line of an earlier record, one without a mark, and an invalid one.
    check(&with_void(7, |chain| chain.event_marked("x", Some(5))), Intact, &[]);
    check(&with_void(3, |chain| chain.event_marked("x", Some(99))), Intact, &[]);
    check(&with_void(7, |chain| chain.event_marked("x", None)), Intact, &[]);
    let edited = |mut chain: Chain| {
        let start = chain.segments[&1].len();
        chain = chain.event_marked("x", Some(99));
        chain.segments.get_mut(&1).unwrap()[start + 20] ^= 1;
        chain
    };
    check(&with_void(7, edited), Intact, &[]);
}

fn fat(chain: Chain) -> Chain {
    chain.event(&"x".repeat(1000))
}

/// Returns a chain whose next line is the first of the second chunk of its file.
fn at_the_end_of_a_piece() -> Chain {
    let mut chain = Chain::new(0);
    loop {
        let next = fat(chain.clone());
        if next.segments[&1].len() > FIRST_PIECE {
            return chain;
        }
        chain = next;
    }
}

#[test]
fn a_chunk_must_continue_where_the_previous_one_ended() {
    let before = at_the_end_of_a_piece();
    let (line, seq) = (usize::try_from(before.seq).unwrap() + 1, before.seq + 1);
    let honest = (0..10).fold(before.clone(), |chain, _| fat(chain)).close();
    let report = Log::of(&[&honest]).verify();
    check(&report, Intact, &[]);
    assert_eq!((report.records(), report.events()), (honest.seq, honest.seq - 3));
    let gap = (0..10).fold(Chain { seq: before.seq + 2, ..before.clone() }, |chain, _| fat(chain)).close();
    let log = Log::of(&[&gap]);
    let deleted =
        format!("deleted: {}, record {seq}: 2 records are missing before this line", at(&log, 1, line));
    finds(&log.verify(), &[deleted]);
    let forged = (0..10).fold(Chain { hash: other(), ..before }, |chain, _| fat(chain)).close();
    let log = Log::of(&[&forged]);
    let broken = format!(
        "broken_link: {}, record {seq}: the line does not link to the line before it: one of the two was \
         replaced",
        at(&log, 1, line)
    );
    finds(&log.verify(), &[broken]);
}

#[test]
fn lines_are_counted_through_all_chunks() {
    let mut chain = Chain::new(0);
    while chain.segments[&1].len() < FIRST_PIECE + PIECE + PIECE / 4 {
        chain = fat(chain);
    }
    let mut log = Log::of(&[&chain.clone().close()]);
    let line = usize::try_from(chain.seq).unwrap();
    log.edit(0, 1, |lines| lines[line - 1][20] ^= 1);
    finds(
        &log.verify(),
        &[format!("edited: {}, record {line}: the line does not match its own hash", at(&log, 1, line))],
    );
    // A record far into a chunk is found again, although the chunks are cut differently when it is read again.
    let log = Log::of(&[&chain.clone().close()]);
    for seq in [10, 40, 60, 100, 150, 200, chain.seq - 1] {
        let wrong = Head { hash: other(), ..chain.head_at(seq) };
        let report = log.verifier().expect_head(wrong).run_on(&log).unwrap();
        let mismatch = format!(
            "head_mismatch: chain 000, record {seq}: a head that was kept elsewhere names a different hash for this \
             record: the chain was rewritten"
        );
        finds(&report, &[mismatch]);
    }
}
