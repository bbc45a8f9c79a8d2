//! The side of the queue that the writer serves.

use super::{
    Clock, DraftBuffers, Duration, EAGER_WAKE_BYTES, Group, LossReason, MutexGuard, NoticeKind, Ordering,
    Orders, Pause, Queue, Refused, Stage, State, Take, Ticket, WAKE_BYTES, Waker, draft_buffer, thread,
};
use crate::wait::wake_quietly;

impl Queue {
    /// Names the calling thread as the one to wake.
    pub(crate) fn attach_writer(&self) {
        drop(self.writer.set(thread::current()));
    }

    pub(super) fn wake_writer(&self) {
        if let Some(writer) = self.writer.get() {
            writer.unpark();
        }
    }

    /// Ends a change of the state, and the pause of the writer where it must not last.
    pub(super) fn unlock(&self, mut state: MutexGuard<'_, State>) {
        let wake = self.claim_wake(&mut state);
        drop(state);
        if wake {
            self.wake_writer();
        }
    }

    /// Whether the writer's pause must end now; whoever is told so must wake it.
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

    pub(super) fn is_urgent(&self, state: &State) -> bool {
        state.wanted > self.durable.load(Ordering::Acquire)
            || state.queued_bytes >= if state.eager > 0 { EAGER_WAKE_BYTES } else { WAKE_BYTES }
            || state.blocked > 0
            || state.rotations_wanted > state.rotations_seen
            || state.stage > Stage::Open
    }

    /// Ends the pause of the writer, or its next one, whichever it is: something else than an event waits for it.
    pub(crate) fn nudge(&self) {
        self.lock().nudged = true;
        self.wake_writer();
    }

    /// Takes everything that is queued, and says what else there is to do.
    pub(crate) fn take(&self, batch: &mut DraftBuffers) -> Orders {
        self.lock().hand_over(batch, self.clock)
    }

    /// Takes what came since `orders` were given, where somebody wants it, for the last time before a sync.
    pub(crate) fn take_latecomers(&self, orders: &Orders, batch: &mut DraftBuffers) -> Option<Orders> {
        let mut state = self.lock();
        let later = (state.wanted > orders.wanted).then(|| state.hand_over(batch, self.clock));
        let through = state.last_take.through;
        state.sleepers.taken_through(through);
        later
    }

    /// Pauses the writer's thread until `until` on the clock, or until something cuts it short.
    pub(crate) fn pause(&self, pause: Pause, until: Duration) {
        let mut state = self.lock();
        let nothing_to_do = match pause {
            Pause::None => false,
            Pause::Doze => !self.is_urgent(&state),
            Pause::Sleep => !self.is_urgent(&state) && state.chunks.is_empty() && !state.losses.are_pending(),
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
            // An unpark can be left over from an earlier wake.
            let is_nudged = std::mem::take(&mut state.nudged);
            if is_nudged || rest.is_zero() || state.pause != pause || state.stage != begun_at {
                state.pause = Pause::None;
                return;
            }
        }
    }

    /// Everything up to `ticket` is durable; of what it took, the writer still holds `holding` bytes. `tell` is called
    /// before anybody is woken.
    ///
    /// Where somebody was told meanwhile that one of these events is not confirmed, nothing is published: those are
    /// returned, and must be named first.
    pub(crate) fn publish(&self, ticket: Ticket, holding: u64, tell: impl FnOnce()) -> Result<(), Refused> {
        let mut state = self.lock();
        if state.refused.first().is_some_and(|first| first <= ticket) {
            return Err(state.refused.take(0, ticket));
        }
        tell();
        self.durable.store(ticket, Ordering::Release);
        state.held_bytes = state.queued_bytes + holding;
        if holding == 0 {
            state.oldest_taken = None;
        } else if ticket >= state.last_take.after {
            state.oldest_taken = state.last_take.oldest;
        }
        let was_stalled = self.stalled.swap(false, Ordering::AcqRel);
        let woken = state.sleepers.leave_through(ticket);
        let mut ready: Vec<Waker> =
            state.waiters.extract_if(.., |(at, _)| *at <= ticket).map(|(_, waker)| waker).collect();
        ready.extend(std::mem::take(&mut state.watchers).into_values());
        // From here on they have room, even if it takes them a while to see it: a writer that took
        // them for waiting would go round and round until they have run.
        let blocked = std::mem::take(&mut state.blocked) > 0;
        state.room_made += u64::from(blocked);
        drop(state);
        if blocked {
            self.room.notify_all();
        }
        if was_stalled {
            self.notifier.tell(NoticeKind::Healed, "the disk answers again");
        }
        self.ring(woken);
        ready.into_iter().for_each(wake_quietly);
        Ok(())
    }

    /// Takes what was refused so far, for the writer to name as soon as it is written.
    pub(crate) fn take_refused(&self) -> Refused {
        std::mem::take(&mut self.lock().refused)
    }

    fn ring(&self, groups: [bool; Group::COUNT]) {
        for (bell, is_served) in self.bells.iter().zip(groups) {
            if is_served {
                bell.ring();
            }
        }
    }

    /// Bytes that will never be written make room, and are counted as lost.
    pub(crate) fn give_up(&self, batch: &DraftBuffers, reason: LossReason) {
        let now = self.clock.wall();
        for entry in batch.iter().flat_map(draft_buffer::DraftBuffer::drafts) {
            if let Some(severity) = entry.severity {
                self.lock().losses.count(reason, severity, now, false);
                if let Some(scope) = &entry.scope {
                    scope.lose(reason);
                }
            }
        }
    }

    pub(crate) fn rotated(&self, number: u64) {
        let mut state = self.lock();
        state.rotations_done = state.rotations_done.max(number);
        let wakers = std::mem::take(&mut state.rotate);
        drop(state);
        for (_, waker) in wakers {
            wake_quietly(waker);
        }
    }

    /// The writer has ended; nothing will become durable any more.
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
    /// Everything that is queued.
    fn hand_over(&mut self, batch: &mut DraftBuffers, clock: Clock) -> Orders {
        self.put_gaps_before_next(clock);
        self.chunks.move_to(batch);
        batch.give_spare_to(&mut self.chunks);
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
