//! The cost of the three flush modes on the disk this runs on: time per event, and number of syncs.
//!
//! ```sh
//! cargo run --release --example flush_modes
//! ```

#![expect(clippy::print_stdout, reason = "an example shows what it does")]

use std::time::{Duration, Instant};

use tracing_audit::{AuditLog, FlushMode};
use tracing_subscriber::prelude::*;

const EVENTS: u32 = 500;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let dir = tempfile::tempdir_in(".")?;
    let modes = [
        ("Immediate", FlushMode::Immediate),
        ("Hybrid", FlushMode::default()),
        ("Batched", FlushMode::Batched { size: 100, interval: Duration::from_secs(1) }),
    ];
    println!("{EVENTS} events, one in ten of them critical\n");
    println!("{:<10} {:>12} {:>7} {:>22}", "mode", "per event", "syncs", "durable at once");
    for (name, mode) in modes {
        let log = AuditLog::builder(dir.path().join(name)).flush_mode(mode).open()?;
        let subscriber = tracing_subscriber::registry().with(log.layer());
        let begun = Instant::now();
        tracing::subscriber::with_default(subscriber, || {
            for number in 0..EVENTS {
                if number % 10 == 0 {
                    tracing::warn!(target: "audit", action = "auth.failure", actor = "mallory", number);
                } else {
                    tracing::info!(target: "audit", action = "auth.success", actor = "mia", number);
                }
            }
        });
        let each = begun.elapsed() / EVENTS;
        let stats = log.stats();
        println!("{name:<10} {each:>12.1?} {:>7} {:>22}", stats.syncs, stats.durable);
        log.flush()?;
        assert_eq!(log.stats().durable, u64::from(EVENTS));
        log.close()?;
    }
    println!("\nImmediate waits for every event, Hybrid for critical ones, Batched for none.");
    Ok(())
}
