//! The side of the queue that handles and waiting threads use.

use super::{Duration, LossReason, Ordering, Poll, Queue, Stage, Stats, Ticket, Waker, losses, register};

impl Queue {
    /// Returns the last event that was accepted.
    pub(crate) fn accepted(&self) -> Ticket {
        self.lock().accepted
    }

    pub(crate) fn is_durable(&self, ticket: Ticket) -> bool {
        self.durable.load(Ordering::Acquire) >= ticket
    }

    pub(crate) fn is_stalled(&self) -> bool {
        self.stalled.load(Ordering::Acquire)
    }

    /// Returns whether the part of the queue that is open to routine events is full.
    pub(crate) fn is_overloaded(&self) -> bool {
        self.lock().held_bytes >= self.settings.bytes / 4 * 3
    }

    pub(crate) fn stage(&self) -> Stage {
        self.lock().stage
    }

    /// Returns how many accepted events are not durable.
    pub(crate) fn not_durable(&self) -> u64 {
        let state = self.lock();
        state.accepted.saturating_sub(self.durable.load(Ordering::Acquire))
    }

    /// Requests a new segment, and returns the number to pass to `poll_rotated`.
    pub(crate) fn ask_rotation(&self) -> u64 {
        let mut state = self.lock();
        state.rotations_wanted += 1;
        let number = state.rotations_wanted;
        self.unlock(state);
        number
    }

    /// Polls whether a rotation is done. Ready with `false` if the log was closed before.
    pub(crate) fn poll_rotated(&self, number: u64, waker: &Waker) -> Poll<bool> {
        let mut state = self.lock();
        let is_done = state.rotations_done >= number;
        if is_done || state.stage == Stage::Closed {
            return Poll::Ready(is_done);
        }
        register(&mut state.rotate, number, waker);
        Poll::Pending
    }

    /// Moves the log to a later stage. An earlier one changes nothing.
    pub(crate) fn end(&self, next: Stage) {
        let mut state = self.lock();
        state.stage = state.stage.max(next);
        drop(state);
        // Emitters that wait for room must see the new stage: their events are lost.
        self.room.notify_all();
        self.wake_writer();
    }

    /// Polls whether the writer has ended.
    pub(crate) fn poll_closed(&self, waker: &Waker) -> Poll<()> {
        let mut state = self.lock();
        if state.stage == Stage::Closed {
            return Poll::Ready(());
        }
        // No event ever has this number, so only `closed` wakes it.
        register(&mut state.waiters, Ticket::MAX, waker);
        Poll::Pending
    }

    /// Fills in the counters that the queue keeps.
    pub(crate) fn fill(&self, numbers: &mut Stats) {
        if self.is_forked() {
            // The child's own losses are all it has: the other counters are behind a lock that may be held for ever.
            let lost = self.lost_in_child.each_ref().map(|lost| lost.load(Ordering::Relaxed));
            numbers.lost = losses::list(LossReason::Forked, lost);
            return;
        }
        let now = self.clock.wall();
        let state = self.lock();
        // All under one lock, so that the counters fit each other.
        numbers.accepted_critical = state.accepted_critical;
        numbers.accepted_routine = state.accepted - state.accepted_critical;
        numbers.lost = state.losses.list();
        numbers.unconfirmed_waits = state.unconfirmed;
        numbers.queued_events = state.buffers.drafts();
        numbers.queued_bytes = state.held_bytes;
        // What the writer has taken is older than anything queued.
        let oldest = state.oldest_taken.or(state.oldest_queued);
        numbers.oldest_not_durable = oldest.map_or(Duration::ZERO, |oldest| now.since(oldest));
    }
}
