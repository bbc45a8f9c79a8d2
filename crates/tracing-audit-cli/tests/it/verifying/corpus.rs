//! `docs/verify.py` shares no code with the library: both must agree on every log.

use std::{fs, path::Path, process::Command};

use serde_json::Value;

use super::logs::{Scene, copy_files, emit, forget, said};
use crate::place::skip;

/// A way to change a log, and its name.
type Change = (&'static str, fn(&Scene));

/// Ways to tamper with a log by write access to its directory, and accidents.
pub(super) const CHANGES: &[Change] = &[
    ("honest", |_| {}),
    ("edit", |scene| scene.edit(0, 2, |lines| lines[4] = lines[4].replace("mia", "eve"))),
    ("edit a hash", |scene| {
        scene.edit(0, 2, |lines| {
            let at = lines[4].len() - 10;
            let digit = if lines[4].as_bytes()[at] == b'0' { "1" } else { "0" };
            lines[4].replace_range(at..=at, digit);
        });
    }),
    ("delete", |scene| scene.edit(0, 2, |lines| drop(lines.remove(5)))),
    ("insert", |scene| scene.edit(0, 2, |lines| lines.insert(5, "{\"seq\":18}\n".to_owned()))),
    ("insert a line of another chain", |scene| {
        let other = fs::read_to_string(scene.segment(1, 1)).unwrap();
        let line = format!("{}\n", other.lines().nth(2).unwrap());
        scene.edit(0, 2, |lines| lines.insert(5, line));
    }),
    ("repeat", |scene| scene.edit(0, 2, |lines| lines.insert(6, lines[5].clone()))),
    ("swap", |scene| scene.edit(0, 2, |lines| lines.swap(5, 6))),
    ("empty lines", |scene| scene.edit(0, 2, |lines| lines.insert(5, "\n\n".to_owned()))),
    ("no text", |scene| {
        let path = scene.segment(0, 2);
        let mut bytes = fs::read(&path).unwrap();
        let ends = bytes.iter().enumerate().filter(|(_, byte)| **byte == b'\n');
        let at = ends.map(|(at, _)| at).nth(3).unwrap();
        bytes[at + 50..at + 100].fill(0xFF);
        fs::write(path, bytes).unwrap();
    }),
    ("cut at a line", |scene| scene.edit(0, 3, |lines| lines.truncate(6))),
    ("cut the other chain at a line", |scene| scene.edit(1, 1, |lines| lines.truncate(4))),
    ("cut an old segment at a line", |scene| scene.edit(0, 1, |lines| lines.truncate(6))),
    ("cut inside of a line", |scene| {
        scene.edit(0, 3, |lines| {
            let last = lines.last_mut().unwrap();
            last.truncate(last.len() / 2);
        });
    }),
    ("remove the first segment", |scene| fs::remove_file(scene.segment(0, 1)).unwrap()),
    ("remove a segment", |scene| fs::remove_file(scene.segment(0, 2)).unwrap()),
    ("remove the last segment", |scene| fs::remove_file(scene.segment(0, 3)).unwrap()),
    ("remove a chain", |scene| {
        for number in 1..=3 {
            fs::remove_file(scene.segment(0, number)).unwrap();
        }
    }),
    ("remove the other chain", |scene| fs::remove_file(scene.segment(1, 1)).unwrap()),
    ("rename a segment", |scene| fs::rename(scene.segment(0, 3), scene.segment(0, 4)).unwrap()),
    ("rename a chain", |scene| fs::rename(scene.segment(1, 1), scene.segment(2, 1)).unwrap()),
    ("swap two segments", |scene| {
        let (first, second) = (scene.segment(0, 1), scene.segment(0, 2));
        let (one, two) = (fs::read(&first).unwrap(), fs::read(&second).unwrap());
        fs::write(first, two).unwrap();
        fs::write(second, one).unwrap();
    }),
    ("void bytes", |scene| scene.edit(0, 1, |lines| lines.push("{\"seq\":13,\"kind\":\"ev".to_owned()))),
    ("a void line", |scene| scene.edit(0, 1, |lines| lines.push(lines[5].clone()))),
    ("bytes behind the end", |scene| scene.edit(0, 3, |lines| lines.push("{\"seq\":".to_owned()))),
    ("an empty segment", |scene| fs::write(scene.segment(0, 4), "").unwrap()),
    ("a foreign file", |scene| fs::write(scene.log().join("notes\u{1b}[31m"), "").unwrap()),
    ("emptied", |scene| fs::write(scene.segment(0, 2), "").unwrap()),
];

fn python(log: &Path, heads: &[String]) -> (i32, String, String) {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/verify.py");
    said(Command::new("python3").arg(script).arg(log).args(heads))
}

/// Checks that both have the same verdict, heads, and numbers of records and events by chain. Returns the verdict.
#[track_caller]
fn agree(scene: &Scene, log: &str, heads: &[String], what: &str) -> String {
    let mut arguments = vec!["verify", log, "--json"];
    arguments.extend(heads.iter().flat_map(|head| ["--head", head]));
    let (code, printed, said) = scene.run(&arguments);
    let report: Value =
        serde_json::from_str(&printed).unwrap_or_else(|_| panic!("{what}: {code} {printed} {said}"));
    let (theirs, text, error) = python(&scene.path(log), heads);
    assert_eq!(code, theirs, "{what}: {printed}\n{text}{error}");
    assert_eq!(report["exit_code"], code, "{what}");
    let verdict = report["verdict"].as_str().unwrap().to_uppercase();
    assert!(text.starts_with(&format!("{verdict}: ")), "{what}: {printed}\n{text}");
    let lines: Vec<&str> = text.lines().filter_map(|line| line.strip_prefix("    head   ")).collect();
    let heads: Vec<&str> =
        report["heads"].as_array().unwrap().iter().map(|head| head.as_str().unwrap()).collect();
    assert_eq!(heads, lines, "{what}: {printed}\n{text}");
    verdict
}

#[test]
fn the_independent_checker_agrees_on_every_log() {
    let test = "the_independent_checker_agrees_on_every_log";
    if !Command::new("python3").arg("--version").output().is_ok_and(|output| output.status.success()) {
        return skip(test, "there is no python3");
    }
    let mut verdicts = Vec::new();
    for (what, change) in CHANGES {
        let scene = Scene::new();
        let (_, kept, _) = scene.run(&["heads", "log"]);
        let kept: Vec<String> = kept.lines().map(str::to_owned).collect();
        assert_eq!(kept.len(), 2);
        change(&scene);
        // In its original directory, with the noted heads; as a copy; and with kept heads.
        verdicts.push((*what, agree(&scene, "log", &[], what)));
        copy_files(&scene.log(), &scene.path("copy"));
        agree(&scene, "copy", &[], what);
        agree(&scene, "copy", &kept, what);
    }
    let damaged = verdicts.iter().filter(|(_, verdict)| verdict == "DAMAGED").count();
    assert!(damaged > 15, "{verdicts:?}");
    assert_eq!(verdicts[0].1, "INTACT");
}

#[test]
fn the_independent_checker_agrees_on_live_and_abandoned_logs() {
    let test = "the_independent_checker_agrees_on_live_and_abandoned_logs";
    if !Command::new("python3").arg("--version").output().is_ok_and(|output| output.status.success()) {
        return skip(test, "there is no python3");
    }
    let scene = Scene::new();
    let log = tracing_audit::AuditLog::builder(scene.log()).stderr(false).open().unwrap();
    emit(&log, 5);
    assert_eq!(agree(&scene, "log", &[], "live"), "INTACT");
    copy_files(&scene.log(), &scene.path("left"));
    assert_eq!(agree(&scene, "left", &[], "left"), "UNCLEAN");
    forget(log);
}
