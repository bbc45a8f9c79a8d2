//! What the application adds to each event.

use std::fmt::Display;

use tracing_core::{Dispatch, Event, Subscriber, span::Id};
use tracing_subscriber::{layer::Context, registry::LookupSpan};

use super::{
    Capture,
    fields::{self, FullValue},
    plan::{FieldPlan, Plan, Plans, Role},
    values::{Values, Visitor},
};

/// An audit event that is about to be recorded, as the closure given to
/// [`Builder::enrich`](crate::Builder::enrich) sees it: it adds what neither the event nor its spans say.
///
/// What is there already is left as it is, and so is a name that the closure gave before; but a member that
/// [`Builder::explicit`](crate::Builder::explicit) names takes the place of one that was inherited. Named members such as
/// `actor` are texts; every other name stands under `fields`. Values are redacted and cut like those of the event.
#[derive(Debug)]
pub struct Enrichment<'a> {
    pub(super) capture: &'a Capture,
    pub(super) plan: &'a Plan,
    pub(super) plans: &'a mut Plans,
    pub(super) values: &'a mut Values,
    /// A bit for each named member that the event or the closure gave, as an empty text too.
    pub(super) given: u32,
    pub(super) span: Option<Id>,
    pub(super) dispatch: Option<Dispatch>,
}

/// The span that an event is in, whether or not the layer sees it.
pub(super) fn span_of<S>(event: &Event<'_>, context: &Context<'_, S>) -> Option<Id>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
{
    if event.is_contextual() {
        return context.current_span().id().cloned();
    }
    // The id of a span that has closed names nothing, and whoever looks it up may panic.
    event.parent().filter(|id| context.exists(id)).cloned()
}

impl Enrichment<'_> {
    /// The id of the span that the event is in, if it is in one. `Span::current()` finds nothing here as soon as the
    /// program has a scoped subscriber.
    #[must_use]
    pub fn span(&self) -> Option<&Id> {
        self.span.as_ref()
    }

    /// The subscriber that the event was emitted to, e.g. for `tracing_opentelemetry::get_otel_context`. `None` where
    /// the layer does not know it: in a `reload` layer that was given it later. The closure runs inside the subscriber:
    /// ask this about spans, and do not emit to it.
    #[must_use]
    pub fn dispatch(&self) -> Option<&Dispatch> {
        self.dispatch.as_ref()
    }

    /// Whether the event, a span or this closure gave a value of this name.
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

    /// Adds a truth value.
    pub fn set_bool(&mut self, name: &'static str, value: bool) {
        self.add_plain(name, |out| fields::boolean(out, value));
    }

    /// Adds a whole number. Beyond ±(2^53−1) it stands in the record as a text, as everywhere.
    pub fn set_i64(&mut self, name: &'static str, value: i64) {
        self.add_plain(name, |out| fields::integer(out, value, value.unsigned_abs()));
    }

    /// Adds a whole number that is not negative. Beyond 2^53−1 it stands in the record as a text, as everywhere.
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

    /// Whether a member must not be inherited, and was.
    fn replaces(&self, plan: &FieldPlan) -> bool {
        let Role::Named(index) = plan.role else { return false };
        self.capture.rules.explicit & !self.values.own & !self.given & (1 << index) != 0
    }
}
