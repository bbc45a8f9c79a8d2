//! What the builder settles about which events are audit events and what is taken from them.

use std::fmt;

use tracing_core::{Event, Field, Level, Metadata, field::Visit};

use super::{Candidate, redact::Redaction};
use crate::severity::{CriticalActions, Severity};

/// A closure of the application that says how much depends on an event.
pub(crate) type Classifier = Box<dyn Fn(&Candidate<'_>) -> Option<Severity> + Send + Sync>;

/// The settings of a layer.
pub(crate) struct Rules {
    /// Below it an event is not an audit event.
    pub(crate) level: Level,
    pub(crate) critical: CriticalActions,
    pub(crate) classify: Option<Classifier>,
    /// Span fields that events take over beside the named members.
    pub(crate) inherit: Vec<String>,
    pub(crate) redact: Redaction,
}

impl Default for Rules {
    fn default() -> Self {
        Self {
            level: Level::INFO,
            critical: CriticalActions::default(),
            classify: None,
            inherit: Vec::new(),
            redact: Redaction::default(),
        }
    }
}

impl fmt::Debug for Rules {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Rules")
            .field("level", &self.level)
            .field("classify", &self.classify.is_some())
            .field("inherit", &self.inherit)
            .field("redact", &self.redact)
            .finish_non_exhaustive()
    }
}

/// The members that an event has itself or takes from the nearest enclosing span that has them, in
/// the order in which they stand in a record.
pub(super) const NAMED: [&str; 10] = [
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
];

/// The index of `action` in [`NAMED`].
pub(super) const ACTION: usize = 0;
/// The index of `actor` in [`NAMED`].
pub(super) const ACTOR: usize = 1;

/// The field that makes an audit event of one with any target.
pub(super) const TAG: &str = "audit";

/// The target of the callsites through which `tracing-log` passes on records of the `log` crate.
/// The target of the record itself is the field `log.target`.
pub(super) const BRIDGE: &str = "log";

/// What is known about the events of a callsite.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Tag {
    /// Every event is an audit event.
    Target,
    /// It depends on the values.
    Values,
    /// No event is.
    None,
}

/// Whether a target alone makes an event an audit event: `audit`, or anything below `audit::`.
pub(super) fn is_audit_target(target: &str) -> bool {
    target.strip_prefix("audit").is_some_and(|rest| rest.is_empty() || rest.starts_with("::"))
}

impl Rules {
    pub(super) fn tag_of(&self, metadata: &Metadata<'_>) -> Tag {
        if *metadata.level() > self.level {
            Tag::None
        } else if is_audit_target(metadata.target()) {
            Tag::Target
        } else if metadata.target() == BRIDGE || metadata.fields().iter().any(|field| field.name() == TAG) {
            Tag::Values
        } else {
            Tag::None
        }
    }

    /// Whether an event is an audit event. Runs no code of the application.
    pub(super) fn is_audit(&self, event: &Event<'_>) -> bool {
        match self.tag_of(event.metadata()) {
            Tag::Target => true,
            Tag::None => false,
            Tag::Values => {
                let mut glance = Glance::default();
                event.record(&mut glance);
                glance.is_tagged
            }
        }
    }

    /// The severity of an event that will not be captured, as far as it can be told without code of
    /// the application.
    pub(super) fn severity_at_a_glance(&self, event: &Event<'_>) -> Severity {
        let mut glance = Glance { critical: Some(&self.critical), ..Glance::default() };
        event.record(&mut glance);
        let by_level = *event.metadata().level() == Level::ERROR;
        let otherwise = if glance.is_critical || by_level { Severity::Critical } else { Severity::Routine };
        glance.severity.unwrap_or(otherwise)
    }

    /// Whether events can take anything over from the spans of a callsite.
    pub(super) fn wants_span(&self, metadata: &Metadata<'_>) -> bool {
        *metadata.level() <= self.level && metadata.fields().iter().any(|field| self.inherits(field.name()))
    }

    /// Whether events take over a span field of this name.
    pub(super) fn inherits(&self, name: &str) -> bool {
        NAMED.contains(&name) || self.inherit.iter().any(|inherited| inherited == name)
    }
}

/// Looks at the values of an event that need no formatting.
#[derive(Default)]
struct Glance<'a> {
    critical: Option<&'a CriticalActions>,
    is_tagged: bool,
    severity: Option<Severity>,
    is_critical: bool,
}

impl Visit for Glance<'_> {
    fn record_bool(&mut self, field: &Field, value: bool) {
        self.is_tagged |= field.name() == TAG && value;
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        match field.name() {
            TAG => self.is_tagged |= value != "false",
            "log.target" => self.is_tagged |= is_audit_target(value),
            "severity" => {
                self.severity = Severity::understand(value).map(|(severity, _)| severity).or(self.severity);
            }
            "action" => {
                self.is_critical = self.critical.is_some_and(|critical| critical.contains(value));
            }
            _ => {}
        }
    }

    fn record_debug(&mut self, field: &Field, _: &dyn fmt::Debug) {
        self.is_tagged |= field.name() == TAG;
    }

    fn record_i64(&mut self, field: &Field, _: i64) {
        self.is_tagged |= field.name() == TAG;
    }

    fn record_u64(&mut self, field: &Field, _: u64) {
        self.is_tagged |= field.name() == TAG;
    }

    fn record_f64(&mut self, field: &Field, _: f64) {
        self.is_tagged |= field.name() == TAG;
    }

    fn record_error(&mut self, field: &Field, _: &(dyn std::error::Error + 'static)) {
        self.is_tagged |= field.name() == TAG;
    }
}
