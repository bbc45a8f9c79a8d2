//! Tells an operator what must be heard, without ever blocking who tells.

use std::{
    io::Write as _,
    sync::{
        Arc, Mutex, PoisonError,
        mpsc::{SyncSender, TrySendError, sync_channel},
    },
    thread,
    time::Duration,
};

use crate::{
    clock::Clock,
    gauges::Gauge,
    stats::{Notice, NoticeCode, NoticeCount},
};

/// A closure of the application that hears notices.
pub(crate) type OnNotice = Box<dyn Fn(&Notice) + Send>;

/// Notices waiting for the application's closure at most; more are counted and dropped.
const WAITING_NOTICES: usize = 256;

/// How long standard error stays quiet after a line.
const QUIET: Duration = Duration::from_secs(60);

/// How long a line on standard error is waited for: it may be a full pipe that nobody reads.
const PATIENCE: Duration = Duration::from_millis(100);

/// Hands notices to the application on a thread of their own, and prints the one bounded line.
pub(crate) struct Notifier {
    log: String,
    clock: Clock,
    sender: Option<SyncSender<Notice>>,
    pub(crate) dropped: Gauge,
    /// How often each code was told, in the order of their table.
    told: [Gauge; NoticeCode::ALL.len()],
    /// Guards when a line was last printed. Held only to read and change it.
    last_line: Mutex<Option<Duration>>,
}

impl std::fmt::Debug for Notifier {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Notifier").field("dropped", &self.dropped).finish_non_exhaustive()
    }
}

impl Notifier {
    /// Starts the thread that calls `on_notice`, if there is one. `mark_thread` runs there first.
    pub(crate) fn start(
        log: String,
        clock: Clock,
        on_notice: Option<OnNotice>,
        mark_thread: fn(),
    ) -> std::io::Result<Arc<Self>> {
        let mut sender = None;
        if let Some(on_notice) = on_notice {
            let (notices, waiting) = sync_channel::<Notice>(WAITING_NOTICES);
            thread::Builder::new().name("audit-notice".to_owned()).spawn(move || {
                mark_thread();
                for notice in waiting {
                    // A panic of the application's closure must not silence the notices after it.
                    let call = std::panic::AssertUnwindSafe(|| on_notice(&notice));
                    drop(std::panic::catch_unwind(call));
                }
            })?;
            sender = Some(notices);
        }
        Ok(Arc::new(Self::new(log, clock, sender, None)))
    }

    /// One that nobody hears, and that prints nothing either.
    #[cfg(any(test, audit_simulation))]
    pub(crate) fn silent(clock: Clock) -> Arc<Self> {
        // A line is due a minute after the last, and the last was printed at the end of time.
        Arc::new(Self::new(String::new(), clock, None, Some(Duration::MAX)))
    }

    fn new(
        log: String,
        clock: Clock,
        sender: Option<SyncSender<Notice>>,
        last_line: Option<Duration>,
    ) -> Self {
        let told = Default::default();
        Self { log, clock, sender, dropped: Gauge::default(), told, last_line: Mutex::new(last_line) }
    }

    /// How often each code was told; those that were.
    pub(crate) fn counts(&self) -> Vec<NoticeCount> {
        let all = NoticeCode::ALL.into_iter().zip(&self.told);
        let told = all.map(|(code, count)| NoticeCount { code, count: count.get() });
        told.filter(|told| told.count > 0).collect()
    }

    pub(crate) fn tell(&self, code: NoticeCode, message: impl Into<String>) {
        if let Some(count) = self.told.get(code as usize) {
            count.add(1);
        }
        if let Some(sender) = &self.sender {
            let notice = Notice { code, message: message.into() };
            if let Err(TrySendError::Full(_)) = sender.try_send(notice) {
                self.dropped.add(1);
            }
        }
    }

    /// Prints one line to standard error, at most once a minute. Where standard error takes nothing,
    /// who tells waits for a moment only.
    pub(crate) fn print(&self, message: &str) {
        let now = self.clock.elapsed();
        let mut last = self.last_line.lock().unwrap_or_else(PoisonError::into_inner);
        if last.is_some_and(|last| now.saturating_sub(last) < QUIET) {
            return;
        }
        *last = Some(now);
        drop(last);
        let line = format!("tracing-audit: {}: {message}\n", self.log);
        let (done, over) = sync_channel::<()>(1);
        let thread = thread::Builder::new().name("audit-stderr".to_owned()).spawn(move || {
            // Where standard error is closed there is nobody to tell.
            std::io::stderr().write_all(line.as_bytes()).ok();
            drop(done);
        });
        if thread.is_ok() {
            over.recv_timeout(PATIENCE).ok();
        }
    }
}
