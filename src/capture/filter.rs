//! The per-layer filter: decides which callsites are of interest, and enables every event of those.

use std::{
    fmt, ptr,
    sync::{Arc, atomic::Ordering},
};

use tracing_core::{LevelFilter, Metadata, Subscriber, subscriber::Interest};
use tracing_subscriber::layer::{Context, Filter};

use super::{Capture, attach, filter_answer, rules::Tag};
use crate::gauges::Flag;

/// The per-layer filter in which [`AuditLog::layer`](crate::AuditLog::layer) wraps its layer.
///
/// With it, the layer receives audit events whatever the filters of other layers decide, and does not affect what
/// those layers receive.
///
/// Per-layer filters keep their answer in a thread-local, which a nested `enabled!` or event overwrites
/// ([tokio-rs/tracing#2704](https://github.com/tokio-rs/tracing/issues/2704)). A filter that decided there by the
/// tag would lose audit events and pass others. So this filter decides only which callsites can be of interest, and
/// the layer examines each event itself.
///
/// If other filters' answers were overwritten, they are asked again. Two cases cannot be repaired:
///
/// - Code in the fields of a span overwrites the answers about the span. Another layer can then miss the span, or
///   receive one that it had refused.
/// - A filter outside of this one had refused an event by its values (`Filter::event_enabled`) and is asked again. Its
///   layer can then receive the event.
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
        // Never `always`. If every filter returned `always`, the macros would skip `enabled`, and the layers would
        // use answers about an earlier event: https://github.com/tokio-rs/tracing/issues/2519.
        if self.is_of_interest(metadata) { Interest::sometimes() } else { Interest::never() }
    }

    fn enabled(&self, metadata: &Metadata<'_>, _: &Context<'_, S>) -> bool {
        // Notes what the answers of this thread are about: the filters of all layers are asked together.
        filter_answer::asked(metadata);
        attach::met_filter(metadata, self.capture.id, ptr::from_ref(self).addr());
        true
    }

    fn max_level_hint(&self) -> Option<LevelFilter> {
        // The more verbose of the two: for `tracing`, a more verbose level is the greater one.
        let rules = &self.capture.rules;
        Some(LevelFilter::from_level(rules.level.max(rules.lowest_span())))
    }
}
