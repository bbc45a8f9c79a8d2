//! The noted head: how far the chain is durable, kept in the lock file, which copies of the log
//! leave behind.

use std::io;

use super::{Ledger, Run, Trouble};
use crate::chain_reader::{Noted, NotedState};

/// The number of durable bytes behind the noted head after which it is noted anew without delay.
const NOTE_BYTES: u64 = 8 << 20;

impl Ledger {
    /// Notes the durable head in the lock file, and makes the note durable.
    pub(in crate::writer) fn note(&mut self, state: NotedState) -> io::Result<()> {
        let noted = Noted {
            state,
            id: self.id,
            point: self.durable,
            times: self.times.durable(),
            pruned: self.pruned.filter(|(through, _)| *through < self.durable.seq),
            witnessed: self.witnessed.clone(),
            machine: self.machine.clone(),
        };
        self.lock.note(noted)?;
        if state == NotedState::Open {
            self.run = Run::Open;
        }
        Ok(())
    }

    /// Notes, before the first append of a run, that the chain is being written. A new chain has no
    /// head to note until its first line is durable.
    pub(super) fn note_open(&mut self) -> Result<(), Trouble> {
        if self.run != Run::Found || self.durable.seq == 0 {
            return Ok(());
        }
        self.note(NotedState::Open).map_err(|error| Trouble {
            action: "note the head of",
            segment: self.durable.segment,
            error,
            old_usable: false,
            is_tampering: false,
        })
    }

    /// Returns whether the durable head is ahead of the noted one.
    pub(in crate::writer) fn is_ahead_of_its_note(&self) -> bool {
        self.noted().is_none_or(|noted| noted.point.seq != self.durable.seq)
    }

    /// Returns whether so much became durable behind the noted head that the next note must not
    /// wait.
    pub(in crate::writer) fn must_note(&self) -> bool {
        let bytes = |noted: &Noted| self.durable.end.saturating_sub(noted.point.end);
        self.noted()
            .is_some_and(|noted| noted.point.segment == self.durable.segment && bytes(noted) >= NOTE_BYTES)
    }

    fn noted(&self) -> Option<&Noted> {
        self.lock.slots.noted.as_ref()
    }
}
