//! Records that become durable although a caller was told that they are not confirmed. They are
//! named by chained `unconfirmed` records, which must be durable before anything newer is
//! acknowledged.
//!
//! An `unconfirmed` record is not a draft: it names positions in the chain, and is made anew when
//! those change.

use super::{Ledger, Trouble};
use crate::{
    clock::Moment,
    format::{ChainId, MAX_RANGES, NotConfirmed, Unconfirmed, seal},
    queue::{Refused, Ticket},
    segment_name::ChainNumber,
};

/// Consecutive events that were written to consecutive records.
#[derive(Debug, Clone, Copy)]
struct Placed {
    first: Ticket,
    seq: u64,
    count: u64,
}

/// A line that names refused events and is written but not durable.
#[derive(Debug)]
struct Naming {
    seq: u64,
    what: Named,
}

/// What a line names.
#[derive(Debug)]
enum Named {
    /// Events in this chain.
    Here(Refused),
    /// Records of a chain that this log has left.
    Elsewhere(Unconfirmed),
}

/// Refused events that were written, and the ranges of their records.
#[derive(Debug)]
struct Written {
    reason: NotConfirmed,
    events: Refused,
    records: Vec<(u64, u64)>,
}

/// The refused events of a ledger.
#[derive(Debug, Default)]
pub(super) struct Refusals {
    /// Events that were refused and are not named yet.
    refused: Refused,
    /// The same for records of a chain that was left.
    elsewhere: Vec<Unconfirmed>,
    /// Where events were written that are not yet published as durable.
    placed: Vec<Placed>,
    /// Lines that name refused events and are not durable yet.
    naming: Vec<Naming>,
}

impl Refusals {
    /// Records where an event was written.
    pub(super) fn place(&mut self, ticket: Ticket, seq: u64) {
        match self.placed.last_mut() {
            Some(last) if last.first + last.count == ticket && last.seq + last.count == seq => {
                last.count += 1;
            }
            _ => self.placed.push(Placed { first: ticket, seq, count: 1 }),
        }
    }

    /// Forgets what was written behind this record, because it is void.
    pub(super) fn void_behind(&mut self, seq: u64) {
        self.placed.retain_mut(|placed| {
            placed.count = placed.count.min((seq + 1).saturating_sub(placed.seq));
            placed.count > 0
        });
        self.name_again_behind(seq);
    }

    /// Marks what was named by lines behind this record as not named.
    fn name_again_behind(&mut self, seq: u64) {
        for naming in self.naming.extract_if(.., |naming| naming.seq > seq) {
            match naming.what {
                Named::Here(refused) => self.refused.append(&refused),
                Named::Elsewhere(records) => self.elsewhere.push(records),
            }
        }
    }

    /// Removes the naming lines that are durable with this record, and returns how many there were.
    pub(super) fn named_through(&mut self, seq: u64) -> u64 {
        self.naming.extract_if(.., |naming| naming.seq <= seq).count() as u64
    }

    /// Takes the records of the refused events that were written, grouped by reason.
    fn take_placed(&mut self) -> Vec<Written> {
        let mut found = Vec::new();
        for reason in NotConfirmed::ALL {
            let mut events = Refused::default();
            let mut records = Vec::new();
            for placed in &self.placed {
                let tickets = self.refused.of(reason).take(placed.first, placed.first + placed.count - 1);
                for (first, last) in tickets.ranges() {
                    let seq = |ticket| placed.seq + (ticket - placed.first);
                    records.push((seq(first), seq(last)));
                    events.of(reason).add_range(first, last);
                }
            }
            if !records.is_empty() {
                found.push(Written { reason, events, records });
            }
        }
        found
    }
}

impl Ledger {
    /// Takes note of events that a caller was told are not confirmed.
    pub(in crate::writer) fn refuse(&mut self, refused: &Refused) {
        self.refusals.refused.append(refused);
    }

    /// Returns whether refused events must be named before newer durable events are acknowledged.
    pub(in crate::writer) fn must_name(&self) -> bool {
        let durable = self.events.durable;
        !self.refusals.elsewhere.is_empty()
            || !self.refusals.naming.is_empty()
            || self.refusals.refused.first().is_some_and(|first| first <= durable)
    }

    /// Forgets where events up to this one were written: they are acknowledged, so none of them can
    /// be refused any more.
    pub(in crate::writer) fn published(&mut self, ticket: Ticket) {
        self.refusals.placed.retain(|placed| placed.first + placed.count > ticket + 1);
    }

    /// Appends lines that name refused events that were written. They are a write of their own.
    pub(in crate::writer) fn name_refused(&mut self, now: &Moment) -> Result<(), Trouble> {
        let Some(live) = self.live.take() else { return Ok(()) };
        let mut named = Vec::new();
        for records in std::mem::take(&mut self.refusals.elsewhere) {
            named.push((records.clone(), Named::Elsewhere(records)));
        }
        for Written { reason, mut events, records } in self.refusals.take_placed() {
            // Events that take several lines count as named with the last of them.
            let chunks: Vec<&[(u64, u64)]> = records.chunks(MAX_RANGES).collect();
            for (number, chunk) in chunks.iter().enumerate() {
                let is_last = number + 1 == chunks.len();
                let tickets = if is_last { std::mem::take(&mut events) } else { Refused::default() };
                let record =
                    Unconfirmed { reason: reason.as_str().to_owned(), records: chunk.to_vec(), chain: None };
                named.push((record, Named::Here(tickets)));
            }
        }
        // The events that remain are durable or lost, but were never placed, so no record can be
        // named.
        drop(self.refusals.refused.take(0, self.events.durable));
        if named.is_empty() {
            self.live = Some(live);
            return Ok(());
        }
        self.lines.clear();
        let (mut at, mut durable) = (self.written, Some(self.durable.seq));
        for (record, what) in named {
            let payload = record.payload(now.wall);
            self.times.note(&payload);
            at = (at.0 + 1, seal(&mut self.lines, at.0 + 1, &payload, durable.take(), &at.1));
            self.refusals.naming.push(Naming { seq: at.0, what });
        }
        self.write_lines(live, at)
    }

    /// Hands the refused events over to the ledger of another chain, because this one is left.
    /// These are the records to name, and the events that are not written yet.
    pub(in crate::writer) fn hand_over_refused(&mut self, to: &mut Self, chain: (ChainNumber, ChainId)) {
        self.refusals.name_again_behind(0);
        let still = self.refusals.refused.clone();
        for Written { reason, records, .. } in self.refusals.take_placed() {
            for chunk in records.chunks(MAX_RANGES) {
                let reason = reason.as_str().to_owned();
                // An exclusive log continues in the same chain.
                let of = Some(chain).filter(|chain| *chain != (to.chain(), to.id));
                to.refusals.elsewhere.push(Unconfirmed { reason, records: chunk.to_vec(), chain: of });
            }
        }
        to.refusals.elsewhere.append(&mut self.refusals.elsewhere);
        to.refusals.refused = still;
        // Durable events of this chain are named above and do not come again.
        drop(to.refusals.refused.take(0, self.events.durable));
    }

    pub(in crate::writer) fn id(&self) -> ChainId {
        self.id
    }
}
