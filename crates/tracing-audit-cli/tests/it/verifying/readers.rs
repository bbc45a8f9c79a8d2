//! Users who may read a log but not write it.

use std::{
    fs::{self, Permissions},
    os::unix::fs::PermissionsExt as _,
    process::Command,
};

use super::logs::{Scene, emit, said};
use crate::place::skip;

/// Lists every name, length and modification time below a directory.
fn state(scene: &Scene) -> String {
    let listed = Command::new("find").arg(scene.log()).args(["-printf", "%p %s %T@ %C@\n"]).output().unwrap();
    String::from_utf8(listed.stdout).unwrap()
}

fn has(program: &str) -> bool {
    Command::new(program).arg("--version").output().is_ok_and(|output| output.status.success())
}

#[test]
fn a_user_who_may_read_only_segments_gets_a_verdict() {
    let test = "a_user_who_may_read_only_segments_gets_a_verdict";
    if !rustix::process::getuid().is_root() || !has("setpriv") {
        return skip(test, "it needs root and setpriv to become nobody");
    }
    let scene = Scene::for_everybody();
    let log = tracing_audit::AuditLog::builder(scene.log()).stderr(false).open().unwrap();
    emit(&log, 3);
    let program = scene.path("program");
    fs::copy(env!("CARGO_BIN_EXE_tracing-audit"), &program).unwrap();
    let chmod =
        |path: &std::path::Path, mode| fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
    for path in [scene.dir.path(), &program, &scene.log()] {
        chmod(path, 0o755);
    }
    for entry in fs::read_dir(scene.log()).unwrap() {
        let path = entry.unwrap().path();
        chmod(&path, if path.is_dir() { 0o700 } else { 0o644 });
    }
    let before = state(&scene);
    let run = |arguments: &[&str]| {
        let mut command = Command::new("setpriv");
        command
            .args(["--reuid", "65534", "--regid", "65534", "--clear-groups"])
            .arg(&program)
            .args(arguments);
        said(command.current_dir(scene.dir.path()))
    };
    let (code, text, error) = run(&["verify", "log"]);
    assert!(code == 3 && text.starts_with("UNCLEAN: ") && error.is_empty(), "{text}{error}");
    assert!(
        text.contains("It is not known whether a program is writing to chains 000, 001 at this moment."),
        "{text}"
    );
    let (code, heads, error) = run(&["heads", "log"]);
    assert_eq!((code, heads.lines().count(), error.as_str()), (0, 2, ""));
    let (code, _, error) = run(&["hold", "log", "--reason", "case"]);
    assert!(code == 2 && error.contains("cannot place log/hold, so there is no hold"), "{error}");
    assert_eq!(state(&scene), before);
    log.close().unwrap();
    let (code, text, _) = run(&["verify", "log"]);
    assert!(code == 0 && text.starts_with("PASS: "), "{text}");
    // A user who may read nothing gets a remedy.
    chmod(&scene.segment(0, 1), 0o600);
    let (code, _, error) = run(&["verify", "log"]);
    let expected = "log/audit-000-00000001.jsonl: permission denied; run as its owner (uid 0)";
    assert!(code == 2 && error.contains(expected), "{error}");
}

#[test]
fn a_log_on_a_read_only_mount_is_verified() {
    let test = "a_log_on_a_read_only_mount_is_verified";
    let scene = Scene::new();
    let mount = |arguments: &[&str]| {
        let mut command = Command::new("mount");
        command.args(arguments).arg(scene.log());
        command.output().is_ok_and(|output| output.status.success())
    };
    let log = scene.log();
    if !mount(&["--bind", log.to_str().unwrap()]) {
        return skip(test, "it needs a mount of its own");
    }
    let done = mount(&["-o", "remount,bind,ro"]);
    let checked = (scene.run(&["verify", "log"]), scene.run(&["heads", "log"]).0);
    let held = scene.run(&["hold", "log", "--reason", "case"]);
    assert!(Command::new("umount").arg(scene.log()).status().unwrap().success());
    if !done {
        return skip(test, "a mount cannot be made read-only");
    }
    assert!(checked.0.0 == 0 && checked.0.1.starts_with("PASS: ") && checked.0.2.is_empty(), "{checked:?}");
    assert_eq!(checked.1, 0);
    assert!(held.0 == 2 && held.2.contains("cannot place log/hold, so there is no hold"), "{held:?}");
}
