//! `show`.

use std::{fs, process::Command};

use super::crafted::Crafted;
use crate::place::{Place, can_run, skip};

#[test]
fn a_record_is_shown_in_full_with_its_links() {
    let (place, head) = Place::new();
    let (code, said, error) = place.run("show log 000/5");
    assert_eq!((code, error.as_str()), (0, ""));
    for words in [
        "record 000/5\n",
        "audit-000-00000001.jsonl, line 5, from byte ",
        "  hash      right: ",
        "  previous  right: 000/4 its hash is in this record",
        "  next      right: 000/6 has the hash of this record",
        "  durable   yes",
        "  action    item.seen\n",
        "    n  2\n",
    ] {
        assert!(said.contains(words), "{words}: {said}");
    }
    let (code, said, _) = place.run(&format!("show log {head}"));
    assert!(
        code == 0 && said.contains("the requested hash") && said.contains("none yet: this is the last"),
        "{said}"
    );
    let other = head.to_string().replace(|digit: char| digit.is_ascii_lowercase(), "0");
    let (code, said, _) = place.run(&format!("show log {other}"));
    assert!(code == 1 && said.contains("NOT the requested hash"), "{said}");
    let (code, said, _) = place.run("show log 0/1");
    assert!(code == 0 && said.contains("previous  right: the first record of its chain"), "{said}");
}

#[test]
fn every_line_of_a_log_is_checked_without_this_tool() {
    let name = "every_line_of_a_log_is_checked_without_this_tool";
    if !can_run("sh", &["-c", "printf x | head -c -0 | sha256sum"]) {
        return skip(name, "it needs a head that takes `-c -77`, and sha256sum");
    }
    let (place, _) = Place::new();
    let records = tracing_audit::read(place.path("log")).unwrap().map(Result::unwrap);
    for record in records {
        let (code, said, _) = place.run(&format!("show log 000/{} --json", record.seq()));
        let shown: serde_json::Value = serde_json::from_str(&said).unwrap();
        assert_eq!((code, shown["text"].as_str()), (0, Some(record.as_json())));
        let mut shell = Command::new("sh");
        shell.args(["-c", shown["check"].as_str().unwrap()]).current_dir(place.path(""));
        let printed = String::from_utf8(shell.output().unwrap().stdout).unwrap();
        assert_eq!(printed, format!("{}  -\n", record.hash()), "record {}", record.seq());
    }
}

#[test]
fn a_changed_or_deleted_record_is_reported() {
    let (place, _) = Place::new();
    let file = place.path("log/audit-000-00000001.jsonl");
    let whole = fs::read_to_string(&file).unwrap();
    fs::write(&file, whole.replacen("mia", "eve", 1)).unwrap();
    let (code, said, _) = place.run("show log 000/3");
    assert_eq!(code, 1);
    for words in ["hash      WRONG: ", "actor     eve", "next      WRONG: 000/4", "previous  right: 000/2"] {
        assert!(said.contains(words), "{words}: {said}");
    }
    // Records further away are not affected.
    assert_eq!(place.run("show log 000/5").0, 0);
    let lines: Vec<&str> = whole.split_inclusive('\n').collect();
    fs::write(&file, [&lines[..4], &lines[5..]].concat().concat()).unwrap();
    let (code, said, error) = place.run("show log 000/5");
    assert!(code == 1 && said.is_empty() && error.contains("there is no record 000/5 in log"), "{error}");
    fs::write(&file, whole).unwrap();
    for (line, words) in [
        ("show log 000/99", "chain 000 ends with record 13"),
        ("show log 007/1", "it has no chain 007, but 000"),
    ] {
        let (code, _, error) = place.run(line);
        assert!(code == 1 && error.contains(words), "{line}: {error}");
    }
    for record in ["7", "000/0", "000/x", "0000/1", "000/1:abc", ""] {
        let (code, _, error) = place.run(&format!("show log {record}"));
        assert!(code == 2 && !error.contains("panicked"), "{record}: {error}");
    }
}

#[test]
fn show_marks_provisional_and_unconfirmed_records() {
    let mut log = Crafted::new();
    log.event("");
    log.line(r#""kind":"unconfirmed","unconfirmed":{"reason":"timeout","records":[[3,3]]},"durable":3"#);
    log.event("");
    let show = |record: &str| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_tracing-audit"));
        String::from_utf8(command.arg("show").arg(log.path()).arg(record).output().unwrap().stdout).unwrap()
    };
    assert!(show("0/3").contains("UNCONFIRMED: a caller got an error"), "{}", show("0/3"));
    assert!(show("0/5").contains("durable   not known yet"), "{}", show("0/5"));
    assert!(!show("0/4").contains("UNCONFIRMED"), "{}", show("0/4"));
}
