use super::log::{Chain, Log};
use crate::Verdict;

fn three_segments() -> Chain {
    Chain::new(0).events(3).roll().events(4).gap(0, 1).roll().events(3).close()
}

/// Every line of the log, in the form of a change to it.
fn for_every_line(log: &Log, mut change: impl FnMut(&mut Log, u32, usize)) {
    for segment in 1..=3 {
        let mut lines = 0;
        log.clone().edit(0, segment, |all| lines = all.len());
        for line in 0..lines {
            change(&mut log.clone(), segment, line);
        }
    }
}

#[track_caller]
fn damaged(log: &Log, what: &str) {
    let report = log.verify();
    assert_eq!(report.verdict(), Verdict::Damaged, "{what}\n{report}");
}

#[test]
fn no_line_can_be_deleted() {
    let chain = three_segments();
    for_every_line(&Log::of(&[&chain]), |log, segment, line| {
        log.edit(0, segment, |lines| drop(lines.remove(line)));
        let report = log.verify();
        let is_last = segment == 3 && line == 4;
        let expected = if is_last { Verdict::Unclean } else { Verdict::Damaged };
        assert_eq!(report.verdict(), expected, "{segment}/{line}\n{report}");
        let report = log.verifier().expect_head(chain.head()).run_on(log).unwrap();
        assert_eq!(report.verdict(), Verdict::Damaged, "{segment}/{line}\n{report}");
    });
}

#[test]
fn no_line_can_be_doubled_edited_or_moved() {
    let log = Log::of(&[&three_segments()]);
    for_every_line(&log, |log, segment, line| {
        let is_last = segment == 3 && line == 4;
        let mut doubled = log.clone();
        doubled.edit(0, segment, |lines| lines.insert(line, lines[line].clone()));
        let is_last_of_file = matches!((segment, line), (1, 4) | (2, 5));
        if is_last {
            assert_eq!(doubled.verify().verdict(), Verdict::Unclean);
        } else if is_last_of_file {
            // It stands behind what counts of its file.
            assert!(doubled.verify().notes().iter().any(|note| note.kind() == crate::NoteKind::Void));
        } else {
            damaged(&doubled, &format!("doubled {segment}/{line}"));
        }
        let mut swapped = log.clone();
        let mut is_swapped = false;
        swapped.edit(0, segment, |lines| {
            is_swapped = line + 1 < lines.len();
            if is_swapped {
                lines.swap(line, line + 1);
            }
        });
        if is_swapped {
            damaged(&swapped, &format!("swapped {segment}/{line}"));
        }
        log.edit(0, segment, |lines| {
            let at = lines[line].len() / 3;
            lines[line][at] ^= 1;
        });
        if is_last {
            assert_eq!(log.verify().verdict(), Verdict::Unclean);
        } else {
            damaged(log, &format!("edited {segment}/{line}"));
        }
    });
}

/// The end of a chain may look torn; below its last mark nothing may.
#[test]
fn every_flipped_bit_is_found() {
    let chain = Chain::new(0).events(2).roll().event("x").event_marked("y", None).close();
    let clean = Log::of(&[&chain]);
    for segment in [1, 2] {
        let bytes = chain.segments[&segment].clone();
        let close = bytes[..bytes.len() - 1].iter().rposition(|byte| *byte == b'\n').unwrap() + 1;
        for at in 0..bytes.len() {
            for bit in 0..8 {
                let mut log = clean.clone();
                log.file(0, segment)[at] ^= 1 << bit;
                let report = log.verify();
                let is_close = segment == 2 && at >= close;
                let is_before_close = segment == 2 && at + 1 == close;
                match report.verdict() {
                    Verdict::Damaged => {}
                    Verdict::Unclean if is_close || is_before_close => {}
                    _ => panic!("bit {bit} of byte {at} of segment {segment}\n{report}"),
                }
                assert!(is_close || is_before_close || report.verdict() == Verdict::Damaged);
            }
        }
    }
}

#[test]
fn every_cut_is_unclean_or_damaged() {
    let chain = three_segments();
    let clean = Log::of(&[&chain]);
    for segment in 1..=3 {
        for length in 0..chain.segments[&segment].len() {
            let mut log = clean.clone();
            log.file(0, segment).truncate(length);
            let verdict = log.verify().verdict();
            let expected = if segment == 3 { Verdict::Unclean } else { Verdict::Damaged };
            assert_eq!(verdict, expected, "{segment}/{length}");
        }
    }
}

#[test]
fn threads_and_pieces_change_nothing() {
    let mut chain = Chain::new(0);
    let filler = "x".repeat(40_000);
    for number in 0..300 {
        chain = chain.event(&format!("{number}{filler}"));
        if number % 77 == 76 {
            chain = chain.roll();
        }
    }
    let chain = chain.close();
    let log = Log::of(&[&chain]);
    let mut bad = log.clone();
    bad.edit(0, 2, |lines| {
        lines[40][20_000] ^= 1;
        lines.swap(60, 61);
    });
    let expected = (log.verify().to_string(), bad.verify().to_string());
    assert!(expected.0.starts_with("INTACT") && expected.1.starts_with("DAMAGED"));
    for threads in [2, 5] {
        let report = |log: &Log| log.verifier().threads(threads).run_on(log).unwrap().to_string();
        assert_eq!((report(&log), report(&bad)), expected);
    }
    for seq in [1, 2, 77, 150, 250, chain.seq] {
        let report = log.verifier().expect_head(chain.head_at(seq)).run_on(&log).unwrap();
        assert!(report.is_intact(), "{seq}\n{report}");
    }
}

#[test]
fn hostile_bytes_are_only_findings() {
    let clean = Log::of(&[&three_segments()]);
    let deep = format!("{{\"seq\":{}\n", "[".repeat(100_000));
    let hostile: [Vec<u8>; 7] = [
        vec![b'x'; 5_000_000],
        vec![b'\n'; 1_000_000],
        vec![0; 3_000_000],
        deep.into_bytes(),
        vec![0xFF; 70_000],
        [vec![b'a'; 2_000_000], vec![b'\n'], vec![b'b'; 2_000_000], vec![b'\n']].concat(),
        Chain { seq: u64::MAX - 3, ..Chain::new(0) }.event("a").event("b").segments[&1].clone(),
    ];
    for (number, bytes) in hostile.iter().enumerate() {
        let mut log = clean.clone();
        log.file(0, 3).extend_from_slice(bytes);
        assert_ne!(log.verify().verdict(), Verdict::Intact, "{number}");
        let mut log = clean.clone();
        log.file(0, 2).splice(0..0, bytes.iter().copied());
        damaged(&log, &format!("{number}"));
        let mut log = clean.clone();
        *log.file(0, 1) = bytes.clone();
        damaged(&log, &format!("{number}"));
    }
}
