//! `hold`.

use std::{
    fs::{self, File},
    process::{Command, Stdio},
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::Duration,
};

use tracing_audit::{AuditLog, Retention, Rotation, read};

use super::logs::{Scene, emit, said};
use crate::place::skip;

const REASON: &str = "Smith v. Shop \u{1b}[31m";

fn records(scene: &Scene, action: &str) -> Vec<tracing_audit::Record> {
    let all = read(scene.log()).unwrap().map(Result::unwrap);
    all.filter(|record| record.action() == Some(action)).collect()
}

#[test]
fn a_hold_is_placed_recorded_and_released() {
    let scene = Scene::new();
    let mut command = scene.command(&["hold", "log", "--reason", REASON]);
    let (code, printed, error) = said(command.env("SUDO_USER", "mia"));
    assert_eq!((code, error.as_str()), (0, ""));
    assert!(printed.starts_with("the hold is placed; its record is 00"), "{printed}");
    let head = printed.trim_end().rsplit(' ').next().unwrap().to_owned();
    assert!(scene.log().join("hold").is_file());
    let placed = records(&scene, "log.hold");
    let record = &placed[0];
    assert_eq!((placed.len(), record.reason(), record.outcome()), (1, Some(REASON), Some("placed")));
    assert_eq!(record.severity(), Some(tracing_audit::Severity::Critical));
    assert_eq!(record.field("uid").unwrap().as_u64(), Some(u64::from(rustix::process::getuid().as_raw())));
    assert_eq!(record.field("sudo_user").unwrap().as_str(), Some("mia"));
    assert_eq!(record.head().to_string(), head);
    assert_eq!(scene.run(&["verify", "log", "--head", &head]).0, 0);
    // Place it again, as after a record that could not be written.
    let (code, printed, _) = scene.run(&["hold", "log", "--reason", "again"]);
    assert!(code == 0 && printed.starts_with("the hold is in place already; its record is "), "{printed}");
    assert_eq!(records(&scene, "log.hold").len(), 2);

    let (code, printed, _) = scene.run(&["hold", "log", "--release", "--reason", "closed"]);
    assert!(code == 0 && printed.starts_with("the hold is released; its record is "), "{printed}");
    assert!(!scene.log().join("hold").exists());
    assert_eq!(records(&scene, "log.hold.release")[0].reason(), Some("closed"));
    let (code, printed, error) = scene.run(&["hold", "log", "--release", "--reason", "closed"]);
    assert_eq!((code, printed.as_str(), error.as_str()), (1, "", "tracing-audit: there is no hold in log\n"));
    assert_eq!(records(&scene, "log.hold.release").len(), 1);
    assert_eq!(scene.run(&["verify", "log"]).0, 0);
}

/// Programs that write the log obey the hold.
#[test]
fn nothing_is_removed_during_a_hold_even_by_a_running_program() {
    let scene = Scene::new();
    let few = Retention::keep_all().max_segments(1);
    let log = AuditLog::builder(scene.log()).stderr(false).rotation(Rotation::never()).open().unwrap();
    let (code, _, error) = scene.run(&["hold", "log", "--reason", "case"]);
    assert_eq!((code, error.as_str()), (0, ""));
    log.close().unwrap();
    let segments = || fs::read_dir(scene.log()).unwrap().count();
    let before = segments();
    let open = || AuditLog::builder(scene.log()).stderr(false).retention(few.clone()).open().unwrap();
    let log = open();
    emit(&log, 1);
    log.close().unwrap();
    assert!(segments() >= before);
    assert_eq!(scene.run(&["hold", "log", "--release", "--reason", "closed"]).0, 0);
    let log = open();
    emit(&log, 1);
    log.close().unwrap();
    let left = segments();
    assert!(left < before, "{left} of {before}");
    assert_eq!(scene.run(&["verify", "log"]).0, 0);
}

#[test]
fn an_unrecorded_hold_holds_and_an_unrecorded_release_releases_nothing() {
    let test = "an_unrecorded_hold_holds_and_an_unrecorded_release_releases_nothing";
    if !rustix::process::getuid().is_root() {
        return skip(test, "only root can give a log away");
    }
    let scene = Scene::new();
    // The library refuses to write to a log of another user.
    assert!(Command::new("chown").args(["-R", "65534"]).arg(scene.log()).status().unwrap().success());
    let (code, printed, error) = scene.run(&["hold", "log", "--reason", "case"]);
    assert_eq!((code, printed.as_str()), (2, ""));
    assert!(
        error.contains("the hold is placed: nothing is removed from log. But it could not be recorded"),
        "{error}"
    );
    assert!(error.contains("as the owner of the log") && error.contains("another user"), "{error}");
    assert!(scene.log().join("hold").exists());
    let (code, _, error) = scene.run(&["hold", "log", "--release", "--reason", "closed"]);
    assert!(code == 2 && error.contains("the hold stays in place"), "{error}");
    assert!(scene.log().join("hold").exists());
}

#[test]
fn a_hold_needs_a_log_and_a_reason() {
    let scene = Scene::new();
    fs::create_dir(scene.path("empty")).unwrap();
    assert_eq!(scene.run(&["hold", "log"]).0, 2);
    assert_eq!(scene.run(&["hold", "log", "--reason", " "]).0, 2);
    let (code, _, error) = scene.run(&["hold", "empty", "--reason", "case"]);
    assert!(code == 2 && error.contains("there is no audit log at empty: the directory is empty"), "{error}");
    assert!(!scene.path("empty/hold").exists() && !scene.log().join("hold").exists());
}

/// The newest record and the file `hold` must agree.
#[test]
fn a_concurrent_hold_and_release_leave_the_state_of_the_newest_record() {
    let scene = Scene::new();
    for round in 0..6 {
        assert_eq!(scene.run(&["hold", "log", "--reason", "first"]).0, 0);
        let begin = |arguments: &[&str]| {
            let mut command = scene.command(arguments);
            command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
        };
        let mut release = begin(&["hold", "log", "--release", "--reason", "closed"]);
        let mut hold = begin(&["hold", "log", "--reason", "second"]);
        assert!(release.wait().unwrap().success() && hold.wait().unwrap().success());
        let said = read(scene.log()).unwrap().map(Result::unwrap);
        let said = said.filter(|record| record.action().is_some_and(|action| action.starts_with("log.hold")));
        let newest = said.max_by_key(|record| record.timestamp().map(str::to_owned)).unwrap();
        let is_placed = newest.action() == Some("log.hold");
        assert_eq!(scene.log().join("hold").exists(), is_placed, "round {round}");
    }
}

#[test]
fn a_hold_waits_for_another_one() {
    let scene = Scene::new();
    // Any reader of the log can hold a lock on its directory, which must not block a hold.
    let listed = File::open(scene.log()).unwrap();
    listed.lock().unwrap();
    let dir = File::open(scene.log().join("control")).unwrap();
    dir.lock().unwrap();
    let mut hold = scene.command(&["hold", "log", "--reason", "case"]).stdout(Stdio::null()).spawn().unwrap();
    thread::sleep(Duration::from_millis(700));
    assert!(hold.try_wait().unwrap().is_none() && !scene.log().join("hold").exists());
    dir.unlock().unwrap();
    assert!(hold.wait().unwrap().success() && scene.log().join("hold").exists());
}

#[test]
fn a_hold_removed_meanwhile_is_not_reported_as_placed() {
    let scene = Scene::new();
    let is_over = AtomicBool::new(false);
    let (code, printed, error) = thread::scope(|scope| {
        scope.spawn(|| {
            while !is_over.load(Ordering::Relaxed) {
                drop(fs::remove_file(scene.log().join("hold")));
            }
        });
        let said = scene.run(&["hold", "log", "--reason", "case"]);
        is_over.store(true, Ordering::Relaxed);
        said
    });
    assert_eq!((code, printed.as_str()), (2, ""), "{error}");
    assert!(error.contains("there is no hold, despite record 0"), "{error}");
}

#[test]
fn the_reason_is_escaped_in_the_file_and_bounded() {
    let scene = Scene::new();
    let (code, _, error) = scene.run(&["hold", "log", "--reason", &"x".repeat(4097)]);
    assert!(code == 2 && error.contains("the reason has 4097 bytes, of at most 4096"), "{error}");
    assert!(!scene.log().join("hold").exists());
    assert_eq!(scene.run(&["hold", "log", "--reason", "a\u{1b}[31m\nb\u{202e}"]).0, 0);
    let text = fs::read_to_string(scene.log().join("hold")).unwrap();
    assert!(text.ends_with(": a\\u{1b}[31m\\u{a}b\\u{202e}\n") && text.lines().count() == 1, "{text:?}");
    assert_eq!(scene.run(&["hold", "log", "--release", "--reason", "closed"]).0, 0);
    let long = "\u{202e}".repeat(1365);
    assert_eq!(scene.run(&["hold", "log", "--reason", &long]).0, 0);
    assert_eq!(records(&scene, "log.hold").last().unwrap().reason(), Some(long.as_str()));
}
