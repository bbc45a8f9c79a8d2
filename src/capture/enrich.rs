//! Lets the application add fields to each event.

use std::fmt::Display;

use tracing_core::{Dispatch, Event, Subscriber, span::Id};
use tracing_subscriber::{layer::Context, registry::LookupSpan};

use super::{
    Capture,
    fields::{self, FullValue},
    plan::{FieldPlan, Plan, Plans, Role},
    values::{Values, Visitor},
};

/// An audit event about to be recorded, as passed to the closure of [`Builder::enrich`](crate::Builder::enrich).
///
/// The closure adds values that neither the event nor its spans have. A value that exists already is kept, even if
/// the closure itself added it. One exception: a member named in [`Builder::explicit`](crate::Builder::explicit)
/// replaces an inherited value.
///
/// Named members such as `actor` are recorded as texts; every other name is recorded under `fields`. Values are
/// redacted and cut like those of the event.
#[derive(Debug)]
pub struct Enrichment<'a> {
    pub(super) capture: &'a Capture,
    pub(super) plan: &'a Plan,
    pub(super) plans: &'a mut Plans,
    pub(super) values: &'a mut Values,
    /// A bit for each named member that the event or the closure gave, even as an empty text.
    pub(super) given: u32,
    pub(super) span: Option<Id>,
    pub(super) dispatch: Option<Dispatch>,
}

/// Returns the span that an event is in, whether or not a filter hides the span from the layer.
pub(super) fn span_of<S>(event: &Event<'_>, context: &Context<'_, S>) -> Option<Id>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
{
    if event.is_contextual() {
        return context.current_span().id().cloned();
    }
    // The id of a closed span refers to nothing, and looking it up may panic.
    event.parent().filter(|id| context.exists(id)).cloned()
}

impl Enrichment<'_> {
    /// Returns the id of the span that the event is in, if any.
    ///
    /// Use this instead of `Span::current()`, which finds no span here once the program has a scoped subscriber.
    #[must_use]
    pub fn span(&self) -> Option<&Id> {
        self.span.as_ref()
    }

    /// Returns the subscriber that the event was emitted to, e.g. for `tracing_opentelemetry::get_otel_context`.
    ///
    /// Returns `None` if the layer does not know its subscriber, because a `reload` layer received it later. The closure
    /// runs inside the subscriber: query spans, but emit nothing to it.
    #[must_use]
    pub fn dispatch(&self) -> Option<&Dispatch> {
        self.dispatch.as_ref()
    }

    /// Returns whether the event, a span or this closure gave a value of this name.
    #[must_use]
    pub fn has(&self, name: &str) -> bool {
        match name {
            "severity" => self.values.severity.is_some() || self.values.severity_unclear,
            name => self.values.find(name).is_some() || self.values.has_field(name),
        }
    }

    /// Adds a text.
    pub fn set(&mut self, name: &'static str, value: impl Display) {
        self.add(name, |out, limit| fields::display(out, &value, limit));
    }

    /// Adds a boolean.
    pub fn set_bool(&mut self, name: &'static str, value: bool) {
        self.add_plain(name, |out| fields::boolean(out, value));
    }

    /// Adds an integer. Beyond ±(2^53−1) it is recorded as a text, as are the integers of events.
    pub fn set_i64(&mut self, name: &'static str, value: i64) {
        self.add_plain(name, |out| fields::integer(out, value, value.unsigned_abs()));
    }

    /// Adds an unsigned integer. Beyond 2^53−1 it is recorded as a text, as are the integers of events.
    pub fn set_u64(&mut self, name: &'static str, value: u64) {
        self.add_plain(name, |out| fields::integer(out, value, value));
    }

    fn add_plain(&mut self, name: &'static str, encode: impl FnOnce(&mut Vec<u8>)) {
        self.add(name, |out, _| {
            encode(out);
            None
        });
    }

    fn add(
        &mut self,
        name: &'static str,
        encode: impl FnOnce(&mut Vec<u8>, usize) -> Option<Box<FullValue>>,
    ) {
        let plan = self.plans.of_added(self.capture.id, &self.capture.rules, name);
        if self.has(plan.name) && !self.replaces(&plan) {
            return;
        }
        if let Role::Named(index) = plan.role {
            self.values.forget(index);
        }
        Visitor { plan: self.plan, values: self.values }.planned(&plan, encode);
        if let Role::Named(index) = plan.role {
            self.values.own |= self.values.named.not_blank() & (1 << index);
            self.given |= 1 << index;
        }
    }

    /// Returns whether a member must not be inherited, and was.
    fn replaces(&self, plan: &FieldPlan) -> bool {
        let Role::Named(index) = plan.role else { return false };
        self.capture.rules.explicit & !self.values.own & !self.given & (1 << index) != 0
    }
}
