//! The locks, atomics and thread functions of the code that threads share: from `std`, or from a model checker.
//!
//! `--cfg loom` and `--cfg shuttle` are only for `testing/writer/models`. In neither checker does time pass: a
//! wait with a bound ends only when it is woken. A lost wake-up is therefore a deadlock, which both report.
//! `src/bell.rs` uses these too, so the checkers see the same bell as an application.

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

/// The functions that loom has, and stand-ins for those that it lacks.
#[cfg(loom)]
pub(crate) mod thread {
    pub(crate) use loom::thread::{Thread, current, park, spawn, yield_now};
    pub(crate) use std::thread::{scope, sleep};

    /// Parks without a timeout, because time does not pass in a model.
    pub(crate) fn park_timeout(_: std::time::Duration) {
        park();
    }
}
