//! `demo`.

use std::{fs, os::unix::fs::PermissionsExt as _};

use tracing_audit::{RecordKind, segments};

use crate::place::Place;

#[test]
fn the_demo_log_has_everything_that_happens_in_a_real_one() {
    let place = Place::new().0;
    let (code, said, error) = place.run("demo new/log --events 1500");
    assert_eq!((code, error.as_str()), (0, ""), "{said}");
    assert!(said.contains("tracing-audit verify new/log"), "{said}");
    let (code, said, _) = place.run("verify new/log");
    assert_eq!(code, 0, "{said}");
    let records: Vec<_> = tracing_audit::read(place.path("new/log")).unwrap().map(Result::unwrap).collect();
    let is_there = |is: &dyn Fn(&tracing_audit::Record) -> bool| records.iter().any(is);
    assert!(is_there(&|record| record.chain() == 1));
    assert!(is_there(&|record| record.kind() == RecordKind::Recovery));
    assert!(is_there(&|record| record.outcome() == Some("denied") && record.actor() == Some("mallory")));
    assert!(is_there(&|record| record.severity() == Some(tracing_audit::Severity::Critical)));
    assert!(is_there(&|record| record.request_id().is_some() && record.session_id().is_some()));
    assert!(is_there(&|record| record.get("redacted").is_some()));
    assert!(!is_there(&|record| record.kind() == RecordKind::Gap));
    let events = records.iter().filter(|record| record.is_event()).count();
    assert!((1_450..1_600).contains(&events), "{events}");
    assert!(segments(place.path("new/log")).unwrap().iter().filter(|one| one.chain() == 0).count() > 2);
    // The commands that it suggests work.
    assert_eq!(place.run("show new/log 000/42").0, 0);
    let (code, _, error) = place.run("demo new/log");
    assert!(
        code == 2 && error.contains("new/log is not empty: name a directory that is not there yet"),
        "{error}"
    );
}

#[test]
fn the_demo_events_are_the_same_in_each_run() {
    let place = Place::new().0;
    let recorded = |log: &str| {
        assert_eq!(place.run(&format!("demo {log} --events 300")).0, 0);
        // All writers but the killed one, which ends at a different moment in each run.
        let records = tracing_audit::read(place.path(log)).unwrap().map(Result::unwrap);
        let mut recorded: Vec<String> = records
            .filter(tracing_audit::Record::is_event)
            .map(|record| format!("{:?} {:?} {:?}", record.action(), record.actor(), record.session_id()))
            .collect();
        recorded.sort();
        recorded
    };
    assert_eq!(recorded("one"), recorded("two"));
}

#[test]
fn each_tampering_is_found() {
    let place = Place::new().0;
    for (damage, code, finding) in [
        ("edit", 1, "edited"),
        ("delete", 1, "deleted"),
        ("insert", 1, ""),
        ("swap", 1, ""),
        ("cut", 3, ""),
        ("remove-segment", 1, "missing_segment"),
    ] {
        let name = format!("{damage}-log");
        let (done, said, error) = place.run(&format!("demo {name} --events 1500 --damage {damage}"));
        assert_eq!((done, error.as_str()), (0, ""), "{said}");
        assert!(said.contains(&format!("{name}-damaged is a copy in which ")), "{said}");
        let report = tracing_audit::verify(place.path(&format!("{name}-damaged"))).unwrap();
        assert!(report.to_string().contains(finding), "{damage}: {report}");
        assert_eq!(place.run(&format!("verify {name}-damaged")).0, code, "{damage}: {report}");
        // The log itself is not changed.
        assert_eq!(place.run(&format!("verify {name}")).0, 0);
        if damage == "cut" {
            let lines = said.lines().filter_map(|line| line.trim().strip_prefix("tracing-audit "));
            let with_head: Vec<&str> = lines.filter(|line| line.contains("--head")).collect();
            let codes: Vec<i32> = with_head.iter().map(|line| place.run(line).0).collect();
            assert!(codes.contains(&1), "{with_head:?} {codes:?}");
        }
    }
    fs::create_dir(place.path("shut")).unwrap();
    fs::set_permissions(place.path("shut"), fs::Permissions::from_mode(0o777)).unwrap();
    let (code, _, error) = place.run("demo shut --events 100");
    assert!(code == 2 && error.contains("refusing"), "{error}");
}

/// Numbers differ from run to run: one of the writers is killed.
fn without_numbers(line: &str) -> String {
    line.chars().map(|character| if character.is_ascii_digit() { '0' } else { character }).collect()
}

#[test]
fn the_readme_shows_what_the_command_prints() {
    let readme = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../../README.md")).unwrap();
    let mut blocks = readme.split("```");
    let block =
        blocks.find(|block| block.starts_with("text\n$ tracing-audit ")).expect("a block of commands");
    let place = Place::new().0;
    let (mut printed, mut compared) = (String::new(), 0);
    for line in block.lines().skip(1) {
        if let Some(command) = line.strip_prefix("$ tracing-audit ") {
            printed = place.run(command.split('#').next().unwrap().trim()).1;
        } else if line != "…" {
            let shown = without_numbers(line);
            assert!(printed.lines().any(|line| without_numbers(line) == shown), "{line}\n{printed}");
            compared += 1;
        }
    }
    assert!(compared > 3, "{block}");
}
