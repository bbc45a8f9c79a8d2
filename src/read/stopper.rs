//! Ends a reading from another thread.

use std::{
    fmt,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

/// Ends a reading that follows a log, from any thread; see [`ReadItems::stopper`](crate::ReadItems::stopper). Cheap to
/// clone.
#[derive(Clone, Default)]
pub struct Stopper(Arc<Shared>);

#[derive(Default)]
struct Shared {
    /// Whether the reading was told to stop. Held for the length of one look by the reader and by who stops it.
    is_stopped: Mutex<bool>,
    bell: Condvar,
}

impl fmt::Debug for Stopper {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Stopper").field("is_stopped", &self.is_stopped()).finish()
    }
}

impl Stopper {
    /// Ends the reading: a thread that waits for the next item gets `None` at once, one that is looking for a record that
    /// is wanted once it has looked, and everybody after it.
    #[doc(alias = "cancel")]
    pub fn stop(&self) {
        *self.lock() = true;
        self.0.bell.notify_all();
    }

    /// Whether the reading was told to stop.
    #[must_use]
    pub fn is_stopped(&self) -> bool {
        *self.lock()
    }

    /// Sleeps for a while, or until it is stopped. Returns whether it was.
    pub(super) fn sleep(&self, pause: Duration) -> bool {
        let waited = self.0.bell.wait_timeout_while(self.lock(), pause, |is_stopped| !*is_stopped);
        *waited.unwrap_or_else(PoisonError::into_inner).0
    }

    fn lock(&self) -> MutexGuard<'_, bool> {
        self.0.is_stopped.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
