//! Each kind of tampering gives its finding, and honest logs give none.

use std::{
    fs,
    path::{Path, PathBuf},
};

use tempfile::TempDir;
use tracing_audit::{AuditLog, FindingKind, Head, Verdict, Verifier, verify};

use crate::support::{fresh, independent_verdict, lines_of, segments, with_layer};

/// Creates a closed log of three segments with ten events each.
fn sample() -> (TempDir, PathBuf, Head) {
    let (dir, path) = fresh();
    let log = AuditLog::open(&path).unwrap();
    with_layer(&log, || {
        for number in 0..30 {
            tracing::info!(target: "audit", action = "a", actor = "b", number);
            if number % 10 == 9 && number < 29 {
                log.rotate().unwrap();
            }
        }
    });
    let head = log.close().unwrap();
    verify(&path).unwrap().ensure_intact().unwrap();
    assert_eq!(independent_verdict(&path), 0);
    (dir, path, head)
}

/// Changes the lines of the middle segment, and expects damage of this kind.
#[track_caller]
fn check(expected: FindingKind, change: impl FnOnce(&mut Vec<String>)) {
    let (_dir, path, _) = sample();
    let middle = &segments(&path)[1];
    let mut lines: Vec<String> =
        fs::read_to_string(middle).unwrap().split_inclusive('\n').map(str::to_owned).collect();
    change(&mut lines);
    fs::write(middle, lines.concat()).unwrap();
    expect_damage(&path, expected);
}

#[track_caller]
fn expect_damage(path: &Path, expected: FindingKind) {
    let report = verify(path).unwrap();
    assert_eq!(report.verdict(), Verdict::Damaged, "{report}");
    assert!(report.count(expected) > 0, "expected {expected}: {report}");
    assert!(report.ensure_intact().is_err());
    let finding = report.findings().iter().find(|finding| finding.kind() == expected).unwrap();
    assert!(!finding.message().is_empty());
    assert_eq!(independent_verdict(path), 1, "the independent checker disagrees");
}

#[test]
fn an_edited_line_is_found() {
    check(FindingKind::Edited, |lines| lines[4] = lines[4].replace("\"actor\":\"b\"", "\"actor\":\"c\""));
}

#[test]
fn a_deleted_line_is_found() {
    check(FindingKind::Deleted, |lines| drop(lines.remove(4)));
}

#[test]
fn an_inserted_line_is_found() {
    let (_dir, path, _) = sample();
    let segments = segments(&path);
    // A valid line of another log, where it does not belong.
    let (_other_dir, other, _) = sample();
    let foreign = fs::read_to_string(&crate::support::segments(&other)[0]).unwrap();
    let foreign = foreign.split_inclusive('\n').nth(5).unwrap();
    let text = fs::read_to_string(&segments[1]).unwrap();
    let at = text.find('\n').unwrap() + 1;
    fs::write(&segments[1], [&text[..at], foreign, &text[at..]].concat()).unwrap();
    expect_damage(&path, FindingKind::Inserted);
}

#[test]
fn a_duplicate_line_is_found() {
    check(FindingKind::Duplicate, |lines| {
        let line = lines[4].clone();
        lines.insert(5, line);
    });
}

#[test]
fn a_line_that_is_not_a_record_is_found() {
    check(FindingKind::Malformed, |lines| lines.insert(4, "{\"seq\":1}\n".to_owned()));
}

#[test]
fn swapped_lines_are_found() {
    check(FindingKind::Deleted, |lines| lines.swap(4, 5));
}

#[test]
fn a_missing_segment_is_found() {
    let (_dir, path, _) = sample();
    fs::remove_file(&segments(&path)[1]).unwrap();
    expect_damage(&path, FindingKind::MissingSegment);
}

#[test]
fn a_renamed_segment_is_found() {
    let (_dir, path, _) = sample();
    let segments = segments(&path);
    let aside = path.join("aside");
    fs::rename(&segments[0], &aside).unwrap();
    fs::rename(&segments[1], &segments[0]).unwrap();
    fs::rename(&aside, &segments[1]).unwrap();
    expect_damage(&path, FindingKind::RenamedSegment);
}

#[test]
fn a_cut_below_a_durable_mark_is_found() {
    let (_dir, path, _) = sample();
    let middle = &segments(&path)[1];
    let text = fs::read_to_string(middle).unwrap();
    fs::write(middle, &text[..text.len() / 2]).unwrap();
    let report = verify(&path).unwrap();
    assert_eq!(report.verdict(), Verdict::Damaged, "{report}");
    assert_eq!(independent_verdict(&path), 1);
}

#[test]
fn a_cut_between_lines_is_found_with_a_head_kept_elsewhere() {
    let (_dir, path, head) = sample();
    let last = segments(&path).pop().unwrap();
    let text = fs::read_to_string(&last).unwrap();
    // Removes the whole last segment, and with it the close of the run.
    fs::remove_file(&last).unwrap();
    // The lock file of the chain holds its durable head. But whoever cuts a log can remove that file, too.
    expect_damage(&path, FindingKind::Ahead);
    fs::remove_dir_all(path.join("control")).unwrap();
    let report = verify(&path).unwrap();
    assert_eq!(report.verdict(), Verdict::Unclean, "{report}");
    assert!(!report.not_checked().is_empty());
    let report = Verifier::new(&path).expect_head(head).run().unwrap();
    assert_eq!(report.verdict(), Verdict::Damaged, "{report}");
    assert_eq!(report.count(FindingKind::Ahead), 1, "{report}");
    // With the segment restored, the log is intact again.
    fs::write(&last, text).unwrap();
    Verifier::new(&path).expect_head(head).run().unwrap().ensure_intact().unwrap();
    // A head that never existed.
    let other: Head = format!("000/5:{}", "0".repeat(64)).parse().unwrap();
    let report = Verifier::new(&path).expect_head(other).run().unwrap();
    assert_eq!(report.count(FindingKind::HeadMismatch), 1, "{report}");
}

#[test]
fn a_torn_tail_is_unclean_and_declared_by_the_next_opener() {
    let (_dir, path, _) = sample();
    let last = segments(&path).pop().unwrap();
    let mut text = fs::read(&last).unwrap();
    text.extend_from_slice(br#"{"seq":99,"ts":"2026-"#);
    fs::write(&last, &text).unwrap();
    let report = verify(&path).unwrap();
    assert_eq!((report.verdict(), report.count(FindingKind::TornTail)), (Verdict::Unclean, 1), "{report}");
    let log = AuditLog::open(&path).unwrap();
    assert_eq!(log.recovery().chains[0].torn_bytes, 21);
    assert!(!log.recovery().chains[0].damaged);
    log.close().unwrap();
    let report = verify(&path).unwrap();
    report.ensure_intact().unwrap();
    assert!(report.notes().iter().any(|note| note.kind() == tracing_audit::NoteKind::Void), "{report}");
    assert_eq!(independent_verdict(&path), 0);
    // The torn bytes stay where they are.
    assert_eq!(fs::read(&last).unwrap(), text);
}

/// The state after a power cut in which the disk also lost one durable byte. Recovery must not use the opportunity to
/// declare it void.
#[test]
fn recovery_never_voids_durable_records() {
    for line in 1..9 {
        let (_dir, path) = fresh();
        let log = AuditLog::open(&path).unwrap();
        with_layer(&log, || {
            for number in 0..10 {
                log.confirm(|| tracing::info!(target: "audit", action = "a", actor = "b", number)).unwrap();
            }
        });
        // A copy without the close and without `control`, with a torn line and a flipped byte.
        let segment = &segments(&path)[0];
        let mut bytes = fs::read(segment).unwrap();
        log.close().unwrap();
        let start = bytes.split_inclusive(|byte| *byte == b'\n').take(line).map(<[u8]>::len).sum::<usize>();
        bytes[start + 60] ^= 1;
        bytes.extend_from_slice(b"{\"seq\":");
        fs::write(segment, &bytes).unwrap();
        fs::remove_dir_all(path.join("control")).unwrap();
        assert_eq!(verify(&path).unwrap().verdict(), Verdict::Damaged);

        let log = AuditLog::open(&path).unwrap();
        assert!(log.recovery().chains[0].damaged, "{:?}", log.recovery());
        with_layer(&log, || {
            log.confirm(|| tracing::info!(target: "audit", action = "after", actor = "b")).unwrap()
        });
        log.close().unwrap();
        let report = verify(&path).unwrap();
        assert_eq!(report.verdict(), Verdict::Damaged, "the damage stays visible for ever: {report}");
        assert_eq!(report.count(FindingKind::Voided), 0, "{report}");
        assert!(lines_of(&path, "recovery")[0].contains("\"cause\":\"damage\""));
        assert_eq!(fs::read(segment).unwrap()[..bytes.len()], bytes);
        assert!(tracing_audit::read(&path).unwrap().flatten().any(|record| record.action() == Some("after")));
    }
}

#[test]
fn a_log_that_is_being_written_raises_no_alarm() {
    let (_dir, path) = fresh();
    let log = AuditLog::builder(&path)
        .rotation(tracing_audit::Rotation::never().max_bytes(64 << 10))
        .retention(tracing_audit::Retention::keep_all().max_segments(4))
        // What is still queued at the end is written in small segments, even on a slow disk.
        .queue_bytes(1 << 20)
        .wait_bound(std::time::Duration::from_secs(60))
        .open()
        .unwrap();
    let stop = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            with_layer(&log, || {
                while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                    tracing::info!(target: "audit", action = "a", actor = "b");
                }
            });
        });
        let mut rounds = 0;
        while rounds < 20 || log.stats().segments <= 8 {
            rounds += 1;
            let report = verify(&path).unwrap();
            if report.verdict() != Verdict::Intact {
                stop.store(true, std::sync::atomic::Ordering::Relaxed);
                panic!("{report}");
            }
        }
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
    });
    log.close().unwrap();
    verify(&path).unwrap().ensure_intact().unwrap();
    assert_eq!(independent_verdict(&path), 0);
}

#[test]
fn a_line_can_be_checked_with_a_shell() {
    let (_dir, path, _) = sample();
    let segment = &segments(&path)[0];
    let script = format!(
        "sed -n 2p '{}' | {{ printf '\\0'; head -c -77; printf '}}'; }} | sha256sum",
        segment.display()
    );
    let output = std::process::Command::new("sh").args(["-c", &script]).output().unwrap();
    let hash = String::from_utf8(output.stdout).unwrap();
    let record = &crate::support::records(&path)[1];
    assert_eq!(hash.split_whitespace().next().unwrap(), record.hash().to_string());
}

#[test]
fn nothing_to_verify_is_an_error() {
    let (dir, path) = fresh();
    assert!(matches!(verify(&path), Err(tracing_audit::Error::NoLog { .. })));
    assert!(matches!(verify(dir.path()), Err(tracing_audit::Error::NoLog { .. })));
    assert!(matches!(tracing_audit::read(&path), Err(tracing_audit::Error::NoLog { .. })));
}
