//! Threads that sleep until a bell rings, all woken by one call.
//!
//! Threads that are woken one after the other run, and their processors sleep again, before the next one is
//! called; so each call wakes a processor too. A futex(2) of our own in place of the condition variable was
//! tried: with 1, 2, 8 and 64 threads that wait for durable events it gains nothing.

use std::{sync::PoisonError, time::Duration};

use crate::sync::{Condvar, Mutex};

#[derive(Debug, Default)]
pub(crate) struct Bell {
    /// Guards how often it rang. Held only to look and to count.
    rings: Mutex<u32>,
    rung: Condvar,
}

impl Bell {
    /// How often it rang: what a thread that wants to hear the next time must not miss.
    pub(crate) fn rings(&self) -> u32 {
        *self.rings.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Wakes everybody who sleeps.
    pub(crate) fn ring(&self) {
        let mut rings = self.rings.lock().unwrap_or_else(PoisonError::into_inner);
        *rings = rings.wrapping_add(1);
        drop(rings);
        self.rung.notify_all();
    }

    /// Sleeps until it has rung since it was `heard`, or the time is over; also shorter.
    pub(crate) fn sleep(&self, heard: u32, time: Duration) {
        let rings = self.rings.lock().unwrap_or_else(PoisonError::into_inner);
        if *rings == heard {
            drop(self.rung.wait_timeout(rings, time));
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
    fn who_sleeps_is_woken_by_a_ring_or_at_the_end_of_the_time() {
        let bell = Bell::default();
        let (begun, mut sleeps) = (Instant::now(), 0);
        // A sleep may end early, but that is rare.
        while begun.elapsed() < Duration::from_millis(20) {
            bell.sleep(bell.rings(), Duration::from_millis(20));
            sleeps += 1;
        }
        assert!(sleeps < 10, "it did not sleep, {sleeps} times");
        // A ring between the look and the sleep is not missed.
        let (heard, begun) = (bell.rings(), Instant::now());
        bell.ring();
        bell.sleep(heard, LONG);
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
                    let mut heard = bell.rings();
                    listening.fetch_add(1, Ordering::Release);
                    while !is_over.load(Ordering::Acquire) {
                        bell.sleep(heard, LONG);
                        heard = bell.rings();
                    }
                });
            }
            while listening.load(Ordering::Acquire) < THREADS {
                thread::yield_now();
            }
            is_over.store(true, Ordering::Release);
            bell.ring();
        });
        assert!(begun.elapsed() < LONG, "somebody slept to the end");
    }
}
