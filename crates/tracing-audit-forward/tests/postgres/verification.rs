//! Changes in the tables are found.

use tracing_audit_forward::{CopyChecker, CopyFindingKind, Entry, HoleReason, Postgres, Sink as _};

use crate::{
    check_stored,
    records::{by_hand, events, sealed},
    server::Server,
    store,
};

/// Checks that after these statements, verification finds exactly this, in this order; then restores
/// everything.
#[track_caller]
fn check_found(server: &Server, store: &mut Postgres, statements: &str, expected: &[(u64, &str)]) {
    server.sql("CREATE TABLE kept AS SELECT * FROM audit_records");
    server.sql(statements);
    let report = store.verify().unwrap();
    let found: Vec<(u64, String)> =
        report.findings().iter().map(|finding| (finding.seq, format!("{:?}", finding.kind))).collect();
    // Records may have the same microsecond.
    let is_about_time = |kind: &str| kind.contains("\"ts") && !statements.contains("SET ts");
    let found: Vec<(u64, &str)> = found
        .iter()
        .map(|(seq, kind)| (*seq, kind.as_str()))
        .filter(|(_, kind)| !is_about_time(kind))
        .collect();
    assert_eq!(found, expected, "{statements}\n{report}");
    assert!(!report.is_intact() && report.to_string().starts_with("DAMAGED"), "{report}");
    server.sql("TRUNCATE audit_records; INSERT INTO audit_records SELECT * FROM kept; DROP TABLE kept");
    assert!(store.verify().unwrap().is_intact());
}

#[test]
fn what_was_changed_is_found() {
    let Some(server) = Server::start("what_was_changed_is_found") else { return };
    let mut store = store(&server);
    let entries = events(1000);
    store.offer(&entries).unwrap();
    check_stored(&server, &mut store, &entries);
    let mut check = |statements: &str, expected: &[(u64, &str)]| {
        check_found(&server, &mut store, statements, expected);
    };

    // The line.
    let edit = |seq: u64, what: &str| format!("UPDATE audit_records SET line = {what} WHERE seq = {seq}");
    check(&edit(7, "replace(convert_from(line, 'UTF8'), 'mia', 'eve')::bytea"), &[(7, "Altered")]);
    check(
        &edit(7, "line || '\\x0a'"),
        &[(7, "NotALine { what: \"it does not have the layout of a record\" }")],
    );
    check(&edit(7, "'\\xff'"), &[(7, "NotALine { what: \"it is not UTF-8\" }")]);
    check(&edit(7, "''"), &[(7, "NotALine { what: \"it does not have the layout of a record\" }")]);
    let another = |seq: u64| format!("(SELECT line FROM audit_records WHERE seq = {seq})");
    check(
        &edit(999, &another(998)),
        &[
            (998, "Repeated"),
            (998, "Column { name: \"seq\" }"),
            (998, "Column { name: \"hash\" }"),
            (998, "Column { name: \"fields\" }"),
            (999, "Missing { through: 999 }"),
        ],
    );

    // An edit with a new hash, in the column too.
    let record = &entries[499].record;
    let (members, _) = record.as_json().split_once(",\"_prev_hash\"").unwrap();
    let (_, members) = members.split_once(',').unwrap();
    let previous = entries[498].record.hash().to_string();
    let (line, hash) = sealed(500, &members.replace("\"mia\"", "\"eve\""), &previous);
    let set = format!("line = convert_to('{line}', 'UTF8'), hash = '\\x{hash}', actor = 'eve'");
    check(&format!("UPDATE audit_records SET {set} WHERE seq = 500"), &[(501, "Link")]);

    // Rows.
    check("DELETE FROM audit_records WHERE seq = 7", &[(7, "Missing { through: 7 }")]);
    check("DELETE FROM audit_records WHERE seq < 100", &[(1, "Missing { through: 99 }")]);
    check(
        "DELETE FROM audit_records WHERE seq IN (8, 9, 700)",
        &[(8, "Missing { through: 9 }"), (700, "Missing { through: 700 }")],
    );
    let copy = "INSERT INTO audit_records SELECT (jsonb_populate_record(r, '{\"seq\":2000}')).* FROM audit_records r WHERE seq = 5";
    check(copy, &[(5, "Extra"), (5, "Column { name: \"seq\" }")]);
    let strange = "INSERT INTO audit_records SELECT (jsonb_populate_record(r, '{\"chain_id\":\"f\"}')).* FROM audit_records r WHERE seq = 1";
    check(strange, &[(1, "OtherChain")]);

    let nameless = "INSERT INTO audit_records SELECT (jsonb_populate_record(r, '{\"chain_id\":\"\"}')).* FROM audit_records r WHERE seq = 1";
    check(nameless, &[(1, "OtherChain")]);
    let drop_rule = |column: &str| {
        format!(
            "ALTER TABLE audit_records ALTER {column} DROP NOT NULL; UPDATE audit_records SET {column} = NULL WHERE seq = 9"
        )
    };
    check(&drop_rule("line"), &[(9, "NotALine { what: \"it does not have the layout of a record\" }")]);
    check(&drop_rule("hash"), &[(9, "Column { name: \"hash\" }")]);

    // Each column.
    for (column, value) in [
        ("hash", "'\\x0000000000000000000000000000000000000000000000000000000000000000'"),
        ("chain", "7"),
        ("ts", "ts + interval '1 microsecond'"),
        ("ts_nanos", "(ts_nanos + 1) % 1000"),
        ("fields", "fields || '{\"number\":7777}'"),
        ("actor", "'eve'"),
        ("actor", "NULL"),
        ("outcome", "''"),
        ("message", "upper(message)"),
        ("target", "NULL"),
        ("kind", "'mark'"),
    ] {
        let name = format!("Column {{ name: \"{column}\" }}");
        check(&format!("UPDATE audit_records SET {column} = {value} WHERE seq = 42"), &[(42, &name)]);
    }
}

#[test]
fn holes_are_explained_by_the_log() {
    let Some(server) = Server::start("holes_are_explained_by_the_log") else { return };
    let mut store = store(&server);
    let event = r#""ts":"2026-01-01T00:00:00.000000001Z","kind":"event","action":"a""#;
    let entries = by_hand(&[event; 9]);
    // The same again, with a record that says that retention removed up to 3.
    let hash = entries[2].record.hash();
    let prune = format!(
        r#""ts":"2026-01-01T00:00:00.000000001Z","kind":"prune","prune":{{"through":3,"hash":"{hash}","files":[1,1],"reason":"max_age"}}"#
    );
    let mut members = vec![event; 9];
    members[7] = &prune;
    let entries = by_hand(&members);
    let kept: Vec<Entry> =
        entries.iter().filter(|entry| ![2, 3, 5, 6].contains(&entry.record.seq())).cloned().collect();
    store.offer(&kept).unwrap();
    let report = store.verify().unwrap();
    let found: Vec<_> =
        report.findings().iter().map(|finding| (finding.seq, finding.kind.to_string())).collect();
    assert_eq!(found, [(5, "records are missing from here through 6".to_owned())], "{report}");
    assert_eq!((report.holes()[0].first_seq, report.holes()[0].last_seq), (2, 3));
    assert_eq!(report.holes()[0].reason, HoleReason::Pruned);

    let mut checker = CopyChecker::new();
    checker.rejected(&entries[0].chain_id, 5);
    checker.rejected(&entries[0].chain_id, 6);
    let report = store.verify_with(checker).unwrap();
    assert!(report.is_intact() && report.to_string().contains("refused by the store"), "{report}");

    // The record after what was pruned does not link to what the prune record names.
    let prune = prune.replace(&hash.to_string(), &"0".repeat(64));
    members[7] = &prune;
    let entries = by_hand(&members);
    server.sql("TRUNCATE audit_records");
    let kept: Vec<Entry> =
        entries.into_iter().filter(|entry| ![2, 3].contains(&entry.record.seq())).collect();
    store.offer(&kept).unwrap();
    let report = store.verify().unwrap();
    assert_eq!(report.findings()[0].kind, CopyFindingKind::Link, "{report}");
}
