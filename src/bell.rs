//! Threads that sleep until a bell rings, all woken by one call.
//!
//! Threads that are woken one after the other run, and their processors sleep again, before the next one is
//! called; so each call wakes a processor too. On Linux one futex(2) call wakes all of them.

#[cfg(all(target_os = "linux", not(any(loom, shuttle, miri))))]
pub(crate) use linux::Bell;
#[cfg(not(all(target_os = "linux", not(any(loom, shuttle, miri)))))]
pub(crate) use portable::Bell;

#[cfg(all(target_os = "linux", not(any(loom, shuttle, miri))))]
mod linux {
    use std::{
        sync::atomic::{AtomicU32, Ordering},
        time::Duration,
    };

    use rustix::thread::{
        Timespec,
        futex::{self, Flags},
    };

    const ALL: u32 = i32::MAX.unsigned_abs();

    #[derive(Debug, Default)]
    pub(crate) struct Bell {
        rings: AtomicU32,
    }

    impl Bell {
        /// How often it rang: what a thread that wants to hear the next time must not miss.
        pub(crate) fn rings(&self) -> u32 {
            self.rings.load(Ordering::Acquire)
        }

        /// Wakes everybody who sleeps.
        pub(crate) fn ring(&self) {
            self.rings.fetch_add(1, Ordering::Release);
            // Fails only where the word is not in memory.
            let _woken = futex::wake(&self.rings, Flags::PRIVATE, ALL);
        }

        /// Sleeps until it has rung since it was `heard`, or the time is over; also shorter.
        pub(crate) fn sleep(&self, heard: u32, time: Duration) {
            let time = Timespec::try_from(time).ok();
            // It rang already, the time is over, a signal came: the caller looks in any case.
            let _cause = futex::wait(&self.rings, Flags::PRIVATE, heard, time.as_ref());
        }
    }
}

/// The same with what every system has, and the model checkers know.
#[cfg(any(test, not(all(target_os = "linux", not(any(loom, shuttle, miri))))))]
mod portable {
    use std::{sync::PoisonError, time::Duration};

    use crate::sync::{Condvar, Mutex};

    #[derive(Debug, Default)]
    pub(crate) struct Bell {
        /// Guards how often it rang. Held only to look and to count.
        rings: Mutex<u32>,
        rung: Condvar,
    }

    impl Bell {
        pub(crate) fn rings(&self) -> u32 {
            *self.rings.lock().unwrap_or_else(PoisonError::into_inner)
        }

        pub(crate) fn ring(&self) {
            let mut rings = self.rings.lock().unwrap_or_else(PoisonError::into_inner);
            *rings = rings.wrapping_add(1);
            drop(rings);
            self.rung.notify_all();
        }

        pub(crate) fn sleep(&self, heard: u32, time: Duration) {
            let rings = self.rings.lock().unwrap_or_else(PoisonError::into_inner);
            if *rings == heard {
                drop(self.rung.wait_timeout(rings, time));
            }
        }
    }
}

#[cfg(test)]
#[cfg(not(any(loom, shuttle)))]
mod tests {
    use std::{
        sync::atomic::{AtomicBool, AtomicU32, Ordering},
        thread,
        time::{Duration, Instant},
    };

    use super::{Bell, portable};

    const LONG: Duration = Duration::from_secs(10);

    /// The two bells must be the same.
    trait AnyBell: Default + Sync {
        fn rings(&self) -> u32;
        fn ring(&self);
        fn sleep(&self, heard: u32, time: Duration);
    }

    macro_rules! any_bell {
        ($($bell:ty),*) => {
            $(impl AnyBell for $bell {
                fn rings(&self) -> u32 {
                    Self::rings(self)
                }
                fn ring(&self) {
                    Self::ring(self);
                }
                fn sleep(&self, heard: u32, time: Duration) {
                    Self::sleep(self, heard, time);
                }
            })*
        };
    }
    any_bell!(Bell, portable::Bell);

    #[track_caller]
    fn check<B: AnyBell>() {
        let bell = B::default();
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
    fn one_ring_wakes_all(bell: &impl AnyBell) {
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

    #[test]
    fn who_sleeps_is_woken_by_a_ring_or_at_the_end_of_the_time() {
        check::<Bell>();
        check::<portable::Bell>();
    }
}
