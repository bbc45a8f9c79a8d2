//! Writes a log of many records for benchmarks of the command: `many_records DIR RECORDS`. See docs/command.md.

#![allow(clippy::print_stdout, reason = "it prints the head")]

use std::process::ExitCode;

use tracing_audit::{AuditLog, FlushMode, OnFull, Rotation};
use tracing_subscriber::prelude::*;

fn main() -> Result<ExitCode, Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let (Some(dir), Some(records)) = (arguments.next(), arguments.next()) else {
        return Ok(ExitCode::from(2));
    };
    let records: u64 = records.parse()?;
    let log = AuditLog::builder(dir)
        .flush_mode(FlushMode::default())
        .on_full(OnFull::Block)
        .rotation(Rotation::never().max_bytes(256 << 20))
        .open()?;
    tracing::subscriber::with_default(tracing_subscriber::registry().with(log.layer()), || {
        for n in 0..records {
            // Neighbouring records differ: 10,000 actors, seven actions, one outcome in 20 denied.
            let random = n.wrapping_mul(0x9E37_79B9_7F4A_7C15).rotate_left(29);
            let action = [
                "auth.login",
                "auth.logout",
                "order.create",
                "order.cancel",
                "item.view",
                "item.edit",
                "key.export",
            ]
            .get(usize::try_from(random % 7).unwrap_or(0))
            .copied()
            .unwrap_or_default();
            let outcome = if (random >> 8).is_multiple_of(20) { "denied" } else { "success" };
            tracing::info!(
                target: "audit",
                action,
                actor = %format_args!("user-{}", (random >> 16) % 10_000),
                resource = %format_args!("item/{}", (random >> 32) % 100_000),
                outcome,
                source = "203.0.113.9",
                request_id = %format_args!("{random:016x}"),
                "handled a request",
            );
        }
    });
    println!("{}", log.close()?);
    Ok(ExitCode::SUCCESS)
}
