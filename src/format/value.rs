//! Values of a record that was read back.

use std::collections::BTreeMap;

use serde_json::Value as Json;

/// A value of a member of a record.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum Value {
    /// `null`, which this library does not write.
    Null,
    /// `true` or `false`.
    Bool(bool),
    /// A whole number; beyond ±(2^53−1) they stand in the log as text.
    Integer(i64),
    /// A number with a fraction or exponent.
    Float(f64),
    /// A text.
    Text(String),
    /// A list.
    List(Vec<Value>),
    /// An object.
    Object(BTreeMap<String, Value>),
}

impl Value {
    /// The text, if it is one.
    #[must_use]
    pub fn as_str(&self) -> Option<&str> {
        if let Self::Text(text) = self { Some(text) } else { None }
    }

    /// The whole number, if it is one.
    #[must_use]
    pub fn as_i64(&self) -> Option<i64> {
        if let Self::Integer(integer) = self { Some(*integer) } else { None }
    }

    /// The truth value, if it is one.
    #[must_use]
    pub fn as_bool(&self) -> Option<bool> {
        if let Self::Bool(bool) = self { Some(*bool) } else { None }
    }

    /// The member of this name, if it is an object that has it.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&Self> {
        if let Self::Object(members) = self { members.get(name) } else { None }
    }

    fn from_json(json: Json) -> Self {
        match json {
            Json::Null => Self::Null,
            Json::Bool(bool) => Self::Bool(bool),
            Json::Number(number) => match number.as_i64() {
                Some(integer) => Self::Integer(integer),
                None => Self::Float(number.as_f64().unwrap_or(f64::NAN)),
            },
            Json::String(text) => Self::Text(text),
            Json::Array(list) => Self::List(list.into_iter().map(Self::from_json).collect()),
            Json::Object(members) => Self::Object(
                members.into_iter().map(|(name, value)| (name, Self::from_json(value))).collect(),
            ),
        }
    }
}

/// Parses one value.
pub(crate) fn parse_value(json: &[u8]) -> Option<Value> {
    serde_json::from_slice(json).ok().map(Value::from_json)
}

/// Parses the object that a line is. The line has been checked to be strict.
pub(crate) fn parse_object(line: &[u8]) -> Option<BTreeMap<String, Value>> {
    match Value::from_json(serde_json::from_slice(line).ok()?) {
        Value::Object(members) => Some(members),
        _ => None,
    }
}
