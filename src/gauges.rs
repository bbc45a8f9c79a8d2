//! Numbers and states that the writer's thread publishes, and other threads read while it works.

use std::{
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use crate::chain::Head;

/// The gauges of one log. Written by the writer's thread alone, read by any thread.
#[derive(Debug, Default)]
pub(crate) struct Gauges {
    pub(crate) durable_events: Gauge,
    pub(crate) records_since_sync: Gauge,
    pub(crate) syncs: Gauge,
    pub(crate) last_sync_nanos: Gauge,
    pub(crate) written_bytes: Gauge,
    pub(crate) segments: Gauge,
    pub(crate) free_bytes: Gauge,
    pub(crate) failing: Flag,
    pub(crate) low_space: Flag,
    /// The durable head cannot be noted in the chain's lock file. Later writing depends on it.
    pub(crate) head_not_noted: Flag,
    /// A new segment was due, and could not be begun. Later writing depends on it.
    pub(crate) cannot_rotate: Flag,
    /// Something other than the writer changed the live segment.
    pub(crate) tampered: Flag,
    /// The `close` record is durable.
    pub(crate) closed_in_order: Flag,
    /// Guards the durable head, which does not fit an atomic. Held only to copy it.
    head: Mutex<Option<Head>>,
}

/// A number. Relaxed: each is read for itself, and orders no other memory.
#[derive(Debug, Default)]
pub(crate) struct Gauge(AtomicU64);

impl Gauge {
    pub(crate) fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    pub(crate) fn set(&self, value: u64) {
        self.0.store(value, Ordering::Relaxed);
    }

    pub(crate) fn add(&self, value: u64) {
        self.0.fetch_add(value, Ordering::Relaxed);
    }
}

/// A state. Acquire and release: a thread that sees a change also sees what was written before it, because threads act
/// on the state.
#[derive(Debug, Default)]
pub(crate) struct Flag(AtomicBool);

impl Flag {
    pub(crate) fn get(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }

    /// Sets the state, and returns whether that changed it.
    pub(crate) fn set(&self, value: bool) -> bool {
        self.0.swap(value, Ordering::AcqRel) != value
    }
}

impl Gauges {
    pub(crate) fn head(&self) -> Option<Head> {
        *self.head.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn set_head(&self, head: Head) {
        *self.head.lock().unwrap_or_else(PoisonError::into_inner) = Some(head);
    }

    pub(crate) fn is_degraded(&self) -> bool {
        self.head_not_noted.get() || self.cannot_rotate.get()
    }

    /// Clears both problems, because a new segment was begun and its head noted.
    pub(crate) fn segment_begun(&self) {
        self.head_not_noted.set(false);
        self.cannot_rotate.set(false);
    }

    pub(crate) fn last_sync(&self) -> Duration {
        Duration::from_nanos(self.last_sync_nanos.get())
    }
}
