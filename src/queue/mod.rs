//! The only meeting place of threads: bounded, in order, a part kept for critical events.
//!
//! Emitters put drafts in, the writer takes them out and says what became durable. Losses are
//! counted under the same lock as drafts are queued, so a gap stands exactly where it happened.

mod chunk;
mod losses;
mod scope;

use std::{
    sync::{
        Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    task::{Poll, Waker},
    thread::{self, Thread},
    time::{Duration, Instant},
};

#[cfg(test)]
pub(crate) use chunk::MADE;
pub(crate) use chunk::{Chunk, Chunks};
pub(crate) use scope::Scope;

use crate::{
    FlushMode, OnFailure, OnFull, Severity,
    clock::{Clock, Timestamp},
    gauges::Gauges,
    notify::Notifier,
    stats::{LossReason, NoticeCode, Stats},
    wait::block_until,
};
use losses::{CriticalRate, Losses};

/// The how-manieth accepted event of this log, counted from 1.
pub(crate) type Ticket = u64;

/// An event that has no place in the chain yet.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Draft<'a> {
    /// What `format::Payload` wrote.
    pub(crate) payload: &'a [u8],
    pub(crate) severity: Severity,
    pub(crate) at: Timestamp,
}

/// What the queue is made with.
#[derive(Debug, Clone, Copy)]
pub(crate) struct QueueSettings {
    pub(crate) bytes: u64,
    pub(crate) wait_bound: Duration,
    pub(crate) flush_mode: FlushMode,
    pub(crate) on_full: OnFull,
    pub(crate) on_failure: OnFailure,
}

/// Queued bytes at which a dozing writer is woken: what one write carries.
const WAKE_BYTES: u64 = 512 * 1024;

/// Wakers kept while the log is stalled at most. Nobody waits then, and who waited before ends at
/// the bound: this only keeps tasks that gave up from piling up.
const MAX_STALLED_WAITERS: usize = 4096;

/// The queue of one log, shared by emitters, waiters and the writer.
#[derive(Debug)]
pub(crate) struct Queue {
    settings: QueueSettings,
    clock: Clock,
    pub(crate) gauges: Arc<Gauges>,
    pub(crate) notifier: Arc<Notifier>,
    /// Guards everything that emitters and the writer share. Held for a copy of one draft, or to
    /// swap buffers; never during I/O, formatting, or code of the application.
    state: Mutex<State>,
    /// Signalled when records became durable and so made room.
    room: Condvar,
    writer: OnceLock<Thread>,
    durable: AtomicU64,
    stalled: AtomicBool,
    fork: forkguard::Guard,
    lost_in_child: [AtomicU64; Severity::COUNT],
}

#[derive(Debug, Default)]
struct State {
    chunks: Chunks,
    /// Bytes queued and bytes not yet durable: what `queue_bytes` bounds.
    held_bytes: u64,
    /// Bytes in `chunks`.
    queued_bytes: u64,
    accepted: Ticket,
    accepted_critical: u64,
    /// The event up to which somebody wants durability now.
    wanted: Ticket,
    unconfirmed: u64,
    losses: Losses,
    critical_rate: CriticalRate,
    waiters: Vec<(Ticket, Waker)>,
    blocked: u32,
    pause: Pause,
    rotate: Vec<(u64, Waker)>,
    rotations_wanted: u64,
    /// How many of those the writer knows of.
    rotations_seen: u64,
    rotations_done: u64,
    /// The oldest event in `chunks`, and the oldest that the writer has and is not durable.
    oldest_queued: Option<Timestamp>,
    oldest_taken: Option<Timestamp>,
    stage: Stage,
}

/// What the writer does while nothing is urgent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Pause {
    /// Not pausing: it will look again by itself.
    #[default]
    None,
    /// For a few milliseconds; routine drafts do not cut it short.
    Doze,
    /// Until something happens.
    Sleep,
    /// After a failure; only an end cuts it short.
    Backoff,
}

/// How far a log has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub(crate) enum Stage {
    #[default]
    Open,
    /// Takes no more events; the writer makes the rest durable and writes `close`.
    Closing,
    /// As closing, but nobody waits any more: what cannot be written is given up.
    Abandoned,
    /// The process ends after a last attempt.
    Aborting,
    Closed,
}

/// What the writer has to do, as of one look at the queue.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Orders {
    /// Make everything up to this event durable now.
    pub(crate) wanted: Ticket,
    /// Somebody waits for room, which only a sync makes.
    pub(crate) room_wanted: bool,
    /// How many rotations were asked for.
    pub(crate) rotations: u64,
    pub(crate) stage: Stage,
}

impl Queue {
    pub(crate) fn new(
        settings: QueueSettings,
        clock: Clock,
        gauges: Arc<Gauges>,
        notifier: Arc<Notifier>,
    ) -> Self {
        Self {
            settings,
            clock,
            gauges,
            notifier,
            state: Mutex::default(),
            room: Condvar::new(),
            writer: OnceLock::new(),
            durable: AtomicU64::new(0),
            stalled: AtomicBool::new(false),
            fork: forkguard::new(),
            lost_in_child: Default::default(),
        }
    }

    pub(crate) fn wait_bound(&self) -> Duration {
        self.settings.wait_bound
    }

    /// Whether this process is a child of the one that opened the log: there is no writer here.
    pub(crate) fn is_forked(&self) -> bool {
        self.fork.clone().detected_fork()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    // ---- The emitting side.

    /// Takes an event in, and waits for it to be durable where the flush mode says so and no
    /// `confirm` will. Blocks at most for the wait bound.
    pub(crate) fn submit(&self, draft: &Draft<'_>, scope: Option<&Arc<Scope>>) {
        if self.is_forked() {
            return self.lose(LossReason::Forked, draft.severity, draft.at, scope);
        }
        let (state, admitted) = self.make_room(self.lock(), draft);
        if let Err(reason) = admitted {
            return self.lose_locked(state, reason, draft.severity, draft.at, scope);
        }
        let (ticket, wake) = self.push(state, draft, scope);
        if wake {
            self.wake_writer();
        }
        if scope.is_none() && self.waits(draft.severity) {
            self.wait_for_own(ticket, draft.severity);
        }
    }

    fn push(
        &self,
        mut state: MutexGuard<'_, State>,
        draft: &Draft<'_>,
        scope: Option<&Arc<Scope>>,
    ) -> (Ticket, bool) {
        state.put_gaps_before_next();
        state.accepted += 1;
        let ticket = state.accepted;
        if draft.severity == Severity::Critical {
            state.accepted_critical += 1;
            state.critical_rate.count(draft.at);
        }
        state.oldest_queued.get_or_insert(draft.at);
        if let Some(scope) = scope {
            scope.accept(ticket);
        } else if self.syncs_at_once(draft.severity) {
            state.wanted = ticket;
        }
        state.put(draft.payload, Some(draft.severity), scope.cloned());
        (ticket, self.claim_wake(&mut state))
    }

    /// Waits until the draft fits, or says why it never will.
    fn make_room<'a>(
        &'a self,
        mut state: MutexGuard<'a, State>,
        draft: &Draft<'_>,
    ) -> (MutexGuard<'a, State>, Result<(), LossReason>) {
        let limit = match draft.severity {
            Severity::Critical => self.settings.bytes,
            Severity::Routine => self.settings.bytes / 4 * 3,
        };
        let length = draft.payload.len() as u64;
        let mut deadline = None;
        loop {
            if state.stage > Stage::Open {
                return (state, Err(LossReason::Closed));
            }
            if state.held_bytes + length <= limit {
                return (state, Ok(()));
            }
            let drops = self.settings.on_full == OnFull::DropRoutine && draft.severity == Severity::Routine;
            if drops || self.stalled.load(Ordering::Acquire) {
                return (state, Err(LossReason::QueueFull));
            }
            let now = Instant::now();
            let end = *deadline.get_or_insert(now + self.settings.wait_bound);
            if now >= end {
                self.stall(&state);
                return (state, Err(LossReason::QueueFull));
            }
            state.blocked += 1;
            if self.claim_wake(&mut state) {
                self.wake_writer();
            }
            state = self.room.wait_timeout(state, end - now).unwrap_or_else(PoisonError::into_inner).0;
            state.blocked -= 1;
        }
    }

    /// Counts an event that could not be recorded.
    pub(crate) fn lose(
        &self,
        reason: LossReason,
        severity: Severity,
        at: Timestamp,
        scope: Option<&Arc<Scope>>,
    ) {
        if self.is_forked() {
            // The lock may have been held by a thread that does not exist here.
            if let Some(lost) = self.lost_in_child.get(severity as usize) {
                lost.fetch_add(1, Ordering::Relaxed);
            }
            if let Some(scope) = scope {
                scope.lose(LossReason::Forked);
            }
            self.notifier
                .print("audit events of a forked process are not recorded; open the log in the child");
            return;
        }
        self.lose_locked(self.lock(), reason, severity, at, scope);
    }

    fn lose_locked(
        &self,
        mut state: MutexGuard<'_, State>,
        reason: LossReason,
        severity: Severity,
        at: Timestamp,
        scope: Option<&Arc<Scope>>,
    ) {
        let closed = state.stage > Stage::Open;
        let first = state.losses.count(reason, severity, at, !closed);
        if let Some(scope) = scope {
            scope.lose(reason);
        }
        let wake = !closed && self.claim_wake(&mut state);
        drop(state);
        if wake {
            self.wake_writer();
        }
        if first {
            self.notifier.tell(NoticeCode::EventsLost, format!("audit events are being lost: {reason}"));
        }
        if closed {
            self.notifier.print("an audit event came after the log was closed and is not recorded");
        }
        if severity == Severity::Critical {
            self.critical_failed(&format!("a critical audit event could not be recorded: {reason}"));
        }
    }

    /// A critical event was not recorded, or nobody knows.
    fn critical_failed(&self, message: &str) {
        self.notifier.tell(NoticeCode::CriticalNotRecorded, message);
        self.notifier.print(message);
        if self.settings.on_failure == OnFailure::Abort {
            self.abort();
        }
    }

    /// Ends the process after a last attempt of the writer.
    fn abort(&self) {
        let mut state = self.lock();
        if state.stage < Stage::Aborting {
            state.stage = Stage::Aborting;
        }
        drop(state);
        self.wake_writer();
        // The writer aborts; if it hangs, the bound passes and this thread does.
        thread::sleep(self.settings.wait_bound);
        std::process::abort();
    }

    fn waits(&self, severity: Severity) -> bool {
        match self.settings.flush_mode {
            FlushMode::Immediate => true,
            FlushMode::Batched { .. } => false,
            FlushMode::Hybrid { critical_immediate, .. } => {
                critical_immediate && severity == Severity::Critical
            }
        }
    }

    fn syncs_at_once(&self, severity: Severity) -> bool {
        match self.settings.flush_mode {
            FlushMode::Immediate => true,
            FlushMode::Batched { .. } => false,
            FlushMode::Hybrid { .. } => severity == Severity::Critical,
        }
    }

    /// Waits for one's own event, unless nobody waits any more.
    fn wait_for_own(&self, ticket: Ticket, severity: Severity) {
        let failing = self.gauges.failing.get();
        if !failing && self.wait_until_durable(ticket).is_ok() && self.is_durable(ticket) {
            return;
        }
        self.lock().unconfirmed += 1;
        if severity == Severity::Critical {
            if failing {
                self.critical_failed("the disk refuses to take a critical audit event; it is held in memory");
            } else {
                let message = "a critical audit event was not durable within the wait bound";
                self.notifier.tell(NoticeCode::CriticalNotRecorded, message);
                self.notifier.print(message);
            }
        }
    }

    /// Blocks until everything up to `ticket` is durable; an error once the wait bound has passed,
    /// and at once while the log is stalled.
    pub(crate) fn wait_until_durable(&self, ticket: Ticket) -> Result<(), NotDurable> {
        let bound = if self.stalled.load(Ordering::Acquire) { Duration::ZERO } else { self.wait_bound() };
        let durable = block_until(bound, |waker| self.poll_durable(ticket, waker));
        self.judge_wait(ticket, durable.is_some())
    }

    /// What a wait that ended says.
    pub(crate) fn judge_wait(&self, ticket: Ticket, in_time: bool) -> Result<(), NotDurable> {
        if in_time || self.is_durable(ticket) {
            return Ok(());
        }
        let state = self.lock();
        // What was published since the bound passed is no stall: no later sync might end it.
        if self.is_durable(ticket) {
            return Ok(());
        }
        self.stall(&state);
        Err(NotDurable)
    }

    /// Ready once everything up to `ticket` is durable, or never will be because the log is closed;
    /// else `waker` is called when that changes.
    pub(crate) fn poll_durable(&self, ticket: Ticket, waker: &Waker) -> Poll<()> {
        if self.is_durable(ticket) {
            return Poll::Ready(());
        }
        let mut state = self.lock();
        // The writer publishes under the lock, so nothing can slip in between.
        if self.is_durable(ticket) || state.stage == Stage::Closed {
            return Poll::Ready(());
        }
        if !(self.is_stalled() && state.waiters.len() >= MAX_STALLED_WAITERS) {
            register(&mut state.waiters, ticket, waker);
        }
        state.wanted = state.wanted.max(ticket);
        let wake = self.claim_wake(&mut state);
        drop(state);
        if wake {
            self.wake_writer();
        }
        Poll::Pending
    }

    /// One wait reached its bound: until a sync succeeds nobody waits again. Under the lock, so that
    /// a sync that succeeds at this moment ends it.
    fn stall(&self, _state: &MutexGuard<'_, State>) {
        if !self.stalled.swap(true, Ordering::AcqRel) {
            let message = "the disk does not answer in time; events are held in memory and nobody waits";
            self.notifier.tell(NoticeCode::Stalled, message);
        }
    }

    // ---- What handles ask.

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
        let wake = self.claim_wake(&mut state);
        drop(state);
        if wake {
            self.wake_writer();
        }
        number
    }

    pub(crate) fn poll_rotated(&self, number: u64, waker: &Waker) -> Poll<()> {
        let mut state = self.lock();
        if state.rotations_done >= number {
            return Poll::Ready(());
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
            let lost = |severity: Severity| {
                self.lost_in_child.get(severity as usize).map_or(0, |lost| lost.load(Ordering::Relaxed))
            };
            numbers.lost = losses::list(LossReason::Forked, lost);
            return;
        }
        let now = Timestamp::now();
        let state = self.lock();
        numbers.accepted_critical = state.accepted_critical;
        numbers.accepted_routine = state.accepted - state.accepted_critical;
        numbers.lost = state.losses.list();
        numbers.unconfirmed = state.unconfirmed;
        numbers.queued_events = state.chunks.drafts();
        numbers.queued_bytes = state.held_bytes;
        let oldest = state.oldest_taken.or(state.oldest_queued);
        numbers.oldest_not_durable = oldest.map_or(Duration::ZERO, |oldest| now.since(oldest));
        numbers.critical_rate = state.critical_rate.per_second(now, self.clock.elapsed());
    }

    // ---- The writer's side.

    /// Names the calling thread as the one to wake.
    pub(crate) fn attach_writer(&self) {
        drop(self.writer.set(thread::current()));
    }

    fn wake_writer(&self) {
        if let Some(writer) = self.writer.get() {
            writer.unpark();
        }
    }

    /// Whether the writer's pause must end now; whoever is told so must wake it.
    fn claim_wake(&self, state: &mut State) -> bool {
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

    fn is_urgent(&self, state: &State) -> bool {
        state.wanted > self.durable.load(Ordering::Acquire)
            || state.queued_bytes >= WAKE_BYTES
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
        let oldest = state.oldest_queued.take();
        state.oldest_taken = state.oldest_taken.or(oldest);
        state.rotations_seen = state.rotations_wanted;
        self.orders(&state)
    }

    /// What there is to do, leaving the drafts where they are.
    pub(crate) fn look(&self) -> Orders {
        self.orders(&self.lock())
    }

    fn orders(&self, state: &State) -> Orders {
        let durable = self.durable.load(Ordering::Acquire);
        Orders {
            wanted: if state.wanted > durable { state.wanted } else { 0 },
            room_wanted: state.blocked > 0,
            rotations: state.rotations_wanted,
            stage: state.stage,
        }
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
        if !nothing_to_do {
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
        if holding == 0 {
            state.oldest_taken = None;
        }
        let was_stalled = self.stalled.swap(false, Ordering::AcqRel);
        let ready: Vec<Waker> =
            state.waiters.extract_if(.., |(at, _)| *at <= ticket).map(|(_, waker)| waker).collect();
        let blocked = state.blocked > 0;
        drop(state);
        if blocked {
            self.room.notify_all();
        }
        if was_stalled {
            self.notifier.tell(NoticeCode::Healed, "the disk answers again");
        }
        ready.into_iter().for_each(Waker::wake);
    }

    /// Bytes that will never be written make room, and are counted as lost.
    pub(crate) fn give_up(&self, batch: &Chunks, reason: LossReason) {
        let now = Timestamp::now();
        for entry in batch.iter().flat_map(|chunk| chunk.entries()) {
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
        wakers.into_iter().for_each(|(_, waker)| waker.wake());
    }

    /// The writer has ended; nothing will become durable any more.
    pub(crate) fn closed(&self) {
        let mut state = self.lock();
        state.stage = Stage::Closed;
        let waiters = std::mem::take(&mut state.waiters);
        let rotate = std::mem::take(&mut state.rotate);
        drop(state);
        self.room.notify_all();
        waiters.into_iter().chain(rotate).for_each(|(_, waker)| waker.wake());
    }
}

/// Notes a waker once, however often its task is polled.
fn register(wakers: &mut Vec<(u64, Waker)>, number: u64, waker: &Waker) {
    if !wakers.iter().any(|(known, registered)| *known == number && registered.will_wake(waker)) {
        wakers.push((number, waker.clone()));
    }
}

/// The wait bound passed.
#[derive(Debug)]
pub(crate) struct NotDurable;

impl State {
    fn put(&mut self, payload: &[u8], severity: Option<Severity>, scope: Option<Arc<Scope>>) {
        self.held_bytes += payload.len() as u64;
        self.queued_bytes += payload.len() as u64;
        self.chunks.push(payload, severity, scope);
    }

    /// What was lost stands before the next event that was not.
    fn put_gaps_before_next(&mut self) {
        if self.losses.are_pending() {
            for payload in self.losses.take_pending() {
                self.put(&payload, None, None);
            }
        }
    }
}
