//! Stops a reader from another thread.

use std::{
    fmt,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

/// Stops a reader that follows a log, from any thread; see [`ReadItems::stopper`](crate::ReadItems::stopper). Cheap to
/// clone.
#[derive(Clone, Default)]
pub struct Stopper(Arc<Shared>);

#[derive(Default)]
struct Shared {
    /// Whether the reader was stopped. The lock is held only while the value is read or set, never while the reader
    /// sleeps.
    is_stopped: Mutex<bool>,
    stopped: Condvar,
}

impl fmt::Debug for Stopper {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Stopper").field("is_stopped", &self.is_stopped()).finish()
    }
}

impl Stopper {
    /// Stops the reader. A thread that waits for the next item gets `None` at once. A thread that is searching for a
    /// wanted record gets `None` when that search ends, and so does every later call.
    #[doc(alias = "cancel")]
    pub fn stop(&self) {
        *self.lock() = true;
        self.0.stopped.notify_all();
    }

    /// Returns whether the reader was stopped.
    #[must_use]
    pub fn is_stopped(&self) -> bool {
        *self.lock()
    }

    /// Sleeps for a while, or until the reader is stopped. Returns whether it was.
    pub(super) fn sleep(&self, pause: Duration) -> bool {
        let waited = self.0.stopped.wait_timeout_while(self.lock(), pause, |is_stopped| !*is_stopped);
        *waited.unwrap_or_else(PoisonError::into_inner).0
    }

    fn lock(&self) -> MutexGuard<'_, bool> {
        self.0.is_stopped.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
