//! `tail`.

use std::{
    fs,
    io::{BufRead as _, BufReader},
    process::{Child, ChildStdout, Command, Stdio},
};

use tracing_audit::AuditLog;

use super::crafted::Crafted;
use crate::place::Place;

/// A running `tail -f`.
pub(crate) struct Tail {
    child: Child,
    out: BufReader<ChildStdout>,
}

impl Tail {
    pub(crate) fn start(mut command: Command) -> Self {
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        let out = BufReader::new(child.stdout.take().unwrap());
        Self { child, out }
    }

    /// Reads lines up to the first one that matches.
    pub(crate) fn read_until(&mut self, is_last: impl Fn(&str) -> bool) -> Vec<String> {
        let mut lines = Vec::new();
        loop {
            let mut line = String::new();
            assert!(self.out.read_line(&mut line).unwrap() > 0, "tail ended behind {lines:#?}");
            lines.push(line.trim_end().to_owned());
            if is_last(&line) {
                return lines;
            }
        }
    }
}

impl Drop for Tail {
    fn drop(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

fn command(line: &str, log: &Crafted) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tracing-audit"));
    command.args(line.split(' ')).arg(log.path()).stdin(Stdio::null());
    command
}

#[test]
fn the_newest_records_are_printed_in_order() {
    let (place, _) = Place::new();
    let (code, said, error) = place.run("tail log -n 3");
    assert_eq!((code, error.as_str()), (0, ""));
    let lines: Vec<&str> = said.lines().collect();
    assert!(
        matches!(lines.as_slice(), [a, b, c] if a.contains("000/11 ") && b.contains("000/12 ") && c.contains("000/13 ")),
        "{said}"
    );
    assert!(lines[0].contains("  event     item.seen             mia             -         n=8"), "{said}");
    assert_eq!(place.run("tail log").1.lines().count(), 10);
    assert_eq!(place.run("tail log -n 0"), (0, String::new(), String::new()));
    assert_eq!(place.run("tail log -n 1000").1.lines().count(), 13);
    // Raw lines.
    let whole = fs::read_to_string(place.path("log/audit-000-00000001.jsonl")).unwrap();
    assert_eq!(place.run("tail log -n 1000 --json").1, whole);
}

#[test]
fn the_newest_matches_are_printed() {
    let (place, _) = Place::new();
    place.emit(20);
    let (code, said, _) = place.run("tail log -n 2 --kind open");
    assert!(
        code == 0 && said.lines().count() == 2 && said.contains("000/2 ") && said.contains("000/14 "),
        "{said}"
    );
    let (_, said, _) = place.run("tail log -n 1 --kind open");
    assert!(said.lines().count() == 1 && said.contains("000/14 "), "{said}");
    assert_eq!(place.run("tail log -n 3 --field n=1").1.lines().count(), 2);
    assert_eq!(place.run("tail log --actor nobody"), (0, String::new(), String::new()));
    assert_eq!(place.run("tail log -n 100 --seq 5..7").1.lines().count(), 3);
    assert_eq!(place.run("tail log --until 2020-01-01"), (0, String::new(), String::new()));
}

#[test]
fn unreadable_logs_and_lines_are_reported_with_a_remedy() {
    let (place, _) = Place::new();
    let file = place.path("log/audit-000-00000001.jsonl");
    fs::write(place.path("x.jsonl"), "").unwrap();
    fs::create_dir(place.path("empty")).unwrap();
    fs::create_dir(place.path("packed")).unwrap();
    fs::write(place.path("packed/audit-000-00000001.jsonl.zst"), "").unwrap();
    for (line, words) in [
        ("tail nowhere", "there is no audit log at nowhere: there is no such directory"),
        ("tail x.jsonl", "x.jsonl: it is a file; name the directory"),
        ("tail empty", "there is no audit log at empty: the directory is empty"),
        ("tail packed", "its segments are compressed, as audit-000-00000001.jsonl.zst; unpack a copy"),
        ("show packed 0/1", "its segments are compressed, as audit-000-00000001.jsonl.zst; unpack a copy"),
        ("doctor packed", "its segments are compressed, as audit-000-00000001.jsonl.zst; unpack a copy"),
    ] {
        let (code, said, error) = place.run(line);
        assert!(code == 2 && said.is_empty() && error.contains(words), "{line}: {error}");
    }
    // Lines that are not records are reported between the records.
    fs::write(&file, fs::read_to_string(&file).unwrap().replacen("mia", "eve", 1)).unwrap();
    let (code, said, _) = place.run("tail log -n 100");
    assert_eq!(code, 1);
    assert!(
        said.contains("-- ") && said.contains("run `tracing-audit verify log` to see what happened"),
        "{said}"
    );
    let (code, said, error) = place.run("tail log -n 100 --json");
    assert!(
        code == 1 && said.lines().all(|line| line.starts_with('{')) && error.contains("verify log"),
        "{error}"
    );
}

#[test]
fn withdrawn_records_are_reported() {
    let mut log = Crafted::new();
    log.event("");
    log.event(",\"durable\":2");
    let (seq, hash, end) = (log.seq, log.hash.clone(), log.bytes());
    log.event("");
    log.event("");
    let mut tail = Tail::start(command("tail -f -n 100", &log));
    let shown = tail.read_until(|line| line.contains("000/6 "));
    assert!(
        shown.iter().any(|line| line.contains("000/5 ") && line.contains("not yet durable")),
        "{shown:#?}"
    );
    // A power cut lost the last two records, and the next run used their numbers again.
    (log.seq, log.hash) = (seq, hash);
    let time = "2026-11-21T08:00:00.000000000Z";
    log.segment(&format!(r#"{{"segment":1,"bytes":{end},"from":"{time}","to":"{time}"}}"#));
    log.event("");
    let said = tail.read_until(|line| line.contains("000/6 "));
    let words = "-- records 5 to 6 of chain 000, shown above, were withdrawn: they were never acknowledged";
    assert_eq!(said[0], words, "{said:#?}");
    assert!(said[1].contains("000/5 ") && said[1].contains("segment"), "{said:#?}");
}

#[test]
fn a_record_named_unconfirmed_later_is_reported() {
    let mut log = Crafted::new();
    log.event("");
    let mut tail = Tail::start(command("tail -f --actor b", &log));
    tail.read_until(|line| line.contains("000/3 "));
    log.event("");
    // The record is shown before a line names it.
    let shown = tail.read_until(|line| line.contains("000/4 "));
    assert!(!shown[0].contains("UNCONFIRMED"), "{shown:#?}");
    log.line(r#""kind":"unconfirmed","unconfirmed":{"reason":"timeout","records":[[4,4]]},"durable":4"#);
    log.event("");
    let said = tail.read_until(|line| line.contains("000/6 "));
    assert!(said[0].starts_with("-- record 000/4 above is UNCONFIRMED: "), "{said:#?}");
    assert_eq!(said.len(), 2, "{said:#?}");
    // A new `tail` shows the mark in the line itself.
    let mut again = Tail::start(command("tail -f --actor b", &log));
    let shown = again.read_until(|line| line.contains("000/6 "));
    assert!(
        shown[1].contains("000/4 ") && shown[1].contains("UNCONFIRMED") && shown.len() == 3,
        "{shown:#?}"
    );
}

#[test]
fn an_empty_directory_can_be_followed() {
    let place = Place::new().0;
    fs::create_dir(place.path("new")).unwrap();
    let mut tail = Tail::start(place.command("tail -f new"));
    AuditLog::builder(place.path("new")).stderr(false).open().unwrap().close().unwrap();
    let shown = tail.read_until(|line| line.contains("  close"));
    assert_eq!(shown.len(), 3, "{shown:#?}");
}

#[test]
fn a_closed_pipe_ends_tail_silently() {
    let place = Place::new().0;
    place.emit(5_000);
    // Once with more output than fits into a pipe, once following an idle log with nothing to write.
    for line in ["tail log -n 100000", "tail log -n 100000 --json", "tail log -f -n 1", "show log 000/5"] {
        let mut child = place.command(line).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let mut read = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut read).unwrap();
        let ended = child.wait_with_output().unwrap();
        assert_eq!((ended.status.code(), ended.stderr.as_slice()), (Some(0), &b""[..]), "{line}");
    }
}
