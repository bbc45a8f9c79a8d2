//! When each periodic task of the writer is due. Pure: the time is passed in.

use std::time::Duration;

use super::{age::DAY, flush::MarkPolicy};
use crate::clock::Moment;

/// How long after the last draft the writer still dozes. Later it sleeps until it is woken.
const AWAKE: Duration = Duration::from_millis(100);
/// How often free space is checked while records are written, and how long to wait after a rotation
/// that could not create a file.
const SPACE_CHECK: Duration = Duration::from_secs(1);
/// The longest time between records becoming durable and their head being noted.
const NOTE_AFTER: Duration = Duration::from_secs(1);
/// How often the paths of the segment and the lock are checked while records are written.
const PATH_CHECK: Duration = Duration::from_millis(100);
/// The longest time between two passes of retention.
const RETENTION_CHECK: Duration = Duration::from_secs(3600);
/// How long to wait after a failed pass of retention, and how often passes are made while space is
/// short.
const RETENTION_RETRY: Duration = Duration::from_secs(60);
/// How often `close` waits for a new segment when an unused file lies behind the live one.
const CLOSE_ATTEMPTS: u32 = 4;
/// The shortest and the longest pause between attempts to write `close`.
const FIRST_CLOSE_RETRY: Duration = Duration::from_millis(50);
const LAST_CLOSE_RETRY: Duration = Duration::from_secs(2);
/// How far the wall clock and the monotonic clock may drift apart between two rounds before the
/// step is noted.
const CLOCK_STEP: Duration = Duration::from_secs(1);

/// The timers of a writer. All moments are on its monotonic clock.
#[derive(Debug)]
pub(super) struct Timers {
    pub(super) marks: MarkPolicy,
    /// Both clocks at the last round.
    clocks: Moment,
    last_active: Duration,
    paths_checked: Duration,
    space_checked: Duration,
    /// The earliest moment of the next rotation.
    rotation_from: Duration,
    /// When the durable head must be noted, if it has moved.
    note_due: Option<Duration>,
    retention_due: Duration,
    retention_from: Duration,
    /// How many attempts to write `close` failed.
    closes_failed: u32,
    /// The earliest moment of the next attempt.
    close_from: Duration,
}

/// A step of the wall clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct ClockStep {
    pub(super) by: Duration,
    pub(super) is_ahead: bool,
}

impl Timers {
    pub(super) fn new(now: &Moment) -> Self {
        Self {
            marks: MarkPolicy::new(now.elapsed),
            clocks: *now,
            last_active: now.elapsed,
            paths_checked: now.elapsed,
            space_checked: now.elapsed,
            rotation_from: Duration::ZERO,
            note_due: None,
            retention_due: now.elapsed,
            retention_from: Duration::ZERO,
            closes_failed: 0,
            close_from: Duration::ZERO,
        }
    }

    /// Compares the two clocks with those of the last round, and returns a step of the wall clock.
    /// They advance together unless the wall clock is set. After a step too large for retention to
    /// trust, a pass of retention is due at once, so that it reports the jump.
    pub(super) fn clock_step(&mut self, now: &Moment) -> Option<ClockStep> {
        let before = std::mem::replace(&mut self.clocks, *now);
        let elapsed = now.elapsed.saturating_sub(before.elapsed);
        let ahead = now.wall.since(before.wall).saturating_sub(elapsed);
        let behind = if now.wall < before.wall {
            before.wall.since(now.wall) + elapsed
        } else {
            elapsed.saturating_sub(now.wall.since(before.wall))
        };
        if ahead > DAY {
            self.retention_due = now.elapsed;
        }
        let by = ahead.max(behind);
        (by > CLOCK_STEP).then_some(ClockStep { by, is_ahead: ahead > behind })
    }

    pub(super) fn took_drafts(&mut self, now: Duration) {
        self.last_active = now;
    }

    /// Returns whether the paths must be checked: periodically, while there are records to lose.
    pub(super) fn paths_are_due(&self, has_unsynced: bool, now: Duration) -> bool {
        // The records of a new segment are durable at once, so nothing unsynced would show that it
        // was written to.
        (has_unsynced || self.last_active == now) && now >= self.paths_checked + PATH_CHECK
    }

    pub(super) fn paths_checked(&mut self, now: Duration) {
        self.paths_checked = now;
    }

    /// Returns whether free space must be checked, and counts it as checked.
    pub(super) fn take_space_check(&mut self, now: Duration) -> bool {
        let is_due = now >= self.space_checked + SPACE_CHECK;
        if is_due {
            self.space_checked = now;
        }
        is_due
    }

    pub(super) fn may_rotate(&self, now: Duration) -> bool {
        now >= self.rotation_from
    }

    pub(super) fn rotation_failed(&mut self, now: Duration) {
        self.rotation_from = now + SPACE_CHECK;
    }

    /// Returns whether a pass of retention is due, and counts it as made.
    pub(super) fn take_retention(&mut self, now: Duration) -> bool {
        let is_due = now >= self.retention_due.max(self.retention_from);
        if is_due {
            self.retention_due = now + RETENTION_CHECK;
        }
        is_due
    }

    /// Returns whether a head that has moved must be noted now. The first call after it moved
    /// starts the timer.
    pub(super) fn note_is_due(&mut self, now: Duration) -> bool {
        now >= *self.note_due.get_or_insert(now + NOTE_AFTER)
    }

    pub(super) fn note_soon(&mut self) {
        self.note_due = Some(Duration::ZERO);
    }

    pub(super) fn noted(&mut self) {
        self.note_due = None;
    }

    pub(super) fn note_failed(&mut self, now: Duration) {
        self.note_due = Some(now + NOTE_AFTER);
    }

    pub(super) fn segment_begun(&mut self, now: Duration) {
        self.retention_due = now;
    }

    /// Brings the next pass of retention forward to at most a minute from now. Called when a pass
    /// could not remove everything, and while less space is free than retention should keep.
    pub(super) fn retention_soon(&mut self, now: Duration) {
        self.retention_due = self.retention_due.min(now + RETENTION_RETRY);
    }

    /// Delays the next pass of retention. The notice of the failure may fill a segment by itself,
    /// and a new segment triggers a pass. Without a delay, that would repeat for ever.
    pub(super) fn retention_failed(&mut self, now: Duration) {
        self.retention_soon(now);
        self.retention_from = self.retention_from.max(now + RETENTION_RETRY);
    }

    /// Returns when `close` may be tried again, if that is not yet.
    pub(super) fn close_waits_until(&self, now: Duration) -> Option<Duration> {
        (now < self.close_from).then_some(self.close_from)
    }

    /// Counts a failed attempt to write `close`, and returns when the next one is due. On a disk
    /// that creates files and then fails, each attempt leaves a file behind. So the attempts are
    /// limited, and the pauses between them grow.
    pub(super) fn close_failed(&mut self, now: Duration) -> Duration {
        let pause = FIRST_CLOSE_RETRY.saturating_mul(self.closes_failed).min(LAST_CLOSE_RETRY);
        self.closes_failed += 1;
        self.close_from = now + pause;
        self.close_from
    }

    /// Returns whether `close` failed more often than a short disturbance of the disk would
    /// explain.
    pub(super) fn close_failed_often(&self) -> bool {
        self.closes_failed >= CLOSE_ATTEMPTS
    }

    /// Returns whether a draft arrived so recently that the writer should only doze.
    pub(super) fn is_awake(&self, now: Duration) -> bool {
        now.saturating_sub(self.last_active) < AWAKE
    }

    /// Returns the next moment at which something is due without an order from the queue. A mark
    /// waits until everything is durable, so an overdue one does not count before `mark_from`.
    pub(super) fn next(
        &self,
        mark_from: Duration,
        is_rotation_wanted: bool,
        has_retention: bool,
        has_note: bool,
    ) -> Duration {
        let rotation = is_rotation_wanted.then_some(self.rotation_from);
        let retention = has_retention.then_some(self.retention_due.max(self.retention_from));
        let note = self.note_due.filter(|_| has_note);
        let mark = self.marks.due_at().max(mark_from);
        [rotation, retention, note].into_iter().flatten().fold(mark, Duration::min)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Timestamp;

    const SECOND: Duration = Duration::from_secs(1);

    fn at(elapsed: u64, wall: i64) -> Moment {
        Moment { elapsed: Duration::from_secs(elapsed), wall: Timestamp::from_unix(wall, 0) }
    }

    #[test]
    fn a_step_of_the_wall_clock_is_reported_in_either_direction() {
        let mut timers = Timers::new(&at(0, 1_000));
        assert_eq!(timers.clock_step(&at(5, 1_005)), None);
        assert_eq!(timers.clock_step(&at(6, 1_007)), None, "a second of difference is none");
        let step = |by, is_ahead| Some(ClockStep { by: Duration::from_secs(by), is_ahead });
        assert_eq!(timers.clock_step(&at(7, 1_010)), step(2, true));
        assert_eq!(timers.clock_step(&at(8, 1_000)), step(11, false));
        assert_eq!(timers.clock_step(&at(20, 1_002)), step(10, false), "it stood still");
    }

    #[test]
    fn retention_is_due_at_once_after_a_step_that_it_does_not_trust() {
        let mut timers = Timers::new(&at(0, 1_000));
        assert!(timers.take_retention(Duration::ZERO));
        assert!(timers.clock_step(&at(1, 80_000)).is_some());
        assert!(!timers.take_retention(SECOND), "less than a day");
        assert!(timers.clock_step(&at(2, 170_000)).is_some());
        assert!(timers.take_retention(2 * SECOND));
        assert!(!timers.take_retention(3 * SECOND));
    }

    #[test]
    fn retention_is_applied_every_minute_while_room_is_short() {
        let mut timers = Timers::new(&at(0, 1_000));
        assert!(timers.take_retention(Duration::ZERO));
        for second in 1..60 {
            timers.retention_soon(second * SECOND);
            assert!(!timers.take_retention(second * SECOND));
        }
        assert!(timers.take_retention(SECOND + RETENTION_RETRY));
        assert!(!timers.take_retention(SECOND + 2 * RETENTION_RETRY));
    }

    #[test]
    fn retention_that_failed_is_tried_again_after_a_minute_and_no_sooner() {
        let mut timers = Timers::new(&at(0, 1_000));
        assert!(timers.take_retention(Duration::ZERO));
        timers.retention_failed(SECOND);
        timers.segment_begun(2 * SECOND);
        assert!(!timers.take_retention(RETENTION_RETRY));
        assert!(timers.take_retention(SECOND + RETENTION_RETRY));
        timers.retention_failed(2 * SECOND + RETENTION_RETRY);
        assert!(!timers.take_retention(SECOND + 2 * RETENTION_RETRY));
        assert!(timers.take_retention(2 * SECOND + 2 * RETENTION_RETRY), "no segment was begun meanwhile");
    }

    #[test]
    fn close_is_tried_again_at_once_and_then_ever_later() {
        let mut timers = Timers::new(&at(0, 0));
        assert_eq!(timers.close_waits_until(Duration::ZERO), None);
        let pauses: Vec<u128> = (0..3).map(|_| timers.close_failed(Duration::ZERO).as_millis()).collect();
        assert_eq!(pauses, [0, 50, 100]);
        assert_eq!(timers.close_waits_until(Duration::ZERO), Some(Duration::from_millis(100)));
        for _ in 0..100 {
            timers.close_failed(Duration::ZERO);
        }
        assert_eq!(timers.close_failed(Duration::ZERO), LAST_CLOSE_RETRY);
    }

    #[test]
    fn what_is_due_first_ends_the_pause() {
        let mut timers = Timers::new(&at(0, 0));
        timers.marks.no_forwarder();
        let mark = timers.marks.due_at();
        assert_eq!(timers.next(Duration::ZERO, false, false, false), mark);
        timers.rotation_failed(Duration::ZERO);
        assert_eq!(timers.next(Duration::ZERO, true, false, false), SPACE_CHECK);
        assert_eq!(timers.next(Duration::ZERO, true, true, false), Duration::ZERO);
        assert!(timers.take_retention(Duration::ZERO) && !timers.may_rotate(Duration::ZERO));
        assert_eq!(timers.next(Duration::ZERO, false, true, false), mark);
        assert_eq!(timers.next(mark + SECOND, false, true, false), mark + SECOND);
    }
}
