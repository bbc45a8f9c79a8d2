//! What somebody changes in the stream is found.

use serde_json::json;
use tracing_audit_forward::{CopyChecker, CopyFindingKind, Entry, HoleReason, Nats, Sink as _};

use crate::{
    records::{by_hand, events, sealed},
    server::Server,
    subject,
};

/// A subject and a payload.
type Message = (String, String);

/// Checks that a stream with these messages has these findings, in this order.
#[track_caller]
fn check(server: &Server, number: usize, messages: &[Message], expected: &[(u64, &str)]) {
    let (stream, prefix) = (format!("S{number}"), format!("s{number}"));
    let admin = server.admin();
    admin.make(&stream, &json!({ "subjects": [format!("{prefix}.>")] }));
    for (subject, payload) in messages {
        admin.publish(&subject.replacen("audit", &prefix, 1), payload, &[]);
    }
    let report = Nats::new(&format!("{}&prefix={prefix}", server.url(&stream))).unwrap().verify().unwrap();
    let found: Vec<(u64, String)> =
        report.findings().iter().map(|finding| (finding.seq, format!("{:?}", finding.kind))).collect();
    let found: Vec<(u64, &str)> = found.iter().map(|(seq, kind)| (*seq, kind.as_str())).collect();
    assert_eq!(found, expected, "{report}");
    assert_eq!(report.is_intact(), expected.is_empty());
}

#[test]
fn what_was_altered_removed_or_inserted_is_found() {
    let Some(server) = Server::start("what_was_altered_removed_or_inserted_is_found") else { return };
    let entries = events(30);
    let right: Vec<Message> =
        entries.iter().map(|entry| (subject(entry), entry.record.as_json().to_owned())).collect();
    let with = |change: &dyn Fn(&mut Vec<Message>)| {
        let mut messages = right.clone();
        change(&mut messages);
        messages
    };
    check(&server, 0, &right, &[]);
    check(&server, 1, &with(&|all| all[6].1 = all[6].1.replace("mia", "eve")), &[(7, "Altered")]);
    check(&server, 2, &with(&|all| drop(all.remove(6))), &[(7, "Missing { through: 7 }")]);
    check(&server, 3, &with(&|all| drop(all.drain(..9))), &[(1, "Missing { through: 9 }")]);
    check(&server, 4, &with(&|all| all.insert(6, all[5].clone())), &[(6, "Repeated")]);
    check(&server, 5, &with(&|all| all.insert(20, all[3].clone())), &[(4, "Extra")]);
    let junk = |subject: &str| (subject.to_owned(), "junk".to_owned());
    let not_a_line = "NotALine { what: \"it does not have the layout of a record\" }";
    check(&server, 6, &with(&|all| all.push(junk(&right[0].0))), &[(entries.len() as u64 + 1, not_a_line)]);
    // Only forwarders should publish under the prefix.
    check(&server, 7, &with(&|all| all.push(junk("audit.web.n1.x"))), &[(1, not_a_line)]);
    let other = format!("audit.web.n1.{}", "f".repeat(32));
    check(&server, 8, &with(&|all| all.push((other.clone(), right[0].1.clone()))), &[(1, "OtherChain")]);
    // An edit with a new hash.
    let record = &entries[14].record;
    let (members, _) = record.as_json().split_once(",\"_prev_hash\"").unwrap();
    let (_, members) = members.split_once(',').unwrap();
    let previous = entries[13].record.hash().to_string();
    let (line, _) = sealed(15, &members.replace("\"mia\"", "\"eve\""), &previous);
    check(&server, 9, &with(&|all| all[14].1.clone_from(&line)), &[(16, "Link")]);
}

#[test]
fn holes_are_explained_and_heads_compared() {
    let Some(server) = Server::start("holes_are_explained_and_heads_compared") else { return };
    server.admin().make("AUDIT", &json!({}));
    let mut store = Nats::new(&server.url("AUDIT")).unwrap();
    let event = r#""ts":"2026-01-01T00:00:00.000000001Z","kind":"event","action":"a""#;
    let entries = by_hand(&[event; 9]);
    let kept: Vec<Entry> =
        entries.iter().filter(|entry| ![5, 6].contains(&entry.record.seq())).cloned().collect();
    store.offer(&kept).unwrap();
    let report = store.verify().unwrap();
    assert!(matches!(report.findings()[0].kind, CopyFindingKind::Missing { through: 6, .. }), "{report}");
    let mut checker = CopyChecker::new();
    checker.rejected(&entries[0].chain_id, 5);
    checker.rejected(&entries[0].chain_id, 6);
    checker.expect_head(entries.last().unwrap().record.head());
    let report = store.verify_with(checker).unwrap();
    assert!(report.is_intact(), "{report}");
    assert_eq!(report.holes()[0].reason, HoleReason::Rejected);
    let mut checker = CopyChecker::new();
    checker
        .expect_head(format!("000/99:{}", entries[0].record.hash()).parse::<tracing_audit::Head>().unwrap());
    let report = store.verify_with(checker).unwrap();
    assert!(
        report
            .findings()
            .iter()
            .any(|finding| matches!(finding.kind, CopyFindingKind::NoRecordOfHead { .. }))
    );
}

#[test]
fn large_streams_are_verified_in_parts() {
    let Some(server) = Server::start("large_streams_are_verified_in_parts") else { return };
    // Other subjects of the stream are ignored.
    server.admin().make("AUDIT", &json!({ "subjects": ["audit.>", "other"] }));
    let mut store = Nats::new(&server.url("AUDIT")).unwrap();
    // More than the server sends ahead: 8 MiB.
    let entries = crate::records::logged(|| {
        let long = "x".repeat(50_000);
        (0..300).for_each(|n| tracing::info!(target: "audit", action = long, actor = "b", n));
    });
    server.admin().publish("other", "1", &[]);
    for batch in entries.chunks(60) {
        store.offer(batch).unwrap();
    }
    server.admin().publish("other", "2", &[]);
    let report = store.verify().unwrap();
    assert!(report.is_intact() && report.records() == entries.len() as u64, "{report}");
    server.admin().make("EMPTY", &json!({ "subjects": ["empty.>"] }));
    let empty = format!("{}&prefix=empty", server.url("EMPTY"));
    assert_eq!(Nats::new(&empty).unwrap().verify().unwrap().records(), 0);
}
