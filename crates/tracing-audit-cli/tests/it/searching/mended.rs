//! Logs that the library never writes: nothing in them is skipped silently.

use std::{
    fs::{self, OpenOptions},
    io::{BufRead as _, BufReader},
    process::{Command, Stdio},
};

use serde_json::json;

use super::run;
use crate::{
    exporting::forge::{BEGIN, Forge},
    place::Place,
    sealed::seal,
};

const FILE: &str = "log/audit-000-00000001.jsonl";

/// A log of one segment, with an event of `mallory` as record 3 and further events.
fn forged(fill: impl FnOnce(&mut Forge)) -> Place {
    let (place, _) = Place::new();
    fs::remove_dir_all(place.path("log")).unwrap();
    let mut forge = Forge::new(&place.path("log"), BEGIN);
    forge.event(BEGIN + 1, "routine", &json!({"action": "pay", "actor": "mallory", "outcome": "success"}));
    fill(&mut forge);
    forge.close(BEGIN + 9_000_000);
    place
}

fn long(forge: &mut Forge, count: usize) {
    let filler = "v".repeat(50_000);
    for n in 0..count {
        let members = json!({"action": "x", "actor": "bob", "fields": {"n": n, "long": filler}});
        forge.event(BEGIN + 2, "routine", &members);
    }
}

fn ask(place: &Place, arguments: &[&str]) -> (i32, String, String) {
    run(place, &[&["query", "log"], arguments].concat())
}

#[test]
fn the_line_that_names_a_record_may_be_far_behind_it() {
    let place = forged(|forge| {
        long(forge, 700);
        forge.unconfirmed(BEGIN + 3, 3, 3);
    });
    for more in [&[][..], &["--limit", "1"], &["--reverse"]] {
        let (code, found, _) = ask(&place, &[&["--actor", "mallory"][..], more].concat());
        assert!(code == 0 && found.contains("UNCONFIRMED"), "{found}");
    }
    let (_, csv, _) = run(&place, &["export", "log", "--format", "csv", "--actor", "mallory", "-o", "-"]);
    assert!(csv.contains("\"unconfirmed\",\"success\""), "{csv}");
}

#[test]
fn the_line_that_names_a_record_may_be_spelled_in_any_way() {
    for kind in ["\"\\u006bind\":\"unconfirmed\"", "\"kind\":\"\\u0075nconfirmed\""] {
        let place = forged(|forge| {
            let members = "\"unconfirmed\":{\"reason\":\"timeout\",\"records\":[[3,3]]}";
            forge.record(BEGIN + 2, &format!("{kind},{members}"));
        });
        let (_, found, _) = ask(&place, &["--actor", "mallory"]);
        assert!(found.contains("UNCONFIRMED"), "{found}");
        let (_, rows, _) = run(&place, &["stats", "log", "--by", "outcome"]);
        assert!(rows.lines().any(|row| row.starts_with("unconfirmed  ") && row.contains('█')), "{rows}");
        assert!(!rows.contains("success"), "{rows}");
    }
}

#[test]
fn a_clock_that_was_set_back_hides_nothing() {
    let place = forged(|forge| {
        forge.rotate(BEGIN + 9_000_000);
        forge.event(BEGIN + 5_000_000, "routine", &json!({"action": "late", "actor": "mia"}));
    });
    let (_, count, _) = ask(&place, &["--actor", "mia", "--until", "2026-11-20T08:00:00Z", "--count"]);
    assert_eq!(count, "1\n");
}

#[test]
fn a_record_without_a_time_matches_no_time() {
    let place = forged(|forge| {
        forge.record(
            BEGIN,
            "\"\\u0074x\":1,\"kind\":\"event\",\"severity\":\"routine\",\"level\":\"INFO\",\"actor\":\"mia\"",
        );
    });
    let path = place.path(FILE);
    let lines = fs::read_to_string(&path).unwrap();
    let lines: Vec<&str> = lines.lines().collect();
    let (before, rest) = lines[3].split_once("\"ts\":\"").unwrap();
    let (_, behind) = rest.split_once('"').unwrap();
    let (behind, _) = behind.split_once(",\"_hash\"").unwrap();
    let (line, _) = seal(&format!("{before}\"ts\":\"hello\"{behind}}}"));
    fs::write(&path, [lines[0], "\n", lines[1], "\n", lines[2], "\n", &line, lines[4], "\n"].concat())
        .unwrap();
    assert_eq!(ask(&place, &["--actor", "mia", "--count"]).1, "1\n");
    for bound in [["--since", "2020-01-01"], ["--until", "2100-01-01"]] {
        assert_eq!(ask(&place, &[&["--actor", "mia", "--count"][..], &bound].concat()).1, "0\n", "{bound:?}");
    }
    let (_, json, _) = run(&place, &["stats", "log", "--json"]);
    assert!(json.contains("\"last_time\":\"2026-"), "{json}");
}

#[test]
fn a_text_that_no_line_can_contain_is_refused() {
    let place = forged(|_| {});
    let (code, _, said) = ask(&place, &["--grep", "a\nb"]);
    assert!(code == 2 && said.contains("which no line contains"), "{said}");
}

/// A region without line feeds, as if they had been overwritten, across the border of a chunk.
#[test]
fn a_long_destroyed_region_is_reported() {
    let place = forged(|forge| long(forge, 12));
    let mut bytes = fs::read(place.path(FILE)).unwrap();
    let ends: Vec<usize> = (0..bytes.len()).filter(|at| bytes[*at] == b'\n').collect();
    let first = ends.iter().position(|at| *at > (256 << 10) - 52_000).unwrap();
    for end in &ends[first..first + 3] {
        bytes[*end] = b' ';
    }
    fs::write(place.path(FILE), bytes).unwrap();
    for arguments in [&["--count"][..], &["--output", "jsonl"], &["--actor", "mallory", "--count"]] {
        let (code, _, said) = ask(&place, arguments);
        assert!(code == 2 && said.contains("does not end"), "{arguments:?} {said}");
    }
}

#[test]
fn a_copied_line_is_not_accepted() {
    let place = forged(|forge| long(forge, 30));
    let path = place.path(FILE);
    let text = fs::read_to_string(&path).unwrap();
    let lines: Vec<&str> = text.split_inclusive('\n').collect();
    // The copy is next to the original, far after it, or before it.
    for at in [3, 31] {
        let copied = [&lines[..at], &lines[2..3], &lines[at..]].concat().concat();
        fs::write(&path, copied).unwrap();
        let (code, found, said) = ask(&place, &["--actor", "mallory", "--output", "jsonl"]);
        assert_eq!((code, found.lines().count()), (2, 1), "{at} {said}");
        assert!(said.contains("does not belong here"), "{said}");
        assert_eq!(ask(&place, &["--actor", "mallory", "--count"]).1, "1\n", "{at}");
    }
}

#[test]
fn a_bad_line_is_counted_once() {
    let place = forged(|forge| long(forge, 3));
    let text = fs::read_to_string(place.path(FILE)).unwrap();
    fs::write(place.path(FILE), text.replace("\"n\":2}", "\"n\":9}")).unwrap();
    for arguments in [&["--count"][..], &[], &["--reverse"]] {
        let (code, _, said) = ask(&place, arguments);
        assert!(code == 2 && said.contains(" 1 positions"), "{said}");
    }
}

#[test]
fn a_failed_write_is_no_success() {
    let place = forged(|_| {});
    for arguments in [&["query", "log", "--count"][..], &["stats", "log"], &["stats", "log", "--json"]] {
        let mut command = Command::new(env!("CARGO_BIN_EXE_tracing-audit"));
        let full = OpenOptions::new().write(true).open("/dev/full").unwrap();
        let output = command.args(arguments).current_dir(place.path("")).stdout(full).output().unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(output.status.code() == Some(2) && said.contains("cannot write"), "{arguments:?} {said}");
    }
}

#[test]
fn stats_know_words_and_gaps() {
    let place = forged(|forge| {
        forge.event(BEGIN + 2, "routine", &json!({"action": "a", "actor": "mia", "outcome": "Rejected"}));
        forge.gap(BEGIN + 3, 7);
    });
    let (_, json, _) = run(&place, &["stats", "log", "--json"]);
    assert!(json.contains("\"failed\":1"), "{json}");
    let (_, text, _) = run(&place, &["stats", "log", "--kind", "gap"]);
    assert!(text.contains("7 (100.00 %) in 1 gaps"), "{text}");
}

#[test]
fn patterns_cells_and_unknown_kinds() {
    let place = forged(|forge| {
        forge.event(BEGIN + 2, "routine", &json!({"action": "café", "actor": " =1+1", "resource": "|x"}));
        forge.record(BEGIN + 3, "\"kind\":\"newkind\",\"actor\":\"noor\",\"message\":\"hey\"");
    });
    let (_, csv, _) = ask(&place, &["--action", "caf?", "--output", "csv"]);
    assert!(csv.contains(",' =1+1,'|x,"), "{csv}");
    let (code, found, _) = ask(&place, &["--kind", "newkind"]);
    assert!(
        code == 0 && found.contains("newkind") && found.contains("noor") && found.contains("hey"),
        "{found}"
    );
}

#[test]
fn a_segment_of_a_later_format_is_reported() {
    let place = forged(|_| {});
    let text = fs::read_to_string(place.path(FILE)).unwrap();
    let (first, rest) = text.split_once('\n').unwrap();
    let (body, _) = first.split_once(",\"_hash\"").unwrap();
    let (first, _) = seal(&format!("{}}}", body.replace("\"format\":1", "\"format\":2")));
    fs::write(place.path(FILE), [first.as_str(), rest].concat()).unwrap();
    for arguments in [&["query", "log"][..], &["stats", "log"]] {
        let (code, _, said) = run(&place, arguments);
        assert!(code == 2 && said.contains("format 2"), "{said}");
    }
}

/// All chains have to be read at the same time to be merged.
#[test]
fn three_hundred_chains_take_little_memory() {
    let (place, _) = Place::new();
    fs::remove_dir_all(place.path("log")).unwrap();
    let mut forge = Forge::new(&place.path("log"), BEGIN);
    for n in 0..300 {
        let members = r#""kind":"event","action":"a\u00e9","actor":"mia","fields":{"a":1,"b":2,"c":3,"d":4,"e":[1,2,3]}"#;
        forge.record(BEGIN + n, members);
    }
    forge.close(BEGIN + 700);
    let text = fs::read_to_string(place.path(FILE)).unwrap();
    let (first, rest) = text.split_once('\n').unwrap();
    let (body, _) = first.split_once(",\"_hash\"").unwrap();
    for chain in 1..300 {
        let body = body.replace("\"chain\":\"000\"", &format!("\"chain\":\"{chain:03}\""));
        let lines = [seal(&format!("{body}}}")).0.as_str(), rest].concat();
        fs::write(place.path(&format!("log/audit-{chain:03}-00000001.jsonl")), lines).unwrap();
    }
    for more in [&["--actor", "mia"][..], &["--reverse"], &["--field", "a=1"]] {
        let mut command = Command::new(env!("CARGO_BIN_EXE_tracing-audit"));
        command.args(["query", "log", "--output", "jsonl"]).args(more).current_dir(place.path(""));
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        // It then blocks on the full pipe, with records of each chain in memory.
        BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
        let status = fs::read_to_string(format!("/proc/{}/status", child.id())).unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
        let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
        let peak: u64 = peak.trim().trim_end_matches(" kB").parse().unwrap();
        assert!(peak < 64 << 10, "{more:?}: {peak} KiB");
    }
}
