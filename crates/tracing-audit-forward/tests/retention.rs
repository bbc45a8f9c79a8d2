//! The log reads what a forwarder notes: a segment goes when the store has it, and not before.

#![allow(clippy::unwrap_used, reason = "a test may fail")]

use std::{fs, path::Path, sync::Arc, time::Duration};

use tracing_audit::{AuditLog, NoticeKind, Retention};
use tracing_audit_forward::{Entry, Forwarder, Gap, Position, Sink, SinkError};
use tracing_subscriber::prelude::*;

/// A store that takes everything, and cannot be asked.
struct Store;

impl Sink for Store {
    fn positions(&mut self, _: &[Arc<str>]) -> Result<Option<Vec<Position>>, SinkError> {
        Ok(None)
    }

    fn offer(&mut self, _: &[Entry]) -> Result<(), SinkError> {
        Ok(())
    }

    fn gap(&mut self, _: &Gap) -> Result<(), SinkError> {
        Ok(())
    }
}

fn segments(path: &Path) -> usize {
    let names = fs::read_dir(path).unwrap().map(|entry| entry.unwrap().file_name());
    names.filter(|name| name.to_string_lossy().starts_with("audit-")).count()
}

#[test]
fn a_segment_goes_when_the_store_has_it() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("log");
    let retention = Retention::keep_all().max_segments(1).require_forwarded(["store"]);
    let log = AuditLog::builder(&path).stderr(false).retention(retention).open().unwrap();
    let subscriber = tracing_subscriber::registry().with(log.layer());
    tracing::subscriber::with_default(subscriber, || {
        for _ in 0..4 {
            log.confirm(|| tracing::info!(target: "audit", action = "a", actor = "b")).unwrap();
            log.rotate().unwrap();
        }
    });
    log.flush().unwrap();
    assert_eq!((segments(&path), log.stats().noticed(NoticeKind::RetentionWaits)), (5, 1));
    let patience = Duration::from_secs(20);
    let forwarder = Forwarder::builder("store").start(&log, Store).unwrap();
    forwarder.drain(patience).unwrap();
    forwarder.close(patience).unwrap();
    log.rotate().unwrap();
    log.close().unwrap();
    assert!(segments(&path) <= 2, "{}", segments(&path));
}
