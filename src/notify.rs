//! Notifies the operator through a closure and on standard error, without blocking the caller for long.

use std::{
    io::Write as _,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc, Mutex, PoisonError,
        mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel},
    },
    thread,
    time::Duration,
};

use crate::{
    clock::Clock,
    gauges::Gauge,
    stats::{Notice, NoticeCount, NoticeKind},
};

/// A closure of the application that receives notices.
pub(crate) type OnNotice = Box<dyn Fn(&Notice) + Send>;

/// The most notices that wait for the application's closure. More are counted and dropped.
const WAITING_NOTICES: usize = 256;

/// How long notices wait for a subscriber. A log is opened before the subscriber of its layer exists. Until then,
/// events that the closure emits about a notice through `tracing` are lost.
const EARLY_BOUND: Duration = Duration::from_secs(1);

/// How often to check for the subscriber. A layer is registered a moment before its subscriber is installed.
const CHECK_INTERVAL: Duration = Duration::from_millis(1);

/// The shortest time between two lines on standard error.
const LINE_INTERVAL: Duration = Duration::from_secs(60);

/// How long to wait for a line on standard error, which may be a full pipe that no process reads.
const STDERR_BOUND: Duration = Duration::from_millis(100);

/// A message to the thread that calls the closure.
enum Message {
    Notice(Notice),
    /// The layer was added to a subscriber. The function returns whether this thread has a subscriber yet.
    Attached(fn() -> bool),
    /// Notices must not wait for a subscriber any more.
    Release,
}

/// Passes notices to the application on a dedicated thread, and prints rare lines to standard error.
pub(crate) struct Notifier {
    /// The name of the log in lines on standard error; `None` if none are printed.
    log: Option<String>,
    clock: Clock,
    sender: Option<SyncSender<Message>>,
    pub(crate) dropped: Arc<Gauge>,
    /// How many notices of each kind there were, in the order of `NoticeKind::ALL`.
    counts: [Gauge; NoticeKind::ALL.len()],
    /// Guards when the last line was printed. Held only to read and change it, not while a line is printed.
    last_line: Mutex<Option<Duration>>,
}

impl std::fmt::Debug for Notifier {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Notifier").field("dropped", &self.dropped).finish_non_exhaustive()
    }
}

impl Notifier {
    /// Starts the thread that calls `on_notice`, if there is one. The thread runs `mark_thread` first, and holds
    /// notices back until the layer is `attached`, notices are `release`d, or a second has passed.
    pub(crate) fn start(
        log: Option<String>,
        clock: Clock,
        on_notice: Option<OnNotice>,
        mark_thread: fn(),
    ) -> std::io::Result<Arc<Self>> {
        let Some(on_notice) = on_notice else { return Ok(Arc::new(Self::new(log, clock, None))) };
        let (sender, waiting) = sync_channel(WAITING_NOTICES);
        let notifier = Self::new(log, clock, Some(sender));
        let dropped = Arc::clone(&notifier.dropped);
        thread::Builder::new().name("audit-notice".to_owned()).spawn(move || {
            mark_thread();
            let early = keep_early(&waiting, clock, &dropped);
            let later = waiting.into_iter().filter_map(|message| match message {
                Message::Notice(notice) => Some(notice),
                Message::Attached(_) | Message::Release => None,
            });
            for notice in early.into_iter().chain(later) {
                // After a panic of the application's closure, later notices must still be passed on.
                drop(catch_unwind(AssertUnwindSafe(|| on_notice(&notice))));
            }
        })?;
        Ok(Arc::new(notifier))
    }

    /// Returns a notifier that has no closure and prints nothing.
    #[cfg(any(test, audit_simulation))]
    pub(crate) fn silent(clock: Clock) -> Arc<Self> {
        Arc::new(Self::new(None, clock, None))
    }

    fn new(log: Option<String>, clock: Clock, sender: Option<SyncSender<Message>>) -> Self {
        let dropped = Arc::default();
        let counts = std::array::from_fn(|_| Gauge::default());
        Self { log, clock, sender, dropped, counts, last_line: Mutex::default() }
    }

    /// Announces that the layer is in a subscriber, which is installed now or in a moment. `has_subscriber` returns
    /// whether events of the calling thread reach a subscriber.
    pub(crate) fn attached(&self, has_subscriber: fn() -> bool) {
        self.send(Message::Attached(has_subscriber));
    }

    /// Passes on the notices that wait for a subscriber.
    pub(crate) fn release(&self) {
        self.send(Message::Release);
    }

    /// Sends without blocking, and returns whether there was room.
    fn send(&self, message: Message) -> bool {
        let sent = self.sender.as_ref().map(|sender| sender.try_send(message));
        !matches!(sent, Some(Err(TrySendError::Full(_))))
    }

    /// Returns how many notices of each kind there were, without the kinds of which there were none.
    pub(crate) fn counts(&self) -> Vec<NoticeCount> {
        let all = NoticeKind::ALL.iter().zip(&self.counts);
        let counts = all.map(|(kind, count)| NoticeCount { kind: *kind, count: count.get() });
        counts.filter(|counted| counted.count > 0).collect()
    }

    /// Counts a notice, and queues it for the application's closure. Never blocks: a notice that finds the queue full is
    /// counted as dropped.
    pub(crate) fn tell(&self, kind: NoticeKind, message: impl Into<String>) {
        // Counted even without a closure: `stats` shows every notice.
        if let Some(count) = self.counts.get(kind as usize) {
            count.add(1);
        }
        if self.sender.is_none() {
            return;
        }
        let time = self.clock.wall().to_system_time();
        if !self.send(Message::Notice(Notice { kind, time, message: message.into() })) {
            self.dropped.add(1);
        }
    }

    /// Prints one line to standard error, at most once a minute. Blocks for at most 100 ms if standard error does
    /// not accept the line.
    pub(crate) fn print(&self, message: &str) {
        let Some(log) = &self.log else { return };
        let now = self.clock.elapsed();
        let mut last = self.last_line.lock().unwrap_or_else(PoisonError::into_inner);
        if last.is_some_and(|last| now.saturating_sub(last) < LINE_INTERVAL) {
            return;
        }
        *last = Some(now);
        drop(last);
        let line = format!("tracing-audit: {log}: {message}\n");
        // A write to a full pipe blocks, possibly for ever, so it gets a thread that can be left behind.
        let (done, over) = sync_channel::<()>(1);
        let thread = thread::Builder::new().name("audit-stderr".to_owned()).spawn(move || {
            // If standard error is closed, there is no other place to report that.
            std::io::stderr().write_all(line.as_bytes()).ok();
            drop(done);
        });
        if thread.is_ok() {
            over.recv_timeout(STDERR_BOUND).ok();
        }
    }
}

/// Collects notices until the closure's own events can be expected to reach a subscriber.
fn keep_early(waiting: &Receiver<Message>, clock: Clock, dropped: &Gauge) -> Vec<Notice> {
    let until = clock.elapsed() + EARLY_BOUND;
    let mut kept = Vec::new();
    let mut has_subscriber: Option<fn() -> bool> = None;
    loop {
        let left = until.saturating_sub(clock.elapsed());
        if left.is_zero() || has_subscriber.is_some_and(|has_subscriber| has_subscriber()) {
            return kept;
        }
        let pause = if has_subscriber.is_some() { left.min(CHECK_INTERVAL) } else { left };
        match waiting.recv_timeout(pause) {
            Ok(Message::Notice(notice)) if kept.len() < WAITING_NOTICES => kept.push(notice),
            Ok(Message::Notice(_)) => dropped.add(1),
            Ok(Message::Attached(by)) => has_subscriber = Some(by),
            Err(RecvTimeoutError::Timeout) => {}
            Ok(Message::Release) | Err(RecvTimeoutError::Disconnected) => return kept,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{
        sync::{
            atomic::{AtomicBool, Ordering},
            mpsc::channel,
        },
        time::Instant,
    };

    use super::*;

    /// Returns a notifier, and the messages that its closure receives.
    fn notifier() -> (Arc<Notifier>, Receiver<String>) {
        let (sender, heard) = channel();
        let on_notice: OnNotice = Box::new(move |notice| sender.send(notice.message.clone()).unwrap());
        let notifier = Notifier::start(None, Clock::start(), Some(on_notice), || {}).unwrap();
        (notifier, heard)
    }

    /// The state behind the function that `attached` is given.
    static IS_INSTALLED: AtomicBool = AtomicBool::new(false);

    #[test]
    fn early_notices_are_kept_in_order_until_a_subscriber_is_installed() {
        let (notifier, heard) = notifier();
        notifier.tell(NoticeKind::Recovered, "first");
        notifier.attached(|| IS_INSTALLED.load(Ordering::SeqCst));
        notifier.tell(NoticeKind::Healed, "second");
        assert!(heard.recv_timeout(Duration::from_millis(20)).is_err(), "passed on too early");
        IS_INSTALLED.store(true, Ordering::SeqCst);
        let begun = Instant::now();
        assert_eq!([heard.recv().unwrap(), heard.recv().unwrap()], ["first", "second"]);
        assert!(begun.elapsed() < EARLY_BOUND / 2, "at once");
        notifier.tell(NoticeKind::Healed, "third");
        notifier.attached(|| false);
        notifier.tell(NoticeKind::Recovered, "fourth");
        assert_eq!([heard.recv().unwrap(), heard.recv().unwrap()], ["third", "fourth"]);
        let counts: Vec<_> = notifier.counts().iter().map(|told| (told.kind, told.count)).collect();
        assert_eq!(counts, [(NoticeKind::Healed, 2), (NoticeKind::Recovered, 2)]);
    }

    #[test]
    fn no_notice_is_kept_longer_than_a_second() {
        for is_attached in [false, true] {
            let begun = Instant::now();
            let (notifier, heard) = notifier();
            notifier.tell(NoticeKind::Recovered, "first");
            if is_attached {
                notifier.attached(|| false);
            }
            assert_eq!(heard.recv().unwrap(), "first");
            assert!((EARLY_BOUND..EARLY_BOUND * 5).contains(&begun.elapsed()), "{:?}", begun.elapsed());
        }
    }

    #[test]
    fn the_end_of_the_log_releases_the_notices_that_are_kept() {
        for is_dropped in [false, true] {
            let (notifier, heard) = notifier();
            notifier.tell(NoticeKind::Recovered, "first");
            let begun = Instant::now();
            let kept = (!is_dropped).then_some(notifier);
            if let Some(notifier) = &kept {
                notifier.release();
            }
            assert_eq!(heard.recv().unwrap(), "first");
            assert!(begun.elapsed() < EARLY_BOUND / 2, "{:?}", begun.elapsed());
        }
    }

    #[test]
    fn no_more_notices_are_kept_than_may_wait() {
        let (notifier, heard) = notifier();
        let mut told = 0;
        while notifier.dropped.get() == 0 {
            notifier.tell(NoticeKind::Recovered, "again");
            told += 1;
        }
        assert!(told > WAITING_NOTICES as u64);
        assert_eq!(notifier.counts().iter().map(|told| told.count).sum::<u64>(), told);
        let dropped = Arc::clone(&notifier.dropped);
        drop(notifier);
        let heard = heard.iter().count() as u64;
        assert_eq!(heard + dropped.get(), told);
    }

    #[test]
    fn a_notice_without_a_closure_is_counted() {
        let notifier = Notifier::start(None, Clock::start(), None, || {}).unwrap();
        notifier.tell(NoticeKind::Damage, "received by nobody");
        notifier.release();
        assert_eq!((notifier.counts().len(), notifier.dropped.get()), (1, 0));
    }
}
