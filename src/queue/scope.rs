//! What one `confirm` waits for.

use std::sync::{Arc, Mutex, PoisonError};

use super::{Ticket, Tickets};
use crate::{chain::Head, stats::LossReason};

/// The events that one closure emitted. An inner scope counts for the outer ones too.
#[derive(Debug)]
pub(crate) struct Scope {
    outer: Option<Arc<Scope>>,
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
        Arc::new(Self { outer, counts: Mutex::default(), tickets: Mutex::default() })
    }

    pub(crate) fn counts(&self) -> ScopeCounts {
        *self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes in an event. Which of those before it are durable need not be remembered.
    pub(super) fn accept(&self, ticket: Ticket, durable: Ticket) {
        self.each(|scope| {
            scope.count(|counts| {
                counts.accepted += 1;
                counts.last = ticket;
            });
            let mut tickets = scope.tickets.lock().unwrap_or_else(PoisonError::into_inner);
            drop(tickets.take(0, durable));
            tickets.add(ticket);
        });
    }

    /// The events that were accepted.
    pub(super) fn tickets(&self) -> Tickets {
        self.tickets.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(super) fn lose(&self, reason: LossReason) {
        self.each(|scope| {
            scope.count(|counts| {
                counts.lost += 1;
                counts.reason = reason;
            });
        });
    }

    /// The writer says that an event of this scope is durable.
    pub(crate) fn confirm(&self, ticket: Ticket, head: Head) {
        self.each(|scope| {
            scope.count(|counts| {
                if counts.durable.is_none_or(|(known, _)| known < ticket) {
                    counts.durable = Some((ticket, head));
                }
            });
        });
    }

    /// Changes the counts of this scope alone.
    fn count(&self, change: impl FnOnce(&mut ScopeCounts)) {
        change(&mut self.counts.lock().unwrap_or_else(PoisonError::into_inner));
    }

    /// Goes through this scope and those around it.
    fn each(&self, mut change: impl FnMut(&Self)) {
        let mut scope = Some(self);
        while let Some(current) = scope {
            change(current);
            scope = current.outer.as_deref();
        }
    }
}
