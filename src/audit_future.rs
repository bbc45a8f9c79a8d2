//! What the methods of a log return that wait as tasks.

use std::{
    fmt,
    future::Future,
    pin::Pin,
    task::{Context, Poll},
};

use crate::error::Error;

/// A wait for a log, as a future: what every method whose name ends in `_async` returns.
///
/// It borrows nothing, so it can be spawned, and needs no particular runtime. What it waits for was begun by the call
/// itself; dropping it ends the wait and nothing else. A wait bound begins when it is first awaited.
///
/// It keeps a handle on the log. The last handle that is dropped closes the log and blocks its thread, for at most the
/// wait bound: on a runtime, end with [`close_async`](crate::AuditLog::close_async), or keep a handle outside of tasks.
///
/// # Panics
///
/// As every `async` block, when it is polled again after it was ready.
#[must_use = "what was asked for has begun, but only awaiting tells how it ended"]
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
