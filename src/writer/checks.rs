//! Periodic checks of the writer: the clocks, the paths, the free space, and the other chains.

use super::{Halted, Outage, Writer, open, others, segment::CLOSED};
use crate::{
    chain_reader::Directory,
    clock::{Clock, Moment},
    format::NoticeInfo,
    stats::NoticeKind,
    storage::is_closed_under_us,
};

impl Writer {
    /// Notes a step of the wall clock.
    pub(super) fn watch_clocks(&mut self, now: &Moment) {
        if let Some(step) = self.timers.clock_step(now) {
            let way = if step.is_ahead { "ahead" } else { "back" };
            self.note(NoticeKind::ClockStep, &format!("the wall clock stepped {way} by {:?}", step.by), now);
        }
    }

    /// Checks the paths if that is due.
    pub(super) fn watch_paths(&mut self, now: &Moment, clock: Clock) -> Result<(), Halted> {
        if self.timers.paths_are_due(self.ledger.unsynced().records > 0, now.elapsed) {
            self.check_paths(now, clock)?;
        }
        Ok(())
    }

    /// Checks whether the paths of the segment and the lock still name the open files. Nothing is
    /// acknowledged in a chain whose lock is lost.
    pub(super) fn check_paths(&mut self, now: &Moment, clock: Clock) -> Result<(), Halted> {
        self.timers.paths_checked(now.elapsed);
        if self.has_lost_its_lock(now) {
            return self.heal(Outage::without_lock(now.elapsed), now, clock);
        }
        let checked = self.ledger.check_name();
        self.settle(checked, now, clock)
    }

    /// Returns whether the lock at its path was removed or replaced, or the descriptor was closed:
    /// then nothing keeps other processes out of the chain.
    pub(super) fn has_lost_its_lock(&mut self, now: &Moment) -> bool {
        let mut loss = self.ledger.lock_loss();
        if loss.as_ref().is_err_and(is_closed_under_us) && self.storage.reattach().is_ok() {
            // The program closed the descriptors of the directories, but may have left that of the
            // lock open.
            loss = self.ledger.lock_loss();
        }
        let Ok(Some(what)) = loss else { return false };
        if what == CLOSED {
            // The live segment was closed as well, or may be next.
            self.queue.gauges.tampered.set(true);
        }
        let message = format!("the lock of chain {} {what}", self.ledger.chain());
        self.note(NoticeKind::LockReplaced, &message, now);
        true
    }

    /// Checks the free space if that is due.
    pub(super) fn watch_space(&mut self, now: &Moment) {
        if !self.timers.take_space_check(now.elapsed) {
            return;
        }
        let Ok(free) = self.storage.free_bytes() else { return };
        self.queue.gauges.free_bytes.set(free);
        let is_short = self.settings.retention.unless_free_below.is_some_and(|least| free < least);
        if is_short && !self.waiting.is_empty() {
            self.timers.retention_soon(now.elapsed);
        }
        let is_low = free < self.settings.low_space;
        if self.queue.gauges.low_space.set(is_low) {
            if is_low {
                self.note(NoticeKind::LowSpace, &format!("{free} bytes are free; make room"), now);
            } else {
                self.note(NoticeKind::SpaceReturned, &format!("{free} bytes are free"), now);
            }
        }
    }

    /// Reads the heads of the other chains, and reports those that are gone.
    pub(super) fn refresh_witnesses(&mut self, now: &Moment) {
        let Ok(directory) = Directory::read(self.storage.as_ref()) else { return };
        for chain in others::refresh(self.storage.as_ref(), &mut self.ledger, &directory) {
            let (kind, message) = open::missing_chain(chain);
            self.note(kind, &message, now);
        }
    }

    /// Reports a notice to the operator, and records it in the log.
    pub(super) fn note(&mut self, kind: NoticeKind, message: &str, now: &Moment) {
        self.queue.notifier.tell(kind, message);
        self.pending.notes.push(&NoticeInfo { code: kind.as_str(), message }.payload(now.wall), None, None);
    }
}
