//! Tracks events that were announced to a layer and have not come yet, to detect vetoed ones.
//!
//! `event_enabled` is called from the outermost layer inwards, and a layer further in can still veto the event. Then
//! `on_event` is never called, and no callback reports that.
//!
//! Events live on the stack of the emitting function, and the stack grows downwards. A nested event therefore has a
//! lower address than the event around it. If an event is announced at or above the address of a pending one, that one
//! was vetoed: the function that emitted it has returned.
//!
//! Comparing the number of announced events with the number that came would be simpler, but not sufficient. A pending
//! event may be the one around the next, which another layer is formatting. Without addresses that is known only
//! when a `confirm` ends, and an event vetoed outside of one would be lost silently
//! (`a_vetoed_event_is_counted_and_reported_once` in testing/capture/lifecycle.rs).

use std::cell::Cell;

/// The most pending events that a thread remembers: one for each event that is emitted while another is formatted.
const MAX_PENDING: usize = 8;

/// The largest distance, in bytes, between addresses on one stack. Addresses further apart, as of coroutines with
/// stacks of their own, cannot be compared.
const MAX_DISTANCE: usize = 16 << 20;

/// An event that was announced to a layer.
#[derive(Debug, Clone, Copy, Default)]
struct Pending {
    /// The address of the event.
    event: usize,
    /// The address of the layer.
    layer: usize,
    is_critical: bool,
}

thread_local! {
    // Neither has a destructor, so both can be used in the destructors of other thread-locals.
    static LENGTH: Cell<usize> = const { Cell::new(0) };
    static PENDING: [Cell<Pending>; MAX_PENDING] =
        const { [const { Cell::new(Pending { event: 0, layer: 0, is_critical: false }) }; MAX_PENDING] };
}

/// The number of events that were found to be vetoed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Vetoed {
    pub(super) critical: usize,
    pub(super) routine: usize,
}

/// Returns how many events of this thread are pending.
pub(super) fn depth() -> usize {
    LENGTH.get()
}

/// Removes the events announced since `depth` events were pending, after the code that began then has returned: they
/// were vetoed.
pub(super) fn settle(depth: usize) -> Vetoed {
    let index = Cell::new(0);
    remove(|_| index.replace(index.get() + 1) >= depth)
}

/// Removes the pending events of a layer at or below the address of an event that is announced to it now: they were
/// vetoed.
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
        // Beyond the limit, a vetoed event is not detected; one that comes is recorded all the same.
        if let Some(slot) = pending.get(length) {
            slot.set(Pending { event, layer, is_critical });
            LENGTH.set(length + 1);
        }
    });
}

/// Removes an event that came, if it is the only pending one, and returns whether it was. The common case.
#[inline]
pub(super) fn came_alone(event: usize, layer: usize) -> bool {
    let is_it = |pending: &Pending| pending.event == event && pending.layer == layer;
    let is_alone = LENGTH.get() == 1 && PENDING.with(|[first, ..]| is_it(&first.get()));
    if is_alone {
        LENGTH.set(0);
    }
    is_alone
}

/// Removes an event that came, and the pending ones of its layer below it: those were vetoed.
pub(super) fn came(event: usize, layer: usize) -> Vetoed {
    let is_it = |pending: &Pending| pending.event == event && pending.layer == layer;
    let vetoed =
        remove(|pending| pending.layer == layer && pending.event < event && is_past(pending.event, event));
    remove(is_it);
    vetoed
}

/// Returns whether a pending event lies at or below another one on the same stack.
fn is_past(pending: usize, event: usize) -> bool {
    event.checked_sub(pending).is_some_and(|distance| distance <= MAX_DISTANCE)
}

/// Removes the pending events for which `which` is true, and counts them.
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
        // A nested event that was vetoed is found when the one around it comes.
        expect(5000, 1, true);
        expect(3000, 1, false);
        assert_eq!(came(5000, 1), Vetoed { critical: 0, routine: 1 });
    }
}
