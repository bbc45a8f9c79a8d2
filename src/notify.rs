//! Tells an operator what must be heard, without ever blocking who tells.

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

/// A closure of the application that hears notices.
pub(crate) type OnNotice = Box<dyn Fn(&Notice) + Send>;

/// Notices waiting for the application's closure at most; more are counted and dropped.
const WAITING_NOTICES: usize = 256;

/// How long notices wait for a subscriber. A log is opened before the subscriber that its layer goes to exists, and
/// what a closure says of a notice through `tracing` reaches nobody until then.
const EARLY: Duration = Duration::from_secs(1);

/// A layer is registered a moment before the subscriber that it is in is installed: how often to look.
const LOOK: Duration = Duration::from_millis(1);

/// How long standard error stays quiet after a line.
const QUIET: Duration = Duration::from_secs(60);

/// How long a line on standard error is waited for: it may be a full pipe that nobody reads.
const PATIENCE: Duration = Duration::from_millis(100);

/// What the thread that calls the closure is sent.
enum Message {
    Notice(Notice),
    /// The layer is in a subscriber; the function says whether that can be heard on this thread yet.
    Attached(fn() -> bool),
    /// Nothing is waited for any more.
    Release,
}

/// Hands notices to the application on a thread of their own, and prints the one bounded line.
pub(crate) struct Notifier {
    /// How lines on standard error call the log; `None` where none are printed.
    log: Option<String>,
    clock: Clock,
    sender: Option<SyncSender<Message>>,
    pub(crate) dropped: Arc<Gauge>,
    /// How often each kind was told, in the order of their table.
    told: [Gauge; NoticeKind::ALL.len()],
    /// Guards when a line was last printed. Held only to read and change it.
    last_line: Mutex<Option<Duration>>,
}

impl std::fmt::Debug for Notifier {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Notifier").field("dropped", &self.dropped).finish_non_exhaustive()
    }
}

impl Notifier {
    /// Starts the thread that calls `on_notice`, if there is one. `mark_thread` runs there first. What it is told is
    /// kept until it is `attached`, `release`d, or a second old.
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
                // A panic of the application's closure must not silence the notices after it.
                drop(catch_unwind(AssertUnwindSafe(|| on_notice(&notice))));
            }
        })?;
        Ok(Arc::new(notifier))
    }

    /// One that nobody hears, and that prints nothing either.
    #[cfg(any(test, audit_simulation))]
    pub(crate) fn silent(clock: Clock) -> Arc<Self> {
        Arc::new(Self::new(None, clock, None))
    }

    fn new(log: Option<String>, clock: Clock, sender: Option<SyncSender<Message>>) -> Self {
        let dropped = Arc::default();
        let told = std::array::from_fn(|_| Gauge::default());
        Self { log, clock, sender, dropped, told, last_line: Mutex::default() }
    }

    /// The layer of the log is in a subscriber, which is installed now or in a moment: `is_heard` says whether what
    /// a thread like ours emits gets there.
    pub(crate) fn attached(&self, is_heard: fn() -> bool) {
        self.send(Message::Attached(is_heard));
    }

    /// Lets notices go that wait for a subscriber.
    pub(crate) fn release(&self) {
        self.send(Message::Release);
    }

    /// Says whether there was room.
    fn send(&self, message: Message) -> bool {
        let sent = self.sender.as_ref().map(|sender| sender.try_send(message));
        !matches!(sent, Some(Err(TrySendError::Full(_))))
    }

    /// How often each kind was told; those that were.
    pub(crate) fn counts(&self) -> Vec<NoticeCount> {
        let all = NoticeKind::ALL.iter().zip(&self.told);
        let told = all.map(|(kind, count)| NoticeCount { kind: *kind, count: count.get() });
        told.filter(|told| told.count > 0).collect()
    }

    pub(crate) fn tell(&self, kind: NoticeKind, message: impl Into<String>) {
        if let Some(count) = self.told.get(kind as usize) {
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

    /// Prints one line to standard error, at most once a minute. Where standard error takes nothing,
    /// who tells waits for a moment only.
    pub(crate) fn print(&self, message: &str) {
        let Some(log) = &self.log else { return };
        let now = self.clock.elapsed();
        let mut last = self.last_line.lock().unwrap_or_else(PoisonError::into_inner);
        if last.is_some_and(|last| now.saturating_sub(last) < QUIET) {
            return;
        }
        *last = Some(now);
        drop(last);
        let line = format!("tracing-audit: {log}: {message}\n");
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

/// Takes notices in until somebody can be expected to hear what the closure says of them.
fn keep_early(waiting: &Receiver<Message>, clock: Clock, dropped: &Gauge) -> Vec<Notice> {
    let until = clock.elapsed() + EARLY;
    let mut kept = Vec::new();
    let mut is_heard: Option<fn() -> bool> = None;
    loop {
        let left = until.saturating_sub(clock.elapsed());
        if left.is_zero() || is_heard.is_some_and(|is_heard| is_heard()) {
            return kept;
        }
        let pause = if is_heard.is_some() { left.min(LOOK) } else { left };
        match waiting.recv_timeout(pause) {
            Ok(Message::Notice(notice)) if kept.len() < WAITING_NOTICES => kept.push(notice),
            Ok(Message::Notice(_)) => dropped.add(1),
            Ok(Message::Attached(by)) => is_heard = Some(by),
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

    /// A notifier, and the messages that its closure hears.
    fn notifier() -> (Arc<Notifier>, Receiver<String>) {
        let (sender, heard) = channel();
        let on_notice: OnNotice = Box::new(move |notice| sender.send(notice.message.clone()).unwrap());
        let notifier = Notifier::start(None, Clock::start(), Some(on_notice), || {}).unwrap();
        (notifier, heard)
    }

    /// The function that `attached` is given knows no more than this.
    static IS_INSTALLED: AtomicBool = AtomicBool::new(false);

    #[test]
    fn what_comes_early_is_kept_in_order_until_a_subscriber_is_installed() {
        let (notifier, heard) = notifier();
        notifier.tell(NoticeKind::Recovered, "first");
        notifier.attached(|| IS_INSTALLED.load(Ordering::SeqCst));
        notifier.tell(NoticeKind::Healed, "second");
        assert!(heard.recv_timeout(Duration::from_millis(20)).is_err(), "told to nobody");
        IS_INSTALLED.store(true, Ordering::SeqCst);
        let begun = Instant::now();
        assert_eq!([heard.recv().unwrap(), heard.recv().unwrap()], ["first", "second"]);
        assert!(begun.elapsed() < EARLY / 2, "at once");
        notifier.tell(NoticeKind::Healed, "third");
        notifier.attached(|| false);
        notifier.tell(NoticeKind::Recovered, "fourth");
        assert_eq!([heard.recv().unwrap(), heard.recv().unwrap()], ["third", "fourth"]);
        let counts: Vec<_> = notifier.counts().iter().map(|told| (told.kind, told.count)).collect();
        assert_eq!(counts, [(NoticeKind::Healed, 2), (NoticeKind::Recovered, 2)]);
    }

    #[test]
    fn nothing_is_kept_longer_than_a_second() {
        for is_attached in [false, true] {
            let begun = Instant::now();
            let (notifier, heard) = notifier();
            notifier.tell(NoticeKind::Recovered, "first");
            if is_attached {
                notifier.attached(|| false);
            }
            assert_eq!(heard.recv().unwrap(), "first");
            assert!((EARLY..EARLY * 5).contains(&begun.elapsed()), "{:?}", begun.elapsed());
        }
    }

    #[test]
    fn the_end_of_the_log_lets_go_of_what_is_kept() {
        for is_dropped in [false, true] {
            let (notifier, heard) = notifier();
            notifier.tell(NoticeKind::Recovered, "first");
            let begun = Instant::now();
            let kept = (!is_dropped).then_some(notifier);
            if let Some(notifier) = &kept {
                notifier.release();
            }
            assert_eq!(heard.recv().unwrap(), "first");
            assert!(begun.elapsed() < EARLY / 2, "{:?}", begun.elapsed());
        }
    }

    #[test]
    fn no_more_is_kept_than_may_wait() {
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
    fn what_nobody_hears_is_counted() {
        let notifier = Notifier::start(None, Clock::start(), None, || {}).unwrap();
        notifier.tell(NoticeKind::Damage, "said to nobody");
        notifier.release();
        assert_eq!((notifier.counts().len(), notifier.dropped.get()), (1, 0));
    }
}
