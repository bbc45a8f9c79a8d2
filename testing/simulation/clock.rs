//! The wall clock of a simulation.

use std::cell::Cell;

use super::Timestamp;

thread_local! {
    static WALL: Cell<Option<Timestamp>> = const { Cell::new(None) };
}

/// Sets the wall clock of its thread while it lives. A simulation that read the real clock would
/// not run the same way twice.
#[derive(Debug)]
pub(crate) struct Simulated(());

impl Simulated {
    pub(crate) fn begin(at: Timestamp) -> Self {
        WALL.set(Some(at));
        Self(())
    }

    #[expect(clippy::unused_self, reason = "only who has one may set the clock")]
    pub(crate) fn set(&self, at: Timestamp) {
        WALL.set(Some(at));
    }

    pub(super) fn now() -> Option<Timestamp> {
        WALL.get()
    }
}

/// For tests that need a time, whichever it is.
#[cfg(test)]
impl Timestamp {
    pub(crate) fn now() -> Self {
        super::Clock::start().wall()
    }
}

impl Drop for Simulated {
    fn drop(&mut self) {
        WALL.set(None);
    }
}
