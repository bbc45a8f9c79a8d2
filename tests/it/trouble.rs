//! Failures: full disks, removed files, insecure directories.

use std::{
    fs::{self, OpenOptions},
    io::Write as _,
    os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink},
    time::{Duration, Instant},
};

use tracing_audit::{AuditLog, Error, FlushMode, Health, NoticeKind, OnFull, Verdict, verify};

use crate::support::{
    Mount, assert_all_present, child, events, fresh, independent_verdict, lines_of, open_with_notices,
    records, segments, skip, wait_for, with_layer,
};

/// Returns the total of the losses in the gap records of a log.
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
fn a_full_disk_loses_nothing_silently_and_recovers_when_there_is_room() {
    let Some(mount) = Mount::tmpfs("2m") else {
        return skip(
            "a_full_disk_loses_nothing_silently_and_recovers_when_there_is_room",
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
            // The disk is full: events are held in memory, then dropped and counted, and `confirm` returns an error.
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
                // Only a successful sync ends a stall, so there must be something to sync.
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
fn a_read_only_file_system_is_an_error_and_does_no_harm() {
    let Some(mount) = Mount::tmpfs("8m") else {
        return skip("a_read_only_file_system_is_an_error_and_does_no_harm", "mounting is not allowed");
    };
    // A tmpfs with a file open for writing cannot be remounted read-only, so the log is only opened on it.
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

/// Interferes with the live segment, and expects a notice, a new segment, and no lost event.
fn interfere(what: impl FnOnce(&std::path::Path), verdict: Verdict) {
    let (_dir, path) = fresh();
    let (log, notices) = open_with_notices(&path);
    with_layer(&log, || {
        log.confirm(|| tracing::info!(target: "audit", action = "before", actor = "b")).unwrap();
        what(&segments(&path)[0]);
        // While events arrive, the paths are checked every 100 ms.
        let begun = Instant::now();
        let mut number = 0;
        while begun.elapsed() < Duration::from_millis(400) {
            log.confirm(|| tracing::info!(target: "audit", action = "after", actor = "b", number)).unwrap();
            number += 1;
        }
        // The log records, and reports the interference until it is opened again.
        assert_eq!((log.health().to_string().as_str(), log.health().is_recording()), ("tampered", true));
        assert!(!log.health().is_healthy());
        log.close().unwrap();
    });
    wait_for("the notice", || notices.lock().unwrap().contains(&NoticeKind::SegmentTampered));
    // Counted even without `on_notice`, and still available after `close`.
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
    interfere(|segment| fs::remove_file(segment).unwrap(), Verdict::Damaged);
}

#[test]
fn a_replaced_live_segment_is_noticed() {
    interfere(
        |segment| {
            let copy = segment.with_extension("copy");
            fs::copy(segment, &copy).unwrap();
            fs::rename(&copy, segment).unwrap();
        },
        // The old file has no name any more, so nothing is acknowledged from it. The copy holds everything that was
        // durable, and the new segment the rest.
        Verdict::Intact,
    );
}

#[test]
fn a_truncated_live_segment_is_noticed() {
    interfere(
        |segment| OpenOptions::new().write(true).open(segment).unwrap().set_len(10).unwrap(),
        Verdict::Damaged,
    );
}

#[test]
fn foreign_bytes_in_the_live_segment_are_noticed_and_void() {
    interfere(
        |segment| OpenOptions::new().append(true).open(segment).unwrap().write_all(b"hello\n").unwrap(),
        Verdict::Intact,
    );
}

#[test]
fn a_removed_lock_file_moves_the_writer_to_the_next_chain() {
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
    // No writer may continue the abandoned chain now; the next opener recovers it.
    assert_eq!(verify(&path).unwrap().verdict(), Verdict::Unclean);
    AuditLog::open(&path).unwrap().close().unwrap();
    let report = verify(&path).unwrap();
    report.ensure_intact().unwrap_or_else(|error| panic!("{error}\n{report}"));
}

/// Notices of opening that do not concern recovery: `recovery()` has them, and they do not affect `is_clean`.
#[test]
fn recovery_has_the_notices_about_the_location_and_the_permissions_of_the_log() {
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
    // A run without `close` gives a notice beside the recovered chain.
    let (_dir, path) = fresh();
    child("exit", &path, &[]).output().unwrap();
    check(&path, &[NoticeKind::Recovered], false);
    let Some(mount) = Mount::tmpfs("8m") else {
        return skip(
            "recovery_has_the_notices_about_the_location_and_the_permissions_of_the_log",
            "mounting is not allowed",
        );
    };
    check(&mount.path().join("log"), &[NoticeKind::VolatileFileSystem], true);
}

/// Found when the log is opened, before there is a layer. The closure gets the notice nevertheless.
#[test]
fn a_missing_chain_gives_a_notice_when_the_log_is_opened() {
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
    let (log, notices) = open_with_notices(&path);
    // No chain had to be recovered, but the recovery is not clean.
    assert!(log.recovery().chains.is_empty() && !log.recovery().is_clean(), "{:?}", log.recovery());
    let codes: Vec<_> = log.recovery().notices.iter().map(|notice| notice.kind).collect();
    assert_eq!(codes, [NoticeKind::ChainMissing]);
    assert_eq!(log.stats().noticed(NoticeKind::ChainMissing), 1);
    wait_for("the notice", || notices.lock().unwrap().contains(&NoticeKind::ChainMissing));
    log.close().unwrap();
    assert_eq!(verify(&path).unwrap().verdict(), Verdict::Damaged);
}

#[test]
fn a_removed_directory_is_recreated() {
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
    // The removal of evidence is detected.
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
fn files_in_the_place_of_ours_are_never_followed_or_overwritten() {
    let (dir, path) = fresh();
    AuditLog::open(&path).unwrap().close().unwrap();
    let precious = dir.path().join("precious");
    fs::write(&precious, "precious").unwrap();
    let second = path.join("audit-000-00000002.jsonl");
    symlink(&precious, &second).unwrap();
    // Whether the log is refused or avoids the name, the target stays unchanged.
    if let Ok(log) = AuditLog::open(&path) {
        drop(log.rotate());
        drop(log.close());
    }
    assert_eq!(fs::read_to_string(&precious).unwrap(), "precious");
    fs::remove_file(&second).unwrap();

    // A lock file that is a symlink.
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
fn low_space_gives_a_notice_and_is_recorded() {
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
    assert!(!path.exists(), "nothing was created");
}

/// The line about lost events was once printed by the application's own thread, which blocked as long as nobody read
/// its standard error.
#[test]
fn a_full_standard_error_blocks_no_one() {
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
