//! `export` and `report` of unusual logs: several chains, clocks set back, members with any name, later formats.

use std::{
    io::{BufRead as _, BufReader},
    process::Stdio,
};

use serde_json::{Value as Json, json};

use super::forge::{BEGIN, Forge, id_of, time, two_days};
use crate::place::Place;

fn objects(text: &str) -> Vec<Json> {
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// A line of another chain that names a record of chain 001.
fn names_of_1(forge: &mut Forge, at: i64, id: &str, seq: u64) {
    let unconfirmed = json!({"reason": "timeout", "chain": "001", "id": id, "records": [[seq, seq]]});
    forge.record(at, &format!("\"kind\":\"unconfirmed\",\"unconfirmed\":{unconfirmed}"));
}

/// The line that names an exported record unconfirmed is exported from anywhere; lines that name other records are not.
#[test]
fn a_line_is_exported_with_the_line_of_another_chain_that_names_it() {
    let place = Place::new().0;
    let log = place.path("two");
    let mut one = Forge::of_chain(&log, 1, BEGIN);
    for actor in ["mia", "jonas", "mallory"] {
        one.event(BEGIN + 50, "critical", &json!({"action": "pay", "actor": actor, "outcome": "success"}));
    }
    one.close(BEGIN + 60);
    let mut zero = Forge::of_chain(&log, 0, BEGIN);
    // Lines about a removed chain, about another record, and two about this one. A slow clock puts the first of these before
    // the record itself.
    names_of_1(&mut zero, BEGIN + 1, &"0".repeat(32), 5);
    names_of_1(&mut zero, BEGIN + 2, &id_of(1), 3);
    names_of_1(&mut zero, BEGIN + 3, &id_of(1), 5);
    names_of_1(&mut zero, BEGIN + 70, &id_of(1), 5);
    zero.unconfirmed(BEGIN + 71, 1, 2);
    zero.close(BEGIN + 72);
    for filter in
        ["--actor mallory", "--chain 001 --actor mallory", "--seq 5 --chain 001", "--actor mallory --seq 5.."]
    {
        let (code, out, err) = place.run(&format!("export two --format jsonl {filter} -o -"));
        let lines = objects(&out);
        let said: Vec<&Json> = lines.iter().filter(|line| line["kind"] == "unconfirmed").collect();
        assert_eq!(code, 0, "{err}");
        let named: Vec<_> = said.iter().map(|line| (&line["seq"], &line["unconfirmed"]["id"])).collect();
        let id = json!(id_of(1));
        assert_eq!(named, [(&json!(5), &id), (&json!(6), &id)], "{filter}: {out}");
        assert!(lines.iter().any(|line| line["actor"] == "mallory"), "{filter}");
    }
    let (_, out, _) = place.run("export two --format jsonl --actor jonas -o -");
    assert_eq!(out.lines().count(), 1, "{out}");
}

#[test]
fn a_clock_that_was_set_back_hides_nothing() {
    let place = Place::new().0;
    let mut forge = Forge::new(&place.path("back"), BEGIN);
    let hour = 3_600_000;
    let pay = |actor: &str| json!({"action": "pay", "actor": actor});
    for (count, at, actor) in [(300, 4, "late"), (900, 2, "back"), (300, 5, "after")] {
        for n in 0..count {
            forge.event(BEGIN + at * hour + n, "routine", &pay(actor));
        }
    }
    forge.close(BEGIN + 6 * hour);
    for (since, count) in [(3 * hour, 600), (2 * hour, 1500), (4 * hour + 100, 500)] {
        let since = time(BEGIN + since);
        let (_, out, _) = place.run(&format!("export back --format jsonl --since {since} --kind event -o -"));
        assert_eq!(out.lines().count(), count, "{since}");
    }
}

/// A log with members of other types than other formats expect, and with `ts` values that are not times.
fn odd() -> Place {
    let place = Place::new().0;
    let mut forge = Forge::new(&place.path("odd"), BEGIN);
    let event = "\"kind\":\"event\",\"severity\":\"routine\",\"level\":\"INFO\"";
    let odd = "\"chain\":\"mine\",\"file\":\"mine\",\"byte\":7,\"position\":\"mine\",\"record\":\"mine\",\"unconfirmed\":\"mine\",\"provisional\":\"mine\"";
    forge.record(BEGIN + 5, &format!("{event},{odd}"));
    forge.raw(&format!("{event},\"action\":\"no.time\",\"actor\":\"x;=cmd|' /C calc'!A0;\""));
    forge.raw(&format!("\"ts\":\"hello\",{event},\"action\":\"bad.time\""));
    forge.raw(&format!("\"ts\":77,{event},\"action\":5"));
    forge.close(BEGIN + 6);
    place
}

#[test]
fn members_of_any_name_keep_their_values() {
    let place = odd();
    for (format, rest) in [("ocsf", "unmapped"), ("ecs", "tracing_audit")] {
        let (code, out, _) = place.run(&format!("export odd --format {format} --seq 3.. -o -"));
        let all = objects(&out);
        assert_eq!(code, 0);
        let (record, position) = (&all[0][rest]["record"], &all[0][rest]["position"]);
        for name in ["chain", "file", "position", "record", "unconfirmed", "provisional"] {
            assert_eq!(record[name], "mine", "{format} {name}");
        }
        assert_eq!(record["byte"], 7);
        assert_eq!(
            (&position["chain"], &position["file"]),
            (&json!("000"), &json!("audit-000-00000001.jsonl"))
        );
        assert!(position["byte"].as_u64().unwrap() > 100);
        // A member of the wrong type is only in the untranslated rest.
        assert_eq!(
            (&all[3][rest]["record"]["action"], &all[3][rest]["record"]["ts"]),
            (&json!(5), &json!(77))
        );
        assert_eq!(all[2][rest]["record"]["ts"], "hello");
    }
}

#[test]
fn a_record_without_a_time_gets_that_of_the_one_before_and_says_so() {
    let place = odd();
    let (_, out, _) = place.run("export odd --format ecs -o -");
    let documents = objects(&out);
    for document in &documents[3..6] {
        assert_eq!(document["@timestamp"], time(BEGIN + 5), "{document}");
        assert_eq!(document["labels"]["audit_time_missing"], "true");
    }
    assert!(documents[2]["labels"]["audit_time_missing"].is_null());
    let (_, out, _) = place.run("export odd --format ocsf -o -");
    for event in &objects(&out)[3..6] {
        assert_eq!(
            (&event["time"], &event["metadata"]["labels"]),
            (&json!(BEGIN + 5), &json!(["audit_time_missing"]))
        );
    }
    // No record with a time was read before it.
    let (_, out, _) = place.run("export odd --format ecs --seq 4 -o -");
    assert_eq!(objects(&out)[0]["@timestamp"], "1970-01-01T00:00:00.000000000Z");
}

#[test]
fn only_the_logs_own_records_get_an_action_from_their_kind() {
    let place = odd();
    let (_, out, _) = place.run("export odd --format ecs -o -");
    let documents = objects(&out);
    assert!(documents[2]["event"]["action"].is_null(), "{}", documents[2]);
    assert_eq!(documents[1]["event"]["action"], "audit-log.open");
}

/// Reads the table as a spreadsheet that separates cells at `;`: no cell begins a formula, and every cell is quoted.
#[test]
fn csv_has_no_formula_after_a_semicolon() {
    let place = odd();
    let (_, out, _) = place.run("export odd --format csv -o -");
    for line in out.lines() {
        assert!(
            line.starts_with('"') && line.ends_with('"') && line.matches("\",\"").count() >= 28,
            "{line}"
        );
        for cell in line.split([';', '\t']) {
            let cell =
                cell.trim_start_matches(|character: char| character == '"' || character.is_whitespace());
            assert!(!cell.starts_with(['=', '+', '-', '@', '|', '%']), "{cell}");
        }
    }
    assert!(out.contains("x;'=cmd|' /C calc'!A0;"), "{out}");
}

#[test]
fn records_of_a_later_format_are_reported() {
    let place = Place::new().0;
    let mut forge = Forge::new(&place.path("later"), BEGIN);
    forge.event(BEGIN, "routine", &json!({"action": "one"}));
    forge.format = 2;
    forge.rotate(BEGIN + 1);
    forge.event(BEGIN + 2, "routine", &json!({"action": "two"}));
    forge.close(BEGIN + 3);
    for filter in ["", "--action two ", "--seq 5.. "] {
        let (code, out, err) = place.run(&format!("export later --format jsonl {filter}-o -"));
        assert_eq!(code, 1, "{filter}: {err}");
        assert!(out.contains("\"two\""));
        assert!(err.contains("chain 000: from audit-000-00000002.jsonl on it has format 2"), "{err}");
    }
    let (code, _, err) = place.run("export later --format jsonl --action one -o -");
    assert_eq!(code, 0, "{err}");
}

#[test]
fn a_closed_pipe_is_no_failure() {
    let place = Place::new().0;
    two_days(&place.path("days"), 200);
    for line in [
        "export days --format ecs -o -",
        "export days --format csv -o -",
        "export days --format jsonl -o -",
        "report days -o -",
    ] {
        let mut command = place.command(line);
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let mut out = BufReader::with_capacity(16, child.stdout.take().unwrap());
        if line.starts_with("export") {
            out.read_line(&mut String::new()).unwrap();
        }
        drop(out);
        let output = child.wait_with_output().unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!((output.status.code(), said.as_str()), (Some(0), ""), "{line}");
    }
}
