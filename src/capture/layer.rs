//! The layer: turns tracing's callbacks into drafts in the queue.

use std::{
    any::Any,
    cell::Cell,
    fmt,
    panic::{AssertUnwindSafe, catch_unwind},
    ptr,
    sync::{Arc, Weak},
};

use tracing_core::{
    Dispatch, Event, Level, Metadata, Subscriber,
    span::{Attributes, Id, Record},
};
use tracing_subscriber::{
    layer::{Context, Layer},
    registry::LookupSpan,
};

use super::{
    Capture, attach,
    candidate::Candidate,
    current_scope,
    enrich::{self, Enrichment},
    fields,
    filter_answer::{self, SubscriberRef},
    payload::{self, EventContext},
    pending,
    plan::{Plan, Plans},
    rules::ACTION,
    spans::{self, Recent},
    thread::{self, Capturing},
    values::{KEPT_BYTES, Values, Visitor},
};
use crate::{
    clock::Timestamp, format::Beginning, gauges::Flag, queue::Draft, severity::Severity, stats::LossReason,
};

/// The layer that turns audit events into records.
///
/// [`AuditLog::layer`](crate::AuditLog::layer) returns it inside its own per-layer filter. Add it to a subscriber
/// like any other layer. It never panics and never emits events. It does not change what other layers see, except in
/// the two cases that [`AuditFilter`](crate::AuditFilter) lists. Dropping it does not close the log.
pub struct AuditLayer {
    capture: Arc<Capture>,
    subscriber: SubscriberRef,
    /// Whether the layer was added to a subscriber, which gives its filter an id. Shared with the filter.
    is_registered: Arc<Flag>,
}

impl fmt::Debug for AuditLayer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AuditLayer").field("rules", &self.capture.rules).finish_non_exhaustive()
    }
}

/// Buffers that a thread keeps from one event to the next, so that an event allocates nothing.
#[derive(Debug, Default)]
struct Scratch {
    plans: Plans,
    values: Values,
    recent: Recent,
    beginning: Beginning,
    payload: Vec<u8>,
}

thread_local! {
    /// Empty while it is in use: code of the application that runs meanwhile can never find it borrowed.
    static SCRATCH: Cell<Option<Box<Scratch>>> = const { Cell::new(None) };
}

impl Scratch {
    /// Takes the thread's buffers, or new ones if they are in use.
    fn take() -> Box<Self> {
        SCRATCH.try_with(Cell::take).ok().flatten().unwrap_or_default()
    }

    fn put_back(mut self: Box<Self>) {
        self.values.shrink();
        if self.payload.capacity() > KEPT_BYTES {
            self.payload = Vec::new();
        }
        // In the destructors of a thread the thread-local is gone, and the buffers are freed.
        SCRATCH.try_with(|scratch| scratch.set(Some(self))).unwrap_or_default();
    }
}

impl AuditLayer {
    pub(super) fn new(capture: Arc<Capture>, is_registered: Arc<Flag>) -> Self {
        Self { capture, subscriber: SubscriberRef::default(), is_registered }
    }

    /// Returns whether this is a layer of the log.
    pub(super) fn is_of(&self, capture: &Capture) -> bool {
        self.capture.id == capture.id
    }

    /// Returns the state that the handles of the log share.
    pub(super) fn handle(&self) -> Option<&Weak<dyn Any + Send + Sync>> {
        self.capture.handle.get()
    }

    /// Returns what identifies this layer among others, as long as it lives.
    fn address(&self) -> usize {
        ptr::from_ref(self).addr()
    }

    fn lose(&self, reason: LossReason, severity: Severity, at: Timestamp) {
        let scope = current_scope::innermost(self.capture.id);
        self.capture.queue.lose(reason, severity, at, scope.as_ref());
    }

    /// Encodes an audit event and queues it. May block until the record is durable.
    fn capture<S>(&self, event: &Event<'_>, context: &Context<'_, S>)
    where
        S: Subscriber + for<'a> LookupSpan<'a>,
    {
        let at = self.capture.queue.wall();
        // An event from the log's own threads, or from code that runs while another one is captured, could make the
        // log wait for itself. It is counted as lost.
        let capturing = if thread::is_own() { None } else { Capturing::begin() };
        let Some(capturing) = capturing else {
            let severity = self.capture.rules.severity_at_a_glance(event);
            return self.lose(LossReason::Reentrant, severity, at);
        };
        let mut scratch = Scratch::take();
        let made = catch_unwind(AssertUnwindSafe(|| self.make_payload(event, context, at, &mut scratch)));
        match made {
            Ok(Some(severity)) => {
                let draft = Draft { payload: &scratch.payload, severity, at };
                let scope = current_scope::innermost(self.capture.id);
                // No lock and no borrow is held here, because this may block.
                self.capture.queue.submit(&draft, scope.as_ref());
            }
            failed => {
                // Dropping a panic's payload would run code of the application again.
                std::mem::forget(failed);
                let severity = self.capture.rules.severity_at_a_glance(event);
                self.lose(LossReason::Panic, severity, at);
            }
        }
        scratch.put_back();
        drop(capturing);
    }

    /// Encodes an event into the scratch buffer, and returns its severity. `None` after a bug: the event is lost.
    fn make_payload<S>(
        &self,
        event: &Event<'_>,
        context: &Context<'_, S>,
        at: Timestamp,
        scratch: &mut Scratch,
    ) -> Option<Severity>
    where
        S: Subscriber + for<'a> LookupSpan<'a>,
    {
        let Capture { id, rules, .. } = &*self.capture;
        let metadata = event.metadata();
        let plan = scratch.plans.of(*id, rules, metadata);
        let values = &mut scratch.values;
        values.clear();
        event.record(&mut Visitor { plan: &plan, values });
        // Noted before anything is inherited or added.
        values.own = values.named.not_blank();
        let given = values.named.known();
        let all_spans =
            spans::inherit(event, context, &self.capture, self.address(), &mut scratch.recent, values);
        let enrich_failed = rules.enrich.is_some() && !self.enrich(event, context, &plan, given, scratch);
        let values = &mut scratch.values;
        let level = *metadata.level();
        let target = values.log_target();
        let severity = self.severity(&plan, level, target.unwrap_or(metadata.target()), values);
        let mut bridged = Vec::new();
        let origin = match target {
            None => &plan.origin,
            Some(target) => {
                fields::write_origin(&mut bridged, target, values.log_module());
                bridged.as_slice()
            }
        };
        let explicit = rules.explicit;
        let event_context =
            EventContext { at, severity, level, origin, spans_omitted: !all_spans, enrich_failed, explicit };
        payload::write(&mut scratch.payload, &mut scratch.beginning, &event_context, values)?;
        Some(severity)
    }

    /// Calls the application's closure that adds to events. Returns whether it returned without a panic.
    #[inline(never)]
    fn enrich<S>(
        &self,
        event: &Event<'_>,
        context: &Context<'_, S>,
        plan: &Plan,
        given: u32,
        scratch: &mut Scratch,
    ) -> bool
    where
        S: Subscriber + for<'a> LookupSpan<'a>,
    {
        let Some(enrich) = &self.capture.rules.enrich else { return true };
        let Scratch { plans, values, .. } = scratch;
        let (span, dispatch) = (enrich::span_of(event, context), self.subscriber.dispatch());
        let mut enrichment =
            Enrichment { capture: &self.capture, plan, plans, values, given, span, dispatch };
        let result = catch_unwind(AssertUnwindSafe(|| enrich(&mut enrichment)));
        drop(enrichment);
        let is_complete = result.is_ok();
        // Dropping a panic's payload would run code of the application again.
        result.unwrap_or_else(std::mem::forget);
        is_complete
    }

    /// Decides the severity by the first that applies: the event's field `severity`, the classifier, the critical actions,
    /// the level.
    fn severity(&self, plan: &Plan, level: Level, target: &str, values: &Values) -> Severity {
        let rules = &self.capture.rules;
        if let Some(severity) = values.severity {
            return severity;
        }
        if let Some(classify) = &rules.classify {
            let candidate = Candidate::new(level, target, values);
            match catch_unwind(AssertUnwindSafe(|| classify(&candidate))) {
                Ok(Some(severity)) => return severity,
                Ok(None) => {}
                Err(panic) => {
                    // Without the classifier's answer the event is not known to be harmless.
                    std::mem::forget(panic);
                    return Severity::Critical;
                }
            }
        }
        let is_critical = values.named.get(ACTION).is_some_and(|member| {
            let judge = || values.text(member).is_some_and(|action| rules.critical.contains(&action));
            // Without its JSON, the action is not known to be harmless.
            values.json(member).is_none_or(|json| plan.is_critical(json, judge))
        });
        if is_critical || level == Level::ERROR { Severity::Critical } else { Severity::Routine }
    }

    /// Encodes what events inherit from a span, and stores it with the span.
    fn keep_inherited<S>(
        &self,
        metadata: &'static Metadata<'static>,
        id: &Id,
        context: &Context<'_, S>,
        record: impl FnOnce(&mut Visitor<'_>),
    ) where
        S: Subscriber + for<'a> LookupSpan<'a>,
    {
        if !self.capture.rules.listens_to(metadata) {
            return;
        }
        let mut scratch = Scratch::take();
        let plan: std::rc::Rc<Plan> = scratch.plans.of(self.capture.id, &self.capture.rules, metadata);
        if plan.has_inherited {
            // An audit event from a `Debug` of a span's field is counted as lost, like one from a field of an event.
            let capturing = Capturing::begin();
            scratch.values.clear();
            record(&mut Visitor { plan: &plan, values: &mut scratch.values });
            // The extensions are locked only after the values were encoded: a `Debug` may use spans itself.
            if let Some(span) = context.span(id) {
                spans::keep(&span, self.capture.id, &scratch.values);
            }
            drop(capturing);
        }
        scratch.put_back();
    }
}

impl<S> Layer<S> for AuditLayer
where
    S: Subscriber + for<'a> LookupSpan<'a>,
{
    // `tracing-subscriber` calls this, through `Filtered`, when the layer is added to a subscriber. There is no such call
    // for a layer that a `reload` receives later.
    fn on_layer(&mut self, _: &mut S) {
        self.is_registered.set(true);
    }

    fn on_register_dispatch(&self, dispatch: &Dispatch) {
        self.subscriber.set(dispatch);
        // The subscriber is complete now, and installed in a moment.
        self.capture.queue.notifier.attached(attach::has_subscriber);
    }

    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, context: Context<'_, S>) {
        filter_answer::used();
        quietly(|| {
            self.keep_inherited(attributes.metadata(), id, &context, |visitor| attributes.record(visitor));
        });
    }

    fn on_record(&self, id: &Id, values: &Record<'_>, context: Context<'_, S>) {
        quietly(|| {
            if let Some(metadata) = context.metadata(id) {
                self.keep_inherited(metadata, id, &context, |visitor| values.record(visitor));
            }
        });
    }

    fn event_enabled(&self, event: &Event<'_>, _: Context<'_, S>) -> bool {
        if attach::met_layer(event.metadata(), self.capture.id) {
            // The probe has arrived. The veto keeps it from every layer.
            return false;
        }
        quietly(|| {
            // Formatting the tag can itself emit events and overwrite answers, so they are renewed after that.
            let is_audit = self.capture.rules.is_audit(event);
            self.subscriber.renew(event, self, is_audit);
            let address = ptr::from_ref(event).addr();
            self.capture.count_vetoed(pending::announced(address, self.address()));
            if is_audit && !attach::is_probe(event.metadata()) {
                let is_critical = self.expects_critical(event);
                pending::expect(address, self.address(), is_critical);
            }
        });
        true
    }

    fn on_event(&self, event: &Event<'_>, context: Context<'_, S>) {
        filter_answer::used();
        let asked = filter_answer::times_asked();
        let mut is_audit = false;
        quietly(|| {
            let address = ptr::from_ref(event).addr();
            // Only audit events are announced, so an announced event need not be examined again.
            is_audit = pending::came_alone(address, self.address());
            // Otherwise this is no audit event, or one of several that are pending, or one that found no room among them.
            if !is_audit && self.capture.rules.is_audit(event) && !attach::is_probe(event.metadata()) {
                self.capture.count_vetoed(pending::came(address, self.address()));
                is_audit = true;
            }
            if is_audit {
                self.capture(event, &context);
            }
        });
        // Code of the application has emitted something else meanwhile, and overwritten answers that the layers further
        // out, which receive this event next, still need.
        if filter_answer::times_asked() != asked {
            quietly(|| self.subscriber.ask_again(event.metadata(), self, is_audit));
        }
    }
}

impl AuditLayer {
    /// Estimates the severity of an event that is announced. Examines its values only once events are known to be vetoed,
    /// because only the count of vetoed events needs it.
    fn expects_critical(&self, event: &Event<'_>) -> bool {
        if self.capture.veto_told.get() {
            self.capture.rules.severity_at_a_glance(event) == Severity::Critical
        } else {
            *event.metadata().level() == Level::ERROR
        }
    }
}

/// Runs a callback and catches its panic, which would otherwise end a thread of the application.
fn quietly(callback: impl FnOnce()) {
    if let Err(panic) = catch_unwind(AssertUnwindSafe(callback)) {
        std::mem::forget(panic);
    }
}
