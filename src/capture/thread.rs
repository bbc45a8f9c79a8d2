//! What a thread is doing as far as the layer is concerned.

use std::{cell::Cell, marker::PhantomData};

thread_local! {
    // Neither has a destructor, so both can be read in the destructors of other thread-locals.
    static CAPTURING: Cell<bool> = const { Cell::new(false) };
    static OWN: Cell<bool> = const { Cell::new(false) };
}

/// Marks the calling thread as one of the log's own. Audit events from it are counted, not queued:
/// a writer that waited for itself would wait for ever.
pub(crate) fn mark_own_thread() {
    OWN.set(true);
}

#[inline]
pub(super) fn is_own() -> bool {
    OWN.get()
}

/// While it lives, code of the application may be running on behalf of an audit event, and an audit
/// event from that code is counted instead of captured.
#[derive(Debug)]
pub(super) struct Capturing {
    /// It must be dropped on the thread that it was made on.
    _thread: PhantomData<*const ()>,
}

impl Capturing {
    /// `None` when the thread is capturing already.
    #[inline]
    pub(super) fn begin() -> Option<Self> {
        // Made only when it is kept: dropping one ends the capture that is going on.
        if CAPTURING.replace(true) { None } else { Some(Self { _thread: PhantomData }) }
    }
}

impl Drop for Capturing {
    #[inline]
    fn drop(&mut self) {
        CAPTURING.set(false);
    }
}
