//! What `confirm_future` returns: a future that counts what another one emits, and then waits for it.

use std::{
    fmt,
    future::Future,
    mem,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use crate::{audit_future::AuditFuture, chain::Receipt, error::Error, log::AuditLog, queue::Scope};

/// A future, and the wait for what it emits: what [`AuditLog::confirm_future`] returns.
///
/// It borrows nothing of the log, can be sent to another thread where the future and its output can, at any time, and
/// needs no particular runtime. A wait bound begins when the future is done.
///
/// It keeps a handle on the log, as [`AuditFuture`] does.
///
/// # Panics
///
/// As every `async` block, when it is polled again after it was ready.
#[must_use = "futures do nothing unless they are awaited"]
pub struct ConfirmFuture<F: Future> {
    log: AuditLog,
    /// The events so far, inside of what was open around the last poll.
    scope: Arc<Scope>,
    stage: Stage<F>,
}

enum Stage<F: Future> {
    Running(Pin<Box<F>>),
    Waiting(F::Output, AuditFuture<Receipt>),
    Done,
}

// Nothing in it is pinned but what is in a box.
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
    /// Polls the future, and drops it when it is done: what it emits then counts too, as if it had been awaited.
    fn run(&mut self, context: &mut Context<'_>) -> Poll<F::Output> {
        let Self::Running(future) = self else { polled_again() };
        let output = ready!(future.as_mut().poll(context));
        *self = Self::Done;
        Poll::Ready(output)
    }
}

#[expect(
    clippy::panic,
    reason = "whoever polled it would wait for ever, or take something else for the output"
)]
fn polled_again() -> ! {
    panic!("a `ConfirmFuture` was polled again after it was ready")
}

impl<F: Future> Drop for ConfirmFuture<F> {
    fn drop(&mut self) {
        let Self { log, scope, stage } = self;
        if let Stage::Running(_) = stage {
            // A guard in the future may emit as it goes, and must not hold the thread either.
            log.resume(scope, || *stage = Stage::Done);
            // Nobody will ask for these any more.
            log.hurry(scope);
        }
    }
}

impl<F: Future> fmt::Debug for ConfirmFuture<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ConfirmFuture").finish_non_exhaustive()
    }
}

/// What [`AuditLog::confirm_future`] returns when not everything is known to be durable that the future emitted: the
/// output, and the reason.
///
/// It is an error that says what its [`error`](Self::error) says, whatever the output is, and turns into it with `?`
/// where an [`Error`] is returned.
#[non_exhaustive]
pub struct ConfirmError<T> {
    /// What the future came to. Its work is done, although it is not known to be on record.
    pub output: T,
    /// Why, as [`AuditLog::confirm`] says it.
    pub error: Error,
}

impl<T> ConfirmError<T> {
    /// The output, if the future emitted no audit event: there was nothing to confirm. Otherwise the error again.
    ///
    /// Events that a filter hides are not seen here either: [`AuditLog::ensure_attached`] finds such filters.
    ///
    /// # Errors
    ///
    /// What it was called on, where its error is not [`Error::NothingToConfirm`].
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
        // Nothing of the output, which may be anything.
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
