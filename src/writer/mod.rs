//! The one thread that writes: takes drafts from the queue, appends, syncs, acknowledges.
//!
//! `step` does what is due at a moment and says how long nothing will be; the loop around it only
//! asks the time and pauses. When to sync, to roll, to mark and to remove are pure decisions in
//! files of their own.

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
    pub(crate) wait_for_chain: Duration,
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
    ledger: Ledger,
    state: State,
    pending: Pending,
    timers: Timers,
    passes: Passes,
    rotations: Rotations,
    /// The chains of which it was told that removal waits for a forwarder.
    waiting: BTreeSet<ChainNumber>,
    /// The head that everybody was told last.
    published: Head,
}

/// Whether there is a segment to write to.
#[derive(Debug, Clone, Copy)]
enum State {
    Writing,
    Failing(Outage),
}

/// What was taken from the queue, or is to be recorded, and was not yet handed to the ledger.
#[derive(Debug)]
struct Pending {
    batch: DraftBuffers,
    /// When the oldest draft of the batch was queued, and when the queue was emptied last.
    since: Duration,
    taken_at: Duration,
    /// Notices that wait to be recorded.
    notes: DraftBuffers,
}

/// Rotations that were asked for, and those that were done.
#[derive(Debug, Default)]
struct Rotations {
    asked: u64,
    done: u64,
}

impl Pending {
    fn put_first(&mut self, mut first: DraftBuffers) {
        self.batch.move_to(&mut first);
        self.batch = first;
    }

    /// A record ages from when it was queued: what came while the disk was busy has waited already. Nothing in the
    /// queue is older than the last time it was emptied, whatever the wall clock says.
    fn note_age(&mut self, orders: &Orders, now: &Moment) {
        let age = orders.oldest.map_or(Duration::ZERO, |oldest| now.wall.since(oldest));
        self.since = now.elapsed.saturating_sub(age).max(self.taken_at);
        self.taken_at = now.elapsed;
    }
}

impl Writer {
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
        // Nobody has waited for anything yet.
        drop(writer.publish());
        if let Ok(free) = writer.storage.free_bytes() {
            writer.queue.gauges.free_bytes.set(free);
        }
        writer
    }

    /// Runs until the log is closed. `begin_thread` is called first on each thread that it begins.
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
        // Of the same look as the batch: from `Closing` on, the batch has all that was accepted.
        let stage = orders.stage;
        self.pending.note_age(&orders, now);
        if !self.pending.batch.is_empty() {
            self.timers.took_drafts(now.elapsed);
        }
        match self.work(orders, now, clock) {
            Err(halted) => self.back_off(stage, halted),
            Ok(()) if stage == Stage::Aborting => std::process::abort(),
            Ok(()) if stage >= Stage::Closing => {
                // Where closing fails, the next round says how the log goes on.
                self.close(stage, now, clock).unwrap_or(Next::Pause(Pause::None, now.elapsed))
            }
            Ok(()) => self.pause(now),
        }
    }

    /// Where no segment can be written to, tries to begin one, if that is due.
    fn write_again(&mut self, now: &Moment, clock: Clock) -> Result<(), (Stage, Halted)> {
        let outage = match self.state {
            State::Failing(outage) => outage,
            State::Writing if self.ledger.live().is_some() => return Ok(()),
            // Whatever ended the segment, a writer without one is failing and must try for another.
            State::Writing => Outage::begin(now.elapsed),
        };
        let stage = self.queue.stage();
        if stage < Stage::Abandoned && now.elapsed < outage.next_try {
            return Err((stage, Halted { next_try: outage.next_try }));
        }
        self.heal(outage, now, clock).map_err(|halted| (stage, halted))
    }

    /// One round of a writer that can write.
    fn work(&mut self, orders: Orders, now: &Moment, clock: Clock) -> Result<(), Halted> {
        self.watch_clocks(now);
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

    fn sync(&mut self, now: &Moment, clock: Clock) -> Result<(), Halted> {
        if self.ledger.live().is_none() {
            return Ok(());
        }
        // Whoever closes all descriptors lets go of the lock, and another process may have the chain by now.
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

    /// Tells everybody what is durable, unless somebody was told meanwhile that some of it is not confirmed.
    fn publish(&mut self) -> Result<(), Refused> {
        self.count_done();
        let gauges = &self.queue.gauges;
        let head = self.ledger.head();
        let durable = self.ledger.durable_events();
        let holding = self.pending.batch.bytes() + self.ledger.retained().bytes();
        self.queue.publish(durable, holding, || {
            gauges.set_head(head);
            gauges.durable_events.set(durable);
        })?;
        self.published = head;
        self.ledger.published(durable);
        Ok(())
    }

    /// Counts what the ledger did.
    fn count_done(&mut self) {
        let gauges = &self.queue.gauges;
        let ledger::Done { appended_bytes, syncs, segments } = self.ledger.take_done();
        gauges.written_bytes.add(appended_bytes);
        gauges.syncs.add(syncs);
        gauges.segments.add(segments);
        gauges.records_since_sync.set(self.ledger.unsynced().records);
    }

    /// Acknowledges what became durable: what was refused is named before, and that durable too.
    fn acknowledge(&mut self, now: &Moment) -> Result<(), Trouble> {
        while self.ledger.head() != self.published {
            if self.ledger.must_name() {
                self.ledger.name_refused(now)?;
                self.ledger.sync()?;
                if self.ledger.must_name() {
                    // There is no segment to write to. With the next one it comes.
                    return Ok(());
                }
            }
            if let Err(refused) = self.publish() {
                self.ledger.refuse(&refused);
            } else {
                return Ok(());
            }
        }
        Ok(())
    }

    fn close(&mut self, stage: Stage, now: &Moment, clock: Clock) -> Result<Next, Halted> {
        self.queue.take(&mut self.pending.batch);
        self.check_paths(now, clock)?;
        self.refresh_witnesses(now);
        let is_idle = self.pending.batch.is_empty() && self.pending.notes.is_empty();
        if !is_idle || self.ledger.unsynced().records > 0 {
            // Came in while the last batch was written.
            return Ok(Next::Pause(Pause::None, now.elapsed));
        }
        if let Some(next) = self.wait_for_pass(stage, now) {
            return Ok(next);
        }
        if let Some(until) = self.timers.close_rests_until(now.elapsed).filter(|_| stage < Stage::Abandoned) {
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
        // `close` failed, and everything before it is durable in a new segment.
        if stage >= Stage::Abandoned {
            return Ok(self.end());
        }
        let until = self.timers.close_failed(now.elapsed);
        Ok(Next::Pause(if until == now.elapsed { Pause::None } else { Pause::Backoff }, until))
    }

    /// The chain is free before anybody hears that the log is closed: who opens it then continues it.
    fn end(&mut self) -> Next {
        self.ledger.let_go();
        self.queue.closed();
        Next::Ended
    }

    /// Appends the batch, in as many segments as its size asks for.
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
                _ => u64::MAX,
            };
            let mut piece = self.pending.batch.take_fitting(room, MAX_ENVELOPE);
            let queued = Moment { elapsed: self.pending.since, ..*now };
            let appended = self.ledger.append(&mut piece, &queued);
            piece.give_spare_to(&mut self.pending.batch);
            self.count_done();
            self.settle(appended, now, clock)?;
        }
        Ok(())
    }

    /// What somebody waits for and came while the batch was written is served by the same sync. Only
    /// once: the sync must begin.
    fn append_latecomers(&mut self, orders: Orders, now: &Moment, clock: Clock) -> Result<Orders, Halted> {
        let Some(later) = self.queue.take_latecomers(&orders, &mut self.pending.batch) else {
            return Ok(orders);
        };
        self.pending.note_age(&later, now);
        self.append(now, clock)?;
        Ok(later)
    }

    fn must_roll(&self, incoming: u64, now: &Moment) -> bool {
        let rotation = self.settings.rotation;
        self.ledger.live().is_some_and(|live| roll::must_roll(rotation, &live, incoming, now.wall))
    }

    /// Ends the live segment and begins a new one. Where none can be made, the old one goes on.
    fn rotate(&mut self, now: &Moment, clock: Clock) -> Result<(), Halted> {
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

    /// What was accepted before somebody asked belongs in the old segment, so this comes after the
    /// batch. Asked again until it was done.
    fn rotate_as_asked(&mut self, asked: u64, now: &Moment, clock: Clock) -> Result<(), Halted> {
        self.rotations.asked = asked;
        if asked <= self.rotations.done || !self.timers.may_rotate(now.elapsed) {
            return Ok(());
        }
        let before = self.ledger.live_number();
        let rotated = self.rotate(now, clock);
        if self.ledger.live_number() != before {
            self.rotations.done = asked;
            self.queue.rotated(asked);
        }
        rotated
    }

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
        self.timers.marks.mark_written(now.elapsed);
        self.timers.note_soon();
        marked
    }

    /// Notes the durable head: what lies before it need not be read to open the log.
    fn note_head(&mut self, now: &Moment) {
        if self.ledger.live().is_none() || !self.ledger.is_behind_its_note() {
            return;
        }
        if !(self.timers.note_is_due(now.elapsed) || self.ledger.must_note()) {
            return;
        }
        if let Err(error) = self.ledger.note(NotedState::Open) {
            self.timers.note_failed(now.elapsed);
            if self.queue.gauges.head_not_noted.set(true) {
                let lock = self.storage.path(Dir::Control, &self.ledger.chain().lock_name());
                let message =
                    format!("cannot note the head in {}: {error}; it is tried again", lock.display());
                self.note(NoticeKind::HeadNotNoted, &message, now);
            }
        } else {
            self.timers.noted();
            self.queue.gauges.head_not_noted.set(false);
        }
    }

    fn pause(&self, now: &Moment) -> Next {
        if !self.pending.notes.is_empty() || !self.pending.batch.is_empty() {
            return Next::Pause(Pause::None, now.elapsed);
        }
        let is_rotation_wanted = self.rotations.done < self.rotations.asked;
        let has_retention = !self.settings.retention.is_off() && !self.passes.is_running();
        let doze = now.elapsed + self.flush.doze();
        let has_note = self.ledger.live().is_some() && self.ledger.is_behind_its_note();
        let sync = self.flush.due_at(self.ledger.unsynced());
        let mark_from = sync.unwrap_or(doze).max(doze);
        let next = self.timers.next(mark_from, is_rotation_wanted, has_retention, has_note);
        let until = sync.map_or(next, |sync| next.min(sync));
        if self.timers.is_awake(now.elapsed) {
            return Next::Pause(Pause::Doze, until.min(doze));
        }
        Next::Pause(Pause::Sleep, until)
    }

    /// The durable head of the chain that is written now.
    pub(crate) fn head(&self) -> Head {
        self.ledger.head()
    }
}
