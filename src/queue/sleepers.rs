//! Decides which sleeping threads to wake when events become durable. Pure: performs no wake-up itself.

use super::Ticket;

/// One of the two groups of sleeping threads. They alternate: one waits for what the writer has taken, the other for
/// what came since.
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

    /// Returns the element of this group.
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

/// The sleeping threads, in two groups.
///
/// A sync covers what the writer took before it. One call wakes exactly the threads that wait for that. Threads that
/// came during the sync wait for the next one: if they were woken too, they would only look and sleep again.
#[derive(Debug, Default)]
pub(super) struct Sleepers {
    /// The earliest event that a thread in each group waits for.
    earliest: [Option<Ticket>; Group::COUNT],
    /// The last event that the writer has taken.
    taken: Ticket,
    /// The group of threads that wait for later events.
    later: Group,
}

impl Sleepers {
    /// Notes that the writer has taken everything up to `ticket`, and takes no more before it syncs.
    pub(super) fn taken_through(&mut self, ticket: Ticket) {
        self.taken = ticket;
        if self.later.of(&self.earliest).is_some() {
            // Threads can still sleep in the other group, if the last round ended without a sync. They are woken early.
            self.later = self.later.next();
        }
    }

    /// Adds a thread that waits for `ticket`, and returns the group whose bell it must sleep on.
    pub(super) fn join(&mut self, ticket: Ticket) -> Group {
        // The writer may have taken the event before its thread came to sleep.
        let is_taken = ticket <= self.taken;
        let group = if is_taken { self.later.next() } else { self.later };
        let earliest = group.of_mut(&mut self.earliest);
        *earliest = Some(earliest.map_or(ticket, |earliest| earliest.min(ticket)));
        group
    }

    /// Empties the groups in which a thread waits for an event up to `ticket`, and returns which: all their threads must
    /// be woken. A thread that waits for a later event joins again.
    pub(super) fn leave_through(&mut self, ticket: Ticket) -> [bool; Group::COUNT] {
        self.earliest.each_mut().map(|earliest| earliest.take_if(|earliest| *earliest <= ticket).is_some())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::sim::Prng;

    #[test]
    fn a_thread_that_came_during_a_sync_sleeps_through_it() {
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

    /// The thread that wakes the writer often falls asleep only after the writer has taken its event. It was put in the
    /// group of threads that came during the sync, and all of them were woken with it.
    #[test]
    fn a_late_sleeper_is_served_by_the_sync_that_runs() {
        let mut sleepers = Sleepers::default();
        sleepers.taken_through(1);
        sleepers.join(2);
        sleepers.join(1);
        assert_eq!(sleepers.leave_through(1), [false, true]);
        assert_eq!(sleepers.leave_through(2), [true, false]);
    }

    /// Whatever the order of takes, syncs and late threads, no thread whose event is durable is left asleep.
    #[test]
    fn every_thread_that_is_served_is_woken() {
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
                    // A thread may begin to wait for an older event after another one for a newer event.
                    let ticket = last - prng.next() % last.min(3);
                    waiting.push((ticket, sleepers.join(ticket)));
                }
            }
        }
    }
}
