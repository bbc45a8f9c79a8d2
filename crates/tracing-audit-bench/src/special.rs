//! Measurements of tracing-audit alone: latency under load, several processes, memory, a large log.

use std::{
    io::{BufRead as _, BufReader, Read as _},
    path::Path,
    process::{Child, Command, Stdio},
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

use tracing_audit::{AuditLog, FlushMode, OnFull, Verifier};
use tracing_subscriber::prelude::*;

use crate::{
    Result,
    contestants::{self, HASHES},
    figures::Figures,
    machine,
    measure::{Scale, at, nanos},
    workload::{self, Event},
};

/// Runs `work` inside the span, with its events going to `log`.
pub(crate) fn inside<T>(log: &AuditLog, work: impl FnOnce() -> T) -> T {
    let subscriber = tracing_subscriber::registry().with(log.layer());
    tracing::subscriber::with_default(subscriber, || {
        let _span = workload::span();
        work()
    })
}

/// Measures critical events while routine ones arrive, first at half the sustained rate and then at saturation.
pub(crate) fn mixed(dir: &Path, scale: Scale) -> Result<Figures> {
    let mut figures = Figures::default();
    // First, while the disk is idle.
    let bare = bare_syncs(&dir.join("bare"), scale.seconds(2.0))?;
    let [p50, p99] = [at(&bare, 0.5).max(1), at(&bare, 0.99)];
    figures.add("bare-p50", p50 as f64);
    figures.add("bare-p99", p99 as f64);
    figures.add(BARE_TAIL, p99 as f64 / p50 as f64);

    let log = AuditLog::open(dir.join("log"))?;
    let saturated = Instant::now();
    let mut events = 0_u32;
    inside(&log, || {
        while saturated.elapsed() < scale.seconds(1.0) {
            workload::emit(Event::routine(u64::from(events)));
            events += 1;
        }
    });
    log.flush()?;
    let each = saturated.elapsed() / events.max(1);
    // The size of an event in the queue: nearly that of its line, without the hashes.
    let payload = log.stats().written_bytes / u64::from(events.max(1)) - HASHES.len() as u64;
    let half = critical_among_routine(&log, each * 2 * BURST, scale.seconds(2.0));
    let [p99, sync] = [at(&half.costs, 0.99), at(&half.syncs, 0.5).max(1)];
    figures.add("p50", at(&half.costs, 0.5) as f64);
    figures.add("p99", p99 as f64);
    figures.add("sync", sync as f64);
    figures.add("sync-p99", at(&half.syncs, 0.99) as f64);
    figures.add("p99-in-syncs", p99 as f64 / sync as f64);
    figures.add("p99-in-p99-syncs", p99 as f64 / at(&half.syncs, 0.99).max(1) as f64);

    let full = critical_among_routine(&log, Duration::ZERO, scale.seconds(4.0));
    let [p99, sync] = [at(&full.costs, 0.99), at(&full.syncs, 0.5)];
    // The time to drain the part of the queue that is open to routine events, three quarters, when it is full.
    let drain = nanos(each) * (QUEUE_BYTES / 4 * 3 / payload.max(1));
    figures.add("drain", drain as f64);
    figures.add("saturated-events", full.costs.len() as f64);
    figures.add("saturated-p99", p99 as f64);
    figures.add("saturated-sync", sync as f64);
    figures.add("saturated-p99-in-bounds", p99 as f64 / (3 * sync + drain) as f64);
    log.close()?;
    Ok(figures)
}

/// The p99 of bare syncs, divided by their median.
pub(crate) const BARE_TAIL: &str = "bare-p99-in-syncs";

/// Measures a write and fdatasync every millisecond. Returns the sorted times.
fn bare_syncs(dir: &Path, time: Duration) -> Result<Vec<u64>> {
    std::fs::create_dir(dir)?;
    let raw = (contestants::find("raw").ok_or("no raw loop")?.set_up)(dir)?;
    let begun = Instant::now();
    let mut costs = Vec::new();
    while begun.elapsed() < time {
        let call = Instant::now();
        raw.emit(Event::routine(0));
        costs.push(nanos(call.elapsed()));
        thread::sleep(Duration::from_millis(1));
    }
    raw.finish()?;
    costs.sort_unstable();
    Ok(costs)
}

/// Routine events between two readings of the clock.
const BURST: u32 = 64;
/// The default of `Builder::queue_bytes`.
const QUEUE_BYTES: u64 = 16 << 20;

/// The sorted times of critical events, and of the syncs that covered them.
struct Among {
    costs: Vec<u64>,
    syncs: Vec<u64>,
}

/// Emits a critical event every millisecond, while another thread emits a burst of routine ones in every `gap`.
fn critical_among_routine(log: &AuditLog, gap: Duration, time: Duration) -> Among {
    let is_over = AtomicBool::new(false);
    let (mut costs, mut syncs) = (Vec::new(), Vec::new());
    thread::scope(|scope| {
        scope.spawn(|| {
            inside(log, || {
                let begun = Instant::now();
                let mut bursts = 0_u32;
                while !is_over.load(Ordering::Relaxed) {
                    (0..BURST).for_each(|number| workload::emit(Event::routine(u64::from(number))));
                    bursts += 1;
                    while begun.elapsed() < gap * bursts && !is_over.load(Ordering::Relaxed) {
                        thread::yield_now();
                    }
                }
            });
        });
        inside(log, || {
            let begun = Instant::now();
            while begun.elapsed() < time {
                let call = Instant::now();
                workload::emit(Event { is_critical: true, ..Event::routine(0) });
                costs.push(nanos(call.elapsed()));
                syncs.push(nanos(log.stats().last_sync));
                thread::sleep(Duration::from_millis(1));
            }
        });
        is_over.store(true, Ordering::Relaxed);
    });
    costs.sort_unstable();
    syncs.sort_unstable();
    Among { costs, syncs }
}

/// Starts a worker process, which runs [`work`].
fn spawn(task: &str, dir: &Path, amount: u64) -> Result<Child> {
    Ok(Command::new(std::env::current_exe()?)
        .args(["worker", task, &amount.to_string()])
        .arg(dir)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()?)
}

/// Runs the task of a worker process.
pub(crate) fn work(task: &str, dir: &Path, amount: u64) -> Result<()> {
    match task {
        // Emits durable events for `amount` milliseconds.
        "durable" => {
            let log = AuditLog::builder(dir).flush_mode(FlushMode::Immediate).open()?;
            println!("ready");
            std::io::stdin().read_exact(&mut [0])?;
            let begun = Instant::now();
            let mut events = 0_u64;
            inside(&log, || {
                while begun.elapsed() < Duration::from_millis(amount) {
                    workload::emit(Event::routine(events));
                    events += 1;
                }
            });
            println!("{}", events as f64 / begun.elapsed().as_secs_f64());
            log.close()?;
        }
        // Emits `amount` events, and then waits to be killed.
        "fill" => {
            let log = AuditLog::open(dir)?;
            inside(&log, || (0..amount).for_each(|number| workload::emit(Event::routine(number))));
            log.flush()?;
            println!("{}", log.stats().lost_total());
            std::io::stdin().read_to_end(&mut Vec::new())?;
        }
        _ => return Err(format!("no such task: {task}").into()),
    }
    Ok(())
}

fn next_line(child: &mut Child) -> Result<String> {
    let output = child.stdout.as_mut().ok_or("no output")?;
    let mut line = String::new();
    // A buffer of one byte, because anything buffered beyond the line would be lost.
    BufReader::with_capacity(1, output).read_line(&mut line)?;
    Ok(line.trim().to_owned())
}

/// Measures the events per second of four processes together, on one log and on four.
pub(crate) fn processes(dir: &Path, scale: Scale) -> Result<Figures> {
    use std::io::Write as _;
    let time = scale.seconds(1.0).as_millis() as u64;
    let mut figures = Figures::default();
    for (name, is_shared) in [("together", true), ("apart", false)] {
        let mut children = (0..4)
            .map(|number| {
                let part = if is_shared { 0 } else { number };
                spawn("durable", &dir.join(format!("{name}-{part}")), time)
            })
            .collect::<Result<Vec<_>>>()?;
        for child in &mut children {
            next_line(child)?;
        }
        for child in &mut children {
            child.stdin.as_mut().ok_or("no input")?.write_all(b"x")?;
        }
        let mut rate = 0.0;
        for child in &mut children {
            rate += next_line(child)?.parse::<f64>()?;
            child.wait()?;
        }
        figures.add(name, rate);
    }
    Ok(figures)
}

/// Measures the peak memory of the process. With `is_stalled`, every sync hangs (which the caller arranges), so the
/// queue fills up and events are dropped.
pub(crate) fn memory(dir: &Path, scale: Scale, is_stalled: bool) -> Result<Figures> {
    let on_full = if is_stalled { OnFull::DropRoutine } else { OnFull::Block };
    let log = AuditLog::builder(dir.join("log")).on_full(on_full).open()?;
    let events = scale.count(5_000_000);
    let before = machine::peak_kib()?;
    inside(&log, || (0..events).for_each(|number| workload::emit(Event::routine(number))));
    let mut figures = Figures::default();
    figures.add("before-mib", before as f64 / 1024.0);
    figures.add("peak-mib", machine::peak_kib()? as f64 / 1024.0);
    let stats = log.stats();
    figures.add("lost-share", stats.lost_total() as f64 / events as f64);
    if is_stalled {
        // Without `close`, which would wait for the hanging disk.
        print!("{figures}");
        std::process::exit(0);
    }
    log.close()?;
    Ok(figures)
}

/// Measures opening and verifying a log of about 10 GB whose writer was killed.
pub(crate) fn large(dir: &Path, scale: Scale) -> Result<Figures> {
    let log = dir.join("log");
    let events = scale.count(22_000_000);
    let probe = AuditLog::open(dir.join("probe"))?;
    let free = probe.stats().free_bytes;
    probe.close()?;
    let needed = events * 500;
    if free < needed * 3 / 2 {
        return Err(format!("{free} bytes are free, a log of {needed} bytes needs half as much again").into());
    }
    let mut filler = spawn("fill", &log, events)?;
    let lost = next_line(&mut filler);
    filler.kill()?;
    filler.wait()?;
    if lost?.parse::<u64>()? > 0 {
        return Err("events were lost".into());
    }
    let bytes = machine::bytes_in(&log)?;
    let mut figures = Figures::default();
    figures.add("bytes", bytes as f64);
    let begun = Instant::now();
    let opened = AuditLog::open(&log)?;
    figures.add("open-seconds", begun.elapsed().as_secs_f64());
    opened.close()?;
    let begun = Instant::now();
    let report = Verifier::new(&log).run()?;
    figures.add("verify", bytes as f64 / begun.elapsed().as_secs_f64());
    figures.add("records", report.records() as f64);
    report.ensure_intact()?;
    Ok(figures)
}
