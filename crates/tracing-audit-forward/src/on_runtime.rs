//! Blocking calls on the runtime of a sink.

use std::{future::Future, panic, thread};

use tokio::runtime::{Handle, Runtime};

/// Runs a future to completion. If the caller is on a thread of another runtime, which must not be blocked,
/// it runs on a separate thread.
pub(crate) fn block_on<F>(runtime: &Runtime, future: F) -> F::Output
where
    F: Future + Send,
    F::Output: Send,
{
    if Handle::try_current().is_err() {
        return runtime.block_on(future);
    }
    let run = || runtime.block_on(future);
    thread::scope(|scope| scope.spawn(run).join().unwrap_or_else(|panicked| panic::resume_unwind(panicked)))
}
