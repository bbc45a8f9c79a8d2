//! Refused events: their callers received an error instead of a confirmation. The events may still become durable;
//! then an `unconfirmed` record must name them.

use std::collections::BTreeMap;

use super::Ticket;
use crate::format::NotConfirmed;

/// A set of events, as the first and last of ranges that neither overlap nor touch.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Tickets(BTreeMap<Ticket, Ticket>);

impl Tickets {
    pub(crate) fn add(&mut self, ticket: Ticket) {
        self.add_range(ticket, ticket);
    }

    pub(crate) fn add_range(&mut self, mut first: Ticket, mut last: Ticket) {
        // Ranges that overlap or touch the new one are merged into it.
        while let Some((from, to)) =
            self.0.range(..=last.saturating_add(1)).next_back().map(|(from, to)| (*from, *to))
        {
            if to.saturating_add(1) < first {
                break;
            }
            self.0.remove(&from);
            (first, last) = (first.min(from), last.max(to));
        }
        self.0.insert(first, last);
    }

    pub(crate) fn ranges(&self) -> impl Iterator<Item = (Ticket, Ticket)> {
        self.0.iter().map(|(first, last)| (*first, *last))
    }

    /// Returns the lowest event.
    pub(crate) fn first(&self) -> Option<Ticket> {
        self.0.keys().next().copied()
    }

    /// Removes and returns the events in a range.
    pub(crate) fn take(&mut self, first: Ticket, last: Ticket) -> Self {
        let mut taken = Self::default();
        // A range that only overlaps is split, and its ends outside are put back.
        let touched: Vec<(Ticket, Ticket)> =
            self.ranges().filter(|(from, to)| *from <= last && *to >= first).collect();
        for (from, to) in touched {
            self.0.remove(&from);
            taken.0.insert(from.max(first), to.min(last));
            if from < first {
                self.0.insert(from, first - 1);
            }
            if to > last {
                self.0.insert(last + 1, to);
            }
        }
        taken
    }
}

/// Refused events, by the reason why they were not confirmed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Refused([Tickets; NotConfirmed::ALL.len()]);

impl Refused {
    pub(crate) fn of(&mut self, reason: NotConfirmed) -> &mut Tickets {
        let [timeout, stalled, failing, lost] = &mut self.0;
        match reason {
            NotConfirmed::Timeout => timeout,
            NotConfirmed::Stalled => stalled,
            NotConfirmed::Failing => failing,
            NotConfirmed::Lost => lost,
        }
    }

    /// Returns each reason with the events that were refused for it.
    pub(crate) fn by_reason(&self) -> impl Iterator<Item = (NotConfirmed, &Tickets)> {
        NotConfirmed::ALL.into_iter().zip(&self.0)
    }

    /// Removes and returns the events in a range.
    pub(crate) fn take(&mut self, first: Ticket, last: Ticket) -> Self {
        Self(self.0.each_mut().map(|tickets| tickets.take(first, last)))
    }

    pub(crate) fn append(&mut self, other: &Self) {
        for (reason, tickets) in other.by_reason() {
            for (first, last) in tickets.ranges() {
                self.of(reason).add_range(first, last);
            }
        }
    }

    /// Returns the lowest event of all reasons.
    pub(crate) fn first(&self) -> Option<Ticket> {
        self.0.iter().filter_map(Tickets::first).min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::sim::Prng;

    #[test]
    fn ranges_are_merged_and_split() {
        let mut tickets = Tickets::default();
        for ticket in [5, 7, 6, 1, 10, 9] {
            tickets.add(ticket);
        }
        assert_eq!(tickets.ranges().collect::<Vec<_>>(), [(1, 1), (5, 7), (9, 10)]);
        assert_eq!(tickets.take(6, 9).ranges().collect::<Vec<_>>(), [(6, 7), (9, 9)]);
        assert_eq!(tickets.ranges().collect::<Vec<_>>(), [(1, 1), (5, 5), (10, 10)]);
    }

    #[test]
    fn ranges_behave_like_a_set_of_numbers() {
        let mut prng = Prng::for_purpose(1, 5);
        let (mut tickets, mut set) = (Tickets::default(), std::collections::BTreeSet::new());
        for _ in 0..2_000 {
            let first = prng.next() % 60;
            let last = first + prng.next() % 5;
            if prng.chance(600) {
                tickets.add_range(first, last);
                set.extend(first..=last);
            } else {
                let taken: Vec<Ticket> =
                    tickets.take(first, last).ranges().flat_map(|(a, b)| a..=b).collect();
                let expected: Vec<Ticket> = set.range(first..=last).copied().collect();
                assert_eq!(taken, expected);
                set.retain(|ticket| !(first..=last).contains(ticket));
            }
            let all: Vec<Ticket> = tickets.ranges().flat_map(|(a, b)| a..=b).collect();
            assert_eq!(all, set.iter().copied().collect::<Vec<_>>());
        }
    }
}
