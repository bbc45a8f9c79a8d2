//! Retention beside waiting events: removing many segments must not delay them, and must not be mistaken for a stalled
//! disk.

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant},
};

use tempfile::TempDir;
use tracing_audit::{AuditLog, FlushMode, Health, NoticeKind, Retention, Rotation, verify};

use crate::support::{
    child, fresh, independent_verdict, lines_of, run, segments, skip, wait_for, with_layer,
};

/// Creates a closed log of `count` segments of about 64 KiB, on a disk where syncs take time.
fn of_segments(count: usize) -> (TempDir, PathBuf) {
    // Created in memory first, where syncs cost nothing.
    let shm = Path::new("/dev/shm");
    let quick = tempfile::tempdir_in(shm).or_else(|_| tempfile::tempdir()).unwrap();
    let made = quick.path().join("log");
    let log = AuditLog::builder(&made)
        .rotation(Rotation::never().max_bytes(64 << 10))
        .flush_mode(FlushMode::Batched { size: 10_000, interval: Duration::from_secs(60) })
        .open()
        .unwrap();
    let text = "x".repeat(15_000);
    with_layer(&log, || {
        for number in 1..count {
            let (a, b, c) = (&text, &text, &text);
            tracing::info!(target: "audit", action = "a", actor = "b", number, a, b, c);
        }
    });
    log.close().unwrap();
    let (dir, path) = fresh();
    fs::create_dir(&path).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o700)).unwrap();
    for segment in segments(&made) {
        fs::copy(&segment, path.join(segment.file_name().unwrap())).unwrap();
    }
    let there = segments(&path).len();
    assert!((count - 2..=count + 2).contains(&there), "{there} of {count}");
    (dir, path)
}

/// With 3,158 segments, `confirm` was refused, the log was reported as stalled, and `close` failed. With 2,401, every
/// confirm failed until the removal was done.
#[test]
fn reopening_with_thousands_of_segments_to_remove_refuses_no_event() {
    for (count, newest) in [(3158, 100), (2401, 1)] {
        let (_dir, path) = of_segments(count);
        let log = AuditLog::builder(&path)
            .retention(Retention::keep_all().max_segments(newest))
            .wait_bound(Duration::from_secs(1))
            .open()
            .unwrap();
        let mut confirms = 0;
        with_layer(&log, || {
            let begun = Instant::now();
            while segments(&path).len() > newest as usize || confirms < 20 {
                let confirmed = log.confirm(|| tracing::info!(target: "audit", action = "a", actor = "b"));
                assert!(confirmed.is_ok(), "after {:?}: {confirmed:?}", begun.elapsed());
                assert_eq!(log.health(), Health::Healthy);
                confirms += 1;
                assert!(begun.elapsed() < Duration::from_secs(60), "{} left", segments(&path).len());
            }
        });
        let told = || log.stats().noticed(NoticeKind::Pruned);
        wait_for("the end of the pass", || told() > 0);
        assert_eq!((told(), log.stats().unconfirmed_waits), (1, 0));
        log.close().unwrap();
        assert_eq!(lines_of(&path, "prune").len(), 1, "one record for all of them");
        verify(&path).unwrap().ensure_intact().unwrap();
        assert_eq!(independent_verdict(&path), 0);
    }
}

/// Each removal takes longer than the wait bound.
#[test]
fn removals_longer_than_the_wait_bound_do_not_count_as_a_stalled_disk() {
    let test = "removals_longer_than_the_wait_bound_do_not_count_as_a_stalled_disk";
    if !run("strace", &["-V"]) {
        return skip(test, "strace is not installed");
    }
    let (_dir, path) = of_segments(8);
    let process = child("remove", &path, &[]);
    let mut command = Command::new("strace");
    command.args(["-f", "-o", "/dev/null", "-e", "trace=unlinkat"]);
    command.args(["-e", "inject=unlinkat:delay_enter=1500000"]);
    command.arg(process.get_program()).args(process.get_args());
    for (name, value) in process.get_envs() {
        command.env(name, value.unwrap());
    }
    let output = command.output().unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{errors}{}", String::from_utf8_lossy(&output.stdout));
    // It was closed in the middle of the removal, and the next run removes the rest.
    let left = segments(&path).len();
    assert!((2..8).contains(&left), "{left}");
    verify(&path).unwrap().ensure_intact().unwrap();
    let keep = Retention::keep_all().max_segments(2);
    AuditLog::builder(&path).retention(keep).open().unwrap().close().unwrap();
    assert_eq!(segments(&path).len(), 2);
    verify(&path).unwrap().ensure_intact().unwrap();
}

/// Plays the role of the child process, whose removals are slow.
pub(crate) fn play(path: &Path) {
    let log = AuditLog::builder(path)
        .retention(Retention::keep_all().max_segments(2))
        .wait_bound(Duration::from_secs(1))
        .open()
        .unwrap();
    let before = segments(path).len();
    let mut longest = Duration::ZERO;
    with_layer(&log, || {
        while segments(path).len() + 2 > before {
            let begun = Instant::now();
            log.confirm(|| tracing::info!(target: "audit", action = "a", actor = "b")).unwrap();
            longest = longest.max(begun.elapsed());
            assert_eq!(log.health(), Health::Healthy);
            std::thread::sleep(Duration::from_millis(5));
        }
    });
    // A single removal takes 1.5 s.
    assert!(longest < Duration::from_millis(900), "{longest:?}");
    assert_eq!(log.stats().unconfirmed_waits, 0);
    // Closing may take as long as the removal in progress.
    while log.close().is_err_and(|error| error.is_timeout()) {}
}

/// As a program started by cron, which ends before the first pause of the writer.
#[test]
fn a_program_that_lives_for_a_moment_removes_what_is_due() {
    for life in [Duration::ZERO, Duration::from_millis(200)] {
        let (_dir, path) = of_segments(20);
        let log = AuditLog::builder(&path).retention(Retention::keep_all().max_segments(5)).open().unwrap();
        let begun = Instant::now();
        with_layer(&log, || tracing::info!(target: "audit", action = "a", actor = "b"));
        std::thread::sleep(life);
        log.close().unwrap();
        assert!(begun.elapsed() < life + Duration::from_secs(2), "{:?}", begun.elapsed());
        assert_eq!(segments(&path).len(), 5, "after {life:?}");
        assert_eq!(lines_of(&path, "prune").len(), 1);
        verify(&path).unwrap().ensure_intact().unwrap();
    }
}
