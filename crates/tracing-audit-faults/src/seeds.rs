//! Runs seeds. Each is one machine with power cuts, kills and failing calls, and one to four
//! processes that write a log on it. A seed that fails is printed with the command that runs it
//! again.

use std::{
    cell::RefCell,
    io::{self, Write as _},
    panic,
    process::ExitCode,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use tracing_audit::{
    Verdict,
    simulation::{self, Failure, Outcome},
};

use crate::arguments::{self, Arguments, Task};

/// One of this many seeds is run twice, and both runs must be the same.
const TWICE: u64 = 100;

/// The number of failed seeds that each thread prints. More would add nothing.
const PRINTED: u64 = 50;

pub(crate) fn main() -> ExitCode {
    let done = match arguments::parse(std::env::args().skip(1)) {
        Ok(Task::Help) => print(arguments::HELP).map(|()| ExitCode::SUCCESS),
        Ok(Task::Replay(seed)) => replay(seed),
        Ok(Task::Run(arguments)) => run(&arguments),
        Err(message) => {
            print_error(&format!("{message}\n\n{}", arguments::HELP));
            return ExitCode::from(2);
        }
    };
    done.unwrap_or_else(|error| {
        print_error(&format!("cannot print: {error}\n"));
        ExitCode::from(2)
    })
}

fn print(text: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes())?;
    out.flush()
}

/// Prints to standard error. If that is closed, there is nothing else to do.
fn print_error(text: &str) {
    drop(io::stderr().write_all(text.as_bytes()));
}

/// Prints every call of one seed to the disk, every file it left, and its outcome.
fn replay(seed: u64) -> io::Result<ExitCode> {
    let mut out = io::BufWriter::new(io::stdout().lock());
    let mut written = Ok(());
    let result = simulation::replay(seed, |line| {
        if written.is_ok() {
            written = writeln!(out, "{line}");
        }
    });
    written?;
    match &result {
        Ok(outcome) => writeln!(out, "seed {seed}: {outcome:#?}")?,
        Err(failure) => writeln!(out, "seed {seed} failed: {failure}")?,
    }
    out.flush()?;
    Ok(if result.is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

thread_local! {
    /// Where this thread last panicked, to be printed together with the seed that failed.
    static PANICKED_AT: RefCell<Option<String>> = const { RefCell::new(None) };
}

/// The totals over all seeds.
#[derive(Default)]
struct Figures {
    seeds: u64,
    sum: Outcome,
    silent: u64,
    intact: u64,
    unclean: u64,
    damaged: u64,
    run_twice: u64,
    lost: u64,
    false_alarms: u64,
    failed: u64,
}

impl Figures {
    fn add(&mut self, seed: u64, result: Result<Outcome, Failure>) {
        self.seeds += 1;
        match result {
            Ok(outcome) => self.add_outcome(&outcome),
            Err(failure) => {
                self.lost += u64::from(matches!(failure, Failure::Lost(_)));
                self.false_alarms += u64::from(matches!(failure, Failure::FalseAlarm(_)));
                self.fail(seed, &failure.to_string());
            }
        }
    }

    fn add_outcome(&mut self, outcome: &Outcome) {
        let sum = &mut self.sum;
        for (sum, more) in [
            (&mut sum.emitted, outcome.emitted),
            (&mut sum.acknowledged, outcome.acknowledged),
            (&mut sum.opened, outcome.opened),
            (&mut sum.power_cuts, outcome.power_cuts),
            (&mut sum.file_systems_stopped, outcome.file_systems_stopped),
            (&mut sum.kills, outcome.kills),
            (&mut sum.faults, outcome.faults),
            (&mut sum.failed_syncs, outcome.failed_syncs),
            (&mut sum.recoveries_repeated, outcome.recoveries_repeated),
            (&mut sum.honest_logs, outcome.honest_logs),
        ] {
            *sum += more;
        }
        if outcome.promises_nothing.is_some() {
            self.silent += 1;
        } else if let Some(verdict) = outcome.verdict {
            *match verdict {
                Verdict::Intact => &mut self.intact,
                Verdict::Unclean => &mut self.unclean,
                _ => &mut self.damaged,
            } += 1;
        }
    }

    fn fail(&mut self, seed: u64, message: &str) {
        self.failed += 1;
        let place = PANICKED_AT.take().map_or_else(String::new, |place| format!(" ({place})"));
        if self.failed <= PRINTED {
            let command = format!("{} -- --seed {seed}", arguments::COMMAND);
            // If standard output is closed, the last line and the exit code still report it.
            drop(print(&format!("seed {seed}: {message}{place}\n  {command}\n")));
        }
    }

    fn merge(&mut self, other: &Self) {
        self.seeds += other.seeds;
        self.add_outcome(&Outcome { promises_nothing: None, verdict: None, ..other.sum });
        self.silent += other.silent;
        self.run_twice += other.run_twice;
        self.intact += other.intact;
        self.unclean += other.unclean;
        self.damaged += other.damaged;
        self.lost += other.lost;
        self.false_alarms += other.false_alarms;
        self.failed += other.failed;
    }

    fn table(&self, took: Duration) -> String {
        let sum = &self.sum;
        let rows = [
            ("seeds", self.seeds),
            ("  of them promised nothing", self.silent),
            ("  of them run twice, identically", self.run_twice),
            ("logs opened", sum.opened),
            ("events emitted", sum.emitted),
            ("events acknowledged", sum.acknowledged),
            ("seeds that lost an acknowledged record", self.lost),
            ("power cuts", sum.power_cuts),
            ("  of them because a directory failed to sync", sum.file_systems_stopped),
            ("processes killed", sum.kills),
            ("calls hit by a fault", sum.faults),
            ("syncs that failed", sum.failed_syncs),
            ("recoveries repeated with a crash in them", sum.recoveries_repeated),
            ("honest logs verified", sum.honest_logs),
            ("honest logs called damaged", self.false_alarms),
            ("logs intact at the end", self.intact),
            ("logs unclean at the end", self.unclean),
            ("logs damaged at the end", self.damaged),
            ("seeds that failed", self.failed),
        ];
        let seconds = took.as_secs_f64();
        let rows = rows.iter().map(|(name, count)| (*name, count.to_string()));
        let rows = rows.chain([
            ("seconds", format!("{seconds:.1}")),
            ("seeds per second", format!("{:.0}", per_second(self.seeds, seconds))),
        ]);
        rows.fold(String::new(), |table, (name, value)| table + &format!("{name:<44}{value:>16}\n"))
    }
}

fn run(arguments: &Arguments) -> io::Result<ExitCode> {
    panic::set_hook(Box::new(|panic| {
        let place = panic.location().map_or_else(String::new, ToString::to_string);
        PANICKED_AT.set(Some(place));
    }));
    let begun = Instant::now();
    let end = arguments.first.saturating_add(arguments.seeds);
    let next = AtomicU64::new(arguments.first);
    let failed = AtomicU64::new(0);
    let all_done = AtomicBool::new(false);
    let total = Mutex::new(Figures::default());
    thread::scope(|scope| {
        let workers: Vec<_> = (0..arguments.threads)
            .map(|_| {
                scope.spawn(|| {
                    let figures = work(&next, end, &failed);
                    total.lock().unwrap_or_else(PoisonError::into_inner).merge(&figures);
                })
            })
            .collect();
        let progress = scope.spawn(|| show_progress(arguments, &next, end, &failed, &all_done));
        let ended = workers.into_iter().map(thread::ScopedJoinHandle::join).all(|joined| joined.is_ok());
        all_done.store(true, Ordering::Relaxed);
        progress.thread().unpark();
        assert!(ended, "a worker panicked");
    });
    let figures = total.into_inner().unwrap_or_else(PoisonError::into_inner);
    print(&figures.table(begun.elapsed()))?;
    Ok(if figures.failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Runs one seed after the other until none is left.
fn work(next: &AtomicU64, end: u64, failed: &AtomicU64) -> Figures {
    let mut figures = Figures::default();
    loop {
        let seed = next.fetch_add(1, Ordering::Relaxed);
        if seed >= end {
            return figures;
        }
        let before = figures.failed;
        let result = simulation::run(seed);
        if seed.is_multiple_of(TWICE) {
            if simulation::run(seed) == result {
                figures.run_twice += 1;
            } else {
                figures.fail(seed, "the second run differed");
            }
        }
        figures.add(seed, result);
        failed.fetch_add(figures.failed - before, Ordering::Relaxed);
    }
}

#[expect(clippy::cast_precision_loss, reason = "a rate needs no more than 52 bits")]
fn per_second(seeds: u64, seconds: f64) -> f64 {
    seeds as f64 / seconds.max(1e-9)
}

#[expect(clippy::cast_precision_loss, reason = "an estimate needs no more than 52 bits")]
fn seconds_for(seeds: u64, rate: f64) -> f64 {
    seeds as f64 / rate.max(1e-9)
}

fn show_progress(
    arguments: &Arguments,
    next: &AtomicU64,
    end: u64,
    failed: &AtomicU64,
    all_done: &AtomicBool,
) {
    let begun = Instant::now();
    while !all_done.load(Ordering::Relaxed) {
        thread::park_timeout(Duration::from_secs(1));
        let done = next.load(Ordering::Relaxed).min(end) - arguments.first;
        let seconds = begun.elapsed().as_secs_f64();
        let rate = per_second(done, seconds);
        let left = Duration::try_from_secs_f64(seconds_for(arguments.seeds - done, rate)).unwrap_or_default();
        let failed = failed.load(Ordering::Relaxed);
        print_error(&format!(
            "\r{done} of {} seeds, {failed} failed, {rate:.0} a second, {} s left   ",
            arguments.seeds,
            left.as_secs()
        ));
    }
    print_error("\n");
}
