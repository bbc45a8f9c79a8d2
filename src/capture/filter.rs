//! Which callsites the layer wants, and why it says yes to everything later.

use std::{
    fmt, ptr,
    sync::{Arc, atomic::Ordering},
};

use tracing_core::{LevelFilter, Metadata, Subscriber, subscriber::Interest};
use tracing_subscriber::layer::{Context, Filter};

use super::{Capture, attach, filter_answer, rules::Tag};
use crate::gauges::Flag;

/// The filter that [`AuditLog::layer`](crate::AuditLog::layer) wraps its layer in, so that the layer
/// sees audit events whatever other layers want, and they see nothing that they do not want.
///
/// Filters of single layers pass their verdict on in a thread-local that a nested `enabled!` or
/// event overwrites. One that decided by tag there would lose audit events and hand over others. So
/// this one only says which callsites can be of interest; the layer looks at each event itself.
pub struct AuditFilter {
    capture: Arc<Capture>,
    /// Whether its layer was added to a subscriber.
    is_registered: Arc<Flag>,
}

impl fmt::Debug for AuditFilter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AuditFilter").field("level", &self.capture.rules.level).finish_non_exhaustive()
    }
}

impl AuditFilter {
    pub(super) fn new(capture: Arc<Capture>, is_registered: Arc<Flag>) -> Self {
        Self { capture, is_registered }
    }

    fn is_of_interest(&self, metadata: &Metadata<'_>) -> bool {
        let rules = &self.capture.rules;
        if metadata.is_span() { rules.wants_span(metadata) } else { rules.tag_of(metadata) != Tag::None }
    }
}

impl<S: Subscriber> Filter<S> for AuditFilter {
    fn callsite_enabled(&self, metadata: &'static Metadata<'static>) -> Interest {
        attach::met_callsite(metadata, self.capture.id, self.is_registered.get());
        self.capture.registered.fetch_add(1, Ordering::Release);
        // Never `always`: other layers' filters must be asked anew for each event, because what they
        // said last may have been about another one.
        if self.is_of_interest(metadata) { Interest::sometimes() } else { Interest::never() }
    }

    fn enabled(&self, metadata: &Metadata<'_>, _: &Context<'_, S>) -> bool {
        filter_answer::asked(metadata);
        attach::met_filter(metadata, self.capture.id, ptr::from_ref(self).addr());
        true
    }

    fn max_level_hint(&self) -> Option<LevelFilter> {
        let rules = &self.capture.rules;
        Some(LevelFilter::from_level(rules.level.max(rules.lowest_span())))
    }
}
