//! Which threads sleep until their event is durable, and whom to wake. Pure: touches nothing.

use super::Ticket;

/// Between two groups that one bell wakes there are at least so many takes of the writer, less one. One sync
/// covers two at most, and who comes while it runs must not be woken by it.
pub(super) const GROUPS: usize = 4;

/// A thread joins the group of those whose events the writer will take at the same time, because one sync
/// makes them durable, and one call wakes them.
#[derive(Debug, Default)]
pub(super) struct Sleepers {
    /// The earliest event that somebody in a group waits for.
    earliest: [Option<Ticket>; GROUPS],
    current: usize,
}

impl Sleepers {
    /// Who joins from here on is not served by what the writer has taken.
    pub(super) fn begin_group(&mut self) {
        self.current = (self.current + 1) % GROUPS;
    }

    /// One more thread; returns which group, and so which bell, it is to listen to.
    pub(super) fn join(&mut self, ticket: Ticket) -> usize {
        if let Some(earliest) = self.earliest.get_mut(self.current) {
            *earliest = Some(earliest.map_or(ticket, |earliest| earliest.min(ticket)));
        }
        self.current
    }

    /// Empties the groups in which somebody waits for an event up to `ticket`, and says which: all of these
    /// threads must be woken. Whoever waits for a later one joins again.
    pub(super) fn leave_through(&mut self, ticket: Ticket) -> [bool; GROUPS] {
        self.earliest.each_mut().map(|earliest| earliest.take_if(|earliest| *earliest <= ticket).is_some())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_came_during_a_sync_is_not_woken_by_it() {
        let mut sleepers = Sleepers::default();
        assert_eq!((sleepers.join(1), sleepers.join(2)), (0, 0));
        sleepers.begin_group();
        assert_eq!(sleepers.join(3), 1);
        assert_eq!(sleepers.leave_through(2), [true, false, false, false]);
        assert_eq!(sleepers.leave_through(2), [false; GROUPS]);
        assert_eq!(sleepers.leave_through(3), [false, true, false, false]);
        assert_eq!(sleepers.leave_through(Ticket::MAX), [false; GROUPS]);
    }

    /// However often the writer takes: whose event is durable is never left asleep.
    #[test]
    fn whoever_is_served_is_woken() {
        let mut sleepers = Sleepers::default();
        let mut waiting: Vec<(Ticket, usize)> = Vec::new();
        let (mut last, mut dice) = (0, 1_u64);
        for _ in 0..10_000 {
            dice = dice.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            match (dice >> 33) % 4 {
                0 => sleepers.begin_group(),
                1 => {
                    let durable = (dice >> 40) % (last + 1);
                    let woken = sleepers.leave_through(durable);
                    waiting.retain(|(_, group)| !woken[*group]);
                    assert!(waiting.iter().all(|(ticket, _)| *ticket > durable));
                }
                _ => {
                    last += 1;
                    // Of an older event somebody may wait later than of a newer one.
                    let ticket = last - (dice >> 50) % last.min(3);
                    waiting.push((ticket, sleepers.join(ticket)));
                }
            }
        }
    }
}
