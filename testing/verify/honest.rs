//! Logs by the real writer on the simulated disk, which a verifier must never call damaged.

use std::{sync::Arc, time::Duration};

use super::log::Log;
use crate::{
    FlushMode, Head, OnFailure, OnFull, Retention, Rotation, Severity,
    clock::{Clock, Moment, Timestamp},
    format::{Payload, RecordKind},
    gauges::Gauges,
    notify::Notifier,
    queue::{Draft, Pause, Queue, QueueSettings, Stage},
    storage::sim::{SimDisk, SimProcess},
    writer::{self, Former, Next, Writer, WriterSettings},
};

/// 2026-11-21T08:00:00Z.
pub(super) const START: i64 = 1_795_248_000;

/// A machine with a log on it.
#[derive(Debug)]
pub(super) struct Machine {
    pub(super) disk: SimDisk,
    pub(super) now: Moment,
    pub(super) settings: WriterSettings,
}

/// A process that writes the log.
#[derive(Debug)]
pub(super) struct Process {
    running: SimProcess,
    queue: Arc<Queue>,
    writer: Option<Writer>,
    clock: Clock,
    events: u64,
    /// The heads that it reported as durable.
    heads: Vec<Head>,
}

impl Machine {
    pub(super) fn new(seed: u64) -> Self {
        Self::at(seed, START)
    }

    /// Creates a machine whose clock shows this second.
    pub(super) fn at(seed: u64, second: i64) -> Self {
        let settings = WriterSettings {
            flush_mode: FlushMode::Batched { size: 3, interval: Duration::from_secs(1) },
            rotation: Rotation::never(),
            retention: Retention::keep_all(),
            low_space: 0,
            exclusive: false,
            wait_for_chain: Duration::from_millis(250),
            service: "shop".to_owned(),
            host: "web-1".to_owned(),
            writer_id: 7,
        };
        let now = Moment { elapsed: Duration::from_secs(1), wall: Timestamp::from_unix(second, 0) };
        Self { disk: SimDisk::new(seed), now, settings }
    }

    pub(super) fn open(&self) -> Process {
        self.try_open().unwrap()
    }

    /// Opens the log; returns `None` if the disk does not allow it.
    pub(super) fn try_open(&self) -> Option<Process> {
        let process = self.disk.process();
        let storage = process.storage();
        let clock = Clock::hurried();
        let opened = writer::open(&storage, &self.settings, &Former::default(), clock, &self.now).ok()?;
        let queue = QueueSettings {
            bytes: 1 << 16,
            wait_bound: Duration::from_millis(1),
            flush_mode: self.settings.flush_mode,
            on_full: OnFull::DropRoutine,
            on_failure: OnFailure::Continue,
        };
        let notifier = Notifier::start(Some("log".to_owned()), clock, None, || {}).unwrap();
        let queue = Arc::new(Queue::new(queue, clock, Arc::new(Gauges::default()), notifier));
        let writer = Writer::new(storage, Arc::clone(&queue), self.settings.clone(), opened, self.now);
        let heads = vec![writer.head()];
        Some(Process { running: process, queue, writer: Some(writer), clock, events: 0, heads })
    }

    /// Advances both clocks.
    pub(super) fn wait(&mut self, time: Duration) {
        self.now.elapsed += time;
        self.now.wall = Timestamp::from_system_time(self.now.wall.to_system_time() + time);
    }

    /// Sets the wall clock.
    pub(super) fn set_clock(&mut self, second: i64) {
        self.now.wall = Timestamp::from_unix(second, 0);
    }

    /// Returns the files as a reader sees them.
    pub(super) fn log(&self) -> Log {
        let files = self.disk.snapshot().into_iter().filter(|(name, _)| !name.starts_with("control"));
        Log::with_files(files.collect())
    }
}

impl Process {
    /// Emits events and lets the writer do what is due.
    pub(super) fn emit(&mut self, machine: &mut Machine, events: u64) {
        for _ in 0..events {
            self.submit(machine);
            machine.wait(Duration::from_millis(7));
            self.work(machine);
        }
    }

    /// Emits more than the queue holds.
    pub(super) fn flood(&mut self, machine: &Machine, events: u64) {
        (0..events).for_each(|_| self.submit(machine));
        self.work(machine);
    }

    fn submit(&mut self, machine: &Machine) {
        self.events += 1;
        let mut payload = Vec::new();
        let mut members = Payload::begin(&mut payload, machine.now.wall, RecordKind::Event);
        for (name, value) in [
            ("severity", "routine"),
            ("level", "INFO"),
            ("action", "auth.success"),
            ("actor", "mia"),
            ("source", "203.0.113.9"),
        ] {
            members.text(name, value);
        }
        members.raw("fields", format!("{{\"n\":{},\"ok\":true}}", self.events).as_bytes());
        let draft = Draft { payload: &payload, severity: Severity::Routine, at: machine.now.wall };
        self.queue.submit(&draft, None);
    }

    /// Returns the heads that it reported as durable.
    pub(super) fn heads(&self) -> Vec<Head> {
        self.heads.clone()
    }

    /// Runs the writer until nothing is due.
    pub(super) fn work(&mut self, machine: &Machine) {
        for _ in 0..200 {
            let Some(writer) = &mut self.writer else { return };
            let next = writer.step(&machine.now, self.clock);
            self.heads.extend(self.queue.gauges.head().filter(|head| self.heads.last() != Some(head)));
            match next {
                Next::Ended => self.writer = None,
                Next::Pause(Pause::None, _) => {}
                Next::Pause(..) => return,
            }
        }
        panic!("the writer never rests");
    }

    /// Advances the clocks and runs the writer, so that work that is due by time is done.
    pub(super) fn rest(&mut self, machine: &mut Machine, seconds: u64) {
        for _ in 0..seconds.min(5) {
            machine.wait(Duration::from_secs(seconds.div_ceil(5)));
            self.work(machine);
        }
    }

    pub(super) fn rotate(&mut self, machine: &Machine) {
        self.queue.ask_rotation();
        self.work(machine);
    }

    /// Closes the log.
    pub(super) fn close(mut self, machine: &mut Machine) {
        self.queue.end(Stage::Closing);
        for _ in 0..200 {
            self.work(machine);
            if self.writer.is_none() {
                return;
            }
            machine.wait(Duration::from_secs(1));
        }
        panic!("the log is never closed");
    }

    /// Ends as if by SIGKILL.
    pub(super) fn kill(self) {
        self.running.kill();
    }
}

/// Returns a closed log of 64 records in three segments.
pub(super) fn three_segments() -> Log {
    let mut machine = Machine::new(11);
    let mut process = machine.open();
    for segment in 0..3 {
        if segment > 0 {
            process.rotate(&machine);
        }
        process.emit(&mut machine, if segment == 1 { 20 } else { 19 });
        process.rest(&mut machine, 2);
    }
    process.emit(&mut machine, 1);
    process.close(&mut machine);
    machine.log()
}
