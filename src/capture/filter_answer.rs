//! Tracks whether the last answers of other layers' filters are about the event at hand, and renews them if not.
//!
//! Per-layer filters keep their answer in a thread-local from `enabled` until the event is dispatched. In between,
//! the fields of the event are evaluated. An `enabled!` or an event in that code overwrites the answers; see
//! <https://github.com/tokio-rs/tracing/issues/2704> and <https://github.com/tokio-rs/tracing/issues/2448>.
//!
//! With the audit layer in the stack, `enabled` is called for more callsites than without it. Because of it, other
//! layers would lose events, or receive some that they had refused. So when answers were overwritten, the filters
//! are asked again.
//!
//! Two cases remain that this cannot repair:
//!
//! - Spans. Their fields are evaluated in the same way, but no layer is asked between that and the new span.
//! - A filter in front of this one that had already refused the event by its values (`Filter::event_enabled`). It
//!   then counts as having passed the event. `NotAudit`, the library's own filter of that kind, reads `TAGGED`.

use std::{cell::Cell, ptr, sync::OnceLock};

use tracing_core::{Dispatch, Event, Metadata, dispatcher::WeakDispatch};

use super::{AuditLayer, rules::BRIDGE};

thread_local! {
    /// The address of the metadata that filters were last asked about; zero once their answers were used.
    static LAST: Cell<usize> = const { Cell::new(0) };
    /// How often filters were asked, about anything.
    static ASKED: Cell<u64> = const { Cell::new(0) };
    /// The address of the metadata of a tagged event about which filters are being asked again; else zero.
    static TAGGED: Cell<usize> = const { Cell::new(0) };
}

/// Notes that filters are being asked about something.
#[inline]
pub(super) fn asked(metadata: &Metadata<'_>) {
    LAST.set(ptr::from_ref(metadata).addr());
    ASKED.set(ASKED.get().wrapping_add(1));
}

/// Returns a number that changes whenever filters are asked about anything on this thread.
#[inline]
pub(super) fn times_asked() -> u64 {
    ASKED.get()
}

/// Returns whether filters are being asked again about an event that is known to be tagged by its values.
pub(super) fn is_of_tagged(metadata: &Metadata<'_>) -> bool {
    TAGGED.get() == ptr::from_ref(metadata).addr()
}

/// Notes that the answers were used: the event or span was passed to the layers.
#[inline]
pub(super) fn used() {
    LAST.set(0);
}

/// A reference to the subscriber that a layer is part of.
#[derive(Debug, Default)]
pub(super) struct SubscriberRef {
    /// Weak, because the subscriber owns the layer.
    dispatch: OnceLock<WeakDispatch>,
}

impl SubscriberRef {
    pub(super) fn set(&self, dispatch: &Dispatch) {
        drop(self.dispatch.set(dispatch.downgrade()));
    }

    /// Returns the subscriber, if it has registered itself with the layer.
    pub(super) fn dispatch(&self) -> Option<Dispatch> {
        self.dispatch.get().and_then(WeakDispatch::upgrade)
    }

    /// Asks the filters again if their last answer is not about `event`.
    #[inline]
    pub(super) fn renew(&self, event: &Event<'_>, layer: &AuditLayer, is_tagged: bool) {
        if LAST.get() != ptr::from_ref(event.metadata()).addr() {
            self.ask_again(event.metadata(), layer, is_tagged);
        }
    }

    /// Asks the filters of all layers again about an event.
    #[inline(never)]
    pub(super) fn ask_again(
        &self,
        metadata: &'static Metadata<'static>,
        layer: &AuditLayer,
        is_tagged: bool,
    ) {
        // For records of the `log` crate, `enabled` gets other metadata than the event has, so a comparison is
        // meaningless. Their arguments are evaluated before `enabled`.
        if metadata.target() == BRIDGE {
            return;
        }
        let Some(dispatch) = self.dispatch() else { return };
        // A layer that cannot be found through the subscriber is inside a `reload` layer. That holds its lock during
        // this call, so asking again could deadlock.
        let is_reachable = dispatch.downcast_ref::<AuditLayer>().is_some_and(|found| ptr::eq(found, layer));
        if is_reachable {
            TAGGED.set(if is_tagged { ptr::from_ref(metadata).addr() } else { 0 });
            dispatch.enabled(metadata);
            TAGGED.set(0);
        }
    }
}
