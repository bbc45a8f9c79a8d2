//! The one thread that writes: takes drafts from the queue, appends, syncs, acknowledges.
//!
//! `step` does what is due at a moment and says how long nothing will be; the loop around it only
//! asks the time and pauses. When to sync, to roll, to mark and to remove are pure decisions in
//! files of their own.

mod flush;
mod keep;
mod ledger;
mod lock;
mod open;
mod recover;
mod retention;
mod roll;
mod segment;
#[cfg(test)]
#[path = "../../testing/writer/mod.rs"]
mod tests;
mod watch;

use std::{sync::Arc, time::Duration};

use crate::{
    FlushMode, NoticeCode, Retention, Rotation,
    chain::Head,
    clock::{Clock, Moment},
    format::{MAX_LINE, MAX_PAYLOAD, mark_payload},
    queue::{Chunks, Orders, Pause, Queue, Stage},
    stats::LossReason,
    storage::{Dir, Storage},
};
use flush::{FlushPolicy, MarkPolicy};
use ledger::{Ledger, Trouble};
pub(crate) use open::{Former, Opened, open};

/// How long after the last draft it sleeps until it is woken.
const AWAKE: Duration = Duration::from_millis(100);
/// How often free space is asked while records are written.
const SPACE_CHECK: Duration = Duration::from_secs(1);
/// The first and the longest pause between attempts to begin a new segment.
const FIRST_RETRY: Duration = Duration::from_millis(50);
const LAST_RETRY: Duration = Duration::from_secs(2);
/// The longest pauses once this many files were begun in vain.
const SLOW_RETRY: Duration = Duration::from_secs(60);
const SLOWEST_RETRY: Duration = Duration::from_secs(3600);
const MANY_FAILED_FILES: usize = 100;
const TOO_MANY_FAILED_FILES: usize = 500;
/// How often retention is applied at least.
const RETENTION_CHECK: Duration = Duration::from_secs(3600);
/// How long retention rests after it failed.
const RETENTION_RETRY: Duration = Duration::from_secs(60);
/// What a line has beside its payload at most, so that no segment grows beyond its limit.
const MAX_ENVELOPE: u64 = (MAX_LINE - MAX_PAYLOAD) as u64;

/// What the writer is told once.
#[derive(Debug, Clone)]
pub(crate) struct WriterSettings {
    pub(crate) flush_mode: FlushMode,
    pub(crate) rotation: Rotation,
    pub(crate) retention: Retention,
    pub(crate) low_space: u64,
    pub(crate) exclusive: bool,
    pub(crate) service: String,
    pub(crate) host: String,
    pub(crate) writer_id: u64,
}

/// What comes after a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Next {
    /// Nothing is due before this moment of the clock, unless the queue says so.
    Pause(Pause, Duration),
    Ended,
}

/// Writes one log.
#[derive(Debug)]
pub(crate) struct Writer {
    storage: Arc<dyn Storage>,
    queue: Arc<Queue>,
    settings: WriterSettings,
    flush: FlushPolicy,
    marks: MarkPolicy,
    ledger: Ledger,
    /// Drafts taken from the queue and not yet handed to the ledger.
    batch: Chunks,
    /// When the oldest draft of the batch was queued, and when the queue was emptied last.
    batch_since: Duration,
    taken_at: Duration,
    /// Notices that wait to be recorded.
    notes: Chunks,
    failure: Option<Failure>,
    /// The head that everybody was told last.
    published: Head,
    rotations: u64,
    rotations_asked: u64,
    /// No rotation before this: the last attempt could not make a file.
    rotation_rests: Duration,
    retention_due: Duration,
    retention_rests: Duration,
    /// How often `close` was written in vain, and when it is tried again.
    closes_failed: u32,
    close_rests: Duration,
    last_active: Duration,
    paths_checked: Duration,
    space_checked: Duration,
    clocks: Moment,
}

/// No segment can be written to now.
#[derive(Debug, Clone, Copy)]
struct Failure {
    next_try: Duration,
    pause: Duration,
    /// The lock was replaced, so another chain must be taken.
    relocate: bool,
}

impl Writer {
    pub(crate) fn new(
        storage: Arc<dyn Storage>,
        queue: Arc<Queue>,
        settings: WriterSettings,
        opened: Opened,
        now: Moment,
    ) -> Self {
        let published = opened.ledger.head();
        let mut writer = Self {
            published,
            storage,
            queue,
            flush: FlushPolicy::new(settings.flush_mode),
            settings,
            marks: MarkPolicy::new(now.elapsed),
            ledger: opened.ledger,
            batch: Chunks::default(),
            batch_since: now.elapsed,
            taken_at: now.elapsed,
            notes: Chunks::default(),
            failure: None,
            rotations: 0,
            rotations_asked: 0,
            rotation_rests: Duration::ZERO,
            retention_due: now.elapsed,
            retention_rests: Duration::ZERO,
            closes_failed: 0,
            close_rests: Duration::ZERO,
            last_active: now.elapsed,
            paths_checked: now.elapsed,
            space_checked: now.elapsed,
            clocks: now,
        };
        writer.publish();
        if let Ok(free) = writer.storage.free_bytes() {
            writer.queue.gauges.free_bytes.set(free);
        }
        writer
    }

    /// Runs until the log is closed.
    pub(crate) fn run(mut self, clock: Clock) {
        self.queue.attach_writer();
        loop {
            match self.step(&clock.now(), clock) {
                Next::Pause(pause, until) => self.queue.pause(pause, until),
                Next::Ended => return,
            }
        }
    }

    /// Does everything that is due now.
    pub(crate) fn step(&mut self, now: &Moment, clock: Clock) -> Next {
        if self.failure.is_none() && self.ledger.live().is_none() {
            // Whatever ended the segment, a writer without one is failing and must try for another.
            self.failure = Some(Failure { next_try: now.elapsed, pause: FIRST_RETRY, relocate: false });
        }
        if let Some(failure) = self.failure {
            let stage = self.queue.stage();
            let last_attempt = stage >= Stage::Abandoned;
            if !last_attempt && now.elapsed < failure.next_try {
                return Next::Pause(Pause::Backoff, failure.next_try);
            }
            self.heal(failure, now, clock);
            if self.failure.is_some() {
                return self.still_failing(stage);
            }
        }
        let orders = self.queue.take(&mut self.batch);
        // Of the same look as the batch: from `Closing` on, the batch has all that was accepted.
        let stage = orders.stage;
        self.note_age(&orders, now);
        let took = !self.batch.is_empty();
        if took {
            self.last_active = now.elapsed;
        }
        self.work(orders, now, clock);
        match self.failure {
            Some(_) if stage >= Stage::Abandoned => self.still_failing(stage),
            Some(failure) => Next::Pause(Pause::Backoff, failure.next_try),
            None if stage == Stage::Aborting => std::process::abort(),
            None if stage >= Stage::Closing => self.close(stage, now, clock),
            None => self.pause(now),
        }
    }

    /// A record ages from when it was queued: what came while the disk was busy has waited already.
    /// Nothing in the queue is older than the last time it was emptied, whatever the wall clock says.
    fn note_age(&mut self, orders: &Orders, now: &Moment) {
        let age = orders.oldest.map_or(Duration::ZERO, |oldest| now.wall.since(oldest));
        self.batch_since = now.elapsed.saturating_sub(age).max(self.taken_at);
        self.taken_at = now.elapsed;
    }

    /// One round of a writer that can write.
    fn work(&mut self, orders: Orders, now: &Moment, clock: Clock) {
        self.watch_clocks(now);
        if !self.notes.is_empty() {
            let mut notes = std::mem::take(&mut self.notes);
            self.batch.move_to(&mut notes);
            self.batch = notes;
        }
        self.append(now, clock);
        let orders = self.append_latecomers(orders, now, clock);
        self.rotate_as_asked(orders.rotations, now, clock);
        self.watch_paths(now, clock);
        if self.failure.is_some() {
            // Nothing is acknowledged in a chain whose lock is gone.
            return;
        }
        self.watch_space(now);
        let unsynced = self.ledger.unsynced();
        let wanted = orders.wanted > self.ledger.durable_events() || orders.room_wanted;
        if unsynced.records > 0
            && (wanted || orders.stage > Stage::Open || self.flush.is_due(unsynced, now.elapsed))
        {
            self.sync(now, clock);
        }
        self.mark(now, clock);
        self.apply_retention(now, clock);
    }

    fn sync(&mut self, now: &Moment, clock: Clock) {
        if self.ledger.live().is_none() {
            return;
        }
        let begun = clock.elapsed();
        let synced = self.ledger.sync();
        if synced.is_ok() {
            let took = clock.elapsed().saturating_sub(begun);
            self.queue.gauges.last_sync_nanos.set(u64::try_from(took.as_nanos()).unwrap_or(u64::MAX));
            self.queue.gauges.syncs.add(1);
        }
        self.settle(synced, now, clock);
    }

    /// Tells everybody what is durable.
    fn publish(&mut self) {
        let gauges = &self.queue.gauges;
        gauges.written_bytes.add(self.ledger.take_appended_bytes());
        gauges.records_since_sync.set(self.ledger.unsynced().records);
        self.published = self.ledger.head();
        gauges.set_head(self.published);
        gauges.durable_events.set(self.ledger.durable_events());
        let holding = self.batch.bytes() + self.ledger.retained().bytes();
        self.queue.publish(self.ledger.durable_events(), holding);
    }

    /// After anything the ledger did: acknowledges what became durable, and deals with trouble.
    fn settle(&mut self, result: Result<(), Trouble>, now: &Moment, clock: Clock) {
        self.acknowledge();
        if let Err(trouble) = result {
            self.meet(&trouble, now, clock);
        }
    }

    fn acknowledge(&mut self) {
        if self.ledger.head() != self.published {
            self.publish();
        }
    }

    /// Something failed: tries a new segment at once, and is failing if that fails too.
    fn meet(&mut self, trouble: &Trouble, now: &Moment, clock: Clock) {
        let path = self.path_of(trouble.segment);
        let message = format!("cannot {} {path}: {}", trouble.action, trouble.error);
        if trouble.old_goes_on {
            self.rotation_rests = now.elapsed + SPACE_CHECK;
            self.queue
                .notifier
                .tell(NoticeCode::SegmentFailed, format!("{message}; the old segment goes on"));
            return;
        }
        let code = if trouble.is_tampering { NoticeCode::SegmentTampered } else { NoticeCode::SegmentFailed };
        if trouble.is_tampering {
            self.note(code, &message, now);
        } else {
            self.queue.notifier.tell(code, message);
        }
        let failure = Failure { next_try: now.elapsed, pause: FIRST_RETRY, relocate: false };
        self.failure = Some(failure);
        self.heal(failure, now, clock);
    }

    /// One attempt to write again.
    fn heal(&mut self, mut failure: Failure, now: &Moment, clock: Clock) {
        // Where the whole directory is gone, a new segment cannot be made in it.
        failure.relocate = failure.relocate || self.has_lost_its_lock(now);
        let attempt = if failure.relocate {
            self.relocate(now, clock)
        } else {
            self.ledger.begin_segment(now).map_err(|trouble| {
                format!("cannot {} {}: {}", trouble.action, self.path_of(trouble.segment), trouble.error)
            })
        };
        match attempt {
            Ok(()) => {
                self.failure = None;
                self.queue.gauges.segments.add(1);
                self.marks.record_written(now.elapsed);
                if self.queue.gauges.failing.set(false) {
                    self.queue.notifier.tell(NoticeCode::Healed, "the log records again");
                }
                self.acknowledge();
            }
            Err(message) => {
                self.failure = Some(Failure {
                    next_try: now.elapsed + failure.pause,
                    pause: (failure.pause * 2).min(self.longest_pause()),
                    ..failure
                });
                if self.queue.gauges.failing.set(true) {
                    let message = format!("{message}; events are held in memory until the disk takes them");
                    self.queue.notifier.print(&message);
                    self.queue.notifier.tell(NoticeCode::Failing, message);
                }
            }
        }
    }

    /// Each attempt on a disk that takes a file and cannot sync it leaves a file behind, and a chain
    /// can have only so many: after some of them an outage is not a matter of seconds.
    fn longest_pause(&self) -> Duration {
        match self.ledger.failed_files() {
            0..MANY_FAILED_FILES => LAST_RETRY,
            MANY_FAILED_FILES..TOO_MANY_FAILED_FILES => SLOW_RETRY,
            _ => SLOWEST_RETRY,
        }
    }

    /// The lock of the chain was taken away: goes on in another chain, with all that is not durable.
    fn relocate(&mut self, now: &Moment, clock: Clock) -> Result<(), String> {
        if !planted!(LostDirectoryNotFollowed) {
            self.storage
                .reattach()
                .map_err(|error| format!("cannot open the directory of the log: {error}"))?;
        }
        self.ledger.leave().map_err(|error| {
            let lock = self.storage.path(Dir::Control, &self.ledger.chain().lock_name());
            format!("cannot mark {} as failed: {error}", lock.display())
        })?;
        // An exclusive log has one chain, and goes on in it where nobody else has taken it.
        let left = (!self.settings.exclusive).then_some(self.ledger.chain());
        let former = Former { left, seen: self.ledger.all_heads() };
        let opened =
            open(&self.storage, &self.settings, &former, clock, now).map_err(|error| error.to_string())?;
        let mut old = std::mem::replace(&mut self.ledger, opened.ledger);
        self.ledger.continue_events(old.durable_events());
        let mut carried = old.take_retained();
        self.batch.move_to(&mut carried);
        self.batch = carried;
        for (code, message) in opened.notices {
            self.queue.notifier.tell(code, message);
        }
        Ok(())
    }

    /// What is left to do when nothing can be written and nobody waits any more.
    fn still_failing(&mut self, stage: Stage) -> Next {
        match (stage, self.failure) {
            (Stage::Aborting, _) => std::process::abort(),
            (Stage::Abandoned, _) => {
                self.queue.take(&mut self.batch);
                self.queue.give_up(&self.batch, LossReason::IoFailure);
                self.queue.give_up(self.ledger.retained(), LossReason::IoFailure);
                self.queue
                    .notifier
                    .print("the log was closed while the disk refused to take its last events");
                self.end()
            }
            (_, Some(failure)) => Next::Pause(Pause::Backoff, failure.next_try),
            (_, None) => Next::Pause(Pause::None, Duration::ZERO),
        }
    }

    fn close(&mut self, stage: Stage, now: &Moment, clock: Clock) -> Next {
        self.queue.take(&mut self.batch);
        self.check_paths(now, clock);
        if self.failure.is_some() {
            return Next::Pause(Pause::None, now.elapsed);
        }
        self.refresh_witnesses(now);
        if !self.batch.is_empty() || !self.notes.is_empty() || self.ledger.unsynced().records > 0 {
            // Came in while the last batch was written.
            return Next::Pause(Pause::None, now.elapsed);
        }
        if now.elapsed < self.close_rests && stage < Stage::Abandoned {
            return Next::Pause(Pause::Backoff, self.close_rests);
        }
        let events = self.ledger.durable_events();
        let closed = open::close_chain(&mut self.ledger, events, now);
        self.settle(closed, now, clock);
        if self.failure.is_some() {
            return Next::Pause(Pause::None, now.elapsed);
        }
        if !self.ledger.is_closed() {
            return self.close_again(stage, now);
        }
        self.queue.gauges.closed_in_order.set(true);
        self.end()
    }

    /// `close` failed, and everything before it is durable in a new segment. On a disk that takes new
    /// files and fails at whatever follows, each attempt leaves a file: so not for ever, and not at once.
    fn close_again(&mut self, stage: Stage, now: &Moment) -> Next {
        if stage >= Stage::Abandoned {
            return self.end();
        }
        let pause = FIRST_RETRY.saturating_mul(self.closes_failed).min(LAST_RETRY);
        self.closes_failed += 1;
        self.close_rests = now.elapsed + pause;
        Next::Pause(if pause.is_zero() { Pause::None } else { Pause::Backoff }, self.close_rests)
    }

    /// The chain is free before anybody hears that the log is closed: who opens it then continues it.
    fn end(&mut self) -> Next {
        if !planted!(LockReleasedLate) {
            self.ledger.let_go();
        }
        self.queue.closed();
        Next::Ended
    }

    /// Appends the batch, in as many segments as its size asks for.
    fn append(&mut self, now: &Moment, clock: Clock) {
        while self.failure.is_none()
            && let Some(first) = self.batch.first_bytes()
        {
            self.marks.record_written(now.elapsed);
            let may_roll = now.elapsed >= self.rotation_rests;
            if may_roll && self.must_roll(first + MAX_ENVELOPE, now) {
                self.rotate(now, clock);
                continue;
            }
            let room = match self.ledger.live() {
                Some(live) if may_roll => self.settings.rotation.max_bytes.saturating_sub(live.bytes),
                _ => u64::MAX,
            };
            let mut piece = self.batch.take_fitting(room, MAX_ENVELOPE);
            let queued = Moment { elapsed: self.batch_since, ..*now };
            let appended = self.ledger.append(&mut piece, &queued);
            piece.give_spare_to(&mut self.batch);
            self.queue.gauges.written_bytes.add(self.ledger.take_appended_bytes());
            self.queue.gauges.records_since_sync.set(self.ledger.unsynced().records);
            self.settle(appended, now, clock);
        }
    }

    /// What somebody waits for and came while the batch was written is served by the same sync. Only
    /// once: the sync must begin.
    fn append_latecomers(&mut self, orders: Orders, now: &Moment, clock: Clock) -> Orders {
        if self.failure.is_some() {
            return orders;
        }
        let Some(later) = self.queue.take_latecomers(&orders, &mut self.batch) else { return orders };
        self.note_age(&later, now);
        self.append(now, clock);
        later
    }

    fn must_roll(&self, incoming: u64, now: &Moment) -> bool {
        let rotation = self.settings.rotation;
        self.ledger.live().is_some_and(|live| roll::must_roll(rotation, &live, incoming, now.wall))
    }

    /// Ends the live segment and begins a new one. Where none can be made, the old one goes on.
    fn rotate(&mut self, now: &Moment, clock: Clock) {
        self.sync(now, clock);
        if self.failure.is_some() || self.ledger.live().is_none() {
            return;
        }
        self.refresh_witnesses(now);
        let begun = self.ledger.begin_segment(now);
        if begun.is_ok() {
            self.queue.gauges.segments.add(1);
            self.retention_due = now.elapsed;
        }
        self.settle(begun, now, clock);
    }

    /// What was accepted before somebody asked belongs in the old segment, so this comes after the
    /// batch. Asked again until it was done.
    fn rotate_as_asked(&mut self, asked: u64, now: &Moment, clock: Clock) {
        self.rotations_asked = asked;
        if asked <= self.rotations || self.failure.is_some() || now.elapsed < self.rotation_rests {
            return;
        }
        let before = self.ledger.live_number();
        self.rotate(now, clock);
        if self.ledger.live_number() != before {
            self.rotations = asked;
            self.queue.rotated(asked);
        }
    }

    fn mark(&mut self, now: &Moment, clock: Clock) {
        let quiet = self.failure.is_none() && self.ledger.unsynced().records == 0;
        if !quiet || now.elapsed < self.marks.due_at() {
            return;
        }
        self.refresh_witnesses(now);
        let mut batch = Chunks::default();
        batch.push(&mark_payload(now.wall, &self.ledger.witnesses), None, None);
        let appended = self.ledger.append(&mut batch, now);
        self.settle(appended, now, clock);
        if self.failure.is_none() {
            self.sync(now, clock);
        }
        self.marks.mark_written(now.elapsed);
    }

    fn apply_retention(&mut self, now: &Moment, clock: Clock) {
        let due = now.elapsed >= self.retention_due.max(self.retention_rests);
        if !due || self.settings.retention.is_off() || self.failure.is_some() || self.ledger.live().is_none()
        {
            return;
        }
        self.retention_due = now.elapsed + RETENTION_CHECK;
        let outcome = retention::run(&self.storage, &self.settings.retention, &mut self.ledger, now);
        if !outcome.removed.is_empty() {
            let message = format!("removed by retention: {}", outcome.removed.join(", "));
            self.queue.notifier.tell(NoticeCode::Pruned, message);
        }
        if let Some((name, error)) = outcome.failed {
            // The notice may fill a segment by itself, and a new segment asks for retention.
            self.retention_rests = self.retention_rests.max(now.elapsed + RETENTION_RETRY);
            self.note(NoticeCode::RetentionFailed, &format!("cannot remove {name}: {error}"), now);
        }
        self.settle(outcome.trouble.map_or(Ok(()), Err), now, clock);
    }

    fn path_of(&self, segment: u32) -> String {
        let name = crate::segment_name::SegmentName { chain: self.ledger.chain(), segment };
        self.storage.path(Dir::Log, &name.to_string()).display().to_string()
    }

    fn pause(&self, now: &Moment) -> Next {
        let mut until = self.marks.due_at().max(now.elapsed + self.flush.doze());
        if let Some(due) = self.flush.due_at(self.ledger.unsynced()) {
            until = until.min(due);
        }
        if self.rotations < self.rotations_asked {
            until = until.min(self.rotation_rests);
        }
        if !self.settings.retention.is_off() {
            until = until.min(self.retention_due.max(self.retention_rests));
        }
        if !self.notes.is_empty() || !self.batch.is_empty() {
            return Next::Pause(Pause::None, now.elapsed);
        }
        if now.elapsed.saturating_sub(self.last_active) < AWAKE {
            return Next::Pause(Pause::Doze, until.min(now.elapsed + self.flush.doze()));
        }
        Next::Pause(Pause::Sleep, until)
    }

    /// The durable head of the chain that is written now.
    pub(crate) fn head(&self) -> Head {
        self.ledger.head()
    }
}
