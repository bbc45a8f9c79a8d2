//! Several logs, JSON, progress, and errors with a remedy.

use std::{fs, process::Command};

use super::logs::{Scene, copy_files};
use crate::place::skip;

#[test]
fn several_logs_end_with_a_table_and_the_worst_exit_code() {
    let scene = Scene::new();
    for name in ["a", "b", "c"] {
        copy_files(&scene.log(), &scene.path(name));
    }
    let path = scene.path("b/audit-001-00000001.jsonl");
    let text = fs::read_to_string(&path).unwrap();
    let (rest, _) = text.trim_end().rsplit_once('\n').unwrap();
    fs::write(&path, format!("{rest}\n")).unwrap();
    let (code, text, _) = scene.run(&["verify", "a", "b"]);
    assert_eq!(code, 3, "{text}");
    let table: Vec<&str> = text.lines().rev().take(3).collect();
    assert_eq!(table[2], "               records  chains  findings  log");
    assert_eq!(table[1], "PASS                41       2         0  a");
    assert_eq!(table[0], "UNCLEAN             40       2         1  b");
    let path = scene.path("c/audit-000-00000001.jsonl");
    fs::write(&path, fs::read_to_string(&path).unwrap().replacen("mia", "eve", 1)).unwrap();
    let (code, text, said) = scene.run(&["verify", "a", "nowhere", "b"]);
    assert_eq!(code, 2, "{text}");
    assert!(said.contains("there is no audit log at nowhere"), "{said}");
    assert!(
        text.contains("\nERROR                -       -         -  nowhere, which could not be checked\n"),
        "{text}"
    );
    assert_eq!(scene.run(&["verify", "a", "nowhere", "b", "c"]).0, 1);
    let (code, text, _) = scene.run(&["verify", "-q", "a", "b", "c"]);
    assert_eq!((code, text.as_str()), (1, "intact  a\nunclean  b\ndamaged  c\n"));
    let (_, text, _) = scene.run(&["verify", "--json", "a", "nowhere", "c"]);
    let results: Vec<String> = text
        .lines()
        .map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap()["result"].to_string())
        .collect();
    assert_eq!(results, ["\"PASS\"", "\"ERROR\"", "\"FAIL\""]);
    let (code, _, said) = scene.run(&["verify", "a", "b", "--append-heads", "kept"]);
    assert!(code == 2 && said.contains("verify that one alone"), "{said}");
}

/// The JSON has exactly the members that docs/command.md names.
#[test]
fn the_json_has_the_documented_members() {
    let scene = Scene::new();
    scene.edit(0, 2, |lines| lines[4] = lines[4].replace("mia", "eve"));
    let (code, text, _) = scene.run(&["verify", "log", "--json", "--threads", "1"]);
    let report: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!((code, text.lines().count()), (1, 1));
    let names = |value: &serde_json::Value| value.as_object().unwrap().keys().cloned().collect::<Vec<_>>();
    let page = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/command.md");
    let page = fs::read_to_string(page).unwrap();
    let section = page.split("\n## verify\n").nth(1).unwrap().split("\n## ").next().unwrap();
    let rows = |title: &str| {
        let table = section.split(&format!("\n{title}")).nth(1).unwrap_or_else(|| panic!("no {title}"));
        let rows = table.lines().skip_while(|line| !line.starts_with("| `"));
        let rows = rows.take_while(|line| line.starts_with("| `"));
        let mut names: Vec<String> = rows.map(|row| row.split('`').nth(1).unwrap().to_owned()).collect();
        names.sort_unstable();
        names
    };
    assert_eq!(names(&report), rows("Each log is an object"));
    assert_eq!(names(&report["chains"][0]), rows("Each of `chains`"));
    assert_eq!(names(&report["findings"][0]), rows("Each of `findings`"));
    let finding = &report["findings"][0];
    assert_eq!(finding["before"]["seq"], 16);
    assert_eq!(finding["here"]["seq"], serde_json::Value::Null);
    assert!(finding["here"]["text"].as_str().unwrap().contains("eve"));
    assert_eq!(finding["after"]["seq"], 18);
    assert!(report["chains"][0]["first_time"].as_str() < report["chains"][0]["last_time"].as_str());
    let words = report["not_checked"][0]["meaning"].as_str().unwrap();
    assert!(words.starts_with("No head was given for chain 000, so a truncated log"), "{words}");
}

#[test]
fn anything_but_a_log_is_refused_with_the_reason() {
    let scene = Scene::new();
    copy_files(&scene.log(), &scene.path("packed"));
    fs::create_dir(scene.path("empty")).unwrap();
    fs::create_dir(scene.path("other")).unwrap();
    fs::write(scene.path("other/app.log"), "").unwrap();
    for entry in fs::read_dir(scene.path("packed")).unwrap() {
        let path = entry.unwrap().path();
        fs::rename(&path, format!("{}.gz", path.display())).unwrap();
    }
    for (log, expected) in [
        ("empty", "there is no audit log at empty: the directory is empty"),
        ("other", "there is no audit log at other: no file is named like a segment"),
        ("packed", "its segments are compressed, as audit-000-00000001.jsonl.gz; unpack a copy"),
        ("log/audit-000-00000001.jsonl", "log/audit-000-00000001.jsonl: it is a file; name the directory"),
        ("nowhere", "there is no audit log at nowhere"),
    ] {
        for command in ["verify", "heads"] {
            let (code, printed, said) = scene.run(&[command, log]);
            assert!(code == 2 && printed.is_empty() && said.contains(expected), "{command} {log}: {said}");
        }
    }
    let path = scene.segment(0, 1);
    fs::rename(&path, format!("{}.gz", path.display())).unwrap();
    let (code, text, _) = scene.run(&["verify", "log"]);
    assert!(code == 1 && text.contains("Compressed segments are not read: unpack them"), "{text}");
}

#[test]
fn progress_is_for_a_terminal_only() {
    let test = "progress_is_for_a_terminal_only";
    let scene = Scene::new();
    assert_eq!(scene.run(&["verify", "log"]).2, "");
    let run = |command: &str| {
        let line = format!("{} {command}", env!("CARGO_BIN_EXE_tracing-audit"));
        let mut script = Command::new("script");
        script.args(["-qec", &line, "/dev/null"]).current_dir(scene.dir.path()).env("TERM", "xterm");
        script.stdin(std::process::Stdio::null()).output().ok().filter(|output| output.status.success())
    };
    let Some(output) = run("verify log >out") else {
        return skip(test, "there is no `script` that makes a pseudo-terminal");
    };
    let shown = String::from_utf8(output.stdout).unwrap();
    assert!(shown.contains("log  ") && shown.contains(" left") && shown.contains("B/s"), "{shown:?}");
    let printed = fs::read_to_string(scene.path("out")).unwrap();
    assert!(printed.starts_with("PASS: ") && !printed.contains('\u{1b}'), "{printed}");
    assert_eq!(run("verify log -q >out").unwrap().stdout, b"");
    // Colours too are only for a terminal.
    let shown = String::from_utf8(run("verify log 2>err").unwrap().stdout).unwrap();
    assert!(shown.contains("\u{1b}[1m\u{1b}[32mPASS\u{1b}[0m: "), "{shown:?}");
    assert_eq!(fs::read_to_string(scene.path("err")).unwrap(), "");
}
