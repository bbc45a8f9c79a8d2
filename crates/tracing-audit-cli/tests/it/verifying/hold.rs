//! `hold`.

use std::{fs, process::Command};

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
    assert!(printed.starts_with("the hold is placed, as record 00"), "{printed}");
    let head = printed.trim_end().rsplit(' ').nth(1).unwrap().to_owned();
    assert!(scene.log().join("hold").is_file());
    let placed = records(&scene, "log.hold");
    let record = &placed[0];
    assert_eq!((placed.len(), record.reason(), record.outcome()), (1, Some(REASON), Some("placed")));
    assert_eq!(record.severity(), Some(tracing_audit::Severity::Critical));
    assert_eq!(record.field("uid").unwrap().as_u64(), Some(u64::from(rustix::process::getuid().as_raw())));
    assert_eq!(record.field("sudo_user").unwrap().as_str(), Some("mia"));
    assert_eq!(record.head().to_string(), head);
    assert_eq!(scene.run(&["verify", "log", "--head", &head]).0, 0);
    // Again, as after a record that could not be written.
    let (code, printed, _) = scene.run(&["hold", "log", "--reason", "again"]);
    assert!(code == 0 && printed.starts_with("the hold is in place already, as record "), "{printed}");
    assert_eq!(records(&scene, "log.hold").len(), 2);

    let (code, printed, _) = scene.run(&["hold", "log", "--release", "--reason", "closed"]);
    assert!(code == 0 && printed.starts_with("the hold is released, as record "), "{printed}");
    assert!(!scene.log().join("hold").exists());
    assert_eq!(records(&scene, "log.hold.release")[0].reason(), Some("closed"));
    let (code, printed, error) = scene.run(&["hold", "log", "--release", "--reason", "closed"]);
    assert_eq!((code, printed.as_str(), error.as_str()), (1, "", "tracing-audit: there is no hold in log\n"));
    assert_eq!(records(&scene, "log.hold.release").len(), 1);
    assert_eq!(scene.run(&["verify", "log"]).0, 0);
}

/// The hold is for the programs that write.
#[test]
fn nothing_is_removed_while_a_hold_is_in_place_also_beside_a_live_program() {
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
fn a_hold_that_cannot_be_recorded_holds_and_a_release_that_cannot_be_leaves_it() {
    let test = "a_hold_that_cannot_be_recorded_holds_and_a_release_that_cannot_be_leaves_it";
    if !rustix::process::getuid().is_root() {
        return skip(test, "only root can give a log away");
    }
    let scene = Scene::new();
    // The library writes to nobody else's log.
    assert!(Command::new("chown").args(["-R", "65534"]).arg(scene.log()).status().unwrap().success());
    let (code, printed, error) = scene.run(&["hold", "log", "--reason", "case"]);
    assert_eq!((code, printed.as_str()), (2, ""));
    assert!(
        error.contains("the hold is placed: nothing is removed from log. But it could not be recorded"),
        "{error}"
    );
    assert!(error.contains("run as the owner of the log") && error.contains("another user"), "{error}");
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
