//! The handle of a forwarder: start, statistics, end.

use std::{
    collections::BTreeSet,
    fmt,
    path::{Path, PathBuf},
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use tracing_audit::{AuditLog, Head};

use crate::{
    engine::Engine,
    error::Error,
    lag,
    position::Files,
    sink::Sink,
    stats::{Notice, State, Stats},
};

/// Where a forwarder without a position begins.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum StartAt {
    /// With the first record of every chain.
    #[default]
    Beginning,
    /// After what is durable now.
    Now,
    /// After this record of its chain, and with the first record of every other chain.
    After(Head),
}

/// Settings of a forwarder.
#[must_use = "nothing is forwarded until `start`"]
pub struct Builder {
    name: String,
    pub(crate) start_at: StartAt,
    pub(crate) max_lag: Duration,
    pub(crate) on_notice: Option<Box<dyn Fn(Notice) + Send>>,
}

impl fmt::Debug for Builder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Builder").field("name", &self.name).finish_non_exhaustive()
    }
}

impl Builder {
    /// Sets where to begin if there is no position of this name yet. Default: [`StartAt::Beginning`].
    pub fn start_at(mut self, start_at: StartAt) -> Self {
        self.start_at = start_at;
        self
    }

    /// Sets how long a record may wait for the store, beyond the [`linger`](crate::Pace::linger) of the sink,
    /// before the forwarder reports that it is behind: with a notice, [`Stats::is_behind`] and
    /// [`Stats::is_healthy`]. Default: 1 minute.
    ///
    /// While a call of the sink hangs, only `Stats` reports it, because notices come from the thread that
    /// hangs.
    pub fn max_lag(mut self, max_lag: Duration) -> Self {
        self.max_lag = max_lag;
        self
    }

    /// Sets a closure that is called with each notice, on the thread of the forwarder. Default: notices are
    /// only counted in [`Stats`].
    ///
    /// A panic in the closure ends the forwarder. A closure that waits for the forwarder, as in
    /// [`drain`](Forwarder::drain), waits for itself until the bound has passed.
    pub fn on_notice(mut self, tell: impl Fn(Notice) + Send + 'static) -> Self {
        self.on_notice = Some(Box::new(tell));
        self
    }

    /// Starts a forwarder inside the program that has the log open. A record is offered as soon as it is
    /// durable.
    ///
    /// The forwarder holds a handle of the log until its thread ends: after it is [closed](Forwarder::close)
    /// or dropped, and a pending call of the sink has returned. Close the log itself with
    /// [`AuditLog::close`](tracing_audit::AuditLog::close), which does not wait for handles.
    ///
    /// # Errors
    ///
    /// [`Error::Name`], [`Error::BadPosition`], and [`Error::Io`] if its files cannot be read or the thread
    /// cannot be started. A store that does not answer is not an error.
    pub fn start(self, audit: &AuditLog, sink: impl Sink + 'static) -> Result<Forwarder, Error> {
        let dir = audit.path().to_owned();
        self.start_with(dir, Some(audit.clone()), Box::new(sink))
    }

    /// Starts a forwarder beside the programs that write the log in this directory. A record is offered once
    /// the log shows that it is durable; the log is checked once a second.
    ///
    /// # Errors
    ///
    /// As [`start`](Self::start).
    pub fn start_beside(self, dir: impl AsRef<Path>, sink: impl Sink + 'static) -> Result<Forwarder, Error> {
        self.start_with(dir.as_ref().to_owned(), None, Box::new(sink))
    }

    fn start_with(
        self,
        dir: PathBuf,
        audit: Option<AuditLog>,
        sink: Box<dyn Sink>,
    ) -> Result<Forwarder, Error> {
        let files = Files::new(&dir, &self.name)?;
        // Reports a bad position now, instead of on the thread.
        files.read()?;
        let shared = Arc::new(Shared::default());
        // A delay that the sink asks for does not count as lag.
        let max_lag = self.max_lag.saturating_add(sink.pace().linger);
        let settings = Self { max_lag, ..self };
        let (named, log) = (files.clone(), dir.clone());
        let engine = Engine::new(dir, audit, files, sink, settings, Arc::clone(&shared));
        let thread = thread::Builder::new().name("audit-forward".to_owned());
        let thread =
            thread.spawn(move || engine.run()).map_err(Error::io("start the thread for", "the forwarder"))?;
        Ok(Forwarder { shared, thread: Some(thread), dir: log, files: named, max_lag })
    }
}

/// A forwarder that runs on its own thread.
///
/// It ends when it is dropped. Dropping waits at most 500 ms for a call of the sink. What the store does not
/// have stays in the log.
#[must_use = "it ends when it is dropped"]
pub struct Forwarder {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
    dir: PathBuf,
    files: Files,
    max_lag: Duration,
}

impl fmt::Debug for Forwarder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Forwarder").finish_non_exhaustive()
    }
}

impl Forwarder {
    /// Returns the settings of a forwarder of this name: 1 to 32 letters a-z, digits and hyphens. Its
    /// position in the log is stored under the name, and only one forwarder at a time holds it.
    pub fn builder(name: impl Into<String>) -> Builder {
        let (start_at, max_lag) = (StartAt::default(), Duration::from_secs(60));
        Builder { name: name.into(), start_at, max_lag, on_notice: None }
    }

    /// Starts a forwarder with default settings; see [`Builder::start`].
    ///
    /// # Errors
    ///
    /// As `Builder::start`.
    pub fn start(audit: &AuditLog, name: &str, sink: impl Sink + 'static) -> Result<Self, Error> {
        Self::builder(name).start(audit, sink)
    }

    /// Returns the state and the counters.
    #[must_use]
    pub fn stats(&self) -> Stats {
        let inner = self.shared.lock();
        let mut stats = inner.stats.clone();
        stats.lag = inner.oldest.map_or(Duration::ZERO, |(at, age)| age.saturating_add(at.elapsed()));
        let call = inner.call.map_or(Duration::ZERO, |since| since.elapsed());
        stats.is_behind = stats.lag.max(call) > self.max_lag;
        stats
    }

    /// Waits until the store has everything that is durable in the log now, or until the bound has passed. If
    /// the forwarder is pausing after a failure, it retries at once.
    ///
    /// # Errors
    ///
    /// [`Error::Remaining`] when the bound has passed. [`Error::LeftOut`] while there are chains that stopped
    /// or cannot be read, even if the store has every known record of them.
    pub fn drain(&self, bound: Duration) -> Result<(), Error> {
        let round = {
            let mut state = self.shared.lock();
            state.drains_asked += 1;
            state.drains_asked
        };
        self.shared.changed.notify_all();
        self.shared.wait(bound, |state| state.drains_done >= round || state.stats.state == State::Closed);
        let (is_done, chains) = {
            let Inner { stats, drains_done, .. } = &*self.shared.lock();
            let left_out = stats.stopped.keys().chain(stats.unreadable.keys());
            (*drains_done >= round, left_out.copied().collect::<BTreeSet<u16>>())
        };
        let chains: Vec<u16> = chains.into_iter().collect();
        match is_done {
            true if chains.is_empty() => Ok(()),
            true => Err(Error::LeftOut { remaining: self.remaining(), chains }),
            false => Err(Error::Remaining { remaining: self.remaining(), bound }),
        }
    }

    /// Counts the records that the store is not known to have, from the files: the forwarder itself may hang.
    fn remaining(&self) -> u64 {
        // If the position cannot be read, count everything.
        let known = self.files.read().unwrap_or_default();
        let ids = lag::ids(&self.dir);
        let head = self.shared.lock().head;
        lag::measure(&self.dir, &known, &ids, head).records
    }

    /// Forwards what is durable now, within the bound, and ends. A store that hangs delays the caller by at
    /// most 500 ms more.
    ///
    /// # Errors
    ///
    /// As [`drain`](Self::drain). The error names how many records the store has not acknowledged. They stay
    /// in the log.
    pub fn close(mut self, bound: Duration) -> Result<(), Error> {
        let drained = self.drain(bound);
        self.end();
        drained
    }

    fn end(&mut self) {
        self.shared.lock().is_stopped = true;
        self.shared.changed.notify_all();
        let Some(thread) = self.thread.take() else { return };
        // A call of the sink that hangs blocks its own thread only.
        self.shared.wait(END_TIMEOUT, |state| state.stats.state == State::Closed);
        // Joining a thread that is still in a call of the sink would block the caller without a bound.
        if thread.is_finished() {
            drop(thread.join());
        }
    }
}

impl Drop for Forwarder {
    fn drop(&mut self) {
        self.end();
    }
}

/// How long to wait for the thread to end.
const END_TIMEOUT: Duration = Duration::from_millis(500);

/// The state shared by a forwarder and its thread.
#[derive(Debug, Default)]
pub(crate) struct Shared {
    /// Held only to read or change fields, never during I/O, a call of the sink or a notice: the application
    /// takes it in `Forwarder::stats`, and the log's own thread in `Wakeup::wake`.
    state: Mutex<Inner>,
    pub(crate) changed: Condvar,
}

#[derive(Debug, Default)]
pub(crate) struct Inner {
    pub(crate) stats: Stats,
    pub(crate) is_stopped: bool,
    pub(crate) drains_asked: u64,
    pub(crate) drains_done: u64,
    /// Whether something became durable since the last look.
    pub(crate) is_woken: bool,
    /// When the age of the oldest record that the store lacks was determined, and that age.
    pub(crate) oldest: Option<(Instant, Duration)>,
    /// The last record of the program's own chain that is known to be durable.
    pub(crate) head: Option<Head>,
    /// When the current call of the sink began.
    pub(crate) call: Option<Instant>,
}

impl Shared {
    pub(crate) fn lock(&self) -> MutexGuard<'_, Inner> {
        // A panic under the lock leaves counters at worst slightly off, and must not reach the
        // application.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until a condition holds. Returns whether it does.
    pub(crate) fn wait(&self, bound: Duration, is_so: impl Fn(&Inner) -> bool) -> bool {
        let deadline = Instant::now().checked_add(bound);
        let mut state = self.lock();
        loop {
            if is_so(&state) {
                return true;
            }
            let left = deadline.map_or(bound, |deadline| deadline.saturating_duration_since(Instant::now()));
            if left.is_zero() {
                return false;
            }
            state = self.changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}
