//! The side of the queue that application threads use to add events and to wait for them.

use std::ops::ControlFlow;

use super::{
    Arc, Draft, Duration, EAGER_TAKES, FlushMode, Instant, LossReason, MAX_STALLED_WAITERS, MutexGuard,
    NotDurable, NoticeKind, OnFailure, OnFull, Ordering, PoisonError, Poll, Queue, Scope, Severity, Stage,
    State, Ticket, Timestamp, Waiter, Waker, register, thread,
};
use crate::{format::NotConfirmed, wait::look_until};

impl Queue {
    /// Adds an event, and waits until it is durable if the flush mode requires that. Inside a scope it does not wait,
    /// because `confirm` will. Blocks for at most the wait bound.
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
        // While nothing can be written, `OnFailure` applies to every critical event, even to those that the
        // flush mode would not wait for.
        let fails = draft.severity == Severity::Critical && self.gauges.failing.get();
        if waits || fails {
            // The wait for room and this one share one wait bound.
            let left = |end: Instant| end.saturating_duration_since(Instant::now());
            self.wait_for_own(ticket, draft.severity, deadline.map_or(self.wait_bound(), left), waits);
        }
    }

    /// Accepts an event, for which there is room.
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
            // Under the same lock as the draft is queued, so the writer never takes one without the other.
            state.wanted = ticket;
        }
        state.put(draft.payload, Some(draft.severity), scope.cloned());
        ticket
    }

    /// Waits until the draft fits, or returns the reason why it is lost. `deadline` is set when the wait begins.
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
            // In a stall nothing makes room soon, and no call waits.
            if drops || self.stalled.load(Ordering::Acquire) {
                return (state, Err(LossReason::QueueFull));
            }
            let now = Instant::now();
            // Set once: a thread that is woken and finds the room taken again does not wait anew.
            let end = *deadline.get_or_insert(now + self.settings.wait_bound);
            if now >= end {
                self.stall(&state);
                return (state, Err(LossReason::QueueFull));
            }
            state.blocked += 1;
            let room_made = state.room_made;
            // Claimed under the lock, so that exactly one thread wakes the writer.
            if self.claim_wake(&mut state) {
                self.wake_writer();
            }
            state = self.room.wait_timeout(state, end - now).unwrap_or_else(PoisonError::into_inner).0;
            // `publish` has reset the count of those that it woke. Only a thread that woke by itself is still in it.
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
            // At the fork(2) the lock may have been held by a thread that does not exist in this child.
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

    /// Counts a loss under the lock, and then notifies the operator without it.
    pub(super) fn lose_locked<'a>(
        &'a self,
        mut state: MutexGuard<'a, State>,
        reason: LossReason,
        severity: Severity,
        at: Timestamp,
        scope: Option<&Arc<Scope>>,
    ) {
        // After the end no `gap` record can be written, so the loss is only counted.
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
            // Often the closure that receives notices emitted it: another notice would loop for ever.
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

    /// Reports that a critical event was not recorded, or is not known to be, and applies `OnFailure`.
    pub(super) fn critical_failed(&self, message: &str) {
        self.notifier.tell(NoticeKind::CriticalNotRecorded, message);
        self.notifier.print(message);
        if self.settings.on_failure == OnFailure::Abort {
            self.abort();
        }
    }

    /// Aborts the process after a last attempt of the writer.
    pub(super) fn abort(&self) {
        let mut state = self.lock();
        if state.stage == Stage::Closed {
            // The writer has ended, so there is no last attempt.
            std::process::abort();
        }
        state.stage = state.stage.max(Stage::Aborting);
        drop(state);
        self.wake_writer();
        // The writer aborts the process after its attempt. If the writer hangs, this thread does so at the bound.
        thread::sleep(self.settings.wait_bound);
        std::process::abort();
    }

    /// Returns whether the flush mode makes the emitting thread wait.
    pub(super) fn waits(&self, severity: Severity) -> bool {
        match self.settings.flush_mode {
            FlushMode::Immediate => true,
            FlushMode::Batched { .. } => false,
            FlushMode::Hybrid { critical_immediate, .. } => {
                critical_immediate && severity == Severity::Critical
            }
        }
    }

    /// Returns whether the flush mode syncs an event at once, even if the emitting thread does not wait.
    pub(super) fn syncs_at_once(&self, severity: Severity) -> bool {
        match self.settings.flush_mode {
            FlushMode::Immediate => true,
            FlushMode::Batched { .. } => false,
            FlushMode::Hybrid { .. } => severity == Severity::Critical,
        }
    }

    /// Waits for the event that this thread has just emitted, unless the log is failing or stalled. `waits` is whether the
    /// flush mode waits for it: only then is the event reported as not confirmed.
    pub(super) fn wait_for_own(&self, ticket: Ticket, severity: Severity, bound: Duration, waits: bool) {
        let waiter = if waits { Waiter::Event(ticket) } else { Waiter::All };
        if self.gauges.failing.get() {
            // An outage: the next attempt may be far away, so the thread does not wait for it.
            let mut state = self.lock();
            if self.is_durable(ticket) {
                return;
            }
            state.unconfirmed += 1;
            self.refuse(&mut state, waiter, NotConfirmed::Failing);
        } else if !waits || (self.wait_within(bound, ticket, waiter).is_ok() && self.is_durable(ticket)) {
            // Durable; or the outage ended before this look, and the flush mode does not wait.
            return;
        }
        // The outage may have begun during the wait.
        let failing = self.gauges.failing.get();
        if severity == Severity::Critical {
            if failing {
                self.critical_failed(
                    "a critical audit event cannot be written to disk; it is held in memory",
                );
            } else {
                let message = "a critical audit event was not durable within the wait bound";
                self.notifier.tell(NoticeKind::CriticalNotRecorded, message);
                self.notifier.print(message);
            }
        }
    }

    /// Blocks until everything up to `ticket` is durable. Returns an error once the wait bound has passed, and at once
    /// while the log is stalled.
    pub(crate) fn wait_until_durable(&self, ticket: Ticket, waiter: Waiter<'_>) -> Result<(), NotDurable> {
        self.wait_within(self.wait_bound(), ticket, waiter)
    }

    pub(super) fn wait_within(
        &self,
        bound: Duration,
        ticket: Ticket,
        waiter: Waiter<'_>,
    ) -> Result<(), NotDurable> {
        // While the log is stalled, one look must do: otherwise every call would block for the whole bound.
        let bound = if self.stalled.load(Ordering::Acquire) { Duration::ZERO } else { bound };
        let in_time = self.sleep_until_durable(ticket, bound);
        self.judge_wait(ticket, in_time, waiter)
    }

    /// Sleeps until everything up to `ticket` is durable, or the log is closed. Returns whether that was within the bound.
    fn sleep_until_durable(&self, ticket: Ticket, bound: Duration) -> bool {
        let look = || {
            if self.is_durable(ticket) {
                return ControlFlow::Break(());
            }
            let mut state = self.lock();
            // Checked again: the writer publishes under the lock, so from here on no wake-up is missed.
            if self.is_durable(ticket) || state.stage == Stage::Closed {
                return ControlFlow::Break(());
            }
            let bell = state.sleepers.join(ticket).of(&self.bells);
            // Read before the lock is released: a ring after that ends the sleep at once.
            let seen = bell.rings();
            self.want(state, ticket);
            ControlFlow::Continue((bell, seen))
        };
        look_until(bound, look, |(bell, seen), rest| bell.sleep(seen, rest)).is_some()
    }

    /// Requests a sync of everything up to `ticket`, without waiting for it.
    pub(crate) fn hurry(&self, ticket: Ticket) {
        if !self.is_forked() && !self.is_durable(ticket) {
            self.want(self.lock(), ticket);
        }
    }

    /// Requests a sync of everything up to `ticket`, and releases the lock.
    fn want(&self, mut state: MutexGuard<'_, State>, ticket: Ticket) {
        state.wanted = state.wanted.max(ticket);
        state.eager = EAGER_TAKES;
        self.unlock(state);
    }

    /// Decides the result of a wait that ended.
    ///
    /// It decides under the lock under which the writer publishes. So an `unconfirmed` record names an event that is
    /// refused here before anything newer is acknowledged.
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
        // Checked again: if the event became durable since, this is no stall. No later sync might come to end it.
        if self.is_durable(ticket) {
            return Ok(());
        }
        state.unconfirmed += 1;
        let reason = if self.is_stalled() { NotConfirmed::Stalled } else { NotConfirmed::Timeout };
        self.refuse(&mut state, waiter, reason);
        self.stall(&state);
        Err(NotDurable)
    }

    /// Refuses the accepted events of a scope at once, because another one of it was lost.
    pub(crate) fn refuse_rest(&self, scope: &Scope) {
        if !self.is_forked() {
            self.refuse(&mut self.lock(), Waiter::Scope(scope), NotConfirmed::Lost);
        }
    }

    /// Notes events that are reported as not confirmed. Takes `state`, the lock under which the writer publishes: what is
    /// not durable here is named before it is acknowledged.
    fn refuse(&self, state: &mut State, waiter: Waiter<'_>, reason: NotConfirmed) {
        let durable = self.durable.load(Ordering::Acquire);
        let refused = state.refused.of(reason);
        match waiter {
            Waiter::All => {}
            Waiter::Event(ticket) => refused.add(ticket),
            Waiter::Scope(scope) => {
                // Events that were durable before the error are not named.
                for (first, last) in scope.tickets().ranges().filter(|(_, last)| *last > durable) {
                    refused.add_range(first.max(durable + 1), last);
                }
            }
        }
    }

    /// Polls whether everything up to `ticket` is durable, or the log is closed. Otherwise `waker` is called when that
    /// changes.
    pub(crate) fn poll_durable(&self, ticket: Ticket, waker: &Waker) -> Poll<()> {
        // In a forked child, a copy of a waiting task must not wait: no writer would wake it.
        if self.is_durable(ticket) || self.is_forked() {
            return Poll::Ready(());
        }
        let mut state = self.lock();
        // Checked again: the writer publishes under the lock, so from here on no wake-up is missed.
        if self.is_durable(ticket) || state.stage == Stage::Closed {
            return Poll::Ready(());
        }
        if !(self.is_stalled() && state.waiters.len() >= MAX_STALLED_WAITERS) {
            register(&mut state.waiters, ticket, waker);
        }
        self.want(state, ticket);
        Poll::Pending
    }

    /// Marks the log as stalled, because a wait reached its bound: until a sync succeeds, no call waits. Takes the locked
    /// state, so that a sync that succeeds at this moment ends the stall.
    pub(super) fn stall(&self, _state: &MutexGuard<'_, State>) {
        if !self.stalled.swap(true, Ordering::AcqRel) {
            let message =
                "the disk does not respond in time; events are held in memory, and calls do not wait";
            self.notifier.tell(NoticeKind::Stalled, message);
        }
    }
}
