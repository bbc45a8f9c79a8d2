//! Kept heads.

use std::{fs, os::unix::fs::PermissionsExt as _};

use tracing_audit::AuditLog;

use super::logs::{Scene, emit};
use crate::place::skip;

#[test]
fn heads_are_printed_in_the_form_that_verify_accepts() {
    let scene = Scene::new();
    let (code, heads, said) = scene.run(&["heads", "log"]);
    assert_eq!((code, said.as_str()), (0, ""));
    assert_eq!(heads.lines().map(|head| &head[..4]).collect::<Vec<_>>(), ["000/", "001/"]);
    fs::write(scene.path("kept"), format!("# of the first day\n\n{heads}")).unwrap();
    let (code, text, _) = scene.run(&["verify", "log", "--heads", "kept"]);
    assert!(code == 0 && text.starts_with("PASS: "), "{text}");
    assert!(text.contains("The newest head that was given for chain 000 is of record 35"), "{text}");
    // Without a lock file and without a witness in another chain, only a kept head shows the truncation.
    scene.edit(1, 1, |lines| lines.truncate(5));
    fs::remove_dir_all(scene.log().join("control")).unwrap();
    assert_eq!(scene.run(&["verify", "log"]).0, 3);
    assert_eq!(scene.run(&["verify", "log", "--heads", "kept"]).0, 1);
    assert_eq!(scene.run(&["verify", "log", "--head", heads.lines().nth(1).unwrap()]).0, 1);
    fs::write(scene.path("kept"), "000/35:abc\n").unwrap();
    let (code, _, said) = scene.run(&["verify", "log", "--heads", "kept"]);
    assert!(code == 2 && said.contains("line 1 of kept is not a head"), "{said}");
    let (code, _, said) = scene.run(&["verify", "log", "--heads", "nothing"]);
    assert!(code == 2 && said.contains("cannot read the heads in nothing"), "{said}");
}

/// The heads of a log that is being written are durable, so the log still has those records later.
#[test]
fn the_heads_of_a_live_log_stay_valid() {
    let scene = Scene::new();
    let log = AuditLog::builder(scene.log()).stderr(false).open().unwrap();
    emit(&log, 5);
    let (code, heads, _) = scene.run(&["heads", "log"]);
    assert_eq!((code, heads.lines().count()), (0, 2));
    let records: Vec<_> = tracing_audit::read(scene.log()).unwrap().map(Result::unwrap).collect();
    assert!(records.iter().any(tracing_audit::Record::is_provisional));
    for head in heads.lines() {
        let record = records.iter().find(|record| record.head().to_string() == head).unwrap();
        assert!(!record.is_provisional(), "{head}");
    }
    emit(&log, 5);
    fs::write(scene.path("kept"), heads).unwrap();
    assert_eq!(scene.run(&["verify", "log", "--heads", "kept"]).0, 0);
    log.close().unwrap();
    assert_eq!(scene.run(&["verify", "log", "--heads", "kept"]).0, 0);
}

#[test]
fn heads_are_appended_durably_once_and_for_the_owner_only() {
    let scene = Scene::new();
    assert_eq!(scene.run(&["heads", "log", "--append", "kept"]), (0, String::new(), String::new()));
    let kept = fs::read_to_string(scene.path("kept")).unwrap();
    assert_eq!(kept.lines().count(), 2);
    assert_eq!(fs::metadata(scene.path("kept")).unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(scene.run(&["heads", "log", "--append", "kept"]).0, 0);
    assert_eq!(fs::read_to_string(scene.path("kept")).unwrap(), kept);
    // A file that was edited by hand may lack its last line feed.
    fs::write(scene.path("kept"), kept.lines().next().unwrap()).unwrap();
    assert_eq!(scene.run(&["heads", "log", "--append", "kept"]).0, 0);
    assert_eq!(fs::read_to_string(scene.path("kept")).unwrap(), kept);
}

#[test]
fn heads_are_not_kept_in_their_own_log() {
    let scene = Scene::new();
    std::os::unix::fs::symlink(scene.log(), scene.path("elsewhere")).unwrap();
    for file in ["log/heads", "log/control/heads", "elsewhere/heads", "./log/../log/heads"] {
        for line in [["heads", "log", "--append", file], ["verify", "log", "--append-heads", file]] {
            let (code, _, said) = scene.run(&line);
            assert!(code == 2 && said.contains("is in the directory of the log"), "{file}: {said}");
        }
    }
    assert!(!scene.log().join("heads").exists() && !scene.log().join("control/heads").exists());
}

/// The daily job.
#[test]
fn verify_checks_the_kept_heads_and_appends_the_new_ones() {
    let scene = Scene::new();
    let daily = ["verify", "log", "--append-heads", "kept"];
    let (code, text, said) = scene.run(&daily);
    assert!(code == 0 && text.starts_with("PASS: "), "{text}");
    assert_eq!(said, "kept is new: there was no head yet to check against\n");
    assert_eq!(fs::metadata(scene.path("kept")).unwrap().permissions().mode() & 0o777, 0o600);
    let first = fs::read_to_string(scene.path("kept")).unwrap();
    assert_eq!(first, scene.run(&["heads", "log"]).1);
    assert_eq!(scene.run(&daily).0, 0);
    assert_eq!(fs::read_to_string(scene.path("kept")).unwrap(), first);
    let log = AuditLog::builder(scene.log()).stderr(false).open().unwrap();
    emit(&log, 5);
    // This also works while the log is being written.
    assert_eq!(scene.run(&daily).0, 0);
    log.close().unwrap();
    assert_eq!(scene.run(&daily).0, 0);
    let kept = fs::read_to_string(scene.path("kept")).unwrap();
    assert!(kept.starts_with(&first) && kept.lines().count() == 4, "{kept}");
    // A truncated tail, which the files alone do not show, and which must not become a kept head.
    fs::remove_dir_all(scene.log().join("control")).unwrap();
    for number in 1.. {
        if !scene.segment(0, number + 1).exists() {
            scene.edit(0, number, |lines| lines.truncate(lines.len() - 2));
            break;
        }
    }
    let (code, text, said) = scene.run(&daily);
    assert!(code == 1 && text.starts_with("FAIL: "), "{text}");
    assert_eq!(said, "no head was appended to kept, since the result is FAIL\n");
    assert_eq!(fs::read_to_string(scene.path("kept")).unwrap(), kept);
}

/// Checks the units in docs/operations.md with the built command, and runs their command on a log.
#[test]
fn systemd_accepts_the_timer_in_the_documentation() {
    let test = "systemd_accepts_the_timer_in_the_documentation";
    let scene = Scene::new();
    let page = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/operations.md")).unwrap();
    let section = page.split("\n### A daily check\n").nth(1).unwrap();
    let units: Vec<&str> =
        section.split("```ini\n").skip(1).map(|unit| unit.split("```").next().unwrap()).take(2).collect();
    let command = units[0].lines().find_map(|line| line.strip_prefix("ExecStart=")).unwrap();
    let arguments: Vec<String> = command
        .split(' ')
        .skip(1)
        .map(|word| word.replace("/var/lib/myapp/audit-log", "log").replace("/var/lib/auditor/", ""))
        .collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    for _ in 0..2 {
        assert_eq!(scene.run(&arguments).0, 0);
    }
    assert_eq!(fs::read_to_string(scene.path("heads")).unwrap().lines().count(), 2);
    let program = command.split(' ').next().unwrap();
    fs::write(
        scene.path("audit-verify.service"),
        units[0].replace(program, env!("CARGO_BIN_EXE_tracing-audit")),
    )
    .unwrap();
    fs::write(scene.path("audit-verify.timer"), units[1]).unwrap();
    let mut analyze = std::process::Command::new("systemd-analyze");
    let analyze = analyze.arg("verify").current_dir(scene.dir.path());
    let Ok(output) = analyze.args(["./audit-verify.service", "./audit-verify.timer"]).output() else {
        return skip(test, "there is no systemd-analyze");
    };
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success() && said.is_empty(), "{said}");
}
