//! The cost of opening a log again and again: many short processes, many chains, and large segments.

use std::{
    path::Path,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use tracing_audit::{AuditLog, Rotation};
use tracing_subscriber::prelude::*;

use crate::Result;

/// The result of one short process: how long `open` and `close` took, and whether both succeeded.
struct Run {
    open: Duration,
    close: Duration,
    is_ok: bool,
}

/// Runs one short process: opens the log, records two events, and closes it.
pub(crate) fn short_run(dir: &str, is_exclusive: bool) -> Result<String> {
    let mut builder = AuditLog::builder(dir).service("short");
    if is_exclusive {
        builder = builder.exclusive(true).wait_for_chain(Duration::from_secs(60));
    }
    let begun = Instant::now();
    let audit = builder.open()?;
    let open = begun.elapsed();
    tracing::subscriber::with_default(tracing_subscriber::registry().with(audit.layer()), || {
        tracing::info!(target: "audit", action = "job.begin", actor = "cron");
        tracing::info!(target: "audit", action = "job.end", actor = "cron");
    });
    let begun = Instant::now();
    audit.close()?;
    Ok(format!("{} {}", open.as_micros(), begun.elapsed().as_micros()))
}

fn start(dir: &Path, kind: &str) -> Result<Child> {
    let mut command = Command::new(std::env::current_exe()?);
    let command = command.arg("short").arg(dir).arg(kind).stdout(Stdio::piped()).stderr(Stdio::null());
    Ok(command.spawn()?)
}

fn end(child: Child) -> Result<Run> {
    let output = child.wait_with_output()?;
    let text = String::from_utf8(output.stdout)?;
    let mut micros = text.split_whitespace().map(|word| word.parse().map(Duration::from_micros));
    let mut next = || micros.next().and_then(std::result::Result::ok).unwrap_or_default();
    Ok(Run { open: next(), close: next(), is_ok: output.status.success() })
}

/// Runs `count` processes, at most `at_once` at a time.
fn runs(dir: &Path, kind: &str, count: usize, at_once: usize) -> Result<(Duration, Vec<Run>)> {
    let begun = Instant::now();
    let mut done = Vec::new();
    std::thread::scope(|scope| {
        let lanes: Vec<_> = (0..at_once)
            .map(|lane| {
                let mine = (lane..count).step_by(at_once);
                scope.spawn(move || mine.map(|_| end(start(dir, kind)?)).collect::<Result<Vec<_>>>())
            })
            .collect();
        for lane in lanes {
            done.extend(lane.join().map_err(|_| "a lane panicked")??);
        }
        Ok::<(), Box<dyn std::error::Error + Send + Sync>>(())
    })?;
    Ok((begun.elapsed(), done))
}

fn chains(dir: &Path) -> Result<usize> {
    let names = std::fs::read_dir(dir)?.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    let chains: std::collections::BTreeSet<String> = names
        .filter(|name| name.starts_with("audit-"))
        .filter_map(|name| name.get(..9).map(str::to_owned))
        .collect();
    Ok(chains.len())
}

fn line(what: &str, dir: &Path, took: Duration, runs: &[Run]) -> Result<()> {
    let worst = |of: fn(&Run) -> Duration| runs.iter().map(of).max().unwrap_or_default().as_millis();
    let failed = runs.iter().filter(|run| !run.is_ok).count();
    println!(
        "{what:<44} {:>8.2} s {:>4} chains {:>6} ms open {:>6} ms close {failed:>4} failed",
        took.as_secs_f64(),
        chains(dir)?,
        worst(|run| run.open),
        worst(|run| run.close),
    );
    Ok(())
}

/// Measures everything, in new directories below `root`.
pub(crate) fn measure(root: &Path) -> Result<()> {
    println!("{:<44} {:>10} {:>11} {:>14} {:>15}", "", "all", "chains", "longest", "longest");
    let dir = root.join("bursts");
    for burst in 1..=6 {
        let (took, runs) = runs(&dir, "shared", 50, 50)?;
        line(&format!("50 at once, burst {burst}"), &dir, took, &runs)?;
    }
    let (took, alone) = runs(&dir, "shared", 1, 1)?;
    line("one run after them", &dir, took, &alone)?;
    for (kind, what) in [("shared", "300 runs, 20 at a time"), ("exclusive", "the same with `exclusive`")] {
        let dir = root.join(kind);
        let (took, runs) = runs(&dir, kind, 300, 20)?;
        line(what, &dir, took, &runs)?;
    }
    let dir = root.join("many");
    for burst in 1..=2 {
        let (took, runs) = runs(&dir, "shared", 200, 200)?;
        line(&format!("200 at once, burst {burst}"), &dir, took, &runs)?;
    }
    with_chains(root, 50)?;
    opening(root)?;
    verification(root)
}

/// Creates chains by holding that many logs open at once, and closes them.
fn make_chains(dir: &Path, chains: usize, events: usize) -> Result<()> {
    let builder = || AuditLog::builder(dir).service("held").wait_for_chain(Duration::ZERO);
    let mut logs = Vec::new();
    for _ in 0..chains {
        logs.push(builder().rotation(Rotation::never()).open()?);
    }
    for log in &logs {
        tracing::subscriber::with_default(tracing_subscriber::registry().with(log.layer()), || {
            for number in 0..events {
                tracing::info!(target: "audit", action = "order.placed", actor = "trader", number);
            }
        });
    }
    for log in logs {
        log.close()?;
    }
    Ok(())
}

fn with_chains(root: &Path, chains: usize) -> Result<()> {
    let dir = root.join("chains");
    make_chains(&dir, chains, 2)?;
    for _ in 0..3 {
        let (took, alone) = runs(&dir, "shared", 1, 1)?;
        line(&format!("one run beside {chains} chains"), &dir, took, &alone)?;
    }
    Ok(())
}

/// Measures opening with a last segment of about 180 MB, after `close` and after a kill.
fn opening(root: &Path) -> Result<()> {
    let dir = root.join("large");
    make_chains(&dir, 1, 500_000)?;
    let bytes: u64 =
        std::fs::read_dir(&dir)?.filter_map(|entry| Some(entry.ok()?.metadata().ok()?.len())).sum();
    let (took, alone) = runs(&dir, "shared", 1, 1)?;
    line(&format!("opening {} MB after `close`", bytes / 1_000_000), &dir, took, &alone)?;
    let mut child = start(&dir, "killed")?;
    child.wait()?;
    let (took, alone) = runs(&dir, "shared", 1, 1)?;
    line("and after a kill", &dir, took, &alone)?;
    Ok(())
}

/// Writes for 3 s and then aborts, like a process that is killed.
pub(crate) fn killed_run(dir: &str) -> Result<()> {
    let audit = AuditLog::builder(dir).service("killed").rotation(Rotation::never()).open()?;
    tracing::subscriber::with_default(tracing_subscriber::registry().with(audit.layer()), || {
        let begun = Instant::now();
        while begun.elapsed() < Duration::from_secs(3) {
            tracing::info!(target: "audit", action = "order.placed", actor = "trader");
        }
    });
    std::process::abort();
}

fn verification(root: &Path) -> Result<()> {
    for (chains, events) in [(1, 512_000), (256, 2_000)] {
        let dir = root.join(format!("verify-{chains}"));
        make_chains(&dir, chains, events)?;
        let bytes: u64 =
            std::fs::read_dir(&dir)?.filter_map(|entry| Some(entry.ok()?.metadata().ok()?.len())).sum();
        let mut best = Duration::MAX;
        for _ in 0..3 {
            let begun = Instant::now();
            let report = tracing_audit::verify(&dir)?;
            best = best.min(begun.elapsed());
            report.ensure_intact()?;
        }
        println!(
            "{:<44} {:>8.2} s {:>6.0} MB {:>6.0} MB/s",
            format!("verifying {chains} chains"),
            best.as_secs_f64(),
            bytes as f64 / 1e6,
            bytes as f64 / 1e6 / best.as_secs_f64()
        );
    }
    Ok(())
}
