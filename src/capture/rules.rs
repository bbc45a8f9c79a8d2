//! What the builder settles about which events are audit events and what is taken from them.

use std::{
    fmt,
    panic::{AssertUnwindSafe, catch_unwind},
};

use tracing_core::{Event, Field, Level, Metadata, field::Visit};

use super::{Candidate, Enrichment, redact::Redaction, thread::Capturing};
use crate::severity::{CriticalActions, Severity};

/// A closure of the application that says how much depends on an event.
pub(crate) type Classifier = Box<dyn Fn(&Candidate<'_>) -> Option<Severity> + Send + Sync>;

/// A closure of the application that adds what neither an event nor its spans say.
pub(crate) type Enricher = Box<dyn Fn(&mut Enrichment<'_>) + Send + Sync>;

/// The settings of a layer.
pub(crate) struct Rules {
    /// Below it an event is not an audit event.
    pub(crate) level: Level,
    /// Below it, or below `level` if that is lower, spans pass nothing on. Where it is not set, such spans are taken
    /// where they exist, and it is no flaw of a subscriber that they do not.
    pub(crate) span_level: Option<Level>,
    pub(crate) critical: CriticalActions,
    pub(crate) classify: Option<Classifier>,
    /// Span fields that events take over beside who and where.
    pub(crate) inherit: Vec<String>,
    /// The beginnings of the targets of spans that pass something on. All do where there is none.
    pub(crate) inherit_from: Vec<String>,
    /// A bit for each named member that a record must have from its event.
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

/// The members that stand beside the message, in the order in which they stand in a record.
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

/// Who and where: what an event takes over from the nearest enclosing span that says it. What happened, only the event
/// says, unless the application names more: a span of a library may well have an `outcome` of its own.
const INHERITED: [&str; 6] = ["actor", "session_id", "request_id", "source", "trace_id", "span_id"];

/// The lowest level of the spans that are taken unless the application says so.
const SPAN_LEVEL: Level = Level::DEBUG;

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

/// The bit of a named member, by its name.
pub(crate) fn named_bit(name: &str) -> Option<u32> {
    NAMED.iter().position(|named| *named == name).map(|index| 1 << index)
}

/// Whether a target is `prefix` or something in it: `my_app` has `my_app::http` in it and not `my_apple`.
fn is_within(target: &str, prefix: &str) -> bool {
    let is_word = |character: char| character.is_alphanumeric() || character == '_';
    target.strip_prefix(prefix).is_some_and(|rest| {
        let ends = prefix.chars().next_back().is_none_or(|last| !is_word(last));
        ends || rest.chars().next().is_none_or(|next| !is_word(next))
    })
}

impl Rules {
    /// The lowest level of the spans that pass something on.
    pub(super) fn lowest_span(&self) -> Level {
        self.span_level.unwrap_or_else(|| self.level.max(SPAN_LEVEL))
    }

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

    /// Whether an event is an audit event. Of the application's code only what prints the field `audit` is run.
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
        self.listens_to(metadata) && metadata.fields().iter().any(|field| self.inherits(field.name()))
    }

    /// Whether the level and the target of a span are such that events inherit from it.
    pub(super) fn listens_to(&self, metadata: &Metadata<'_>) -> bool {
        *metadata.level() <= self.lowest_span() && self.listens_to_target(metadata.target())
    }

    /// The same of the target alone. A span that is tagged by its target is the application's own.
    pub(super) fn listens_to_target(&self, target: &str) -> bool {
        is_audit_target(target)
            || self.inherit_from.is_empty()
            || self.inherit_from.iter().any(|prefix| is_within(target, prefix))
    }

    /// Whether events take over a span field of this name.
    pub(super) fn inherits(&self, name: &str) -> bool {
        self.inherit.iter().any(|inherited| inherited == name) || INHERITED.contains(&name)
    }
}

/// Whether something prints as `false`, in quotes or not. Code of the application, which may do anything: what cannot be
/// told is taken for something else, so that the event is an audit event.
fn prints_false(value: &dyn fmt::Debug) -> bool {
    /// What was printed so far.
    struct Prefix(String);
    impl fmt::Write for Prefix {
        fn write_str(&mut self, text: &str) -> fmt::Result {
            self.0.push_str(text.get(..LONGEST.len() + 1).unwrap_or(text));
            if LONGEST.len() < self.0.len() { Err(fmt::Error) } else { Ok(()) }
        }
    }
    const LONGEST: &str = "\"false\"";
    // An audit event from it is counted instead of captured, as in all formatting.
    let Some(_capturing) = Capturing::begin() else { return false };
    let print = || {
        let mut start = Prefix(String::new());
        let is_whole = fmt::write(&mut start, format_args!("{value:?}")).is_ok();
        is_whole && (start.0 == "false" || start.0 == LONGEST)
    };
    catch_unwind(AssertUnwindSafe(print)).unwrap_or_else(|panic| {
        // Dropping what was thrown would run code of the application again.
        std::mem::forget(panic);
        false
    })
}

/// Looks at the values of an event that need no formatting, and at the tag.
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

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        // Who asks for the severity knows that it is an audit event.
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
