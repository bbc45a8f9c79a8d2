//! An event count: threads sleep until the bell rings, and one call wakes all of them.
//!
//! If threads are woken by one call each, a woken thread often runs, and its processor idles again, before the
//! next call. Each call then has to wake a processor too. A hand-written futex(2) instead of the condition
//! variable was measured with 1, 2, 8 and 64 threads that wait for durable events. It gained nothing.

use std::{sync::PoisonError, time::Duration};

use crate::sync::{Condvar, Mutex};

/// A counter of rings that threads can sleep on.
#[derive(Debug, Default)]
pub(crate) struct Bell {
    /// Guards how often the bell rang. Held only to read or increment the count.
    rings: Mutex<u32>,
    rung: Condvar,
}

impl Bell {
    /// Returns how often the bell rang. A thread reads this before it checks its condition, and passes it to `sleep`:
    /// a ring in between is then not missed.
    pub(crate) fn rings(&self) -> u32 {
        *self.rings.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Wakes all threads that sleep.
    pub(crate) fn ring(&self) {
        let mut rings = self.rings.lock().unwrap_or_else(PoisonError::into_inner);
        *rings = rings.wrapping_add(1);
        // Released before the wake-up: the first thing that a woken thread does is to take this lock.
        drop(rings);
        self.rung.notify_all();
    }

    /// Sleeps until the bell has rung since `rings` returned `seen`, or `timeout` has passed. May return early.
    pub(crate) fn sleep(&self, seen: u32, timeout: Duration) {
        let rings = self.rings.lock().unwrap_or_else(PoisonError::into_inner);
        if *rings == seen {
            drop(self.rung.wait_timeout(rings, timeout));
        }
    }
}

#[cfg(test)]
#[cfg(not(any(loom, shuttle)))]
mod tests {
    use std::{
        sync::atomic::{AtomicBool, AtomicU32, Ordering},
        thread,
        time::Instant,
    };

    use super::*;

    const LONG: Duration = Duration::from_secs(10);

    #[test]
    fn a_sleeping_thread_is_woken_by_a_ring_or_at_the_timeout() {
        let bell = Bell::default();
        let (begun, mut sleeps) = (Instant::now(), 0);
        // A sleep may end early, but that is rare.
        while begun.elapsed() < Duration::from_millis(20) {
            bell.sleep(bell.rings(), Duration::from_millis(20));
            sleeps += 1;
        }
        assert!(sleeps < 10, "it did not sleep, {sleeps} times");
        // A ring between `rings` and `sleep` is not missed.
        let (seen, begun) = (bell.rings(), Instant::now());
        bell.ring();
        bell.sleep(seen, LONG);
        assert!(begun.elapsed() < LONG, "it missed the ring");
        for _ in 0..100 {
            one_ring_wakes_all(&bell);
        }
    }

    #[track_caller]
    fn one_ring_wakes_all(bell: &Bell) {
        const THREADS: u32 = 8;
        let (listening, is_over) = (AtomicU32::new(0), AtomicBool::new(false));
        let begun = Instant::now();
        thread::scope(|scope| {
            for _ in 0..THREADS {
                scope.spawn(|| {
                    let mut seen = bell.rings();
                    listening.fetch_add(1, Ordering::Release);
                    while !is_over.load(Ordering::Acquire) {
                        bell.sleep(seen, LONG);
                        seen = bell.rings();
                    }
                });
            }
            while listening.load(Ordering::Acquire) < THREADS {
                thread::yield_now();
            }
            is_over.store(true, Ordering::Release);
            bell.ring();
        });
        assert!(begun.elapsed() < LONG, "a thread slept until the timeout");
    }
}
