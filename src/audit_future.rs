//! The future that the `_async` methods of a log return.

use std::{
    fmt,
    future::Future,
    pin::Pin,
    task::{Context, Poll},
};

use crate::error::Error;

/// The future returned by every method of [`AuditLog`](crate::AuditLog) whose name ends in `_async`.
///
/// It borrows nothing, so it can be spawned, and it needs no particular runtime. The call itself starts the
/// operation; the future only waits for it. Dropping the future ends the wait and nothing else.
///
/// The wait bound is measured from the first poll. A timer thread enforces it; the first future of a log to be awaited
/// starts that thread. If the system refuses to start it, the waits of futures have no bound.
///
/// The future holds a handle to the log. Dropping the last handle closes the log and blocks the thread for at
/// most the wait bound plus 100 ms. On a runtime, end with [`close_async`](crate::AuditLog::close_async), or keep a handle
/// outside of tasks.
///
/// # Panics
///
/// Panics if it is polled again after it was ready, like every `async` block.
#[must_use = "the operation has started, but its result is known only when the future is awaited"]
pub struct AuditFuture<T>(Pin<Box<dyn Future<Output = Result<T, Error>> + Send>>);

impl<T> AuditFuture<T> {
    pub(crate) fn new(future: impl Future<Output = Result<T, Error>> + Send + 'static) -> Self {
        Self(Box::pin(future))
    }
}

impl<T> Future for AuditFuture<T> {
    type Output = Result<T, Error>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        self.0.as_mut().poll(context)
    }
}

impl<T> fmt::Debug for AuditFuture<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AuditFuture").finish_non_exhaustive()
    }
}
