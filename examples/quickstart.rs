//! The whole life of a log: open, attach, emit, confirm, close, verify.
//!
//! Writes to `audit-log` in the current directory. Each run continues the chain.
//!
//! ```sh
//! cargo run --example quickstart
//! ```

#![expect(clippy::print_stdout, reason = "an example shows what it does")]

use tracing_audit::{AuditLog, verify};
use tracing_subscriber::{filter::LevelFilter, fmt, prelude::*};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let audit = AuditLog::open("audit-log")?;
    tracing_subscriber::registry()
        .with(fmt::layer().with_filter(LevelFilter::WARN)) // your logs keep their own filter
        .with(audit.layer()) // sees audit events only
        .init();
    audit.ensure_attached()?; // no filter hides audit events

    // Routine: queued, written within 10 ms, synced with the next batch.
    tracing::info!(target: "audit", action = "auth.success", actor = "mia");
    // Critical: on disk when this returns.
    tracing::warn!(target: "audit", action = "auth.failure", actor = "mallory");
    // Confirmed: on disk, or an error says that it is not.
    let receipt = audit.confirm(|| {
        tracing::info!(target: "audit", action = "key.export", actor = "mia", resource = "key/7", "exported a key");
    })?;
    println!("receipt   {receipt}");

    let head = audit.close()?;
    println!("head      {head}   (keep this somewhere else)\n");

    let report = verify("audit-log")?;
    println!("{report}");
    report.ensure_intact()?;
    Ok(())
}
