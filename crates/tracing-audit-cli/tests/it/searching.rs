//! `query` and `stats`, which must find what the library reads.

mod mended;

use std::{
    collections::BTreeMap,
    fs::{self, OpenOptions},
    io::{BufRead, BufReader, Write},
    path::Path,
    process::{Command, Stdio},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use serde_json::Value as Json;
use tracing_audit::{AuditLog, Reader, Record, RecordKind, Rotation, Severity};
use tracing_subscriber::prelude::*;

use crate::{place::Place, sealed::seal};

/// Rejects one target, so that a `confirm` with an event of it fails, and its other event is named unconfirmed.
struct Vetoes;

impl<S: tracing::Subscriber> tracing_subscriber::Layer<S> for Vetoes {
    fn event_enabled(
        &self,
        event: &tracing::Event<'_>,
        _: tracing_subscriber::layer::Context<'_, S>,
    ) -> bool {
        event.metadata().target() != "audit::vetoed"
    }
}

fn with_log(log: &AuditLog, emit: impl FnOnce()) {
    let subscriber = tracing_subscriber::registry().with(Vetoes).with(log.layer());
    tracing::subscriber::with_default(subscriber, emit);
}

fn open(path: &Path) -> AuditLog {
    let rotation = Rotation::never().max_bytes(400 << 10);
    AuditLog::builder(path).rotation(rotation).stderr(false).open().unwrap()
}

const HOSTILE: [&str; 8] = [
    "=cmd()|' /C calc'!A0",
    "<script>alert(1)</script>",
    "a\"b\\c\nd\te",
    "\u{1b}[2J\u{202e}evil\u{200b}",
    "/etc/passwd",
    "漢字 é 😀",
    "+1",
    "@x",
];

fn emit(log: &AuditLog, events: u64) {
    with_log(log, || {
        for n in 0..events {
            let hostile = HOSTILE[usize::try_from(n % 8).unwrap()];
            let filler = "x".repeat(if n % 50 == 7 { 45_000 } else { usize::try_from(n % 700).unwrap() });
            let action = ["auth.login", "auth.logout", "item.seen"][usize::try_from(n % 3).unwrap()];
            let who = format!("user-{}", n % 20);
            let outcome = if n % 5 == 0 { "denied" } else { "success" };
            tracing::info!(
                target: "audit", action, actor = who, resource = hostile, outcome, session_id = %n, request_id = %(n / 2),
                n, long = filler, hostile, half = 0.5
            );
            if n % 90 == 0 {
                tracing::warn!(target: "audit", severity = "critical", action = "key.export", actor = hostile);
            }
            if n % 60 == 30 {
                let refused = log.confirm(|| {
                    tracing::info!(target: "audit", action = "refund", actor = "mia", outcome = "success", n);
                    tracing::info!(target: "audit::vetoed", action = "x", actor = "mia");
                });
                assert!(refused.is_err());
            }
        }
    });
}

/// A log of two chains with several segments each. One has a torn tail that a later run recovered, with void lines that are
/// valid by themselves; the other has a torn tail that was not recovered.
fn eventful() -> Place {
    let (place, _) = Place::new();
    let (first, second) = (place.path("first"), place.path("log"));
    fs::remove_dir_all(&second).unwrap();
    let (one, two) = (open(&first), open(&first));
    for _ in 0..3 {
        emit(&one, 300);
        emit(&two, 200);
    }
    // The state after a power cut.
    copy(&first, &second);
    drop((one, two));
    let torn = |chain: &str, line: &str| {
        let file = newest(&second, chain);
        OpenOptions::new().append(true).open(&file).unwrap().write_all(line.as_bytes()).unwrap();
    };
    torn("000", "{\"seq\":5,\"actor\":\"user-3\"");
    let log = open(&second);
    emit(&log, 150);
    log.close().unwrap();
    torn(
        "001",
        "{\"seq\":99999,\"ts\":\"2026-11-21T08:00:00.000000000Z\",\"actor\":\"user-3\"}\n{\"actor\":\"user-3\"",
    );
    place
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap().map(Result::unwrap) {
        if entry.file_type().unwrap().is_file() {
            fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
        }
    }
}

fn files(log: &Path, chain: &str) -> Vec<std::path::PathBuf> {
    let mut files: Vec<_> = fs::read_dir(log).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.retain(|file| file.to_string_lossy().contains(&format!("audit-{chain}-")));
    files.sort();
    files
}

fn newest(log: &Path, chain: &str) -> std::path::PathBuf {
    files(log, chain).pop().unwrap()
}

fn run(place: &Place, arguments: &[&str]) -> (i32, String, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tracing-audit"));
    let output = command.args(arguments).current_dir(place.path("")).stdin(Stdio::null()).output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
}

fn read(place: &Place) -> Vec<Record> {
    Reader::new(place.path("log")).records().unwrap().filter_map(Result::ok).collect()
}

/// Checks that a query finds the records that the library reads and `is_wanted` accepts: the same lines, in the order of their
/// chains, with unconfirmed ones marked. Also checks `--count` and `--reverse`.
#[track_caller]
fn check(place: &Place, all: &[Record], arguments: &[&str], is_wanted: impl Fn(&Record) -> bool) {
    let expected: Vec<&Record> = all.iter().filter(|record| is_wanted(record)).collect();
    let query = |more: &[&str]| run(place, &[&["query", "log"], arguments, more].concat());
    let (code, lines, said) = query(&["--output", "wrapped"]);
    assert_eq!(code, i32::from(expected.is_empty()), "{arguments:?} {said}");
    assert_eq!(said, "", "{arguments:?}");
    let mut found: Vec<(u16, u64, bool, String)> = Vec::new();
    for line in lines.lines() {
        let json: Json = serde_json::from_str(line).unwrap();
        let record = line.split_once(",\"record\":").unwrap().1.strip_suffix('}').unwrap();
        found.push((
            u16::try_from(json["chain"].as_u64().unwrap()).unwrap(),
            json["seq"].as_u64().unwrap(),
            json["unconfirmed"].as_bool().unwrap(),
            record.to_owned(),
        ));
    }
    let tuple = |record: &&Record| {
        (record.chain(), record.seq(), record.is_unconfirmed(), record.as_json().to_owned())
    };
    for chain in 0..2 {
        let of = |all: &mut dyn Iterator<Item = (u16, u64, bool, String)>| -> Vec<_> {
            all.filter(|found| found.0 == chain).collect()
        };
        let expected = of(&mut expected.iter().map(tuple));
        assert_eq!(of(&mut found.iter().cloned()), expected, "{arguments:?} chain {chain}");
    }
    assert_eq!(found.len(), expected.len(), "{arguments:?}");
    let (_, count, _) = query(&["--count"]);
    assert_eq!(count, format!("{}\n", expected.len()), "{arguments:?}");
    let (_, jsonl, said) = query(&["--output", "jsonl"]);
    let forward: Vec<&str> = jsonl.lines().collect();
    assert_eq!(forward, found.iter().map(|found| found.3.as_str()).collect::<Vec<_>>(), "{arguments:?}");
    let unconfirmed = expected.iter().filter(|record| record.is_unconfirmed()).count();
    assert_eq!(said.contains(&format!("{unconfirmed} of these records are UNCONFIRMED")), unconfirmed > 0);
    let (_, reverse, _) = query(&["--output", "jsonl", "--reverse", "--threads", "1"]);
    let (mut forward, mut reverse): (Vec<&str>, Vec<&str>) = (forward, reverse.lines().collect());
    for chain in 0..2 {
        // Chains are merged by time, where two may be equal, so only the order within each chain is compared.
        let seqs = |lines: &[&str]| -> Vec<u64> {
            let mut of: BTreeMap<&str, &Record> = BTreeMap::new();
            expected.iter().filter(|record| record.chain() == chain).for_each(|record| {
                of.insert(record.as_json(), record);
            });
            lines.iter().filter_map(|line| of.get(line)).map(|record| record.seq()).collect()
        };
        let (there, mut back) = (seqs(&forward), seqs(&reverse));
        back.reverse();
        assert_eq!(there, back, "{arguments:?}");
    }
    forward.sort_unstable();
    reverse.sort_unstable();
    assert_eq!(forward, reverse, "{arguments:?}");
    let (_, limited, _) = query(&["--output", "jsonl", "--limit", "3"]);
    let first: Vec<&str> = jsonl.lines().take(3).collect();
    assert_eq!(limited.lines().collect::<Vec<_>>(), first, "{arguments:?}");
}

#[test]
fn every_filter_finds_what_the_library_reads() {
    let place = eventful();
    let all = read(&place);
    assert!(files(&place.path("log"), "000").len() > 3 && files(&place.path("log"), "001").len() > 2);
    assert!(all.iter().any(|record| record.kind() == RecordKind::Recovery));
    assert!(all.iter().filter(|record| record.is_unconfirmed()).count() > 10);
    assert!(all.len() > 1500 && all.iter().any(Record::is_provisional));
    check(&place, &all, &[], |_| true);
    check(&place, &all, &["--actor", "user-3"], |r| r.actor() == Some("user-3"));
    check(&place, &all, &["--actor", "mia"], |r| r.actor() == Some("mia"));
    check(&place, &all, &["--actor", "nobody"], |_| false);
    for hostile in HOSTILE {
        check(&place, &all, &[&format!("--resource={hostile}")], |r| r.resource() == Some(hostile));
        check(&place, &all, &["--field", &format!("hostile={hostile}")], |r| {
            r.field("hostile").is_some_and(|value| value.as_str() == Some(hostile))
        });
    }
    check(&place, &all, &["--action", "auth.*"], |r| r.action().is_some_and(|a| a.starts_with("auth.")));
    check(&place, &all, &["--action", "*.log?n"], |r| r.action() == Some("auth.login"));
    check(&place, &all, &["--outcome", "denied", "--outcome", "none"], |r| r.outcome() == Some("denied"));
    check(&place, &all, &["--severity", "critical"], |r| r.severity() == Some(Severity::Critical));
    check(&place, &all, &["--kind", "unconfirmed", "--kind", "segment"], |r| {
        [RecordKind::Unconfirmed, RecordKind::Segment].contains(&r.kind())
    });
    check(&place, &all, &["--session", "77"], |r| r.session_id() == Some("77"));
    check(&place, &all, &["--request", "30"], |r| r.request_id() == Some("30"));
    check(&place, &all, &["--field", "n=12"], |r| {
        r.field("n").and_then(tracing_audit::Value::as_i64) == Some(12)
    });
    check(&place, &all, &["--field", "half=0.5", "--actor", "user-1"], |r| r.actor() == Some("user-1"));
    check(&place, &all, &["--grep", "xxxxx\",\"hostile"], |r| r.as_json().contains("xxxxx\",\"hostile"));
    check(&place, &all, &["--seq", "200..900", "--chain", "001"], |r| {
        r.chain() == 1 && (200..=900).contains(&r.seq())
    });
    check(&place, &all, &["--seq", "300.."], |r| r.seq() >= 300);
    let many: Vec<String> = (0..12).map(|n| format!("--actor=user-{n}")).collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    check(&place, &all, &many, |r| {
        r.actor().and_then(|a| a.strip_prefix("user-")?.parse().ok()).is_some_and(|n: u64| n < 12)
    });
    for part in [10, 3, 2] {
        let record = &all[all.len() / part];
        let (at, time) = (record.timestamp().unwrap(), record.time().unwrap());
        check(&place, &all, &["--since", at], |r| r.time().unwrap() >= time);
        check(&place, &all, &["--until", at, "--outcome", "denied"], |r| {
            r.time().unwrap() < time && r.outcome() == Some("denied")
        });
    }
}

/// Chains are merged by time in the same order as by the library.
#[test]
fn chains_are_merged_by_time() {
    let place = eventful();
    for reverse in [false, true] {
        let arguments: &[&str] = if reverse { &["--reverse"] } else { &[] };
        let (_, found, _) = run(&place, &[&["query", "log", "--output", "jsonl"], arguments].concat());
        let expected: Vec<String> = Reader::new(place.path("log"))
            .reverse(reverse)
            .records()
            .unwrap()
            .filter_map(Result::ok)
            .map(|record| record.as_json().to_owned())
            .collect();
        assert_eq!(found.lines().collect::<Vec<_>>(), expected);
    }
}

fn break_a_line(file: &Path) {
    let text = fs::read_to_string(file).unwrap();
    let broken = text.replacen("\"actor\":\"user-3\",", "\"actor\":\"user-3\" ,", 1);
    assert_ne!(broken, text);
    fs::write(file, broken).unwrap();
}

/// A segment whose times or numbers cannot match is not read, so a broken line in it is not noticed.
#[test]
fn segments_that_cannot_match_are_not_read() {
    let place = eventful();
    let all = read(&place);
    break_a_line(&files(&place.path("log"), "000")[1]);
    let (code, _, said) = run(&place, &["query", "log", "--actor", "user-3", "--count"]);
    assert!(
        code == 2 && said.contains("audit-000-00000002.jsonl, byte ") && said.contains("altered"),
        "{said}"
    );
    let in_third = format!("{}..", all.iter().find(|r| r.file_name().ends_with("3.jsonl")).unwrap().seq());
    let in_second = || all.iter().filter(|r| r.file_name() == "audit-000-00000002.jsonl");
    let last_time = in_second().map(|r| r.time().unwrap()).max().unwrap();
    let second = in_second().min_by_key(|r| r.time().unwrap()).unwrap();
    let third =
        all.iter().filter(|r| r.time().unwrap() > last_time).min_by_key(|r| r.time().unwrap()).unwrap();
    let (until, until_time) = (second.timestamp().unwrap(), second.time().unwrap());
    let (since, since_time) = (third.timestamp().unwrap(), third.time().unwrap());
    let is_his = |record: &&Record| record.actor() == Some("user-3");
    let later = all.iter().filter(is_his).filter(|r| r.time().unwrap() >= since_time).count();
    let earlier = all.iter().filter(is_his).filter(|r| r.time().unwrap() < until_time).count();
    let count = |arguments: &[&str]| {
        run(&place, &[&["query", "log", "--actor", "user-3", "--count"], arguments].concat())
    };
    assert_eq!(count(&["--since", since]), (0, format!("{later}\n"), String::new()));
    assert_eq!(count(&["--until", until]), (i32::from(earlier == 0), format!("{earlier}\n"), String::new()));
    let (code, _, said) = count(&["--chain", "000", "--seq", &in_third]);
    assert_eq!((code, said.as_str()), (0, ""));
    assert_eq!(count(&["--since", until]).0, 2);
    // Segments after the limit are not read either.
    let (code, newest, said) =
        run(&place, &["query", "log", "--actor", "user-3", "--reverse", "--limit", "2"]);
    assert_eq!((code, newest.lines().count(), said.as_str()), (0, 2, ""));
}

/// The search stops at the limit, but the line that names a record is still found after it.
#[test]
fn a_limit_stops_reading_but_still_finds_what_is_unconfirmed() {
    let (place, _) = Place::new();
    fs::remove_dir_all(place.path("log")).unwrap();
    let log = open(&place.path("log"));
    emit(&log, 600);
    log.close().unwrap();
    let (code, found, _) = run(&place, &["query", "log", "--actor", "mia", "--limit", "4"]);
    assert_eq!((code, found.lines().count()), (0, 4));
    assert!(found.lines().all(|line| line.contains("UNCONFIRMED")), "{found}");
    let (_, reverse, _) = run(&place, &["query", "log", "--actor", "mia", "--limit", "4", "--reverse"]);
    assert!(reverse.lines().all(|line| line.contains("UNCONFIRMED")) && reverse != found, "{reverse}");
    let (_, csv, _) = run(&place, &["query", "log", "--actor", "mia", "--output", "csv"]);
    assert!(csv.lines().skip(1).all(|line| line.contains(",success,UNCONFIRMED,")), "{csv}");
    break_a_line(&newest(&place.path("log"), "000"));
    let (code, _, said) = run(&place, &["query", "log", "--actor", "user-3", "--limit", "4"]);
    assert_eq!((code, said.as_str()), (0, ""));
    assert_eq!(run(&place, &["query", "log", "--actor", "user-3", "--count"]).0, 2);
}

/// With many chains, chunks are smaller, and must each lie within one chunk of the survey.
#[test]
fn many_chains_are_searched_completely() {
    let (place, _) = Place::new();
    fs::remove_dir_all(place.path("log")).unwrap();
    let opened = || AuditLog::builder(place.path("log")).stderr(false).open().unwrap();
    let logs: Vec<AuditLog> = (0..37).map(|_| opened()).collect();
    for log in &logs {
        let events = if log.head().chain() < 2 { 2_000 } else { 2 };
        with_log(log, || {
            for n in 0..events {
                tracing::info!(target: "audit", action = "item.seen", actor = "mia", n);
            }
        });
    }
    for log in &logs {
        log.close().unwrap();
    }
    let sizes = fs::read_dir(place.path("log")).unwrap().map(|file| file.unwrap().metadata().unwrap().len());
    assert!(sizes.max().unwrap() > 300 << 10);
    for more in [&[][..], &["--reverse"]] {
        let (code, found, said) = run(&place, &[&["query", "log"][..], more].concat());
        assert_eq!((code, found.lines().count(), said.as_str()), (0, read(&place).len(), ""));
    }
    assert_eq!(run(&place, &["stats", "log"]).0, 0);
}

/// A writer that abandoned a chain names its records in the next one.
#[test]
fn a_record_that_another_chain_names_is_unconfirmed() {
    let (place, _) = Place::new();
    fs::remove_dir_all(place.path("log")).unwrap();
    let (one, two) = (open(&place.path("log")), open(&place.path("log")));
    emit(&one, 20);
    emit(&two, 5);
    one.close().unwrap();
    two.close().unwrap();
    let all = read(&place);
    let refused = all.iter().find(|r| r.chain() == 0 && r.actor() == Some("user-3")).unwrap();
    let id = all[0].get("segment").unwrap().get("id").unwrap().as_str().unwrap().to_owned();
    let last = all.iter().rev().find(|r| r.chain() == 1).unwrap();
    let (mut seq, mut previous, mut lines) = (last.seq(), last.hash().to_string(), String::new());
    // The named record is before the last mark, so it is in the part that is searched in chunks.
    for (id, count) in [("0".repeat(32), 7), (id, 0), ("1".repeat(32), 9)] {
        seq += 1;
        let named = refused.seq() + count;
        let (line, hash) = seal(&format!(
            "{{\"seq\":{seq},\"ts\":\"2026-11-21T08:00:00.000000000Z\",\"kind\":\"unconfirmed\",\"unconfirmed\":{{\"reason\":\
             \"timeout\",\"chain\":\"000\",\"id\":\"{id}\",\"records\":[[{named},{named}]]}},\"durable\":{},\
             \"_prev_hash\":\"{previous}\"}}",
            seq - 1
        ));
        previous = hash;
        lines.push_str(&line);
    }
    let file = newest(&place.path("log"), "001");
    OpenOptions::new().append(true).open(file).unwrap().write_all(lines.as_bytes()).unwrap();
    for more in [&[][..], &["--chain", "000"], &["--reverse"], &["--limit", "2"]] {
        let (_, found, said) =
            run(&place, &[&["query", "log", "--actor", "user-3", "--chain", "000"][..], more].concat());
        assert_eq!((found.matches("UNCONFIRMED").count(), said.as_str()), (1, ""), "{found}");
    }
    let (_, found, _) = run(&place, &["query", "log", "--resource", HOSTILE[0], "--chain", "000"]);
    assert_eq!(found.matches("UNCONFIRMED").count(), 0, "{found}");
    // All output formats have the mark.
    for (format, mark, count) in [
        // CSV has the word once more, in the header.
        ("csv", ",\"unconfirmed\",", 2),
        ("ocsf", "\"status\":\"unconfirmed\"", 1),
        ("ecs", "\"audit_unconfirmed\":\"true\"", 1),
    ] {
        let line = ["export", "log", "--format", format, "--kind", "event", "-o", "-"];
        let (_, written, _) = run(&place, &line);
        assert_eq!(written.matches(mark).count(), count, "{format}: {written}");
    }
    run(&place, &["report", "log", "-o", "page.html"]);
    let page = fs::read_to_string(place.path("page.html")).unwrap();
    assert!(page.contains(&format!("000/{}", refused.seq())), "the list of unconfirmed records");
}

#[test]
fn texts_of_records_are_escaped_for_terminals_and_spreadsheets() {
    let place = eventful();
    for arguments in
        [&["query", "log"][..], &["query", "log", "--output", "csv"], &["stats", "log", "--by", "resource"]]
    {
        let (code, found, _) = run(&place, arguments);
        assert_eq!(code, 0);
        let unsafe_ = ['\u{1b}', '\u{202e}', '\u{200b}', '\t'];
        assert!(!found.contains(unsafe_), "{arguments:?}");
        assert!(found.contains("\\u{1b}[2J\\u{202e}evil"), "{arguments:?}");
    }
    let (_, json, _) = run(&place, &["stats", "log", "--by", "resource", "--json"]);
    assert!(
        json.contains("\\u001b[2J\\u202eevil\\u200b") && serde_json::from_str::<Json>(&json).is_ok(),
        "{json}"
    );
    let (_, csv, _) = run(&place, &["query", "log", "--output", "csv", "--limit", "40"]);
    let mut rows = csv::Reader::from_reader(csv.as_bytes());
    let rows: Vec<csv::StringRecord> = rows.records().map(Result::unwrap).collect();
    assert_eq!(rows.len(), 40);
    assert!(rows.iter().flatten().all(|cell| !cell.starts_with(['=', '+', '-', '@', '\t', '\r'])), "{csv}");
    assert!(rows.iter().any(|row| &row[8] == "'=cmd()|' /C calc'!A0"), "{csv}");
}

#[test]
fn exit_codes_are_those_of_grep_and_a_closed_pipe_is_quiet() {
    let place = eventful();
    assert_eq!(run(&place, &["query", "log", "--actor", "nobody"]), (1, String::new(), String::new()));
    assert_eq!(
        run(&place, &["query", "log", "--actor", "nobody", "--count"]),
        (1, "0\n".into(), String::new())
    );
    for (name, said) in [("nowhere", "no such directory"), ("log/audit-000-00000001.jsonl", "it is a file")] {
        for command in ["query", "stats"] {
            let (code, _, error) = run(&place, &[command, name]);
            assert!(code == 2 && error.contains(said), "{error}");
        }
    }
    fs::create_dir(place.path("packed")).unwrap();
    let (code, _, error) = run(&place, &["query", "packed"]);
    assert!(code == 2 && error.contains("the directory is empty"), "{error}");
    fs::write(place.path("packed/audit-000-00000001.jsonl.zst"), "x").unwrap();
    let (code, _, error) = run(&place, &["query", "packed"]);
    assert!(code == 2 && error.contains("compressed"), "{error}");
    for wrong in ["--since=soon", "--seq=9..3", "--limit=0", "--output=xml", "--action=[", "--chain=x"] {
        assert_eq!(run(&place, &["query", "log", wrong]).0, 2, "{wrong}");
    }
    for output in ["text", "jsonl", "wrapped", "csv"] {
        let mut command = Command::new(env!("CARGO_BIN_EXE_tracing-audit"));
        command.args(["query", "log", "--output", output]).current_dir(place.path(""));
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let ended = child.wait_with_output().unwrap();
        let said = String::from_utf8(ended.stderr).unwrap();
        assert!(
            ended.status.success() && !said.contains("pipe") && !said.contains("panic"),
            "{output}: {said}"
        );
    }
}

type ValueOf = dyn Fn(&Record) -> Option<String>;

/// Computes the rows of a table from the records that the library reads.
fn expected_rows(
    all: &[Record],
    value: impl Fn(&Record) -> Option<String>,
) -> BTreeMap<Option<String>, [u64; 4]> {
    let mut rows: BTreeMap<_, [u64; 4]> = BTreeMap::new();
    for record in all.iter().filter(|record| record.is_event()) {
        let row = rows.entry(value(record)).or_default();
        row[0] += 1;
        row[1] += u64::from(record.severity() == Some(Severity::Critical));
        row[2] += u64::from(record.outcome() == Some("denied"));
        row[3] += u64::from(record.is_unconfirmed());
    }
    rows
}

#[test]
fn stats_add_up_what_the_library_reads() {
    let place = eventful();
    let all = read(&place);
    let owned = |text: Option<&str>| text.map(str::to_owned);
    let values: [(&str, Box<ValueOf>); 7] = [
        ("action", Box::new(move |r| owned(r.action()))),
        ("actor", Box::new(move |r| owned(r.actor()))),
        ("resource", Box::new(move |r| owned(r.resource()))),
        (
            "outcome",
            Box::new(move |r| owned(if r.is_unconfirmed() { Some("unconfirmed") } else { r.outcome() })),
        ),
        ("severity", Box::new(|r| r.severity().map(|severity| severity.as_str().to_owned()))),
        ("hour", Box::new(|r| r.timestamp().map(|time| time[..13].to_owned()))),
        ("day", Box::new(|r| r.timestamp().map(|time| time[..10].to_owned()))),
    ];
    let mut arguments = vec!["stats", "log", "--json", "--top", "1000"];
    arguments.extend(values.iter().flat_map(|(by, _)| ["--by", by]));
    let (code, json, said) = run(&place, &arguments);
    assert!(code == 0 && said.contains("UNCONFIRMED"), "{said}");
    let json: Json = serde_json::from_str(&json).unwrap();
    let number = |json: &Json, name: &str| json[name].as_u64().unwrap();
    for ((by, value), table) in values.iter().zip(json["tables"].as_array().unwrap()) {
        assert_eq!(table["by"], *by);
        let row = |row: &Json| {
            let counts = ["events", "critical", "failed", "unconfirmed"].map(|name| number(row, name));
            (row["value"].as_str().map(str::to_owned), counts)
        };
        let rows: BTreeMap<_, _> = table["rows"].as_array().unwrap().iter().map(row).collect();
        assert_eq!(rows, expected_rows(&all, value), "{by}");
    }
    let events = all.iter().filter(|record| record.is_event()).count() as u64;
    assert_eq!((number(&json, "records"), number(&json, "events")), (all.len() as u64, events));
    assert_eq!(json["chains"], serde_json::json!(["000", "001"]));
    assert!(
        number(&json, "gaps") > 0
            && number(&json, "lost") >= number(&json, "gaps")
            && number(&json, "recoveries") > 0
    );
    let (code, text, _) = run(&place, &["stats", "log", "--by", "actor", "--top", "2"]);
    assert!(
        code == 0 && text.contains("not recorded") && text.contains("others") && text.contains("█"),
        "{text}"
    );
    let (code, _, _) = run(&place, &["stats", "log", "--actor", "nobody"]);
    assert_eq!(code, 1);
    let (_, text, _) = run(&place, &["stats", "log", "--actor", "mia", "--by", "outcome"]);
    assert!(text.contains("not looked for") && text.contains("unconfirmed"), "{text}");
}

/// A search while retention removes segments reports that, and finds what is left.
#[test]
fn a_log_that_is_written_and_pruned_meanwhile_is_searched_without_an_error() {
    let (place, _) = Place::new();
    fs::remove_dir_all(place.path("log")).unwrap();
    let retention = tracing_audit::Retention::default().max_segments(2);
    let rotation = Rotation::never().max_bytes(64 << 10);
    let builder = AuditLog::builder(place.path("log")).rotation(rotation).retention(retention);
    let log = builder.stderr(false).open().unwrap();
    let is_done = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !is_done.load(std::sync::atomic::Ordering::Relaxed) {
                emit(&log, 60);
            }
        });
        for _ in 0..15 {
            let (code, found, said) =
                run(&place, &["query", "log", "--actor", "user-3", "--output", "jsonl"]);
            assert!(code < 2, "{said}");
            let seqs = found
                .lines()
                .map(|line| serde_json::from_str::<Json>(line).unwrap()["seq"].as_u64().unwrap());
            assert!(seqs.is_sorted_by(|one, next| one < next));
        }
        is_done.store(true, std::sync::atomic::Ordering::Relaxed);
    });
    log.close().unwrap();
}

#[test]
fn since_and_until_accept_ages() {
    let (place, _) = Place::new();
    let age = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    assert!(age > Duration::from_secs(1));
    assert_eq!(
        run(&place, &["query", "log", "--since", "1h", "--count"]).1,
        run(&place, &["query", "log", "--count"]).1
    );
    assert_eq!(run(&place, &["query", "log", "--until", "1h", "--count"]).1, "0\n");
}
