//! Every cut, chunks and threads, and bytes that are not a log at all. Random edits are in `tampering`,
//! flipped bits in `flips`.

use super::log::{Chain, Log};
use crate::Verdict;

fn three_segments() -> Chain {
    Chain::new(0).events(3).roll().events(4).gap(0, 1).roll().events(3).close()
}

#[track_caller]
fn damaged(log: &Log, what: &str) {
    let report = log.verify();
    assert_eq!(report.verdict(), Verdict::Damaged, "{what}\n{report}");
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
fn threads_and_chunks_change_nothing() {
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
