//! Emits numbered events with the ordinary macro, from one or several threads.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    thread,
    time::{Duration, Instant},
};

use tracing_audit::{AuditLog, Severity};

use crate::{ledger::Ledger, settings::Settings};

/// The thread number of events emitted by a command.
pub(crate) const COMMANDED: u64 = 0;
/// Calls that take longer than this many microseconds are counted with this duration.
const MAX_MICROS: usize = 20_000;
/// A delay below this is attributed to the scheduler or strace.
const ROUGH: Duration = Duration::from_millis(20);

/// The source of the events, and how many were emitted.
#[derive(Debug)]
pub(crate) struct Load<'a> {
    pub(crate) log: &'a AuditLog,
    pub(crate) ledger: &'a Ledger,
    pub(crate) settings: &'a Settings,
    padding: String,
    routine: AtomicU64,
    critical: AtomicU64,
    /// The next number for events emitted by commands.
    commanded: AtomicU64,
}

impl<'a> Load<'a> {
    pub(crate) fn new(log: &'a AuditLog, ledger: &'a Ledger, settings: &'a Settings) -> Self {
        Self {
            log,
            ledger,
            settings,
            padding: "x".repeat(settings.size),
            routine: AtomicU64::new(0),
            critical: AtomicU64::new(0),
            commanded: AtomicU64::new(0),
        }
    }

    /// Returns how many events were emitted: routine and critical.
    pub(crate) fn emitted(&self) -> (u64, u64) {
        (self.routine.load(Ordering::Relaxed), self.critical.load(Ordering::Relaxed))
    }

    /// Emits one event. Counts it first, because the count is not checked if the process dies in
    /// the macro.
    pub(crate) fn emit(&self, severity: Severity, thread: u64, number: u64) {
        let counter = if severity == Severity::Critical { &self.critical } else { &self.routine };
        counter.fetch_add(1, Ordering::Relaxed);
        let (run, padding) = (self.settings.run, self.padding.as_str());
        let severity = severity.to_string();
        tracing::info!(
            target: "audit",
            action = "work.done", actor = "workload", severity, run, thread, number, padding
        );
    }

    fn next_number(&self) -> u64 {
        self.commanded.fetch_add(1, Ordering::Relaxed)
    }

    /// Emits as `emit` does. The event is reported as acknowledged if the macro waits, and no event
    /// was lost and no wait given up meanwhile. If other threads gave up, fewer events are reported
    /// than could be, never more.
    fn emit_and_tell(&self, severity: Severity, thread: u64, number: u64) {
        let waits = match self.settings.mode.as_str() {
            "immediate" => true,
            "hybrid" => severity == Severity::Critical,
            _ => false,
        };
        if !waits {
            return self.emit(severity, thread, number);
        }
        let in_vain = || {
            let stats = self.log.stats();
            (stats.unconfirmed_waits, stats.lost_total())
        };
        let before = in_vain();
        self.emit(severity, thread, number);
        if in_vain() == before {
            self.ledger.acknowledge((self.settings.run, thread, number), None);
        }
    }

    fn confirm(&self, severity: Severity, thread: u64, number: u64) -> bool {
        match self.log.confirm(|| self.emit(severity, thread, number)) {
            Ok(receipt) => {
                self.ledger.acknowledge((self.settings.run, thread, number), Some(receipt));
                true
            }
            Err(error) => {
                self.ledger.say(&format!("refused {thread} {number} {error}"));
                false
            }
        }
    }

    /// Runs the load of the settings on its threads, to its end.
    pub(crate) fn run(&self) {
        thread::scope(|scope| {
            for thread in 1..=self.settings.threads {
                scope.spawn(move || self.run_thread(thread));
            }
        });
    }

    fn run_thread(&self, thread: u64) {
        let settings = self.settings;
        let is_nth = |number: u64, every: u64| every > 0 && number % every == every - 1;
        for number in 0_u64.. {
            if settings.events > 0 && number == settings.events {
                break;
            }
            let critical = is_nth(number, settings.critical_every);
            let severity = if critical { Severity::Critical } else { Severity::Routine };
            if is_nth(number, settings.confirm_every) {
                self.confirm(severity, thread, number);
            } else {
                self.emit_and_tell(severity, thread, number);
            }
            if !settings.pace.is_zero() {
                thread::sleep(settings.pace);
            }
        }
        if self.log.flush().is_ok() && self.log.stats().lost_total() == 0 && settings.events > 0 {
            self.ledger.say(&format!("flushed {} {thread} {}", settings.run, settings.events - 1));
        }
    }

    /// Emits as fast as possible from this thread, and returns how long the macro took.
    pub(crate) fn burst(&self, severity: Severity, events: u64) -> String {
        // One bucket for each microsecond, so that memory does not grow with the number of events.
        let mut counts = vec![0_u64; MAX_MICROS + 1];
        let mut longest = Duration::ZERO;
        for _ in 0..events {
            let number = self.next_number();
            let begun = Instant::now();
            self.emit(severity, COMMANDED, number);
            let took = begun.elapsed();
            longest = longest.max(took);
            let micros = usize::try_from(took.as_micros()).unwrap_or(MAX_MICROS).min(MAX_MICROS);
            if let Some(count) = counts.get_mut(micros) {
                *count += 1;
            }
        }
        let below = |thousandths: u64| {
            let mut left = events * thousandths / 1000;
            counts
                .iter()
                .take_while(|count| left.checked_sub(**count).inspect(|rest| left = *rest).is_some())
                .count()
        };
        let slow: u64 = counts.iter().skip(1000).sum();
        format!("p50_us={} p999_us={} max_us={} over_1ms={slow}", below(500), below(999), longest.as_micros())
    }

    /// Confirms one event from each of several threads at once. Returns how many were confirmed,
    /// and how long that took.
    pub(crate) fn confirm_at_once(&self, threads: u64) -> String {
        let took: Vec<(bool, Duration)> = thread::scope(|scope| {
            let waiting: Vec<_> = (0..threads)
                .map(|_| {
                    scope.spawn(|| {
                        let number = self.next_number();
                        let begun = Instant::now();
                        (self.confirm(Severity::Routine, COMMANDED, number), begun.elapsed())
                    })
                })
                .collect();
            waiting.into_iter().filter_map(|thread| thread.join().ok()).collect()
        });
        let confirmed = took.iter().filter(|(confirmed, _)| *confirmed).count();
        let millis = |duration: Option<Duration>| duration.map_or(0, |duration| duration.as_millis());
        let shortest = took.iter().map(|(_, took)| *took).min();
        let longest = took.iter().map(|(_, took)| *took).max();
        format!("confirmed={confirmed} shortest_ms={} longest_ms={}", millis(shortest), millis(longest))
    }

    /// Emits a routine event now and then, and measures the age of the oldest when each sync ended.
    /// It must be at most the interval and two syncs: its own, and one already under way for a
    /// batch or the noted head.
    pub(crate) fn ages(&self, samples: u64) -> String {
        let mut worst = Duration::ZERO;
        let (mut syncs, mut late) = (0_u64, 0_u64);
        let mut before = self.log.stats();
        for sample in 0..samples {
            if sample % 2 == 0 {
                self.emit(Severity::Routine, COMMANDED, self.next_number());
            }
            thread::sleep(Duration::from_micros(100));
            let now = self.log.stats();
            if now.syncs > before.syncs {
                syncs += 1;
                let over =
                    before.oldest_not_durable.saturating_sub(self.settings.interval + 2 * now.last_sync);
                worst = worst.max(over);
                late += u64::from(over > ROUGH);
            }
            before = now;
        }
        format!("samples={samples} syncs={syncs} late={late} worst_us={}", worst.as_micros())
    }
}
