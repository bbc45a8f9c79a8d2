//! The scope of a `confirm`: the events that it waits for.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::{Ticket, Tickets};
use crate::{chain::Head, stats::LossReason};

/// The events that one closure or future emitted. Events of an inner scope count for the outer ones too.
#[derive(Debug)]
pub(crate) struct Scope {
    outer: Option<Arc<Scope>>,
    /// Shared with the same scope nested in other ones.
    emitted: Arc<Emitted>,
}

/// The events of a scope.
#[derive(Debug, Default)]
struct Emitted {
    /// Guards the counts. Held only to change or copy them, by emitters and the writer.
    counts: Mutex<ScopeCounts>,
    /// Guards the numbers of the events. Locked inside of the queue's lock, by emitters and by waits that end.
    tickets: Mutex<Tickets>,
}

/// The fate of a scope's events so far.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ScopeCounts {
    pub(crate) accepted: u64,
    /// The last event that was accepted.
    pub(crate) last: Ticket,
    pub(crate) lost: u64,
    /// Why the last lost event was lost.
    pub(crate) reason: LossReason,
    /// The newest event that is durable, and its place in the chain.
    pub(crate) durable: Option<(Ticket, Head)>,
}

impl Default for ScopeCounts {
    fn default() -> Self {
        Self { accepted: 0, last: 0, lost: 0, reason: LossReason::QueueFull, durable: None }
    }
}

impl Scope {
    pub(crate) fn new(outer: Option<Arc<Self>>) -> Arc<Self> {
        Arc::new(Self { outer, emitted: Arc::default() })
    }

    /// Returns the same scope nested in another one, or in none. Later events count for that one as well; earlier events
    /// are not moved.
    pub(crate) fn inside(self: &Arc<Self>, outer: Option<Arc<Self>>) -> Arc<Self> {
        if self.outer.as_ref().map(Arc::as_ptr) == outer.as_ref().map(Arc::as_ptr) {
            return Arc::clone(self);
        }
        Arc::new(Self { outer, emitted: Arc::clone(&self.emitted) })
    }

    pub(crate) fn counts(&self) -> ScopeCounts {
        *self.emitted.counts()
    }

    /// Adds an accepted event. Events up to `durable` are forgotten, because they can no longer be refused: the set stays
    /// small even in a scope with many events.
    pub(super) fn accept(&self, ticket: Ticket, durable: Ticket) {
        self.each(|emitted| {
            {
                let mut counts = emitted.counts();
                counts.accepted += 1;
                counts.last = ticket;
            }
            let mut tickets = emitted.tickets();
            drop(tickets.take(0, durable));
            tickets.add(ticket);
        });
    }

    /// Returns the accepted events that are possibly not durable yet.
    pub(super) fn tickets(&self) -> Tickets {
        self.emitted.tickets().clone()
    }

    pub(super) fn lose(&self, reason: LossReason) {
        self.each(|emitted| {
            let mut counts = emitted.counts();
            counts.lost += 1;
            counts.reason = reason;
        });
    }

    /// Notes that an event of this scope is durable. Called by the writer.
    pub(crate) fn confirm(&self, ticket: Ticket, head: Head) {
        self.each(|emitted| {
            let mut counts = emitted.counts();
            // A receipt names the newest event, whatever the order of the calls.
            if counts.durable.is_none_or(|(known, _)| known < ticket) {
                counts.durable = Some((ticket, head));
            }
        });
    }

    /// Applies a change to this scope and to all around it.
    fn each(&self, mut change: impl FnMut(&Emitted)) {
        let mut scope = Some(self);
        while let Some(current) = scope {
            change(&current.emitted);
            scope = current.outer.as_deref();
        }
    }
}

impl Emitted {
    fn counts(&self) -> MutexGuard<'_, ScopeCounts> {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn tickets(&self) -> MutexGuard<'_, Tickets> {
        self.tickets.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
