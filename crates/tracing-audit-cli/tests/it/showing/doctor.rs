//! `doctor`.

use std::{
    fs,
    os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink},
};

use serde_json::Value;
use tracing_audit::AuditLog;

use super::crafted::Crafted;
use crate::place::{Place, can_run, skip};

/// Runs `doctor`. Returns the exit code, and the name, state and finding of each check.
fn look(place: &Place, line: &str) -> (i32, Vec<(String, String, String)>) {
    let (code, said, error) = place.run(&format!("doctor {line} --json"));
    assert!(!said.is_empty(), "{error}");
    let said: Value = serde_json::from_str(&said).unwrap();
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let checks = said["checks"].as_array().unwrap().iter();
    let checks: Vec<_> =
        checks.map(|one| (text(&one["check"]), text(&one["state"]), text(&one["found"]))).collect();
    let needs_doing = checks.iter().filter(|(_, state, _)| state == "do").count();
    assert_eq!(said["needs_doing"], needs_doing);
    assert_eq!(code, i32::from(needs_doing > 0));
    (code, checks)
}

#[track_caller]
fn assert_found(checks: &[(String, String, String)], check: &str, state: &str, words: &str) {
    let is_found = checks.iter().any(|one| one.0 == check && one.1 == state && one.2.contains(words));
    assert!(is_found, "{check} {state} {words}: {checks:#?}");
}

#[test]
fn a_log_in_order_needs_nothing() {
    let (place, head) = Place::new();
    fs::write(place.path("heads"), format!("{head}\n")).unwrap();
    let before = listing(&place);
    let (code, checks) = look(&place, "log --heads heads --max-age 30d");
    // The disk of the test machine may be full, or a tmpfs.
    let is_ours = |one: &&(String, String, String)| !["file system", "free space"].contains(&one.0.as_str());
    assert!(checks.iter().filter(is_ours).all(|one| one.1 == "ok"), "{code}: {checks:#?}");
    assert_eq!(listing(&place), before);
    let (_, said, _) = place.run("doctor log");
    assert!(said.contains("OK    permissions ") && said.contains("WARN  heads "), "{said}");
}

fn listing(place: &Place) -> Vec<(String, u64, i64, i64)> {
    let mut all = Vec::new();
    for dir in ["log", "log/control"] {
        for entry in fs::read_dir(place.path(dir)).unwrap() {
            let entry = entry.unwrap();
            let data = entry.metadata().unwrap();
            let name = entry.file_name().to_string_lossy().into_owned();
            all.push((name, data.len(), data.mtime(), data.mtime_nsec()));
        }
    }
    all.sort();
    all
}

#[test]
fn write_access_and_foreign_files_are_reported() {
    let (place, _) = Place::new();
    let mode =
        |name: &str, mode| fs::set_permissions(place.path(name), fs::Permissions::from_mode(mode)).unwrap();
    mode("log", 0o775);
    mode("log/audit-000-00000001.jsonl", 0o666);
    mode("log/control/chain-000.lock", 0o644);
    fs::write(place.path("log/.audit.swp"), "").unwrap();
    let (code, checks) = look(&place, "log");
    assert_eq!(code, 1);
    assert_found(&checks, "permissions", "do", "others than the owner may write log (mode 775)");
    assert_found(&checks, "permissions", "do", "audit-000-00000001.jsonl (mode 666)");
    assert_found(&checks, "permissions", "do", "others may read log/control/chain-000.lock");
    assert_found(&checks, "permissions", "warn", "everybody on this machine");
    assert_found(&checks, "files", "warn", ".audit.swp");
    mode("log", 0o700);
    symlink(place.path("log"), place.path("link")).unwrap();
    assert_found(&look(&place, "link").1, "permissions", "do", "link is a symlink");
    let name = "write_access_and_foreign_files_are_reported";
    if !rustix::process::geteuid().is_root() {
        return skip(name, "only root can give files away");
    }
    std::os::unix::fs::chown(place.path("log/audit-000-00000001.jsonl"), Some(65534), None).unwrap();
    assert_found(&look(&place, "log").1, "permissions", "do", "belongs to user 65534, the log to user 0");
}

#[test]
fn a_program_that_writes_is_named() {
    let place = Place::new().0;
    let log = AuditLog::builder(place.path("log")).stderr(false).open().unwrap();
    let (_, checks) = look(&place, "log");
    let own = format!("chain 000 is written by process {} (", std::process::id());
    assert_found(&checks, "writers", "ok", &own);
    assert_found(&checks, "ends", "ok", "");
    // `doctor` took no lock: the program still has the chain, and closes it.
    log.close().unwrap();
    assert_found(&look(&place, "log").1, "writers", "ok", "no program");
}

#[test]
fn ends_gaps_and_clocks_are_checked() {
    let place = Place::new().0;
    let mut log = Crafted::new();
    log.event("");
    log.line(r#""kind":"gap","gap":{"reason":"queue_full","critical":0,"routine":17}"#);
    log.event("");
    let file = log.file();
    let dir = log.path().display().to_string();
    let (code, checks) = look(&place, &dir);
    assert_eq!(code, 1);
    assert_found(&checks, "ends", "do", "chain 000 was not closed, and no program has it");
    assert_found(
        &checks,
        "losses",
        "warn",
        "chain 000: 1 gaps in the recent records, the last at 000/4 (queue_full)",
    );
    assert_found(&checks, "clock", "ok", "");
    let whole = fs::read_to_string(&file).unwrap();
    fs::write(&file, whole + "{\"seq\":7,\"ts").unwrap();
    assert_found(&look(&place, &dir).1, "ends", "do", "chain 000 ends with 12 bytes that are no record");
    let mut log = Crafted::at("2026-11-21T09:00:00.000000000Z");
    log.event("");
    log.time = "2026-11-21T08:00:00.000000000Z".to_owned();
    log.event("");
    log.time = "2199-01-01T00:00:00.000000000Z".to_owned();
    log.event("");
    let (_, checks) = look(&place, &log.path().display().to_string());
    assert_found(&checks, "clock", "warn", "times go back 1 times in the recent records, by 60 min at 000/4");
    assert_found(&checks, "clock", "do", "record 000/5 is");
}

#[test]
fn holds_forwarders_and_heads_are_checked() {
    let (place, head) = Place::new();
    fs::write(place.path("log/hold"), "").unwrap();
    fs::write(place.path("log/forward-required"), "archive\n").unwrap();
    fs::write(place.path("heads"), "nothing\n").unwrap();
    let (_, checks) = look(&place, "log --heads heads");
    assert_found(&checks, "hold", "warn", "a legal hold is set");
    assert_found(
        &checks,
        "forwarding",
        "do",
        "retention waits for `archive`, whose forwarder has not run here",
    );
    assert_found(&checks, "heads", "do", "line 1 of heads is not a head");
    fs::write(place.path("log/forward-required"), "No Name\n").unwrap();
    assert_found(&look(&place, "log").1, "forwarding", "do", "counts as a hold");
    let kept = |text: String| {
        fs::write(place.path("heads"), text).unwrap();
        look(&place, "log --heads heads").1
    };
    assert_found(&kept(format!("{head} # 2026-11-21T08:00:00Z\n")), "heads", "ok", "the newest kept head is");
    let other = head.to_string().replace(|digit: char| digit.is_ascii_lowercase(), "0");
    assert_found(&kept(other), "heads", "do", "does not have the hash of the kept head");
    assert_found(
        &kept(head.to_string().replace("/13:", "/99:")),
        "heads",
        "do",
        "of the newest kept head is missing",
    );
    assert_found(&look(&place, "log --heads nowhere").1, "heads", "do", "cannot read the heads in nowhere");
}

#[test]
fn expired_records_are_reported() {
    let mut log = Crafted::at("2020-01-01T00:00:00.000000000Z");
    let (time, end) = (log.time.clone(), log.bytes());
    log.segment(&format!(r#"{{"segment":1,"bytes":{end},"from":"{time}","to":"{time}"}}"#));
    let place = Place::new().0;
    let dir = log.path().display().to_string();
    assert_found(&look(&place, &format!("{dir} --max-age 90d")).1, "retention", "do", "more than 90 days");
    assert_found(&look(&place, &format!("{dir} --max-age 99y")).1, "retention", "ok", "kept for");
}

#[test]
fn a_log_in_memory_is_reported() {
    let mount = "mkdir m && mount -t tmpfs -o mode=0700 tmpfs m && cp -a log/. m && exec \"$@\"";
    let place = Place::new().0;
    if !can_run("unshare", &["--mount", "true"]) {
        return skip("a_log_in_memory_is_reported", "it needs a mount of its own");
    }
    let mut command = std::process::Command::new("unshare");
    command.args(["--mount", "sh", "-c", mount, "sh", env!("CARGO_BIN_EXE_tracing-audit"), "doctor", "m"]);
    let output = command.current_dir(place.path("")).output().unwrap();
    let said = String::from_utf8(output.stdout).unwrap();
    assert!(said.contains("DO    file system   tmpfs: the log is lost with the machine"), "{said}");
    assert_eq!(output.status.code(), Some(1));
}
