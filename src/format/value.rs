//! Values of a record that was read back.

use std::collections::BTreeMap;

use serde_json::Value as Json;

use super::plain::find_quote;

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

/// The text that a member of a line is, by its name, without parsing the others. The line has been
/// checked to be strict, and has no backslash.
pub(crate) fn text_of<'a>(line: &'a str, name: &str) -> Option<&'a str> {
    let bytes = line.as_bytes();
    // Behind the brace, and behind the comma of each member before.
    let mut at = 1;
    loop {
        let end = find_quote(bytes, at + 1)?;
        let is_named_so = bytes.get(at + 1..end) == Some(name.as_bytes());
        let value = end + 2;
        at = end_of_value(bytes, value)?;
        if is_named_so {
            return line.get(value..at)?.strip_prefix('"')?.strip_suffix('"');
        }
        at += 1;
    }
}

/// Where the value ends that begins at `at`.
fn end_of_value(bytes: &[u8], mut at: usize) -> Option<usize> {
    let mut depth = 0_u32;
    loop {
        match bytes.get(at)? {
            b'"' => at = find_quote(bytes, at + 1)?,
            b'{' | b'[' => depth += 1,
            b',' | b'}' if depth == 0 => return Some(at),
            b'}' | b']' => depth = depth.checked_sub(1)?,
            _ => {}
        }
        at += 1;
    }
}
