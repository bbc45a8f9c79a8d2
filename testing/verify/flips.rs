//! Flips every single bit of a log that the real writer made.

use std::{
    collections::BTreeMap,
    sync::atomic::{AtomicU64, Ordering},
    thread,
};

use super::{honest, log::Log};
use crate::{Verdict, Verifier, harness::times};

/// Reads a file without any code of the library: the offset of each line, its sequence number and its `durable`
/// mark.
fn lines_of(bytes: &[u8]) -> Vec<(usize, u64, u64)> {
    let mut at = 0;
    let mut lines = Vec::new();
    for line in bytes.split_inclusive(|byte| *byte == b'\n') {
        let json: serde_json::Value = serde_json::from_slice(line).unwrap();
        lines.push((at, json["seq"].as_u64().unwrap(), json["durable"].as_u64().unwrap_or(0)));
        at += line.len();
    }
    lines
}

/// A flipped bit: the file, the byte, and the expected result.
struct Flip {
    name: String,
    at: usize,
    is_durable: bool,
}

/// Returns all bytes of a log. A byte is durable if its record is covered by a mark that survives its change. A
/// flipped bit breaks the line that holds it, and a flipped line feed the next line too.
fn bytes_of(log: &Log) -> Vec<Flip> {
    let files: BTreeMap<&String, _> = log.files.iter().map(|(name, bytes)| (name, lines_of(bytes))).collect();
    let last = files.keys().next_back().copied().unwrap();
    let mut all = Vec::new();
    for (name, lines) in &files {
        let bytes = &log.files[*name];
        for (number, (start, seq, _)) in lines.iter().enumerate() {
            let end = lines.get(number + 1).map_or(bytes.len(), |next| next.0);
            for at in *start..end {
                let broken = if at + 1 == end { *seq..=seq + 1 } else { *seq..=*seq };
                let others = files.values().flatten().filter(|line| !broken.contains(&line.1));
                let mark = others.map(|line| line.2).max().unwrap();
                // If a later segment does not void it, it is damage whatever the marks state.
                all.push(Flip { name: (*name).clone(), at, is_durable: *seq <= mark || *name != last });
            }
        }
    }
    all
}

/// No flipped bit at or below the last durable mark goes without damage being found, and none above it without
/// being noticed.
#[test]
fn every_flipped_bit_of_a_real_log_is_found() {
    let log = honest::three_segments();
    assert_eq!((log.files.len(), log.verify().records()), (3, 64), "{}", log.verify());
    assert!(log.verify().is_intact());
    let bytes = bytes_of(&log);
    assert!(bytes.len() > 64 * 250 && bytes.iter().filter(|byte| !byte.is_durable).count() < 2 * 400);
    // One bit of each byte, or with `AUDIT_FLIPS=8` every bit.
    let all = times("AUDIT_FLIPS", 1) == 8;
    let (next, found) = (AtomicU64::new(0), AtomicU64::new(0));
    let check = || {
        let mut log = log.clone();
        while let Some(flip) = bytes.get(usize::try_from(next.fetch_add(1, Ordering::Relaxed)).unwrap()) {
            for bit in (0..8).filter(|bit| all || *bit == flip.at % 8) {
                log.files.get_mut(&flip.name).unwrap()[flip.at] ^= 1 << bit;
                let expected = if flip.is_durable { Verdict::Damaged } else { Verdict::Unclean };
                let (at, name) = (flip.at, &flip.name);
                let report = Verifier::new("/log").threads(1).run_on(&log).unwrap();
                assert_eq!(report.verdict(), expected, "bit {bit} of byte {at} of {name}\n{report}");
                found.fetch_add(1, Ordering::Relaxed);
                log.files.get_mut(&flip.name).unwrap()[flip.at] ^= 1 << bit;
            }
        }
    };
    thread::scope(|scope| {
        for _ in 0..thread::available_parallelism().unwrap().get() {
            scope.spawn(check);
        }
    });
    assert_eq!(found.into_inner(), if all { 8 } else { 1 } * bytes.len() as u64);
}
