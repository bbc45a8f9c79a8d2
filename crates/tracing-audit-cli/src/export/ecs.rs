//! Records as documents of the Elastic Common Schema, version 8.17.0: <https://www.elastic.co/docs/reference/ecs>.

use anyhow::Result;
use serde_json::{Map, Value as Json, json};
use tracing_audit::{Record, RecordKind};

use super::{
    json::{put, rest_of},
    meaning::{Action, Activity, Outcome, address},
};
use crate::scan::Hit;

/// The version of the schema.
const VERSION: &str = "8.17.0";

/// Members of a record that map to fields of the schema.
const TRANSLATED: [&str; 12] = [
    "ts",
    "message",
    "actor",
    "action",
    "reason",
    "source",
    "level",
    "target",
    "trace_id",
    "span_id",
    "_prev_hash",
    "kind",
];

/// Translates a record. `at` is its time, or a substitute if it has none.
pub(super) fn document(hit: &Hit, at: jiff::Timestamp) -> Result<Json> {
    let record = &hit.record;
    let mut document = Map::new();
    // In nanoseconds, like `ts`.
    document.insert("@timestamp".to_owned(), at.strftime("%Y-%m-%dT%H:%M:%S.%9fZ").to_string().into());
    document.insert("ecs".to_owned(), json!({ "version": VERSION }));
    document.insert("event".to_owned(), event(hit));
    put(&mut document, "message", record.message());
    put(&mut document, "user", record.actor().map(|actor| json!({ "name": actor })));
    put(&mut document, "source", record.source().map(source));
    put(&mut document, "trace", record.trace_id().map(|id| json!({ "id": id })));
    put(&mut document, "span", record.span_id().map(|id| json!({ "id": id })));
    document.insert("log".to_owned(), log(record));
    document.insert("labels".to_owned(), labels(hit));
    document.insert("tracing_audit".to_owned(), rest_of(hit, &TRANSLATED)?.into());
    Ok(document.into())
}

fn event(hit: &Hit) -> Json {
    let record = &hit.record;
    let (category, kind) = classify(record);
    let outcome = match Outcome::of(hit) {
        Outcome::Success => "success",
        Outcome::Failure => "failure",
        Outcome::Other(_) | Outcome::Missing | Outcome::Unconfirmed => "unknown",
    };
    let mut event = Map::new();
    event.insert("kind".to_owned(), "event".into());
    event.insert("category".to_owned(), json!([category]));
    event.insert("type".to_owned(), json!([kind]));
    event.insert("outcome".to_owned(), outcome.into());
    // Only the log's own records get an action from their kind: an event without an action is the application's.
    let own = || record.get("kind").filter(|_| !record.is_event()).map(|kind| format!("audit-log.{kind}"));
    put(&mut event, "action", record.action().map(ToOwned::to_owned).or_else(own));
    put(&mut event, "reason", record.reason());
    event.insert("provider".to_owned(), "tracing-audit".into());
    // The hash is unique and the same in each export, so a receiver can recognise duplicates.
    event.insert("id".to_owned(), record.hash().to_string().into());
    event.insert("hash".to_owned(), record.hash().to_string().into());
    event.insert("sequence".to_owned(), record.seq().into());
    event.into()
}

/// Returns `event.category` and `event.type`.
fn classify(record: &Record) -> (&'static str, &'static str) {
    match record.kind() {
        RecordKind::Event => {}
        RecordKind::Open => return ("process", "start"),
        RecordKind::Close => return ("process", "end"),
        _ => return ("host", "info"),
    }
    let action = Action::of(record.action());
    let category = if action.is_authentication { "authentication" } else { "api" };
    let kind = match action.activity {
        Activity::Logon => "start",
        Activity::Logoff => "end",
        Activity::Create => "creation",
        Activity::Read => "access",
        Activity::Update => "change",
        Activity::Delete => "deletion",
        Activity::Other | Activity::Unknown => "info",
    };
    (category, kind)
}

/// Makes the `source` object. `source.ip` must be an address: Elasticsearch rejects a document with anything else there.
fn source(source: &str) -> Json {
    let mut object = Map::new();
    object.insert("address".to_owned(), source.into());
    let address = address(source);
    put(&mut object, "ip", address.map(|(ip, _)| ip.to_string()));
    put(&mut object, "port", address.and_then(|(_, port)| port));
    object.into()
}

fn log(record: &Record) -> Json {
    let mut log = Map::new();
    put(&mut log, "level", record.level().map(str::to_ascii_lowercase));
    put(&mut log, "logger", record.target());
    log.insert("file".to_owned(), json!({ "path": record.file_name() }));
    log.into()
}

/// Makes the `labels` object. All labels are texts.
fn labels(hit: &Hit) -> Json {
    let record = &hit.record;
    let mut labels = Map::new();
    labels.insert("audit_kind".to_owned(), record.get("kind").map(ToString::to_string).into());
    labels.insert("audit_position".to_owned(), format!("{:03}/{}", record.chain(), record.seq()).into());
    put(&mut labels, "audit_severity", record.severity().map(|severity| severity.to_string()));
    put(&mut labels, "session_id", record.session_id());
    put(&mut labels, "request_id", record.request_id());
    if hit.is_unconfirmed {
        labels.insert("audit_unconfirmed".to_owned(), "true".into());
        put(&mut labels, "audit_recorded_outcome", record.outcome());
    }
    if record.is_provisional() {
        labels.insert("audit_provisional".to_owned(), "true".into());
    }
    if record.time().is_none() {
        labels.insert("audit_time_missing".to_owned(), "true".into());
    }
    labels.into()
}
