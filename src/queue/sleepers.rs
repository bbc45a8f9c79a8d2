//! Which threads sleep until their event is durable, and whom to wake. Pure: touches nothing.

use super::Ticket;

/// Those for whom the writer takes what they wait for, and those who came since, take turns in these.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum Group {
    #[default]
    One,
    Other,
}

impl Group {
    pub(super) const COUNT: usize = 2;

    fn next(self) -> Self {
        match self {
            Self::One => Self::Other,
            Self::Other => Self::One,
        }
    }

    /// What belongs to this group.
    pub(super) fn of<T>(self, [one, other]: &[T; Self::COUNT]) -> &T {
        match self {
            Self::One => one,
            Self::Other => other,
        }
    }

    fn of_mut<T>(self, [one, other]: &mut [T; Self::COUNT]) -> &mut T {
        match self {
            Self::One => one,
            Self::Other => other,
        }
    }
}

/// A sync covers what the writer took before it. Whoever waits for that is woken by one call, and nobody else:
/// those who came while it ran wait for the next sync, and would only look and sleep again.
#[derive(Debug, Default)]
pub(super) struct Sleepers {
    /// The earliest event that somebody in a group waits for.
    earliest: [Option<Ticket>; Group::COUNT],
    /// Up to which event the writer has taken.
    taken: Ticket,
    /// The group of those who wait for later ones.
    later: Group,
}

impl Sleepers {
    /// The writer has taken everything up to `ticket`, and takes no more before it syncs.
    pub(super) fn taken_through(&mut self, ticket: Ticket) {
        self.taken = ticket;
        if self.later.of(&self.earliest).is_some() {
            // Whoever still sleeps in the next one, because a round ended without a sync, is woken early.
            self.later = self.later.next();
        }
    }

    /// One more thread; returns the group whose bell it is to listen to.
    pub(super) fn join(&mut self, ticket: Ticket) -> Group {
        // The writer may have been quicker to take an event than its thread was to fall asleep.
        let is_taken = ticket <= self.taken;
        let group = if is_taken { self.later.next() } else { self.later };
        let earliest = group.of_mut(&mut self.earliest);
        *earliest = Some(earliest.map_or(ticket, |earliest| earliest.min(ticket)));
        group
    }

    /// Empties the groups in which somebody waits for an event up to `ticket`, and says which: all of these
    /// threads must be woken. Whoever waits for a later one joins again.
    pub(super) fn leave_through(&mut self, ticket: Ticket) -> [bool; Group::COUNT] {
        self.earliest.each_mut().map(|earliest| earliest.take_if(|earliest| *earliest <= ticket).is_some())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::sim::Prng;

    #[test]
    fn who_came_during_a_sync_sleeps_through_it() {
        let mut sleepers = Sleepers::default();
        sleepers.join(1);
        sleepers.join(2);
        sleepers.taken_through(2);
        sleepers.join(3);
        assert_eq!(sleepers.leave_through(2), [true, false]);
        assert_eq!(sleepers.leave_through(2), [false, false]);
        sleepers.taken_through(3);
        sleepers.join(4);
        assert_eq!(sleepers.leave_through(3), [false, true]);
        assert_eq!(sleepers.leave_through(4), [true, false]);
    }

    /// The thread that wakes the writer is often slower to fall asleep than the writer is to take its event. It
    /// was put among those who came during the sync, and had all of them woken with it.
    #[test]
    fn who_is_late_is_served_by_the_sync_that_runs() {
        let mut sleepers = Sleepers::default();
        sleepers.taken_through(1);
        sleepers.join(2);
        sleepers.join(1);
        assert_eq!(sleepers.leave_through(1), [false, true]);
        assert_eq!(sleepers.leave_through(2), [true, false]);
    }

    /// However often the writer takes, and whoever is late: whose event is durable is never left asleep.
    #[test]
    fn whoever_is_served_is_woken() {
        let mut sleepers = Sleepers::default();
        let mut waiting: Vec<(Ticket, Group)> = Vec::new();
        let (mut last, mut prng) = (0, Prng::new(1));
        for _ in 0..10_000 {
            match prng.below(4) {
                0 => sleepers.taken_through(last),
                1 => {
                    let durable = prng.next() % (last + 1);
                    let woken = sleepers.leave_through(durable);
                    waiting.retain(|(_, group)| !group.of(&woken));
                    assert!(waiting.iter().all(|(ticket, _)| *ticket > durable));
                }
                _ => {
                    last += 1;
                    // Of an older event somebody may wait later than of a newer one.
                    let ticket = last - prng.next() % last.min(3);
                    waiting.push((ticket, sleepers.join(ticket)));
                }
            }
        }
    }
}
