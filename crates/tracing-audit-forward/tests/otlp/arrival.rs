//! What arrives is what the log has.

use std::{
    fs,
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use serde_json::{Map, Value as Json, json};
use tracing_audit::OnFull;
use tracing_audit_forward::{Entry, Gap, Otlp, Sink as _, SinkError};

use crate::{
    log::{entries, expected, with_events, written},
    receiver::Receiver,
};

/// Sends a log, and compares what arrived with its lines. Returns what arrived.
#[track_caller]
fn check(receiver: &Receiver, entries: &[Entry]) -> Vec<Json> {
    let before = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    let mut sink = Otlp::new(&receiver.url()).unwrap();
    sink.offer(entries).unwrap();
    let mut arrived = receiver.records();
    assert_eq!(arrived.len(), entries.len());
    for (arrived, entry) in arrived.iter_mut().zip(entries) {
        let observed = arrived.as_object_mut().unwrap().remove("observed_time_unix_nano").unwrap();
        let observed = Duration::from_nanos(observed.as_u64().unwrap());
        assert!(observed >= before && observed < before + Duration::from_secs(60));
        assert_eq!(*arrived, expected(entry));
        for name in arrived["attributes"].as_object().unwrap().keys() {
            assert!(is_documented(name), "{name}");
        }
    }
    arrived
}

/// Returns whether the table of the documentation has an attribute. The documentation is not in the archive
/// of the crate.
fn is_documented(attribute: &str) -> bool {
    let name = if attribute.starts_with("audit.fields.") { "audit.fields.<name>" } else { attribute };
    let page = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/forwarding/otlp.md");
    fs::read_to_string(page).map_or(true, |page| page.contains(&format!("`{name}`")))
}

/// Sends a log of which not all attributes arrive. Returns its first event as it arrived, with its line.
#[track_caller]
fn arrived_event(receiver: &Receiver, entries: &[Entry]) -> (Json, String) {
    Otlp::new(&receiver.url()).unwrap().offer(entries).unwrap();
    let index = entries.iter().position(|entry| entry.record.is_event()).unwrap();
    let arrived = receiver.records().swap_remove(index);
    (arrived, entries[index].record.as_json().to_owned())
}

#[test]
fn every_member_arrives_as_in_the_line() {
    let Some(receiver) = Receiver::start() else { return };
    let entries = written(
        |builder| builder.service("shop").redact(["password"]),
        || {
            tracing::error!(
                target: "audit", action = "key.export", actor = "mia", resource = "key/7", outcome = "allowed",
                reason = "drill", session_id = "s-1", request_id = "r-1", source = "203.0.113.9",
                trace_id = "4bf92f3577b34da6a3ce929d0e0e4736", span_id = "00f067aa0ba902b7",
                tenant = "café", attempt = 3, ratio = 0.1, whole = 2.0, large = u64::MAX, negative = -7,
                is_admin = true, nothing = f64::NAN, password = "hunter2", "a.dotted.name" = "x",
                "the sentence with {}", "a value"
            );
            tracing::warn!(target: "audit", action = "a", action = "b", actor = "");
            tracing::info!(target: "audit::more", "neither action nor actor");
            tracing::debug!(target: "audit", action = "below the level", actor = "mia");
        },
    );
    let arrived = check(&receiver, &entries);
    let kinds: Vec<_> = arrived
        .iter()
        .map(|record| record["attributes"]["audit.kind"]["string_value"].as_str().unwrap())
        .collect();
    assert_eq!(kinds, ["segment", "open", "event", "event", "event", "close"]);
    let event = &arrived[2];
    assert_eq!(event["attributes"]["audit.fields.ratio"], json!({"double_value": 0.1}));
    assert_eq!(event["attributes"]["audit.fields.attempt"], json!({"int_value": 3}));
    assert_eq!(event["attributes"]["audit.fields.is_admin"], json!({"bool_value": true}));
    assert_eq!(event["attributes"]["audit.redacted"]["array_value"][0], json!({"string_value": "password"}));
    assert_eq!(event["attributes"]["audit.severity"], json!({"string_value": "critical"}));
    assert_eq!(event["severity_number"], 17);
    assert_eq!(event["event_name"], "key.export");
    assert_eq!(arrived[1]["event_name"], "audit.open");
}

/// The log's own records when its disk failed: `gap`, `unconfirmed`, `notice`, `recovery`.
#[test]
fn the_logs_own_records_arrive() {
    let Some(receiver) = Receiver::start() else { return };
    let audit = tracing_audit_test::capture_with(|builder| {
        builder.wait_bound(Duration::from_millis(200)).queue_bytes(1024 * 1024).on_full(OnFull::DropRoutine)
    });
    {
        let _attached = audit.attach();
        audit.faults().fail();
        for index in 0..2000 {
            tracing::info!(target: "audit", action = "lost", actor = "mia", index, dump = "a".repeat(1000));
        }
        tracing::warn!(target: "audit", severity = "critical", action = "refused", actor = "mia");
        audit.heal();
    }
    audit.log().close().unwrap();
    let entries = entries(audit.path());
    check(&receiver, &entries);
    for kind in ["gap", "unconfirmed", "recovery"] {
        assert!(entries.iter().any(|entry| entry.record.kind().to_string() == kind), "no {kind}");
    }
    let is_refused = |entry: &&Entry| entry.record.action() == Some("refused");
    assert!(entries.iter().find(is_refused).unwrap().record.is_unconfirmed());
}

#[test]
fn any_text_arrives() {
    let Some(receiver) = Receiver::start() else { return };
    // Some of each: control characters, quotes, what the log escapes, combining and wide characters, the ends
    // of the planes.
    let text: String = (0..0x300)
        .chain(0x2000..0x2070)
        .chain(0xd7f0..=0xd7ff)
        .chain(0xe000..0xe010)
        .chain(0xfef0..=0xffff)
        .chain(0x1_f600..0x1_f650)
        .chain(0xe_0000..0xe_0080)
        .chain(0x10_fff0..=0x10_ffff)
        .filter_map(char::from_u32)
        .collect();
    let entries = written(
        |builder| builder,
        || tracing::info!(target: "audit", action = "a", actor = text.as_str(), other = %text, "{text}"),
    );
    let arrived = check(&receiver, &entries);
    assert_eq!(arrived[2]["attributes"]["audit.actor"]["string_value"], text.as_str());
    assert_eq!(arrived[2]["attributes"]["audit.fields.other"]["string_value"], text.as_str());
}

#[test]
fn a_line_of_60_kib_arrives_in_full_and_its_long_values_only_in_the_body() {
    let Some(receiver) = Receiver::start() else { return };
    let long = "é".repeat(30_000);
    let entries = written(
        |builder| builder,
        || {
            let (a, b, c, d) = (&*long, &*long, &*long, "x".repeat(10_500));
            tracing::info!(target: "audit", action = "a", actor = "mia", a, b, c, d, short = 1, "m");
        },
    );
    let (arrived, line) = arrived_event(&receiver, &entries);
    assert!(line.len() > 58 * 1024, "{}", line.len());
    assert_eq!(arrived["body"], line.as_str());
    let fields: Map<String, Json> = serde_json::from_str(&line).unwrap();
    let fields = fields["fields"].as_object().unwrap();
    let long = fields.values().filter(|value| value.as_str().is_some_and(|text| text.len() > 8000)).count();
    assert_eq!(long, 4);
    assert_eq!(arrived["dropped_attributes_count"], long);
    let attributes = arrived["attributes"].as_object().unwrap();
    assert_eq!(
        attributes.keys().filter(|name| name.starts_with("audit.fields.")).count(),
        fields.len() - long
    );
    assert_eq!(attributes["audit.fields.short"], json!({"int_value": 1}));
}

#[test]
fn valid_trace_and_span_ids_are_sent_as_bytes() {
    const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
    const SPAN: &str = "00f067aa0ba902b7";
    let Some(receiver) = Receiver::start() else { return };
    let emit = |trace_id: &str, span_id: &str| {
        tracing::info!(target: "audit", action = "a", actor = "mia", trace_id, span_id);
    };
    let entries = written(
        |builder| builder,
        || {
            emit(TRACE, SPAN);
            emit(&TRACE.to_uppercase(), SPAN);
            emit(TRACE, "0000000000000000");
            emit(TRACE, "a span");
            emit("00000000000000000000000000000000", SPAN);
            emit("4bf92f35-77b3-4da6-a3ce-929d0e0e4736", SPAN);
            tracing::info!(target: "audit", action = "a", actor = "mia", trace_id = TRACE);
        },
    );
    let arrived = check(&receiver, &entries);
    let ids: Vec<_> = arrived[2..9]
        .iter()
        .map(|record| {
            let said = |name: &str| record["attributes"][name]["string_value"].as_str().unwrap_or_default();
            let bytes = |name: &str| record[name].as_str().unwrap();
            (bytes("trace_id"), bytes("span_id"), said("audit.trace_id"), said("audit.span_id"))
        })
        .collect();
    let expected = [
        (TRACE, SPAN, "", ""),
        (TRACE, SPAN, "", ""),
        (TRACE, "", "", "0000000000000000"),
        (TRACE, "", "", "a span"),
        ("", "", "00000000000000000000000000000000", SPAN),
        ("", "", "4bf92f35-77b3-4da6-a3ce-929d0e0e4736", SPAN),
        (TRACE, "", "", ""),
    ];
    assert_eq!(ids, expected);
}

#[test]
fn a_gap_is_a_separate_log_record() {
    let Some(receiver) = Receiver::start() else { return };
    let mut sink = Otlp::new(&receiver.url()).unwrap();
    let id: Arc<str> = "5f1c2a9be07d4c3388a1d6e2b94f7013".into();
    sink.gap(&Gap::new(id, 2, 5..=9)).unwrap();
    let arrived = receiver.records().remove(0);
    assert_eq!(arrived["event_name"], "audit.forward.gap");
    assert_eq!(arrived["severity_text"], "WARN");
    assert_eq!(
        arrived["body"],
        "records 5 to 9 of chain 002 (5f1c2a9be07d4c3388a1d6e2b94f7013) were removed by retention before they were \
         forwarded"
    );
    assert_eq!(
        arrived["attributes"],
        json!({
            "audit.chain.id": {"string_value": "5f1c2a9be07d4c3388a1d6e2b94f7013"},
            "audit.chain": {"int_value": 2},
            "audit.forward.gap.first_seq": {"int_value": 5},
            "audit.forward.gap.last_seq": {"int_value": 9},
        })
    );
}

#[test]
fn a_request_has_the_path_the_headers_and_the_resource() {
    let Some(receiver) = Receiver::start() else { return };
    let mut sink =
        Otlp::builder(&format!("http://mia:hunter2@127.0.0.1:{}/otlp?stream=audit", receiver.port))
            .header("X-Tenant", "shop")
            .resource("service.name", "first")
            .resource("service.name", "shop")
            .resource("deployment.environment.name", "test")
            .build()
            .unwrap();
    sink.offer(&with_events(1)).unwrap();
    let request = receiver.requests().remove(0);
    assert_eq!(request["path"], "/otlp/v1/logs?stream=audit");
    assert_eq!(request["headers"]["authorization"], "Basic bWlhOmh1bnRlcjI=");
    assert_eq!(request["headers"]["x-tenant"], "shop");
    assert_eq!(request["headers"]["content-type"], "application/x-protobuf");
    assert_eq!(request["headers"]["content-encoding"], Json::Null);
    assert_eq!(request["scope"]["name"], "tracing-audit-forward");
    assert_eq!(
        request["resource"],
        json!({
            "service.name": {"string_value": "shop"},
            "deployment.environment.name": {"string_value": "test"},
        })
    );
}

#[test]
fn an_empty_batch_sends_nothing_and_positions_ask_nobody() {
    let Some(receiver) = Receiver::start() else { return };
    let mut sink = Otlp::new(&receiver.url()).unwrap();
    sink.offer(&[]).unwrap();
    assert_eq!(sink.positions(&["5f1c2a9be07d4c3388a1d6e2b94f7013".into()]), Ok(None));
    sink.close();
    assert!(receiver.requests().is_empty());
}

#[test]
fn a_batch_that_is_too_large_is_divided_and_not_sent() {
    let Some(receiver) = Receiver::start() else { return };
    let entries = with_events(20);
    let mut sink = Otlp::builder(&receiver.url()).max_request_bytes(1000).build().unwrap();
    assert!(matches!(sink.offer(&entries), Err(SinkError::Refused { .. })));
    assert!(receiver.requests().is_empty());
    // A single record is sent whatever its size is.
    for entry in &entries {
        sink.offer(std::slice::from_ref(entry)).unwrap();
    }
    assert_eq!(receiver.records().len(), entries.len());
}

#[test]
fn a_restarted_receiver_is_found_again() {
    let Some(receiver) = Receiver::start() else { return };
    let port = receiver.port.to_string();
    let entries = with_events(3);
    let mut sink = Otlp::new(&receiver.url()).unwrap();
    sink.offer(&entries).unwrap();
    drop(receiver);
    assert!(matches!(sink.offer(&entries), Err(SinkError::Unavailable { .. })));
    let Some(receiver) = Receiver::start_with(&["--port", &port]) else { return };
    sink.offer(&entries).unwrap();
    assert_eq!(receiver.records().len(), entries.len());
}
