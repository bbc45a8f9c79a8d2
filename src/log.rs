//! `AuditLog`: the handle of an application.

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

/// How long the last handle waits for a writer that was told to give up.
const GIVING_UP: Duration = Duration::from_millis(100);

/// A handle on an open audit log. Cheap to clone; all clones are the same log.
///
/// Open one at the start of the program, add its [`layer`](Self::layer) to the subscriber, check
/// [`ensure_attached`](Self::ensure_attached), and [`close`](Self::close) it at the end. The last
/// handle that is dropped flushes and closes too, waiting at most for the wait bound; the layer is
/// no handle, so keep one for as long as events are to be recorded.
///
/// What a crash leaves is described at [`FlushMode`](crate::FlushMode). A process that ends without
/// `close` loses what was queued and not yet written, and the next opener records that it did.
#[derive(Clone)]
#[doc(alias = "tamper-evident")]
#[doc(alias = "audit trail")]
#[must_use = "the log is closed when its last handle is dropped"]
pub struct AuditLog {
    handle: Arc<Handle>,
}

impl fmt::Debug for AuditLog {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Nothing that a lock guards, and nothing of what was emitted.
        f.debug_struct("AuditLog").field("path", &self.handle.path).finish_non_exhaustive()
    }
}

/// What all clones share; dropped with the last of them.
struct Handle {
    path: PathBuf,
    queue: Arc<Queue>,
    capture: Arc<Capture>,
    recovery: Recovery,
    first_head: Head,
    heads: Option<Heads>,
    timer: OnceCell<Timer>,
    /// Guards the writer's thread until it is joined by whoever closes first.
    writer: Mutex<Option<JoinHandle<()>>>,
}

impl AuditLog {
    /// Opens the log in a directory with default settings. The directory is made if it is missing.
    ///
    /// # Errors
    ///
    /// As [`Builder::open`].
    pub fn open(dir: impl AsRef<Path>) -> Result<Self, Error> {
        Self::builder(dir).open()
    }

    /// Settings for a log in a directory; [`Builder::open`] opens it.
    pub fn builder(dir: impl AsRef<Path>) -> Builder {
        Builder::new(dir.as_ref())
    }

    /// A handle on a log that was started.
    pub(crate) fn of(parts: Parts) -> Self {
        let Parts { path, queue, capture, recovery, first_head, heads, writer } = parts;
        let writer = Mutex::new(Some(writer));
        let timer = OnceCell::new();
        let handle = Arc::new(Handle { path, queue, capture, recovery, first_head, heads, timer, writer });
        let shared: Arc<dyn Any + Send + Sync> = Arc::<Handle>::clone(&handle);
        handle.capture.set_handle(Arc::downgrade(&shared));
        Self { handle }
    }

    /// Finds the log behind the subscriber of the calling thread, scoped or global, so that a library can
    /// [`confirm`](Self::confirm) without being handed a log. To emit events, a library needs `tracing` alone.
    ///
    /// Returns a handle like any other: while it is held the log stays open, so drop it when the work is done. With
    /// layers of several logs, the log is the one whose layer was added last (of a `Vec` of layers, the first in it).
    ///
    /// Returns `None`
    ///
    /// - where the subscriber has no layer of a log, or there is no subscriber;
    /// - when the last handle of the log was dropped, which closed it. A log that was closed while handles of it are
    ///   left is returned, and `confirm` on it is an error, as it should be;
    /// - where the layer is inside a `tracing_subscriber::reload::Layer`, through which nobody can look, although
    ///   its events are recorded: hand the `AuditLog` over there. Boxed and optional layers, layers in a `Vec`, and
    ///   filters around the layer, reloaded ones too, hide nothing;
    /// - inside the callbacks of a layer or subscriber, where a scoped subscriber is not the current one.
    ///
    /// # Examples
    ///
    /// ```
    /// use tracing_audit::{AuditLog, Error};
    ///
    /// /// Of a library: the key is not handed out unless that is on record.
    /// fn export_key(actor: &str) -> Result<(), Error> {
    ///     let attempt = || tracing::info!(target: "audit", action = "key.export", actor, outcome = "attempted");
    ///     match AuditLog::current() {
    ///         Some(audit) => drop(audit.confirm(attempt)?),
    ///         // The application keeps no log that can be asked. Whether that will do is for the library to say.
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

    /// The layer that captures audit events for this log, inside its own per-layer filter. Add it to
    /// a registry like any other layer; it takes audit events only and hides nothing from others.
    #[must_use = "a layer does nothing until it is added to a subscriber"]
    pub fn layer<S>(&self) -> Filtered<AuditLayer, AuditFilter, S>
    where
        S: Subscriber + for<'span> LookupSpan<'span>,
    {
        capture::layer(&self.handle.capture)
    }

    /// A filter for other layers that keeps audit events away from them: `fmt::layer().with_filter(audit.not_audit())`.
    ///
    /// Redaction concerns this log only. Without the filter the same event stands in other layers' output with every
    /// value in clear. It keeps away the events that are audit events to this log, by target or by the field `audit`, whether
    /// or not its layer is installed, and spans whose target is `audit` or begins with `audit::`. Join it with other
    /// filters by `FilterExt::and` of `tracing-subscriber` only: `or`, `not` and a `reload` around it forget what it says
    /// of events that are tagged by the field.
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

    /// Proves, at this moment, that audit events from the configured level to `ERROR`, and spans
    /// with what they inherit, reach this log through the current subscriber, each once. Reaches nobody's
    /// output. Call it once the subscriber is installed: a filter that hides audit events hides them
    /// from every layer, and nothing else would tell. It also rebuilds tracing's interest cache, so that no call site
    /// that was met before stays silent.
    ///
    /// The current subscriber is that of the calling thread: the scoped one inside `with_default`, `set_default` and
    /// `WithSubscriber`, as in a test, else the global one. A scoped subscriber hears no other thread, so an
    /// application installs a global one, with `init()`.
    ///
    /// # Errors
    ///
    /// [`Error::NotAttached`] says which levels or spans are hidden, and how to mend it;
    /// [`Error::AttachedTwice`] that each event would be recorded more than once; [`Error::Forked`] that this process is a
    /// child of the one that opened the log.
    pub fn ensure_attached(&self) -> Result<(), Error> {
        self.ensure_attached_for(["audit"])
    }

    /// The same for other targets, e.g. `audit::payments`, or `log` records of a dependency.
    ///
    /// # Errors
    ///
    /// As [`ensure_attached`](Self::ensure_attached).
    pub fn ensure_attached_for<I>(&self, targets: I) -> Result<(), Error>
    where
        I: IntoIterator<Item: AsRef<str>>,
    {
        let targets: Vec<I::Item> = targets.into_iter().collect();
        let targets: Vec<&str> = targets.iter().map(AsRef::as_ref).collect();
        capture::ensure_attached(&self.handle.capture, &self.handle.path, &targets)
    }

    /// Waits until everything accepted so far is durable.
    ///
    /// # Errors
    ///
    /// [`Error::Unconfirmed`] when the wait bound passed (at once while the log is stalled),
    /// [`Error::Closed`] when the log ended before.
    pub fn flush(&self) -> Result<(), Error> {
        let ticket = self.handle.accepted()?;
        let waited = self.handle.queue.wait_until_durable(ticket, Waiter::All);
        self.handle.flushed(ticket, waited.is_ok())
    }

    /// As [`flush`](Self::flush), for tasks: of what was accepted before the call.
    ///
    /// # Errors
    ///
    /// As `flush`, when awaited.
    pub fn flush_async(&self) -> AuditFuture<()> {
        let log = self.clone();
        let accepted = self.handle.accepted();
        AuditFuture::new(async move {
            let ticket = accepted?;
            let in_time = log.handle.wait_async(ticket, Waiter::All).await;
            log.handle.flushed(ticket, in_time)
        })
    }

    /// Ends the live segment and begins a new one, e.g. before a copy is taken away. The chain goes
    /// on.
    ///
    /// # Errors
    ///
    /// [`Error::Unconfirmed`] when that took longer than the wait bound, [`Error::Closed`] when the
    /// log is closed.
    pub fn rotate(&self) -> Result<(), Error> {
        let number = self.handle.ask_rotation()?;
        let queue = &self.handle.queue;
        let rotated = block_until(queue.wait_bound(), |waker| queue.poll_rotated(number, waker));
        self.handle.rotated(rotated)
    }

    /// As [`rotate`](Self::rotate), for tasks.
    ///
    /// # Errors
    ///
    /// As `rotate`, when awaited.
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

    /// The last durable record of the chain that this handle writes. Kept elsewhere, it makes a cut
    /// or rewritten log detectable. [`Builder::on_head`] hands it out regularly.
    #[must_use]
    pub fn head(&self) -> Head {
        self.handle.head()
    }

    /// The state of the log now.
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

    /// Counters since the log was opened.
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

    /// Waits until the durable head is another than this one, and returns it; `None` when it was not within the bound, and at
    /// once when it will not be any more: the log is closed, or the process was forked. It hurries nothing: what is durable
    /// follows the flush mode.
    ///
    /// For who passes on what is durable; see [`ReadItems::trust`](crate::ReadItems::trust).
    #[must_use]
    pub fn next_head(&self, known: Head, bound: Duration) -> Option<Head> {
        if self.handle.queue.is_forked() {
            return None;
        }
        let mut watch = self.handle.queue.watch();
        block_until(bound, |waker| watch.poll(waker, || self.handle.other_head(known))).flatten()
    }

    /// As [`next_head`](Self::next_head), for tasks: the head is the one that was known when the bound has passed.
    ///
    /// # Errors
    ///
    /// None.
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

    /// What opening found of earlier runs, did about it, and gave notice of.
    #[must_use]
    pub fn recovery(&self) -> &Recovery {
        &self.handle.recovery
    }

    /// The directory of the log, as an absolute path.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.handle.path
    }

    /// Closes the log for all clones: takes no more events, makes everything durable, writes a
    /// `close` record and syncs it. Returns the last head; closing again returns the same. Where there is an
    /// [`on_head`](Builder::on_head), it has been given the last head when this returns, unless it took longer than
    /// the wait bound leaves.
    ///
    /// Events after this are counted in [`stats`](Self::stats) and reported on standard error.
    ///
    /// # Errors
    ///
    /// [`Error::Unconfirmed`] when that was not done within the wait bound; it says how many records
    /// are not durable. The writer goes on trying; call again to wait again. [`Error::Lost`] when
    /// the writer had to give up and events were lost, [`Error::NotClosed`] when only the `close` record was.
    /// [`Error::Forked`] in a forked child.
    pub fn close(&self) -> Result<Head, Error> {
        self.handle.begin_close()?;
        let bound = self.handle.queue.wait_bound();
        block_until(bound, |waker| self.handle.poll_ended(waker));
        self.handle.end_close()
    }

    /// As [`close`](Self::close), for tasks: the call begins to close the log, for all clones.
    ///
    /// # Errors
    ///
    /// As `close`, when awaited.
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
    /// Waits as a task; says whether it was in time.
    async fn wait_async(&self, ticket: Ticket, waiter: Waiter<'_>) -> bool {
        let queue = &self.queue;
        let bound = if queue.is_stalled() { Duration::ZERO } else { queue.wait_bound() };
        let poll = |waker: &Waker| queue.poll_durable(ticket, waker);
        let in_time = self.bounded(bound, poll).await.is_some();
        queue.judge_wait(ticket, in_time, waiter).is_ok()
    }

    /// `poll`, for as long as the bound allows; `None` once it has passed. Where no timer thread can be started, without
    /// a bound.
    async fn bounded<T, P>(&self, bound: Duration, mut poll: P) -> Option<T>
    where
        P: FnMut(&Waker) -> Poll<T> + Send + Unpin,
    {
        if let Ok(timer) = self.timer.get_or_try_init(|| Timer::start(capture::mark_own_thread)) {
            return timer.bounded(bound, poll).await;
        }
        Some(std::future::poll_fn(|context| poll(context.waker())).await)
    }

    fn ask_rotation(&self) -> Result<u64, Error> {
        self.accepted()?;
        if self.queue.stage() > Stage::Open {
            return Err(self.closed());
        }
        Ok(self.queue.ask_rotation())
    }

    /// What `rotate` returns, after its wait.
    fn rotated(&self, rotated: Option<bool>) -> Result<(), Error> {
        match rotated {
            Some(true) => Ok(()),
            Some(false) => Err(self.closed()),
            None => Err(self.unconfirmed()),
        }
    }

    fn accepted(&self) -> Result<Ticket, Error> {
        if self.queue.is_forked() {
            return Err(Error::Forked { path: self.path.clone() });
        }
        Ok(self.queue.accepted())
    }

    fn flushed(&self, ticket: Ticket, in_time: bool) -> Result<(), Error> {
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
            // The lock may have been held by a thread that does not exist here.
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
            // The writer may have come to it since; and the `close` record, or the first line of a new segment, is no event.
            not_durable: self.queue.not_durable().max(1),
            bound: self.queue.wait_bound(),
        }
    }

    fn begin_close(&self) -> Result<(), Error> {
        if self.queue.is_forked() {
            return Err(Error::Forked { path: self.path.clone() });
        }
        self.queue.end(Stage::Closing);
        self.queue.notifier.release();
        Ok(())
    }

    /// Whether the log is closed, and its last head told to whoever keeps heads.
    fn poll_ended(&self, waker: &Waker) -> Poll<()> {
        let closed = self.queue.poll_closed(waker);
        match &self.heads {
            Some(heads) if closed.is_ready() => {
                heads.end();
                heads.poll_told(waker)
            }
            _ => closed,
        }
    }

    fn end_close(&self) -> Result<Head, Error> {
        // A closure that takes its time with the last head does not make the log less closed.
        if self.queue.stage() < Stage::Closed {
            return Err(self.unconfirmed());
        }
        let thread = self.writer.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(thread) = thread {
            // It has nothing left to do, and its panics were caught.
            drop(thread.join());
        }
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
            return;
        }
        let queue = &self.queue;
        block_until(queue.wait_bound(), |waker| self.poll_ended(waker));
        if queue.stage() < Stage::Closed {
            queue.end(Stage::Abandoned);
            block_until(GIVING_UP, |waker| self.poll_ended(waker));
            if queue.stage() < Stage::Closed {
                return;
            }
        }
        drop(self.end_close());
    }
}
