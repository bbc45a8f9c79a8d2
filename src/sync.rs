//! What threads meet in: std's locks, atomics and parking, or in models of it a checker's.
//!
//! `--cfg loom` and `--cfg shuttle` are for `testing/writer/models` alone. Neither checker lets time pass:
//! a wait with a bound ends only when somebody ends it, so that a wake-up that is lost is a deadlock,
//! which both report. They see the bell of `src/bell.rs` that other systems have; its tests hold that of Linux
//! to the same.

#[cfg(not(any(loom, shuttle)))]
pub(crate) use std::{
    sync::{Condvar, Mutex, MutexGuard, atomic},
    thread,
};

#[cfg(loom)]
pub(crate) use loom::sync::{Condvar, Mutex, MutexGuard, atomic};

#[cfg(shuttle)]
pub(crate) use shuttle::{
    sync::{Condvar, Mutex, MutexGuard, atomic},
    thread,
};

/// What loom lacks, beside what it has.
#[cfg(loom)]
pub(crate) mod thread {
    pub(crate) use loom::thread::{Thread, current, park, spawn, yield_now};
    pub(crate) use std::thread::{scope, sleep};

    pub(crate) fn park_timeout(_: std::time::Duration) {
        park();
    }
}
