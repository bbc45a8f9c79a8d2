//! One measurement of one contestant, in its own process. Figures go to standard output, one
//! `figure NAME VALUE` on each line.

use std::{
    path::Path,
    sync::Barrier,
    thread,
    time::{Duration, Instant},
};

use crate::{
    Result,
    contestants::{Contestant, Subject},
    figures::Figures,
    growth, special,
    workload::Event,
};

/// The number of turns in a round.
pub(crate) const TURNS: usize = 3;

/// What can be measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Measure {
    /// Time of an event on the emitting thread.
    Cost,
    /// Events per second until all are written, with none lost.
    Sustained,
    /// Events per second where each is durable before the call returns.
    Durable,
    /// Bytes verified per second.
    Verify,
    /// Time of a critical event while routine ones arrive.
    Mixed,
    /// Events per second of four processes, on one log and on four.
    Processes,
    /// Peak memory with many events.
    Memory,
    /// Peak memory with many events while syncs hang.
    MemoryStalled,
    /// Opening a large log after a kill, and verifying it.
    Large,
    /// Cost by the number of events.
    GrowthEvents,
    /// Cost by the number of threads.
    GrowthThreads,
    /// Cost by the size of a record.
    GrowthSizes,
    /// Opening and verifying by the number of segments.
    GrowthSegments,
}

impl Measure {
    const NAMED: [(Self, &'static str); 13] = [
        (Self::Cost, "cost"),
        (Self::Sustained, "sustained"),
        (Self::Durable, "durable"),
        (Self::Verify, "verify"),
        (Self::Mixed, "mixed"),
        (Self::Processes, "processes"),
        (Self::Memory, "memory"),
        (Self::MemoryStalled, "memory-stalled"),
        (Self::Large, "large"),
        (Self::GrowthEvents, "growth-events"),
        (Self::GrowthThreads, "growth-threads"),
        (Self::GrowthSizes, "growth-sizes"),
        (Self::GrowthSegments, "growth-segments"),
    ];

    pub(crate) fn all() -> impl Iterator<Item = Self> {
        Self::NAMED.into_iter().map(|(measure, _)| measure)
    }

    pub(crate) fn name(self) -> &'static str {
        Self::NAMED.iter().find(|(measure, _)| *measure == self).map_or("", |(_, name)| name)
    }

    pub(crate) fn parse(name: &str) -> Option<Self> {
        Self::NAMED.iter().find(|(_, known)| *known == name).map(|(measure, _)| *measure)
    }

    /// Returns whether it is measured in every round; otherwise it is measured once, because it takes long.
    pub(crate) fn is_in_rounds(self) -> bool {
        self <= Self::Processes
    }

    /// Returns how often it is measured in a round.
    ///
    /// The speed of a disk can change within half a minute. Comparisons of syncs are therefore made in several short
    /// turns, so that all contestants meet the same conditions.
    pub(crate) fn turns(self) -> usize {
        if self == Self::Durable { TURNS } else { 1 }
    }

    /// Returns whether it is measured in this turn of a round, counted from 1. Everything is measured in the last
    /// turn, so that all figures can be compared.
    pub(crate) fn is_due(self, turn: usize) -> bool {
        TURNS - turn < self.turns()
    }

    /// Returns the time after which a measurement is considered hung.
    pub(crate) fn limit(self) -> Duration {
        Duration::from_secs(if self.is_in_rounds() { 90 } else { 300 })
    }
}

/// The scale of a measurement: full or quick.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Scale {
    pub(crate) is_quick: bool,
}

impl Scale {
    pub(crate) fn seconds(self, full: f64) -> Duration {
        Duration::from_secs_f64(if self.is_quick { full / 10.0 } else { full })
    }

    pub(crate) fn count(self, full: u64) -> u64 {
        if self.is_quick { full / 20 } else { full }
    }
}

/// Runs a measurement and returns its figures.
pub(crate) fn run(contestant: &Contestant, measure: Measure, dir: &Path, scale: Scale) -> Result<Figures> {
    match measure {
        Measure::Cost => cost(contestant, dir, scale),
        Measure::Sustained => sustained(contestant, dir, scale),
        Measure::Durable => durable(contestant, dir, scale),
        Measure::Verify => verify(contestant, dir, scale),
        Measure::Mixed => special::mixed(dir, scale),
        Measure::Processes => special::processes(dir, scale),
        Measure::Memory => special::memory(dir, scale, false),
        Measure::MemoryStalled => special::memory(dir, scale, true),
        Measure::Large => special::large(dir, scale),
        Measure::GrowthEvents => growth::events(dir, scale),
        Measure::GrowthThreads => growth::threads(dir, scale),
        Measure::GrowthSizes => growth::sizes(dir, scale),
        Measure::GrowthSegments => growth::segments(dir, scale),
    }
}

/// Returns the cost of reading the clock twice, in nanoseconds, to subtract from a measured time.
fn clock_cost() -> u64 {
    let mut costs: Vec<u64> = (0..1001).map(|_| nanos(Instant::now().elapsed())).collect();
    costs.sort_unstable();
    at(&costs, 0.5)
}

pub(crate) fn nanos(duration: Duration) -> u64 {
    duration.as_nanos().try_into().unwrap_or(u64::MAX)
}

/// Returns the quantile of sorted values: the value below which `share` of them are.
pub(crate) fn at(sorted: &[u64], share: f64) -> u64 {
    let index = (sorted.len().saturating_sub(1) as f64 * share) as usize;
    sorted.get(index).copied().unwrap_or_default()
}

/// Runs `work` on `threads` threads, each inside the span, all starting together. Returns the total time, and
/// the result of each thread.
pub(crate) fn on_threads<T: Send>(
    subject: &dyn Subject,
    threads: usize,
    work: impl Fn(usize) -> T + Sync,
) -> (Duration, Vec<T>) {
    let start = Barrier::new(threads + 1);
    thread::scope(|scope| {
        let workers: Vec<_> = (0..threads)
            .map(|thread| {
                let (start, work) = (&start, &work);
                scope.spawn(move || {
                    let span = subject.enter();
                    start.wait();
                    let result = work(thread);
                    drop(span);
                    result
                })
            })
            .collect();
        start.wait();
        let begun = Instant::now();
        let results = workers.into_iter().filter_map(|worker| worker.join().ok()).collect();
        (begun.elapsed(), results)
    })
}

/// Measures the time of each call, in bursts that fit every queue and one event at a time.
fn cost(contestant: &Contestant, dir: &Path, scale: Scale) -> Result<Figures> {
    let subject = (contestant.set_up)(dir)?;
    let mut figures = Figures::default();
    let clock = clock_cost();
    for threads in [1, 2, 8] {
        for (name, events, gap) in
            [("burst", 16_000, Duration::ZERO), ("paced", 4_000, Duration::from_micros(50))]
        {
            // Time to write what was queued before, so that each burst finds an empty queue.
            thread::sleep(Duration::from_millis(60));
            // The threads of a burst share its events, because a burst must fit the queue. Paced threads do not: what
            // disturbs one event in a thousand comes about ten times a second and hits several threads at once. A short
            // phase would meet it only by chance.
            let sharing = if gap.is_zero() { threads as u64 } else { 1 };
            let each = scale.count(events).max(800) / sharing;
            let (_, costs) = on_threads(&*subject, threads, |_| {
                let mut costs = Vec::with_capacity(each as usize);
                for number in 0..each {
                    if !gap.is_zero() {
                        wait(gap);
                    }
                    let begun = Instant::now();
                    subject.emit(Event::routine(number));
                    costs.push(nanos(begun.elapsed()).saturating_sub(clock));
                }
                // Without the first calls of a thread, which allocate its buffers.
                costs.split_off(costs.len() / 10)
            });
            let mut costs: Vec<u64> = costs.concat();
            costs.sort_unstable();
            figures.add(format!("{name}.{threads}.p50"), at(&costs, 0.5) as f64);
            figures.add(format!("{name}.{threads}.p999"), at(&costs, 0.999) as f64);
        }
    }
    subject.finish()?;
    Ok(figures)
}

/// Waits by yielding to other threads, without sleeping: a core is slow just after it wakes.
fn wait(gap: Duration) {
    let begun = Instant::now();
    while begun.elapsed() < gap {
        thread::yield_now();
    }
}

/// Emits on `threads` threads until the time is over. Returns the number of events.
pub(crate) fn emit_for(
    subject: &dyn Subject,
    threads: usize,
    time: Duration,
    stride: u64,
    is_critical: bool,
) -> u64 {
    let (_, counts) = on_threads(subject, threads, |_| {
        let begun = Instant::now();
        let mut number = 0;
        while begun.elapsed() < time {
            for _ in 0..stride {
                subject.emit(Event { is_critical, ..Event::routine(number) });
                number += 1;
            }
        }
        number
    });
    counts.iter().sum()
}

/// Measures one number of threads per process, because the loggers are global and can be ended only once.
fn sustained(contestant: &Contestant, dir: &Path, scale: Scale) -> Result<Figures> {
    let threads = crate::threads_asked().unwrap_or(1);
    let subject = (contestant.set_up)(dir)?;
    let begun = Instant::now();
    let events = emit_for(&*subject, threads, scale.seconds(1.0), 64, contestant.is_critical);
    subject.finish()?;
    let mut figures = Figures::default();
    figures.add(threads.to_string(), events as f64 / begun.elapsed().as_secs_f64());
    Ok(figures)
}

fn durable(contestant: &Contestant, dir: &Path, scale: Scale) -> Result<Figures> {
    let subject = (contestant.set_up)(dir)?;
    let mut figures = Figures::default();
    for threads in [1, 8, 64] {
        let begun = Instant::now();
        let events = emit_for(&*subject, threads, scale.seconds(0.25), 1, contestant.is_critical);
        figures.add(threads.to_string(), events as f64 / begun.elapsed().as_secs_f64());
    }
    subject.finish()?;
    Ok(figures)
}

/// Writes a log, then verifies it repeatedly, with one thread and with all cores.
fn verify(contestant: &Contestant, dir: &Path, scale: Scale) -> Result<Figures> {
    let verify = contestant.verify.ok_or("it has no verification")?;
    let subject = (contestant.set_up)(dir)?;
    let (begun, limit) = (Instant::now(), scale.seconds(2.0));
    on_threads(&*subject, 1, |_| {
        for number in 0..scale.count(200_000) {
            if number % 64 == 0 && begun.elapsed() > limit {
                break;
            }
            subject.emit(Event::routine(number));
        }
    });
    subject.finish()?;
    let mut figures = Figures::default();
    for (name, threads) in [("one", 1), ("all", 0)] {
        let (begun, mut bytes) = (Instant::now(), 0);
        while begun.elapsed() < scale.seconds(0.5) || bytes == 0 {
            bytes += verify(dir, threads)?.max(1);
        }
        figures.add(name, bytes as f64 / begun.elapsed().as_secs_f64());
    }
    Ok(figures)
}
