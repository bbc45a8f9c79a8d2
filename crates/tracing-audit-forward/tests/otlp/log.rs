//! Logs for these tests, and what must arrive of them.

use std::{path::Path, sync::Arc};

use serde_json::{Map, Value as Json, json};
use tracing_audit::{AuditLog, Builder, Reader};
use tracing_audit_forward::Entry;
use tracing_subscriber::layer::SubscriberExt as _;

/// Writes a log and reads it back. The chain's id is in its first record.
pub(crate) fn written(configure: impl FnOnce(Builder) -> Builder, emit: impl FnOnce()) -> Vec<Entry> {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("log");
    let log = configure(AuditLog::builder(&path)).open().unwrap();
    tracing::subscriber::with_default(tracing_subscriber::registry().with(log.layer()), emit);
    log.close().unwrap();
    entries(&path)
}

/// Writes a log with this many events.
pub(crate) fn with_events(count: usize) -> Vec<Entry> {
    written(
        |builder| builder,
        || {
            for index in 0..count {
                tracing::info!(target: "audit", action = format!("action-{index}"), actor = "mia");
            }
        },
    )
}

/// Returns the durable records of a log.
pub(crate) fn entries(path: &Path) -> Vec<Entry> {
    let records: Vec<_> =
        Reader::new(path).durable_only(true).records().unwrap().collect::<Result<_, _>>().unwrap();
    let id: Arc<str> = records[0].get("segment").unwrap().get("id").unwrap().as_str().unwrap().into();
    records.into_iter().map(|record| Entry::new(Arc::clone(&id), record)).collect()
}

/// Returns what must arrive of a record according to the documentation: everything except the time of
/// arrival. It is derived from the line, and shares no code with the sink.
pub(crate) fn expected(entry: &Entry) -> Json {
    let line = entry.record.as_json();
    let members: Map<String, Json> = serde_json::from_str(line).unwrap();
    let kind = members["kind"].as_str().unwrap();
    let id = |name: &str, length: usize| {
        let id = members.get(name)?.as_str().unwrap();
        let is_id = id.len() == length && id.bytes().all(|byte| byte.is_ascii_hexdigit());
        (is_id && id.bytes().any(|byte| byte != b'0')).then(|| id.to_ascii_lowercase())
    };
    let trace_id = id("trace_id", 32);
    let span_id = trace_id.as_ref().and_then(|_| id("span_id", 16));

    let mut attributes = Map::new();
    attributes.insert("audit.chain.id".to_owned(), json!({"string_value": &*entry.chain_id}));
    attributes.insert("audit.chain".to_owned(), json!({"int_value": entry.record.chain()}));
    if entry.record.is_unconfirmed() {
        attributes.insert("audit.is_unconfirmed".to_owned(), json!({"bool_value": true}));
    }
    for (name, value) in &members {
        match name.as_str() {
            "ts" | "level" => {}
            "trace_id" if trace_id.is_some() => {}
            "span_id" if span_id.is_some() => {}
            "fields" => {
                for (name, value) in value.as_object().unwrap() {
                    attributes.insert(format!("audit.fields.{name}"), any_value(value));
                }
            }
            name => {
                attributes.insert(format!("audit.{}", name.trim_start_matches('_')), any_value(value));
            }
        }
    }
    let time = entry.record.time().unwrap().duration_since(std::time::UNIX_EPOCH).unwrap();
    let level = members.get("level").map_or("", |level| level.as_str().unwrap());
    let severity =
        ["", "TRACE", "DEBUG", "INFO", "WARN", "ERROR"].iter().position(|name| *name == level).unwrap();
    let severity_number = [0, 1, 5, 9, 13, 17][severity];
    let event_name = match kind {
        "event" => members.get("action").map_or("", |action| action.as_str().unwrap()).to_owned(),
        _ => format!("audit.{kind}"),
    };
    json!({
        "time_unix_nano": u64::try_from(time.as_nanos()).unwrap(),
        "severity_number": severity_number,
        "severity_text": level,
        "body": line,
        "attributes": attributes,
        "dropped_attributes_count": 0,
        "flags": 0,
        "trace_id": trace_id.unwrap_or_default(),
        "span_id": span_id.unwrap_or_default(),
        "event_name": event_name,
    })
}

fn any_value(value: &Json) -> Json {
    match value {
        Json::Null => Json::Null,
        Json::Bool(_) => json!({"bool_value": value}),
        Json::Number(number) if number.is_i64() => json!({"int_value": value}),
        Json::Number(_) => json!({"double_value": value}),
        Json::String(_) => json!({"string_value": value}),
        Json::Array(values) => json!({"array_value": values.iter().map(any_value).collect::<Vec<_>>()}),
        Json::Object(members) => {
            let members: Map<String, Json> =
                members.iter().map(|(name, value)| (name.clone(), any_value(value))).collect();
            json!({"kvlist_value": members})
        }
    }
}
