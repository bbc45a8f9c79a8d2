//! What the writer keeps an eye on beside its work: the clock, the paths, the space, other chains.

use std::time::Duration;

use super::{FIRST_RETRY, Failure, SPACE_CHECK, Writer, open};
use crate::{
    NoticeCode,
    clock::{Clock, Moment},
    format::NoticeInfo,
};

/// How often the paths of the segment and the lock are looked at while records are written.
const PATH_CHECK: Duration = Duration::from_millis(100);
/// How long retention rests after the wall clock jumped ahead, so that a wrong clock removes nothing.
const RETENTION_REST: Duration = Duration::from_secs(24 * 3600);
/// How far wall clock and monotonic clock may move apart before it is noted.
const CLOCK_STEP: Duration = Duration::from_secs(1);
const LARGE_CLOCK_STEP: Duration = Duration::from_secs(3600);

impl Writer {
    /// Wall clock and monotonic clock move together, unless somebody sets the clock.
    pub(super) fn watch_clocks(&mut self, now: &Moment) {
        let elapsed = now.elapsed.saturating_sub(self.clocks.elapsed);
        let ahead = now.wall.since(self.clocks.wall).saturating_sub(elapsed);
        let behind = if now.wall < self.clocks.wall {
            self.clocks.wall.since(now.wall) + elapsed
        } else {
            elapsed.saturating_sub(now.wall.since(self.clocks.wall))
        };
        if ahead > CLOCK_STEP || behind > CLOCK_STEP {
            let (by, way) = if ahead > behind { (ahead, "ahead") } else { (behind, "back") };
            self.note(NoticeCode::ClockStep, &format!("the wall clock stepped {way} by {by:?}"), now);
            if ahead > LARGE_CLOCK_STEP {
                self.retention_rests = now.elapsed + RETENTION_REST;
            }
        }
        self.clocks = *now;
    }

    pub(super) fn watch_paths(&mut self, now: &Moment, clock: Clock) {
        // A new segment is durable at once, and leaves nothing unsynced behind.
        let active = self.ledger.unsynced().records > 0 || self.last_active == now.elapsed;
        if active && now.elapsed >= self.paths_checked + PATH_CHECK {
            self.check_paths(now, clock);
        }
    }

    /// Whether the segment and the lock are still what their paths name.
    pub(super) fn check_paths(&mut self, now: &Moment, clock: Clock) {
        if self.failure.is_some() {
            return;
        }
        self.paths_checked = now.elapsed;
        if self.has_lost_its_lock(now) {
            let failure = Failure { next_try: now.elapsed, pause: FIRST_RETRY, relocate: true };
            self.failure = Some(failure);
            self.heal(failure, now, clock);
            return;
        }
        let checked = self.ledger.check_name();
        self.settle(checked, now, clock);
    }

    /// Whether the lock at its path is another one now, or gone: then nothing keeps others out.
    pub(super) fn has_lost_its_lock(&mut self, now: &Moment) -> bool {
        let is_lost = matches!(self.ledger.is_lock_in_place(), Ok(false));
        if is_lost {
            let message = format!("the lock of chain {} was removed or replaced", self.ledger.chain());
            self.note(NoticeCode::LockReplaced, &message, now);
        }
        is_lost
    }

    pub(super) fn watch_space(&mut self, now: &Moment) {
        if now.elapsed < self.space_checked + SPACE_CHECK || self.failure.is_some() {
            return;
        }
        self.space_checked = now.elapsed;
        let Ok(free) = self.storage.free_bytes() else { return };
        self.queue.gauges.free_bytes.set(free);
        let is_low = free < self.settings.low_space;
        if self.queue.gauges.low_space.set(is_low) {
            if is_low {
                self.note(NoticeCode::LowSpace, &format!("{free} bytes are free; make room"), now);
            } else {
                self.note(NoticeCode::SpaceReturned, &format!("{free} bytes are free"), now);
            }
        }
    }

    pub(super) fn refresh_witnesses(&mut self, now: &Moment) {
        for chain in open::refresh_witnesses(&self.storage, &mut self.ledger) {
            let (code, message) = open::missing_chain(chain);
            self.note(code, &message, now);
        }
    }

    /// Tells an operator, and the log.
    pub(super) fn note(&mut self, code: NoticeCode, message: &str, now: &Moment) {
        self.queue.notifier.tell(code, message);
        self.notes.push(&NoticeInfo { code: code.as_str(), message }.payload(now.wall), None, None);
    }
}
