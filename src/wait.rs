//! Waits for the writer with a bound, as a thread or as a task of any runtime.

use std::{
    collections::BTreeMap,
    future::Future,
    ops::ControlFlow,
    pin::Pin,
    sync::{Arc, Condvar, Mutex, PoisonError},
    task::{Context, Poll, Wake, Waker},
    time::{Duration, Instant},
};

use crate::sync::thread::{self, Thread};

/// Wakes a thread that is parked in [`block_until`].
struct ThreadWaker(Thread);

impl Wake for ThreadWaker {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.0.unpark();
    }
}

/// Calls a waker. It is code of the application's runtime, so a panic in it must not end this thread.
pub(crate) fn wake_quietly(waker: Waker) {
    drop(std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| waker.wake())));
}

/// Parks the calling thread until `poll` is ready; returns `None` if the bound passed first.
pub(crate) fn block_until<T>(bound: Duration, mut poll: impl FnMut(&Waker) -> Poll<T>) -> Option<T> {
    let waker = Waker::from(Arc::new(ThreadWaker(thread::current())));
    let look = || match poll(&waker) {
        Poll::Ready(value) => ControlFlow::Break(value),
        Poll::Pending => ControlFlow::Continue(()),
    };
    look_until(bound, look, |(), rest| thread::park_timeout(rest))
}

/// Calls `look` until it breaks with a result; returns `None` if the bound passed first.
///
/// Between two calls, `sleep` is given what `look` continued with, and the time that is left. It may return
/// early. `look` is called at least once, even with a bound of zero, and once more after the last sleep.
pub(crate) fn look_until<T, S>(
    bound: Duration,
    mut look: impl FnMut() -> ControlFlow<T, S>,
    sleep: impl Fn(S, Duration),
) -> Option<T> {
    // A bound too large for an `Instant` is no bound.
    let deadline = Instant::now().checked_add(bound);
    loop {
        let seen = match look() {
            ControlFlow::Break(value) => return Some(value),
            ControlFlow::Continue(seen) => seen,
        };
        match deadline.map(|deadline| deadline.saturating_duration_since(Instant::now())) {
            Some(Duration::ZERO) => return None,
            rest => sleep(seen, rest.unwrap_or(Duration::MAX)),
        }
    }
}

/// Wakes tasks at their deadlines, on one thread for each log.
///
/// The first task that waits starts the thread. The library depends on no runtime, so it has no other timer.
#[derive(Debug)]
pub(crate) struct Timer {
    shared: Arc<TimerShared>,
}

#[derive(Debug, Default)]
struct TimerShared {
    /// Guards the alarms. Held by tasks that begin or end a wait and by the timer thread, never while a waker is called.
    alarms: Mutex<Alarms>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct Alarms {
    /// By deadline, then by a number of their own, because deadlines can be equal.
    pending: BTreeMap<(Instant, u64), Waker>,
    /// The number given last.
    last: u64,
    ended: bool,
}

impl Timer {
    /// Starts the thread, which runs `mark_thread` first.
    pub(crate) fn start(mark_thread: fn()) -> std::io::Result<Self> {
        let shared = Arc::new(TimerShared::default());
        let thread_shared = Arc::clone(&shared);
        std::thread::Builder::new().name("audit-timer".to_owned()).spawn(move || {
            mark_thread();
            thread_shared.run();
        })?;
        Ok(Self { shared })
    }

    /// Returns a future of the result of `poll`, or of `None` once the bound has passed.
    pub(crate) fn bounded<'a, T, P>(
        &'a self,
        bound: Duration,
        poll: P,
    ) -> impl Future<Output = Option<T>> + Send + use<'a, T, P>
    where
        P: FnMut(&Waker) -> Poll<T> + Send + Unpin + 'a,
    {
        Bounded { timer: self, deadline: Instant::now().checked_add(bound), alarm: None, poll }
    }

    /// Sets an alarm and returns its number. An alarm that is set already gets the new waker.
    fn set(&self, deadline: Instant, alarm: Option<u64>, waker: &Waker) -> u64 {
        let mut alarms = self.shared.alarms.lock().unwrap_or_else(PoisonError::into_inner);
        let number = alarm.unwrap_or_else(|| {
            alarms.last += 1;
            alarms.last
        });
        let replaced = alarms.pending.insert((deadline, number), waker.clone());
        // Only an earlier first deadline cuts the sleep of the timer thread short.
        if alarms.pending.first_key_value().is_some_and(|(first, _)| first.1 == number) {
            self.shared.changed.notify_one();
        }
        drop(alarms);
        // A waker may hold a task, and the task another alarm, whose `Drop` takes the lock.
        drop(replaced);
        number
    }

    fn remove(&self, deadline: Instant, alarm: u64) {
        let mut alarms = self.shared.alarms.lock().unwrap_or_else(PoisonError::into_inner);
        let removed = alarms.pending.remove(&(deadline, alarm));
        drop(alarms);
        // As in `set`.
        drop(removed);
    }
}

impl Drop for Timer {
    fn drop(&mut self) {
        self.shared.alarms.lock().unwrap_or_else(PoisonError::into_inner).ended = true;
        self.shared.changed.notify_one();
    }
}

impl TimerShared {
    fn run(&self) {
        let mut alarms = self.alarms.lock().unwrap_or_else(PoisonError::into_inner);
        while !alarms.ended {
            let now = Instant::now();
            // No alarm has the number `u64::MAX`, so all alarms of this instant are due.
            let later = alarms.pending.split_off(&(now, u64::MAX));
            let due: Vec<Waker> = std::mem::replace(&mut alarms.pending, later).into_values().collect();
            if !due.is_empty() {
                // A waker is code of the application's runtime: it may block, or set an alarm itself.
                drop(alarms);
                due.into_iter().for_each(wake_quietly);
                alarms = self.alarms.lock().unwrap_or_else(PoisonError::into_inner);
                continue;
            }
            let next = alarms.pending.keys().next().map(|(at, _)| at.saturating_duration_since(now));
            // Without alarms any time does: `set` and `drop` notify.
            let hour = Duration::from_secs(3600);
            alarms = self
                .changed
                .wait_timeout(alarms, next.unwrap_or(hour))
                .unwrap_or_else(PoisonError::into_inner)
                .0;
        }
    }
}

/// The future that [`Timer::bounded`] returns.
struct Bounded<'a, P> {
    timer: &'a Timer,
    deadline: Option<Instant>,
    alarm: Option<u64>,
    poll: P,
}

impl<P> Drop for Bounded<'_, P> {
    fn drop(&mut self) {
        // The alarm holds the task's waker, and so perhaps the task itself.
        if let (Some(deadline), Some(alarm)) = (self.deadline, self.alarm) {
            self.timer.remove(deadline, alarm);
        }
    }
}

impl<T, P: FnMut(&Waker) -> Poll<T> + Unpin> Future for Bounded<'_, P> {
    type Output = Option<T>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<T>> {
        let this = &mut *self;
        if let Poll::Ready(value) = (this.poll)(context.waker()) {
            return Poll::Ready(Some(value));
        }
        // Only after `poll`: a result that is there at the deadline counts.
        match this.deadline {
            Some(deadline) if deadline <= Instant::now() => Poll::Ready(None),
            Some(deadline) => {
                this.alarm = Some(this.timer.set(deadline, this.alarm, context.waker()));
                Poll::Pending
            }
            None => Poll::Pending,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{sync::mpsc, task::Wake};

    use super::*;

    /// A waker can hold a task, and the task another alarm. The last reference to such a waker was once dropped under
    /// the lock of the alarms, and dropping the other alarm waited for the same lock.
    #[test]
    fn a_waker_that_holds_an_alarm_is_dropped_without_the_lock() {
        type Alarm = Pin<Box<dyn Future<Output = Option<()>> + Send>>;

        struct Task(#[expect(dead_code, reason = "held until the task is dropped")] Mutex<Alarm>);

        impl Wake for Task {
            fn wake(self: Arc<Self>) {}
        }

        fn alarm(timer: &'static Timer, waker: &Waker) -> Alarm {
            let mut alarm: Alarm =
                Box::pin(timer.bounded(Duration::from_secs(3600), |_| Poll::<()>::Pending));
            assert!(alarm.as_mut().poll(&mut Context::from_waker(waker)).is_pending());
            alarm
        }

        let timer: &'static Timer = Box::leak(Box::new(Timer::start(|| {}).unwrap()));
        let task = || Waker::from(Arc::new(Task(Mutex::new(alarm(timer, Waker::noop())))));
        let removed = alarm(timer, &task());
        let mut replaced = alarm(timer, &task());
        let (done, ended) = mpsc::channel();
        std::thread::spawn(move || {
            drop(removed);
            assert!(replaced.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
            done.send(()).unwrap();
        });
        ended.recv_timeout(Duration::from_secs(10)).expect("the lock is free while wakers are dropped");
    }

    #[test]
    fn a_wait_ends_at_its_bound() {
        let begun = Instant::now();
        let never = block_until(Duration::from_millis(20), |_| Poll::<()>::Pending);
        assert_eq!(never, None);
        assert!(begun.elapsed() >= Duration::from_millis(20));
        assert_eq!(block_until(Duration::ZERO, |_| Poll::Ready(5)), Some(5));
    }

    #[test]
    fn a_task_is_woken_at_its_bound() {
        let timer = Timer::start(|| {}).unwrap();
        let mut task = Box::pin(timer.bounded(Duration::from_millis(20), |_| Poll::<()>::Pending));
        let result =
            block_until(Duration::from_secs(10), |waker| task.as_mut().poll(&mut Context::from_waker(waker)));
        assert_eq!(result, Some(None));
    }
}
