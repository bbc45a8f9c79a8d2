//! Waits for events to become durable without requesting a sync.

use std::task::{Poll, Waker};

use super::{Queue, Stage};

/// A wait that is woken when any events become durable, and does not hurry them.
#[derive(Debug)]
pub(crate) struct Watch<'a> {
    queue: &'a Queue,
    /// The number among all watchers; `None` before the first poll that is pending.
    number: Option<u64>,
}

impl Queue {
    pub(crate) fn watch(&self) -> Watch<'_> {
        Watch { queue: self, number: None }
    }
}

impl Watch<'_> {
    /// Polls `look`. Ready with what it finds, or with `None` if the log is closed. Otherwise `waker` is called when more
    /// events have become durable.
    pub(crate) fn poll<T>(&mut self, waker: &Waker, look: impl FnOnce() -> Option<T>) -> Poll<Option<T>> {
        let mut state = self.queue.lock();
        // Looked at under the lock under which the writer publishes, so no wake-up is missed.
        let found = look();
        if found.is_some() || state.stage == Stage::Closed {
            return Poll::Ready(found);
        }
        state.watched += 1;
        let next = state.watched;
        let number = *self.number.get_or_insert(next);
        let before = state.watchers.insert(number, waker.clone());
        // Dropping a waker runs code of the application's runtime, which must not happen under the lock.
        drop(state);
        drop(before);
        Poll::Pending
    }
}

impl Drop for Watch<'_> {
    fn drop(&mut self) {
        let watcher = self.number.and_then(|number| self.queue.lock().watchers.remove(&number));
        drop(watcher);
    }
}
