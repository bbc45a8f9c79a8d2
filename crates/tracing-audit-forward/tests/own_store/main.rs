//! The sink in the README: after a crash, no partial record counts.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::disallowed_methods,
    reason = "a test may fail, and a store renames files"
)]
#![cfg(unix)]

#[rustfmt::skip]
#[expect(unreachable_pub, reason = "as README shows it")]
mod files;

use std::{fs, os::unix::fs::symlink, path::Path, sync::Arc};

use tracing_audit::{AuditLog, Reader};
use tracing_audit_forward::{Entry, Sink, SinkError};

use files::Files;

#[test]
fn the_readme_shows_this_store() {
    let shown = format!("```rust\n{}```\n", include_str!("files.rs"));
    assert!(include_str!("../../README.md").contains(&shown));
}

fn entries(log: &Path) -> Vec<Entry> {
    AuditLog::builder(log).stderr(false).open().unwrap().close().unwrap();
    let items = Reader::new(log).items().unwrap();
    let id: Arc<str> = items.chains().remove(0).1.into();
    items.map(|item| Entry::new(Arc::clone(&id), item.unwrap().into_record().unwrap())).collect()
}

#[test]
fn an_interrupted_write_is_offered_again_and_replaced() {
    let place = tempfile::tempdir().unwrap();
    let entries = entries(&place.path().join("log"));
    let dir = place.path().join("store");
    fs::create_dir(&dir).unwrap();
    let mut store = Files { dir: dir.clone() };
    let ids = [Arc::clone(&entries[0].chain_id)];
    fs::write(dir.join("new"), "{\"seq\":1,\"ts").unwrap();
    assert_eq!(store.positions(&ids).unwrap(), Some(Vec::new()));
    // Writing to the final name itself would follow the link.
    let name = |entry: &Entry| {
        dir.join(format!("{}-{}-{}", entry.chain_id, entry.record.seq(), entry.record.hash()))
    };
    symlink(place.path().join("elsewhere"), name(&entries[0])).unwrap();
    store.offer(&entries).unwrap();
    assert!(!place.path().join("elsewhere").exists());
    for entry in &entries {
        assert_eq!(fs::read_to_string(name(entry)).unwrap(), entry.record.as_json());
    }
    let last = entries.last().unwrap().record.head();
    assert_eq!(store.positions(&ids).unwrap().unwrap()[0].seq, last.seq());
}

#[test]
fn a_missing_directory_is_not_an_empty_store() {
    let place = tempfile::tempdir().unwrap();
    let mut store = Files { dir: place.path().join("missing") };
    assert!(matches!(store.positions(&[]), Err(SinkError::Unavailable { .. })));
}
