//! Captures audit events: decides which events are audit events, and encodes their values. Knows tracing, never a file.

mod attach;
mod candidate;
mod current;
mod current_scope;
mod enrich;
mod fields;
mod filter;
mod filter_answer;
mod layer;
mod macros;
mod not_audit;
mod payload;
mod pending;
mod plan;
mod redact;
mod rules;
mod spans;
#[cfg(test)]
#[path = "../../testing/capture/mod.rs"]
mod tests;
mod thread;
mod values;

use std::{
    any::Any,
    sync::{
        Arc, OnceLock, Weak,
        atomic::{AtomicU64, Ordering},
    },
};

use tracing_core::Subscriber;
use tracing_subscriber::{filter::Filtered, layer::Layer as _, registry::LookupSpan};

pub(crate) use self::{
    attach::ensure_attached,
    current::current,
    current_scope::{confirm_scope, resume_scope},
    rules::{Rules, named_bit},
    thread::mark_own_thread,
};
pub use self::{
    candidate::Candidate, enrich::Enrichment, filter::AuditFilter, layer::AuditLayer, not_audit::NotAudit,
};
use crate::{
    gauges::Flag,
    queue::Queue,
    severity::Severity,
    stats::{LossReason, NoticeKind},
};
use pending::Vetoed;

/// The state that all layers of one log share.
#[derive(Debug)]
pub(crate) struct Capture {
    /// Identifies the log in this process; never reused.
    id: u64,
    queue: Arc<Queue>,
    rules: Rules,
    /// How often a callsite was registered with one of the layers.
    registered: AtomicU64,
    /// Whether a notice that events are vetoed was given.
    veto_told: Flag,
    /// The handle that `current` returns. Weak, because the log is closed when its last handle is dropped, and a
    /// subscriber may live as long as the process.
    handle: OnceLock<Weak<dyn Any + Send + Sync>>,
}

impl Capture {
    pub(crate) fn new(queue: Arc<Queue>, rules: Rules) -> Arc<Self> {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        let id = NEXT.fetch_add(1, Ordering::Relaxed);
        let (registered, veto_told) = (AtomicU64::new(0), Flag::default());
        Arc::new(Self { id, queue, rules, registered, veto_told, handle: OnceLock::new() })
    }

    /// Sets the state that all handles of the log share. The first call counts.
    pub(crate) fn set_handle(&self, handle: Weak<dyn Any + Send + Sync>) {
        drop(self.handle.set(handle));
    }

    /// Counts events that were announced by `event_enabled` and never came.
    #[inline]
    fn count_vetoed(&self, vetoed: Vetoed) {
        if vetoed != Vetoed::default() {
            self.lose_vetoed(vetoed);
        }
    }

    #[cold]
    fn lose_vetoed(&self, vetoed: Vetoed) {
        let (at, scope) = (self.queue.wall(), current_scope::innermost(self.id));
        for (severity, count) in [(Severity::Critical, vetoed.critical), (Severity::Routine, vetoed.routine)]
        {
            (0..count).for_each(|_| self.queue.lose(LossReason::Vetoed, severity, at, scope.as_ref()));
        }
        if self.veto_told.set(true) {
            let message = "a layer nearer to the registry vetoes audit events in `event_enabled`; \
                           give that layer a filter of its own with `.with_filter(…)`";
            self.queue.notifier.tell(NoticeKind::Vetoed, message);
        }
    }
}

/// Returns a layer of a log, inside its own filter.
pub(crate) fn layer<S>(capture: &Arc<Capture>) -> Filtered<AuditLayer, AuditFilter, S>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
{
    let is_registered = Arc::<Flag>::default();
    let filter = AuditFilter::new(Arc::clone(capture), Arc::clone(&is_registered));
    AuditLayer::new(Arc::clone(capture), is_registered).with_filter(filter)
}
