//! `AuditLog`: the application's handle to an open log.

mod confirm;

use std::{
    any::Any,
    fmt,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    task::{Poll, Waker},
    thread::JoinHandle,
    time::Duration,
};

use once_cell::sync::OnceCell;
use tracing_core::Subscriber;
use tracing_subscriber::{filter::Filtered, registry::LookupSpan};

use crate::{
    audit_future::AuditFuture,
    builder::Builder,
    capture::{self, AuditFilter, AuditLayer, Capture, NotAudit},
    chain::Head,
    error::Error,
    heads::Heads,
    queue::{Queue, Stage, Ticket, Waiter},
    stats::{Health, LossReason, Recovery, Stats},
    wait::{Timer, block_until},
    wiring::Parts,
};

/// How long dropping the last handle waits for a writer that was ordered to give up.
const GIVE_UP_BOUND: Duration = Duration::from_millis(100);

/// A handle to an open audit log. Cheap to clone; all clones refer to the same log.
///
/// Open a log when the program starts and add its [`layer`](Self::layer) to the subscriber. Then call
/// [`ensure_attached`](Self::ensure_attached), which checks that events reach the log. At the end of the
/// program, [`close`](Self::close) the log.
///
/// Dropping the last handle also flushes and closes the log, but cannot return an error. It blocks for at
/// most [`Builder::wait_bound`], 5 s by default, plus 100 ms if the writer then has to give up what is not
/// durable. The layer does not keep the log open: keep a handle for as long as events are to be recorded.
///
/// # Crashes
///
/// A process that ends without `close` loses the events that were queued but not yet written. The next
/// process that opens the log writes a `recovery` record, because the run did not end cleanly.
/// [`FlushMode`](crate::FlushMode) lists what a killed process and a power cut can lose.
#[derive(Clone)]
#[doc(alias = "tamper-evident")]
#[doc(alias = "audit trail")]
#[must_use = "the log is closed when its last handle is dropped"]
pub struct AuditLog {
    handle: Arc<Handle>,
}

impl fmt::Debug for AuditLog {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Nothing that a lock guards, and no event data.
        f.debug_struct("AuditLog").field("path", &self.handle.path).finish_non_exhaustive()
    }
}

/// The state that all clones share; dropped with the last of them.
struct Handle {
    path: PathBuf,
    queue: Arc<Queue>,
    capture: Arc<Capture>,
    recovery: Recovery,
    first_head: Head,
    heads: Option<Heads>,
    timer: OnceCell<Timer>,
    /// Guards the join handle of the writer's thread, which the first caller to finish closing takes.
    writer: Mutex<Option<JoinHandle<()>>>,
}

impl AuditLog {
    /// Opens the log in a directory with default settings, and creates the directory if it is missing.
    ///
    /// # Errors
    ///
    /// The same as [`Builder::open`].
    pub fn open(dir: impl AsRef<Path>) -> Result<Self, Error> {
        Self::builder(dir).open()
    }

    /// Returns a builder for a log in a directory; [`Builder::open`] opens it.
    pub fn builder(dir: impl AsRef<Path>) -> Builder {
        Builder::new(dir.as_ref())
    }

    /// Wraps a log that was started in its first handle.
    pub(crate) fn of(parts: Parts) -> Self {
        let Parts { path, queue, capture, recovery, first_head, heads, writer } = parts;
        let writer = Mutex::new(Some(writer));
        let timer = OnceCell::new();
        let handle = Arc::new(Handle { path, queue, capture, recovery, first_head, heads, timer, writer });
        let shared: Arc<dyn Any + Send + Sync> = Arc::<Handle>::clone(&handle);
        // Only `current` uses this: the capture outlives the handles, because layers hold it.
        handle.capture.set_handle(Arc::downgrade(&shared));
        Self { handle }
    }

    /// Returns the log behind the calling thread's subscriber, scoped or global.
    ///
    /// With it a library can [`confirm`](Self::confirm) without being passed a log. To emit events, a library
    /// needs only `tracing`.
    ///
    /// The result is a handle like any other: it keeps the log open, so drop it when the work is done. If the
    /// subscriber has layers of several logs, the log whose layer was added last is returned. If those layers are
    /// in one `Vec`, it is the log of the first.
    ///
    /// Returns `None`
    ///
    /// - if there is no subscriber, or it has no layer of a log;
    /// - if the last handle of the log was dropped, which closed it. A log that was closed while handles remain is
    ///   returned, and `confirm` then returns an error;
    /// - if the layer is inside a `tracing_subscriber::reload::Layer`. Its events are recorded, but the layer
    ///   cannot be found there: pass the `AuditLog` on instead. Boxed and optional layers, layers in a `Vec`, and
    ///   filters around the layer, even reloadable ones, are no obstacle;
    /// - inside the callbacks of a layer or subscriber, if the subscriber is a scoped one: it is not the current
    ///   subscriber there.
    ///
    /// # Examples
    ///
    /// ```
    /// use tracing_audit::{AuditLog, Error};
    ///
    /// /// In a library: the key is not handed out unless the attempt is on record.
    /// fn export_key(actor: &str) -> Result<(), Error> {
    ///     let attempt = || tracing::info!(target: "audit", action = "key.export", actor, outcome = "attempted");
    ///     match AuditLog::current() {
    ///         Some(audit) => drop(audit.confirm(attempt)?),
    ///         // The application has no log that can confirm. The library decides whether that is acceptable.
    ///         None => attempt(),
    ///     }
    ///     Ok(())
    /// }
    /// # export_key("mia").unwrap();
    /// ```
    #[must_use]
    pub fn current() -> Option<Self> {
        let handle = capture::current()?.downcast().ok()?;
        Some(Self { handle })
    }

    /// Returns the layer that captures audit events for this log, wrapped in its own per-layer filter.
    ///
    /// Add it to a registry like any other layer. It captures audit events only, and hides nothing from other
    /// layers. To keep audit events out of those, give them the filter [`not_audit`](Self::not_audit). The layer does
    /// not keep the log open.
    #[must_use = "a layer does nothing until it is added to a subscriber"]
    pub fn layer<S>(&self) -> Filtered<AuditLayer, AuditFilter, S>
    where
        S: Subscriber + for<'span> LookupSpan<'span>,
    {
        capture::layer(&self.handle.capture)
    }

    /// Returns a filter that keeps audit events away from other layers: `fmt::layer().with_filter(audit.not_audit())`.
    ///
    /// Redaction applies to this log only. Without the filter, other layers print the same event with every
    /// value in clear text.
    ///
    /// The filter rejects every event that is an audit event for this log, by its target or by the field
    /// `audit`. The log's layer need not be installed. It also rejects spans whose target is `audit` or begins
    /// with `audit::`.
    ///
    /// Combine it with other filters only by `FilterExt::and` of `tracing-subscriber`. Inside `or`, `not` or a
    /// `reload`, its decision about events that are tagged by the field is lost.
    ///
    /// # Examples
    ///
    /// ```no_run
    /// use tracing_subscriber::{EnvFilter, filter::FilterExt, fmt, prelude::*};
    ///
    /// # fn main() -> Result<(), tracing_audit::Error> {
    /// let audit = tracing_audit::AuditLog::open("audit-log")?;
    /// tracing_subscriber::registry()
    ///     .with(fmt::layer().with_filter(audit.not_audit().and(EnvFilter::from_default_env())))
    ///     .with(audit.layer())
    ///     .init();
    /// # Ok(())
    /// # }
    /// ```
    #[must_use = "a filter does nothing until it is given to a layer"]
    pub fn not_audit(&self) -> NotAudit {
        NotAudit::new(Arc::clone(&self.handle.capture))
    }

    /// Checks that audit events, and the spans they inherit from, reach this log through the current subscriber.
    ///
    /// Call it once the subscriber is installed. A global filter that hides audit events hides them from every
    /// layer, and nothing else would report that. The check covers each level from the configured one to
    /// `ERROR`, and that each event arrives exactly once. It describes this moment only: a filter that is
    /// reloaded later can still hide events.
    ///
    /// The check emits probe events, which no layer prints or records. It also rebuilds the interest cache of
    /// `tracing`. Otherwise a call site that was reached too early could stay disabled for good; see
    /// [tokio-rs/tracing#2874](https://github.com/tokio-rs/tracing/issues/2874).
    ///
    /// The current subscriber is that of the calling thread. Inside `with_default`, `set_default` and
    /// `WithSubscriber`, as in a test, that is the scoped one, and otherwise the global one. A scoped subscriber
    /// receives no events of other threads, so an application should install a global one with `init()`.
    ///
    /// # Errors
    ///
    /// - [`Error::NotAttached`] if events of some level, or spans, are hidden. It says which, and how to fix it.
    /// - [`Error::AttachedTwice`] if each event would be recorded more than once.
    /// - [`Error::Forked`] if this process is a child of the one that opened the log.
    pub fn ensure_attached(&self) -> Result<(), Error> {
        self.ensure_attached_for(["audit"])
    }

    /// Checks the same as [`ensure_attached`](Self::ensure_attached) for other targets.
    ///
    /// Examples are `audit::payments`, or the target of a dependency's `log` records. Without any target, the
    /// target `audit` is checked.
    ///
    /// # Errors
    ///
    /// The same as [`ensure_attached`](Self::ensure_attached).
    pub fn ensure_attached_for<I>(&self, targets: I) -> Result<(), Error>
    where
        I: IntoIterator<Item: AsRef<str>>,
    {
        // Collected twice, because the second borrows from the first.
        let targets: Vec<I::Item> = targets.into_iter().collect();
        let targets: Vec<&str> = targets.iter().map(AsRef::as_ref).collect();
        capture::ensure_attached(&self.handle.capture, &self.handle.path, &targets)
    }

    /// Blocks until every event accepted so far is durable, in every flush mode.
    ///
    /// The sync starts at once instead of with the next batch. Blocks for at most [`Builder::wait_bound`].
    ///
    /// # Errors
    ///
    /// - [`Error::Unconfirmed`] if the wait bound passed; returned at once while the log is stalled. The
    ///   records may still become durable.
    /// - [`Error::Closed`] if the log was closed before they were durable.
    /// - [`Error::Forked`] in a forked child.
    pub fn flush(&self) -> Result<(), Error> {
        let ticket = self.handle.accepted()?;
        let waited = self.handle.queue.wait_until_durable(ticket, Waiter::All);
        self.handle.flushed(ticket, waited.is_ok())
    }

    /// Waits like [`flush`](Self::flush), as a task, for every event that was accepted before the call.
    ///
    /// # Errors
    ///
    /// The same as `flush`, when awaited.
    pub fn flush_async(&self) -> AuditFuture<()> {
        let log = self.clone();
        // Taken during the call, so that events emitted between the call and the first poll are not waited for.
        let accepted = self.handle.accepted();
        AuditFuture::new(async move {
            let ticket = accepted?;
            let in_time = log.handle.wait_async(ticket, Waiter::All).await;
            log.handle.flushed(ticket, in_time)
        })
    }

    /// Ends the live segment and begins a new one in the same chain, e.g. before the log is copied.
    ///
    /// Blocks for at most [`Builder::wait_bound`].
    ///
    /// # Errors
    ///
    /// - [`Error::Unconfirmed`] if that took longer than the wait bound. The rotation remains requested.
    /// - [`Error::Closed`] if the log is closed.
    /// - [`Error::Forked`] in a forked child.
    pub fn rotate(&self) -> Result<(), Error> {
        let number = self.handle.ask_rotation()?;
        let queue = &self.handle.queue;
        let rotated = block_until(queue.wait_bound(), |waker| queue.poll_rotated(number, waker));
        self.handle.rotated(rotated)
    }

    /// Rotates like [`rotate`](Self::rotate), and waits as a task: the call requests the rotation.
    ///
    /// # Errors
    ///
    /// The same as `rotate`, when awaited.
    pub fn rotate_async(&self) -> AuditFuture<()> {
        let log = self.clone();
        let asked = self.handle.ask_rotation();
        AuditFuture::new(async move {
            let number = asked?;
            let queue = &log.handle.queue;
            let poll = |waker: &Waker| queue.poll_rotated(number, waker);
            let rotated = log.handle.bounded(queue.wait_bound(), poll).await;
            log.handle.rotated(rotated)
        })
    }

    /// Returns the durable head: the last durable record of the chain that this log writes.
    ///
    /// A head that is stored elsewhere makes a cut or rewritten log detectable. [`Builder::on_head`] passes
    /// heads to the application regularly. In a forked child, this is the head from when the log was opened.
    #[must_use]
    pub fn head(&self) -> Head {
        self.handle.head()
    }

    /// Returns the current state of the log. If several states apply, returns the worst one, in the order of
    /// [`Health`].
    ///
    /// In a forked child the log is [`Health::Closed`].
    #[must_use]
    pub fn health(&self) -> Health {
        let queue = &self.handle.queue;
        if queue.is_forked() || queue.stage() > Stage::Open {
            Health::Closed
        } else if queue.gauges.failing.get() {
            Health::Failing
        } else if queue.is_stalled() {
            Health::Stalled
        } else if queue.gauges.tampered.get() {
            Health::Tampered
        } else if queue.is_overloaded() {
            Health::Overloaded
        } else if queue.gauges.is_degraded() {
            Health::Degraded
        } else if queue.gauges.low_space.get() {
            Health::LowSpace
        } else {
            Health::Healthy
        }
    }

    /// Returns the counters of the log since it was opened.
    #[must_use]
    pub fn stats(&self) -> Stats {
        let queue = &self.handle.queue;
        let gauges = &queue.gauges;
        let mut stats = Stats {
            durable: gauges.durable_events.get(),
            records_since_sync: gauges.records_since_sync.get(),
            syncs: gauges.syncs.get(),
            last_sync: gauges.last_sync(),
            written_bytes: gauges.written_bytes.get(),
            segments: gauges.segments.get(),
            free_bytes: gauges.free_bytes.get(),
            notices_dropped: queue.notifier.dropped.get(),
            notices: queue.notifier.counts(),
            ..Stats::default()
        };
        queue.fill(&mut stats);
        stats
    }

    /// Blocks until the durable head differs from `known`, and returns it.
    ///
    /// Returns `None` if that did not happen within `bound`. Returns `None` at once if it cannot happen any
    /// more, because the log is closed or the process was forked. The call starts no sync: when records become
    /// durable is decided by the flush mode alone.
    ///
    /// Intended for programs that forward durable records; see [`ReadItems::trust`](crate::ReadItems::trust).
    #[must_use]
    pub fn next_head(&self, known: Head, bound: Duration) -> Option<Head> {
        if self.handle.queue.is_forked() {
            return None;
        }
        let mut watch = self.handle.queue.watch();
        block_until(bound, |waker| watch.poll(waker, || self.handle.other_head(known))).flatten()
    }

    /// Waits like [`next_head`](Self::next_head), as a task. Returns `known` where `next_head` returns `None`.
    ///
    /// # Errors
    ///
    /// Never fails.
    pub fn next_head_async(&self, known: Head, bound: Duration) -> AuditFuture<Head> {
        let log = self.clone();
        AuditFuture::new(async move {
            let handle = &log.handle;
            if handle.queue.is_forked() {
                return Ok(known);
            }
            let mut watch = handle.queue.watch();
            let poll = |waker: &Waker| watch.poll(waker, || handle.other_head(known));
            Ok(handle.bounded(bound, poll).await.flatten().unwrap_or(known))
        })
    }

    /// Returns what opening the log found of earlier runs, what it did about it, and the notices it gave.
    #[must_use]
    pub fn recovery(&self) -> &Recovery {
        &self.handle.recovery
    }

    /// Returns the directory of the log, as an absolute path.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.handle.path
    }

    /// Closes the log for all clones, and returns its last head.
    ///
    /// The log then accepts no more events. It makes every queued event durable, writes a `close` record and syncs it.
    /// Blocks for at most [`Builder::wait_bound`]. Closing again returns the same head.
    ///
    /// A closure given to [`on_head`](Builder::on_head) has received the last head when this returns, unless it
    /// took longer than the rest of the wait bound.
    ///
    /// Events emitted after the call are lost. They are counted in [`stats`](Self::stats) and reported on
    /// standard error.
    ///
    /// # Errors
    ///
    /// - [`Error::Unconfirmed`] if closing was not complete within the wait bound. It says how many records are
    ///   not durable. The writer keeps trying; call `close` again to wait again.
    /// - [`Error::Lost`] if the writer had to give up, and events were lost.
    /// - [`Error::NotClosed`] if the writer had to give up, and only the `close` record was lost.
    /// - [`Error::Forked`] in a forked child.
    pub fn close(&self) -> Result<Head, Error> {
        self.handle.begin_close()?;
        let bound = self.handle.queue.wait_bound();
        block_until(bound, |waker| self.handle.poll_ended(waker));
        self.handle.end_close()
    }

    /// Closes the log like [`close`](Self::close), and waits as a task: the call begins the closing, for all clones.
    ///
    /// # Errors
    ///
    /// The same as `close`, when awaited.
    pub fn close_async(&self) -> AuditFuture<Head> {
        let log = self.clone();
        let begun = self.handle.begin_close();
        AuditFuture::new(async move {
            begun?;
            let handle = &log.handle;
            handle.bounded(handle.queue.wait_bound(), |waker: &Waker| handle.poll_ended(waker)).await;
            handle.end_close()
        })
    }
}

impl Handle {
    /// Waits as a task for everything up to `ticket`, and returns whether the wait ended within the bound.
    async fn wait_async(&self, ticket: Ticket, waiter: Waiter<'_>) -> bool {
        let queue = &self.queue;
        let bound = if queue.is_stalled() { Duration::ZERO } else { queue.wait_bound() };
        let poll = |waker: &Waker| queue.poll_durable(ticket, waker);
        let in_time = self.bounded(bound, poll).await.is_some();
        queue.judge_wait(ticket, in_time, waiter).is_ok()
    }

    /// Waits until `poll` is ready; `None` once the bound has passed. If no timer thread can be started, the wait
    /// has no bound.
    async fn bounded<T, P>(&self, bound: Duration, mut poll: P) -> Option<T>
    where
        P: FnMut(&Waker) -> Poll<T> + Send + Unpin,
    {
        if let Ok(timer) = self.timer.get_or_try_init(|| Timer::start(capture::mark_own_thread)) {
            return timer.bounded(bound, poll).await;
        }
        Some(std::future::poll_fn(|context| poll(context.waker())).await)
    }

    /// Requests a rotation, and returns its number.
    fn ask_rotation(&self) -> Result<u64, Error> {
        self.accepted()?;
        if self.queue.stage() > Stage::Open {
            return Err(self.closed());
        }
        Ok(self.queue.ask_rotation())
    }

    /// Turns the result of the wait into what `rotate` returns.
    fn rotated(&self, rotated: Option<bool>) -> Result<(), Error> {
        match rotated {
            Some(true) => Ok(()),
            Some(false) => Err(self.closed()),
            None => Err(self.unconfirmed()),
        }
    }

    /// Returns the last event accepted so far.
    fn accepted(&self) -> Result<Ticket, Error> {
        if self.queue.is_forked() {
            return Err(Error::Forked { path: self.path.clone() });
        }
        Ok(self.queue.accepted())
    }

    /// Turns the result of the wait into what `flush` returns.
    fn flushed(&self, ticket: Ticket, in_time: bool) -> Result<(), Error> {
        // Looked at again: success is the truth even if the sync came just after the bound.
        if self.queue.is_durable(ticket) {
            Ok(())
        } else if in_time {
            Err(self.closed())
        } else {
            Err(self.unconfirmed())
        }
    }

    fn head(&self) -> Head {
        if self.queue.is_forked() {
            // At the fork(2) the lock may have been held by a thread that does not exist in this child.
            return self.first_head;
        }
        self.queue.gauges.head().unwrap_or(self.first_head)
    }

    fn other_head(&self, known: Head) -> Option<Head> {
        Some(self.head()).filter(|head| *head != known)
    }

    fn closed(&self) -> Error {
        Error::Closed { path: self.path.clone() }
    }

    fn unconfirmed(&self) -> Error {
        Error::Unconfirmed {
            path: self.path.clone(),
            // The count can be zero: the events may have become durable since, and neither the `close` record nor
            // the first line of a new segment is an event.
            not_durable: self.queue.not_durable().max(1),
            bound: self.queue.wait_bound(),
        }
    }

    fn begin_close(&self) -> Result<(), Error> {
        if self.queue.is_forked() {
            return Err(Error::Forked { path: self.path.clone() });
        }
        self.queue.end(Stage::Closing);
        // A short-lived program may close its log while early notices still wait for a subscriber.
        self.queue.notifier.release();
        Ok(())
    }

    /// Polls whether the log is closed and the last head was passed to `on_head`.
    fn poll_ended(&self, waker: &Waker) -> Poll<()> {
        let closed = self.queue.poll_closed(waker);
        match &self.heads {
            Some(heads) if closed.is_ready() => {
                heads.end();
                heads.poll_delivered(waker)
            }
            _ => closed,
        }
    }

    fn end_close(&self) -> Result<Head, Error> {
        // Only the stage counts: a slow `on_head` does not make a closed log less closed.
        if self.queue.stage() < Stage::Closed {
            return Err(self.unconfirmed());
        }
        let thread = self.writer.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(thread) = thread {
            // The thread has nothing left to do, and a panic in it was caught.
            drop(thread.join());
        }
        // Every event counts before the `close` record: losing an event is the worse error.
        match (self.queue.not_durable(), self.queue.gauges.closed_in_order.get()) {
            (0, true) => Ok(self.head()),
            (0, false) => Err(Error::NotClosed { path: self.path.clone() }),
            (lost, _) => Err(Error::Lost { path: self.path.clone(), lost, reason: LossReason::IoFailure }),
        }
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        if self.begin_close().is_err() {
            // A forked child: the writer and the open files belong to the parent.
            return;
        }
        let queue = &self.queue;
        block_until(queue.wait_bound(), |waker| self.poll_ended(waker));
        if queue.stage() < Stage::Closed {
            // No caller is left who could wait again, so the writer must not retry for ever.
            queue.end(Stage::Abandoned);
            block_until(GIVE_UP_BOUND, |waker| self.poll_ended(waker));
            if queue.stage() < Stage::Closed {
                // The writer hangs in a system call. Joining it would block this thread as long.
                return;
            }
        }
        drop(self.end_close());
    }
}
