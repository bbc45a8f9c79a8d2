//! The queue and the writer in models of concurrency: every order in which threads can meet in the
//! queue, on a simulated disk.
//!
//! Time passes only where a model lets it. A thread that is never woken is therefore a deadlock,
//! which the checkers report. They do not see the locks that are held only to copy (gauges, scopes,
//! the simulated disk): threads switch around those, not within.

#[cfg(loom)]
mod with_loom;
#[cfg(shuttle)]
mod with_shuttle;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use crate::{
    LossReason, Severity, Stats, Value, Verdict, Verifier,
    clock::{Clock, Moment, Timestamp},
    format::{Payload, RecordKind},
    gauges::Gauges,
    harness::world::{MS, SECOND, Settings},
    notify::Notifier,
    queue::{Draft, Pause, Queue, Scope, Stage, Waiter},
    storage::{Dir, sim::SimDisk},
    sync::{Condvar, Mutex, thread},
    writer::{self, Former, Next, Writer},
};

/// Later than any model ends.
const NEVER: Duration = Duration::from_secs(1_000_000);

/// How long a writer dozes in a model.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Doze {
    /// Until it is woken. Reveals a missing wake-up.
    UntilWoken,
    /// For a time that always ends before anything else happens.
    IsOver,
}

/// A log that is open on a simulated disk, without a thread that writes it.
struct Model {
    log: Arc<Log>,
    writer: Writer,
    now: Moment,
}

/// What every thread of a model shares.
struct Log {
    disk: SimDisk,
    queue: Arc<Queue>,
    /// The producers that are still running. The last one closes the log.
    producers: Mutex<usize>,
    ended: Condvar,
}

impl Model {
    fn new(settings: &Settings, producers: usize) -> Self {
        let disk = SimDisk::new(7);
        let storage = disk.process().storage();
        let clock = Clock::hurried();
        let now = Moment { elapsed: SECOND, wall: Timestamp::from_unix(1_795_248_000, 0) };
        let opened =
            writer::open(&storage, &settings.writer, &Former::default(), clock, &now).expect("cannot open");
        let notifier = Notifier::start(Some("log".to_owned()), clock, None, || {}).expect("no thread");
        let queue = Arc::new(Queue::new(settings.queue, clock, Arc::new(Gauges::default()), notifier));
        let writer = Writer::new(storage, Arc::clone(&queue), settings.writer.clone(), opened, now);
        let log = Arc::new(Log { disk, queue, producers: Mutex::new(producers), ended: Condvar::new() });
        Self { log, writer, now }
    }

    /// Starts a thread that emits. The last one to end closes the log.
    fn produce(&self, emit: impl FnOnce(&Log) + Send + 'static) {
        let log = Arc::clone(&self.log);
        thread::spawn(move || {
            emit(&log);
            let mut producers = log.producers.lock().unwrap();
            *producers -= 1;
            let is_last = *producers == 0;
            drop(producers);
            if is_last {
                log.queue.end(Stage::Closing);
            }
            log.ended.notify_all();
        });
    }

    /// Runs as `Writer::run`, but its clock advances only when it pauses.
    fn write(&mut self, doze: Doze) {
        self.log.queue.attach_writer();
        loop {
            match self.step() {
                Next::Ended => return,
                Next::Pause(Pause::Backoff, until) => self.pass(until.saturating_sub(self.now.elapsed) + MS),
                Next::Pause(Pause::Doze, _) if doze == Doze::IsOver => self.pass(200 * MS),
                Next::Pause(pause, _) => {
                    self.log.queue.pause(pause, NEVER);
                    self.pass(MS);
                }
            }
        }
    }

    fn step(&mut self) -> Next {
        self.writer.step(&self.now, Clock::hurried())
    }

    fn pass(&mut self, time: Duration) {
        self.now.elapsed += time;
    }

    /// Writes until the log is closed and every producer has ended. Returns the contents.
    fn finish(mut self, doze: Doze) -> Held {
        self.write(doze);
        self.log.wait_for_producers();
        self.log.held()
    }
}

impl Log {
    /// Returns the draft of a numbered event. All have the same length.
    fn payload(number: u64) -> Vec<u8> {
        let mut payload = Vec::new();
        let at = Timestamp::from_unix(1_795_248_000, 0);
        Payload::begin(&mut payload, at, RecordKind::Event)
            .raw("fields", format!("{{\"n\":{number}}}").as_bytes());
        payload
    }

    /// Emits an event as within a `confirm`, which waits later.
    fn emit(&self, number: u64, severity: Severity) -> Emitted {
        let scope = Scope::new(None);
        let payload = Self::payload(number);
        let at = Timestamp::from_unix(1_795_248_000, 0);
        self.queue.submit(&Draft { payload: &payload, severity, at }, Some(&scope));
        let counts = scope.counts();
        assert_eq!(counts.accepted + counts.lost, 1, "an event is accepted or counted");
        Emitted { number, is_accepted: counts.accepted == 1, scope }
    }

    /// Emits a critical event and waits as its macro would.
    #[cfg(loom)]
    fn submit_and_wait(&self, number: u64) {
        let at = Timestamp::from_unix(1_795_248_000, 0);
        let draft = Draft { payload: &Self::payload(number), severity: Severity::Critical, at };
        self.queue.submit(&draft, None);
    }

    /// Waits as the end of `confirm` does, and checks that the answer is true. Returns whether the
    /// event is durable.
    fn confirm(&self, emitted: &Emitted) -> bool {
        let ticket = emitted.scope.counts().last;
        // A wait may end at its bound just before the event is durable, so its result is not
        // checked.
        drop(self.queue.wait_until_durable(ticket, Waiter::All));
        let is_durable = self.queue.is_durable(ticket);
        if is_durable {
            assert!(self.is_on_disk(emitted.number), "{} is acknowledged and not on disk", emitted.number);
            assert!(emitted.scope.counts().durable.is_some(), "acknowledged without a receipt");
        }
        is_durable
    }

    /// Waits for a count instead of joining the threads: loom takes a wake-up left over from a
    /// pause for the end of a thread.
    fn wait_for_producers(&self) {
        let mut producers = self.producers.lock().unwrap();
        while *producers > 0 {
            producers = self.ended.wait(producers).unwrap();
        }
    }

    fn is_on_disk(&self, number: u64) -> bool {
        self.has_on_disk(&format!("{{\"n\":{number}}}"))
    }

    fn has_on_disk(&self, text: &str) -> bool {
        // This call lets the checkers switch threads, so they try every order of this check and the
        // writer's calls.
        drop(self.disk.process().storage().list(Dir::Log));
        let holds = |name: &String| {
            let bytes = self.disk.durable_contents(name).unwrap_or_default();
            bytes.windows(text.len()).any(|window| window == text.as_bytes())
        };
        self.disk.snapshot().keys().any(holds)
    }

    fn stats(&self) -> Stats {
        let mut stats = Stats::default();
        self.queue.fill(&mut stats);
        stats
    }

    fn lost(&self, reason: LossReason) -> u64 {
        self.stats().lost.iter().filter(|loss| loss.reason == reason).map(|loss| loss.events).sum()
    }

    fn held(&self) -> Held {
        let mut held = Held::default();
        // Another process, so that it sees the locks of the log as others do.
        let storage = self.disk.process().storage();
        let report = Verifier::new("/log").threads(1).run_on(&*storage).expect("cannot verify");
        assert_eq!(report.verdict(), Verdict::Intact, "{report}");
        for record in crate::Reader::new("/log").records_of(storage).expect("cannot read") {
            let record = record.expect("no record");
            let number =
                |value: Option<&Value>| value.and_then(Value::as_i64).unwrap_or_default().unsigned_abs();
            if record.is_event() {
                held.events.insert(number(record.field("n")), held.order.len());
                if record.is_unconfirmed() {
                    held.unconfirmed.insert(number(record.field("n")));
                }
                held.order.push(number(record.field("n")));
                held.lost_before.push(held.lost);
            } else if let Some(gap) = record.get("gap") {
                held.lost += number(gap.get("critical")) + number(gap.get("routine"));
            }
        }
        assert_eq!(held.events.len(), held.order.len(), "an event is in the log twice");
        let stats = self.stats();
        assert_eq!(
            stats.accepted_routine + stats.accepted_critical,
            held.order.len() as u64,
            "accepted and gone"
        );
        held
    }
}

/// An event that was emitted.
struct Emitted {
    number: u64,
    is_accepted: bool,
    scope: Arc<Scope>,
}

/// The contents of a closed log.
#[derive(Debug, Default)]
struct Held {
    /// The numbers of the events, in order.
    order: Vec<u64>,
    /// How many losses the gap records before each event count.
    lost_before: Vec<u64>,
    /// The position of each event in that order.
    events: BTreeMap<u64, usize>,
    /// The events named by `unconfirmed` records.
    unconfirmed: BTreeSet<u64>,
    /// How many losses all gap records count.
    lost: u64,
}
