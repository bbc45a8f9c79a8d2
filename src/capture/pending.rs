//! Events that were announced to a layer and did not come yet.
//!
//! `event_enabled` is asked from the outermost layer inwards, and a layer further in can still veto
//! the event; then it never comes, and nobody says so. Events live on the stack of whoever emits
//! them, and a nested one further down than the one around it. So when an event is announced that
//! lies at or above the address of one that is still pending, that one's function has returned: it
//! was vetoed.
//!
//! To count what was announced against what came would be simpler, and would not do: an event that is pending
//! may be the one around the next, which another layer is formatting. Without the addresses that is known only
//! when a `confirm` ends, and what is vetoed outside of one would be lost silently
//! (`a_vetoed_event_is_counted_and_told_once` in testing/capture/lifecycle.rs).

use std::cell::Cell;

/// Announced events that a thread remembers at most: one for each event that is emitted while
/// another is being formatted.
const MAX_PENDING: usize = 8;

/// Addresses further apart than this are on different stacks and say nothing of each other.
const MAX_DISTANCE: usize = 16 << 20;

#[derive(Debug, Clone, Copy, Default)]
struct Pending {
    event: usize,
    layer: usize,
    is_critical: bool,
}

thread_local! {
    static LENGTH: Cell<usize> = const { Cell::new(0) };
    static PENDING: [Cell<Pending>; MAX_PENDING] =
        const { [const { Cell::new(Pending { event: 0, layer: 0, is_critical: false }) }; MAX_PENDING] };
}

/// How many events turned out to have been vetoed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Vetoed {
    pub(super) critical: usize,
    pub(super) routine: usize,
}

/// How many events of this thread are pending.
pub(super) fn depth() -> usize {
    LENGTH.get()
}

/// Code that began when `depth` events were pending has returned: those announced since were vetoed.
pub(super) fn settle(depth: usize) -> Vetoed {
    let index = Cell::new(0);
    remove(|_| index.replace(index.get() + 1) >= depth)
}

/// An event at this address was announced to a layer: earlier ones of that layer at or below it
/// were vetoed.
#[inline]
pub(super) fn announced(event: usize, layer: usize) -> Vetoed {
    if LENGTH.get() == 0 {
        return Vetoed::default();
    }
    remove(|pending| pending.layer == layer && is_past(pending.event, event))
}

/// Remembers an audit event until it comes.
#[inline]
pub(super) fn expect(event: usize, layer: usize, is_critical: bool) {
    let length = LENGTH.get();
    PENDING.with(|pending| {
        if let Some(slot) = pending.get(length) {
            slot.set(Pending { event, layer, is_critical });
            LENGTH.set(length + 1);
        }
    });
}

/// Whether the event came as the only one that was pending, as it mostly is; then none is any more.
#[inline]
pub(super) fn came_alone(event: usize, layer: usize) -> bool {
    let is_it = |pending: &Pending| pending.event == event && pending.layer == layer;
    let is_alone = LENGTH.get() == 1 && PENDING.with(|[first, ..]| is_it(&first.get()));
    if is_alone {
        LENGTH.set(0);
    }
    is_alone
}

/// The event came: it is pending no more, and those of the layer below it were vetoed.
pub(super) fn came(event: usize, layer: usize) -> Vetoed {
    let is_it = |pending: &Pending| pending.event == event && pending.layer == layer;
    let vetoed =
        remove(|pending| pending.layer == layer && pending.event < event && is_past(pending.event, event));
    remove(is_it);
    vetoed
}

fn is_past(pending: usize, event: usize) -> bool {
    event.checked_sub(pending).is_some_and(|distance| distance <= MAX_DISTANCE)
}

/// Removes and counts.
fn remove(which: impl Fn(&Pending) -> bool) -> Vetoed {
    let mut removed = Vetoed::default();
    let length = LENGTH.get();
    PENDING.with(|pending| {
        let mut kept = 0;
        for slot in pending.iter().take(length) {
            let entry = slot.get();
            if which(&entry) {
                *(if entry.is_critical { &mut removed.critical } else { &mut removed.routine }) += 1;
            } else if let Some(place) = pending.get(kept) {
                place.set(entry);
                kept += 1;
            }
        }
        LENGTH.set(kept);
    });
    removed
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_that_comes_was_not_vetoed() {
        expect(5000, 1, true);
        expect(5000, 2, false);
        assert_eq!(announced(4000, 1), Vetoed::default());
        expect(4000, 1, false);
        assert_eq!(came(4000, 1), Vetoed::default());
        assert_eq!(came(5000, 2), Vetoed::default());
        assert_eq!(came(5000, 1), Vetoed::default());
        assert!(!came_alone(5000, 1));
        expect(5000, 1, false);
        assert!(!came_alone(5000, 2) && !came_alone(4999, 1) && came_alone(5000, 1));
        assert_eq!(announced(9000, 1), Vetoed::default());
    }

    #[test]
    fn an_event_that_never_comes_was_vetoed() {
        expect(5000, 1, true);
        assert_eq!(announced(4999, 1), Vetoed::default());
        assert_eq!(announced(5000 + 2 * MAX_DISTANCE, 1), Vetoed::default());
        assert_eq!(announced(6000, 2), Vetoed::default());
        assert_eq!(announced(5000, 1), Vetoed { critical: 1, routine: 0 });
        assert_eq!(announced(5000, 1), Vetoed::default());
        // A nested one, found when the one around it comes.
        expect(5000, 1, true);
        expect(3000, 1, false);
        assert_eq!(came(5000, 1), Vetoed { critical: 0, routine: 1 });
    }
}
