//! Confirms that emitted events are durable.

use std::{future::Future, sync::Arc};

use super::{AuditLog, Handle};
use crate::{
    audit_future::AuditFuture,
    capture,
    chain::Receipt,
    confirm_future::ConfirmFuture,
    error::Error,
    queue::{Scope, Stage, Waiter},
};

impl AuditLog {
    /// Runs a closure, and blocks until every audit event that it emitted on this thread is durable.
    ///
    /// Works in every flush mode, for events in any span. While the closure runs, macros only queue their
    /// events; one sync then serves all of them. Blocks for at most [`Builder::wait_bound`](crate::Builder::wait_bound)
    /// after the closure has returned. The receipt names the last event. Events of an inner `confirm` count for
    /// the outer one too.
    ///
    /// # Errors
    ///
    /// Refuse an action that must not happen unrecorded on any of these:
    ///
    /// - [`Error::NothingToConfirm`] if no event reached the log.
    /// - [`Error::Lost`] if an event could not be recorded, also because the log had been closed.
    /// - [`Error::Unconfirmed`] if the wait bound passed; returned at once while the log is stalled. The records
    ///   may still become durable.
    /// - [`Error::Closed`] if the log's writer ended before it reached the events.
    /// - [`Error::Forked`] if the process was forked after the events were accepted.
    ///
    /// Records of the closure may become durable after such an error. A chained `unconfirmed` record then names
    /// them before anything newer is acknowledged; see [`Record::is_unconfirmed`](crate::Record::is_unconfirmed).
    /// It does not name records that were durable before the error, and there is none if the process ends first.
    /// So record the attempt before the action, and the outcome after it.
    ///
    /// # Examples
    ///
    /// ```no_run
    /// # fn export(_key: u32) {}
    /// # fn main() -> Result<(), tracing_audit::Error> {
    /// # let audit = tracing_audit::AuditLog::open("audit-log")?;
    /// let receipt = audit.confirm(|| {
    ///     tracing::info!(target: "audit", action = "key.export", actor = "mia", outcome = "attempted");
    /// })?; // On an error, the export does not happen.
    /// export(7);
    /// tracing::info!(target: "audit", action = "key.export", actor = "mia", outcome = "done", attempt = %receipt);
    /// # Ok(())
    /// # }
    /// ```
    pub fn confirm(&self, emit: impl FnOnce()) -> Result<Receipt, Error> {
        let scope = self.handle.run_in_scope(emit);
        self.handle.check_recorded(&scope)?;
        let waited = self.handle.queue.wait_until_durable(scope.counts().last, Waiter::Scope(&scope));
        self.handle.receipt(&scope, waited.is_ok())
    }

    /// Confirms like [`confirm`](Self::confirm), as a task: the closure runs during the call, and the future waits.
    ///
    /// The future needs no particular runtime. If it is dropped before it is ready, it has reported no error,
    /// so no `unconfirmed` record names the events.
    ///
    /// # Errors
    ///
    /// The same as `confirm`, when awaited.
    pub fn confirm_async(&self, emit: impl FnOnce()) -> AuditFuture<Receipt> {
        self.receipt_of(self.handle.run_in_scope(emit))
    }

    /// Runs a future, and then waits as a task until every audit event that it emitted is durable.
    ///
    /// Returns the output of the future, and a receipt that names the last event. Works in every flush mode, and
    /// needs no particular runtime.
    ///
    /// # Blocking
    ///
    /// While the future is polled, on whatever thread, macros only queue their events. Elsewhere in a task, a
    /// critical event blocks the executor's thread for its sync; here it does not. One sync, with one wait bound,
    /// serves all events when the future is done. Until then they are synced with the batches of the flush mode.
    /// Only a full queue still blocks, as [`OnFull`](crate::OnFull) describes.
    ///
    /// # Which events count
    ///
    /// Every audit event counts that this log captures on the polling thread during a poll. That includes events
    /// in any span, from any library, and from futures that are awaited or joined inside. Events of a
    /// [`confirm`](Self::confirm) or `confirm_future` that runs inside count for this one too. Futures that are
    /// polled in turn on one thread do not mix their events.
    ///
    /// Events of spawned tasks, of `spawn_blocking` and of other threads do not count, because this future does
    /// not poll them. Give them a `confirm_future` or `confirm` of their own.
    ///
    /// # Cancellation
    ///
    /// If the returned future is dropped before it is done, it has reported no error, so no `unconfirmed` record
    /// names the events. The events stay recorded, and so do those that are emitted while the future is dropped.
    /// Their sync begins at once, and nothing waits for it. The same holds if the future panics: the panic is
    /// passed on.
    ///
    /// # Errors
    ///
    /// When awaited, a [`ConfirmError`](crate::ConfirmError) with the output and one of the errors of `confirm`.
    /// [`Error::NothingToConfirm`] is among them. If a future may emit no event, such as a request that changes
    /// nothing, accept that with [`ConfirmError::allow_nothing`](crate::ConfirmError::allow_nothing).
    ///
    /// By then the future has done its work. If an action must not happen unrecorded, confirm the attempt inside
    /// the future, before the action, with [`confirm_async`](Self::confirm_async).
    ///
    /// # Panics
    ///
    /// Panics if it is polled again after it was ready, like every `async` block.
    ///
    /// # Examples
    ///
    /// A server answers once the records of the request are durable, and refuses otherwise:
    ///
    /// ```no_run
    /// use tracing_audit::{AuditLog, ConfirmError};
    ///
    /// # struct Response;
    /// # impl Response { fn unavailable(_: &tracing_audit::Error) -> Self { Self } }
    /// # async fn handle(_path: &str) -> Response { Response }
    /// async fn answer(audit: &AuditLog, path: &str) -> Response {
    ///     let confirmed = audit.confirm_future(handle(path)).await;
    ///     confirmed
    ///         .map(|(response, _receipt)| response)
    ///         .or_else(ConfirmError::allow_nothing)
    ///         .unwrap_or_else(|refused| Response::unavailable(&refused.error))
    /// }
    /// ```
    pub fn confirm_future<F: Future>(&self, future: F) -> ConfirmFuture<F> {
        ConfirmFuture::new(self.clone(), future)
    }

    /// Runs a closure inside a scope that may have been open before: one poll of a future.
    pub(crate) fn resume<T>(&self, scope: &mut Arc<Scope>, run: impl FnOnce() -> T) -> T {
        let capture = &self.handle.capture;
        let guard = capture::resume_scope(capture, scope);
        let value = run();
        guard.settle(capture);
        value
    }

    /// Waits for the events of a scope, to which no more are added.
    pub(crate) fn receipt_of(&self, scope: Arc<Scope>) -> AuditFuture<Receipt> {
        let log = self.clone();
        AuditFuture::new(async move {
            log.handle.check_recorded(&scope)?;
            let in_time = log.handle.wait_async(scope.counts().last, Waiter::Scope(&scope)).await;
            log.handle.receipt(&scope, in_time)
        })
    }

    /// Requests a sync for the events of a scope, without waiting for it.
    pub(crate) fn hurry(&self, scope: &Scope) {
        self.handle.queue.hurry(scope.counts().last);
    }
}

impl Handle {
    fn run_in_scope(&self, emit: impl FnOnce()) -> Arc<Scope> {
        let guard = capture::confirm_scope(&self.capture);
        emit();
        guard.settle(&self.capture);
        Arc::clone(guard.scope())
    }

    /// Checks that every event of a scope was accepted. If one was lost, the scope as a whole is not confirmed.
    fn check_recorded(&self, scope: &Scope) -> Result<(), Error> {
        let counts = scope.counts();
        let path = || self.path.clone();
        if counts.lost > 0 {
            if counts.accepted > 0 {
                self.queue.refuse_rest(scope);
            }
            return Err(Error::Lost { path: path(), lost: counts.lost, reason: counts.reason });
        }
        if counts.accepted == 0 {
            return Err(Error::NothingToConfirm { path: path() });
        }
        if self.queue.is_forked() {
            // Only the parent's writer knows what became of events that were accepted before the fork.
            return Err(Error::Forked { path: path() });
        }
        Ok(())
    }

    /// Turns the result of the wait into what `confirm` returns.
    fn receipt(&self, scope: &Scope, in_time: bool) -> Result<Receipt, Error> {
        // Checked again: accepted events can be lost while the log closes.
        self.check_recorded(scope)?;
        let counts = scope.counts();
        // Once the wait has failed, the answer is `Unconfirmed`, even if the events became durable since: an
        // `unconfirmed` record may name them already.
        match counts.durable.filter(|(ticket, _)| in_time && *ticket == counts.last) {
            Some((_, head)) => Ok(Receipt(head)),
            None if in_time && self.queue.stage() == Stage::Closed => Err(self.closed()),
            None => Err(self.unconfirmed()),
        }
    }
}
