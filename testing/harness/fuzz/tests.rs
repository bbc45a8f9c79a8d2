//! The stored corpus, and random changes of it, on every toolchain.
//!
//! Inputs found by the fuzzer of `fuzz/` are in the corpus, each with a name that describes it.

use std::{collections::BTreeMap, fs, path::Path, time::Duration};

use crate::{
    Verifier,
    harness::times,
    storage::sim::{Prng, SimDisk},
};

/// The directory that `fuzz/corpus` points to. A published package does not include `fuzz`, which
/// is a package of its own.
const CORPUS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/testing/harness/fuzz/corpus");

/// The number of changes tried for each file of the corpus. `AUDIT_FUZZ=<number>` tries more.
const CHANGES: u64 = 50;

/// Passes each file of a target's corpus to it, and then random changes of that file.
fn replay(target: &str, check: fn(&[u8])) {
    let dir = Path::new(CORPUS).join(target);
    let changes = times("AUDIT_FUZZ", CHANGES);
    let mut files: Vec<_> = fs::read_dir(&dir).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    assert!(!files.is_empty(), "{} is empty", dir.display());
    for (number, file) in files.iter().enumerate() {
        let bytes = fs::read(file).unwrap();
        let mut prng = Prng::for_purpose(number as u64, 13);
        check(&bytes);
        for attempt in 0..changes {
            let mutated = mutate(&bytes, &mut prng);
            let outcome = std::panic::catch_unwind(|| check(&mutated));
            assert!(outcome.is_ok(), "change {attempt} of {}: {}", file.display(), mutated.escape_ascii());
        }
    }
}

/// Makes a few edits, as a fuzzer does.
fn mutate(bytes: &[u8], prng: &mut Prng) -> Vec<u8> {
    const PIECES: [&[u8]; 8] = [b"\n", b"\"", b"\\", b"{", b"}", b",", b"\0", b"9"];
    let mut bytes = bytes.to_vec();
    for _ in 0..=prng.below(4) {
        let at = prng.below(bytes.len() + 1);
        let end = (at + prng.below(40)).min(bytes.len());
        match prng.below(6) {
            0 => drop(bytes.drain(at..end)),
            1 => {
                let copy = bytes[at..end].to_vec();
                let to = prng.below(bytes.len() + 1);
                bytes.splice(to..to, copy);
            }
            2 => drop(bytes.splice(at..at, PIECES[prng.below(PIECES.len())].iter().copied())),
            3 => bytes.truncate(at),
            _ => {
                if let Some(byte) = bytes.get_mut(at) {
                    *byte ^= 1 << prng.below(8);
                }
            }
        }
    }
    bytes
}

#[test]
fn any_bytes_are_a_line_or_none() {
    replay("line", super::line);
}

#[test]
fn any_files_are_verified_and_read() {
    replay("segment", super::segment);
}

#[test]
fn any_directory_is_opened_without_losing_what_was_durable() {
    replay("recovery", super::recovery);
}

#[test]
fn any_event_is_one_line() {
    replay("event", super::event);
}

/// Returns how long this thread has run on a processor. Other load on the machine adds nothing to
/// it.
fn time_used() -> Duration {
    let text = fs::read_to_string("/proc/thread-self/schedstat").expect("the kernel keeps no times");
    Duration::from_nanos(text.split(' ').next().and_then(|nanos| nanos.parse().ok()).expect("no time"))
}

fn time_to_verify(bytes: &[u8]) -> Duration {
    let files = BTreeMap::from([("audit-000-00000001.jsonl".to_owned(), bytes.to_vec())]);
    let disk = SimDisk::with_files(7, &files);
    let storage = disk.process().storage();
    // Five runs together, because the kernel counts in ticks of some milliseconds.
    let begun = time_used();
    for _ in 0..5 {
        let report = Verifier::new("/log").threads(1).run_on(&*storage).expect("it is a log");
        assert!(report.findings().len() <= 1000, "findings are capped");
    }
    time_used().saturating_sub(begun)
}

#[test]
fn verifying_takes_time_in_proportion_to_the_log() {
    let image = fs::read(Path::new(CORPUS).join("segment/closed")).unwrap();
    let good = super::image::files(&image).remove("audit-000-00000001.jsonl").unwrap();
    let escaped = (0..2000).map(|n| format!(",\"\\u0061{n}\":1")).collect::<Vec<_>>().concat();
    let mut members = Vec::new();
    crate::format::seal(&mut members, 1, escaped.as_bytes(), None, &crate::Digest::ZERO);
    let deep = "[".repeat(50_000) + "\n";
    let kinds: [(&str, &[u8]); 6] = [
        ("the same lines again and again", &good),
        ("lines with many names", &members),
        ("line ends", b"\n"),
        ("a line without end", b"x"),
        ("deep lines", deep.as_bytes()),
        ("half lines", b"{\"seq\":1,\n"),
    ];
    for (kind, unit) in kinds {
        let (half, whole) = (unit.repeat((2 << 20) / unit.len()), unit.repeat((4 << 20) / unit.len()));
        // Linear time would be a factor of about 2.2, and the rest is for shared caches. Quadratic
        // time would be 4. If the processor was slower for the second half of one attempt, another
        // attempt can still succeed.
        let mut seen = Vec::new();
        let holds = (0..3).any(|_| {
            let (half, whole) = (time_to_verify(&half), time_to_verify(&whole));
            seen.push((half, whole));
            whole <= half.mul_f64(3.0) + Duration::from_millis(10)
        });
        assert!(holds, "{kind}: for 2 MiB and for 4 MiB: {seen:?}");
    }
}
