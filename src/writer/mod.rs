//! The writer thread: takes drafts from the queue, appends them, syncs, and acknowledges them.
//!
//! An event is acknowledged only after three steps: its line was appended, a sync that began
//! afterwards succeeded, and the open file was found unchanged by others. For a new segment, the
//! directory is synced as well, because `fsync(2)` of a file does not make its name durable.
//!
//! `step` does everything that is due at a given moment and returns the moment of the next step.
//! The loop around it only reads the clock and pauses. When to sync, roll, mark and remove are pure
//! decisions, each in its own file.

mod age;
mod chain_lock;
mod checks;
mod flush;
mod forwarded;
mod keep;
mod ledger;
mod old_segments;
mod open;
mod others;
mod outage;
mod passes;
mod recover;
mod retention;
mod roll;
mod segment;
#[cfg(test)]
#[path = "../../testing/writer/mod.rs"]
mod tests;
mod timers;

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use crate::{
    chain::Head,
    chain_reader::NotedState,
    clock::{Clock, Moment},
    format::{MAX_LINE, MAX_PAYLOAD, mark_payload},
    queue::{DraftBuffers, Orders, Pause, Queue, Refused, Stage},
    segment_name::ChainNumber,
    settings::{FlushMode, Retention, Rotation},
    stats::NoticeKind,
    storage::{Dir, Storage},
};
use flush::FlushPolicy;
use ledger::{Ledger, Trouble};
pub(crate) use open::{Former, Opened, open};
use outage::{Halted, Outage};
use passes::Passes;
use timers::Timers;

/// The most bytes that a line can have besides its payload. Counted in before an append, so that no
/// segment grows beyond its limit.
const MAX_ENVELOPE: u64 = (MAX_LINE - MAX_PAYLOAD) as u64;

/// The settings of a writer, fixed when it starts.
#[derive(Debug, Clone)]
pub(crate) struct WriterSettings {
    pub(crate) flush_mode: FlushMode,
    pub(crate) rotation: Rotation,
    pub(crate) retention: Retention,
    pub(crate) low_space: u64,
    pub(crate) exclusive: bool,
    pub(crate) wait_for_chain: Duration,
    pub(crate) service: String,
    pub(crate) host: String,
    pub(crate) writer_id: u64,
}

/// What the loop does after a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Next {
    /// Nothing is due before this moment of the monotonic clock, unless the queue wakes the writer.
    Pause(Pause, Duration),
    Ended,
}

/// Writes the records of one log.
#[derive(Debug)]
pub(crate) struct Writer {
    storage: Arc<dyn Storage>,
    queue: Arc<Queue>,
    settings: WriterSettings,
    flush: FlushPolicy,
    ledger: Ledger,
    state: State,
    pending: Pending,
    timers: Timers,
    passes: Passes,
    rotations: Rotations,
    /// The chains whose wait for a forwarder was already reported.
    waiting: BTreeSet<ChainNumber>,
    /// The head that was published last.
    published: Head,
}

/// Whether there is a segment to write to.
#[derive(Debug, Clone, Copy)]
enum State {
    Writing,
    Failing(Outage),
}

/// Drafts taken from the queue, and notices to be recorded, that are not yet in the ledger.
#[derive(Debug)]
struct Pending {
    batch: DraftBuffers,
    /// When the oldest draft of the batch was queued, on the monotonic clock.
    since: Duration,
    /// When the queue was last emptied.
    taken_at: Duration,
    /// Notices to be recorded with the next append.
    notes: DraftBuffers,
}

/// How many rotations were requested, and how many of these were done.
#[derive(Debug, Default)]
struct Rotations {
    asked: u64,
    done: u64,
}

impl Pending {
    /// Puts drafts in front of the batch.
    fn put_first(&mut self, mut first: DraftBuffers) {
        self.batch.move_to(&mut first);
        self.batch = first;
    }

    /// Takes the age of the batch from the wall-clock time at which its oldest draft was queued.
    ///
    /// An event that arrived while the disk was busy has already waited. The wall clock may step,
    /// but nothing in the queue is older than the last time the queue was emptied.
    fn note_age(&mut self, orders: &Orders, now: &Moment) {
        let age = orders.oldest.map_or(Duration::ZERO, |oldest| now.wall.since(oldest));
        self.since = now.elapsed.saturating_sub(age).max(self.taken_at);
        self.taken_at = now.elapsed;
    }
}

impl Writer {
    /// Creates the writer of a log that was opened, and publishes the durable head of its chain.
    pub(crate) fn new(
        storage: Arc<dyn Storage>,
        queue: Arc<Queue>,
        settings: WriterSettings,
        opened: Opened,
        now: Moment,
    ) -> Self {
        let pending = Pending {
            batch: DraftBuffers::default(),
            since: now.elapsed,
            taken_at: now.elapsed,
            notes: DraftBuffers::default(),
        };
        let mut writer = Self {
            published: opened.ledger.head(),
            storage,
            queue,
            flush: FlushPolicy::new(settings.flush_mode),
            settings,
            ledger: opened.ledger,
            state: State::Writing,
            pending,
            timers: Timers::new(&now),
            passes: Passes::default(),
            rotations: Rotations::default(),
            waiting: BTreeSet::new(),
        };
        // Cannot be refused: no caller has waited for an event yet.
        drop(writer.publish());
        // Set now, because the first check is due only a second from now.
        if let Ok(free) = writer.storage.free_bytes() {
            writer.queue.gauges.free_bytes.set(free);
        }
        writer
    }

    /// Runs until the log is closed. Calls `begin_thread` first on each thread that the writer
    /// starts.
    pub(crate) fn run(mut self, clock: Clock, begin_thread: fn()) {
        self.queue.attach_writer();
        self.passes.begin_thread = Some(begin_thread);
        loop {
            match self.step(&clock.now(), clock) {
                Next::Pause(pause, until) => self.queue.pause(pause, until),
                Next::Ended => return,
            }
        }
    }

    /// Does everything that is due now.
    pub(crate) fn step(&mut self, now: &Moment, clock: Clock) -> Next {
        if let Err((stage, halted)) = self.write_again(now, clock) {
            return self.back_off(stage, halted);
        }
        let orders = self.queue.take(&mut self.pending.batch);
        // The stage was read together with the batch. From `Closing` on, the batch therefore holds
        // every event that was accepted.
        let stage = orders.stage;
        self.pending.note_age(&orders, now);
        if !self.pending.batch.is_empty() {
            self.timers.took_drafts(now.elapsed);
        }
        match self.work(orders, now, clock) {
            Err(halted) => self.back_off(stage, halted),
            // `work` synced everything that was accepted, because the stage is beyond `Open`.
            Ok(()) if stage == Stage::Aborting => std::process::abort(),
            Ok(()) if stage >= Stage::Closing => {
                // If closing fails, the next step deals with it.
                self.close(stage, now, clock).unwrap_or(Next::Pause(Pause::None, now.elapsed))
            }
            Ok(()) => self.pause(now),
        }
    }

    /// Tries to begin a segment if there is none to write to and an attempt is due.
    fn write_again(&mut self, now: &Moment, clock: Clock) -> Result<(), (Stage, Halted)> {
        let outage = match self.state {
            State::Failing(outage) => outage,
            State::Writing if self.ledger.live().is_some() => return Ok(()),
            // Without a live segment nothing can be written, whatever the reason: try another.
            State::Writing => Outage::begin(now.elapsed),
        };
        let stage = self.queue.stage();
        // Once no caller waits any more, one last attempt is made at once.
        if stage < Stage::Abandoned && now.elapsed < outage.next_try {
            return Err((stage, Halted { next_try: outage.next_try }));
        }
        self.heal(outage, now, clock).map_err(|halted| (stage, halted))
    }

    /// Runs one round while there is a segment to write to.
    ///
    /// The order matters. The batch is appended before a requested rotation, and everything
    /// appended is synced before a mark covers it. Retention comes last, so that no event waits for
    /// it.
    fn work(&mut self, orders: Orders, now: &Moment, clock: Clock) -> Result<(), Halted> {
        self.watch_clocks(now);
        // Notices come first: they are about something that happened before this batch was taken.
        if !self.pending.notes.is_empty() {
            let notes = std::mem::take(&mut self.pending.notes);
            self.pending.put_first(notes);
        }
        self.append(now, clock)?;
        let orders = self.append_latecomers(orders, now, clock)?;
        self.rotate_as_asked(orders.rotations, now, clock)?;
        self.watch_paths(now, clock)?;
        self.watch_space(now);
        let unsynced = self.ledger.unsynced();
        // A caller waits for an event that is not durable yet, or for space in the queue, which is
        // freed only when events become durable.
        let wanted = orders.wanted > self.ledger.durable_events() || orders.room_wanted;
        if unsynced.records > 0
            && (wanted || orders.stage > Stage::Open || self.flush.is_due(unsynced, now.elapsed))
        {
            self.sync(now, clock)?;
        }
        self.mark(now, clock)?;
        if orders.stage == Stage::Open {
            self.note_head(now);
        }
        self.apply_retention(now, clock)
    }

    /// Syncs the live segment, and acknowledges what became durable.
    fn sync(&mut self, now: &Moment, clock: Clock) -> Result<(), Halted> {
        if self.ledger.live().is_none() {
            return Ok(());
        }
        // A program that closes all of its descriptors releases the lock, so another process may
        // hold the chain by now. Nothing may be acknowledged before that is known.
        if self.ledger.has_closed_lock() {
            return self.check_paths(now, clock);
        }
        let begun = clock.elapsed();
        let synced = self.ledger.sync();
        if synced.is_ok() {
            let took = clock.elapsed().saturating_sub(begun);
            self.queue.gauges.last_sync_nanos.set(u64::try_from(took.as_nanos()).unwrap_or(u64::MAX));
        }
        self.settle(synced, now, clock)
    }

    /// Publishes the durable head and wakes the callers that wait for it. Returns the refusals
    /// instead if, since the last call, a caller was told that some of these events are not
    /// confirmed.
    fn publish(&mut self) -> Result<(), Refused> {
        self.count_done();
        let gauges = &self.queue.gauges;
        let head = self.ledger.head();
        let durable = self.ledger.durable_events();
        let holding = self.pending.batch.bytes() + self.ledger.retained().bytes();
        // The gauges are set under the lock of the queue, before anybody is woken: a woken caller
        // must not read an older head.
        self.queue.publish(durable, holding, || {
            gauges.set_head(head);
            gauges.durable_events.set(durable);
        })?;
        self.published = head;
        self.ledger.published(durable);
        Ok(())
    }

    /// Adds to the counters what the ledger has done since the last call.
    fn count_done(&mut self) {
        let gauges = &self.queue.gauges;
        let ledger::Done { appended_bytes, syncs, segments } = self.ledger.take_done();
        gauges.written_bytes.add(appended_bytes);
        gauges.syncs.add(syncs);
        gauges.segments.add(segments);
        gauges.records_since_sync.set(self.ledger.unsynced().records);
    }

    /// Acknowledges what became durable. Refused events are named first, in records that are
    /// durable themselves before anything newer is acknowledged.
    fn acknowledge(&mut self, now: &Moment) -> Result<(), Trouble> {
        while self.ledger.head() != self.published {
            if self.ledger.must_name() {
                self.ledger.name_refused(now)?;
                self.ledger.sync()?;
                if self.ledger.must_name() {
                    // No segment can be written to. The next one begins with these records.
                    return Ok(());
                }
            }
            // If a caller gave up waiting since the last round, its event must be named before
            // anything is acknowledged. So go round again.
            if let Err(refused) = self.publish() {
                self.ledger.refuse(&refused);
            } else {
                return Ok(());
            }
        }
        Ok(())
    }

    /// Closes the chain, once everything accepted is durable and no pass of retention runs. Returns
    /// what to do next: pause and try again, or end.
    fn close(&mut self, stage: Stage, now: &Moment, clock: Clock) -> Result<Next, Halted> {
        self.queue.take(&mut self.pending.batch);
        // In a chain whose lock is lost, another process may be writing: it must not be closed.
        self.check_paths(now, clock)?;
        self.refresh_witnesses(now);
        let is_idle = self.pending.batch.is_empty() && self.pending.notes.is_empty();
        if !is_idle || self.ledger.unsynced().records > 0 {
            // These arrived while the last batch was being written.
            return Ok(Next::Pause(Pause::None, now.elapsed));
        }
        if let Some(next) = self.wait_for_pass(stage, now) {
            return Ok(next);
        }
        if let Some(until) = self.timers.close_waits_until(now.elapsed).filter(|_| stage < Stage::Abandoned) {
            return Ok(Next::Pause(Pause::Backoff, until));
        }
        let events = self.ledger.durable_events();
        let is_last = stage >= Stage::Abandoned || self.timers.close_failed_often();
        let closed = open::close_chain(&mut self.ledger, events, is_last, now);
        self.settle(closed, now, clock)?;
        if self.ledger.is_closed() {
            self.queue.gauges.closed_in_order.set(true);
            return Ok(self.end());
        }
        // Writing `close` failed, but everything before it is durable in a new segment.
        if stage >= Stage::Abandoned {
            return Ok(self.end());
        }
        let until = self.timers.close_failed(now.elapsed);
        Ok(Next::Pause(if until == now.elapsed { Pause::None } else { Pause::Backoff }, until))
    }

    /// Ends the writer. Releases the chain before the log is reported as closed, so that a caller
    /// that reopens it then can continue the same chain.
    fn end(&mut self) -> Next {
        self.ledger.release();
        self.queue.closed();
        Next::Ended
    }

    /// Appends the batch, beginning as many segments as its size requires.
    fn append(&mut self, now: &Moment, clock: Clock) -> Result<(), Halted> {
        while let Some(first) = self.pending.batch.first_bytes() {
            self.timers.marks.record_written(now.elapsed);
            let may_roll = self.timers.may_rotate(now.elapsed);
            if may_roll && self.must_roll(first + MAX_ENVELOPE, now) {
                self.rotate(now, clock)?;
                continue;
            }
            let room = match self.ledger.live() {
                Some(live) if may_roll => self.settings.rotation.max_bytes.saturating_sub(live.bytes),
                // While no new segment can be created, the old one grows beyond its limit: losing
                // events would be worse.
                _ => u64::MAX,
            };
            let mut fitting = self.pending.batch.take_fitting(room, MAX_ENVELOPE);
            let queued = Moment { elapsed: self.pending.since, ..*now };
            let appended = self.ledger.append(&mut fitting, &queued);
            fitting.give_spare_to(&mut self.pending.batch);
            self.count_done();
            self.settle(appended, now, clock)?;
        }
        Ok(())
    }

    /// Appends events that a caller waits for and that arrived while the batch was being written:
    /// the same sync covers them. Done only once per round, because otherwise a steady stream could
    /// keep the sync from beginning.
    fn append_latecomers(&mut self, orders: Orders, now: &Moment, clock: Clock) -> Result<Orders, Halted> {
        let Some(later) = self.queue.take_latecomers(&orders, &mut self.pending.batch) else {
            return Ok(orders);
        };
        self.pending.note_age(&later, now);
        self.append(now, clock)?;
        Ok(later)
    }

    /// Returns whether `incoming` bytes belong in a new segment.
    fn must_roll(&self, incoming: u64, now: &Moment) -> bool {
        let rotation = self.settings.rotation;
        self.ledger.live().is_some_and(|live| roll::must_roll(rotation, &live, incoming, now.wall))
    }

    /// Ends the live segment and begins a new one. If none can be created, the old one stays in
    /// use.
    fn rotate(&mut self, now: &Moment, clock: Clock) -> Result<(), Halted> {
        // The first line of the new segment states where the old one ends, and only durable records
        // count there.
        self.sync(now, clock)?;
        if self.ledger.live().is_none() {
            return Ok(());
        }
        self.refresh_witnesses(now);
        let begun = self.ledger.begin_segment(now);
        if begun.is_ok() {
            self.queue.gauges.segment_begun();
            self.timers.segment_begun(now.elapsed);
        }
        self.settle(begun, now, clock)
    }

    /// Rotates if that was requested and not yet done. Events accepted before the request belong in
    /// the old segment, so this follows the append of the batch. A rotation that fails is tried
    /// again in a later round.
    fn rotate_as_asked(&mut self, asked: u64, now: &Moment, clock: Clock) -> Result<(), Halted> {
        self.rotations.asked = asked;
        if asked <= self.rotations.done || !self.timers.may_rotate(now.elapsed) {
            return Ok(());
        }
        let before = self.ledger.live_number();
        let rotated = self.rotate(now, clock);
        // The old segment may have stayed in use, so only a new number shows that the rotation was
        // done.
        if self.ledger.live_number() != before {
            self.rotations.done = asked;
            self.queue.rotated(asked);
        }
        rotated
    }

    /// Writes and syncs a `mark` if one is due. A mark makes the records before it verifiable as
    /// durable, so it waits until nothing is unsynced.
    fn mark(&mut self, now: &Moment, clock: Clock) -> Result<(), Halted> {
        if self.ledger.unsynced().records > 0 || now.elapsed < self.timers.marks.due_at() {
            return Ok(());
        }
        if self.timers.marks.needs_forwarder(now.elapsed)
            && !forwarded::has_a_forwarder(self.storage.as_ref())
        {
            self.timers.marks.no_forwarder();
            return Ok(());
        }
        self.refresh_witnesses(now);
        let mut batch = DraftBuffers::default();
        batch.push(&mark_payload(now.wall, &self.ledger.name_others(open::FEW)), None, None);
        let appended = self.ledger.append(&mut batch, now);
        let marked = self.settle(appended, now, clock).and_then(|()| self.sync(now, clock));
        // Counted even after a failure: the segment that follows makes a new mark due by itself.
        self.timers.marks.mark_written(now.elapsed);
        self.timers.note_soon();
        marked
    }

    /// Notes the durable head in the lock file if that is due. The next opener need not read what
    /// lies before a noted head.
    fn note_head(&mut self, now: &Moment) {
        if self.ledger.live().is_none() || !self.ledger.is_ahead_of_its_note() {
            return;
        }
        if !(self.timers.note_is_due(now.elapsed) || self.ledger.must_note()) {
            return;
        }
        if let Err(error) = self.ledger.note(NotedState::Open) {
            self.timers.note_failed(now.elapsed);
            if self.queue.gauges.head_not_noted.set(true) {
                let lock = self.storage.path(Dir::Control, &self.ledger.chain().lock_name());
                let message = format!("cannot note the head in {}: {error}; trying again", lock.display());
                self.note(NoticeKind::HeadNotNoted, &message, now);
            }
        } else {
            self.timers.noted();
            self.queue.gauges.head_not_noted.set(false);
        }
    }

    /// Returns how long the writer may pause, and how deeply: briefly while events keep arriving,
    /// otherwise until it is woken.
    fn pause(&self, now: &Moment) -> Next {
        if !self.pending.notes.is_empty() || !self.pending.batch.is_empty() {
            return Next::Pause(Pause::None, now.elapsed);
        }
        let is_rotation_wanted = self.rotations.done < self.rotations.asked;
        let has_retention = !self.settings.retention.is_off() && !self.passes.is_running();
        let doze = now.elapsed + self.flush.doze();
        let has_note = self.ledger.live().is_some() && self.ledger.is_ahead_of_its_note();
        let sync = self.flush.due_at(self.ledger.unsynced());
        // A mark that is due must wait for the next sync. Without this bound, the writer would loop
        // until then.
        let mark_from = sync.unwrap_or(doze).max(doze);
        let next = self.timers.next(mark_from, is_rotation_wanted, has_retention, has_note);
        let until = sync.map_or(next, |sync| next.min(sync));
        if self.timers.is_awake(now.elapsed) {
            return Next::Pause(Pause::Doze, until.min(doze));
        }
        Next::Pause(Pause::Sleep, until)
    }

    /// Returns the durable head of the chain being written.
    pub(crate) fn head(&self) -> Head {
        self.ledger.head()
    }
}
