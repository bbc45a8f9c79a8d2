//! Passes the durable head to the application, which may keep it elsewhere, on a dedicated thread.

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

/// A closure of the application that receives heads, and how often.
pub(crate) struct OnHead {
    pub(crate) interval: Duration,
    pub(crate) tell: Box<dyn Fn(Head) + Send>,
}

/// The log's end of the thread that calls the closure. Dropping it ends the thread.
#[derive(Debug)]
pub(crate) struct Heads {
    end: SyncSender<()>,
    delivery: Arc<Delivery>,
}

/// Whether the last head was passed to the closure.
#[derive(Debug, Default)]
struct Delivery {
    /// Guards the wakers of those who wait for that; `None` once it is done. Held only to look and to add one.
    waiting: Mutex<Option<Vec<Waker>>>,
}

impl Heads {
    /// Starts the thread, which runs `mark_thread` first.
    pub(crate) fn start(on_head: OnHead, gauges: Arc<Gauges>, mark_thread: fn()) -> std::io::Result<Self> {
        // Room for one message: the end is sent once, and sending it must not block.
        let (end, ended) = sync_channel(1);
        let delivery = Arc::new(Delivery { waiting: Mutex::new(Some(Vec::new())) });
        let delivering = Arc::clone(&delivery);
        thread::Builder::new().name("audit-head".to_owned()).spawn(move || {
            mark_thread();
            deliver_until(&ended, &on_head, &gauges);
            delivering.done();
        })?;
        Ok(Self { end, delivery })
    }

    /// Announces that the log is closed, so that its head is the last one.
    pub(crate) fn end(&self) {
        // It fails if the end was sent before or the thread has ended. Then nothing is left to do.
        self.end.try_send(()).unwrap_or_default();
    }

    /// Polls whether the closure has returned from the last head.
    pub(crate) fn poll_delivered(&self, waker: &Waker) -> Poll<()> {
        let mut waiting = self.delivery.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(wakers) = waiting.as_mut() else { return Poll::Ready(()) };
        if !wakers.iter().any(|known| known.will_wake(waker)) {
            wakers.push(waker.clone());
        }
        Poll::Pending
    }
}

impl Delivery {
    fn done(&self) {
        let waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner).take();
        waiting.into_iter().flatten().for_each(wake_quietly);
    }
}

/// Passes on each head that differs from the previous one, at most one in each interval, and the last one at the end.
fn deliver_until(ended: &Receiver<()>, on_head: &OnHead, gauges: &Gauges) {
    let mut last = None;
    loop {
        let is_over = !matches!(ended.recv_timeout(on_head.interval), Err(RecvTimeoutError::Timeout));
        // Read after the wait: at the end, this is the last head.
        let head = gauges.head();
        if let Some(head) = head.filter(|_| head != last) {
            // After a panic of the application's closure, later heads must still be passed on.
            drop(catch_unwind(AssertUnwindSafe(|| (on_head.tell)(head))));
            last = Some(head);
        }
        if is_over {
            return;
        }
    }
}
