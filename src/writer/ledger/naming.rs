//! Records that become durable although somebody was told that they are not confirmed: they are named by chained
//! `unconfirmed` records before anybody hears that anything newer is durable.
//!
//! Such a record is no draft: it names places in the chain, and is made anew where those change.

use super::{Ledger, Trouble};
use crate::{
    clock::Moment,
    format::{ChainId, MAX_RANGES, NotConfirmed, Unconfirmed, seal},
    queue::{Refused, Ticket},
    segment_name::ChainNumber,
};

/// Where events stand that were written one behind the other.
#[derive(Debug, Clone, Copy)]
struct Placed {
    first: Ticket,
    seq: u64,
    count: u64,
}

/// A line that names refused events, written and not durable.
#[derive(Debug)]
struct Naming {
    seq: u64,
    what: Named,
}

#[derive(Debug)]
enum Named {
    /// Events in this chain.
    Here(Refused),
    /// Records of a chain that was left.
    Elsewhere(Unconfirmed),
}

/// Refused events that were written, and the records that they are.
#[derive(Debug)]
struct Written {
    reason: NotConfirmed,
    events: Refused,
    records: Vec<(u64, u64)>,
}

/// What a ledger knows of refused events.
#[derive(Debug, Default)]
pub(super) struct Refusals {
    /// Refused, and in no line that names them.
    refused: Refused,
    /// The same of a chain that was left.
    elsewhere: Vec<Unconfirmed>,
    /// Events that were written and that nobody was told of as durable.
    placed: Vec<Placed>,
    /// Lines that name some, written and not durable.
    naming: Vec<Naming>,
}

impl Refusals {
    /// Takes in where an event was written.
    pub(super) fn place(&mut self, ticket: Ticket, seq: u64) {
        match self.placed.last_mut() {
            Some(last) if last.first + last.count == ticket && last.seq + last.count == seq => {
                last.count += 1;
            }
            _ => self.placed.push(Placed { first: ticket, seq, count: 1 }),
        }
    }

    /// Forgets what was written behind this record: it is void.
    pub(super) fn void_behind(&mut self, seq: u64) {
        self.placed.retain_mut(|placed| {
            placed.count = placed.count.min((seq + 1).saturating_sub(placed.seq));
            placed.count > 0
        });
        self.name_again_behind(seq);
    }

    /// What was named by lines behind this record is to be named again.
    fn name_again_behind(&mut self, seq: u64) {
        for naming in self.naming.extract_if(.., |naming| naming.seq > seq) {
            match naming.what {
                Named::Here(refused) => self.refused.append(&refused),
                Named::Elsewhere(records) => self.elsewhere.push(records),
            }
        }
    }

    /// How many lines that name some are durable with this record; they are done with.
    pub(super) fn named_through(&mut self, seq: u64) -> u64 {
        self.naming.extract_if(.., |naming| naming.seq <= seq).count() as u64
    }

    /// The places of refused events that were written, by reason; these are taken out.
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
    /// Takes in that somebody was told that these events are not confirmed.
    pub(in crate::writer) fn refuse(&mut self, refused: &Refused) {
        self.refusals.refused.append(refused);
    }

    /// Whether something must be named before anybody may hear what is durable.
    pub(in crate::writer) fn must_name(&self) -> bool {
        let durable = self.events.durable;
        !self.refusals.elsewhere.is_empty()
            || !self.refusals.naming.is_empty()
            || self.refusals.refused.first().is_some_and(|first| first <= durable)
    }

    /// Everybody knows that events up to this one are durable: nobody can be refused any more.
    pub(in crate::writer) fn published(&mut self, ticket: Ticket) {
        self.refusals.placed.retain(|placed| placed.first + placed.count > ticket + 1);
    }

    /// Appends lines that name what was refused and written, in a write of their own.
    pub(in crate::writer) fn name_refused(&mut self, now: &Moment) -> Result<(), Trouble> {
        let Some(live) = self.live.take() else { return Ok(()) };
        let mut named = Vec::new();
        for records in std::mem::take(&mut self.refusals.elsewhere) {
            named.push((records.clone(), Named::Elsewhere(records)));
        }
        for Written { reason, mut events, records } in self.refusals.take_placed() {
            // What is named in several lines counts as named with the last of them.
            let chunks: Vec<&[(u64, u64)]> = records.chunks(MAX_RANGES).collect();
            for (number, chunk) in chunks.iter().enumerate() {
                let is_last = number + 1 == chunks.len();
                let tickets = if is_last { std::mem::take(&mut events) } else { Refused::default() };
                let record =
                    Unconfirmed { reason: reason.as_str().to_owned(), records: chunk.to_vec(), chain: None };
                named.push((record, Named::Here(tickets)));
            }
        }
        // Of what is durable and has no place nothing can be said.
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

    /// Hands over what another chain has to name of this one, which is left: where refused events stand in it, and which
    /// are still to come.
    pub(in crate::writer) fn hand_over_refused(&mut self, to: &mut Self, chain: (ChainNumber, ChainId)) {
        self.refusals.name_again_behind(0);
        let still = self.refusals.refused.clone();
        for Written { reason, records, .. } in self.refusals.take_placed() {
            for chunk in records.chunks(MAX_RANGES) {
                let reason = reason.as_str().to_owned();
                // An exclusive log goes on in the same chain.
                let of = Some(chain).filter(|chain| *chain != (to.chain(), to.id));
                to.refusals.elsewhere.push(Unconfirmed { reason, records: chunk.to_vec(), chain: of });
            }
        }
        to.refusals.elsewhere.append(&mut self.refusals.elsewhere);
        to.refusals.refused = still;
        // What is durable here is named above, and does not come again.
        drop(to.refusals.refused.take(0, self.events.durable));
    }

    pub(in crate::writer) fn id(&self) -> ChainId {
        self.id
    }
}
