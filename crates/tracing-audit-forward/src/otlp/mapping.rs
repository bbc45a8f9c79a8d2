//! A record as a log record of OpenTelemetry. docs/forwarding/otlp.md has the table; the two change together.

use std::time::{SystemTime, UNIX_EPOCH};

use opentelemetry_proto::tonic::{
    common::v1::{AnyValue, ArrayValue, KeyValue, KeyValueList, any_value},
    logs::v1::{LogRecord, SeverityNumber},
};
use prost::Message as _;
use tracing_audit::{Record, RecordKind, Value};

use super::percent;
use crate::{Entry, Gap};

/// Maximum number of attributes of a log record; 128 is the limit that OpenTelemetry proposes.
const MAX_ATTRIBUTES: usize = 128;

/// The longest attribute, name and value. A longer one is not sent: the body has it, and a truncated one
/// could be mistaken for the whole.
const MAX_ATTRIBUTE_BYTES: usize = 8 * 1024;

/// The members of a record that become an attribute `audit.<name>` of the same value. No semantic convention
/// means exactly the same as one of them.
const MEMBERS: &[&str] = &[
    "severity",
    "action",
    "actor",
    "resource",
    "outcome",
    "reason",
    "session_id",
    "request_id",
    "source",
    "message",
    "target",
    "module",
    "incomplete",
    "redacted",
    "repeated",
    "truncated",
    "durable",
];

/// Maps a record. `observed` is the time of the request.
pub(super) fn log_record(entry: &Entry, observed: SystemTime) -> LogRecord {
    let record = &entry.record;
    let kind = record.get("kind").and_then(Value::as_str).unwrap_or_default();
    let (severity_number, severity_text) = severity(record.level());
    let trace_id = record.trace_id().and_then(identifier::<16>);
    // A span belongs to a trace: without one, its id means nothing to a receiver.
    let span_id = trace_id.as_ref().and_then(|_| record.span_id().and_then(identifier::<8>));

    let mut attributes = Attributes::default();
    attributes.add("audit.chain.id", text(&*entry.chain_id));
    attributes.add("audit.chain", integer(u64::from(record.chain())));
    attributes.add("audit.seq", integer(record.seq()));
    attributes.add("audit.hash", text(record.hash().to_string()));
    attributes.add("audit.kind", text(kind));
    if record.is_unconfirmed() {
        attributes.add("audit.is_unconfirmed", any(any_value::Value::BoolValue(true)));
    }
    for name in MEMBERS {
        attributes.add_member(name, record.get(name));
    }
    if trace_id.is_none() {
        attributes.add_member("trace_id", record.get("trace_id"));
    }
    if span_id.is_none() {
        attributes.add_member("span_id", record.get("span_id"));
    }
    if record.kind() != RecordKind::Event {
        attributes.add_member(kind, record.get(kind));
    }
    attributes.add_member("prev_hash", record.get("_prev_hash"));
    for (name, value) in record.fields() {
        attributes.add(format!("audit.fields.{name}"), any_value_of(value));
    }

    LogRecord {
        time_unix_nano: record.time().map_or(0, nanoseconds),
        observed_time_unix_nano: nanoseconds(observed),
        severity_number,
        severity_text,
        body: Some(text(record.as_json())),
        dropped_attributes_count: attributes.dropped,
        attributes: attributes.kept,
        trace_id: trace_id.unwrap_or_default(),
        span_id: span_id.unwrap_or_default(),
        event_name: event_name(record, kind),
        ..LogRecord::default()
    }
}

/// Creates a log record that names what retention removed before it could be forwarded. It is not a record of
/// the log, and has neither a sequence number nor a hash.
pub(super) fn gap_record(gap: &Gap, observed: SystemTime) -> LogRecord {
    let mut attributes = Attributes::default();
    attributes.add("audit.chain.id", text(&*gap.chain_id));
    attributes.add("audit.chain", integer(u64::from(gap.chain)));
    attributes.add("audit.forward.gap.first_seq", integer(gap.first_seq));
    attributes.add("audit.forward.gap.last_seq", integer(gap.last_seq));
    let sentence = format!(
        "records {} to {} of chain {:03} ({}) were removed by retention before they were forwarded",
        gap.first_seq, gap.last_seq, gap.chain, gap.chain_id
    );
    LogRecord {
        time_unix_nano: nanoseconds(observed),
        observed_time_unix_nano: nanoseconds(observed),
        severity_number: SeverityNumber::Warn.into(),
        severity_text: "WARN".to_owned(),
        body: Some(text(sentence)),
        attributes: attributes.kept,
        event_name: "audit.forward.gap".to_owned(),
        ..LogRecord::default()
    }
}

/// Returns an attribute of the resource.
pub(super) fn attribute(name: impl Into<String>, value: impl Into<String>) -> KeyValue {
    KeyValue { key: name.into(), value: Some(text(value)), ..KeyValue::default() }
}

/// The attributes of a log record, within their limits, each name once.
#[derive(Default)]
struct Attributes {
    kept: Vec<KeyValue>,
    dropped: u32,
}

impl Attributes {
    fn add(&mut self, name: impl Into<String>, value: AnyValue) {
        let attribute = KeyValue { key: name.into(), value: Some(value), ..KeyValue::default() };
        if self.kept.len() >= MAX_ATTRIBUTES || attribute.encoded_len() > MAX_ATTRIBUTE_BYTES {
            self.dropped = self.dropped.saturating_add(1);
        } else {
            self.kept.push(attribute);
        }
    }

    /// Adds a member of a record under its name, if the record has it. A later version may have a kind named
    /// like an existing attribute; OTLP wants each name once.
    fn add_member(&mut self, name: &str, member: Option<&Value>) {
        let Some(value) = member else { return };
        let key = format!("audit.{name}");
        if !self.kept.iter().any(|attribute| attribute.key == key) {
            self.add(key, any_value_of(value));
        }
    }
}

/// Names the class of a record: the action of an event, and `audit.` and the kind of anything else.
fn event_name(record: &Record, kind: &str) -> String {
    if record.is_event() { record.action().unwrap_or_default().to_owned() } else { format!("audit.{kind}") }
}

/// Maps the levels of `tracing`. The log's own records have no level, and so no severity.
fn severity(level: Option<&str>) -> (i32, String) {
    let number = match level {
        Some("ERROR") => SeverityNumber::Error,
        Some("WARN") => SeverityNumber::Warn,
        Some("INFO") => SeverityNumber::Info,
        Some("DEBUG") => SeverityNumber::Debug,
        Some("TRACE") => SeverityNumber::Trace,
        _ => SeverityNumber::Unspecified,
    };
    (number.into(), level.unwrap_or_default().to_owned())
}

/// Parses a trace or span id of W3C Trace Context: twice `BYTES` hexadecimal digits, not all of them zero.
fn identifier<const BYTES: usize>(digits: &str) -> Option<Vec<u8>> {
    let values: Vec<u8> = digits.bytes().map(percent::digit).collect::<Option<_>>()?;
    if values.len() != BYTES * 2 || values.iter().all(|value| *value == 0) {
        return None;
    }
    Some(values.chunks(2).map(|pair| pair.iter().fold(0, |byte, value| byte << 4 | value)).collect())
}

/// Returns nanoseconds since 1970; 0, which means unknown in OTLP, for a time before 1970 or after 2554.
fn nanoseconds(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).ok().and_then(|since| u64::try_from(since.as_nanos()).ok()).unwrap_or(0)
}

fn any_value_of(value: &Value) -> AnyValue {
    let value = match value {
        Value::Bool(bool) => any_value::Value::BoolValue(*bool),
        Value::Integer(integer) => any_value::Value::IntValue(*integer),
        Value::Float(float) => any_value::Value::DoubleValue(*float),
        Value::Text(text) => any_value::Value::StringValue(text.clone()),
        Value::List(list) => {
            any_value::Value::ArrayValue(ArrayValue { values: list.iter().map(any_value_of).collect() })
        }
        Value::Object(members) => any_value::Value::KvlistValue(KeyValueList {
            values: members
                .iter()
                .map(|(name, value)| KeyValue {
                    key: name.clone(),
                    value: Some(any_value_of(value)),
                    ..KeyValue::default()
                })
                .collect(),
        }),
        // An empty value is the `null` of OTLP.
        _ => return AnyValue { value: None },
    };
    any(value)
}

fn text(text: impl Into<String>) -> AnyValue {
    any(any_value::Value::StringValue(text.into()))
}

/// Converts an integer. One that OTLP cannot represent becomes a string, as in the log.
fn integer(integer: u64) -> AnyValue {
    any(match i64::try_from(integer) {
        Ok(integer) => any_value::Value::IntValue(integer),
        Err(_) => any_value::Value::StringValue(integer.to_string()),
    })
}

fn any(value: any_value::Value) -> AnyValue {
    AnyValue { value: Some(value) }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn an_identifier_has_all_its_digits_and_one_that_is_not_zero() {
        assert_eq!(
            identifier::<8>("00f067aa0ba902b7").unwrap(),
            [0x00, 0xf0, 0x67, 0xaa, 0x0b, 0xa9, 0x02, 0xb7]
        );
        assert_eq!(identifier::<8>("00F067AA0BA902B7"), identifier::<8>("00f067aa0ba902b7"));
        for digits in [
            "",
            "0000000000000000",
            "00f067aa0ba902b",
            "00f067aa0ba902b7a",
            "00f067aa0ba902bg",
            "００f067aa0ba902b",
        ] {
            assert_eq!(identifier::<8>(digits), None, "{digits}");
        }
    }

    #[test]
    fn times_that_otlp_cannot_represent_are_unknown() {
        assert_eq!(nanoseconds(UNIX_EPOCH + Duration::new(1, 5)), 1_000_000_005);
        assert_eq!(nanoseconds(UNIX_EPOCH - Duration::from_secs(1)), 0);
        assert_eq!(nanoseconds(UNIX_EPOCH + Duration::from_secs(u64::MAX / 1_000_000_000 + 1)), 0);
    }

    #[test]
    fn attributes_beyond_the_limits_are_counted_and_not_truncated() {
        let mut attributes = Attributes::default();
        attributes.add("long", text("a".repeat(MAX_ATTRIBUTE_BYTES)));
        attributes.add("n".repeat(MAX_ATTRIBUTE_BYTES), text(""));
        assert_eq!((attributes.kept.len(), attributes.dropped), (0, 2));
        for index in 0..MAX_ATTRIBUTES + 5 {
            attributes.add(index.to_string(), integer(1));
        }
        assert_eq!((attributes.kept.len(), attributes.dropped), (MAX_ATTRIBUTES, 7));
    }

    #[test]
    fn a_number_beyond_the_range_of_otlp_is_a_string() {
        assert_eq!(integer(u64::MAX), text("18446744073709551615"));
    }
}
