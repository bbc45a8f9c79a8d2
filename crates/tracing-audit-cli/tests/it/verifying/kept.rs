//! Files of heads on full disks, and in places where they must not be.

use std::{fs, os::unix::fs::symlink, process::Command};

use super::logs::{Scene, said};
use crate::place::{can_run, skip};

/// An incomplete head does not count, and the next append replaces it.
#[test]
fn an_incomplete_head_at_the_end_is_ignored_and_replaced() {
    for half in ["0", "000/3", "001/7:", "000/35:3e77875f51cf"] {
        let scene = Scene::new();
        let heads = scene.run(&["heads", "log"]).1;
        fs::write(scene.path("kept"), format!("{}\n{half}", heads.lines().next().unwrap())).unwrap();
        let (code, text, said) = scene.run(&["verify", "log", "--heads", "kept"]);
        assert_eq!(code, 0, "{half}: {text}{said}");
        assert!(said.contains("the last line of kept is an incomplete head"), "{said}");
        let (code, _, said) = scene.run(&["heads", "log", "--append", "kept"]);
        assert_eq!(code, 0, "{half}: {said}");
        assert_eq!(fs::read_to_string(scene.path("kept")).unwrap(), heads);
    }
    let scene = Scene::new();
    for none in ["hello", "000/35:abc\n", "000/35:xyz"] {
        fs::write(scene.path("kept"), none).unwrap();
        let (code, _, said) = scene.run(&["verify", "log", "--heads", "kept"]);
        assert!(code == 2 && said.contains("line 1 of kept is not a head"), "{none}: {said}");
    }
}

#[test]
fn a_full_disk_leaves_the_file_as_it_was() {
    let test = "a_full_disk_leaves_the_file_as_it_was";
    if !can_run("prlimit", &["--version"]) {
        return skip(test, "there is no prlimit");
    }
    let scene = Scene::new();
    let before = format!("# {}\n", "x".repeat(100));
    fs::write(scene.path("kept"), &before).unwrap();
    let command = format!(
        "trap '' XFSZ; exec prlimit --fsize=150 {} heads log --append kept",
        env!("CARGO_BIN_EXE_tracing-audit")
    );
    let (code, _, error) = said(Command::new("sh").args(["-c", &command]).current_dir(scene.dir.path()));
    assert!(code == 2 && error.contains("cannot append the heads to kept"), "{error}");
    assert_eq!(fs::read_to_string(scene.path("kept")).unwrap(), before);
    assert_eq!(scene.run(&["heads", "log", "--append", "kept"]).0, 0);
    assert_eq!(fs::read_to_string(scene.path("kept")).unwrap(), before + &scene.run(&["heads", "log"]).1);
}

/// An earlier run may have appended them and failed to sync.
#[test]
fn existing_heads_are_synced_too() {
    let test = "existing_heads_are_synced_too";
    if !can_run("strace", &["-o", "/dev/null", "true"]) {
        return skip(test, "there is no strace that may trace");
    }
    let scene = Scene::new();
    assert_eq!(scene.run(&["heads", "log", "--append", "kept"]).0, 0);
    for line in [["heads", "log", "--append", "kept"], ["verify", "log", "--append-heads", "kept"]] {
        let mut strace = Command::new("strace");
        strace.args(["-f", "-y", "-e", "trace=fsync", "-o", "calls", env!("CARGO_BIN_EXE_tracing-audit")]);
        assert_eq!(said(strace.args(line).current_dir(scene.dir.path())).0, 0);
        let calls = fs::read_to_string(scene.path("calls")).unwrap();
        let synced = |name: &str| calls.lines().any(|call| call.contains(&format!("{name}>) = 0")));
        let dir = scene.dir.path().canonicalize().unwrap();
        assert!(synced("/kept") && synced(dir.to_str().unwrap()), "{line:?}: {calls}");
    }
}

#[test]
fn a_link_into_the_log_and_a_pipe_are_refused() {
    let scene = Scene::new();
    symlink("log/heads", scene.path("link")).unwrap();
    symlink("link", scene.path("other")).unwrap();
    for file in ["link", "other"] {
        let (code, _, said) = scene.run(&["heads", "log", "--append", file]);
        assert!(code == 2 && said.contains("is in the directory of the log"), "{file}: {said}");
    }
    assert!(!scene.log().join("heads").exists());
    assert!(Command::new("mkfifo").arg(scene.path("pipe")).status().unwrap().success());
    let mut command = Command::new("timeout");
    command.args(["20", env!("CARGO_BIN_EXE_tracing-audit"), "heads", "log", "--append", "pipe"]);
    let (code, _, error) = said(command.current_dir(scene.dir.path()));
    assert!(
        code == 2 && error.contains("pipe is not a file that heads can be appended to"),
        "{code} {error}"
    );
}
