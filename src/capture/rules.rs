//! The rules that the builder sets: which events are audit events, and what is recorded of them.

use std::{
    fmt,
    panic::{AssertUnwindSafe, catch_unwind},
};

use tracing_core::{Event, Field, Level, Metadata, field::Visit};

use super::{Candidate, Enrichment, redact::Redaction, thread::Capturing};
use crate::severity::{CriticalActions, Severity};

/// A closure of the application that decides the severity of an event.
pub(crate) type Classifier = Box<dyn Fn(&Candidate<'_>) -> Option<Severity> + Send + Sync>;

/// A closure of the application that adds values which neither an event nor its spans have.
pub(crate) type Enricher = Box<dyn Fn(&mut Enrichment<'_>) + Send + Sync>;

/// The settings of a layer.
pub(crate) struct Rules {
    /// The most verbose level at which an event can be an audit event.
    pub(crate) level: Level,
    /// The most verbose level at which events inherit from spans. If it is not set, that is `DEBUG`, or `level` if more
    /// verbose. Spans more verbose than `level` are then used if they are enabled, but `ensure_attached` does not require
    /// them.
    pub(crate) span_level: Option<Level>,
    pub(crate) critical: CriticalActions,
    pub(crate) classify: Option<Classifier>,
    /// Span fields that events inherit, beside those of [`INHERITED`].
    pub(crate) inherit: Vec<String>,
    /// Prefixes of the targets of spans from which events inherit. If it is empty, events inherit from all.
    pub(crate) inherit_from: Vec<String>,
    /// A bit for each named member that must not be inherited.
    pub(crate) explicit: u32,
    pub(crate) enrich: Option<Enricher>,
    pub(crate) redact: Redaction,
}

impl Default for Rules {
    fn default() -> Self {
        Self {
            level: Level::INFO,
            span_level: None,
            critical: CriticalActions::default(),
            classify: None,
            inherit: Vec::new(),
            inherit_from: Vec::new(),
            explicit: 0,
            enrich: None,
            redact: Redaction::default(),
        }
    }
}

impl fmt::Debug for Rules {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Rules")
            .field("level", &self.level)
            .field("classify", &self.classify.is_some())
            .field("span_level", &self.span_level)
            .field("inherit", &self.inherit)
            .field("inherit_from", &self.inherit_from)
            .field("explicit", &self.explicit)
            .field("enrich", &self.enrich.is_some())
            .field("redact", &self.redact)
            .finish_non_exhaustive()
    }
}

/// The named members other than the message, in the order of a record.
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

/// The members that an event inherits from the nearest enclosing span that has them: who and where.
///
/// What happened must come from the event itself, unless the application names more members. A span of a library may have
/// an `outcome` of its own that means something else.
const INHERITED: [&str; 6] = ["actor", "session_id", "request_id", "source", "trace_id", "span_id"];

/// The most verbose level of the spans that are used by default.
const SPAN_LEVEL: Level = Level::DEBUG;

/// The index of `action` in [`NAMED`].
pub(super) const ACTION: usize = 0;
/// The index of `actor` in [`NAMED`].
pub(super) const ACTOR: usize = 1;

/// The field that makes an event with any target an audit event.
pub(super) const TAG: &str = "audit";

/// The target of the callsites through which `tracing-log` forwards records of the `log` crate. The target of the record
/// itself is in the field `log.target`.
pub(super) const BRIDGE: &str = "log";

/// How the events of a callsite are known to be audit events.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Tag {
    /// By the target: every event is one.
    Target,
    /// By the values of each event.
    Values,
    /// No event is one.
    None,
}

/// Returns whether a target alone makes an event an audit event: `audit`, or anything below `audit::`.
pub(super) fn is_audit_target(target: &str) -> bool {
    target.strip_prefix("audit").is_some_and(|rest| rest.is_empty() || rest.starts_with("::"))
}

/// Returns the bit of a named member, by its name.
pub(crate) fn named_bit(name: &str) -> Option<u32> {
    NAMED.iter().position(|named| *named == name).map(|index| 1 << index)
}

/// Returns whether a target is `prefix` or within it: `my_app::http` is within `my_app`, and `my_apple` is not.
fn is_within(target: &str, prefix: &str) -> bool {
    let is_word = |character: char| character.is_alphanumeric() || character == '_';
    target.strip_prefix(prefix).is_some_and(|rest| {
        let ends = prefix.chars().next_back().is_none_or(|last| !is_word(last));
        ends || rest.chars().next().is_none_or(|next| !is_word(next))
    })
}

impl Rules {
    /// Returns the most verbose level of the spans from which events inherit.
    pub(super) fn lowest_span(&self) -> Level {
        self.span_level.unwrap_or_else(|| self.level.max(SPAN_LEVEL))
    }

    /// Returns how the events of a callsite are known to be audit events.
    pub(super) fn tag_of(&self, metadata: &Metadata<'_>) -> Tag {
        // For `tracing`, a more verbose level is the greater one.
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

    /// Returns whether an event is an audit event. The only code of the application that this runs is the `Debug` of the
    /// field `audit`.
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

    /// Returns the severity of an event that will not be captured, as far as it is known without running code of the
    /// application.
    pub(super) fn severity_at_a_glance(&self, event: &Event<'_>) -> Severity {
        let mut glance = Glance { critical: Some(&self.critical), ..Glance::default() };
        event.record(&mut glance);
        let by_level = *event.metadata().level() == Level::ERROR;
        let otherwise = if glance.is_critical || by_level { Severity::Critical } else { Severity::Routine };
        glance.severity.unwrap_or(otherwise)
    }

    /// Returns whether events can inherit anything from the spans of a callsite.
    pub(super) fn wants_span(&self, metadata: &Metadata<'_>) -> bool {
        self.listens_to(metadata) && metadata.fields().iter().any(|field| self.inherits(field.name()))
    }

    /// Returns whether the level and the target of a span allow events to inherit from it.
    pub(super) fn listens_to(&self, metadata: &Metadata<'_>) -> bool {
        *metadata.level() <= self.lowest_span() && self.listens_to_target(metadata.target())
    }

    /// Returns whether the target of a span allows events to inherit from it. A span with the target `audit` always does: it
    /// is the application's own.
    pub(super) fn listens_to_target(&self, target: &str) -> bool {
        is_audit_target(target)
            || self.inherit_from.is_empty()
            || self.inherit_from.iter().any(|prefix| is_within(target, prefix))
    }

    /// Returns whether events inherit a span field of this name.
    pub(super) fn inherits(&self, name: &str) -> bool {
        self.inherit.iter().any(|inherited| inherited == name) || INHERITED.contains(&name)
    }
}

/// Returns whether a value prints as `false`, in quotes or not. Its `Debug` is code of the application, which may do
/// anything. If it fails, this returns false, so that the event counts as an audit event.
fn prints_false(value: &dyn fmt::Debug) -> bool {
    /// The first bytes of what was printed.
    struct Prefix(String);
    impl fmt::Write for Prefix {
        fn write_str(&mut self, text: &str) -> fmt::Result {
            self.0.push_str(text.get(..LONGEST.len() + 1).unwrap_or(text));
            // An error ends the formatting early: longer than this it is not `false`.
            if LONGEST.len() < self.0.len() { Err(fmt::Error) } else { Ok(()) }
        }
    }
    const LONGEST: &str = "\"false\"";
    // As in all formatting, an audit event that it emits is counted as lost instead of captured.
    let Some(_capturing) = Capturing::begin() else { return false };
    let print = || {
        let mut start = Prefix(String::new());
        let is_whole = fmt::write(&mut start, format_args!("{value:?}")).is_ok();
        is_whole && (start.0 == "false" || start.0 == LONGEST)
    };
    catch_unwind(AssertUnwindSafe(print)).unwrap_or_else(|panic| {
        // Dropping a panic's payload would run code of the application again.
        std::mem::forget(panic);
        false
    })
}

/// A visitor for the tag, and for values that need no formatting.
#[derive(Default)]
struct Glance<'a> {
    /// The critical actions, if the severity is asked for and not the tag.
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
                // The last value that names a severity counts, as in a captured event.
                self.severity = Severity::understand(value).map(|(severity, _)| severity).or(self.severity);
            }
            "action" => {
                self.is_critical = self.critical.is_some_and(|critical| critical.contains(value));
            }
            _ => {}
        }
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        // If the severity is asked for, the event is known to be an audit event, and the tag need not be formatted.
        if field.name() == TAG && !self.is_tagged && self.critical.is_none() {
            self.is_tagged = !prints_false(value);
        }
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
