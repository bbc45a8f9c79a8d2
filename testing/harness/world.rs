//! A simulated machine, and processes on it that each have the log open and are driven step by
//! step.

use std::{
    sync::Arc,
    task::Waker,
    time::{Duration, SystemTime},
};

use crate::{
    Error, FlushMode, OnFailure, OnFull, Retention, Rotation, Severity,
    chain::Head,
    clock::{Clock, Moment, Simulated, Timestamp},
    format::{Payload, RecordKind},
    gauges::Gauges,
    notify::Notifier,
    queue::{Draft, Pause, Queue, QueueSettings, Scope, Stage, Waiter},
    stats::ChainRecovery,
    storage::sim::{SimDisk, SimProcess},
    writer::{self, Next, Writer, WriterSettings},
};

pub(crate) const MS: Duration = Duration::from_millis(1);
pub(crate) const SECOND: Duration = Duration::from_secs(1);

/// 2026-11-21T08:00:00Z.
const START: i64 = 1_795_248_000;

/// The settings with which a log is opened.
#[derive(Debug, Clone)]
pub(crate) struct Settings {
    pub(crate) writer: WriterSettings,
    pub(crate) queue: QueueSettings,
}

impl Default for Settings {
    fn default() -> Self {
        Self::with_mode(FlushMode::default())
    }
}

impl Settings {
    pub(crate) fn with_mode(flush_mode: FlushMode) -> Self {
        Self {
            writer: WriterSettings {
                flush_mode,
                rotation: Rotation::never(),
                retention: Retention::keep_all(),
                low_space: 0,
                exclusive: false,
                wait_for_chain: Duration::from_millis(250),
                service: "test".to_owned(),
                host: "host".to_owned(),
                writer_id: 7,
            },
            queue: QueueSettings {
                bytes: 1 << 20,
                wait_bound: MS,
                flush_mode,
                on_full: OnFull::DropRoutine,
                on_failure: OnFailure::Continue,
            },
        }
    }

    pub(crate) fn batched(size: u32, interval: Duration) -> Self {
        Self::with_mode(FlushMode::Batched { size, interval })
    }

    pub(crate) fn rotation(mut self, rotation: Rotation) -> Self {
        self.writer.rotation = rotation;
        self
    }

    pub(crate) fn retention(mut self, retention: Retention) -> Self {
        self.writer.retention = retention;
        self
    }

    pub(crate) fn exclusive(mut self) -> Self {
        self.writer.exclusive = true;
        self
    }
}

/// An event that was emitted, and what is known about it.
#[derive(Debug, Clone)]
pub(crate) struct Emission {
    pub(crate) number: u64,
    pub(crate) severity: Severity,
    /// `None` if it was not accepted. It was counted then.
    pub(crate) ticket: Option<u64>,
    /// Its record, once it was acknowledged.
    pub(crate) receipt: Option<Head>,
    /// Whether a caller was told that it is not confirmed.
    pub(crate) refused: bool,
    scope: Arc<Scope>,
}

/// What one opened log emitted. Kept outside of the machine, so it survives every crash.
#[derive(Debug, Default, Clone)]
pub(crate) struct Producer {
    /// As in its `open` record.
    pub(crate) writer_id: u64,
    pub(crate) emissions: Vec<Emission>,
    /// Heads that the log reported as durable.
    pub(crate) heads: Vec<Head>,
    /// Whether the log was closed in order, so that all its gap records are written.
    pub(crate) closed: bool,
}

/// The machine, the time, and everything that was promised.
#[derive(Debug)]
pub(crate) struct World {
    pub(crate) disk: SimDisk,
    pub(crate) now: Moment,
    pub(crate) producers: Vec<Producer>,
    /// Whether each acknowledgement is checked against the medium at once.
    pub(crate) trusts_the_disk: bool,
    /// The first head that was acknowledged and not on the medium.
    pub(crate) premature: Option<Head>,
    emitted: u64,
    wall_clock: Option<Simulated>,
}

impl World {
    pub(crate) fn new(seed: u64) -> Self {
        Self::on(SimDisk::new(seed))
    }

    pub(crate) fn on(disk: SimDisk) -> Self {
        let now = Moment { elapsed: SECOND, wall: Timestamp::from_unix(START, 0) };
        Self {
            disk,
            now,
            producers: Vec::new(),
            trusts_the_disk: false,
            premature: None,
            emitted: 0,
            wall_clock: None,
        }
    }

    /// Makes this thread read the time of this world from now on.
    pub(crate) fn simulate_the_clock(&mut self) {
        self.wall_clock = Some(Simulated::begin(self.now.wall));
    }

    pub(crate) fn advance(&mut self, by: Duration) {
        self.now.elapsed += by;
        self.step_wall_clock(by);
    }

    /// Sets the wall clock ahead.
    pub(crate) fn step_wall_clock(&mut self, by: Duration) {
        self.set_wall_clock(self.now.wall.to_system_time() + by);
    }

    /// Sets the wall clock back.
    pub(crate) fn step_wall_clock_back(&mut self, by: Duration) {
        self.set_wall_clock(self.now.wall.to_system_time() - by);
    }

    fn set_wall_clock(&mut self, to: SystemTime) {
        self.now.wall = Timestamp::from_system_time(to);
        if let Some(wall_clock) = &self.wall_clock {
            wall_clock.set(self.now.wall);
        }
    }

    pub(crate) fn open(&mut self, settings: &Settings) -> Result<Node, Error> {
        let process = self.disk.process();
        self.open_in(process, settings)
    }

    pub(crate) fn open_in(&mut self, process: SimProcess, settings: &Settings) -> Result<Node, Error> {
        let storage = process.storage();
        let clock = Clock::hurried();
        // A writer id for each opened log, for its `open` record.
        let mut settings = settings.clone();
        settings.writer.writer_id = self.producers.len() as u64 + 1;
        let opened = writer::open(&storage, &settings.writer, &writer::Former::default(), clock, &self.now)?;
        let found = opened.found().to_vec();
        let notifier = Notifier::silent(clock);
        let queue = Arc::new(Queue::new(settings.queue, clock, Arc::new(Gauges::default()), notifier));
        let made =
            Writer::new(Arc::clone(&storage), Arc::clone(&queue), settings.writer.clone(), opened, self.now);
        self.producers.push(Producer { writer_id: settings.writer.writer_id, ..Producer::default() });
        let producer = self.producers.len() - 1;
        self.note_head(producer, made.head());
        Ok(Node {
            process,
            queue,
            writer: Some(made),
            clock,
            found,
            producer,
            mode: settings.writer.flush_mode,
        })
    }

    /// Notes a head that the log reports as durable, and checks that it is.
    fn note_head(&mut self, producer: usize, head: Head) {
        let heads = &mut self.producers[producer].heads;
        if heads.last() == Some(&head) {
            return;
        }
        heads.push(head);
        // The end of its line is enough to find a record: no other has the same hash.
        let line_end = format!("\"_hash\":\"{}\"}}\n", head.hash());
        if self.trusts_the_disk && !self.disk.has_on_medium(head.chain(), line_end.as_bytes()) {
            self.premature.get_or_insert(head);
        }
    }

    #[track_caller]
    pub(crate) fn opened(&mut self, settings: &Settings) -> Node {
        self.open(settings).expect("open")
    }
}

/// A process with the log open.
#[derive(Debug)]
pub(crate) struct Node {
    pub(crate) process: SimProcess,
    pub(crate) queue: Arc<Queue>,
    pub(crate) writer: Option<Writer>,
    clock: Clock,
    /// What recovery found when it was opened.
    pub(crate) found: Vec<ChainRecovery>,
    pub(crate) producer: usize,
    mode: FlushMode,
}

impl Node {
    pub(crate) fn routine(&self, world: &mut World) -> u64 {
        self.emit(world, Severity::Routine, 0)
    }

    pub(crate) fn critical(&self, world: &mut World) -> u64 {
        self.emit(world, Severity::Critical, 0)
    }

    /// Emits a numbered event. Where the application would wait, this only registers a waiter.
    pub(crate) fn emit(&self, world: &mut World, severity: Severity, padding: usize) -> u64 {
        world.emitted += 1;
        let number = world.emitted;
        let mut payload = Vec::new();
        let mut members = Payload::begin(&mut payload, world.now.wall, RecordKind::Event);
        members.raw("severity", format!("\"{severity}\"").as_bytes());
        members.raw("fields", format!("{{\"n\":{number},\"p\":\"{}\"}}", "x".repeat(padding)).as_bytes());
        let scope = Scope::new(None);
        let draft = Draft { payload: &payload, severity, at: world.now.wall };
        self.queue.submit(&draft, Some(&scope));
        let counts = scope.counts();
        assert_eq!(counts.accepted + counts.lost, 1, "an event is accepted or counted");
        let ticket = (counts.accepted == 1).then_some(counts.last);
        let emission = Emission { number, severity, ticket, receipt: None, refused: false, scope };
        world.producers[self.producer].emissions.push(emission);
        let waits = match self.mode {
            FlushMode::Immediate => true,
            FlushMode::Batched { .. } => false,
            FlushMode::Hybrid { .. } => severity == Severity::Critical,
        };
        if let (true, Some(ticket)) = (waits, ticket) {
            // Polled for its effect: a waiter is registered.
            let poll = self.queue.poll_durable(ticket, Waker::noop());
            assert!(poll.is_pending() || poll.is_ready());
        }
        number
    }

    /// Gives up waiting for the last accepted event, if it is not durable, and notes the refusal.
    /// Returns its number.
    pub(crate) fn refuse_the_last(&self, world: &mut World) -> Option<u64> {
        let emissions = &mut world.producers[self.producer].emissions;
        let last = emissions.iter_mut().rfind(|emission| emission.ticket.is_some())?;
        let waiter = Waiter::Scope(&last.scope);
        last.refused |= self.queue.judge_wait(last.ticket?, false, waiter).is_err();
        last.refused.then_some(last.number)
    }

    /// Runs one step of the writer, and notes what it acknowledged.
    pub(crate) fn step(&mut self, world: &mut World) -> Next {
        let Some(writer) = &mut self.writer else { return Next::Ended };
        let next = writer.step(&world.now, self.clock);
        self.note_acknowledgements(world);
        if next == Next::Ended {
            self.writer = None;
            let closed = self.queue.gauges.closed_in_order.get() && self.queue.not_durable() == 0;
            world.producers[self.producer].closed = closed;
        }
        next
    }

    fn note_acknowledgements(&self, world: &mut World) {
        let durable = self.queue.accepted() - self.queue.not_durable();
        for emission in &mut world.producers[self.producer].emissions {
            let is_durable = emission.ticket.is_some_and(|ticket| ticket <= durable);
            let receipt = emission.scope.counts().durable.map(|(_, head)| head);
            assert!(!is_durable || receipt.is_some(), "acknowledged without a receipt: {emission:?}");
            if is_durable && emission.receipt.is_none() {
                emission.receipt = receipt;
            }
        }
        if let Some(head) = self.queue.gauges.head() {
            world.note_head(self.producer, head);
        }
    }

    /// Steps until the writer pauses or has ended.
    #[track_caller]
    pub(crate) fn pump(&mut self, world: &mut World) -> Next {
        for _ in 0..200 {
            match self.step(world) {
                Next::Pause(Pause::None, _) => {}
                next => return next,
            }
        }
        panic!("the writer spins");
    }

    /// Lets this much time pass, and runs every step that is due meanwhile.
    #[track_caller]
    pub(crate) fn run_for(&mut self, world: &mut World, time: Duration) {
        let end = world.now.elapsed + time;
        for _ in 0..10_000 {
            let Next::Pause(_, until) = self.pump(world) else { return };
            if until >= end || self.writer.is_none() {
                let rest = end.checked_sub(world.now.elapsed).unwrap();
                world.advance(rest);
                return;
            }
            let rest = until.saturating_sub(world.now.elapsed).max(Duration::from_micros(1));
            world.advance(rest);
        }
        panic!("the writer never rests");
    }

    /// Closes the log, and tries again for as long as it takes.
    #[track_caller]
    pub(crate) fn close(&mut self, world: &mut World) {
        self.queue.end(Stage::Closing);
        for _ in 0..200 {
            match self.pump(world) {
                Next::Ended => {
                    assert_eq!(self.queue.stage(), Stage::Closed);
                    return;
                }
                Next::Pause(_, until) => {
                    assert!(self.process.is_alive(), "a dead process closes nothing");
                    let rest = until.saturating_sub(world.now.elapsed);
                    world.advance(rest + MS);
                }
            }
        }
        panic!("the log is never closed");
    }

    pub(crate) fn is_failing(&self) -> bool {
        self.queue.gauges.failing.get()
    }
}
