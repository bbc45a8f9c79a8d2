//! Finds the log behind the subscriber of the calling thread.

use std::{
    any::Any,
    sync::{Arc, Weak},
};

use tracing_core::dispatcher;

use super::AuditLayer;

/// Returns the shared state of the log whose layer is in the current subscriber, if the log has handles left.
///
/// If there are several layers, `tracing-subscriber` finds the outermost one, which was added last.
pub(crate) fn current() -> Option<Arc<dyn Any + Send + Sync>> {
    dispatcher::get_default(|dispatch| {
        let layer = dispatch.downcast_ref::<AuditLayer>()?;
        layer.handle().and_then(Weak::upgrade)
    })
}
