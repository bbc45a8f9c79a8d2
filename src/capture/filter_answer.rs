//! Whether what the filters of other layers last said is about the event at hand.
//!
//! Filters of single layers leave their verdict in a thread-local between `enabled` and the event.
//! The fields of the event are evaluated in between, and an `enabled!` or an event there leaves
//! verdicts of its own. With the audit layer in the stack more callsites are asked about than
//! without, so others would lose events, or see some that they had refused, because of it. When that
//! happened the filters are asked again.
//!
//! What this cannot mend: spans, whose fields are evaluated in the same way but which are announced
//! to nobody before they are made; and a filter in front of this one that had already refused the
//! event by its values (`Filter::event_enabled`), which is taken to have let it through. Our own filter of that kind,
//! `NotAudit`, is told what it needs to know.

use std::{cell::Cell, ptr, sync::OnceLock};

use tracing_core::{Dispatch, Event, Metadata, dispatcher::WeakDispatch};

use super::{AuditLayer, rules::BRIDGE};

thread_local! {
    /// The address of the metadata that filters were last asked about; zero once used up.
    static LAST: Cell<usize> = const { Cell::new(0) };
    /// How often filters were asked about anything.
    static ASKED: Cell<u64> = const { Cell::new(0) };
    /// The address of the metadata of a tagged event about which filters are being asked again.
    static TAGGED: Cell<usize> = const { Cell::new(0) };
}

/// The filters are being asked about something.
#[inline]
pub(super) fn asked(metadata: &Metadata<'_>) {
    LAST.set(ptr::from_ref(metadata).addr());
    ASKED.set(ASKED.get().wrapping_add(1));
}

/// Changes whenever filters are asked about anything on this thread.
#[inline]
pub(super) fn times_asked() -> u64 {
    ASKED.get()
}

/// Whether filters are being asked again about an event that is known to be tagged by its values.
pub(super) fn is_of_tagged(metadata: &Metadata<'_>) -> bool {
    TAGGED.get() == ptr::from_ref(metadata).addr()
}

/// The verdict was used: the event or span was handed to the layers.
#[inline]
pub(super) fn used() {
    LAST.set(0);
}

/// The subscriber that a layer is part of.
#[derive(Debug, Default)]
pub(super) struct SubscriberRef {
    dispatch: OnceLock<WeakDispatch>,
}

impl SubscriberRef {
    pub(super) fn set(&self, dispatch: &Dispatch) {
        drop(self.dispatch.set(dispatch.downgrade()));
    }

    /// The subscriber, where it has said that the layer is in it.
    pub(super) fn dispatch(&self) -> Option<Dispatch> {
        self.dispatch.get().and_then(WeakDispatch::upgrade)
    }

    /// Asks the filters again if their last verdict is not about `event`.
    #[inline]
    pub(super) fn renew(&self, event: &Event<'_>, layer: &AuditLayer, is_tagged: bool) {
        if LAST.get() != ptr::from_ref(event.metadata()).addr() {
            self.ask_again(event.metadata(), layer, is_tagged);
        }
    }

    #[inline(never)]
    pub(super) fn ask_again(
        &self,
        metadata: &'static Metadata<'static>,
        layer: &AuditLayer,
        is_tagged: bool,
    ) {
        // Records of the `log` crate have different metadata when they are asked about; their
        // arguments are evaluated before that.
        if metadata.target() == BRIDGE {
            return;
        }
        let Some(dispatch) = self.dispatch() else { return };
        // A layer that cannot be reached through the subscriber is inside a `reload` layer, which is
        // locked now: to ask it again could wait for ever.
        let is_reachable = dispatch.downcast_ref::<AuditLayer>().is_some_and(|found| ptr::eq(found, layer));
        if is_reachable {
            TAGGED.set(if is_tagged { ptr::from_ref(metadata).addr() } else { 0 });
            dispatch.enabled(metadata);
            TAGGED.set(0);
        }
    }
}
