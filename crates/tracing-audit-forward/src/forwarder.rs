//! A forwarder as its program sees it: it is started, asked how it is, and ended.

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

/// Where a forwarder begins that has no position yet.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum StartAt {
    /// With the first record of every chain.
    #[default]
    Beginning,
    /// Behind what is durable now.
    Now,
    /// Behind this record of its chain, and with the first record of every other chain.
    After(Head),
}

/// Settings of a forwarder.
#[must_use = "nothing is forwarded before `start`"]
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
    /// Where to begin if there is no position of this name yet. Default: [`StartAt::Beginning`].
    pub fn start_at(mut self, start_at: StartAt) -> Self {
        self.start_at = start_at;
        self
    }

    /// How long a record may wait for the store, beyond the [`linger`](crate::Pace::linger) of the sink, before the forwarder
    /// says that it is behind: a notice,
    /// [`Stats::is_behind`] and [`Stats::is_healthy`]. Default: 1 minute. While a call of the sink hangs, `Stats` alone says
    /// so: notices come from the thread that hangs.
    pub fn max_lag(mut self, max_lag: Duration) -> Self {
        self.max_lag = max_lag;
        self
    }

    /// A closure that is given notices, on the thread of the forwarder. Default: they are counted in
    /// [`Stats`] only. A panic in it ends the forwarder, and one that waits for the forwarder, as in
    /// [`drain`](Forwarder::drain), waits for itself until the bound has passed.
    pub fn on_notice(mut self, tell: impl Fn(Notice) + Send + 'static) -> Self {
        self.on_notice = Some(Box::new(tell));
        self
    }

    /// Starts it inside the program that has the log open: a record is offered as soon as it is durable.
    ///
    /// It holds a handle on the log until its thread has ended: when it is [closed](Forwarder::close) or dropped, and a call
    /// of the sink that goes on then has come back. Close the log itself with
    /// [`AuditLog::close`](tracing_audit::AuditLog::close), which no handle holds up.
    ///
    /// # Errors
    ///
    /// [`Error::Name`], [`Error::BadPosition`], and [`Error::Io`] where its files cannot be read or the thread cannot be
    /// started. That the store does not answer is no error.
    pub fn start(self, audit: &AuditLog, sink: impl Sink + 'static) -> Result<Forwarder, Error> {
        let dir = audit.path().to_owned();
        self.start_with(dir, Some(audit.clone()), Box::new(sink))
    }

    /// Starts it beside the programs that write the log in this directory: a record is offered when the log says that it
    /// is durable, and the log is looked at once a second.
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
        // What is wrong with it is told now.
        files.read()?;
        let shared = Arc::new(Shared::default());
        // What the sink lets wait by itself is not late.
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

/// A forwarder that runs on a thread of its own. It ends when it is dropped, which waits for a call of the sink for 500 ms
/// at most: what the store has not got stays in the log.
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
    /// Settings for a forwarder of this name: 1 to 32 letters a-z, digits and hyphens. Its position in the log is kept under
    /// the name, and one forwarder has it at a time.
    pub fn builder(name: impl Into<String>) -> Builder {
        let (start_at, max_lag) = (StartAt::default(), Duration::from_secs(60));
        Builder { name: name.into(), start_at, max_lag, on_notice: None }
    }

    /// Starts one with default settings; see [`Builder::start`].
    ///
    /// # Errors
    ///
    /// As `Builder::start`.
    pub fn start(audit: &AuditLog, name: &str, sink: impl Sink + 'static) -> Result<Self, Error> {
        Self::builder(name).start(audit, sink)
    }

    /// How it is.
    #[must_use]
    pub fn stats(&self) -> Stats {
        let inner = self.shared.lock();
        let mut stats = inner.stats.clone();
        stats.lag = inner.oldest.map_or(Duration::ZERO, |(at, age)| age.saturating_add(at.elapsed()));
        let call = inner.call.map_or(Duration::ZERO, |since| since.elapsed());
        stats.is_behind = stats.lag.max(call) > self.max_lag;
        stats
    }

    /// Waits until the store has everything that is durable in the log now, or the bound has passed. A store that is rested
    /// from after a failure is tried at once.
    ///
    /// # Errors
    ///
    /// [`Error::Remaining`] when the bound has passed, and [`Error::LeftOut`] while there are chains that stopped or cannot be
    /// read, also where the store has all of them that is known.
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

    /// How many records the store is not known to have, as the files say: the forwarder itself may hang.
    fn remaining(&self) -> u64 {
        // Where it cannot be read, nothing is known to be there.
        let known = self.files.read().unwrap_or_default();
        let ids = lag::ids(&self.dir);
        let head = self.shared.lock().head;
        lag::measure(&self.dir, &known, &ids, head).records
    }

    /// Forwards what is durable now, for as long as the bound allows, and ends. A store that hangs holds nobody longer.
    ///
    /// # Errors
    ///
    /// As [`drain`](Self::drain): it says how many records the store has not acknowledged. They stay in the log.
    pub fn close(mut self, bound: Duration) -> Result<(), Error> {
        let drained = self.drain(bound);
        self.end();
        drained
    }

    fn end(&mut self) {
        self.shared.lock().is_stopped = true;
        self.shared.changed.notify_all();
        let Some(thread) = self.thread.take() else { return };
        // A call of the sink that hangs keeps its thread, and nobody else.
        self.shared.wait(ENDING, |state| state.stats.state == State::Closed);
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

/// How long the end is waited for.
const ENDING: Duration = Duration::from_millis(500);

/// What the forwarder and its thread have in common.
#[derive(Debug, Default)]
pub(crate) struct Shared {
    state: Mutex<Inner>,
    pub(crate) changed: Condvar,
}

#[derive(Debug, Default)]
pub(crate) struct Inner {
    pub(crate) stats: Stats,
    pub(crate) is_stopped: bool,
    pub(crate) drains_asked: u64,
    pub(crate) drains_done: u64,
    /// Something became durable.
    pub(crate) is_woken: bool,
    /// When the age of the oldest record that the store has not got was found out, and how old it was then.
    pub(crate) oldest: Option<(Instant, Duration)>,
    /// The last record of the program's own chain that is known to be durable.
    pub(crate) head: Option<Head>,
    /// Since when a call of the sink goes on.
    pub(crate) call: Option<Instant>,
}

impl Shared {
    pub(crate) fn lock(&self) -> MutexGuard<'_, Inner> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until something holds; says whether it does.
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
