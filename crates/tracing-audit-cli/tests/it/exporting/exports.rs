//! `export`: the formats, and where it may write.

use std::{fs, os::unix::fs::symlink, path::Path, process::Command};

use serde_json::{Value as Json, json};

use super::forge::{BEGIN, Forge};
use crate::place::Place;

/// A log with a confirmed login, an unconfirmed one, a failed one, and another event with hostile texts.
fn small() -> Place {
    let (place, _) = Place::new();
    let mut forge = Forge::new(&place.path("small"), BEGIN);
    forge.event(
        BEGIN,
        "routine",
        &json!({"action": "auth.login", "actor": "mia", "outcome": "success", "source": "203.0.113.9:4711", "session_id": "s-1", "trace_id": "4bf92f3577b34da6a3ce929d0e0e4736"}),
    );
    let refused = forge.event(
        BEGIN + 1,
        "critical",
        &json!({"action": "auth.login", "actor": "jonas", "outcome": "success", "source": "web-1", "reason": "=cmd|' /C calc'!A0"}),
    );
    // The line comes directly after the sync that made the record durable.
    forge.unconfirmed(BEGIN + 1, refused, refused);
    forge.event(
        BEGIN + 2,
        "critical",
        &json!({"action": "auth.failure", "actor": "eve", "outcome": "denied"}),
    );
    forge.event(
        BEGIN + 3,
        "routine",
        &json!({"action": "invoice.created", "actor": "=1+1", "outcome": "pending", "resource": "@SUM(A1)", "request_id": "-2", "message": "a\tb\n\"c\""}),
    );
    forge.event(BEGIN + 4, "routine", &json!({"fields": {"n": 7}}));
    forge.close(BEGIN + 6);
    place
}

fn objects(text: &str) -> Vec<Json> {
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn segment(place: &Place) -> String {
    fs::read_to_string(place.path("small/audit-000-00000001.jsonl")).unwrap()
}

#[test]
fn lines_are_exported_byte_for_byte_with_a_note_on_evidence() {
    let place = small();
    let (code, out, err) = place.run("export small --format jsonl -o -");
    assert_eq!((code, out), (0, segment(&place)));
    assert!(err.contains("an export is not the evidence: the log is"), "{err}");
    assert!(err.contains("1 record unconfirmed, which may have been refused: 000/4"), "{err}");
}

#[test]
fn an_unconfirmed_line_is_exported_with_the_line_that_names_it() {
    let place = small();
    let (_, out, _) = place.run("export small --format jsonl --actor jonas -o -");
    let kinds: Vec<Json> = objects(&out).into_iter().map(|line| line["kind"].clone()).collect();
    assert_eq!(kinds, ["event", "unconfirmed"]);
    let (_, out, _) = place.run("export small --format jsonl --actor mia -o -");
    assert_eq!(out.lines().count(), 1);
}

#[test]
fn a_csv_row_has_no_formula_and_identifies_its_record() {
    let place = small();
    let (code, out, _) = place.run("export small --format csv -o -");
    assert_eq!(code, 0);
    let mut table = csv::Reader::from_reader(out.as_bytes());
    let names = table.headers().unwrap().clone();
    let rows: Vec<csv::StringRecord> = table.records().map(Result::unwrap).collect();
    let of = |row: &csv::StringRecord, name: &str| {
        row[names.iter().position(|known| known == name).unwrap()].to_owned()
    };
    let lines = segment(&place);
    assert_eq!(rows.len(), lines.lines().count());
    for row in &rows {
        for cell in row {
            assert!(!cell.starts_with(['=', '+', '-', '@', '\t', '\r']), "{cell}");
            assert!(!cell.contains(|character: char| character.is_control()), "{cell:?}");
        }
        let line = lines[of(row, "byte").parse().unwrap()..].lines().next().unwrap();
        assert!(line.starts_with(&format!("{{\"seq\":{},", of(row, "seq"))), "{line}");
        assert!(line.ends_with(&format!("\"_hash\":\"{}\"}}", of(row, "_hash"))), "{line}");
        assert_eq!(
            (of(row, "file"), of(row, "chain")),
            ("audit-000-00000001.jsonl".to_owned(), "000".to_owned())
        );
    }
    let row = |seq: &str| rows.iter().find(|row| of(row, "seq") == seq).unwrap();
    assert_eq!(of(row("3"), "outcome"), "success");
    let refused = row("4");
    assert_eq!(of(refused, "outcome"), "unconfirmed");
    assert_eq!(
        (of(refused, "recorded_outcome"), of(refused, "unconfirmed")),
        ("success".to_owned(), "yes".to_owned())
    );
    assert_eq!(of(refused, "reason"), "'=cmd|' /C calc'!A0");
    assert_eq!(of(row("7"), "actor"), "'=1+1");
    assert_eq!(of(row("7"), "request_id"), "'-2");
    assert_eq!(of(row("7"), "message"), "a\\u{9}b\\u{a}\"c\"");
    assert_eq!(of(row("8"), "fields"), "{\"n\":7}");
}

/// JSON pointers to the attributes that OCSF 1.5.0 requires in every class and in those that are used. Of several in one
/// entry, one must be there.
const REQUIRED: [&[&str]; 9] = [
    &["/category_uid"],
    &["/class_uid"],
    &["/activity_id"],
    &["/type_uid"],
    &["/time"],
    &["/severity_id"],
    &["/metadata/version"],
    &["/metadata/product/name", "/metadata/product/uid"],
    &["/status_id"],
];
const REQUIRED_OF_AUTHENTICATION: [&[&str]; 2] =
    [&["/user/name", "/user/uid", "/user/account"], &["/service/name", "/service/uid", "/dst_endpoint/ip"]];
const REQUIRED_OF_API_ACTIVITY: [&[&str]; 3] = [
    &["/actor/user/name", "/actor/app_name"],
    &["/api/operation"],
    &["/src_endpoint/ip", "/src_endpoint/name", "/src_endpoint/uid"],
];

#[test]
fn an_ocsf_event_has_what_its_class_requires() {
    let place = small();
    let (code, out, _) = place.run("export small --format ocsf -o -");
    assert_eq!(code, 0);
    let events = objects(&out);
    assert_eq!(events.len(), segment(&place).lines().count());
    for event in &events {
        let number = |name: &str| event[name].as_u64().unwrap();
        let (class, category) = (number("class_uid"), number("category_uid"));
        let more: &[&[&str]] = match (category, class) {
            (3, 3002) => &REQUIRED_OF_AUTHENTICATION,
            (6, 6003) => &REQUIRED_OF_API_ACTIVITY,
            (0, 0) => &[],
            other => panic!("{other:?}"),
        };
        for any in REQUIRED.iter().chain(more) {
            assert!(
                any.iter().any(|pointer| event.pointer(pointer).is_some()),
                "{any:?} is missing: {event}"
            );
        }
        assert_eq!(number("type_uid"), class * 100 + number("activity_id"));
        assert_eq!(event["metadata"]["version"], "1.5.0");
        assert!(event["time"].as_i64().unwrap() >= BEGIN);
    }
    let of = |seq: u64| events.iter().find(|event| event["unmapped"]["record"]["seq"] == seq).unwrap();
    assert_eq!(
        (&of(3)["class_uid"], &of(3)["activity_id"], &of(3)["status_id"]),
        (&json!(3002), &json!(1), &json!(1))
    );
    assert_eq!(of(3)["src_endpoint"], json!({"ip": "203.0.113.9", "port": 4711}));
    assert_eq!(of(4)["src_endpoint"], json!({"name": "web-1"}));
    assert_eq!((&of(6)["status_id"], &of(6)["severity_id"]), (&json!(2), &json!(5)));
    assert_eq!(
        (&of(7)["class_uid"], &of(7)["activity_id"], &of(7)["status_id"]),
        (&json!(6003), &json!(1), &json!(99))
    );
    assert_eq!(of(7)["status"], "pending");
    assert_eq!((&of(8)["activity_id"], &of(8)["status_id"]), (&json!(0), &json!(0)));
    for event in &events {
        let rest = &event["unmapped"];
        let line = &segment(&place)[usize::try_from(rest["position"]["byte"].as_u64().unwrap()).unwrap()..];
        assert!(line.lines().next().unwrap().ends_with(&format!("{}}}", rest["record"]["_hash"])));
    }
}

#[test]
fn an_unconfirmed_record_is_never_exported_as_a_success() {
    let place = small();
    let (_, out, _) = place.run("export small --format ocsf --actor jonas -o -");
    let event = &objects(&out)[0];
    assert_eq!((&event["status_id"], &event["status"]), (&json!(99), &json!("unconfirmed")));
    assert_eq!(event["metadata"]["labels"], json!(["unconfirmed"]));
    assert_eq!(event["unmapped"]["position"]["unconfirmed"], true);
    assert!(event["status_detail"].as_str().unwrap().contains("may have been refused"));
    let (_, out, _) = place.run("export small --format ecs --actor jonas -o -");
    let document = &objects(&out)[0];
    assert_eq!(document["event"]["outcome"], "unknown");
    assert_eq!(document["labels"]["audit_unconfirmed"], "true");
    assert_eq!(document["labels"]["audit_recorded_outcome"], "success");
}

#[test]
fn an_ecs_document_has_what_the_schema_names() {
    let place = small();
    let (code, out, _) = place.run("export small --format ecs -o -");
    assert_eq!(code, 0);
    let documents = objects(&out);
    for document in &documents {
        assert_eq!(document["ecs"]["version"], "8.17.0");
        assert!(document["@timestamp"].as_str().unwrap().starts_with("2026-11-20T06:00:00.0"));
        assert_eq!(document["event"]["kind"], "event");
        assert!(["success", "failure", "unknown"].contains(&document["event"]["outcome"].as_str().unwrap()));
        assert!(document["event"]["category"].is_array() && document["event"]["type"].is_array());
        assert!(document["labels"].as_object().unwrap().values().all(Json::is_string), "{document}");
        assert_eq!(document["event"]["hash"], document["tracing_audit"]["record"]["_hash"]);
    }
    let of = |seq: u64| documents.iter().find(|document| document["event"]["sequence"] == seq).unwrap();
    assert_eq!(of(3)["source"], json!({"address": "203.0.113.9:4711", "ip": "203.0.113.9", "port": 4711}));
    assert_eq!(of(4)["source"], json!({"address": "web-1"}));
    assert_eq!(of(3)["trace"]["id"], "4bf92f3577b34da6a3ce929d0e0e4736");
    assert_eq!(of(3)["user"]["name"], "mia");
    assert_eq!(of(6)["event"]["outcome"], "failure");
    assert_eq!(of(7)["event"]["outcome"], "unknown");
    assert_eq!(
        (&of(7)["event"]["category"], &of(7)["event"]["type"]),
        (&json!(["api"]), &json!(["creation"]))
    );
}

fn names(dir: &Path) -> Vec<String> {
    let mut names: Vec<String> =
        fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[test]
fn a_file_appears_when_it_is_complete_and_never_in_a_log() {
    let place = small();
    symlink(place.path("small"), place.path("link")).unwrap();
    symlink(place.path("small/audit-000-00000001.jsonl"), place.path("to-segment")).unwrap();
    let before = segment(&place);
    for target in
        ["small/x.csv", "link/x.csv", "small/../small/x.csv", "to-segment", "small/audit-000-00000001.jsonl"]
    {
        for command in ["export small --format csv -o", "report small -o", "report link -o"] {
            let (code, out, err) = place.run(&format!("{command} {target}"));
            assert_eq!((code, out.as_str()), (2, ""), "{command} {target}");
            assert!(err.contains("is in the directory of the log; write it elsewhere"), "{err}");
        }
    }
    assert_eq!(names(&place.path("small")), ["audit-000-00000001.jsonl"]);
    assert_eq!(segment(&place), before);
    // A failed export leaves the old file, and no other.
    fs::write(place.path("kept.csv"), "kept").unwrap();
    fs::create_dir(place.path("small/audit-000-00000002.jsonl")).unwrap();
    let all = names(&place.path("."));
    let (code, _, _) = place.run("export small --format csv -o kept.csv");
    assert_eq!(code, 2);
    assert_eq!(fs::read_to_string(place.path("kept.csv")).unwrap(), "kept");
    assert_eq!(names(&place.path(".")), all);
    fs::remove_dir(place.path("small/audit-000-00000002.jsonl")).unwrap();
    let (code, out, _) = place.run("export small --format jsonl -o kept.csv");
    assert_eq!((code, out.as_str()), (0, ""));
    assert_eq!(fs::read_to_string(place.path("kept.csv")).unwrap(), before);
    assert_eq!(names(&place.path(".")), all);
}

#[test]
fn invalid_logs_and_output_files_are_refused_with_the_reason() {
    let place = small();
    fs::create_dir(place.path("packed")).unwrap();
    fs::write(place.path("packed/audit-000-00000001.jsonl.gz"), "").unwrap();
    fs::create_dir(place.path("empty")).unwrap();
    let check = |line: &str, said: &str| {
        let (code, out, err) = place.run(line);
        assert_eq!((code, out.as_str()), (2, ""), "{line}");
        assert!(err.contains(said), "{line}: {err}");
    };
    for command in ["export LOG --format csv -o x", "report LOG -o x"] {
        let check = |log: &str, said: &str| check(&command.replace("LOG", log), said);
        check("packed", "its segments are compressed");
        check("empty", "the directory is empty");
        check("small/audit-000-00000001.jsonl", "it is a file; name the directory");
        check("nowhere", "there is no audit log at nowhere: there is no such directory");
    }
    check("report small -o /dev/null", "is not a file; write with `-o -`");
    check("report small -o packed", "is a directory");
    check("report small -o nowhere/x", "cannot write nowhere/x");
    assert!(!place.path("x").exists());
}

#[test]
fn unreadable_lines_are_reported() {
    let place = small();
    let path = place.path("small/audit-000-00000001.jsonl");
    fs::write(&path, segment(&place).replace("\"actor\":\"eve\"", "\"actor\":\"bob\"")).unwrap();
    let (code, out, err) = place.run("export small --format jsonl -o -");
    assert_eq!(code, 1);
    assert!(!out.contains("bob"));
    assert!(err.contains("left out: 1 line without a record"), "{err}");
    assert!(err.contains("tracing-audit verify small"), "{err}");
}

#[test]
fn a_closed_pipe_ends_an_export_silently() {
    let (place, _) = Place::new();
    super::forge::two_days(&place.path("days"), 200);
    let binary = env!("CARGO_BIN_EXE_tracing-audit");
    for format in ["ecs", "csv", "jsonl"] {
        let script = format!("{binary} export days --format {format} -o - 2>err | head -n 1 | wc -l");
        let output = Command::new("sh").args(["-c", &script]).current_dir(place.path(".")).output().unwrap();
        assert_eq!(String::from_utf8(output.stdout).unwrap().trim(), "1");
        assert_eq!(fs::read_to_string(place.path("err")).unwrap(), "", "{format}");
    }
}
