//! Wrong lines at the beginning of a file.

use super::{
    check,
    exact::{FIRST_PIECE, NOT_CLOSED, at, finds, other},
    log::{Chain, Log, name},
};
use crate::{
    FindingKind::{BrokenLink, Malformed, NotClosed, TornTail, UnsupportedFormat},
    Verdict::{Damaged, Unclean},
    format::ChainId,
};

#[test]
fn a_file_must_begin_with_its_own_segment_line() {
    let chain = Chain { segment: 2, ..Chain::new(0).events(3) }.events(2).close();
    let log = Log::of(&[&chain]);
    let line = at(&log, 2, 1);
    let problem = "the file does not begin with a `segment` line";
    finds(&log.verify(), &[format!("renamed_segment: {line}, record 6: {problem}")]);
    let chain = Chain { id: ChainId(1), ..Chain::new(0).events(3) }.roll().close();
    let problem = "the segment belongs to a chain with another id";
    finds(&Log::of(&[&chain]).verify(), &[format!("renamed_segment: {line}, record 6: {problem}")]);
    let mut log = Log::of(&[&Chain::new(0).events(3).roll().close()]);
    let file = log.files.remove(&name(0, 2)).unwrap();
    log.files.insert(name(0, 3), file);
    let (line, problem) = (at(&log, 3, 1), "the line belongs to segment 2 of chain 000");
    finds(&log.verify(), &[format!("renamed_segment: {line}, record 6: {problem}")]);
}

/// Before a good `segment` line follows, a bad end that was never durable is not certain.
#[test]
fn a_file_without_its_segment_line_makes_nothing_certain() {
    let mut chain = Chain::new(0).events(2);
    chain.segments.get_mut(&1).unwrap().extend_from_slice(b"x\n");
    let chain = Chain { segment: 2, ..chain }.event_marked("x", None);
    let report = Log::of(&[&chain]).verify();
    check(&report, Unclean, &[TornTail, NotClosed]);
    assert_eq!(report.records(), 4);
}

/// A first line that does not name its file may be stale content of a torn sector, so its link says nothing about the
/// record before it. Recovery once took it for torn, and verification for damage, until the file was void.
#[test]
fn a_first_line_that_does_not_name_its_file_is_judged_by_its_own_position() {
    let chain = Chain::new(0).events(2);
    let stale = Chain { segment: 2, hash: other(), ..chain.clone() }.event_marked("x", None);
    let torn = "the end of the chain from here on was never durable and is torn";
    for (later, verdict) in [(stale.clone().event("y"), Damaged), (stale.event_marked("y", Some(4)), Unclean)]
    {
        let log = Log::of(&[&later]);
        let report = log.verify();
        assert_eq!(report.verdict(), verdict, "{report}");
        assert_eq!(report.count(BrokenLink), 0, "{report}");
        if verdict == Unclean {
            let torn = format!("torn_tail: {}, record 5: {torn} (2 good lines in it)", at(&log, 2, 1));
            finds(&report, &[torn, format!("not_closed: chain 000, record 4: {NOT_CLOSED}")]);
        }
    }
}

/// A bad first line takes the position before the first good line of its file, whether or not the chain had already
/// reached that position. Recovery, which reads a single file, judges it the same.
#[test]
fn a_bad_first_line_takes_the_position_before_the_first_good_one() {
    let put_before = |mark: u64| {
        let chain = Chain { segment: 2, ..Chain::new(0).events(2) };
        let chain = chain.event_marked("x", Some(mark));
        let mut log = Log::of(&[&chain]);
        log.edit(0, 2, |lines| lines.insert(0, b"x\n".to_vec()));
        log.verify()
    };
    check(&put_before(3), Unclean, &[TornTail, NotClosed]);
    check(&put_before(4), Damaged, &[Malformed, NotClosed]);
    // One in another file keeps its own position.
    let chain = Chain { segment: 3, ..Chain::new(0).events(2) }.event_marked("x", Some(4));
    let mut log = Log::of(&[&chain]);
    log.files.insert(name(0, 2), b"x\n".to_vec());
    assert_eq!(log.verify().verdict(), Unclean, "{}", log.verify());
    // The same if it was altered, or is a copy of another line.
    for (copied, altered) in [(5, true), (2, false)] {
        let chain = Chain { segment: 2, ..Chain::new(0).events(2) };
        let mut log = Log::of(&[&chain.event_marked("x", Some(4)).event_marked("y", None)]);
        let mut copy = Vec::new();
        log.edit(0, if copied < 5 { 1 } else { 2 }, |lines| copy.clone_from(&lines[(copied - 1) % 4]));
        if altered {
            let action = copy.windows(3).position(|bytes| bytes == b"\"x\"").unwrap();
            copy[action + 1] = b'z';
        }
        log.edit(0, 2, |lines| lines.insert(0, copy));
        assert_eq!(log.verify().verdict(), Damaged, "{}", log.verify());
    }
    // The same if the good lines behind it are taken in as a chunk.
    let chain = Chain { segment: 2, ..Chain::new(0).events(2) };
    let chain = chain.event_marked("x", Some(4)).event_marked("y", None);
    let mut log = Log::of(&[&chain]);
    let mut piece = vec![b'x'; FIRST_PIECE];
    piece[FIRST_PIECE - 1] = b'\n';
    log.edit(0, 2, |lines| lines.insert(0, piece));
    check(&log.verify(), Damaged, &[Malformed, NotClosed]);
}

/// A segment begins where the chain before it ends, and names what is void. So a `segment` line with a lower number was
/// changed, however high it is: recovery would continue behind it.
#[test]
fn a_segment_line_with_too_low_a_number_is_certain_damage() {
    let chain = Chain::new(0).events(2);
    let chain = chain.event_marked("x", None);
    let chain = Chain { seq: 4, hash: chain.hashes[&4], ..chain }.segment(Vec::new());
    let log = Log::of(&[&chain]);
    let inserted = format!("inserted: {}, record 5: the line is in the wrong place", at(&log, 2, 1));
    finds(&log.verify(), &[inserted, format!("not_closed: chain 000, record 5: {NOT_CLOSED}")]);
}

/// A `segment` line of a later format must begin a file, or it is bad. Reading treats it the same.
#[test]
fn a_line_of_a_later_format_inside_a_file_is_bad() {
    let later = |chain: Chain| {
        chain.put(b",\"kind\":\"segment\",\"segment\":{\"format\":2}", None).event_marked("x", Some(4))
    };
    let inside = Log::of(&[&later(Chain::new(0).events(2)).events(1)]);
    check(&inside.verify(), Damaged, &[Malformed, NotClosed]);
    let in_front = Log::of(&[&later(Chain { segment: 2, ..Chain::new(0).events(2) }).events(1)]);
    check(&in_front.verify(), Unclean, &[UnsupportedFormat]);
    for (log, bad) in [(inside, 1), (in_front, 0)] {
        let read: Vec<_> = crate::Reader::new("/log").records_of(std::sync::Arc::new(log)).unwrap().collect();
        assert_eq!((read.len(), read.iter().filter(|record| record.is_err()).count()), (7, bad));
    }
}
