//! Knows tracing, never a file: which events are audit events, and what they say.

mod attach;
mod candidate;
mod event;
mod fields;
mod filter;
mod layer;
mod macros;
mod payload;
mod pending;
mod plan;
mod redact;
mod rules;
mod scope;
mod spans;
#[cfg(test)]
mod tests;
mod thread;
mod verdict;

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use tracing_core::Subscriber;
use tracing_subscriber::{filter::Filtered, layer::Layer as _, registry::LookupSpan};

pub(crate) use self::{attach::ensure_attached, rules::Rules, scope::confirm_scope, thread::mark_own_thread};
pub use self::{candidate::Candidate, filter::AuditFilter, layer::AuditLayer};
use crate::{gauges::Flag, queue::Queue};

/// What the layers of one log share.
#[derive(Debug)]
pub(crate) struct Capture {
    /// Names the log in this process; never used again.
    id: u64,
    queue: Arc<Queue>,
    rules: Rules,
    /// Whether it was told that events are vetoed.
    veto_told: Flag,
}

impl Capture {
    pub(crate) fn new(queue: Arc<Queue>, rules: Rules) -> Arc<Self> {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        let id = NEXT.fetch_add(1, Ordering::Relaxed);
        Arc::new(Self { id, queue, rules, veto_told: Flag::default() })
    }
}

/// The layer of a log, inside its own filter.
pub(crate) fn layer<S>(capture: &Arc<Capture>) -> Filtered<AuditLayer, AuditFilter, S>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
{
    AuditLayer::new(Arc::clone(capture)).with_filter(AuditFilter::new(Arc::clone(capture)))
}
