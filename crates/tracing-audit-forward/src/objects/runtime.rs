//! A runtime of an archive's own, which can be used on a thread of another one.

use std::{future::Future, panic, thread};

use tokio::runtime::{Builder, Handle, Runtime};

use super::setup;
use crate::sink::SinkError;

#[derive(Debug)]
pub(super) struct OwnRuntime {
    /// `None` only while this is dropped.
    inner: Option<Runtime>,
}

impl OwnRuntime {
    pub(super) fn new() -> Result<Self, SinkError> {
        let runtime = Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(|error| setup(format!("cannot prepare to connect: {error}")))?;
        Ok(Self { inner: Some(runtime) })
    }

    /// Runs a future to its end. On a thread of another runtime, which must not be blocked in this way, on a thread of its own.
    pub(super) fn block_on<T: Send>(
        &self,
        future: impl Future<Output = Result<T, SinkError>> + Send,
    ) -> Result<T, SinkError> {
        let runtime = self.inner.as_ref().ok_or_else(|| setup("the archive is closed".to_owned()))?;
        if Handle::try_current().is_err() {
            return runtime.block_on(future);
        }
        let run = || runtime.block_on(future);
        thread::scope(|scope| {
            scope.spawn(run).join().unwrap_or_else(|panicked| panic::resume_unwind(panicked))
        })
    }
}

impl Drop for OwnRuntime {
    fn drop(&mut self) {
        // Plainly dropped, a runtime waits for a name that is still being looked up, and panics on a thread of another one.
        if let Some(runtime) = self.inner.take() {
            runtime.shutdown_background();
        }
    }
}
