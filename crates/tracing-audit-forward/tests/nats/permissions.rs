//! The permissions described in docs/forwarding/nats.md.

use std::time::Duration;

use serde_json::json;
use tracing_audit_forward::{Feed as _, Gap, Nats, NatsFeed, Sink as _};

use crate::{check_setup, check_stored, records::events, server::Server, subject};

/// Returns the users of the documentation, which are tested as they are written there.
fn users() -> String {
    let text = include_str!("../../../../docs/forwarding/nats.md");
    let block = text.split("```text\n").find(|block| block.contains("user: audit_writer")).unwrap();
    let (block, _) = block.split_once("```").unwrap();
    let users = block.split_once("users: [").unwrap().1.rsplit_once(']').unwrap().0;
    format!("USERS:{}", users.replace("$PASSWORD", crate::server::PASSWORD))
}

/// Requests by which somebody would remove records.
const DELETIONS: [(&str, &str); 4] = [
    ("$JS.API.STREAM.DELETE.AUDIT", ""),
    ("$JS.API.STREAM.PURGE.AUDIT", ""),
    ("$JS.API.STREAM.MSG.DELETE.AUDIT", r#"{"seq":1}"#),
    (
        "$JS.API.STREAM.UPDATE.AUDIT",
        r#"{"name":"AUDIT","subjects":["audit.>"],"storage":"file","max_msgs":1}"#,
    ),
];

#[test]
fn the_users_of_the_documentation_can_do_their_work_and_nothing_else() {
    let name = "the_users_of_the_documentation_can_do_their_work_and_nothing_else";
    let Some(server) = Server::start_with(name, &users()) else { return };
    let admin = server.admin();
    admin.make("AUDIT", &json!({}));
    let entries = events(30);
    let as_writer = format!("{}&inbox=_INBOX_web_n1", server.url_of("audit_writer", "AUDIT"));
    let as_reader = format!("{}&inbox=_INBOX_reader", server.url_of("audit_reader", "AUDIT"));
    // The writer: everything that a sink does.
    let mut writer = Nats::new(&as_writer).unwrap();
    let id = entries[0].chain_id.clone();
    assert_eq!(writer.positions(std::slice::from_ref(&id)).unwrap(), Some(vec![]));
    writer.offer(&entries[..20]).unwrap();
    // Another sender, which has to query what it offers.
    let mut again = Nats::new(&as_writer).unwrap();
    again.offer(&entries[..10]).unwrap();
    again.offer(&entries).unwrap();
    again.gap(&Gap::new(id, 0, 100..=110)).unwrap();
    check_setup(&writer.verify().map(|report| report.records()), "CONSUMER.CREATE");
    // Nobody else's records.
    let mut other = Nats::new(&as_writer.replace("host=n1", "host=n2")).unwrap();
    check_setup(&other.offer(&entries), "Permissions Violation");
    // The reader: verification and the feed.
    let mut reader = Nats::new(&as_reader).unwrap();
    let report = reader.verify().unwrap();
    assert!(report.is_intact() && report.records() == entries.len() as u64, "{report}");
    check_setup(&reader.offer(&events(1)), "Permissions Violation");
    let mut feed = NatsFeed::new(&as_reader).unwrap();
    feed.start(1).unwrap();
    let mut delivered = 0;
    while delivered <= entries.len() {
        let more = feed.next(100, Duration::from_secs(5)).unwrap().len();
        assert_ne!(more, 0);
        delivered += more;
    }
    assert!(feed.beats().is_empty());
    writer.left_out(&[("a".into(), "gone".to_owned())].into());
    let begun = std::time::Instant::now();
    while feed.beats().is_empty() {
        assert!(begun.elapsed() < Duration::from_secs(10));
        writer.positions(&[]).unwrap();
    }
    // Neither can delete anything, nor change the stream.
    let info = || admin.ask("$JS.API.STREAM.INFO.AUDIT", "");
    let config = info()["config"].clone();
    for (user, inbox) in [("audit_writer", "_INBOX_web_n1"), ("audit_reader", "_INBOX_reader")] {
        let user = server.admin_of(user, inbox);
        assert!(user.try_ask("$JS.API.STREAM.INFO.AUDIT", "", &[]).is_some());
        for (subject, body) in DELETIONS {
            assert_eq!(user.try_ask(subject, body, &[]), None, "{subject}");
        }
    }
    assert_eq!(info()["config"], config);
    assert_eq!(admin.count("AUDIT"), entries.len() as u64 + 1);
}

/// `deny_delete` and `deny_purge` apply to everybody, and cannot be reverted, but they do not stop a user who
/// may delete the stream.
#[test]
fn a_stream_that_denies_deletes_can_still_be_deleted_as_a_whole() {
    let Some(server) = Server::start("a_stream_that_denies_deletes_can_still_be_deleted_as_a_whole") else {
        return;
    };
    let admin = server.admin();
    admin.make("AUDIT", &json!({}));
    let entries = events(5);
    let mut store = Nats::new(&server.url("AUDIT")).unwrap();
    store.offer(&entries).unwrap();
    let refused = |subject: &str, body: &str| {
        let answer = admin.try_ask(subject, body, &[]).unwrap();
        assert!(answer.get("error").is_some(), "{subject}: {answer}");
    };
    for (subject, body) in &DELETIONS[1..] {
        refused(subject, body);
    }
    let edited =
        json!({ "name": "AUDIT", "subjects": ["audit.>"], "deny_delete": false, "deny_purge": false });
    refused("$JS.API.STREAM.UPDATE.AUDIT", &edited.to_string());
    // The writer's own message, which replaces all before it.
    let rollup = admin.try_ask(&subject(&entries[0]), "x", &[("Nats-Rollup", "all")]).unwrap();
    assert!(rollup.get("error").is_some(), "{rollup}");
    check_stored(&admin, &mut store, &entries);
    admin.ask("$JS.API.STREAM.DELETE.AUDIT", "");
    check_setup(&store.positions(&[]), "stream not found");
}

#[test]
fn a_heartbeat_that_is_not_permitted_stops_no_records() {
    let name = "a_heartbeat_that_is_not_permitted_stops_no_records";
    let silent =
        "USERS:{ user: silent, password: Secr3t, permissions: { publish: { deny: \"audit-alive.>\" } } }";
    let Some(server) = Server::start_with(name, silent) else { return };
    server.admin().make("AUDIT", &json!({}));
    let entries = events(20);
    let mut store = Nats::new(&server.url_of("silent", "AUDIT")).unwrap();
    store.offer(&entries[..10]).unwrap();
    for change in 0..5_u32 {
        store.left_out(&[("a".into(), change.to_string())].into());
        std::thread::sleep(Duration::from_millis(20));
    }
    store.offer(&entries).unwrap();
    check_stored(&server.admin(), &mut store, &entries);
    assert!(server.log().contains("audit-alive"), "{}", server.log());
}
