//! A tokio service that flushes and closes its log on SIGTERM, without blocking the runtime.
//!
//! The example sends the signal to itself after 200 ms.
//!
//! ```sh
//! cargo run --example graceful_shutdown
//! ```

#![expect(clippy::print_stdout, reason = "an example shows what it does")]

use std::time::Duration;

use tokio::signal::unix::{SignalKind, signal};
use tracing_audit::{AuditLog, verify};
use tracing_subscriber::prelude::*;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let dir = tempfile::tempdir_in(".")?;
    let path = dir.path().join("log");
    let audit = AuditLog::open(&path)?;
    tracing_subscriber::registry().with(audit.layer()).init();
    audit.ensure_attached()?;

    let mut terminate = signal(SignalKind::terminate())?;
    let work = tokio::spawn(async {
        for number in 0_u64.. {
            tracing::info!(target: "audit", action = "job.done", actor = "worker", number);
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    });
    tokio::spawn(async {
        tokio::time::sleep(Duration::from_millis(200)).await;
        let status = std::process::Command::new("kill").arg(std::process::id().to_string()).status();
        assert!(status.is_ok_and(|status| status.success()));
    });

    terminate.recv().await;
    println!("SIGTERM: no new work, flush, close");
    work.abort();
    audit.flush_async().await?;
    let durable = audit.stats().durable;
    let head = audit.close_async().await?;
    println!("{durable} events are durable, the head is {head}");
    verify(&path)?.ensure_intact()?;
    println!("the log is intact");
    Ok(())
}
