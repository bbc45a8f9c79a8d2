//! How a report prints, and its numbers, notes and limits.

use std::sync::{Arc, Mutex};

use super::{
    check,
    log::{Chain, Log, name},
};
use crate::{
    Error,
    FindingKind::{self, Malformed, MissingSegment},
    Head, Report,
    Verdict::{Damaged, Intact, Unclean},
    Verifier,
    chain::Digest,
    format::{After, ChainId},
    storage::{Access, Dir, Disk, DiskOptions, Storage as _},
};

fn closed() -> Chain {
    Chain::new(0).events(6).close()
}

fn lines<T: ToString>(items: &[T]) -> Vec<String> {
    items.iter().map(ToString::to_string).collect()
}

const GENERAL: &str =
    "  - whether a chain was removed that no other chain witnessed and of which no head was given
  - who wrote the lines: well-formed lines appended by somebody else, a forged `prune` among them, look like \
                       the log's own (only signatures would show the difference)\n";

#[test]
fn an_intact_log_prints_without_findings_and_notes() {
    let chain = closed().roll().close();
    let log = Log::of(&[&chain]);
    let report = log.verifier().expect_head(chain.head_at(4)).run_on(&log).unwrap();
    let expected = format!(
        "INTACT: every durable record is there and unaltered
  log      /log
  records  11 (6 events)
  chain    000: 11 records in 2 segments, closed
    head   {}

not checked
  - chain 000: whether records after 4 were cut off or rewritten (no later head was given)
{GENERAL}",
        chain.head()
    );
    assert_eq!(report.to_string(), expected);
    assert!(report.is_intact());
    report.ensure_intact().unwrap();
}

#[test]
fn an_unclean_log_prints_what_is_not_durable_and_what_was_lost() {
    let first = Chain::new(0).gap(2, 1_017).events(1).event_marked("x", None);
    let second = Chain::bare(1).segment(Vec::new());
    let report = Log::of(&[&first, &second]).verify();
    let not_given = "whether its end was cut off at a line, an older copy was put back, or all of it was \
                     rewritten (no head kept elsewhere was given)";
    let expected = format!(
        "UNCLEAN: nothing durable is altered, but the log did not end in order
  log      /log
  records  6 (2 events)
  chain    000: 5 records in 1 segment, ended without close
    head   {}
    after  2 not known to be durable
    lost   2 critical and 1,017 routine events, by its own count
  chain    001: 1 record in 1 segment, ended without close
    after  1 not known to be durable

findings (2)
  - not_closed: chain 000, record 5: the chain ends without `close`, and no writer holds it
  - not_closed: chain 001, record 1: the chain ends without `close`, and no writer holds it

notes (1)
  - gap: chain 000: record 3: 2 critical and 1017 routine events were not recorded (queue_full)

not checked
  - chain 000: {not_given}
  - chain 001: {not_given}
{GENERAL}",
        first.head_at(3)
    );
    assert_eq!(report.to_string(), expected);
    assert!(!report.is_intact());
}

#[test]
fn a_finding_and_a_note_say_what_they_are_about() {
    let mut log = Log::of(&[&Chain::new(7).gap(1, 2).events(3).roll().close()]);
    log.edit(7, 1, |lines| lines[4][20] ^= 1);
    log.files.insert("notes.txt".to_owned(), Vec::new());
    let report = log.verify();
    check(&report, Damaged, &[FindingKind::Edited]);
    let finding = &report.findings()[0];
    let offset: usize =
        log.files[&name(7, 1)].split_inclusive(|byte| *byte == b'\n').take(4).map(<[u8]>::len).sum();
    assert_eq!((finding.chain(), finding.segment(), finding.line()), (7, Some(1), Some(5)));
    assert_eq!((finding.offset(), finding.seq()), (Some(offset as u64), Some(5)));
    assert_eq!(finding.message(), "the line does not match its own hash");
    let about: Vec<_> = report.notes().iter().map(|note| (note.kind().as_str(), note.chain())).collect();
    assert_eq!(about, [("foreign", None), ("gap", Some(7))]);
    assert_eq!(report.notes()[0].message(), "\"notes.txt\" is not part of the log");
    assert_eq!(lines(report.notes())[0], "foreign: \"notes.txt\" is not part of the log");
    // A finding about a whole segment has no line.
    log.files.remove(&name(7, 1));
    let report = log.verify();
    check(&report, Damaged, &[MissingSegment, FindingKind::Deleted]);
    let finding = &report.findings()[0];
    assert_eq!(
        (finding.segment(), finding.line(), finding.offset(), finding.seq()),
        (Some(1), None, None, None)
    );
    let first = &report.findings()[1];
    assert_eq!(
        (first.segment(), first.line(), first.offset(), first.seq()),
        (Some(2), Some(1), Some(0), Some(1))
    );
}

#[test]
fn a_missing_segment_is_reported_with_the_bytes_that_count() {
    let chain = Chain::new(0).events(3);
    let bytes = chain.segments[&1].len();
    // Two later segments count it; it is reported missing once.
    let claims = vec![After::counted(1, bytes as u64, None)];
    let mut two = chain.roll();
    let two_bytes = two.segments[&2].len() as u64;
    two = two.segment([claims, vec![After::counted(2, two_bytes, None)]].concat()).close();
    let mut log = Log::of(&[&two]);
    log.files.remove(&name(0, 1));
    assert_eq!(
        lines(log.verify().findings()),
        [
            format!("missing_segment: chain 000, segment 1: the file is missing, but {bytes} bytes of it count"),
            "deleted: chain 000, segment 2, line 1 (byte 0), record 1: 5 records are missing before this line, \
             the first of the chain"
                .to_owned(),
        ]
    );
}

#[test]
fn an_end_without_line_feed_is_torn_or_malformed() {
    let chain = closed();
    let mut log = Log::of(&[&chain]);
    let place = format!("chain 000, segment 1, line 10 (byte {}), record 10", log.file(0, 1).len());
    log.file(0, 1).extend_from_slice(b"{\"seq\":10,\"ts");
    let torn = format!("torn_tail: {place}: the last line is incomplete (13 bytes) and was never durable");
    assert_eq!(lines(log.verify().findings()), [torn]);
    let beyond = Head { seq: 10, ..chain.head() };
    let malformed = format!("malformed: {place}: the line is incomplete (13 bytes)");
    let ahead = "ahead: chain 000, record 10: the chain ends with record 9, but a head that was kept elsewhere \
                 names record 10: it was truncated, or copied before that";
    let report = log.verifier().expect_head(beyond).run_on(&log).unwrap();
    assert_eq!(lines(report.findings()), [malformed.as_str(), ahead]);
    let live = "live: chain 000: a writer holds the chain";
    assert_eq!(lines(log.hold(0).verify().notes()), [format!("{live}; its last line is being written")]);
    assert_eq!(lines(Log::of(&[&chain]).hold(0).verify().notes()), [live]);
}

#[test]
fn the_source_of_a_claim_is_reported() {
    let first = closed();
    let second = Chain::new(1).sees(&first).mark().close();
    let gone = Log::of(&[&second]);
    let report = gone.verifier().expect_head(first.head_at(4)).run_on(&gone).unwrap();
    assert_eq!(
        lines(report.findings()),
        [
            "missing_chain: chain 000, record 4: a head that was kept elsewhere names record 4, but the chain is \
             missing",
            "missing_chain: chain 000, record 9: chain 001 names record 9, but the chain is missing",
        ]
    );
    let rewritten = Log::of(&[&Chain::new(0).events(5).event("other").close(), &second]);
    assert_eq!(
        lines(rewritten.verify().findings()),
        [
            "head_mismatch: chain 000, record 9: chain 001 names a different hash for this record: the chain was rewritten"
        ]
    );
    let anew = Chain { id: ChainId(1), ..Chain::bare(0) }.segment(Vec::new()).open().events(6).close();
    assert_eq!(
        lines(Log::of(&[&anew, &second]).verify().findings()),
        ["missing_chain: chain 000: chain 001 names a chain with another id, which is missing"]
    );
}

#[test]
fn void_bytes_are_noted() {
    let torn = b"{\"seq\":6,garbage\nmore";
    let with = |next: &dyn Fn(Chain) -> Chain| {
        let chain = Chain::new(0).events(3);
        let counted = chain.segments[&1].len() as u64;
        let mut segments = chain.segments.clone();
        segments.get_mut(&1).unwrap().extend_from_slice(torn);
        let chain = Chain { segments, ..chain }.segment(vec![After::counted(1, counted, None)]);
        lines(Log::of(&[&next(chain)]).verify().notes())
    };
    let bytes = torn.len();
    let (void, unclosed) = (format!("void: chain 000: {bytes} bytes of segment 1 are void"), |seq| {
        format!("unclosed: chain 000: the run before record {seq} ended without `close`")
    });
    let recovery =
        "recovery: chain 000: record 7: the chain was continued after a recovery (torn)".to_owned();
    assert_eq!(with(&|chain| chain.recovery().open().close()), [recovery, unclosed(8), void]);
    let undeclared = format!(
        "undeclared: chain 000: {bytes} bytes of segment 1 are void, and no `recovery` record explains them"
    );
    assert_eq!(with(&|chain| chain.open().close()), [unclosed(7), undeclared]);
    // After a `close`, nothing is unclosed.
    assert_eq!(lines(Log::of(&[&closed().open().close()]).verify().notes()), [""; 0]);
}

#[test]
fn a_file_that_counts_nothing_is_noted() {
    let one = Chain::new(0).events(3);
    let bytes = one.segments[&1].len() as u64;
    let two = Chain { segments: one.clone().roll().segments, segment: 2, ..one };
    let void = two.segments[&2].len();
    let claims = vec![After::counted(1, bytes, None), After::counted(2, 0, None)];
    let mut log = Log::of(&[&two.segment(claims).close()]);
    let note = format!("void: chain 000: {void} bytes of segment 2 are void");
    assert_eq!(lines(log.verify().notes()), [note]);
    log.file(0, 2).clear();
    assert_eq!(lines(log.verify().notes()), ["stillborn: chain 000: segment 2 is empty"]);
    let mut log = Log::of(&[&closed()]);
    log.files.insert(name(0, 2), b"x\n".to_vec());
    let report = log.verify();
    check(&report, Unclean, &[FindingKind::TornTail]);
    assert_eq!(lines(report.notes()), ["stillborn: chain 000: segment 2 has no good line"]);
}

#[test]
fn notes_beyond_the_limit_are_counted() {
    let gaps = |chain: Chain, count| (0..count).fold(chain, |chain, _| chain.gap(0, 1)).close();
    let (first, second) = (gaps(Chain::new(0), 1_002), gaps(Chain::new(1), 1_001));
    let mut log = Log::of(&[&first, &second]);
    for number in 0..101 {
        log.files.insert(format!("foreign-{number:03}"), Vec::new());
    }
    let report = log.verify();
    check(&report, Intact, &[]);
    assert_eq!((report.notes().len(), report.more_notes), (2_100, 4));
    assert_eq!(report.notes()[99].message(), "\"foreign-099\" is not part of the log");
    let text = report.to_string();
    assert!(text.contains("\nnotes (2,104)\n") && text.contains("\n  - and 2,084 more\n"), "{text}");
    assert!(text.contains("lost   0 critical and 1,002 routine events, by its own count\n"), "{text}");
}

#[test]
fn exactly_as_many_notes_as_fit_are_printed_without_a_remainder() {
    for (files, more) in [(20, None), (21, Some("  - and 1 more\n"))] {
        let mut log = Log::of(&[&closed()]);
        for number in 0..files {
            log.files.insert(format!("foreign-{number:03}"), Vec::new());
        }
        let text = log.verify().to_string();
        assert_eq!(text.matches("is not part of the log\n").count(), 20);
        assert_eq!(text.contains(" more\n"), more.is_some_and(|more| text.contains(more)), "{text}");
    }
}

fn with_bad_lines(count: usize) -> Report {
    let mut log = Log::of(&[&closed()]);
    log.edit(0, 1, |lines| drop(lines.splice(5..5, std::iter::repeat_n(b"x\n".to_vec(), count))));
    log.verify()
}

#[test]
fn findings_are_counted_beyond_those_that_are_kept() {
    for (bad, kept) in [(1_000, 1_000), (1_001, 1_000), (4_096, 1_000), (4_099, 1_000)] {
        let report = with_bad_lines(bad);
        assert_eq!((report.count(Malformed), report.findings().len()), (bad as u64, kept));
        assert_eq!((report.count(FindingKind::Edited), report.verdict()), (0, Damaged));
        assert_eq!(report.records(), 9);
    }
    let text = with_bad_lines(4_099).to_string();
    assert!(text.starts_with("DAMAGED: records that had been durable are altered or missing\n"), "{text}");
    assert!(text.contains("\nfindings (4,099)\n") && text.contains("\n  - and 4,079 more\n"), "{text}");
}

#[test]
fn an_error_names_three_findings() {
    for (bad, more) in [(3, ""), (4, "; and 1 more"), (7, "; and 4 more")] {
        let report = with_bad_lines(bad);
        let Err(Error::NotIntact { path, verdict, summary }) = report.ensure_intact() else { panic!() };
        assert_eq!((path.to_str(), verdict), (Some("/log"), Damaged));
        assert_eq!(summary, format!("{}{more}", lines(&report.findings()[..3]).join("; ")));
    }
}

#[test]
fn progress_includes_all_bytes_from_the_first_call() {
    let (first, second) = (closed(), Chain::new(1).events(2).close());
    let log = Log::of(&[&first, &second]);
    let calls = Arc::new(Mutex::new(Vec::new()));
    let seen = Arc::clone(&calls);
    let verifier = log.verifier().progress(move |done, total| seen.lock().unwrap().push((done, total)));
    check(&verifier.run_on(&log).unwrap(), Intact, &[]);
    let bytes = [&first, &second].map(|chain| chain.segments[&1].len() as u64);
    let total = bytes[0] + bytes[1];
    assert_eq!(*calls.lock().unwrap(), [(bytes[0], total), (total, total)]);
}

#[test]
fn a_file_that_is_not_a_directory_cannot_be_opened() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("file");
    std::fs::write(&file, b"x").unwrap();
    for path in [file.clone(), file.join("log")] {
        let error = Verifier::new(&path).run().unwrap_err();
        assert!(matches!(error, Error::Io { .. }), "{error:?}");
        assert_eq!(error.to_string(), format!("cannot open {}", path.display()));
    }
    let nothing = Verifier::new(dir.path().join("nothing")).run().unwrap_err();
    assert!(matches!(nothing, Error::NoLog { .. }), "{nothing:?}");
}

#[test]
fn a_lock_that_cannot_be_read_is_reported() {
    let dir = tempfile::tempdir().unwrap();
    let disk = Disk::create(dir.path(), DiskOptions::default()).unwrap();
    let file = disk.open(Dir::Log, &name(0, 1), Access::Create).unwrap();
    let bytes = &closed().segments[&1];
    assert_eq!(file.append(bytes).unwrap(), bytes.len());
    let is_said = || {
        let report = Verifier::new(dir.path()).run().unwrap();
        check(&report, Intact, &[]);
        let what = "chain 000: whether a writer holds it, since its lock could not be read";
        report.not_checked().iter().any(|said| said.to_string() == what)
    };
    assert!(!is_said());
    // A symbolic link to itself.
    std::os::unix::fs::symlink("chain-000.lock", disk.path(Dir::Control, "chain-000.lock")).unwrap();
    assert!(is_said());
}

#[test]
fn hashes_are_compared_in_each_chain_separately() {
    let (first, second) = (closed(), Chain::new(1).events(2).close());
    let log = Log::of(&[&first, &second]);
    let wrong = Head { hash: Digest::of_bytes(b"x"), ..second.head_at(3) };
    let report = log.verifier().expect_head(first.head_at(3)).expect_head(wrong).run_on(&log).unwrap();
    check(&report, Damaged, &[FindingKind::HeadMismatch]);
    assert_eq!((report.findings()[0].chain(), report.findings()[0].seq()), (1, Some(3)));
    assert_eq!((report.records(), report.events()), (14, 8));
    assert_eq!(report.heads(), [first.head(), second.head()]);
}
