//! The runtime of an archive, which can be used on a thread of another one.

use std::future::Future;

use tokio::runtime::{Builder, Runtime};

use super::setup;
use crate::{on_runtime, sink::SinkError};

#[derive(Debug)]
pub(super) struct OwnRuntime {
    /// `None` only during drop.
    inner: Option<Runtime>,
}

impl OwnRuntime {
    pub(super) fn new() -> Result<Self, SinkError> {
        let runtime = Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(|error| setup(format!("cannot prepare to connect: {error}")))?;
        Ok(Self { inner: Some(runtime) })
    }

    /// Runs a future to completion.
    pub(super) fn block_on<T: Send>(
        &self,
        future: impl Future<Output = Result<T, SinkError>> + Send,
    ) -> Result<T, SinkError> {
        let runtime = self.inner.as_ref().ok_or_else(|| setup("the archive is closed".to_owned()))?;
        on_runtime::block_on(runtime, future)
    }
}

impl Drop for OwnRuntime {
    fn drop(&mut self) {
        // A plain drop would wait for a pending name lookup, and would panic on a thread of another runtime.
        if let Some(runtime) = self.inner.take() {
            runtime.shutdown_background();
        }
    }
}
