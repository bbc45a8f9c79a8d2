//! The NATS store against real servers.

#![cfg(target_os = "linux")]
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stderr,
    reason = "a test that meets what it did not expect has failed"
)]

mod configuration;
mod delivery;
mod failures;
mod feed;
mod permissions;
mod proxy;
#[path = "../support/records.rs"]
mod records;
#[path = "../support/nats.rs"]
mod server;
mod verification;

use std::sync::Arc;

use serde_json::json;
use tracing_audit_forward::{Entry, Nats, Position, SinkError};

use crate::server::{Admin, Server};

/// Returns a store in the stream `AUDIT`, which is created here: with atomic batches, or without.
fn store(server: &Server, is_atomic: bool) -> Nats {
    server.admin().make("AUDIT", &json!({ "allow_atomic": is_atomic, "duplicate_window": 100_000_000 }));
    Nats::new(&server.url("AUDIT")).unwrap()
}

fn position(entry: &Entry) -> Position {
    let Entry { chain_id, record, .. } = entry;
    Position { chain_id: Arc::clone(chain_id), seq: record.seq(), hash: record.hash() }
}

fn subject(entry: &Entry) -> String {
    format!("audit.web.n1.{}", entry.chain_id)
}

/// Checks that the stream has these records, byte for byte, each once and under its subject, and nothing
/// else; and that verification agrees.
#[track_caller]
fn check_stored(admin: &Admin, store: &mut Nats, expected: &[Entry]) {
    let mut stored = admin.all("AUDIT");
    let mut expected: Vec<&Entry> = expected.iter().collect();
    expected.sort_by_key(|entry| (Arc::clone(&entry.chain_id), entry.record.seq()));
    // Stable: the messages of a chain keep their order.
    stored.sort_by(|one, other| one.0.cmp(&other.0));
    let lines = expected.iter().map(|entry| (subject(entry), entry.record.as_json().as_bytes().to_vec()));
    let lines: Vec<_> = lines.collect();
    assert_eq!(stored.len(), lines.len());
    assert!(stored == lines);
    let report = store.verify().unwrap();
    assert!(report.is_intact(), "{report}");
    assert_eq!(report.records(), expected.len() as u64);
}

#[track_caller]
fn check_unavailable<T: std::fmt::Debug>(outcome: &Result<T, SinkError>, text: &str) {
    let Err(error @ SinkError::Unavailable { reason, .. }) = outcome else { panic!("{outcome:?}") };
    assert!(reason.contains(text) && !error.to_string().contains(server::PASSWORD), "{reason}");
}

#[track_caller]
fn check_setup<T: std::fmt::Debug>(outcome: &Result<T, SinkError>, text: &str) {
    let Err(error @ SinkError::Setup { reason }) = outcome else { panic!("{outcome:?}") };
    assert!(reason.contains(text) && !error.to_string().contains(server::PASSWORD), "{reason}");
}
