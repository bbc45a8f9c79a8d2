//! Streams that may lose what they acknowledged are refused, each by its name.

use serde_json::{Value, json};
use tracing_audit_forward::{Nats, NatsAllow, Sink as _};

use crate::{check_setup, records::events, server::Server};

/// Checks that a stream is refused with this name and advice, and accepted if that is allowed.
#[track_caller]
fn check(server: &Server, number: usize, other: &Value, name: &str, advice: &str) {
    let (stream, prefix) = (format!("S{number}"), format!("s{number}"));
    let mut other = other.clone();
    if other.get("subjects").is_none() {
        other["subjects"] = json!([format!("{prefix}.>")]);
    }
    server.admin().make(&stream, &other);
    let url = format!("{}&prefix={prefix}", server.url(&stream));
    let mut store = Nats::new(&url).unwrap();
    check_setup(&store.positions(&[]), &format!("allow={name})"));
    check_setup(&store.positions(&[]), advice);
    check_setup(&store.offer(&events(1)), name);
    assert_eq!(server.admin().count(&stream), 0);
    let mut allowed = Nats::new(&format!("{url}&allow={name}")).unwrap();
    allowed.positions(&[]).unwrap();
    let mut allowed = Nats::builder(&url).allow([name.parse::<NatsAllow>().unwrap()]).build().unwrap();
    allowed.positions(&[]).unwrap();
}

#[test]
fn a_stream_that_may_lose_records_is_refused_unless_that_is_allowed() {
    let Some(server) = Server::start("a_stream_that_may_lose_records_is_refused_unless_that_is_allowed")
    else {
        return;
    };
    let cases = [
        (json!({ "storage": "memory" }), "memory", "--storage=file"),
        (json!({ "discard": "old", "max_msgs": 100 }), "discard-old", "--discard=new"),
        (json!({ "discard": "old", "max_bytes": 100_000 }), "discard-old", "nats stream edit S"),
        (json!({ "discard": "old", "max_msgs_per_subject": 1 }), "discard-old", "--max-msgs-per-subject=-1"),
        (json!({ "discard": "new", "max_msgs_per_subject": 1 }), "discard-old", "--max-msgs-per-subject=-1"),
        (json!({ "max_age": 3_600_000_000_000_u64 }), "max-age", "--max-age=-1"),
        (json!({ "retention": "interest" }), "interest", "--retention=limits"),
        (json!({ "retention": "workqueue" }), "workqueue", "--retention=limits"),
        (json!({ "deny_delete": false }), "delete", "--deny-delete"),
        (json!({ "deny_purge": false }), "purge", "--deny-purge"),
        (json!({ "deny_purge": false, "allow_rollup_hdrs": true }), "purge,rollup", "may replace all"),
        (json!({ "no_ack": true, "allow_atomic": false }), "no-ack", "acknowledges nothing"),
        (json!({ "allow_msg_ttl": true }), "message-ttl", "set their own lifetime"),
        (json!({ "persist_mode": "async", "allow_atomic": false }), "async-persist", "before it writes"),
        (json!({ "max_msg_size": 10_000 }), "small-messages", "--max-msg-size=-1"),
    ];
    for (number, (other, name, advice)) in cases.iter().enumerate() {
        if let Some((first, second)) = name.split_once(',') {
            let admin = server.admin();
            let mut other = other.clone();
            other["subjects"] = json!(["rollup.>"]);
            admin.make("ROLLUP", &other);
            let url = format!("{}&prefix=rollup", server.url("ROLLUP"));
            check_setup(
                &Nats::new(&format!("{url}&allow={first}")).unwrap().positions(&[]),
                &format!("allow={second})"),
            );
            Nats::new(&format!("{url}&allow={name}")).unwrap().positions(&[]).unwrap();
            continue;
        }
        check(&server, number, other, name, advice);
    }
}

#[test]
fn every_risky_setting_is_named_at_once() {
    let Some(server) = Server::start("every_risky_setting_is_named_at_once") else { return };
    server.admin().make(
        "AUDIT",
        &json!({ "storage": "memory", "deny_delete": false, "max_age": 3_600_000_000_000_u64 }),
    );
    let outcome = Nats::new(&server.url("AUDIT")).unwrap().positions(&[]);
    for name in ["memory", "delete", "max-age"] {
        check_setup(&outcome, &format!("allow={name})"));
    }
}

#[test]
fn streams_that_cannot_take_records_are_refused_whatever_is_allowed() {
    let Some(server) = Server::start("streams_that_cannot_take_records_are_refused_whatever_is_allowed")
    else {
        return;
    };
    let admin = server.admin();
    admin.make("AUDIT", &json!({}));
    admin.ask(
        "$JS.API.STREAM.CREATE.MIRROR",
        &json!({ "name": "MIRROR", "storage": "file", "mirror": { "name": "AUDIT" }, "deny_delete": true, "deny_purge": true })
            .to_string(),
    );
    check_setup(&Nats::new(&server.url("MIRROR")).unwrap().positions(&[]), "mirror");
    admin.make("OTHER", &json!({ "subjects": ["other.>"] }));
    check_setup(&Nats::new(&server.url("OTHER")).unwrap().positions(&[]), "does not capture audit.web.n1.");
    let transform = json!({ "src": "moved.>", "dest": "elsewhere.>" });
    admin.make("MOVED", &json!({ "subjects": ["moved.>"], "subject_transform": transform }));
    let moved = format!("{}&prefix=moved", server.url("MOVED"));
    check_setup(&Nats::new(&moved).unwrap().positions(&[]), "subject_transform");
    check_setup(&Nats::new(&server.url("NONE")).unwrap().positions(&[]), "create-stream");
}

#[test]
fn lines_that_do_not_fit_are_refused_one_by_one() {
    let Some(server) = Server::start("lines_that_do_not_fit_are_refused_one_by_one") else { return };
    server.admin().make("AUDIT", &json!({ "max_msg_size": 2_000 }));
    let mut store = Nats::new(&format!("{}&allow=small-messages", server.url("AUDIT"))).unwrap();
    let entries = crate::records::logged(|| {
        tracing::info!(target: "audit", action = "a", actor = "b");
        tracing::info!(target: "audit", action = "x".repeat(5_000), actor = "b");
        tracing::info!(target: "audit", action = "a", actor = "b");
    });
    let large = entries.iter().position(|entry| entry.record.as_json().len() > 2_000).unwrap();
    let outcome = store.offer(&entries);
    assert!(matches!(outcome, Err(tracing_audit_forward::SinkError::Refused { .. })), "{outcome:?}");
    assert_eq!(server.admin().count("AUDIT"), 0);
    store.offer(&entries[..large]).unwrap();
    let outcome = store.offer(&entries[large..=large]);
    assert!(matches!(outcome, Err(tracing_audit_forward::SinkError::Refused { .. })), "{outcome:?}");
    // As the forwarder does after a record that was refused.
    store.offer(&entries[large + 1..]).unwrap();
    assert_eq!(server.admin().count("AUDIT"), entries.len() as u64 - 1);
}
