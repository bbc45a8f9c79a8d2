//! The side of the queue that the writer's thread uses.

use super::{
    Clock, DraftBuffers, Duration, EAGER_WAKE_BYTES, Group, LossReason, MutexGuard, NoticeKind, Ordering,
    Orders, Pause, Queue, Refused, Stage, State, Take, Ticket, WAKE_BYTES, Waker, draft_buffer, thread,
};
use crate::wait::wake_quietly;

impl Queue {
    /// Registers the calling thread as the writer's, which is to be woken.
    pub(crate) fn attach_writer(&self) {
        drop(self.writer.set(thread::current()));
    }

    pub(super) fn wake_writer(&self) {
        if let Some(writer) = self.writer.get() {
            writer.unpark();
        }
    }

    /// Releases the lock after a change of the state, and wakes the writer if its pause must end.
    pub(super) fn unlock(&self, mut state: MutexGuard<'_, State>) {
        let wake = self.claim_wake(&mut state);
        // Released before the wake-up: the first thing that the woken writer does is to take this lock.
        drop(state);
        if wake {
            self.wake_writer();
        }
    }

    /// Ends the writer's pause if it must end now, and returns whether the caller must wake its thread.
    pub(super) fn claim_wake(&self, state: &mut State) -> bool {
        let wake = match state.pause {
            Pause::None | Pause::Backoff => false,
            Pause::Doze => self.is_urgent(state),
            Pause::Sleep => true,
        };
        if wake {
            state.pause = Pause::None;
        }
        wake
    }

    /// Returns whether the writer has work that cannot wait for the end of a doze.
    pub(super) fn is_urgent(&self, state: &State) -> bool {
        state.wanted > self.durable.load(Ordering::Acquire)
            || state.queued_bytes >= if state.eager > 0 { EAGER_WAKE_BYTES } else { WAKE_BYTES }
            || state.blocked > 0
            || state.rotations_wanted > state.rotations_seen
            || state.stage > Stage::Open
    }

    /// Ends the current or the next pause of the writer, of whatever kind, for work that is not in the queue.
    pub(crate) fn nudge(&self) {
        self.lock().nudged = true;
        self.wake_writer();
    }

    /// Moves all queued drafts to `batch`, and returns what else there is to do.
    pub(crate) fn take(&self, batch: &mut DraftBuffers) -> Orders {
        self.lock().hand_over(batch, self.clock)
    }

    /// Takes drafts that came since `orders`, if a caller wants them durable, for the last time before a sync.
    pub(crate) fn take_latecomers(&self, orders: &Orders, batch: &mut DraftBuffers) -> Option<Orders> {
        let mut state = self.lock();
        // Otherwise they can wait for the next batch, and this sync starts sooner.
        let later = (state.wanted > orders.wanted).then(|| state.hand_over(batch, self.clock));
        let through = state.last_take.through;
        state.sleepers.taken_through(through);
        later
    }

    /// Pauses the writer's thread until the clock shows `until`, or something ends the pause early.
    pub(crate) fn pause(&self, pause: Pause, until: Duration) {
        let mut state = self.lock();
        // Work that came before the pause caused no wake-up, because the writer was not pausing then.
        let nothing_to_do = match pause {
            Pause::None => false,
            Pause::Doze => !self.is_urgent(&state),
            Pause::Sleep => {
                !self.is_urgent(&state) && state.buffers.is_empty() && !state.losses.are_pending()
            }
            Pause::Backoff => state.stage < Stage::Abandoned,
        };
        if std::mem::take(&mut state.nudged) || !nothing_to_do {
            return;
        }
        let begun_at = state.stage;
        state.pause = pause;
        drop(state);
        loop {
            let rest = until.saturating_sub(self.clock.elapsed());
            if !rest.is_zero() {
                thread::park_timeout(rest);
            }
            let mut state = self.lock();
            // The token of an earlier unpark can end a park at once, so the state decides.
            let is_nudged = std::mem::take(&mut state.nudged);
            if is_nudged || rest.is_zero() || state.pause != pause || state.stage != begun_at {
                state.pause = Pause::None;
                return;
            }
        }
    }

    /// Publishes that everything up to `ticket` is durable, and wakes those who wait for it.
    ///
    /// `holding` is how many bytes of taken drafts the writer still holds. `tell` is called before any waiter is woken.
    ///
    /// # Errors
    ///
    /// Publishes nothing if one of these events was refused meanwhile. Those are returned, and an `unconfirmed` record
    /// must name them first.
    pub(crate) fn publish(&self, ticket: Ticket, holding: u64, tell: impl FnOnce()) -> Result<(), Refused> {
        let mut state = self.lock();
        if state.refused.first().is_some_and(|first| first <= ticket) {
            return Err(state.refused.take(0, ticket));
        }
        tell();
        // Release: a waiter on the fast path, which reads this without the lock, also sees what `tell` wrote.
        self.durable.store(ticket, Ordering::Release);
        state.held_bytes = state.queued_bytes + holding;
        // If all earlier takes are durable, what is left is from the last take, and no older than its first event.
        if holding == 0 {
            state.oldest_taken = None;
        } else if ticket >= state.last_take.after {
            state.oldest_taken = state.last_take.oldest;
        }
        // A sync has succeeded, so a stall is over and calls may wait again.
        let was_stalled = self.stalled.swap(false, Ordering::AcqRel);
        let woken = state.sleepers.leave_through(ticket);
        let mut ready: Vec<Waker> =
            state.waiters.extract_if(.., |(at, _)| *at <= ticket).map(|(_, waker)| waker).collect();
        ready.extend(std::mem::take(&mut state.watchers).into_values());
        // The blocked threads have room from now on, even if it takes them a while to run. If they still counted
        // as waiting, the writer would spin until they have run.
        let blocked = std::mem::take(&mut state.blocked) > 0;
        state.room_made += u64::from(blocked);
        // Wakers are code of the application's runtime, and woken threads take the lock: both after it is released.
        drop(state);
        if blocked {
            self.room.notify_all();
        }
        if was_stalled {
            self.notifier.tell(NoticeKind::Healed, "the disk responds again");
        }
        self.ring(woken);
        ready.into_iter().for_each(wake_quietly);
        Ok(())
    }

    /// Removes and returns the events refused so far. The writer names them as soon as they are written.
    pub(crate) fn take_refused(&self) -> Refused {
        std::mem::take(&mut self.lock().refused)
    }

    /// Wakes groups of sleeping threads.
    fn ring(&self, groups: [bool; Group::COUNT]) {
        for (bell, is_served) in self.bells.iter().zip(groups) {
            if is_served {
                bell.ring();
            }
        }
    }

    /// Counts the events of a batch that will never be written as lost.
    pub(crate) fn give_up(&self, batch: &DraftBuffers, reason: LossReason) {
        let now = self.clock.wall();
        for draft in batch.iter().flat_map(draft_buffer::DraftBuffer::drafts) {
            if let Some(severity) = draft.severity {
                self.lock().losses.count(reason, severity, now, false);
                if let Some(scope) = &draft.scope {
                    scope.lose(reason);
                }
            }
        }
    }

    /// Publishes that all rotations up to `number` are done.
    pub(crate) fn rotated(&self, number: u64) {
        let mut state = self.lock();
        state.rotations_done = state.rotations_done.max(number);
        let wakers = std::mem::take(&mut state.rotate);
        drop(state);
        for (_, waker) in wakers {
            wake_quietly(waker);
        }
    }

    /// Publishes that the writer has ended, so that nothing more becomes durable, and wakes every waiter.
    pub(crate) fn closed(&self) {
        let mut state = self.lock();
        state.stage = Stage::Closed;
        let waiters = std::mem::take(&mut state.waiters);
        let rotate = std::mem::take(&mut state.rotate);
        let watchers = std::mem::take(&mut state.watchers);
        let woken = state.sleepers.leave_through(Ticket::MAX);
        drop(state);
        self.ring(woken);
        self.room.notify_all();
        waiters.into_iter().chain(rotate).chain(watchers).for_each(|(_, waker)| wake_quietly(waker));
    }
}

impl State {
    /// Moves everything that is queued to `batch`.
    fn hand_over(&mut self, batch: &mut DraftBuffers, clock: Clock) -> Orders {
        // Pending losses go into this batch: there may be no later event for a gap to precede.
        self.put_gaps_before_next(clock);
        self.buffers.move_to(batch);
        batch.give_spare_to(&mut self.buffers);
        self.queued_bytes = 0;
        self.eager = self.eager.saturating_sub(1);
        let oldest = self.oldest_queued.take();
        self.oldest_taken = self.oldest_taken.or(oldest);
        self.last_take = Take { after: self.last_take.through, through: self.accepted, oldest };
        self.rotations_seen = self.rotations_wanted;
        Orders {
            wanted: self.wanted,
            room_wanted: self.blocked > 0,
            rotations: self.rotations_wanted,
            stage: self.stage,
            oldest,
        }
    }
}
