//! Hands the durable head out to the application, for those who keep it elsewhere, on a thread of its own.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc, Mutex, PoisonError,
        mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel},
    },
    task::{Poll, Waker},
    thread,
    time::Duration,
};

use crate::{chain::Head, gauges::Gauges, wait::wake_quietly};

/// A closure of the application that is given heads, and how often.
pub(crate) struct OnHead {
    pub(crate) interval: Duration,
    pub(crate) tell: Box<dyn Fn(Head) + Send>,
}

/// The thread that calls the closure, as the handle of the log sees it. It ends with this.
#[derive(Debug)]
pub(crate) struct Heads {
    end: SyncSender<()>,
    told: Arc<Told>,
}

/// Whether the last head was told.
#[derive(Debug, Default)]
struct Told {
    /// Guards who waits for that; `None` once it is done. Held only to look and to add a waker.
    waiting: Mutex<Option<Vec<Waker>>>,
}

impl Heads {
    /// Starts the thread. `mark_thread` runs there first.
    pub(crate) fn start(on_head: OnHead, gauges: Arc<Gauges>, mark_thread: fn()) -> std::io::Result<Self> {
        // The end is said once, and nobody waits to say it.
        let (end, ended) = sync_channel(1);
        let told = Arc::new(Told { waiting: Mutex::new(Some(Vec::new())) });
        let telling = Arc::clone(&told);
        thread::Builder::new().name("audit-head".to_owned()).spawn(move || {
            mark_thread();
            tell_until(&ended, &on_head, &gauges);
            telling.done();
        })?;
        Ok(Self { end, told })
    }

    /// The log is closed, and its head is the last one.
    pub(crate) fn end(&self) {
        // Where it was said before, or the thread has gone, there is nothing to add.
        self.end.try_send(()).unwrap_or_default();
    }

    /// Whether the last head was told and the closure has returned.
    pub(crate) fn poll_told(&self, waker: &Waker) -> Poll<()> {
        let mut waiting = self.told.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(wakers) = waiting.as_mut() else { return Poll::Ready(()) };
        if !wakers.iter().any(|known| known.will_wake(waker)) {
            wakers.push(waker.clone());
        }
        Poll::Pending
    }
}

impl Told {
    fn done(&self) {
        let waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner).take();
        waiting.into_iter().flatten().for_each(wake_quietly);
    }
}

/// Tells each head that is not the one told last, at most one in each interval, and the last at the end.
fn tell_until(ended: &Receiver<()>, on_head: &OnHead, gauges: &Gauges) {
    let mut last = None;
    loop {
        let is_over = !matches!(ended.recv_timeout(on_head.interval), Err(RecvTimeoutError::Timeout));
        let head = gauges.head();
        if let Some(head) = head.filter(|_| head != last) {
            // A panic of the application's closure must not keep the heads after it from being told.
            drop(catch_unwind(AssertUnwindSafe(|| (on_head.tell)(head))));
            last = Some(head);
        }
        if is_over {
            return;
        }
    }
}
