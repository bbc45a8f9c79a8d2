//! Expectations of a test on the events of a log, and the message when they are not met.

use std::fmt;

use tracing_audit::{Record, Severity, Value};

use crate::TestLog;

/// The largest whole number that a log writes as a number.
const MAX_INTEGER: u64 = (1 << 53) - 1;

/// An assertion on the events of a log: which members they have, and how many such events there are.
///
/// Created by [`TestLog::expect`]. Members that are not named may have any value.
#[derive(Debug)]
#[must_use = "nothing is asserted until `once`, `times` or `never`"]
pub struct Expectation<'log> {
    log: &'log TestLog,
    members: Vec<Member>,
}

/// The required value of one member of an event.
#[derive(Debug)]
struct Member {
    name: String,
    /// Whether it is a member of `fields`.
    is_field: bool,
    value: FieldValue,
}

/// The members that are always texts in the log, whatever type the event gave them.
const NAMED: [&str; 11] = [
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
];

impl<'log> Expectation<'log> {
    pub(crate) fn on(log: &'log TestLog) -> Self {
        Self { log, members: Vec::new() }
    }

    /// Requires this action.
    pub fn action(self, action: impl Into<FieldValue>) -> Self {
        self.member("action", action)
    }

    /// Requires this actor, from the event itself or from a span.
    pub fn actor(self, actor: impl Into<FieldValue>) -> Self {
        self.member("actor", actor)
    }

    /// Requires this resource. A number is compared as text, because named members are texts in the log.
    pub fn resource(self, resource: impl Into<FieldValue>) -> Self {
        self.member("resource", resource)
    }

    /// Requires this outcome.
    pub fn outcome(self, outcome: impl Into<FieldValue>) -> Self {
        self.member("outcome", outcome)
    }

    /// Requires this severity.
    pub fn severity(self, severity: Severity) -> Self {
        self.member("severity", severity.to_string())
    }

    /// Requires a member of `fields` with this value. A number and its text are different values.
    pub fn field(self, name: &str, value: impl Into<FieldValue>) -> Self {
        self.with(name, true, value.into())
    }

    /// Requires this member, by its name in the record: `session_id`, `message`, `target` and so on.
    pub fn member(self, name: &str, value: impl Into<FieldValue>) -> Self {
        self.with(name, false, value.into())
    }

    fn with(mut self, name: &str, is_field: bool, value: FieldValue) -> Self {
        let value = if !is_field && NAMED.contains(&name) { value.as_text() } else { value };
        self.members.push(Member { name: name.to_owned(), is_field, value });
        self
    }

    /// Asserts that there is exactly one such event, and returns it.
    ///
    /// # Panics
    ///
    /// If there is none or more than one; the message shows the recorded events and how each differs. Also as
    /// [`TestLog::records`]: if a fault is on, call [`TestLog::heal`] first.
    #[expect(clippy::must_use_candidate, reason = "an assertion may be all that is wanted")]
    #[track_caller]
    pub fn once(self) -> Record {
        let mut found = self.times(1);
        found.remove(0)
    }

    /// Asserts that there are exactly this many such events, and returns them.
    ///
    /// # Panics
    ///
    /// As [`once`](Self::once).
    #[expect(clippy::must_use_candidate, reason = "an assertion may be all that is wanted")]
    #[track_caller]
    pub fn times(self, expected: usize) -> Vec<Record> {
        let events = self.log.events();
        let found: Vec<Record> = events.iter().filter(|event| self.is_met_by(event)).cloned().collect();
        assert!(
            found.len() == expected,
            "events with {self}: expected {expected}, found {}\n{}",
            found.len(),
            self.log.shown(&events, |event| self.differences(event))
        );
        found
    }

    /// Asserts that there is no such event.
    ///
    /// # Panics
    ///
    /// If there is one; the message shows the recorded events. Also as [`TestLog::records`].
    #[track_caller]
    pub fn never(self) {
        self.times(0);
    }

    fn is_met_by(&self, event: &Record) -> bool {
        self.members.iter().all(|member| member.is_met_by(event))
    }

    fn differences(&self, event: &Record) -> String {
        let members = self.members.iter().filter(|member| !member.is_met_by(event));
        let differences = members.map(|member| match member.of(event) {
            Some(value) => format!("\n    {} is {}", member.name, FieldValue(value.clone())),
            None => format!("\n    {} is not there", member.name),
        });
        differences.collect()
    }
}

impl fmt::Display for Expectation<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let members: Vec<String> =
            self.members.iter().map(|member| format!("{} = {}", member.name, member.value)).collect();
        write!(f, "{{ {} }}", members.join(", "))
    }
}

impl Member {
    fn of<'event>(&self, event: &'event Record) -> Option<&'event Value> {
        if self.is_field { event.field(&self.name) } else { event.get(&self.name) }
    }

    fn is_met_by(&self, event: &Record) -> bool {
        self.of(event) == Some(&self.value.0)
    }
}

/// A value as written to the log: a text, a number or a boolean.
#[derive(Debug, Clone, PartialEq)]
pub struct FieldValue(Value);

impl FieldValue {
    /// Returns the value as a named member has it, with a number as its digits.
    fn as_text(&self) -> Self {
        match &self.0 {
            Value::Text(_) => self.clone(),
            _ => Self(Value::Text(self.to_string())),
        }
    }
}

impl fmt::Display for FieldValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Value::Text(text) => write!(f, "{text:?}"),
            Value::Integer(number) => write!(f, "{number}"),
            Value::Float(number) => write!(f, "{number:?}"),
            Value::Bool(bool) => write!(f, "{bool}"),
            other => write!(f, "{other:?}"),
        }
    }
}

impl From<Value> for FieldValue {
    fn from(value: Value) -> Self {
        Self(value)
    }
}

impl From<&str> for FieldValue {
    fn from(text: &str) -> Self {
        Self(Value::Text(text.to_owned()))
    }
}

impl From<String> for FieldValue {
    fn from(text: String) -> Self {
        Self(Value::Text(text))
    }
}

impl From<bool> for FieldValue {
    fn from(bool: bool) -> Self {
        Self(Value::Bool(bool))
    }
}

impl From<f64> for FieldValue {
    fn from(number: f64) -> Self {
        // JSON has no such numbers, so the log has them as texts.
        let text = match number {
            number if number.is_nan() => "NaN",
            f64::INFINITY => "Infinity",
            f64::NEG_INFINITY => "-Infinity",
            number => return Self(Value::Float(number)),
        };
        Self(Value::Text(text.to_owned()))
    }
}

impl From<i64> for FieldValue {
    fn from(number: i64) -> Self {
        // The log has larger whole numbers as texts, because other tools would round them to a double.
        let is_exact = number.unsigned_abs() <= MAX_INTEGER;
        Self(if is_exact { Value::Integer(number) } else { Value::Text(number.to_string()) })
    }
}

impl From<u64> for FieldValue {
    fn from(number: u64) -> Self {
        i64::try_from(number).map_or_else(|_| Self(Value::Text(number.to_string())), Self::from)
    }
}

impl From<usize> for FieldValue {
    fn from(number: usize) -> Self {
        Self::from(number as u64)
    }
}

/// Implements `From` for the integers that fit an `i64`.
macro_rules! from_integers {
    ($($Integer:ty),*) => {
        $(impl From<$Integer> for FieldValue {
            fn from(number: $Integer) -> Self {
                Self::from(i64::from(number))
            }
        })*
    };
}

from_integers!(i8, i16, i32, u8, u16, u32);
