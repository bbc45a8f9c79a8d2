//! What a classifier sees.

use std::borrow::Cow;

use tracing_core::Level;

use super::{rules::ACTION, values::Values};
use crate::format::{self, Value};

/// An audit event about to be recorded, as the closure given to
/// [`Builder::classify`](crate::Builder::classify) sees it.
///
/// What the event inherits from spans can be seen; a value that is withheld reads `[redacted]`.
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

    /// The level of the event.
    #[must_use]
    pub fn level(&self) -> Level {
        self.level
    }

    /// The target of the event; of a record of the `log` crate, the one it was logged with.
    #[must_use]
    pub fn target(&self) -> &str {
        self.target
    }

    /// The action, if it is a text.
    #[must_use]
    pub fn action(&self) -> Option<&str> {
        self.action.as_deref()
    }

    /// The value of a field, or of a member like `actor` or `message`, by its name. Made when it is
    /// asked for.
    #[must_use]
    pub fn field(&self, name: &str) -> Option<Value> {
        format::parse_value(self.values.json(self.values.find(name)?)?)
    }
}
