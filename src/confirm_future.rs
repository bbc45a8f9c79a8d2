//! The future that `confirm_future` returns: counts the events of another future, and then waits for them.

use std::{
    fmt,
    future::Future,
    mem,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use crate::{audit_future::AuditFuture, chain::Receipt, error::Error, log::AuditLog, queue::Scope};

/// The future that [`AuditLog::confirm_future`] returns: another future, and then the wait for its events.
///
/// It borrows nothing of the log and needs no particular runtime. It can be sent to another thread at any time,
/// if the inner future and its output can. The wait bound is measured from when the inner future is done.
///
/// It holds a handle to the log, as [`AuditFuture`] does.
///
/// # Panics
///
/// Panics if it is polled again after it was ready, like every `async` block.
#[must_use = "futures do nothing unless they are awaited"]
pub struct ConfirmFuture<F: Future> {
    log: AuditLog,
    /// The events so far, nested in the scope that was open around the last poll.
    scope: Arc<Scope>,
    stage: Stage<F>,
}

enum Stage<F: Future> {
    Running(Pin<Box<F>>),
    Waiting(F::Output, AuditFuture<Receipt>),
    Done,
}

// Only the boxed future is ever pinned.
impl<F: Future> Unpin for ConfirmFuture<F> {}

impl<F: Future> ConfirmFuture<F> {
    pub(crate) fn new(log: AuditLog, future: F) -> Self {
        Self { log, scope: Scope::new(None), stage: Stage::Running(Box::pin(future)) }
    }
}

impl<F: Future> Future for ConfirmFuture<F> {
    type Output = Result<(F::Output, Receipt), ConfirmError<F::Output>>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let Self { log, scope, stage } = &mut *self;
        if let Stage::Running(_) = stage {
            let output = ready!(log.resume(scope, || stage.run(context)));
            *stage = Stage::Waiting(output, log.receipt_of(Arc::clone(scope)));
        }
        // Taken out, because a result moves the output to the caller.
        match mem::replace(stage, Stage::Done) {
            Stage::Waiting(output, mut receipt) => match Pin::new(&mut receipt).poll(context) {
                Poll::Ready(Ok(receipt)) => Poll::Ready(Ok((output, receipt))),
                Poll::Ready(Err(error)) => Poll::Ready(Err(ConfirmError { output, error })),
                Poll::Pending => {
                    *stage = Stage::Waiting(output, receipt);
                    Poll::Pending
                }
            },
            Stage::Running(_) | Stage::Done => polled_again(),
        }
    }
}

impl<F: Future> Stage<F> {
    /// Polls the future, and drops it when it is done. Both happen inside the scope, so events emitted by the drop
    /// count too, as if the future had been awaited.
    fn run(&mut self, context: &mut Context<'_>) -> Poll<F::Output> {
        let Self::Running(future) = self else { polled_again() };
        let output = ready!(future.as_mut().poll(context));
        *self = Self::Done;
        Poll::Ready(output)
    }
}

#[expect(clippy::panic, reason = "the caller broke the contract of `Future`; pending for ever would hide it")]
fn polled_again() -> ! {
    panic!("a `ConfirmFuture` was polled again after it was ready")
}

impl<F: Future> Drop for ConfirmFuture<F> {
    fn drop(&mut self) {
        let Self { log, scope, stage } = self;
        if let Stage::Running(_) = stage {
            // A guard in the future may emit an event when it is dropped. In the scope, it does not block here.
            log.resume(scope, || *stage = Stage::Done);
            // No caller waits for these events, and in the scope none of them started a sync.
            log.hurry(scope);
        }
    }
}

impl<F: Future> fmt::Debug for ConfirmFuture<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ConfirmFuture").finish_non_exhaustive()
    }
}

/// The error of [`AuditLog::confirm_future`]: the output of the future, and why its events are not confirmed.
///
/// It implements `std::error::Error` for any output, with the message and source of its [`error`](Self::error).
/// In a function that returns [`Error`], `?` converts it.
#[non_exhaustive]
pub struct ConfirmError<T> {
    /// The output of the future. Its work is done, but its events are not known to be durable.
    pub output: T,
    /// The reason; one of the errors of [`AuditLog::confirm`].
    pub error: Error,
}

impl<T> ConfirmError<T> {
    /// Returns the output if the future emitted no audit event, so that there was nothing to confirm.
    ///
    /// Events that a filter hides count as not emitted; [`AuditLog::ensure_attached`] finds such filters.
    ///
    /// # Errors
    ///
    /// Returns `self` unchanged if its error is not [`Error::NothingToConfirm`].
    ///
    /// # Examples
    ///
    /// ```
    /// # fn main() -> Result<(), tracing_audit::Error> {
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let audit = tracing_audit::AuditLog::open(dir.path().join("log"))?;
    /// # let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    /// # runtime.block_on(async {
    /// use tracing_audit::ConfirmError;
    ///
    /// let confirmed = audit.confirm_future(async { "nothing happened" }).await;
    /// let output = confirmed.map(|(output, _receipt)| output).or_else(ConfirmError::allow_nothing)?;
    /// assert_eq!(output, "nothing happened");
    /// # Ok(())
    /// # })
    /// # }
    /// ```
    pub fn allow_nothing(self) -> Result<T, Self> {
        match self.error {
            Error::NothingToConfirm { .. } => Ok(self.output),
            _ => Err(self),
        }
    }
}

impl<T> fmt::Debug for ConfirmError<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Without the output, which need not implement `Debug` and may hold secrets.
        f.debug_struct("ConfirmError").field("error", &self.error).finish_non_exhaustive()
    }
}

impl<T> fmt::Display for ConfirmError<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.error.fmt(f)
    }
}

impl<T> std::error::Error for ConfirmError<T> {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.error.source()
    }
}

impl<T> From<ConfirmError<T>> for Error {
    fn from(refused: ConfirmError<T>) -> Self {
        refused.error
    }
}
