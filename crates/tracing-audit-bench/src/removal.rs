//! How long critical events wait while retention removes thousands of segments, compared with no removal.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant},
};

use tempfile::TempDir;
use tracing_audit::{AuditLog, FlushMode, NoticeKind, Retention, Rotation};

use crate::{
    Result,
    measure::{at, nanos},
    special::inside,
    workload::{self, Event},
};

const SEGMENTS: usize = 3158;
const NEWEST: u32 = 100;
const ROUNDS: usize = 7;
/// Number of events in a run without removal.
const EVENTS: usize = 500;

/// Measures pairs of runs in new directories below `root`, one with removal and one without. The order alternates from
/// round to round.
pub(crate) fn measure(root: &Path) -> Result<()> {
    fs::create_dir_all(root)?;
    let (_quick, made) = segments()?;
    let mut all = [Vec::new(), Vec::new()];
    println!("{:<24} {:>7} {:>9} {:>9} {:>9} {:>9}", "ms", "events", "p50", "p99", "max", "removal");
    for round in 0..ROUNDS {
        for removes in if round % 2 == 0 { [true, false] } else { [false, true] } {
            let (costs, took) = run(root, &made, removes)?;
            line(&format!("round {round}, {}", name(removes)), &costs, took);
            if let Some(all) = all.get_mut(usize::from(removes)) {
                all.extend(costs);
            }
        }
    }
    for (removes, mut costs) in [false, true].into_iter().zip(all) {
        costs.sort_unstable();
        line(&format!("all, {}", name(removes)), &costs, None);
    }
    Ok(())
}

fn name(removes: bool) -> &'static str {
    if removes { "with removal" } else { "without" }
}

fn line(what: &str, costs: &[u64], took: Option<Duration>) {
    let ms = |nanos: u64| nanos as f64 / 1e6;
    let took = took.map_or_else(String::new, |took| format!("{:.0}", took.as_secs_f64() * 1e3));
    let [p50, p99] = [0.5, 0.99].map(|share| ms(at(costs, share)));
    let longest = ms(costs.last().copied().unwrap_or_default());
    println!("{what:<24} {:>7} {p50:>9.2} {p99:>9.2} {longest:>9.2} {took:>9}", costs.len());
}

/// Creates a closed log of [`SEGMENTS`] segments of 64 KiB, in memory if possible, where syncs cost nothing.
fn segments() -> Result<(TempDir, PathBuf)> {
    let quick = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir())?;
    let made = quick.path().join("log");
    let log = AuditLog::builder(&made)
        .rotation(Rotation::never().max_bytes(64 << 10))
        .flush_mode(FlushMode::Batched { size: 100_000, interval: Duration::from_secs(60) })
        .open()?;
    let text = "x".repeat(15_000);
    inside(&log, || {
        for number in 1..SEGMENTS {
            let (a, b, c) = (&text, &text, &text);
            tracing::info!(target: "audit", action = "a", actor = "b", number, a, b, c);
        }
    });
    log.close()?;
    Ok((quick, made))
}

/// Emits a critical event every millisecond. Returns their sorted times, and how long removal took. With removal, events
/// are emitted only until it is done.
fn run(root: &Path, made: &Path, removes: bool) -> Result<(Vec<u64>, Option<Duration>)> {
    let dir = tempfile::tempdir_in(root)?;
    let path = dir.path().join("log");
    // Opening creates the directory with the required permissions.
    AuditLog::open(&path)?.close()?;
    fs::remove_dir_all(path.join("control"))?;
    for entry in fs::read_dir(made)? {
        let entry = entry?;
        if entry.path().is_file() {
            fs::copy(entry.path(), path.join(entry.file_name()))?;
        }
    }
    // The copies are written back before the measurement starts.
    Command::new("sync").arg("--file-system").arg(root).status()?;
    let keep = if removes { Retention::keep_all().max_segments(NEWEST) } else { Retention::keep_all() };
    let log = AuditLog::builder(&path).retention(keep).wait_bound(Duration::from_secs(1)).open()?;
    let begun = Instant::now();
    let mut costs = Vec::new();
    let mut took = None;
    inside(&log, || {
        while if removes { took.is_none() } else { costs.len() < EVENTS } {
            let call = Instant::now();
            workload::emit(Event { is_critical: true, ..Event::routine(0) });
            costs.push(nanos(call.elapsed()));
            if log.stats().noticed(NoticeKind::Pruned) > 0 {
                took = Some(begun.elapsed());
            }
            std::thread::sleep(Duration::from_millis(1));
        }
    });
    let waits = log.stats().unconfirmed_waits;
    log.close()?;
    if waits > 0 {
        println!("{waits} waits were not confirmed");
    }
    costs.sort_unstable();
    Ok((costs, took))
}
