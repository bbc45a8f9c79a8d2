//! Readers that begin at a position, or read backward, in a log with copies of lines in the wrong place.

use std::sync::Arc;

use super::super::{ReadItem, Reader};
use crate::verify::tests::log::{Chain, Log};

/// Returns the sequence numbers of the records, and the number of errors for bad lines.
fn read(log: &Log, reader: impl FnOnce(Reader) -> Reader) -> (Vec<u64>, usize) {
    let items = reader(Reader::new("/log")).items_of(Arc::new(log.clone())).unwrap();
    let (mut seqs, mut bad) = (Vec::new(), 0);
    for item in items {
        match item {
            Ok(ReadItem::Record(record)) => seqs.push(record.seq()),
            Ok(ReadItem::Gap { first_seq, last_seq, .. }) => panic!("gap {first_seq}-{last_seq}"),
            Ok(other) => panic!("{other:?}"),
            Err(_) => bad += 1,
        }
    }
    (seqs, bad)
}

/// Returns a log of so many events in which the lines `copied` occur again behind each of the lines `behind`.
fn with_copies(events: u64, copied: std::ops::Range<usize>, behind: &[usize]) -> Log {
    let mut log = Log::of(&[&Chain::new(0).events(events).mark()]);
    log.edit(0, 1, |lines| {
        let copy = lines[copied].to_vec();
        for at in behind.iter().rev() {
            drop(lines.splice(at..at, copy.iter().cloned()));
        }
    });
    log
}

#[test]
fn reading_backward_skips_copies_of_lines_elsewhere() {
    for (copied, behind) in
        [(1..2, &[398][..]), (1..60, &[398]), (5..6, &[350, 352, 398]), (20..40, &[300, 301])]
    {
        let copies = copied.len() * behind.len();
        let log = with_copies(400, copied.clone(), behind);
        let (all, bad) = read(&log, |reader| reader);
        assert_eq!((all.len(), bad), (403, copies), "{copied:?} {behind:?}");
        let (mut backward, bad) = read(&log, |reader| reader.reverse(true));
        backward.reverse();
        assert_eq!((&backward, bad), (&all, copies), "{copied:?} {behind:?}");
        for last in [1, 2, 10, 60, 200] {
            let expected = &all[all.len() - last..];
            assert_eq!(read(&log, |reader| reader.last(last as u64)).0, expected, "{copied:?} {last}");
        }
    }
}

/// Where reading backward cannot decide, the last records are among those that are returned.
#[test]
fn the_last_records_are_returned_however_many_lines_were_inserted_before_them() {
    let copied = 1..6_000;
    let log = with_copies(7_000, copied.clone(), &[6_990]);
    let (all, bad) = read(&log, |reader| reader);
    assert_eq!(bad, copied.len());
    let (last, _) = read(&log, |reader| reader.last(40));
    assert!(all.ends_with(&last) && last.len() >= 40, "{}", last.len());
}

#[test]
fn a_position_is_not_found_in_a_copy_of_a_line() {
    let mut chain = Chain::new(0);
    for _ in 0..200 {
        chain = chain.event(&"x".repeat(2_000));
    }
    let (chain, copies) = (chain.mark(), (2..200).collect::<Vec<_>>());
    for (copied, is_found) in [(1..2, true), (1..4, false)] {
        let mut log = Log::of(&[&chain]);
        log.edit(0, 1, |lines| {
            let copy = lines[copied].to_vec();
            for at in copies.iter().rev() {
                drop(lines.splice(at..at, copy.iter().cloned()));
            }
        });
        let items = Reader::new("/log").from_seq(50).items_of(Arc::new(log)).unwrap();
        let mut next = 50;
        let mut is_complete = true;
        for item in items.filter_map(Result::ok) {
            match item {
                ReadItem::Record(record) => {
                    assert_eq!(record.seq(), next);
                    next += 1;
                }
                // What is skipped is reported.
                ReadItem::Gap { first_seq, last_seq, .. } => {
                    assert_eq!(first_seq, next);
                    (next, is_complete) = (last_seq + 1, false);
                }
                other @ ReadItem::Withdrawn { .. } => panic!("{other:?}"),
            }
        }
        assert_eq!((next, is_complete || !is_found), (chain.seq + 1, true));
    }
}
