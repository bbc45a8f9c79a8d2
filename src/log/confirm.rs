//! Confirming what was emitted.

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
    /// Runs a closure and waits until every audit event that it emitted on this thread, in any span,
    /// is durable. Works in every flush mode; inside, macros only queue. The receipt names the last
    /// event. An inner `confirm` counts for the outer one too.
    ///
    /// # Errors
    ///
    /// [`Error::NothingToConfirm`] when no event reached the log, [`Error::Lost`] when one could not
    /// be recorded, [`Error::Unconfirmed`] when the wait bound passed (at once while the log is
    /// stalled): the records may still become durable. An action that must not happen unrecorded is
    /// refused on any of them.
    ///
    /// Records of the closure that become durable after such an error are named by a chained `unconfirmed` record, see
    /// [`Record::is_unconfirmed`](crate::Record::is_unconfirmed), before anything newer is acknowledged; those that were
    /// durable before the error are not, nor is anything if the process ends first. So record the attempt before the
    /// act, and the outcome after it.
    ///
    /// # Examples
    ///
    /// ```no_run
    /// # fn export(_key: u32) {}
    /// # fn main() -> Result<(), tracing_audit::Error> {
    /// # let audit = tracing_audit::AuditLog::open("audit-log")?;
    /// let receipt = audit.confirm(|| {
    ///     tracing::info!(target: "audit", action = "key.export", actor = "mia", outcome = "attempted");
    /// })?; // Refused, where this is an error.
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

    /// As [`confirm`](Self::confirm), for tasks: the closure runs at the call, the future waits. It
    /// needs no particular runtime. A future that is dropped told nobody anything: nothing is named.
    ///
    /// # Errors
    ///
    /// As `confirm`, when awaited.
    pub fn confirm_async(&self, emit: impl FnOnce()) -> AuditFuture<Receipt> {
        self.receipt_of(self.handle.run_in_scope(emit))
    }

    /// Runs a future, and then waits as a task until every audit event that it emitted is durable. Returns its output and
    /// a receipt that names the last event. Works in every flush mode, and needs no particular runtime.
    ///
    /// While the future is polled, on whatever thread, macros only queue: a critical event does not hold the thread of the
    /// executor for its sync, as it does elsewhere in a task. One sync, with one bound, serves all events when the future
    /// is done; until then they are synced with the batches of the flush mode. Only a full queue still blocks, as
    /// [`OnFull`](crate::OnFull) says.
    ///
    /// **What counts** is every audit event that this log captures on the polling thread during a poll, in any span, from
    /// any library, and in any future that is awaited or joined inside; a [`confirm`](Self::confirm) or `confirm_future`
    /// that is polled inside counts for this one too. Not what spawned tasks, `spawn_blocking` and other threads emit,
    /// for they are not polled by this future: give them a `confirm_future` or `confirm` of their own. Futures
    /// that are polled in turn on one thread do not mix.
    ///
    /// **Dropped** before it is done, it told nobody anything, and names nothing in an `unconfirmed` record. What the
    /// future emitted stays recorded, what it emits while it is dropped is recorded too, and the sync begins at once;
    /// nobody waits for it. The same holds where the future panics: the panic is passed on.
    ///
    /// # Errors
    ///
    /// When awaited, a [`ConfirmError`](crate::ConfirmError) that has the output and one of the errors of `confirm`.
    /// [`Error::NothingToConfirm`] is among them: where a future may emit nothing, as a request that changes nothing,
    /// [`ConfirmError::allow_nothing`](crate::ConfirmError::allow_nothing) lets it pass.
    ///
    /// What the future did is done then. An action that must not happen unrecorded is confirmed inside, before the act,
    /// with [`confirm_async`](Self::confirm_async).
    ///
    /// # Panics
    ///
    /// When it is polled again after it was ready, as every `async` block.
    ///
    /// # Examples
    ///
    /// A server answers when the records of the request are durable, and refuses otherwise:
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

    /// Runs what counts for a scope, which it may have been before: one poll of a future.
    pub(crate) fn resume<T>(&self, scope: &mut Arc<Scope>, run: impl FnOnce() -> T) -> T {
        let capture = &self.handle.capture;
        let guard = capture::resume_scope(capture, scope);
        let value = run();
        guard.settle(capture);
        value
    }

    /// Waits for the events of a scope, of which there will be no more.
    pub(crate) fn receipt_of(&self, scope: Arc<Scope>) -> AuditFuture<Receipt> {
        let log = self.clone();
        AuditFuture::new(async move {
            log.handle.check_recorded(&scope)?;
            let in_time = log.handle.wait_async(scope.counts().last, Waiter::Scope(&scope)).await;
            log.handle.receipt(&scope, in_time)
        })
    }

    /// Asks for the events of a scope to be durable soon, and waits for nothing.
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

    /// Whether every event of a `confirm` was accepted. Where one was not, the others count for nothing.
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
            // Of what was accepted before the fork, the writer of the parent knows more.
            return Err(Error::Forked { path: path() });
        }
        Ok(())
    }

    /// What `confirm` returns, after its wait.
    fn receipt(&self, scope: &Scope, in_time: bool) -> Result<Receipt, Error> {
        // What was accepted can be lost while the log ends.
        self.check_recorded(scope)?;
        let counts = scope.counts();
        // Who was told that it is not confirmed hears nothing else, whatever the writer did since.
        match counts.durable.filter(|(ticket, _)| in_time && *ticket == counts.last) {
            Some((_, head)) => Ok(Receipt(head)),
            None if in_time && self.queue.stage() == Stage::Closed => Err(self.closed()),
            None => Err(self.unconfirmed()),
        }
    }
}
