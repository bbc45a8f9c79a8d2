//! Several processes write one log at the same time. Each has a chain of its own, and none waits for another.
//!
//! ```sh
//! cargo run --example many_processes
//! ```

#![expect(clippy::print_stdout, reason = "an example shows what it does")]

use std::process::Command;

use tracing_audit::{AuditLog, verify};
use tracing_subscriber::prelude::*;

const PROCESSES: u32 = 4;
const EVENTS: u32 = 1_000;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    if let Some(dir) = std::env::args().nth(1) {
        return child(&dir);
    }
    let dir = tempfile::tempdir_in(".")?;
    let path = dir.path().join("log");
    // The parent opens first, so the directory exists and chain 000 is taken when the children start.
    let audit = AuditLog::builder(&path).service("parent").open()?;
    let children: Result<Vec<_>, _> =
        (0..PROCESSES).map(|_| Command::new(std::env::current_exe()?).arg(&path).spawn()).collect();
    for mut child in children? {
        assert!(child.wait()?.success());
    }
    audit.close()?;
    let report = verify(&path)?;
    println!("\n{report}");
    report.ensure_intact()?;
    assert_eq!(report.events(), u64::from(PROCESSES * EVENTS));
    Ok(())
}

fn child(dir: &str) -> Result<(), Box<dyn std::error::Error>> {
    let audit = AuditLog::builder(dir).service("child").open()?;
    tracing_subscriber::registry().with(audit.layer()).init();
    for number in 0..EVENTS {
        tracing::info!(target: "audit", action = "order.placed", actor = "trader", number);
    }
    println!("process {} wrote chain {:03}: {}", std::process::id(), audit.head().chain(), audit.close()?);
    Ok(())
}
