//! What the writer does after a segment failed: tries a new one at once, then again with growing
//! pauses. If the lock of the chain is lost, it moves to another chain.

use std::time::Duration;

use super::{Former, Next, State, Writer, ledger::Trouble, open};
use crate::{
    clock::{Clock, Moment},
    queue::{Pause, Stage},
    segment_name::SegmentName,
    stats::{LossReason, NoticeKind},
    storage::Dir,
};

/// The shortest and the longest pause between attempts to begin a new segment.
const FIRST_RETRY: Duration = Duration::from_millis(50);
const LAST_RETRY: Duration = Duration::from_secs(2);
/// The longest pause once `MANY_FAILED_FILES` were begun in vain.
const SLOW_RETRY: Duration = Duration::from_secs(60);
/// The longest pause once `TOO_MANY_FAILED_FILES` were, half of what a chain can have.
const SLOWEST_RETRY: Duration = Duration::from_secs(3600);
const MANY_FAILED_FILES: usize = 100;
const TOO_MANY_FAILED_FILES: usize = 500;

/// An outage: no segment can be written to.
#[derive(Debug, Clone, Copy)]
pub(super) struct Outage {
    /// When the next attempt is due.
    pub(super) next_try: Duration,
    /// How long to pause if that attempt fails.
    pause: Duration,
    /// Whether the lock was lost, so that another chain must be taken.
    must_move: bool,
}

/// The end of a round: no segment can be written to before `next_try`.
#[derive(Debug, Clone, Copy)]
pub(super) struct Halted {
    pub(super) next_try: Duration,
}

impl Outage {
    /// Begins an outage whose first attempt is due at once.
    pub(super) fn begin(now: Duration) -> Self {
        Self { next_try: now, pause: FIRST_RETRY, must_move: false }
    }

    /// Begins an outage that only another chain can end.
    pub(super) fn without_lock(now: Duration) -> Self {
        Self { must_move: true, ..Self::begin(now) }
    }

    /// Returns the outage after another failed attempt.
    fn again(self, now: Duration, longest: Duration) -> Self {
        Self { next_try: now + self.pause, pause: (self.pause * 2).min(longest), ..self }
    }
}

/// Returns the longest pause between two attempts. On a disk that creates files and then fails,
/// each attempt leaves a file behind, and a chain can have only so many. After the first hundred,
/// an outage is not expected to end within seconds.
fn longest_pause(begun_in_vain: usize) -> Duration {
    match begun_in_vain {
        0..MANY_FAILED_FILES => LAST_RETRY,
        MANY_FAILED_FILES..TOO_MANY_FAILED_FILES => SLOW_RETRY,
        _ => SLOWEST_RETRY,
    }
}

impl Writer {
    /// Handles the result of any ledger operation: acknowledges what became durable, then deals
    /// with the trouble. In this order, because a failed operation may still have made records
    /// durable.
    pub(super) fn settle(
        &mut self,
        result: Result<(), Trouble>,
        now: &Moment,
        clock: Clock,
    ) -> Result<(), Halted> {
        let acknowledged = self.acknowledge(now);
        result.and(acknowledged).or_else(|trouble| self.handle_trouble(&trouble, now, clock))
    }

    /// Handles trouble: tries a new segment at once, and is failing if that fails too.
    fn handle_trouble(&mut self, trouble: &Trouble, now: &Moment, clock: Clock) -> Result<(), Halted> {
        let path = self.path_of(trouble.segment);
        let message = format!("cannot {} {path}: {}", trouble.action, trouble.error);
        if trouble.old_usable {
            self.timers.rotation_failed(now.elapsed);
            if self.queue.gauges.cannot_rotate.set(true) {
                let message =
                    format!("{message}; the old segment stays in use, and a new one is tried every second");
                self.note(NoticeKind::SegmentFailed, &message, now);
            }
            return Ok(());
        }
        if trouble.is_tampering {
            self.queue.gauges.tampered.set(true);
            self.note(NoticeKind::SegmentTampered, &message, now);
        } else {
            self.queue.notifier.tell(NoticeKind::SegmentFailed, message);
        }
        self.heal(Outage::begin(now.elapsed), now, clock)
    }

    /// Makes one attempt to write again.
    pub(super) fn heal(&mut self, mut outage: Outage, now: &Moment, clock: Clock) -> Result<(), Halted> {
        // If the whole directory is gone, no new segment can be created in it.
        outage.must_move = outage.must_move || self.has_lost_its_lock(now);
        let refused = self.queue.take_refused();
        self.ledger.refuse(&refused);
        let attempt = if outage.must_move {
            self.move_to_another_chain(now, clock)
        } else {
            self.ledger.begin_segment(now).map_err(|trouble| {
                format!("cannot {} {}: {}", trouble.action, self.path_of(trouble.segment), trouble.error)
            })
        };
        if let Err(message) = attempt {
            let outage = outage.again(now.elapsed, longest_pause(self.ledger.begun_in_vain()));
            self.state = State::Failing(outage);
            if self.queue.gauges.failing.set(true) {
                let message = format!("{message}; events are held in memory until the disk accepts them");
                self.queue.notifier.print(&message);
                self.queue.notifier.tell(NoticeKind::Failing, message);
            }
            return Err(Halted { next_try: outage.next_try });
        }
        self.state = State::Writing;
        self.queue.gauges.segment_begun();
        self.timers.marks.record_written(now.elapsed);
        if self.queue.gauges.failing.set(false) {
            self.queue.notifier.tell(NoticeKind::Healed, "the log is recording again");
        }
        self.acknowledge(now).or_else(|trouble| self.handle_trouble(&trouble, now, clock))
    }

    /// Moves to another chain after the lock of this one was lost, and takes along everything that
    /// is not durable.
    fn move_to_another_chain(&mut self, now: &Moment, clock: Clock) -> Result<(), String> {
        self.storage.reattach().map_err(|error| {
            format!(
                "cannot open the log directory {} again: {error}",
                self.storage.path(Dir::Log, "").display()
            )
        })?;
        self.ledger.leave().map_err(|error| {
            let lock = self.storage.path(Dir::Control, &self.ledger.chain().lock_name());
            format!("cannot mark {} as failed: {error}", lock.display())
        })?;
        self.count_done();
        self.passes.stop();
        // An exclusive log has only one chain, and continues in it unless another process has taken
        // it.
        let left = (!self.settings.exclusive).then_some(self.ledger.chain());
        let former = Former { left, seen: self.ledger.all_heads() };
        let opened =
            open(&self.storage, &self.settings, &former, clock, now).map_err(|error| error.to_string())?;
        let mut old = std::mem::replace(&mut self.ledger, opened.ledger);
        self.ledger.continue_events(old.durable_events());
        // Includes events that were refused while the other chain was being opened.
        old.refuse(&self.queue.take_refused());
        let left = (old.chain(), old.id());
        old.hand_over_refused(&mut self.ledger, left);
        self.pending.put_first(old.take_retained());
        for (kind, message) in opened.notices {
            self.queue.notifier.tell(kind, message);
        }
        Ok(())
    }

    /// Decides what is left to do while nothing can be written.
    pub(super) fn back_off(&mut self, stage: Stage, halted: Halted) -> Next {
        match stage {
            Stage::Aborting => std::process::abort(),
            Stage::Abandoned => {
                // No caller waits any more: count what is lost and end.
                self.queue.take(&mut self.pending.batch);
                self.queue.give_up(&self.pending.batch, LossReason::IoFailure);
                self.queue.give_up(self.ledger.retained(), LossReason::IoFailure);
                self.queue.notifier.print("the log was closed while the disk still refused its last events");
                self.end()
            }
            Stage::Open | Stage::Closing | Stage::Closed => Next::Pause(Pause::Backoff, halted.next_try),
        }
    }

    /// Returns the path of a segment of this chain, for messages.
    fn path_of(&self, segment: u32) -> String {
        let name = SegmentName { chain: self.ledger.chain(), segment };
        self.storage.path(Dir::Log, &name.to_string()).display().to_string()
    }
}
