//! The filter that keeps audit events away from other layers.

use std::{fmt, sync::Arc};

use tracing_core::{Event, LevelFilter, Metadata, subscriber::Interest};
use tracing_subscriber::layer::{Context, Filter};

use super::{
    Capture, filter_answer,
    rules::{Tag, is_audit_target},
};

/// The filter that [`AuditLog::not_audit`](crate::AuditLog::not_audit) returns, for layers other than the log's own.
///
/// It passes everything except audit events, and spans whose target is `audit` or begins with `audit::`.
#[derive(Clone)]
pub struct NotAudit {
    capture: Arc<Capture>,
}

impl fmt::Debug for NotAudit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NotAudit").finish_non_exhaustive()
    }
}

impl NotAudit {
    pub(crate) fn new(capture: Arc<Capture>) -> Self {
        Self { capture }
    }

    /// Returns what is known about the events or spans of a callsite. A span is tagged only by its target.
    fn tag_of(&self, metadata: &Metadata<'_>) -> Tag {
        if !metadata.is_span() {
            self.capture.rules.tag_of(metadata)
        } else if is_audit_target(metadata.target()) {
            Tag::Target
        } else {
            Tag::None
        }
    }
}

impl<S> Filter<S> for NotAudit {
    fn callsite_enabled(&self, metadata: &'static Metadata<'static>) -> Interest {
        match self.tag_of(metadata) {
            Tag::None => Interest::always(),
            Tag::Values => Interest::sometimes(),
            Tag::Target => Interest::never(),
        }
    }

    fn enabled(&self, metadata: &Metadata<'_>, _: &Context<'_, S>) -> bool {
        match self.tag_of(metadata) {
            Tag::None => true,
            // Normally `event_enabled` decides by the values. If filters are asked again after that, this must repeat
            // its decision.
            Tag::Values => !filter_answer::is_of_tagged(metadata),
            Tag::Target => false,
        }
    }

    fn event_enabled(&self, event: &Event<'_>, _: &Context<'_, S>) -> bool {
        !self.capture.rules.is_audit(event)
    }

    /// Returns `TRACE`, the hint for all levels. Without a hint, `FilterExt::and` would drop the other filter's hint.
    fn max_level_hint(&self) -> Option<LevelFilter> {
        Some(LevelFilter::TRACE)
    }
}
