//! The columns of a record, derived from its line alone, so that they can be derived again from a stored
//! line.

use std::{collections::BTreeMap, time::SystemTime};

use serde_json::{Map, Number, Value, value::RawValue};
use tokio_postgres::types::Timestamp;

use crate::{copy::CopiedLine, timestamp::parse_time};

/// The columns that hold a text, each named after the member that it holds.
pub(super) const TEXTS: [&str; 15] = [
    "kind",
    "severity",
    "level",
    "action",
    "actor",
    "resource",
    "outcome",
    "reason",
    "session_id",
    "request_id",
    "source",
    "trace_id",
    "span_id",
    "message",
    "target",
];

/// The substitute for NUL, which neither `text` nor `jsonb` accepts: its symbol, U+2400.
const NUL_SYMBOL: &str = "\u{2400}";

/// How deep objects and lists are nested in a record. Anything deeper is stored as text.
const MAX_DEPTH: usize = 32;

/// The columns of one record, except its key and its line.
#[derive(Debug, PartialEq)]
pub(super) struct Columns {
    pub(super) at: Timestamp<SystemTime>,
    /// The nanoseconds after the microsecond of `at`.
    pub(super) nanos: i16,
    /// In the order of [`TEXTS`].
    pub(super) texts: Vec<Option<String>>,
    pub(super) fields: Option<Value>,
}

impl Columns {
    pub(super) fn of(line: &CopiedLine<'_>) -> Self {
        let (at, nanos) = match line.text("ts").and_then(|text| parse_time(text.as_bytes())) {
            Some((at, nanos)) => (Timestamp::Value(at), nanos),
            None => (Timestamp::NegInfinity, 0),
        };
        let fields = line.members.get("fields").filter(|fields| fields.get().starts_with('{'));
        Self {
            at,
            nanos,
            texts: TEXTS.iter().map(|name| line.text(name).map(|text| without_nul(&text))).collect(),
            fields: fields.map(|fields| storable(fields, 0)),
        }
    }
}

fn without_nul(text: &str) -> String {
    text.replace('\0', NUL_SYMBOL)
}

/// Converts a value for `jsonb`. A number that is neither a double nor a 64-bit integer becomes a string of
/// its digits: `jsonb` would refuse it, or print some of them with 131,072 digits.
fn storable(raw: &RawValue, depth: usize) -> Value {
    let text = raw.get();
    let parsed = match text.as_bytes().first() {
        Some(b'{' | b'[') if depth > MAX_DEPTH => None,
        Some(b'{') => serde_json::from_str::<BTreeMap<String, &RawValue>>(text).ok().map(|members| {
            let members = members.iter().map(|(name, value)| (without_nul(name), storable(value, depth + 1)));
            Value::Object(members.collect::<Map<_, _>>())
        }),
        Some(b'[') => serde_json::from_str::<Vec<&RawValue>>(text)
            .ok()
            .map(|items| items.iter().map(|item| storable(item, depth + 1)).collect()),
        Some(b'"') => serde_json::from_str::<String>(text).ok().map(|text| without_nul(&text).into()),
        Some(b't' | b'f' | b'n') => serde_json::from_str(text).ok(),
        _ => number_of(text).map(Value::Number),
    };
    parsed.unwrap_or_else(|| without_nul(text).into())
}

/// Parses a whole number of 64 bits, or a double that is written with a fraction or an exponent.
fn number_of(text: &str) -> Option<Number> {
    let number: Number = serde_json::from_str(text).ok()?;
    let is_whole = !text.contains(['.', 'e', 'E']);
    (!is_whole || number.is_i64() || number.is_u64()).then_some(number)
}

/// Returns whether a value as printed by `jsonb` is the one that was stored.
pub(super) fn is_stored(value: &Value, printed: &RawValue) -> bool {
    let text = printed.get();
    match value {
        Value::Object(members) => match serde_json::from_str::<BTreeMap<String, &RawValue>>(text) {
            Ok(printed) => {
                let both = printed.iter().map(|(name, printed)| (members.get(name), printed));
                printed.len() == members.len()
                    && both
                        .into_iter()
                        .all(|(value, printed)| value.is_some_and(|value| is_stored(value, printed)))
            }
            Err(_) => false,
        },
        Value::Array(items) => match serde_json::from_str::<Vec<&RawValue>>(text) {
            Ok(printed) => {
                printed.len() == items.len()
                    && items.iter().zip(printed).all(|(item, printed)| is_stored(item, printed))
            }
            Err(_) => false,
        },
        // `1e2` is printed as `100`, and `1e300` with all its zeros.
        Value::Number(number) if number.is_f64() => {
            text.parse::<f64>().is_ok_and(|printed| number.as_f64() == Some(printed))
        }
        Value::Number(number) => number.to_string() == text,
        Value::Null | Value::Bool(_) | Value::String(_) => {
            serde_json::from_str::<Value>(text).is_ok_and(|printed| printed == *value)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn raw(text: &str) -> Box<RawValue> {
        RawValue::from_string(text.to_owned()).unwrap()
    }

    #[track_caller]
    fn check(given: &str, stored: &str) {
        let value = storable(&raw(given), 0);
        assert_eq!(value.to_string(), stored);
        assert!(is_stored(&value, &raw(stored)));
    }

    #[test]
    fn what_jsonb_refuses_is_substituted() {
        check(r#""a\u0000b""#, "\"a\u{2400}b\"");
        check(r#"{"\u0000":[1,null,true]}"#, "{\"\u{2400}\":[1,null,true]}");
        check("1e400", r#""1e400""#);
        check("-1e200000", r#""-1e200000""#);
        check("18446744073709551615", "18446744073709551615");
        check("18446744073709551616", r#""18446744073709551616""#);
        check("1.5e300", "1.5e+300");
        check("0.1", "0.1");
    }

    #[test]
    fn nesting_is_bounded() {
        let deep = "[".repeat(5000) + &"]".repeat(5000);
        assert!(storable(&raw(&deep), 0).to_string().contains("\"[[["));
    }

    #[test]
    fn numbers_are_compared_as_jsonb_prints_them() {
        assert!(is_stored(&storable(&raw("1e2"), 0), &raw("100")));
        assert!(is_stored(&storable(&raw("-0.0"), 0), &raw("0.0")));
        assert!(is_stored(&storable(&raw("1e300"), 0), &raw(&format!("1{}", "0".repeat(300)))));
        assert!(!is_stored(&storable(&raw("1"), 0), &raw("2")));
        assert!(!is_stored(&storable(&raw("{\"a\":1}"), 0), &raw("{\"a\":1,\"b\":2}")));
        assert!(!is_stored(&storable(&raw("{\"a\":1}"), 0), &raw("[1]")));
        assert!(!is_stored(&storable(&raw("\"a\""), 0), &raw("null")));
    }
}
