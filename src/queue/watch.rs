//! Waiting for what becomes durable without asking for it.

use std::task::{Poll, Waker};

use super::{Queue, Stage};

/// Somebody who is woken when events become durable, and wants none of them sooner.
#[derive(Debug)]
pub(crate) struct Watch<'a> {
    queue: &'a Queue,
    /// Among all that watch.
    number: Option<u64>,
}

impl Queue {
    pub(crate) fn watch(&self) -> Watch<'_> {
        Watch { queue: self, number: None }
    }
}

impl Watch<'_> {
    /// Ready with what `look` finds, and with nothing where the log is closed; else `waker` is called when more events have
    /// become durable.
    pub(crate) fn poll<T>(&mut self, waker: &Waker, look: impl FnOnce() -> Option<T>) -> Poll<Option<T>> {
        let mut state = self.queue.lock();
        // The writer publishes under the lock, so nothing can slip in between.
        let found = look();
        if found.is_some() || state.stage == Stage::Closed {
            return Poll::Ready(found);
        }
        state.watched += 1;
        let next = state.watched;
        let number = *self.number.get_or_insert(next);
        let before = state.watchers.insert(number, waker.clone());
        // Wakers are code of the application's runtime.
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
