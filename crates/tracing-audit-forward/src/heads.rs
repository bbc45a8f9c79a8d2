//! Wakes a forwarder when more of the log becomes durable.

use std::{
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, Wake, Waker},
    time::Duration,
};

use tracing_audit::{AuditFuture, AuditLog, Head};

use crate::forwarder::Shared;

/// A wait ends after this time, and is begun again.
const WAIT: Duration = Duration::from_secs(3600);

/// Watches the durable head of a log, and wakes the forwarder when it moves.
pub(crate) struct HeadWatch {
    audit: AuditLog,
    head: Head,
    waker: Waker,
    waiting: Option<AuditFuture<Head>>,
}

/// Wakes the thread of a forwarder.
struct Wakeup(Arc<Shared>);

impl Wake for Wakeup {
    fn wake(self: Arc<Self>) {
        // Set under the lock under which `Shared::wait` checks it, so a wake-up just before the wait is
        // not lost.
        self.0.lock().is_woken = true;
        self.0.changed.notify_all();
    }
}

impl HeadWatch {
    pub(crate) fn new(audit: AuditLog, shared: &Arc<Shared>) -> Self {
        let waker = Waker::from(Arc::new(Wakeup(Arc::clone(shared))));
        Self { head: audit.head(), audit, waker, waiting: None }
    }

    /// Returns the current durable head.
    pub(crate) fn head(&mut self) -> Head {
        self.head = self.audit.head();
        self.head
    }

    /// Arms the wake-up: from now on, a head other than the one last returned wakes the forwarder.
    pub(crate) fn arm(&mut self) {
        let mut context = Context::from_waker(&self.waker);
        // A wait that was begun earlier may complete with a head that was returned since.
        for begun in [self.waiting.take(), None] {
            let mut waiting = begun.unwrap_or_else(|| self.audit.next_head_async(self.head, WAIT));
            match Pin::new(&mut waiting).poll(&mut context) {
                Poll::Pending => {
                    self.waiting = Some(waiting);
                    return;
                }
                Poll::Ready(Ok(now)) if now != self.head => return self.waker.wake_by_ref(),
                // That head is known already, or the log is closed.
                Poll::Ready(_) => {}
            }
        }
    }
}
