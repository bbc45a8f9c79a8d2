//! Fail closed: an action that cannot be recorded is refused.
//!
//! The handler exports a key only if the audit event is durable first. Half way through, the log is closed, which stands in
//! for a disk that rejects writes.
//!
//! ```sh
//! cargo run --example fail_closed
//! ```

#![expect(clippy::print_stdout, reason = "an example shows what it does")]

use tracing_audit::{AuditLog, Error};
use tracing_subscriber::prelude::*;

struct Response {
    status: u16,
    body: String,
}

fn export_key(audit: &AuditLog, actor: &str, key: u32) -> Response {
    // First the evidence of the attempt, then the action, then its outcome. On an error the record may become durable
    // all the same, so it must not say that something was done.
    let resource = format!("key/{key}");
    let receipt = audit.confirm(|| {
        tracing::info!(target: "audit", action = "key.export", actor, resource, outcome = "attempted");
    });
    match receipt {
        Ok(receipt) => {
            tracing::info!(target: "audit", action = "key.export", actor, resource, outcome = "done");
            Response { status: 200, body: format!("key {key}, recorded as {receipt}") }
        }
        Err(error) => Response { status: 503, body: format!("refused: {error}") },
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let dir = tempfile::tempdir_in(".")?;
    let audit = AuditLog::open(dir.path().join("log"))?;
    tracing_subscriber::registry().with(audit.layer()).init();
    audit.ensure_attached()?;

    let response = export_key(&audit, "mia", 7);
    println!("{} {}", response.status, response.body);
    assert_eq!(response.status, 200);

    audit.close()?;
    println!("health is now: {}", audit.health());

    let response = export_key(&audit, "mia", 8);
    println!("{} {}", response.status, response.body);
    assert_eq!(response.status, 503);

    // A `confirm` without an audit event is an error too: it has nothing to prove. The event of key 8 is counted as lost.
    assert!(matches!(audit.confirm(|| {}), Err(Error::NothingToConfirm { .. })));
    println!("events that were not recorded: {}", audit.stats().lost_total());
    Ok(())
}
