//! Values of records that were read back.

use std::{collections::BTreeMap, fmt};

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
    /// A whole number. Beyond ±(2^53−1), the log holds them as text.
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
    /// Returns the text, if it is one.
    #[must_use]
    pub fn as_str(&self) -> Option<&str> {
        if let Self::Text(text) = self { Some(text) } else { None }
    }

    /// Returns the whole number, if it is one.
    #[must_use]
    pub fn as_i64(&self) -> Option<i64> {
        if let Self::Integer(integer) = self { Some(*integer) } else { None }
    }

    /// Returns the whole number, if it is one and not negative.
    #[must_use]
    pub fn as_u64(&self) -> Option<u64> {
        self.as_i64().and_then(|integer| u64::try_from(integer).ok())
    }

    /// Returns the number, if it is one. Whole numbers beyond ±2^53 lose digits.
    #[must_use]
    pub fn as_f64(&self) -> Option<f64> {
        match self {
            #[expect(clippy::cast_precision_loss, reason = "documented above")]
            Self::Integer(integer) => Some(*integer as f64),
            Self::Float(float) => Some(*float),
            _ => None,
        }
    }

    /// Returns the values of the list, if it is one.
    #[must_use]
    pub fn as_list(&self) -> Option<&[Self]> {
        if let Self::List(values) = self { Some(values) } else { None }
    }

    /// Returns the members of the object by name, if it is one.
    #[must_use]
    pub fn as_object(&self) -> Option<&BTreeMap<String, Self>> {
        if let Self::Object(members) = self { Some(members) } else { None }
    }

    /// Returns the truth value, if it is one.
    #[must_use]
    pub fn as_bool(&self) -> Option<bool> {
        if let Self::Bool(bool) = self { Some(*bool) } else { None }
    }

    /// Returns the member of this name, if it is an object that has it.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&Self> {
        self.as_object()?.get(name)
    }

    fn to_json(&self) -> Json {
        match self {
            Self::Null => Json::Null,
            Self::Bool(bool) => Json::Bool(*bool),
            Self::Integer(integer) => Json::from(*integer),
            Self::Float(float) => Json::from(*float),
            Self::Text(text) => Json::String(text.clone()),
            Self::List(list) => list.iter().map(Self::to_json).collect(),
            Self::Object(members) => {
                members.iter().map(|(name, value)| (name.clone(), value.to_json())).collect()
            }
        }
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

/// Prints a text as it is, and anything else as JSON.
impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Text(text) => f.pad(text),
            other => f.pad(&other.to_json().to_string()),
        }
    }
}

/// Parses one value.
pub(crate) fn parse_value(json: &[u8]) -> Option<Value> {
    serde_json::from_slice(json).ok().map(Value::from_json)
}

/// Parses a line as an object. The line must have been checked to be strict JSON.
pub(crate) fn parse_object(line: &[u8]) -> Option<BTreeMap<String, Value>> {
    match Value::from_json(serde_json::from_slice(line).ok()?) {
        Value::Object(members) => Some(members),
        _ => None,
    }
}

/// Returns the member of this name in a line if it is a text, without parsing the others. The line must have been
/// checked to be strict JSON, and must have no backslash.
pub(crate) fn text_of<'a>(line: &'a str, name: &str) -> Option<&'a str> {
    let bytes = line.as_bytes();
    // The offset of the next name: after the opening brace, and after the comma of each earlier member.
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

/// Returns the end of the value that begins at `at`.
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
