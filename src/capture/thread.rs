//! The state of a thread that the layer needs: whether it belongs to the log, and whether it is capturing an event.

use std::{cell::Cell, marker::PhantomData};

thread_local! {
    // Neither has a destructor, so both can be read in the destructors of other thread-locals.
    static CAPTURING: Cell<bool> = const { Cell::new(false) };
    static OWN: Cell<bool> = const { Cell::new(false) };
}

/// Marks the calling thread as one of the log's own. Audit events from it are counted as lost instead of queued: a writer
/// that waited for itself would deadlock.
pub(crate) fn mark_own_thread() {
    OWN.set(true);
}

/// Returns whether the calling thread is one of the log's own.
#[inline]
pub(super) fn is_own() -> bool {
    OWN.get()
}

/// A guard that lives while code of the application may run to capture an audit event. An audit event from that code is
/// counted as lost instead of captured.
#[derive(Debug)]
pub(super) struct Capturing {
    /// Not `Send`: it must be dropped on the thread that began it.
    _thread: PhantomData<*const ()>,
}

impl Capturing {
    /// Begins a capture; `None` if the thread is already capturing.
    #[inline]
    pub(super) fn begin() -> Option<Self> {
        // No guard is created in the other case: dropping it would end the outer capture.
        if CAPTURING.replace(true) { None } else { Some(Self { _thread: PhantomData }) }
    }
}

impl Drop for Capturing {
    #[inline]
    fn drop(&mut self) {
        CAPTURING.set(false);
    }
}
