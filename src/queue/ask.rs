//! What handles and waiting threads ask of the queue.

use super::{Duration, LossReason, Ordering, Poll, Queue, Stage, Stats, Ticket, Waker, losses, register};

impl Queue {
    pub(crate) fn accepted(&self) -> Ticket {
        self.lock().accepted
    }

    pub(crate) fn is_durable(&self, ticket: Ticket) -> bool {
        self.durable.load(Ordering::Acquire) >= ticket
    }

    pub(crate) fn is_stalled(&self) -> bool {
        self.stalled.load(Ordering::Acquire)
    }

    pub(crate) fn is_overloaded(&self) -> bool {
        self.lock().held_bytes >= self.settings.bytes / 4 * 3
    }

    pub(crate) fn stage(&self) -> Stage {
        self.lock().stage
    }

    pub(crate) fn not_durable(&self) -> u64 {
        let state = self.lock();
        state.accepted.saturating_sub(self.durable.load(Ordering::Acquire))
    }

    /// Asks for a new segment; returns what `poll_rotated` is asked with.
    pub(crate) fn ask_rotation(&self) -> u64 {
        let mut state = self.lock();
        state.rotations_wanted += 1;
        let number = state.rotations_wanted;
        self.unlock(state);
        number
    }

    /// Ready once that rotation is done, which it says, or never will be because the log is closed.
    pub(crate) fn poll_rotated(&self, number: u64, waker: &Waker) -> Poll<bool> {
        let mut state = self.lock();
        let is_done = state.rotations_done >= number;
        if is_done || state.stage == Stage::Closed {
            return Poll::Ready(is_done);
        }
        register(&mut state.rotate, number, waker);
        Poll::Pending
    }

    /// Moves on to a later stage: closing, abandoned.
    pub(crate) fn end(&self, next: Stage) {
        let mut state = self.lock();
        state.stage = state.stage.max(next);
        drop(state);
        // Who waits for room will not get it.
        self.room.notify_all();
        self.wake_writer();
    }

    pub(crate) fn poll_closed(&self, waker: &Waker) -> Poll<()> {
        let mut state = self.lock();
        if state.stage == Stage::Closed {
            return Poll::Ready(());
        }
        register(&mut state.waiters, Ticket::MAX, waker);
        Poll::Pending
    }

    pub(crate) fn fill(&self, numbers: &mut Stats) {
        if self.is_forked() {
            let lost = self.lost_in_child.each_ref().map(|lost| lost.load(Ordering::Relaxed));
            numbers.lost = losses::list(LossReason::Forked, lost);
            return;
        }
        let now = self.clock.wall();
        let state = self.lock();
        numbers.accepted_critical = state.accepted_critical;
        numbers.accepted_routine = state.accepted - state.accepted_critical;
        numbers.lost = state.losses.list();
        numbers.unconfirmed_waits = state.unconfirmed;
        numbers.queued_events = state.chunks.drafts();
        numbers.queued_bytes = state.held_bytes;
        let oldest = state.oldest_taken.or(state.oldest_queued);
        numbers.oldest_not_durable = oldest.map_or(Duration::ZERO, |oldest| now.since(oldest));
    }
}
