use super::{
    check,
    log::{Chain, Log, name},
};
use crate::{
    Error, FindingKind,
    FindingKind::{
        Ahead, BrokenLink, Deleted, Duplicate, Edited, HeadMismatch, Inserted, Malformed, MissingChain,
        MissingSegment, NotClosed, RenamedSegment, TornTail, UnsupportedFormat, Voided,
    },
    NoteKind, Verdict,
    Verdict::{Damaged, Intact, Unclean},
    format::After,
};

fn closed() -> Chain {
    Chain::new(0).events(6).close()
}

/// Checks a log of one file after a change to its lines.
#[track_caller]
fn edited(verdict: Verdict, kinds: &[FindingKind], change: impl FnOnce(&mut Vec<Vec<u8>>)) {
    let mut log = Log::of(&[&closed()]);
    log.edit(0, 1, change);
    check(&log.verify(), verdict, kinds);
}

fn after(segment: u32, bytes: usize) -> After {
    After::counted(segment, bytes as u64, None)
}

fn has_note(report: &crate::Report, kind: NoteKind) -> bool {
    report.notes().iter().any(|note| note.kind() == kind)
}

#[test]
fn a_closed_log_is_intact() {
    let chain = closed();
    let report = Log::of(&[&chain]).verify();
    check(&report, Intact, &[]);
    assert_eq!((report.records(), report.events()), (9, 6));
    assert_eq!(report.heads(), [chain.head()]);
    report.ensure_intact().unwrap();
}

#[test]
fn a_log_without_segments_is_not_a_log() {
    let log = Log::default();
    assert!(matches!(log.verifier().run_on(&log), Err(Error::NoLog { .. })));
}

#[test]
fn every_change_of_a_line_has_a_kind_of_finding() {
    edited(Damaged, &[Edited], |lines| lines[3][20] ^= 1);
    edited(Damaged, &[Malformed], |lines| lines[3][0] = b'[');
    edited(Damaged, &[Malformed], |lines| lines.insert(3, b"hello\n".to_vec()));
    edited(Damaged, &[Deleted], |lines| drop(lines.remove(3)));
    edited(Damaged, &[Deleted, RenamedSegment], |lines| drop(lines.remove(0)));
    edited(Damaged, &[Duplicate], |lines| lines.insert(4, lines[3].clone()));
    edited(Damaged, &[Duplicate], |lines| lines.insert(6, lines[1].clone()));
}

#[test]
fn a_line_with_another_hash_out_of_place_was_inserted() {
    let mut log = Log::of(&[&closed()]);
    let other = Chain::new(0).event("other").segments[&1].clone();
    log.edit(0, 1, |lines| {
        lines.insert(5, other.split_inclusive(|byte| *byte == b'\n').nth(2).unwrap().to_vec());
    });
    check(&log.verify(), Damaged, &[Inserted]);
}

#[test]
fn a_line_that_was_rehashed_breaks_the_next_link() {
    let mut log = Log::of(&[&closed()]);
    let forged = Chain::new(0).events(3).event("forged").segments[&1].clone();
    log.edit(0, 1, |lines| {
        lines[5] = forged.split_inclusive(|byte| *byte == b'\n').nth(5).unwrap().to_vec();
    });
    check(&log.verify(), Damaged, &[BrokenLink]);
}

/// The line that carries the mark has the broken link itself, and its mark still counts.
#[test]
fn the_last_durable_line_cannot_be_rehashed_either() {
    let chain = Chain::new(0).events(4);
    let mut log = Log::of(&[&chain]);
    let forged = Chain::new(0).events(2).event("forged").segments[&1].clone();
    log.edit(0, 1, |lines| {
        lines[4] = forged.split_inclusive(|byte| *byte == b'\n').nth(4).unwrap().to_vec();
    });
    check(&log.verify(), Damaged, &[BrokenLink, NotClosed]);
}

#[test]
fn bad_bytes_above_the_mark_at_the_end_are_a_torn_tail() {
    let chain =
        Chain::new(0).events(2).event_marked("x", Some(4)).event_marked("y", None).event_marked("z", None);
    let mut log = Log::of(&[&chain]);
    check(&log.verify(), Unclean, &[NotClosed]);
    log.edit(0, 1, |lines| lines[5][20] ^= 1);
    let report = log.verify();
    check(&report, Unclean, &[TornTail, NotClosed]);
    assert_eq!(report.records(), 5);
    assert_eq!(report.heads(), [chain.head_at(4)]);
    assert_eq!(report.findings()[0].seq(), Some(6));
    // The same at the mark is damage.
    let mut log = Log::of(&[&chain]);
    log.edit(0, 1, |lines| lines[3][20] ^= 1);
    check(&log.verify(), Damaged, &[Edited, NotClosed]);
}

#[test]
fn a_last_line_without_a_line_feed_is_a_torn_tail() {
    let mut log = Log::of(&[&closed()]);
    log.file(0, 1).extend_from_slice(b"{\"seq\":10,\"ts");
    check(&log.verify(), Unclean, &[TornTail]);
    let report = log.clone().hold(0).verify();
    check(&report, Intact, &[]);
    assert!(has_note(&report, NoteKind::Live));
    // A held lock does not excuse a whole bad line.
    log.file(0, 1).extend_from_slice(b"\n");
    check(&log.hold(0).verify(), Unclean, &[TornTail]);
}

/// The torn end of one chain once hid that of the next.
#[test]
fn every_chain_has_its_own_torn_tail() {
    let (first, second) = (closed(), Chain::new(1).close());
    let mut log = Log::of(&[&first, &second]);
    log.file(0, 1).extend_from_slice(b"{");
    log.file(1, 1).extend_from_slice(b"{");
    let report = log.verify();
    check(&report, Unclean, &[TornTail, TornTail]);
    assert_eq!((report.findings()[1].chain(), report.findings()[1].line()), (1, Some(4)));
}

#[test]
fn a_verifier_can_run_on_another_thread() {
    fn check<T: Send>() {}
    check::<crate::Verifier>();
    check::<crate::Records>();
}

#[test]
fn removing_a_close_is_noticed_and_removing_a_whole_run_is_not() {
    edited(Unclean, &[NotClosed], |lines| drop(lines.pop()));
    let chain = closed();
    let first_run = chain.segments[&1].len();
    let chain = chain.open().events(3).close();
    let mut log = Log::of(&[&chain]);
    check(&log.verify(), Intact, &[]);
    log.file(0, 1).truncate(first_run);
    check(&log.verify(), Intact, &[]);
    // A head that was kept elsewhere shows it.
    check(&log.verifier().expect_head(chain.head()).run_on(&log).unwrap(), Damaged, &[Ahead]);
}

#[test]
fn an_expected_head_must_exist_with_its_hash() {
    let chain = closed();
    let log = Log::of(&[&chain]);
    for seq in 1..=9 {
        let report = log.verifier().expect_head(chain.head_at(seq)).run_on(&log).unwrap();
        check(&report, Intact, &[]);
        let mut wrong = chain.head_at(seq);
        wrong.hash = crate::chain::Digest::of_bytes(b"x");
        let report = log.verifier().expect_head(wrong).run_on(&log).unwrap();
        check(&report, Damaged, &[HeadMismatch]);
    }
    let missing = Chain::new(3).head();
    let report = log.verifier().expect_head(missing).run_on(&log).unwrap();
    check(&report, Damaged, &[MissingChain]);
}

#[test]
fn a_torn_tail_below_a_kept_head_is_damage() {
    let chain = Chain::new(0).events(3).event_marked("x", None);
    let mut log = Log::of(&[&chain]);
    log.edit(0, 1, |lines| lines[5][20] ^= 1);
    check(&log.verify(), Unclean, &[TornTail, NotClosed]);
    let report = log.verifier().expect_head(chain.head()).run_on(&log).unwrap();
    check(&report, Damaged, &[Edited, NotClosed]);
}

#[test]
fn chains_witness_each_other() {
    let first = closed();
    let second = Chain::new(1).sees(&first).mark().close();
    let log = Log::of(&[&first, &second]);
    check(&log.verify(), Intact, &[]);
    // The chain is missing.
    let alone = Log::of(&[&second]);
    check(&alone.verify(), Damaged, &[MissingChain]);
    // It was cut.
    let mut cut = log.clone();
    cut.edit(0, 1, |lines| lines.truncate(5));
    check(&cut.verify(), Damaged, &[Ahead, NotClosed]);
    // It was rewritten.
    let rewritten = Log::of(&[&Chain::new(0).events(5).event("other").close(), &second]);
    check(&rewritten.verify(), Damaged, &[HeadMismatch]);
    // Another chain has its number.
    let mut other = Chain::bare(0);
    other.id = crate::format::ChainId(1);
    let other = other.segment(Vec::new()).open().events(6).close();
    check(&Log::of(&[&other, &second]).verify(), Damaged, &[MissingChain]);
}

#[test]
fn void_bytes_are_a_note() {
    let chain = Chain::new(0).events(3);
    let counted = chain.segments[&1].len();
    let mut torn = chain.clone();
    torn.segments.get_mut(&1).unwrap().extend_from_slice(b"{\"seq\":6,garbage\nmore");
    let next = Chain { segments: torn.segments.clone(), ..chain };
    let next = next.segment(vec![after(1, counted)]).recovery().open().event("x").close();
    let report = Log::of(&[&next]).verify();
    check(&report, Intact, &[]);
    assert!(has_note(&report, NoteKind::Void) && has_note(&report, NoteKind::Recovery));
    assert!(has_note(&report, NoteKind::Unclosed));
    assert_eq!(report.records(), next.seq);
    // The same bytes, not declared void.
    let mut log = Log::of(&[&next]);
    let honest = next.segments[&1].len();
    let wrong = Chain { segments: torn.segments, segment: 1, ..Chain::new(0).events(3) };
    let wrong = wrong.segment(vec![after(1, honest)]).close();
    log.files = wrong.files().collect();
    check(&log.verify(), Damaged, &[Malformed, Malformed]);
}

#[test]
fn records_that_were_not_acknowledged_may_be_void() {
    let durable = Chain::new(0).events(3);
    let counted = durable.segments[&1].len();
    let lost = durable.clone().event_marked("lost", Some(5)).event_marked("lost too", None);
    let next = Chain { segments: lost.segments, ..durable };
    let next = next.segment(vec![after(1, counted)]).event("lost").event("lost too").close();
    check(&Log::of(&[&next]).verify(), Intact, &[]);
}

#[test]
fn durable_records_must_not_be_void() {
    let durable = Chain::new(0).events(3);
    let counted = durable.segments[&1].len();
    let more = durable.clone().event("kept").event("marks it");
    let forged = Chain { segments: more.segments, ..durable };
    let forged = forged.segment(vec![after(1, counted)]).close();
    check(&Log::of(&[&forged]).verify(), Damaged, &[Voided]);
}

#[test]
fn a_whole_segment_may_be_void_or_missing_if_it_counts_nothing() {
    let one = Chain::new(0).events(3);
    let bytes = one.segments[&1].len();
    let mut two = one.clone().roll();
    let in_void = two.segments[&2].clone();
    two = Chain { segments: two.segments, segment: 2, ..one };
    let three = two.segment(vec![after(1, bytes), after(2, 0)]).event("x").close();
    let mut log = Log::of(&[&three]);
    assert_eq!(log.files[&name(0, 2)], in_void);
    let report = log.verify();
    check(&report, Intact, &[]);
    assert!(has_note(&report, NoteKind::Void));
    log.files.remove(&name(0, 2));
    check(&log.verify(), Intact, &[]);
    log.files.insert(name(0, 2), Vec::new());
    let report = log.verify();
    check(&report, Intact, &[]);
    assert!(has_note(&report, NoteKind::Stillborn));
    // A stillborn file at the end: the writer died before its first line was written, or its content was destroyed.
    log.files.insert(name(0, 4), Vec::new());
    check(&log.verify(), Unclean, &[TornTail]);
    log.files.insert(name(0, 4), b"{\"seq\":1".to_vec());
    check(&log.verify(), Unclean, &[TornTail]);
}

#[test]
fn a_torn_end_before_a_torn_segment_is_one_torn_tail() {
    let chain = Chain::new(0).events(3);
    let mut log = Log::of(&[&chain.clone().roll().event("x")]);
    log.file(0, 1).extend_from_slice(b"{\"seq\":6,");
    log.edit(0, 2, |lines| lines[0][30] ^= 1);
    // The new segment never became durable, so its mark counts only if it is good.
    log.edit(0, 2, |lines| lines.truncate(1));
    check(&log.verify(), Unclean, &[TornTail, NotClosed]);
}

#[test]
fn missing_segments_are_found() {
    let chain = Chain::new(0).events(3).roll().events(3).roll().events(2).close();
    for missing in [1, 2] {
        let mut log = Log::of(&[&chain]);
        log.files.remove(&name(0, missing));
        check(&log.verify(), Damaged, &[MissingSegment, Deleted]);
    }
    let mut log = Log::of(&[&chain]);
    log.files.remove(&name(0, 3));
    check(&log.verify(), Unclean, &[NotClosed]);
}

#[test]
fn renamed_segments_are_found() {
    let chain = Chain::new(0).events(3).roll().events(3).close();
    let mut log = Log::of(&[&chain]);
    let file = log.files.remove(&name(0, 2)).unwrap();
    log.files.insert(name(0, 3), file);
    check(&log.verify(), Damaged, &[RenamedSegment]);
    let mut swapped = Log::of(&[&chain]);
    let (one, two) = (swapped.files[&name(0, 1)].clone(), swapped.files[&name(0, 2)].clone());
    swapped.files.insert(name(0, 1), two);
    swapped.files.insert(name(0, 2), one);
    assert_eq!(swapped.verify().verdict(), Damaged);
    let mut joined = Log::of(&[&chain]);
    let two = joined.files.remove(&name(0, 2)).unwrap();
    joined.file(0, 1).extend(two);
    check(&joined.verify(), Damaged, &[RenamedSegment]);
}

#[test]
fn a_file_that_was_cut_behind_what_counts_is_damage() {
    let chain = Chain::new(0).events(3).roll().events(3).close();
    let mut log = Log::of(&[&chain]);
    log.edit(0, 1, |lines| drop(lines.pop()));
    let report = log.verify();
    assert_eq!((report.verdict(), report.count(Deleted)), (Damaged, 2), "{report}");
}

#[test]
fn a_pruned_chain_begins_behind_what_was_removed() {
    let chain = Chain::new(0).events(3).roll().events(3);
    let through = chain.seq;
    let chain = chain.roll().events(2).prune(through, (1, 2)).event("x").close();
    let whole = Log::of(&[&chain]);
    let report = whole.verify();
    check(&report, Intact, &[]);
    assert!(has_note(&report, NoteKind::Leftover));
    assert_eq!(report.records(), chain.seq - through);
    for gone in [&[1][..], &[2], &[1, 2]] {
        let mut log = whole.clone();
        for segment in gone {
            log.files.remove(&name(0, *segment));
        }
        let report = log.verify();
        check(&report, Intact, &[]);
        assert!(report.not_checked().iter().any(|what| what.message().contains("removed by retention")));
    }
    // Damage in a leftover is not damage to the log.
    let mut log = whole.clone();
    log.edit(0, 1, |lines| lines[2][20] ^= 1);
    check(&log.verify(), Intact, &[]);
    let mut log = whole.clone();
    log.files.remove(&name(0, 2));
    log.file(0, 1).extend_from_slice(b"bytes that segment 2 declared void");
    check(&log.verify(), Intact, &[]);
    // More records are missing than were pruned.
    let mut log = whole.clone();
    log.files.remove(&name(0, 1));
    log.files.remove(&name(0, 2));
    log.edit(0, 3, |lines| drop(lines.remove(0)));
    check(&log.verify(), Damaged, &[Deleted, RenamedSegment]);
}

#[test]
fn a_prune_that_names_another_hash_does_not_fit() {
    let mut chain = Chain::new(0).events(3);
    let through = chain.seq;
    chain.hashes.insert(through, crate::chain::Digest::of_bytes(b"other"));
    let chain = chain.roll().events(2).prune(through, (1, 1)).close();
    let mut log = Log::of(&[&chain]);
    check(&log.verify(), Damaged, &[BrokenLink]);
    log.files.remove(&name(0, 1));
    check(&log.verify(), Damaged, &[BrokenLink]);
}

/// Returns a log that was pruned, in which a durable record was altered and another file made unreadable. A segment
/// was added that claims a cut of its own, lower than the real one.
fn with_a_forged_cut() -> Log {
    let chain = Chain::new(0).events(3);
    let through = chain.seq;
    let chain = chain.roll().prune(through, (1, 1)).events(4).roll().event("x");
    let mut log = Log::of(&[&chain]);
    log.files.remove(&name(0, 1));
    log.edit(0, 2, |lines| lines[3][30] ^= 1);
    *log.file(0, 3) = b"nothing\n".to_vec();
    let mut forged = Chain::bare(0);
    forged.id = crate::format::ChainId(7);
    (forged.segment, forged.seq) = (3, 3);
    let cut = (3, crate::chain::Digest::of_bytes(b"other"));
    let forged = forged.segment_pruned(Vec::new(), Some(cut)).open().event("y").close();
    log.files.insert(name(0, 4), forged.segments[&4].clone());
    log
}

/// Everything before such a segment was once taken for leftovers of retention, and not judged.
#[test]
fn a_cut_claimed_later_does_not_hide_durable_records() {
    let report = with_a_forged_cut().verify();
    assert_eq!(report.verdict(), Damaged, "{report}");
    assert!(!has_note(&report, NoteKind::Leftover), "{report}");
}

/// And the writer once removed it, without recording that.
#[test]
fn a_cut_claimed_later_removes_nothing() {
    use crate::{
        Retention,
        harness::world::{SECOND, Settings, World},
        storage::sim::SimDisk,
    };
    let log = with_a_forged_cut();
    let mut world = World::on(SimDisk::with_files(1, &log.files));
    let settings = Settings::default().retention(Retention::keep_all().max_segments(100));
    let mut node = world.opened(&settings);
    node.run_for(&mut world, SECOND);
    node.queue.ask_rotation();
    node.run_for(&mut world, SECOND);
    node.close(&mut world);
    let now = world.disk.snapshot();
    for (name, bytes) in &log.files {
        assert!(now.get(name).is_some_and(|now| now.starts_with(bytes)), "{name} was removed or changed");
    }
}

/// A chain begins anew, with another id, if the first line of its first file was never durable. Seed 203,494:
/// retention had removed that file and every line that mentioned it, and a power cut brought back the file alone.
/// Verification then took the chain for one to which another file belonged.
#[test]
fn a_leftover_that_never_counted_is_ignored() {
    let mut in_vain = Chain::bare(0);
    in_vain.id = crate::format::ChainId(7);
    let in_vain = in_vain.segment(Vec::new()).open().events(1);
    let mut chain = Chain::bare(0);
    chain.segment = 1;
    let chain = chain.segment(vec![after(1, 0)]).open().events(1);
    let through = chain.seq;
    let chain = chain.roll().prune(through, (1, 2)).close();
    let mut log = Log::of(&[&chain]);
    log.files.remove(&name(0, 2));
    check(&log.verify(), Intact, &[]);
    let records = log.verify().records();
    log.files.insert(name(0, 1), in_vain.segments[&1].clone());
    let report = log.verify();
    check(&report, Intact, &[]);
    assert_eq!((report.records(), has_note(&report, NoteKind::Leftover)), (records, true));
    // It may also end with the very record that retention removed last.
    assert_eq!(in_vain.seq, through);
}

#[test]
fn events_that_the_chain_counts_as_lost_are_a_note() {
    let report = Log::of(&[&Chain::new(0).gap(2, 17).close().open().close()]).verify();
    check(&report, Intact, &[]);
    assert!(has_note(&report, NoteKind::Gap));
    let text = report.to_string();
    assert!(text.contains("2 critical and 17 routine events"), "{text}");
}

#[test]
fn foreign_files_are_a_note() {
    let mut log = Log::of(&[&closed()]);
    log.files.insert("notes\u{1b}[31m.txt".into(), Vec::new());
    log.files.insert("control".into(), Vec::new());
    log.files.insert("hold".into(), Vec::new());
    log.files.insert("forward-required".into(), Vec::new());
    let report = log.verify();
    check(&report, Intact, &[]);
    assert_eq!(report.notes().len(), 1);
    assert!(!report.to_string().contains('\u{1b}'));
}

#[test]
fn a_later_format_is_not_judged() {
    let chain = Chain::new(0).events(3).roll();
    let mut log = Log::of(&[&chain]);
    let line = String::from_utf8(log.file(0, 2).clone()).unwrap();
    let payload = line.split_once(",\"durable\"").unwrap().0.split_once(",\"ts\"").unwrap().1;
    let payload = format!(",\"ts\"{payload}").replace("\"format\":1", "\"format\":2");
    let mut new = Chain::new(0).events(3);
    new.segment = 2;
    let new = new.put(payload.as_bytes(), Some(5));
    log.files = new.files().collect();
    check(&log.verify(), Unclean, &[UnsupportedFormat]);
}

#[test]
fn only_what_comes_after_a_trusted_head_is_checked() {
    let chain = Chain::new(0).events(3).roll().events(3).roll().events(3).close();
    let mut log = Log::of(&[&chain]);
    // Segment 1 is not even read.
    log.file(0, 1).clear();
    for seq in 6..=chain.seq {
        let report = log.verifier().start_after(chain.head_at(seq)).run_on(&log).unwrap();
        check(&report, Intact, &[]);
        let mut wrong = chain.head_at(seq);
        wrong.hash = crate::chain::Digest::of_bytes(b"x");
        let report = log.verifier().start_after(wrong).run_on(&log).unwrap();
        assert_eq!(report.verdict(), Damaged, "{report}");
    }
    log.edit(0, 3, |lines| lines[2][20] ^= 1);
    let report = log.verifier().start_after(chain.head_at(7)).run_on(&log).unwrap();
    check(&report, Damaged, &[Edited]);
    log.edit(0, 3, |lines| lines.truncate(2));
    let report = log.verifier().start_after(chain.head()).run_on(&log).unwrap();
    assert_eq!(report.verdict(), Damaged, "{report}");
}

#[test]
fn progress_ends_at_the_end() {
    let chain = closed();
    let log = Log::of(&[&chain]);
    let last = std::sync::Arc::new(std::sync::Mutex::new((0, 0)));
    let seen = std::sync::Arc::clone(&last);
    let verifier = log.verifier().progress(move |done, total| *seen.lock().unwrap() = (done, total));
    check(&verifier.run_on(&log).unwrap(), Intact, &[]);
    let bytes = chain.segments[&1].len() as u64;
    assert_eq!(*last.lock().unwrap(), (bytes, bytes));
}
