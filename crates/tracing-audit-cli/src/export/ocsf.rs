//! Records as events of the Open Cybersecurity Schema Framework, version 1.5.0: <https://schema.ocsf.io/1.5.0/>.
//!
//! Authentication events become Authentication (3002), other events API Activity (6003), and the log's own records a Base
//! Event (0).

use anyhow::Result;
use serde_json::{Map, Value as Json, json};
use tracing_audit::{Record, Severity};

use super::{
    json::{put, rest_of},
    meaning::{Action, Activity, Outcome, address},
};
use crate::scan::Hit;

/// The version of the schema.
const VERSION: &str = "1.5.0";

/// The value of an attribute that the schema requires and the record does not have.
const UNKNOWN: &str = "Unknown";

/// Members of a record that map to attributes of the schema.
const TRANSLATED: [&str; 10] = [
    "ts",
    "message",
    "outcome",
    "actor",
    "source",
    "action",
    "resource",
    "session_id",
    "request_id",
    "_prev_hash",
];

/// The schema's numbers and names for an event.
struct Class {
    category: (u32, &'static str),
    kind: (u32, &'static str),
    activity: (u32, String),
}

/// Translates a record. `at` is its time, or a substitute if it has none.
pub(super) fn event(hit: &Hit, at: jiff::Timestamp) -> Result<Json> {
    let record = &hit.record;
    let class = Class::of(record);
    let (status_id, status, status_detail) = status(hit);
    let (severity_id, severity) = match record.severity() {
        Some(Severity::Critical) => (5, "Critical"),
        None if record.is_event() => (0, UNKNOWN),
        Some(Severity::Routine) | None => (1, "Informational"),
    };
    let (class_uid, class_name) = class.kind;
    let (activity_id, activity_name) = class.activity;
    let mut event = Map::new();
    // `type_uid` is defined as `class_uid` * 100 + `activity_id`.
    for (name, value) in [
        ("category_uid", Json::from(class.category.0)),
        ("category_name", class.category.1.into()),
        ("class_uid", class_uid.into()),
        ("class_name", class_name.into()),
        ("activity_id", activity_id.into()),
        ("type_uid", (class_uid * 100 + activity_id).into()),
        ("type_name", format!("{class_name}: {activity_name}").into()),
        ("activity_name", activity_name.into()),
        // OCSF times are milliseconds since 1970.
        ("time", at.as_millisecond().into()),
        ("severity_id", severity_id.into()),
        ("severity", severity.into()),
        ("status_id", status_id.into()),
        ("status", status.into()),
        ("metadata", metadata(hit)),
    ] {
        event.insert(name.to_owned(), value);
    }
    put(&mut event, "status_detail", status_detail);
    put(&mut event, "message", record.message());
    match class_uid {
        3002 => authentication(&mut event, record),
        6003 => api_activity(&mut event, record),
        _ => {}
    }
    // A base event has no attributes for the other members.
    let translated = if class_uid == 0 { &["ts", "message", "_prev_hash"][..] } else { &TRANSLATED[..] };
    event.insert("unmapped".to_owned(), rest_of(hit, translated)?.into());
    Ok(event.into())
}

impl Class {
    fn of(record: &Record) -> Self {
        if !record.is_event() {
            let kind = record.get("kind").map(ToString::to_string).unwrap_or_default();
            return Self { category: (0, "Uncategorized"), kind: (0, "Base Event"), activity: (99, kind) };
        }
        let action = Action::of(record.action());
        let (id, name) = match action.activity {
            Activity::Logon | Activity::Create => {
                (1, if action.is_authentication { "Logon" } else { "Create" })
            }
            Activity::Logoff | Activity::Read => {
                (2, if action.is_authentication { "Logoff" } else { "Read" })
            }
            Activity::Update => (3, "Update"),
            Activity::Delete => (4, "Delete"),
            Activity::Other => (99, record.action().unwrap_or("Other")),
            Activity::Unknown => (0, UNKNOWN),
        };
        let activity = (id, name.to_owned());
        if action.is_authentication {
            let category = (3, "Identity & Access Management");
            Self { category, kind: (3002, "Authentication"), activity }
        } else {
            Self { category: (6, "Application Activity"), kind: (6003, "API Activity"), activity }
        }
    }
}

fn metadata(hit: &Hit) -> Json {
    let record = &hit.record;
    let mut metadata = json!({
        "version": VERSION,
        "product": {
            "name": "tracing-audit",
            "vendor_name": "tracing-audit",
            "version": env!("CARGO_PKG_VERSION"),
        },
        "uid": record.hash().to_string(),
        "sequence": record.seq(),
        "log_name": record.file_name(),
        "log_provider": "tracing-audit",
    });
    if let Some(metadata) = metadata.as_object_mut() {
        put(metadata, "original_time", record.timestamp());
        put(metadata, "correlation_uid", record.request_id());
        let unconfirmed = hit.is_unconfirmed.then_some("unconfirmed");
        let time_missing = record.time().is_none().then_some("audit_time_missing");
        let labels: Vec<&str> = unconfirmed.into_iter().chain(time_missing).collect();
        put(metadata, "labels", Some(labels).filter(|labels| !labels.is_empty()));
    }
    metadata
}

/// Returns `status_id`, `status` and `status_detail`.
fn status(hit: &Hit) -> (u32, String, Option<String>) {
    let record = &hit.record;
    let reason = record.reason().map(ToOwned::to_owned);
    match Outcome::of(hit) {
        Outcome::Success => (1, "Success".to_owned(), reason),
        Outcome::Failure => (2, "Failure".to_owned(), reason),
        Outcome::Other(word) => (99, word.to_owned(), reason),
        Outcome::Missing => (0, UNKNOWN.to_owned(), reason),
        Outcome::Unconfirmed => {
            let recorded = record.outcome().unwrap_or("none");
            let detail = format!(
                "the program that wrote the record got an error for it, so the action may have been refused; recorded outcome: {recorded}"
            );
            (99, "unconfirmed".to_owned(), Some(detail))
        }
    }
}

fn authentication(event: &mut Map<String, Json>, record: &Record) {
    event.insert("actor".to_owned(), actor(record));
    event.insert("user".to_owned(), json!({ "name": record.actor().unwrap_or(UNKNOWN) }));
    // The schema requires a service or an endpoint that the user authenticated to.
    let service = record.resource().or_else(|| record.target()).unwrap_or(UNKNOWN);
    event.insert("service".to_owned(), json!({ "name": service }));
    put(event, "src_endpoint", record.source().map(endpoint));
    put(event, "session", record.session_id().map(|id| json!({ "uid": id })));
}

fn api_activity(event: &mut Map<String, Json>, record: &Record) {
    event.insert("actor".to_owned(), actor(record));
    let mut api = Map::new();
    api.insert("operation".to_owned(), record.action().unwrap_or(UNKNOWN).into());
    put(&mut api, "service", record.target().map(|target| json!({ "name": target })));
    put(&mut api, "request", record.request_id().map(|id| json!({ "uid": id })));
    event.insert("api".to_owned(), api.into());
    event.insert("src_endpoint".to_owned(), endpoint(record.source().unwrap_or(UNKNOWN)));
    put(event, "resources", record.resource().map(|resource| json!([{ "name": resource }])));
}

fn actor(record: &Record) -> Json {
    let mut actor = Map::new();
    actor.insert("user".to_owned(), json!({ "name": record.actor().unwrap_or(UNKNOWN) }));
    put(&mut actor, "session", record.session_id().map(|id| json!({ "uid": id })));
    actor.into()
}

/// Makes an endpoint: an IP address as `ip` and `port`, anything else as `name`.
fn endpoint(source: &str) -> Json {
    match address(source) {
        Some((ip, Some(port))) => json!({ "ip": ip.to_string(), "port": port }),
        Some((ip, None)) => json!({ "ip": ip.to_string() }),
        None => json!({ "name": source }),
    }
}
