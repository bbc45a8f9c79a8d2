//! What one `confirm` waits for.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::{Ticket, Tickets};
use crate::{chain::Head, stats::LossReason};

/// The events that one closure or future emitted. An inner scope counts for the outer ones too.
#[derive(Debug)]
pub(crate) struct Scope {
    outer: Option<Arc<Scope>>,
    /// Shared with the same scope inside of other ones.
    emitted: Arc<Emitted>,
}

/// What a scope knows of its events.
#[derive(Debug, Default)]
struct Emitted {
    /// Guards the counts. Held only to change or copy them, by emitters and the writer.
    counts: Mutex<ScopeCounts>,
    /// Guards which events they are. Taken inside of the queue's lock, by emitters and whoever stops waiting.
    tickets: Mutex<Tickets>,
}

/// What happened to the events of a scope so far.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ScopeCounts {
    pub(crate) accepted: u64,
    pub(crate) last: Ticket,
    pub(crate) lost: u64,
    /// Why the last of those was.
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

    /// The same scope inside of another one, or of none. What is emitted from then on counts for that one as well; what was
    /// emitted before is not moved.
    pub(crate) fn inside(self: &Arc<Self>, outer: Option<Arc<Self>>) -> Arc<Self> {
        if self.outer.as_ref().map(Arc::as_ptr) == outer.as_ref().map(Arc::as_ptr) {
            return Arc::clone(self);
        }
        Arc::new(Self { outer, emitted: Arc::clone(&self.emitted) })
    }

    pub(crate) fn counts(&self) -> ScopeCounts {
        *self.emitted.counts()
    }

    /// Takes in an event. Which of those before it are durable need not be remembered.
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

    /// The events that were accepted.
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

    /// The writer says that an event of this scope is durable.
    pub(crate) fn confirm(&self, ticket: Ticket, head: Head) {
        self.each(|emitted| {
            let mut counts = emitted.counts();
            if counts.durable.is_none_or(|(known, _)| known < ticket) {
                counts.durable = Some((ticket, head));
            }
        });
    }

    /// Goes through this scope and those around it.
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
