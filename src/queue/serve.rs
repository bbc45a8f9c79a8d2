//! The side of the queue that the writer serves.

use super::{
    Chunks, Duration, EAGER_WAKE_BYTES, LossReason, NoticeCode, Ordering, Orders, Pause, Queue, Stage, State,
    Take, Ticket, Timestamp, WAKE_BYTES, Waker, chunk, thread,
};
use crate::wait::wake_quietly;

/// How long the writer waits for a crowd at most, however slow the disk is: it does nothing else meanwhile.
pub(super) const LONGEST_GATHERING: Duration = Duration::from_millis(1);
/// A microsecond or so, in which emitters have the lock for themselves.
const SPINS_BETWEEN_LOOKS: u32 = 20;

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

    /// Takes everything that is queued, and says what else there is to do.
    pub(crate) fn take(&self, batch: &mut Chunks) -> Orders {
        let mut state = self.lock();
        state.put_gaps_before_next();
        state.chunks.move_to(batch);
        batch.give_spare_to(&mut state.chunks);
        state.queued_bytes = 0;
        state.eager = state.eager.saturating_sub(1);
        let oldest = state.oldest_queued.take();
        state.oldest_taken = state.oldest_taken.or(oldest);
        state.last_take = Take { after: state.last_take.through, through: state.accepted, oldest };
        state.rotations_seen = state.rotations_wanted;
        Orders { oldest, ..state.orders() }
    }

    /// What there is to do, leaving the drafts where they are.
    pub(crate) fn look(&self) -> Orders {
        self.lock().orders()
    }

    /// Waits for those who were just told that their events are durable, and will want the next sync. Whoever
    /// wants it already is kept waiting: so not for long, and without giving up the processor, which a busy
    /// machine gives back much later.
    fn await_crowd(&self) {
        let end = self.clock.elapsed() + self.longest_gathering();
        loop {
            let mut state = self.lock();
            let is_away = state.crowd.is_away(state.waiters.len());
            let is_over = state.stage > Stage::Open || state.blocked > 0 || self.clock.elapsed() >= end;
            if !is_away || is_over {
                state.crowd.met(!is_away);
                return;
            }
            drop(state);
            for _ in 0..SPINS_BETWEEN_LOOKS {
                std::hint::spin_loop();
            }
        }
    }

    /// Half a sync: what is gained is the other half, or more. And no part of the wait bound that matters.
    pub(super) fn longest_gathering(&self) -> Duration {
        let half_a_sync = Duration::from_nanos(self.gauges.last_sync_nanos.get() / 2);
        half_a_sync.min(LONGEST_GATHERING).min(self.settings.wait_bound / 10)
    }

    /// Pauses the writer's thread until `until` on the clock, or until something cuts it short.
    pub(crate) fn pause(&self, pause: Pause, until: Duration) {
        if matches!(pause, Pause::Doze | Pause::Sleep) {
            self.await_crowd();
        }
        let mut state = self.lock();
        let nothing_to_do = match pause {
            Pause::None => false,
            Pause::Doze => !self.is_urgent(&state),
            Pause::Sleep => !self.is_urgent(&state) && state.chunks.is_empty() && !state.losses.are_pending(),
            Pause::Backoff => state.stage < Stage::Abandoned,
        };
        if !nothing_to_do && !planted!(PauseWithoutLook) {
            return;
        }
        let begun_at = state.stage;
        state.pause = pause;
        drop(state);
        loop {
            let rest = until.saturating_sub(self.clock.elapsed());
            if rest.is_zero() {
                break;
            }
            thread::park_timeout(rest);
            let state = self.lock();
            // An unpark can be left over from an earlier wake.
            if state.pause != pause || state.stage != begun_at {
                break;
            }
        }
        self.lock().pause = Pause::None;
    }

    /// Everything up to `ticket` is durable; of what it took, the writer still holds `holding` bytes.
    pub(crate) fn publish(&self, ticket: Ticket, holding: u64) {
        let mut state = self.lock();
        self.durable.store(ticket, Ordering::Release);
        state.held_bytes = state.queued_bytes + holding;
        if planted!(OwnRecordsHoldRoom) {
            state.held_bytes += 100;
        }
        if holding == 0 {
            state.oldest_taken = None;
        } else if ticket >= state.last_take.after {
            state.oldest_taken = state.last_take.oldest;
        }
        let was_stalled = self.stalled.swap(false, Ordering::AcqRel);
        // After a stall, those who gave up are still registered.
        let waiting = if was_stalled { 0 } else { state.waiters.len() };
        state.crowd.told(waiting);
        let ready: Vec<Waker> =
            state.waiters.extract_if(.., |(at, _)| *at <= ticket).map(|(_, waker)| waker).collect();
        // From here on they have room, even if it takes them a while to see it: a writer that took
        // them for waiting would go round and round until they have run.
        let blocked = std::mem::take(&mut state.blocked) > 0;
        state.room_made += u64::from(blocked);
        drop(state);
        if blocked {
            self.room.notify_all();
        }
        if was_stalled {
            self.notifier.tell(NoticeCode::Healed, "the disk answers again");
        }
        ready.into_iter().for_each(wake_quietly);
    }

    /// Bytes that will never be written make room, and are counted as lost.
    pub(crate) fn give_up(&self, batch: &Chunks, reason: LossReason) {
        let now = Timestamp::now();
        for entry in batch.iter().flat_map(chunk::Chunk::entries) {
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
        drop(state);
        self.room.notify_all();
        waiters.into_iter().chain(rotate).for_each(|(_, waker)| wake_quietly(waker));
    }
}

impl State {
    fn orders(&self) -> Orders {
        Orders {
            wanted: self.wanted,
            room_wanted: self.blocked > 0,
            rotations: self.rotations_wanted,
            stage: self.stage,
            oldest: None,
        }
    }
}
