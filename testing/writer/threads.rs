//! The real thread of the writer, real emitters, and a simulated disk.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Barrier, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    task::{Poll, Wake, Waker},
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use super::{
    oracle::read_log,
    world::{MS, SECOND, Settings},
};
use crate::{
    FlushMode, OnFull, Record, Severity, Stats, Verdict, Verifier,
    clock::{Clock, Timestamp},
    format::{Payload, RecordKind},
    gauges::Gauges,
    notify::Notifier,
    queue::{Draft, Queue, Scope, Stage, Waiter},
    storage::sim::{Op, SimDisk},
    wait::block_until,
    writer::{self, Writer},
};

/// The time after which anything counts as a hang.
pub(super) const PATIENCE: Duration = Duration::from_secs(60);

pub(super) struct Running {
    pub(super) disk: SimDisk,
    pub(super) queue: Arc<Queue>,
    thread: Option<JoinHandle<()>>,
    emitted: AtomicU64,
}

impl Running {
    fn start(settings: &Settings) -> Self {
        Self::start_on(SimDisk::new(1), settings)
    }

    pub(super) fn start_on(disk: SimDisk, settings: &Settings) -> Self {
        let storage = disk.process().storage();
        let clock = Clock::start();
        let opened =
            writer::open(&storage, &settings.writer, &writer::Former::default(), clock, &clock.now())
                .expect("open");
        let notifier = Notifier::start(Some("log".to_owned()), clock, None, || {}).expect("no thread");
        let queue = Arc::new(Queue::new(settings.queue, clock, Arc::new(Gauges::default()), notifier));
        let writer = Writer::new(storage, Arc::clone(&queue), settings.writer.clone(), opened, clock.now());
        let thread = thread::spawn(move || writer.run(clock, || {}));
        Self { disk, queue, thread: Some(thread), emitted: AtomicU64::new(0) }
    }

    pub(super) fn emit(&self, severity: Severity, scope: Option<&Arc<Scope>>) -> u64 {
        let number = self.emitted.fetch_add(1, Ordering::Relaxed) + 1;
        let at = Timestamp::now();
        let mut payload = Vec::new();
        let mut members = Payload::begin(&mut payload, at, RecordKind::Event);
        members.text("severity", severity.as_str());
        members.raw("fields", format!("{{\"n\":{number},\"p\":\"{}\"}}", "x".repeat(100)).as_bytes());
        self.queue.submit(&Draft { payload: &payload, severity, at }, scope);
        number
    }

    pub(super) fn stats(&self) -> Stats {
        let mut stats = Stats::default();
        self.queue.fill(&mut stats);
        stats
    }

    pub(super) fn close(&mut self) {
        self.queue.end(Stage::Closing);
        block_until(PATIENCE, |waker| self.queue.poll_closed(waker)).expect("the log closes");
        self.thread.take().expect("once").join().expect("join");
    }

    /// Checks that every emitted event is recorded, or counted in a gap record.
    #[track_caller]
    fn check(&self) {
        assert_eq!(self.queue.not_durable(), 0);
        let report = Verifier::new("/log").run_on(&*self.disk.process().storage()).expect("verify");
        assert_eq!(report.verdict(), Verdict::Intact, "{report}");
        let chains = read_log(&self.disk.snapshot()).unwrap();
        let numbers = chains[&0].numbers();
        let lost: u64 = chains[&0]
            .of_kind(RecordKind::Gap)
            .iter()
            .flat_map(|gap| ["\"critical\":", "\"routine\":"].map(|name| (gap, name)))
            .map(|(gap, name)| {
                let digits = gap.text.split_once(name).unwrap().1;
                digits.split(|c: char| !c.is_ascii_digit()).next().unwrap().parse::<u64>().unwrap()
            })
            .sum();
        let stats = self.stats();
        let closed = stats.lost_total() - lost;
        assert_eq!(numbers.len() as u64 + lost + closed, self.emitted.load(Ordering::Relaxed));
        assert_eq!(numbers.len() as u64, stats.accepted_routine + stats.accepted_critical);
        let unique: std::collections::BTreeSet<_> = numbers.iter().collect();
        assert_eq!(unique.len(), numbers.len());
    }
}

pub(super) fn patient(mode: FlushMode) -> Settings {
    let mut settings = Settings::with_mode(mode);
    settings.queue.wait_bound = PATIENCE;
    settings
}

/// In each round, one sync is held until all threads wait. The events that it does not cover must
/// need few others.
#[test]
fn sixty_four_threads_share_syncs_and_none_is_forgotten() {
    const THREADS: u64 = 64;
    const ROUNDS: u64 = 40;
    let mut log = Running::start(&patient(FlushMode::default()));
    let syncs = || log.queue.gauges.syncs.get();
    let (begin, end) = (Barrier::new(65), Barrier::new(65));
    let before = syncs();
    thread::scope(|scope| {
        for _ in 0..THREADS {
            scope.spawn(|| {
                for _ in 0..ROUNDS {
                    begin.wait();
                    log.emit(Severity::Critical, None);
                    // The call returned, so the event is durable.
                    assert!(log.queue.not_durable() < THREADS);
                    end.wait();
                }
            });
        }
        for _ in 0..ROUNDS {
            let all = log.queue.accepted() + THREADS;
            log.disk.hold(Op::SyncData);
            begin.wait();
            while log.queue.accepted() < all {
                thread::sleep(MS / 10);
            }
            log.disk.release();
            end.wait();
        }
    });
    assert_eq!(log.stats().unconfirmed_waits, 0);
    let syncs = syncs() - before;
    assert!(syncs <= 3 * ROUNDS, "{syncs} syncs for {ROUNDS} rounds");
    log.close();
    log.check();
}

#[test]
fn a_tiny_queue_blocks_or_drops_and_never_hangs() {
    for on_full in [OnFull::Block, OnFull::DropRoutine] {
        for mode in [
            FlushMode::default(),
            FlushMode::Immediate,
            FlushMode::Batched { size: 1000, interval: 3600 * SECOND },
        ] {
            let mut settings = patient(mode);
            settings.queue.bytes = 3000;
            settings.queue.on_full = on_full;
            let mut log = Running::start(&settings);
            thread::scope(|scope| {
                for thread in 0..16 {
                    let log = &log;
                    scope.spawn(move || {
                        for round in 0..100 {
                            let critical = (thread + round) % 7 == 0;
                            log.emit(if critical { Severity::Critical } else { Severity::Routine }, None);
                        }
                    });
                }
            });
            let lost = log.stats().lost;
            assert!(
                lost.iter().all(|lost| on_full == OnFull::DropRoutine && lost.severity == Severity::Routine),
                "{mode}: {lost:?}"
            );
            log.close();
            log.check();
        }
    }
}

#[test]
fn closing_while_threads_emit_loses_only_later_events() {
    for round in 0..30 {
        let mut log = Running::start(&patient(FlushMode::default()));
        thread::scope(|scope| {
            for thread in 0..8 {
                let log = &log;
                scope.spawn(move || {
                    for number in 0..50 {
                        let critical = (thread + number) % 3 == 0;
                        log.emit(if critical { Severity::Critical } else { Severity::Routine }, None);
                    }
                });
            }
            let log = &log;
            scope.spawn(move || {
                thread::sleep(Duration::from_micros(100 * round));
                log.queue.end(Stage::Closing);
            });
        });
        log.close();
        log.check();
    }
}

#[test]
fn a_hung_disk_blocks_no_caller_longer_than_the_bound() {
    let bound = 150 * MS;
    let mut settings = patient(FlushMode::default());
    settings.queue.wait_bound = bound;
    let mut log = Running::start(&settings);
    log.emit(Severity::Critical, None);
    log.disk.hold(Op::SyncData);
    let begun = Instant::now();
    log.emit(Severity::Critical, None);
    let took = begun.elapsed();
    assert!(took >= bound && took < bound + bound / 10 + 20 * MS, "{took:?}");
    assert!(log.queue.is_stalled());
    // During a stall, no caller waits.
    let begun = Instant::now();
    for _ in 0..200 {
        log.emit(Severity::Critical, None);
        log.emit(Severity::Routine, None);
    }
    assert!(begun.elapsed() < bound, "{:?}", begun.elapsed());
    assert_eq!(log.stats().unconfirmed_waits, 201);
    assert!(log.queue.wait_until_durable(log.queue.accepted(), Waiter::All).is_err());
    log.queue.end(Stage::Closing);
    assert_eq!(block_until(bound, |waker| log.queue.poll_closed(waker)), None);
    log.disk.release();
    log.close();
    assert!(!log.queue.is_stalled());
    log.check();
}

/// Syncs take about as long as a caller waits. Each wait ends with one answer, and the log must
/// agree with it.
#[test]
fn a_timeout_that_races_with_success_is_decided_once() {
    let mut settings = Settings::default();
    settings.queue.wait_bound = MS / 2;
    let mut log = Running::start(&settings);
    let answers = Mutex::new(BTreeMap::new());
    thread::scope(|scope| {
        let confirm = || {
            for _ in 0..300 {
                let events = Scope::new(None);
                let number = log.emit(Severity::Critical, Some(&events));
                let waiter = Waiter::Scope(&events);
                let is_refused = log.queue.wait_until_durable(events.counts().last, waiter).is_err();
                answers.lock().unwrap().insert(number, is_refused);
                // During a stall no caller waits, so nothing races.
                while log.queue.is_stalled() {
                    thread::yield_now();
                }
            }
        };
        let waits: Vec<_> = (0..6).map(|_| scope.spawn(confirm)).collect();
        while waits.iter().any(|wait| !wait.is_finished()) {
            log.disk.hold(Op::SyncData);
            thread::sleep(MS / 2);
            log.disk.release();
            thread::sleep(MS / 10);
        }
    });
    log.close();
    log.check();
    let storage = log.disk.process().storage();
    let records = crate::Reader::new("/log").records_of(storage).unwrap().map(Result::unwrap);
    let number = |record: &Record| record.field("n").and_then(crate::Value::as_i64).unwrap().unsigned_abs();
    let named: BTreeMap<u64, bool> =
        records.filter(Record::is_event).map(|record| (number(&record), record.is_unconfirmed())).collect();
    let answers = answers.into_inner().unwrap();
    let refused = answers.values().filter(|is_refused| **is_refused).count();
    assert!(refused > 0 && refused < answers.len(), "{refused} of {}: nothing raced", answers.len());
    let wrong: Vec<_> =
        answers.iter().filter(|(number, refused)| named.get(number) != Some(refused)).collect();
    assert!(wrong.is_empty(), "got another answer: {wrong:?}");
}

#[test]
fn a_stall_ends_with_the_next_sync() {
    let mut settings = patient(FlushMode::default());
    settings.queue.wait_bound = 5 * MS;
    let mut log = Running::start(&settings);
    for _ in 0..50 {
        log.disk.hold(Op::SyncData);
        log.emit(Severity::Critical, None);
        log.disk.release();
        let begun = Instant::now();
        while log.queue.is_stalled() || log.queue.not_durable() > 0 {
            assert!(begun.elapsed() < PATIENCE, "a stall that no sync ends");
            thread::yield_now();
        }
    }
    log.close();
    log.check();
}

#[test]
fn dropping_events_never_blocks_on_a_hung_disk() {
    let mut settings = patient(FlushMode::default());
    settings.queue.on_full = OnFull::DropRoutine;
    settings.queue.bytes = 100_000;
    let mut log = Running::start(&settings);
    log.disk.hold(Op::SyncData);
    let mut slow = Vec::new();
    for _ in 0..5000 {
        let begun = Instant::now();
        log.emit(Severity::Routine, None);
        slow.extend(Some(begun.elapsed()).filter(|elapsed| *elapsed > 50 * MS));
    }
    // If events waited for the disk, all of them would be slow. A busy machine delays a few.
    assert!(slow.len() <= 5, "{slow:?}");
    assert!(log.stats().queued_bytes < 100_000 + 1000);
    log.disk.release();
    log.close();
    log.check();
}

#[test]
fn a_routine_event_is_written_within_ten_milliseconds() {
    let mut log = Running::start(&patient(FlushMode::Batched { size: 1_000_000, interval: 3600 * SECOND }));
    let length = || log.disk.contents("audit-000-00000001.jsonl").unwrap().len();
    let opened = log.queue.gauges.syncs.get();
    let mut late = Vec::new();
    for round in 0..60 {
        // From a doze, and from sleep.
        thread::sleep(if round % 10 == 0 { 150 * MS } else { MS * (round % 7) });
        let before = length();
        let begun = Instant::now();
        log.emit(Severity::Routine, None);
        while length() == before {
            assert!(begun.elapsed() < PATIENCE, "never written");
            thread::sleep(MS / 10);
        }
        if begun.elapsed() > 10 * MS {
            late.push(begun.elapsed());
        }
    }
    // The machine may be busy with other tests. A longer doze would make all of them late.
    assert!(late.len() <= 20, "{late:?}");
    assert_eq!(log.queue.gauges.syncs.get(), opened, "written, not synced");
    log.close();
    log.check();
}

struct CountedWaker(AtomicU64, thread::Thread);

impl Wake for CountedWaker {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::SeqCst);
        self.1.unpark();
    }
}

#[test]
fn tasks_that_are_polled_repeatedly_are_registered_once_and_woken() {
    let mut log = Running::start(&patient(FlushMode::Batched { size: 1000, interval: 3600 * SECOND }));
    log.disk.hold(Op::SyncData);
    log.disk.hold(Op::SyncAll);
    let scope = Scope::new(None);
    log.emit(Severity::Routine, Some(&scope));
    let ticket = scope.counts().last;
    let counter = Arc::new(CountedWaker(AtomicU64::new(0), thread::current()));
    let waker = Waker::from(Arc::clone(&counter));
    let rotation = log.queue.ask_rotation();
    for _ in 0..10_000 {
        assert!(log.queue.poll_durable(ticket, &waker).is_pending());
        assert!(log.queue.poll_rotated(rotation, &waker).is_pending());
        assert!(log.queue.poll_closed(&waker).is_pending());
    }
    assert!(Arc::strong_count(&counter) <= 5, "{} wakers", Arc::strong_count(&counter));
    log.disk.release();
    let begun = Instant::now();
    while log.queue.poll_durable(ticket, &waker) == Poll::Pending
        || log.queue.poll_rotated(rotation, &waker).is_pending()
    {
        assert!(begun.elapsed() < PATIENCE, "never woken");
        thread::park_timeout(SECOND);
    }
    assert!(counter.0.load(Ordering::SeqCst) >= 2);
    assert!(scope.counts().durable.is_some_and(|(durable, _)| durable == ticket));
    log.close();
    log.check();
    drop(waker);
    assert_eq!(Arc::strong_count(&counter), 1);
}

#[test]
fn an_idle_writer_sleeps() {
    let mut log = Running::start(&patient(FlushMode::default()));
    log.emit(Severity::Critical, None);
    thread::sleep(300 * MS);
    let before = log.disk.operations();
    thread::sleep(300 * MS);
    assert_eq!(log.disk.operations(), before);
    // A loss alone wakes it.
    log.queue.lose(crate::LossReason::Panic, Severity::Routine, Timestamp::now(), None);
    let begun = Instant::now();
    while log.disk.operations() == before {
        assert!(begun.elapsed() < PATIENCE, "never woken");
        thread::sleep(MS);
    }
    log.emitted.fetch_add(1, Ordering::Relaxed);
    log.close();
    log.check();
}
