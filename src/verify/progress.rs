//! The progress of a verification.

use std::{cell::Cell, fmt};

/// A callback that receives the number of bytes checked so far and the total.
pub(super) type Callback = Box<dyn Fn(u64, u64) + Send>;

/// Counts bytes and reports them to the callback.
#[derive(Default)]
pub(super) struct Progress {
    callback: Option<Callback>,
    done: Cell<u64>,
    total: Cell<u64>,
}

impl fmt::Debug for Progress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Progress")
            .field("done", &self.done)
            .field("total", &self.total)
            .finish_non_exhaustive()
    }
}

impl Progress {
    pub(super) fn new(callback: Option<Callback>) -> Self {
        Self { callback, ..Self::default() }
    }

    /// Adds to the total of bytes to read.
    pub(super) fn expect(&self, bytes: u64) {
        self.total.set(self.total.get().saturating_add(bytes));
    }

    pub(super) fn done(&self) -> u64 {
        self.done.get()
    }

    /// Counts bytes that were checked, and calls the callback unless there are none.
    pub(super) fn add(&self, bytes: u64) {
        self.done.set(self.done.get().saturating_add(bytes));
        // A log that is being written is longer at the end than it was at first.
        self.total.set(self.total.get().max(self.done.get()));
        if let Some(callback) = self.callback.as_ref().filter(|_| bytes > 0) {
            callback(self.done.get(), self.total.get());
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;

    #[test]
    fn only_bytes_are_progress_and_the_total_grows_with_them() {
        let calls = Arc::new(Mutex::new(Vec::new()));
        let seen = Arc::clone(&calls);
        let progress =
            Progress::new(Some(Box::new(move |done, total| seen.lock().unwrap().push((done, total)))));
        progress.expect(6);
        progress.expect(4);
        for bytes in [0, 4, 0, 6, 3] {
            progress.add(bytes);
        }
        assert_eq!(*calls.lock().unwrap(), [(4, 10), (10, 10), (13, 13)]);
    }
}
