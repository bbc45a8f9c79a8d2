//! The side of the queue where events come in, on the threads of the application.

use std::ops::ControlFlow;

use super::{
    Arc, Draft, Duration, EAGER_LOOKS, FlushMode, Instant, LossReason, MAX_STALLED_WAITERS, MutexGuard,
    NotDurable, NoticeKind, OnFailure, OnFull, Ordering, PoisonError, Poll, Queue, Scope, Severity, Stage,
    State, Ticket, Timestamp, Waiter, Waker, register, thread,
};
use crate::{format::NotConfirmed, wait::look_until};

impl Queue {
    /// Takes an event in, and waits for it to be durable where the flush mode says so and no
    /// `confirm` will. Blocks at most for the wait bound.
    pub(crate) fn submit(&self, draft: &Draft<'_>, scope: Option<&Arc<Scope>>) {
        if self.is_forked() {
            return self.lose(LossReason::Forked, draft.severity, draft.at, scope);
        }
        let mut deadline = None;
        let (mut state, admitted) = self.make_room(self.lock(), draft, &mut deadline);
        if let Err(reason) = admitted {
            return self.lose_locked(state, reason, draft.severity, draft.at, scope);
        }
        let ticket = self.push(&mut state, draft, scope);
        self.unlock(state);
        let waits = scope.is_none() && self.waits(draft.severity);
        // While nothing can be written, `OnFailure` decides about every critical event, also where
        // nobody would have waited.
        let fails = draft.severity == Severity::Critical && self.gauges.failing.get();
        if waits || fails {
            // What was spent on waiting for room is spent.
            let left = |end: Instant| end.saturating_duration_since(Instant::now());
            self.wait_for_own(ticket, draft.severity, deadline.map_or(self.wait_bound(), left), waits);
        }
    }

    fn push(&self, state: &mut State, draft: &Draft<'_>, scope: Option<&Arc<Scope>>) -> Ticket {
        state.put_gaps_before_next(self.clock);
        state.accepted += 1;
        let ticket = state.accepted;
        if draft.severity == Severity::Critical {
            state.accepted_critical += 1;
        }
        state.oldest_queued.get_or_insert(draft.at);
        if let Some(scope) = scope {
            scope.accept(ticket, self.durable.load(Ordering::Acquire));
        } else if self.syncs_at_once(draft.severity) {
            state.wanted = ticket;
        }
        state.put(draft.payload, Some(draft.severity), scope.cloned());
        ticket
    }

    /// Waits until the draft fits, or says why it never will.
    pub(super) fn make_room<'a>(
        &'a self,
        mut state: MutexGuard<'a, State>,
        draft: &Draft<'_>,
        deadline: &mut Option<Instant>,
    ) -> (MutexGuard<'a, State>, Result<(), LossReason>) {
        let limit = match draft.severity {
            Severity::Critical => self.settings.bytes,
            Severity::Routine => self.settings.bytes / 4 * 3,
        };
        let length = draft.payload.len() as u64;
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
            let room_made = state.room_made;
            if self.claim_wake(&mut state) {
                self.wake_writer();
            }
            state = self.room.wait_timeout(state, end - now).unwrap_or_else(PoisonError::into_inner).0;
            if state.room_made == room_made {
                state.blocked -= 1;
            }
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

    pub(super) fn lose_locked<'a>(
        &'a self,
        mut state: MutexGuard<'a, State>,
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
        if closed {
            drop(state);
        } else {
            self.unlock(state);
        }
        if reason == LossReason::Reentrant {
            // Often the closure that hears notices emitted it: telling it would go round for ever.
            return;
        }
        if first {
            self.notifier.tell(NoticeKind::EventsLost, format!("audit events are being lost: {reason}"));
        }
        if closed {
            self.notifier.print("an audit event came after the log was closed and is not recorded");
        }
        if severity == Severity::Critical {
            self.critical_failed(&format!("a critical audit event could not be recorded: {reason}"));
        }
    }

    /// A critical event was not recorded, or nobody knows.
    pub(super) fn critical_failed(&self, message: &str) {
        self.notifier.tell(NoticeKind::CriticalNotRecorded, message);
        self.notifier.print(message);
        if self.settings.on_failure == OnFailure::Abort {
            self.abort();
        }
    }

    /// Ends the process after a last attempt of the writer.
    pub(super) fn abort(&self) {
        let mut state = self.lock();
        if state.stage == Stage::Closed {
            // There is no writer any more that could try.
            std::process::abort();
        }
        state.stage = state.stage.max(Stage::Aborting);
        drop(state);
        self.wake_writer();
        // The writer aborts; if it hangs, the bound passes and this thread does.
        thread::sleep(self.settings.wait_bound);
        std::process::abort();
    }

    pub(super) fn waits(&self, severity: Severity) -> bool {
        match self.settings.flush_mode {
            FlushMode::Immediate => true,
            FlushMode::Batched { .. } => false,
            FlushMode::Hybrid { critical_immediate, .. } => {
                critical_immediate && severity == Severity::Critical
            }
        }
    }

    pub(super) fn syncs_at_once(&self, severity: Severity) -> bool {
        match self.settings.flush_mode {
            FlushMode::Immediate => true,
            FlushMode::Batched { .. } => false,
            FlushMode::Hybrid { .. } => severity == Severity::Critical,
        }
    }

    /// Waits for one's own event, unless nobody waits any more. Where the mode would not have let anybody wait, nobody
    /// is told that it is not confirmed.
    pub(super) fn wait_for_own(&self, ticket: Ticket, severity: Severity, bound: Duration, waits: bool) {
        let waiter = if waits { Waiter::Event(ticket) } else { Waiter::All };
        if self.gauges.failing.get() {
            let mut state = self.lock();
            if self.is_durable(ticket) {
                return;
            }
            state.unconfirmed += 1;
            self.refuse(&mut state, waiter, NotConfirmed::Failing);
        } else if !waits || (self.wait_within(bound, ticket, waiter).is_ok() && self.is_durable(ticket)) {
            // Where the mode does not wait, and the disk works again by now, nobody begins to.
            return;
        }
        // It may have begun to fail during the wait.
        let failing = self.gauges.failing.get();
        if severity == Severity::Critical {
            if failing {
                self.critical_failed("the disk refuses to take a critical audit event; it is held in memory");
            } else {
                let message = "a critical audit event was not durable within the wait bound";
                self.notifier.tell(NoticeKind::CriticalNotRecorded, message);
                self.notifier.print(message);
            }
        }
    }

    /// Blocks until everything up to `ticket` is durable; an error once the wait bound has passed,
    /// and at once while the log is stalled.
    pub(crate) fn wait_until_durable(&self, ticket: Ticket, waiter: Waiter<'_>) -> Result<(), NotDurable> {
        self.wait_within(self.wait_bound(), ticket, waiter)
    }

    pub(super) fn wait_within(
        &self,
        bound: Duration,
        ticket: Ticket,
        waiter: Waiter<'_>,
    ) -> Result<(), NotDurable> {
        let bound = if self.stalled.load(Ordering::Acquire) { Duration::ZERO } else { bound };
        let in_time = self.sleep_until_durable(ticket, bound);
        self.judge_wait(ticket, in_time, waiter)
    }

    /// False once the bound has passed; true when everything up to `ticket` is durable, or never will be
    /// because the log is closed.
    fn sleep_until_durable(&self, ticket: Ticket, bound: Duration) -> bool {
        let look = || {
            if self.is_durable(ticket) {
                return ControlFlow::Break(());
            }
            let mut state = self.lock();
            // The writer publishes under the lock, so nothing can slip in between.
            if self.is_durable(ticket) || state.stage == Stage::Closed {
                return ControlFlow::Break(());
            }
            let bell = state.sleepers.join(ticket).of(&self.bells);
            let heard = bell.rings();
            self.want(state, ticket);
            ControlFlow::Continue((bell, heard))
        };
        look_until(bound, look, |(bell, heard), rest| bell.sleep(heard, rest)).is_some()
    }

    /// Asks for everything up to `ticket` to be made durable now, where nobody waits for it.
    pub(crate) fn hurry(&self, ticket: Ticket) {
        if !self.is_forked() && !self.is_durable(ticket) {
            self.want(self.lock(), ticket);
        }
    }

    /// Asks for everything up to `ticket` to be made durable now.
    fn want(&self, mut state: MutexGuard<'_, State>, ticket: Ticket) {
        state.wanted = state.wanted.max(ticket);
        state.eager = EAGER_LOOKS;
        self.unlock(state);
    }

    /// What a wait that ended says. Decided under the lock under which the writer publishes: what is refused here is
    /// named by an `unconfirmed` record before anything newer is acknowledged.
    pub(crate) fn judge_wait(
        &self,
        ticket: Ticket,
        in_time: bool,
        waiter: Waiter<'_>,
    ) -> Result<(), NotDurable> {
        if in_time || self.is_durable(ticket) {
            return Ok(());
        }
        let mut state = self.lock();
        // What was published since the bound passed is no stall: no later sync might end it.
        if self.is_durable(ticket) {
            return Ok(());
        }
        state.unconfirmed += 1;
        let reason = if self.is_stalled() { NotConfirmed::Stalled } else { NotConfirmed::Timeout };
        self.refuse(&mut state, waiter, reason);
        self.stall(&state);
        Err(NotDurable)
    }

    /// Somebody is told at once that none of these events is confirmed, because one of them was lost.
    pub(crate) fn refuse_rest(&self, scope: &Scope) {
        if !self.is_forked() {
            self.refuse(&mut self.lock(), Waiter::Scope(scope), NotConfirmed::Lost);
        }
    }

    /// Somebody is told that these events are not confirmed. Under the lock under which the writer publishes.
    fn refuse(&self, state: &mut State, waiter: Waiter<'_>, reason: NotConfirmed) {
        let durable = self.durable.load(Ordering::Acquire);
        let refused = state.refused.of(reason);
        match waiter {
            Waiter::All => {}
            Waiter::Event(ticket) => refused.add(ticket),
            Waiter::Scope(scope) => {
                for (first, last) in scope.tickets().ranges().filter(|(_, last)| *last > durable) {
                    refused.add_range(first.max(durable + 1), last);
                }
            }
        }
    }

    /// Ready once everything up to `ticket` is durable, or never will be because the log is closed;
    /// else `waker` is called when that changes.
    pub(crate) fn poll_durable(&self, ticket: Ticket, waker: &Waker) -> Poll<()> {
        // A task that was taken along into a forked child waits for nobody there.
        if self.is_durable(ticket) || self.is_forked() {
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
        self.want(state, ticket);
        Poll::Pending
    }

    /// One wait reached its bound: until a sync succeeds nobody waits again. Under the lock, so that
    /// a sync that succeeds at this moment ends it.
    pub(super) fn stall(&self, _state: &MutexGuard<'_, State>) {
        if !self.stalled.swap(true, Ordering::AcqRel) {
            let message = "the disk does not answer in time; events are held in memory and nobody waits";
            self.notifier.tell(NoticeKind::Stalled, message);
        }
    }
}
