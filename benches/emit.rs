//! What an event costs: `cargo bench`. A few seconds, one table; compare figures of one run only.

#![expect(
    clippy::print_stdout,
    clippy::indexing_slicing,
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a table of figures"
)]

use std::{
    hint::black_box,
    time::{Duration, Instant},
};

use tracing_audit::{AuditLog, FlushMode, verify};
use tracing_subscriber::prelude::*;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR"))?;
    let path = |name: &str| dir.path().join(name);

    println!("{:<44} {:>12} {:>12}", "routine event, on the caller", "p50", "p99.9");
    for threads in [1, 2, 8] {
        let log = AuditLog::open(path(&format!("routine-{threads}")))?;
        let mut costs = on_threads(&log, threads, 20_000 / threads, emit_routine);
        costs.sort_unstable();
        let at = |share: f64| costs[((costs.len() - 1) as f64 * share) as usize];
        println!("  {threads} threads, a burst{:<25} {:>9} ns {:>9} ns", "", at(0.5), at(0.999));
        log.close()?;
    }

    println!("\n{:<44} {:>12}", "sustained, no loss, written and synced", "events/s");
    for threads in [1, 8] {
        let log = AuditLog::open(path(&format!("sustained-{threads}")))?;
        let events = 1_000_000;
        let begun = Instant::now();
        on_threads(&log, threads, events / threads, emit_routine);
        log.flush()?;
        println!("  {threads} threads {:>46.0}", events as f64 / begun.elapsed().as_secs_f64());
        log.close()?;
    }

    println!("\n{:<44} {:>12} {:>12}", "durable before the macro returns", "events/s", "syncs");
    let raw = raw_loop(&path("raw"), Duration::from_secs(1))?;
    println!("  write + fdatasync, without a log {raw:>23.0}");
    for threads in [1, 8, 64] {
        let log =
            AuditLog::builder(path(&format!("durable-{threads}"))).flush_mode(FlushMode::Immediate).open()?;
        let each = 500;
        let begun = Instant::now();
        on_threads(&log, threads, each, emit_routine);
        let rate = (each * threads) as f64 / begun.elapsed().as_secs_f64();
        println!("  {threads:>2} threads {rate:>45.0} {:>12}", log.stats().syncs);
        log.close()?;
    }

    let log = path("sustained-1");
    let bytes: u64 =
        std::fs::read_dir(&log)?.filter_map(|entry| Some(entry.ok()?.metadata().ok()?.len())).sum();
    let begun = Instant::now();
    verify(&log)?.ensure_intact()?;
    let seconds = begun.elapsed().as_secs_f64();
    println!("\nverify, all cores: {:.2} GB/s", bytes as f64 / seconds / 1e9);
    Ok(())
}

/// Runs `emit` on threads inside a span; returns what each call cost in nanoseconds.
fn on_threads(log: &AuditLog, threads: usize, each: usize, emit: fn(usize)) -> Vec<u64> {
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..threads)
            .map(|_| {
                scope.spawn(|| {
                    let subscriber = tracing_subscriber::registry().with(log.layer());
                    tracing::subscriber::with_default(subscriber, || {
                        let _span =
                            tracing::info_span!("request", session_id = "s-1907", request_id = "r-4711")
                                .entered();
                        let mut costs = Vec::with_capacity(each);
                        for number in 0..each {
                            let begun = Instant::now();
                            emit(black_box(number));
                            costs.push(u64::try_from(begun.elapsed().as_nanos()).unwrap_or(u64::MAX));
                        }
                        costs
                    })
                })
            })
            .collect();
        workers.into_iter().flat_map(|worker| worker.join().unwrap_or_default()).collect()
    })
}

fn emit_routine(number: usize) {
    tracing::info!(
        target: "audit",
        action = "order.placed",
        actor = "mia.tanaka",
        resource = "order/2026-11-21/000471",
        outcome = "accepted",
        number,
        "an order was placed"
    );
}

/// What the disk can do: one line and one sync after the other.
fn raw_loop(path: &std::path::Path, duration: Duration) -> std::io::Result<f64> {
    use std::io::Write as _;
    let mut file = std::fs::OpenOptions::new().create_new(true).append(true).open(path)?;
    let line = [b'x'; 480];
    let begun = Instant::now();
    let mut writes = 0_u32;
    while begun.elapsed() < duration {
        file.write_all(&line)?;
        file.sync_data()?;
        writes += 1;
    }
    Ok(f64::from(writes) / begun.elapsed().as_secs_f64())
}
