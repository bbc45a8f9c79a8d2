//! The fixed workloads whose instructions `ci/instructions` counts under callgrind.
//!
//! A binary executes the same number of instructions on a busy machine as on an idle one. So the figures
//! can be kept in the repository and compared. `ci/instructions` runs this program, which measures nothing
//! by itself.

use std::{hint::black_box, path::Path};

use tracing_audit::{AuditLog, Verifier, read};
use tracing_subscriber::{Layer, filter::filter_fn, fmt, prelude::*};

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

fn main() -> Result<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = args.iter().map(String::as_str).collect();
    match words.as_slice() {
        ["emit", dir, events] => {
            let log = AuditLog::open(dir)?;
            tracing_subscriber::registry().with(log.layer()).init();
            let _span =
                tracing::info_span!("request", session_id = "s-1907", request_id = "r-4711").entered();
            // Not counted: the first event allocates the buffers of the thread.
            audit_event(0);
            audit_events(events.parse()?);
            log.close()?;
        }
        ["verify", dir, times] => {
            for _ in 0..times.parse()? {
                Verifier::new(dir).threads(1).run()?.ensure_intact()?;
            }
        }
        ["read", dir, times] => {
            for _ in 0..times.parse()? {
                for record in read(dir)? {
                    let record = record?;
                    // The members that a typical search looks at.
                    black_box((record.timestamp(), record.action(), record.actor(), record.outcome()));
                }
            }
        }
        [what @ ("other-events" | "other-spans"), side, dir] => {
            beside_another_layer(what, side, dir.as_ref())?;
        }
        _ => {}
    }
    Ok(())
}

/// Emits the event of docs/benchmarks.md.
fn audit_event(number: u64) {
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

#[inline(never)]
fn audit_events(events: u64) {
    (1..=events).for_each(audit_event);
}

/// Emits events and spans that are not audit events, in a stack with or without the audit layer.
fn beside_another_layer(what: &str, side: &str, dir: &Path) -> Result<()> {
    let others = fmt::layer().json().with_writer(std::io::sink);
    let log = AuditLog::open(dir)?;
    let stack = tracing_subscriber::registry().with(others);
    match side {
        "with" => stack.with(log.layer()).init(),
        // The cost of any layer that has its own filter and does nothing.
        "with-idle" => stack.with(Idle.with_filter(filter_fn(|_| true))).init(),
        _ => stack.init(),
    }
    if what == "other-events" {
        other_events(2_000);
    } else {
        other_spans(2_000);
    }
    log.close()?;
    Ok(())
}

/// A layer that does nothing.
struct Idle;

impl<S: tracing::Subscriber> Layer<S> for Idle {}

#[inline(never)]
fn other_events(events: u64) {
    let _span = tracing::info_span!("request", path = "/orders").entered();
    for number in 0..events {
        tracing::info!(number, path = "/orders/471", "a request came in");
    }
}

#[inline(never)]
fn other_spans(spans: u64) {
    for number in 0..spans {
        let _span = tracing::info_span!("query", number, table = "orders").entered();
    }
}
