//! The view of an event that a classifier gets.

use std::borrow::Cow;

use tracing_core::Level;

use super::{rules::ACTION, values::Values};
use crate::format::{self, Value};

/// An audit event about to be recorded, as passed to the closure of [`Builder::classify`](crate::Builder::classify).
///
/// It includes what the event inherits from spans. A withheld value reads `[redacted]`.
#[derive(Debug)]
pub struct Candidate<'a> {
    pub(super) level: Level,
    pub(super) target: &'a str,
    pub(super) action: Option<Cow<'a, str>>,
    pub(super) values: &'a Values,
}

impl<'a> Candidate<'a> {
    pub(super) fn new(level: Level, target: &'a str, values: &'a Values) -> Self {
        let action = values.named.get(ACTION).and_then(|member| values.text(member));
        Self { level, target, action, values }
    }

    /// Returns the level of the event.
    #[must_use]
    pub fn level(&self) -> Level {
        self.level
    }

    /// Returns the target of the event; for a record of the `log` crate, the target it was logged with.
    #[must_use]
    pub fn target(&self) -> &str {
        self.target
    }

    /// Returns the action, if it is a text.
    #[must_use]
    pub fn action(&self) -> Option<&str> {
        self.action.as_deref()
    }

    /// Returns the value of a field, or of a member such as `actor` or `message`, by its name. Parses it on each call.
    #[must_use]
    pub fn field(&self, name: &str) -> Option<Value> {
        format::parse_value(self.values.json(self.values.find(name)?)?)
    }
}
