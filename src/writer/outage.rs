//! What the writer does when a segment fails: tries a new one at once, and again with growing pauses, in another
//! chain where the lock of its own is gone.

use std::time::Duration;

use super::{Former, Next, State, Writer, ledger::Trouble, open};
use crate::{
    clock::{Clock, Moment},
    queue::{Pause, Stage},
    segment_name::SegmentName,
    stats::{LossReason, NoticeKind},
    storage::Dir,
};

/// The first and the longest pause between attempts to begin a new segment.
const FIRST_RETRY: Duration = Duration::from_millis(50);
const LAST_RETRY: Duration = Duration::from_secs(2);
/// The longest pauses once this many files were begun in vain.
const SLOW_RETRY: Duration = Duration::from_secs(60);
const SLOWEST_RETRY: Duration = Duration::from_secs(3600);
const MANY_FAILED_FILES: usize = 100;
const TOO_MANY_FAILED_FILES: usize = 500;

/// No segment can be written to now.
#[derive(Debug, Clone, Copy)]
pub(super) struct Outage {
    /// When the next attempt is due, and how long the pause after that is.
    pub(super) next_try: Duration,
    pause: Duration,
    /// The lock was replaced, so another chain must be taken.
    must_move: bool,
}

/// What ends a round of the writer: no segment can be written to before `next_try`.
#[derive(Debug, Clone, Copy)]
pub(super) struct Halted {
    pub(super) next_try: Duration,
}

impl Outage {
    pub(super) fn begin(now: Duration) -> Self {
        Self { next_try: now, pause: FIRST_RETRY, must_move: false }
    }

    pub(super) fn without_lock(now: Duration) -> Self {
        Self { must_move: true, ..Self::begin(now) }
    }

    /// The same after an attempt that failed.
    fn again(self, now: Duration, longest: Duration) -> Self {
        Self { next_try: now + self.pause, pause: (self.pause * 2).min(longest), ..self }
    }
}

/// Each attempt on a disk that takes a file and nothing more leaves a file behind, and a chain can have only so
/// many: after some of them an outage is not a matter of seconds.
fn longest_pause(begun_in_vain: usize) -> Duration {
    match begun_in_vain {
        0..MANY_FAILED_FILES => LAST_RETRY,
        MANY_FAILED_FILES..TOO_MANY_FAILED_FILES => SLOW_RETRY,
        _ => SLOWEST_RETRY,
    }
}

impl Writer {
    /// After anything the ledger did: acknowledges what became durable, and deals with trouble.
    pub(super) fn settle(
        &mut self,
        result: Result<(), Trouble>,
        now: &Moment,
        clock: Clock,
    ) -> Result<(), Halted> {
        let acknowledged = self.acknowledge(now);
        result.and(acknowledged).or_else(|trouble| self.meet(&trouble, now, clock))
    }

    /// Something failed: tries a new segment at once, and is failing if that fails too.
    fn meet(&mut self, trouble: &Trouble, now: &Moment, clock: Clock) -> Result<(), Halted> {
        let path = self.path_of(trouble.segment);
        let message = format!("cannot {} {path}: {}", trouble.action, trouble.error);
        if trouble.old_goes_on {
            self.timers.rotation_failed(now.elapsed);
            if self.queue.gauges.cannot_rotate.set(true) {
                let message =
                    format!("{message}; the old segment goes on, and a new one is tried each second");
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

    /// One attempt to write again.
    pub(super) fn heal(&mut self, mut outage: Outage, now: &Moment, clock: Clock) -> Result<(), Halted> {
        // Where the whole directory is gone, a new segment cannot be made in it.
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
                let message = format!("{message}; events are held in memory until the disk takes them");
                self.queue.notifier.print(&message);
                self.queue.notifier.tell(NoticeKind::Failing, message);
            }
            return Err(Halted { next_try: outage.next_try });
        }
        self.state = State::Writing;
        self.queue.gauges.segment_begun();
        self.timers.marks.record_written(now.elapsed);
        if self.queue.gauges.failing.set(false) {
            self.queue.notifier.tell(NoticeKind::Healed, "the log records again");
        }
        self.acknowledge(now).or_else(|trouble| self.meet(&trouble, now, clock))
    }

    /// The lock of the chain was taken away: goes on in another chain, with all that is not durable.
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
        // An exclusive log has one chain, and goes on in it where nobody else has taken it.
        let left = (!self.settings.exclusive).then_some(self.ledger.chain());
        let former = Former { left, seen: self.ledger.all_heads() };
        let opened =
            open(&self.storage, &self.settings, &former, clock, now).map_err(|error| error.to_string())?;
        let mut old = std::mem::replace(&mut self.ledger, opened.ledger);
        self.ledger.continue_events(old.durable_events());
        // Also what was refused while the other chain was opened.
        old.refuse(&self.queue.take_refused());
        let left = (old.chain(), old.id());
        old.hand_over_refused(&mut self.ledger, left);
        self.pending.put_first(old.take_retained());
        for (kind, message) in opened.notices {
            self.queue.notifier.tell(kind, message);
        }
        Ok(())
    }

    /// What is left to do when nothing can be written.
    pub(super) fn back_off(&mut self, stage: Stage, halted: Halted) -> Next {
        match stage {
            Stage::Aborting => std::process::abort(),
            Stage::Abandoned => {
                // Nobody waits any more.
                self.queue.take(&mut self.pending.batch);
                self.queue.give_up(&self.pending.batch, LossReason::IoFailure);
                self.queue.give_up(self.ledger.retained(), LossReason::IoFailure);
                self.queue
                    .notifier
                    .print("the log was closed while the disk refused to take its last events");
                self.end()
            }
            Stage::Open | Stage::Closing | Stage::Closed => Next::Pause(Pause::Backoff, halted.next_try),
        }
    }

    fn path_of(&self, segment: u32) -> String {
        let name = SegmentName { chain: self.ledger.chain(), segment };
        self.storage.path(Dir::Log, &name.to_string()).display().to_string()
    }
}
