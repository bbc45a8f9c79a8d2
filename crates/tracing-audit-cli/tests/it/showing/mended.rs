//! Regressions: each of these was a bug that users met.

use std::{
    ffi::OsStr,
    fs,
    io::Write as _,
    os::unix::{ffi::OsStrExt as _, process::ExitStatusExt as _},
    path::Path,
    process::{Command, Output, Stdio},
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::Duration,
};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tracing_audit::{AuditLog, FlushMode};
use tracing_subscriber::prelude::*;

use super::{crafted::Crafted, tail::Tail};
use crate::place::{Place, can_run, on_terminal, skip};

fn run(arguments: &[&OsStr], dir: &Path) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tracing-audit"));
    command.args(arguments).current_dir(dir).stdin(Stdio::null()).output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

/// Records were once counted back from one end of the log, and then shown up to a newer one.
#[test]
fn the_newest_matches_are_printed_while_others_are_written() {
    let place = Place::new().0;
    let builder = AuditLog::builder(place.path("log")).stderr(false);
    let log = builder
        .flush_mode(FlushMode::Batched { size: 100, interval: Duration::from_millis(10) })
        .open()
        .unwrap();
    let is_over = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            tracing::subscriber::with_default(tracing_subscriber::registry().with(log.layer()), || {
                tracing::info!(target: "audit", action = "rare");
                while !is_over.load(Ordering::Relaxed) {
                    for n in 0..20 {
                        tracing::info!(target: "audit", action = "often", n);
                    }
                    thread::sleep(Duration::from_millis(1));
                }
            });
        });
        thread::sleep(Duration::from_millis(200));
        let runs: Vec<_> = (0..5).map(|_| place.run("tail log -n 1 --action rare")).collect();
        is_over.store(true, Ordering::Relaxed);
        for (code, said, error) in runs {
            assert!(code == 0 && said.lines().count() == 1 && said.contains("rare"), "{code} {said} {error}");
        }
    });
    log.close().unwrap();
}

#[test]
fn a_line_that_is_not_a_record_is_not_called_durable() {
    let mut log = Crafted::new();
    log.event("");
    log.line(r#""kind":"unconfirmed","unconfirmed":{"reason":"timeout","records":[[3,3]]},"durable":3"#);
    log.event("");
    let whole = fs::read_to_string(log.file()).unwrap();
    fs::write(log.file(), whole.replacen(r#""actor":"b""#, r#""actor":"x""#, 1)).unwrap();
    let show = |arguments: &[&str]| {
        let all: Vec<&OsStr> = arguments.iter().map(OsStr::new).collect();
        let said =
            run(&[&[OsStr::new("show"), log.path().as_os_str()], all.as_slice()].concat(), &log.path());
        text(&said.stdout)
    };
    let said = show(&["0/3"]);
    assert!(said.contains("durable   not known") && said.contains("UNCONFIRMED"), "{said}");
    let said: Value = serde_json::from_str(&show(&["0/3", "--json"])).unwrap();
    assert_eq!((&said["provisional"], &said["unconfirmed"]), (&Value::Null, &Value::Bool(true)));
}

/// A log of two chains, of which the second names record 3 of the first.
fn with_another_chain() -> Crafted {
    let mut log = Crafted::new();
    log.event("");
    log.event("");
    let first = fs::read_to_string(log.file()).unwrap();
    let mut other = Crafted::of_chain(1, "2026-11-21T09:00:00.000000000Z");
    other.line(r#""kind":"unconfirmed","unconfirmed":{"reason":"timeout","chain":"000","id":"5f1c2a9be07d4c3388a1d6e2b94f7013","records":[[3,3]]}"#);
    assert!(first.contains("5f1c2a9be07d4c3388a1d6e2b94f7013"));
    fs::copy(other.file(), log.path().join("audit-001-00000001.jsonl")).unwrap();
    log
}

#[test]
fn a_record_named_unconfirmed_by_another_chain_is_marked() {
    let log = with_another_chain();
    let said = |line: &[&str]| {
        let all: Vec<&OsStr> = line.iter().map(OsStr::new).collect();
        text(&run(&all, &log.path()).stdout)
    };
    let shown = said(&["tail", "."]);
    let line = shown.lines().find(|line| line.contains("000/3 ")).unwrap();
    assert!(line.contains("UNCONFIRMED"), "{shown}");
    assert!(!shown.lines().any(|line| line.contains("000/4 ") && line.contains("UNCONFIRMED")), "{shown}");
    assert!(said(&["tail", ".", "--chain", "0"]).contains("UNCONFIRMED"));
    assert!(said(&["show", ".", "0/3"]).contains("UNCONFIRMED"));
    assert!(!said(&["show", ".", "0/4"]).contains("UNCONFIRMED"));
}

fn heads_checks(log: &Path, heads: &str) -> Vec<(String, String)> {
    fs::write(log.join("../heads"), heads).unwrap();
    let said = run(
        &[
            OsStr::new("doctor"),
            log.as_os_str(),
            OsStr::new("--json"),
            OsStr::new("--heads"),
            log.join("../heads").as_os_str(),
        ],
        log,
    );
    let said: Value = serde_json::from_str(&text(&said.stdout)).unwrap();
    let checks = said["checks"].as_array().unwrap().iter().filter(|one| one["check"] == "heads");
    checks
        .map(|one| (one["state"].as_str().unwrap().to_owned(), one["found"].as_str().unwrap().to_owned()))
        .collect()
}

#[test]
fn a_truncation_is_found_whatever_the_order_of_kept_heads() {
    let (place, head) = Place::new();
    let (log, hash) = (place.path("log"), "ab".repeat(32));
    let [(state, found)] = heads_checks(&log, &format!("000/99:{hash}\n{head}\n")).try_into().unwrap();
    assert!(state == "do" && found.contains("000/99 of the newest kept head is missing"), "{found}");
    // The file is read as by `verify`: comments are ignored, and a line that is not a head is reported.
    let [(state, found)] = heads_checks(&log, &format!("{head} # not 000/99:{hash}\n")).try_into().unwrap();
    assert!(state == "ok", "{found}");
    let [(state, found)] = heads_checks(&log, &format!("daily {head}\n")).try_into().unwrap();
    assert!(state == "do" && found.contains("line 1") && found.contains("is not a head"), "{found}");
}

#[test]
fn each_chain_needs_a_head_of_its_own() {
    // Chain 000 continues for days after its kept head; chain 001 ends with its own.
    let (mut log, dir) = (Crafted::new(), tempfile::tempdir().unwrap());
    log.event("");
    let head = format!("000/{}:{}", log.seq, log.hash);
    let mut other = Crafted::of_chain(1, "2026-11-20T09:00:00.000000000Z");
    other.event(",\"durable\":2");
    let second = format!("001/{}:{}", other.seq, other.hash);
    let place = dir.path().join("log");
    fs::create_dir(&place).unwrap();
    log.event(",\"durable\":3");
    log.event(",\"durable\":4");
    fs::copy(log.file(), place.join("audit-000-00000001.jsonl")).unwrap();
    fs::copy(other.file(), place.join("audit-001-00000001.jsonl")).unwrap();
    let checks = heads_checks(&place, &format!("{head}\n{second}\n"));
    assert!(
        checks
            .iter()
            .any(|(state, found)| state == "do"
                && found.contains("no kept head covers chain 000 from record 4")),
        "{checks:#?}"
    );
}

#[test]
#[expect(clippy::disallowed_methods, reason = "a log at rest gets another name")]
fn json_of_doctor_and_show_cannot_move_a_terminal() {
    let place = Place::new().0;
    let name = "log\u{9b}31m\u{202e}";
    fs::rename(place.path("log"), place.path(name)).unwrap();
    fs::write(place.path(name).join("x\u{9b}2J"), "").unwrap();
    for line in [vec!["doctor", name, "--json"], vec!["show", name, "0/3", "--json"]] {
        let all: Vec<&OsStr> = line.iter().map(OsStr::new).collect();
        let said = text(&run(&all, &place.path("")).stdout);
        assert!(!said.contains(['\u{9b}', '\u{202e}']), "{said:?}");
        assert!(line[0] == "show" || said.contains("\\u009b"), "{said:?}");
        serde_json::from_str::<Value>(&said).unwrap();
    }
}

#[test]
fn doctor_needs_little_memory_for_large_records() {
    let name = "doctor_needs_little_memory_for_large_records";
    let place = Place::new().0;
    let log = AuditLog::builder(place.path("log")).stderr(false).open().unwrap();
    let wide = "x".repeat(7_000);
    tracing::subscriber::with_default(tracing_subscriber::registry().with(log.layer()), || {
        for _ in 0..3_000 {
            tracing::info!(target: "audit", action = "a", a = wide, b = wide, c = wide, d = wide, e = wide);
        }
    });
    log.close().unwrap();
    let bytes: u64 =
        tracing_audit::segments(place.path("log")).unwrap().iter().map(tracing_audit::Segment::bytes).sum();
    assert!(bytes > 90 << 20, "{bytes}");
    let doctor = |log: &str| {
        let limit = "ulimit -v 90000 && exec \"$@\"";
        let mut command = Command::new("sh");
        command.args(["-c", limit, "sh", env!("CARGO_BIN_EXE_tracing-audit"), "doctor", log]);
        command.current_dir(place.path("")).output().unwrap()
    };
    place.run("demo small --events 100");
    if doctor("small").stdout.is_empty() {
        return skip(name, "it needs a shell that limits memory");
    }
    let output = doctor("log");
    assert!(text(&output.stdout).contains("OK    losses"), "{output:?}");
}

#[test]
fn printed_commands_can_be_run_in_a_shell() {
    let place = Place::new().0;
    if !can_run("bash", &["-c", "true"]) {
        return skip("printed_commands_can_be_run_in_a_shell", "it needs bash");
    }
    for name in [&b"a b'c"[..], b"-x", b"odd\xff\x1bname\n\xe2\x80\xae", b"$(touch pwned)"] {
        let name = OsStr::from_bytes(name);
        let output = run(
            &[
                OsStr::new("demo"),
                OsStr::new("--events"),
                OsStr::new("300"),
                OsStr::new("--damage"),
                OsStr::new("edit"),
                OsStr::new("--"),
                name,
            ],
            &place.path(""),
        );
        let said = text(&output.stdout);
        assert!(output.status.success(), "{output:?}");
        assert!(!said.contains(['\u{1b}', '\u{202e}']), "{said:?}");
        let commands: Vec<&str> = said.lines().filter(|line| line.starts_with("  tracing-audit ")).collect();
        assert_eq!(commands.len(), 7, "{said}");
        // The argument of `verify` may be a URL, so a path that is not UTF-8 is skipped for it.
        let is_text = name.to_str().is_some();
        for line in commands.into_iter().filter(|line| is_text || !line.contains(" verify ")) {
            let line = line.trim().replacen("tracing-audit", env!("CARGO_BIN_EXE_tracing-audit"), 1);
            let ended =
                Command::new("bash").args(["-c", &line]).current_dir(place.path("")).output().unwrap();
            // Exit code 1 is right too: the damaged copy fails, and `doctor` may find something to do.
            assert!(matches!(ended.status.code(), Some(0 | 1)), "{line}: {ended:?}");
        }
    }
    assert!(!place.path("pwned").exists());
}

#[test]
#[expect(clippy::disallowed_methods, reason = "a log at rest gets another name")]
fn remedies_of_doctor_are_quoted_and_complete() {
    let place = Place::new().0;
    fs::rename(place.path("log"), place.path("a b")).unwrap();
    fs::write(place.path("a b/hold"), "").unwrap();
    let said = text(&run(&["doctor", "a b"].map(OsStr::new), &place.path("")).stdout);
    assert!(said.contains("`tracing-audit hold 'a b' --release --reason WHY`"), "{said}");
}

#[test]
fn a_bad_argument_cannot_move_a_terminal_or_forge_a_line() {
    let place = Place::new().0;
    let bad = "\u{1b}[31m\u{202e}x\nPASS: intact";
    for arguments in [
        vec!["tail", "log", "--since", bad],
        vec![bad],
        vec!["tail", bad],
        vec!["show", "log", bad],
        vec!["tail", "log", "--kind", bad],
    ] {
        let mut command = Command::new(env!("CARGO_BIN_EXE_tracing-audit"));
        command.args(&arguments).current_dir(place.path("")).env("NO_COLOR", "1");
        let said = on_terminal(command, 100);
        assert!(
            !said.contains(['\u{1b}', '\u{202e}']) && !said.contains("\nPASS"),
            "{arguments:?}: {said:?}"
        );
        assert!(said.contains("\\u{202e}x\\u{a}"), "{arguments:?}: {said:?}");
    }
}

#[test]
fn a_line_too_long_for_a_record_is_reported_as_such() {
    let mut log = Crafted::new();
    log.event("");
    let mut file = fs::OpenOptions::new().append(true).open(log.file()).unwrap();
    writeln!(file, "{}", "x".repeat(2 << 20)).unwrap();
    let said =
        text(&run(&[OsStr::new("show"), log.path().as_os_str(), OsStr::new("0/4")], &log.path()).stdout);
    assert!(
        said.contains("longer than 1 MiB") && !said.contains("sha256sum") && said.len() < 2_000,
        "{} {said:.300}",
        said.len()
    );
}

#[test]
fn missing_records_are_reported_between_the_lines() {
    let mut log = Crafted::new();
    let first = log.file();
    for _ in 0..3 {
        let (time, end) = (log.time.clone(), log.bytes());
        log.event("");
        log.segment(&format!(r#"{{"segment":1,"bytes":{end},"from":"{time}","to":"{time}"}}"#));
        log.event("");
    }
    // Remove the second of four segments.
    fs::remove_file(first.with_file_name("audit-000-00000002.jsonl")).unwrap();
    let output = run(&["tail", ".", "-n", "100"].map(OsStr::new), &log.path());
    let said = text(&output.stdout);
    assert!(
        said.contains("of chain 000 are missing here: removed by retention, or no longer records"),
        "{said}"
    );
    assert_eq!(output.status.code(), Some(1));
}

#[test]
fn a_silent_writer_and_a_slow_disk_are_reported() {
    use rustix::fs::{FlockOperation, flock};
    let mut log = Crafted::new();
    log.event("");
    fs::create_dir(log.path().join("control")).unwrap();
    let held = fs::File::create(log.path().join("control/chain-000.lock")).unwrap();
    let look = || text(&run(&["doctor", "."].map(OsStr::new), &log.path()).stdout);
    assert!(!look().contains("its program wrote nothing") && !look().contains("not known to be durable"));
    flock(&held, FlockOperation::LockExclusive).unwrap();
    let said = look();
    assert!(said.contains("DO    last record   chain 000: its program has written nothing for"), "{said}");
    assert!(
        said.contains("DO    unsynced      chain 000: ")
            && said.contains("records are not known to be durable"),
        "{said}"
    );
}

#[test]
fn a_nearly_full_disk_is_reported() {
    let mount = "mkdir m && mount -t tmpfs -o mode=0700,size=40m tmpfs m && cp -a log/. m && exec \"$@\"";
    let place = Place::new().0;
    if !can_run("unshare", &["--mount", "true"]) {
        return skip("a_nearly_full_disk_is_reported", "it needs a mount of its own");
    }
    let mut command = Command::new("unshare");
    command.args(["--mount", "sh", "-c", mount, "sh", env!("CARGO_BIN_EXE_tracing-audit"), "doctor", "m"]);
    let said = text(&command.current_dir(place.path("")).output().unwrap().stdout);
    assert!(said.contains("DO    free space    39 MiB"), "{said}");
}

#[test]
fn an_interrupt_ends_a_command_by_the_signal() {
    let place = Place::new().0;
    let mut command = place.command("tail -f log");
    let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
    // Once it has printed something, it is following.
    std::io::Read::read_exact(child.stdout.as_mut().unwrap(), &mut [0]).unwrap();
    kill_process(Pid::from_child(&child), Signal::INT).unwrap();
    let ended = child.wait().unwrap();
    assert_eq!((ended.signal(), ended.code()), (Some(2), None));
}

#[test]
fn following_begins_at_the_oldest_match() {
    let mut log = Crafted::new();
    for _ in 0..5 {
        log.event("");
    }
    let mut command = Command::new(env!("CARGO_BIN_EXE_tracing-audit"));
    command.args(["tail", "-f", "-n", "2", "--actor", "b"]).arg(log.path());
    let mut tail = Tail::start(command);
    let shown = tail.read_until(|line| line.contains("000/7 "));
    assert!(shown.len() == 2 && shown[0].contains("000/6 "), "{shown:#?}");
    log.event("");
    assert_eq!(tail.read_until(|_| true).len(), 1);
}
