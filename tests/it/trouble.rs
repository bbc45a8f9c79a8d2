//! When it goes wrong: full disks, removed files, unsafe directories.

use std::{
    fs::{self, OpenOptions},
    io::Write as _,
    os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink},
    time::{Duration, Instant},
};

use tracing_audit::{AuditLog, Error, FlushMode, Health, NoticeKind, OnFull, Verdict, verify};

use crate::support::{
    Mount, assert_all_present, child, events, fresh, independent_verdict, lines_of, open_and_hear, records,
    segments, skip, wait_for, with_layer,
};

/// The sum of what the gap records of a log tell.
fn told_by_gaps(path: &std::path::Path) -> u64 {
    records(path)
        .iter()
        .filter_map(|record| record.get("gap"))
        .map(|gap| {
            let count = |name| gap.get(name).and_then(tracing_audit::Value::as_i64).unwrap();
            u64::try_from(count("critical") + count("routine")).unwrap()
        })
        .sum()
}

#[test]
fn a_full_disk_loses_nothing_silently_and_heals_when_it_is_freed() {
    let Some(mount) = Mount::tmpfs("2m") else {
        return skip(
            "a_full_disk_loses_nothing_silently_and_heals_when_it_is_freed",
            "mounting is not allowed",
        );
    };
    let path = mount.path().join("log");
    let log = AuditLog::builder(&path)
        .wait_bound(Duration::from_millis(300))
        .queue_bytes(1 << 20)
        .on_full(OnFull::DropRoutine)
        .low_space(0)
        .open()
        .unwrap();
    let mut emitted = 0;
    let mut receipts = Vec::new();
    let text = "x".repeat(900);
    with_layer(&log, || {
        for cycle in 0..10 {
            let ballast = mount.path().join("ballast");
            assert!(fs::write(&ballast, vec![0; 64 << 20]).is_err(), "the disk must be full");
            // The disk is full: events are held, then dropped and counted; confirm says no.
            let begun = Instant::now();
            for _ in 0..1_500 {
                tracing::info!(target: "audit", action = "a", actor = "b", text);
                emitted += 1;
            }
            let refused = log.confirm(|| tracing::info!(target: "audit", action = "a", actor = "b"));
            emitted += 1;
            assert!(refused.is_err(), "cycle {cycle}");
            assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
            assert!(!log.health().is_recording(), "cycle {cycle}: {}", log.health());
            fs::remove_file(&ballast).unwrap();
            mount.remount(&format!("size={}m", 4 + cycle * 3));
            wait_for("the log to heal", || {
                // A stalled log is left by the first sync that succeeds, so give it something.
                log.health().is_recording()
            });
            let receipt = log.confirm(|| tracing::info!(target: "audit", action = "a", actor = "b"));
            emitted += 1;
            receipts.push(receipt.unwrap_or_else(|error| panic!("cycle {cycle}: {error}")));
        }
    });
    assert!(log.stats().lost_total() > 0, "{:?}", log.stats());
    log.close().unwrap();
    let report = verify(&path).unwrap();
    report.ensure_intact().unwrap_or_else(|error| panic!("{error}\n{report}"));
    assert_eq!(independent_verdict(&path), 0);
    assert_eq!(
        events(&path).len() as u64 + told_by_gaps(&path),
        emitted,
        "written + gaps = emitted, exactly"
    );
    assert_all_present(&path, &receipts);
}

#[test]
fn a_read_only_file_system_is_survived() {
    let Some(mount) = Mount::tmpfs("8m") else {
        return skip("a_read_only_file_system_is_survived", "mounting is not allowed");
    };
    // A tmpfs with a file open for writing cannot be made read-only, so the log meets it at open.
    let path = mount.path().join("log");
    AuditLog::open(&path).unwrap().close().unwrap();
    mount.remount("ro");
    let error = AuditLog::open(&path).unwrap_err();
    assert!(matches!(error, Error::Io { .. }), "{error}");
    verify(&path).unwrap().ensure_intact().unwrap();
    mount.remount("rw");
    AuditLog::open(&path).unwrap().close().unwrap();
    verify(&path).unwrap().ensure_intact().unwrap();
}

/// Does something to the live segment, and expects a notice, a new segment, and no lost event.
fn meddle(what: impl FnOnce(&std::path::Path), verdict: Verdict) {
    let (_dir, path) = fresh();
    let (log, notices) = open_and_hear(&path);
    with_layer(&log, || {
        log.confirm(|| tracing::info!(target: "audit", action = "before", actor = "b")).unwrap();
        what(&segments(&path)[0]);
        // The paths are looked at every 100 ms of activity.
        let begun = Instant::now();
        let mut number = 0;
        while begun.elapsed() < Duration::from_millis(400) {
            log.confirm(|| tracing::info!(target: "audit", action = "after", actor = "b", number)).unwrap();
            number += 1;
        }
        // It records, and says until it is opened again that somebody was at its files.
        assert_eq!((log.health().to_string().as_str(), log.health().is_recording()), ("tampered", true));
        assert!(!log.health().is_healthy());
        log.close().unwrap();
    });
    wait_for("the notice", || notices.lock().unwrap().contains(&NoticeKind::SegmentTampered));
    // Counted also where nobody hears, and still there after the end.
    assert!(log.stats().noticed(NoticeKind::SegmentTampered) > 0, "{:?}", log.stats());
    assert!(log.stats().notices.iter().all(|notice| notice.count > 0));
    let again = AuditLog::open(&path).unwrap();
    assert_eq!(again.health(), Health::Healthy, "until the next open");
    again.close().unwrap();
    assert!(!lines_of(&path, "notice").is_empty());
    let report = verify(&path).unwrap();
    assert_eq!(report.verdict(), verdict, "{report}");
}

#[test]
fn a_removed_live_segment_is_noticed() {
    meddle(|segment| fs::remove_file(segment).unwrap(), Verdict::Damaged);
}

#[test]
fn a_replaced_live_segment_is_noticed() {
    meddle(
        |segment| {
            let copy = segment.with_extension("copy");
            fs::copy(segment, &copy).unwrap();
            fs::rename(&copy, segment).unwrap();
        },
        // The old file has no name any more, so nothing is acknowledged from it: the copy holds all
        // that was durable, and the new segment the rest.
        Verdict::Intact,
    );
}

#[test]
fn a_truncated_live_segment_is_noticed() {
    meddle(
        |segment| OpenOptions::new().write(true).open(segment).unwrap().set_len(10).unwrap(),
        Verdict::Damaged,
    );
}

#[test]
fn foreign_bytes_in_the_live_segment_are_noticed_and_void() {
    meddle(
        |segment| OpenOptions::new().append(true).open(segment).unwrap().write_all(b"hello\n").unwrap(),
        Verdict::Intact,
    );
}

#[test]
fn a_removed_lock_moves_the_writer_to_the_next_chain() {
    let (_dir, path) = fresh();
    let log = AuditLog::open(&path).unwrap();
    with_layer(&log, || {
        log.confirm(|| tracing::info!(target: "audit", action = "a", actor = "b")).unwrap();
        fs::remove_file(path.join("control/chain-000.lock")).unwrap();
        wait_for("the next chain", || {
            log.confirm(|| tracing::info!(target: "audit", action = "a", actor = "b")).unwrap().chain() == 1
        });
        log.close().unwrap();
    });
    // Nobody may write to the chain that was left; the next opener puts it in order.
    assert_eq!(verify(&path).unwrap().verdict(), Verdict::Unclean);
    AuditLog::open(&path).unwrap().close().unwrap();
    let report = verify(&path).unwrap();
    report.ensure_intact().unwrap_or_else(|error| panic!("{error}\n{report}"));
}

/// What is found at open and is no recovery: `recovery()` has it, and says whether it is clean.
#[test]
fn recovery_has_the_notices_of_where_the_log_lies_and_who_can_read_it() {
    #[track_caller]
    fn check(path: &std::path::Path, expected: &[NoticeKind], is_clean: bool) {
        let log = AuditLog::open(path).unwrap();
        let codes: Vec<_> = log.recovery().notices.iter().map(|notice| notice.kind).collect();
        assert_eq!((codes.as_slice(), log.recovery().is_clean()), (expected, is_clean));
        log.close().unwrap();
    }
    let (_dir, path) = fresh();
    check(&path, &[], true);
    fs::set_permissions(&segments(&path)[0], fs::Permissions::from_mode(0o644)).unwrap();
    check(&path, &[NoticeKind::SegmentExposed], true);
    // A run without close: its notice stands beside the chain that it is of.
    let (_dir, path) = fresh();
    child("exit", &path, &[]).output().unwrap();
    check(&path, &[NoticeKind::Recovered], false);
    let Some(mount) = Mount::tmpfs("8m") else {
        return skip(
            "recovery_has_the_notices_of_where_the_log_lies_and_who_can_read_it",
            "mounting is not allowed",
        );
    };
    check(&mount.path().join("log"), &[NoticeKind::VolatileFileSystem], true);
}

/// Found at open, before there is a layer: the closure hears of it all the same.
#[test]
fn a_chain_that_vanished_is_told_of_when_the_log_is_opened() {
    let (_dir, path) = fresh();
    let logs = [(); 2].map(|()| AuditLog::open(&path).unwrap());
    for log in logs.iter().rev() {
        with_layer(log, || {
            log.confirm(|| tracing::info!(target: "audit", action = "a", actor = "b")).unwrap()
        });
    }
    for log in logs {
        log.close().unwrap();
    }
    fs::remove_file(path.join("audit-001-00000001.jsonl")).unwrap();
    fs::remove_file(path.join("control/chain-001.lock")).unwrap();
    let (log, notices) = open_and_hear(&path);
    // Without a chain to recover, and not clean all the same.
    assert!(log.recovery().chains.is_empty() && !log.recovery().is_clean(), "{:?}", log.recovery());
    let codes: Vec<_> = log.recovery().notices.iter().map(|notice| notice.kind).collect();
    assert_eq!(codes, [NoticeKind::ChainMissing]);
    assert_eq!(log.stats().noticed(NoticeKind::ChainMissing), 1);
    wait_for("the notice", || notices.lock().unwrap().contains(&NoticeKind::ChainMissing));
    log.close().unwrap();
    assert_eq!(verify(&path).unwrap().verdict(), Verdict::Damaged);
}

#[test]
fn a_removed_directory_is_made_again() {
    let (_dir, path) = fresh();
    let log = AuditLog::open(&path).unwrap();
    with_layer(&log, || {
        log.confirm(|| tracing::info!(target: "audit", action = "a", actor = "b")).unwrap();
        fs::remove_dir_all(&path).unwrap();
        wait_for("the directory", || {
            drop(log.confirm(|| tracing::info!(target: "audit", action = "a", actor = "b")));
            path.exists() && log.health().is_recording()
        });
        assert_eq!(log.health(), Health::Tampered);
        log.confirm(|| tracing::info!(target: "audit", action = "last", actor = "b")).unwrap();
        log.close().unwrap();
    });
    assert_eq!(events(&path).last().unwrap().action(), Some("last"));
    // The evidence that was removed is missed.
    assert_eq!(verify(&path).unwrap().verdict(), Verdict::Damaged);
}

#[test]
fn unsafe_directories_are_refused_with_the_reason() {
    let (dir, path) = fresh();
    let check = |expected: &str| {
        let error = AuditLog::open(&path).unwrap_err();
        assert!(matches!(error, Error::InsecureDirectory { .. }), "{error}");
        assert!(error.to_string().contains(expected), "{error}");
    };
    fs::create_dir(dir.path().join("elsewhere")).unwrap();
    symlink(dir.path().join("elsewhere"), &path).unwrap();
    check("symlink");
    fs::remove_file(&path).unwrap();
    fs::write(&path, "a file").unwrap();
    check("not a directory");
    fs::remove_file(&path).unwrap();
    for mode in [0o777, 0o720, 0o702] {
        fs::create_dir(&path).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        check("write");
        fs::remove_dir(&path).unwrap();
    }
}

#[test]
fn what_lies_at_a_name_of_ours_is_never_followed_nor_overwritten() {
    let (dir, path) = fresh();
    AuditLog::open(&path).unwrap().close().unwrap();
    let precious = dir.path().join("precious");
    fs::write(&precious, "precious").unwrap();
    let second = path.join("audit-000-00000002.jsonl");
    symlink(&precious, &second).unwrap();
    // Whether it is refused or passed over, the target stays as it is.
    if let Ok(log) = AuditLog::open(&path) {
        drop(log.rotate());
        drop(log.close());
    }
    assert_eq!(fs::read_to_string(&precious).unwrap(), "precious");
    fs::remove_file(&second).unwrap();

    // A lock that is a symlink.
    let lock = path.join("control/chain-000.lock");
    fs::remove_file(&lock).unwrap();
    symlink(&precious, &lock).unwrap();
    assert!(AuditLog::builder(&path).exclusive(true).open().is_err());
    assert_eq!(fs::read_to_string(&precious).unwrap(), "precious");
}

#[test]
fn files_are_private_whatever_the_umask() {
    let (_dir, path) = fresh();
    AuditLog::open(&path).unwrap().close().unwrap();
    let mode = |path: &std::path::Path| fs::metadata(path).unwrap().mode() & 0o777;
    assert_eq!(mode(&path), 0o700);
    assert_eq!(mode(&path.join("control")), 0o700);
    assert_eq!(mode(&segments(&path)[0]), 0o600);
    assert_eq!(mode(&path.join("control/chain-000.lock")), 0o600);
    let (_dir, path) = fresh();
    AuditLog::builder(&path).group_readable(true).open().unwrap().close().unwrap();
    assert_eq!((mode(&path), mode(&segments(&path)[0])), (0o750, 0o640));
}

#[test]
fn low_space_is_told_and_recorded() {
    let (_dir, path) = fresh();
    let log = AuditLog::builder(&path).low_space(u64::MAX).open().unwrap();
    with_layer(&log, || {
        wait_for("low space", || {
            log.confirm(|| tracing::info!(target: "audit", action = "a", actor = "b")).unwrap();
            log.health() == Health::LowSpace
        });
    });
    assert!(log.health().is_recording());
    assert!(log.stats().free_bytes > 0);
    log.close().unwrap();
    assert!(lines_of(&path, "notice").iter().any(|line| line.contains("\"code\":\"low_space\"")));
}

#[test]
fn settings_out_of_range_are_refused() {
    let (_dir, path) = fresh();
    let zero = Duration::ZERO;
    let builder = || AuditLog::builder(&path);
    for (setting, bad) in [
        (
            "flush_mode",
            builder().flush_mode(FlushMode::Batched { size: 0, interval: Duration::from_secs(1) }),
        ),
        ("flush_mode", builder().flush_mode(FlushMode::Batched { size: 1, interval: zero })),
        ("rotation", builder().rotation(tracing_audit::Rotation::never().max_bytes(1))),
        ("retention", builder().retention(tracing_audit::Retention::keep_all().max_segments(0))),
        ("queue_bytes", builder().queue_bytes(1)),
        ("wait_bound", builder().wait_bound(zero)),
        ("critical_actions", builder().critical_actions(["--"])),
        ("redact", builder().redact([""])),
        ("service", builder().service("x".repeat(300))),
    ] {
        match bad.open() {
            Err(Error::Setting { setting: found, .. }) => assert_eq!(found, setting),
            other => panic!("{setting}: {other:?}"),
        }
    }
    assert!(!path.exists(), "nothing was made");
}

/// The line that says that events are lost was written by the application's own thread, which stood
/// still for as long as nobody read its standard error.
#[test]
fn standard_error_that_nobody_reads_stops_no_one() {
    use std::io::Read as _;
    let (_dir, path) = fresh();
    let mut child = crate::support::child("mute", &path, &[]).spawn().unwrap();
    let (told, heard) = std::sync::mpsc::channel();
    let mut stdout = child.stdout.take().unwrap();
    std::thread::spawn(move || {
        let mut all = String::new();
        stdout.read_to_string(&mut all).unwrap();
        told.send(all).unwrap();
    });
    let said = heard.recv_timeout(std::time::Duration::from_secs(20));
    child.kill().unwrap();
    child.wait().unwrap();
    let said = said.expect("the child stands still");
    let waited = said.lines().find_map(|line| line.strip_prefix('@')).unwrap_or_else(|| panic!("{said}"));
    assert!(waited.parse::<u64>().unwrap() < 5_000, "{waited} ms");
}
