//! Retention of the log respects a forwarder's position: a segment is removed once the store has it, and not
//! before.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test may fail")]

use std::{
    fs,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use tracing_audit::{AuditLog, NoticeKind, Retention};
use tracing_audit_forward::{Entry, Forwarder, Gap, Position, Sink, SinkError};
use tracing_subscriber::prelude::*;

/// A store that accepts everything, cannot be asked, and counts what it has.
#[derive(Default)]
struct Store {
    records: Arc<AtomicUsize>,
}

impl Sink for Store {
    fn positions(&mut self, _: &[Arc<str>]) -> Result<Option<Vec<Position>>, SinkError> {
        Ok(None)
    }

    fn offer(&mut self, batch: &[Entry]) -> Result<(), SinkError> {
        self.records.fetch_add(batch.len(), Ordering::Relaxed);
        Ok(())
    }

    fn gap(&mut self, gap: &Gap) -> Result<(), SinkError> {
        panic!("{gap:?}");
    }
}

fn segments(path: &Path) -> usize {
    let names = fs::read_dir(path).unwrap().map(|entry| entry.unwrap().file_name());
    names.filter(|name| name.to_string_lossy().starts_with("audit-")).count()
}

#[test]
fn a_segment_is_removed_once_the_store_has_it() {
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
    let forwarder = Forwarder::builder("store").start(&log, Store::default()).unwrap();
    forwarder.drain(patience).unwrap();
    forwarder.close(patience).unwrap();
    log.rotate().unwrap();
    log.close().unwrap();
    assert!(segments(&path) <= 2, "{}", segments(&path));
}

/// A removal was stopped after its `prune` record, or undone by a power cut, and then the store turned out to
/// have lost records. The log lists these segments as removed, and a forwarder that starts again still offers
/// them.
#[test]
fn a_segment_listed_as_removed_stays_until_a_store_that_lost_it_has_it_again() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("log");
    let patience = Duration::from_secs(20);
    let open = |retention| AuditLog::builder(&path).stderr(false).retention(retention).open().unwrap();
    let forward = || {
        let records = Arc::new(AtomicUsize::new(0));
        let store = Store { records: Arc::clone(&records) };
        let forwarder = Forwarder::builder("store").start_beside(&path, store).unwrap();
        forwarder.drain(patience).unwrap();
        forwarder.close(patience).unwrap();
        records.load(Ordering::Relaxed)
    };
    let position = path.join("control/forward-store");
    let log = open(Retention::keep_all());
    let (mut before, mut early) = (0, Vec::new());
    for turn in 0..4 {
        if turn == 2 {
            before = forward();
            early = fs::read(&position).unwrap();
        }
        tracing::subscriber::with_default(tracing_subscriber::registry().with(log.layer()), || {
            log.confirm(|| tracing::info!(target: "audit", action = "a", actor = "b")).unwrap();
        });
        log.rotate().unwrap();
    }
    let records = usize::try_from(log.close().unwrap().seq()).unwrap();
    assert_eq!((before + forward(), segments(&path)), (records, 5));
    let kept: Vec<_> = (1..5).map(|segment| path.join(format!("audit-000-{segment:08}.jsonl"))).collect();
    let bytes: Vec<Vec<u8>> = kept.iter().map(|file| fs::read(file).unwrap()).collect();
    let retention = || Retention::keep_all().max_segments(1).require_forwarded(["store"]);
    open(retention()).close().unwrap();
    assert_eq!(segments(&path), 1);
    for (file, bytes) in kept.iter().zip(bytes) {
        fs::write(file, bytes).unwrap();
        fs::set_permissions(file, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    }
    // What the forwarder records when the store has no more than that.
    fs::write(&position, early).unwrap();
    let log = open(retention());
    let now = usize::try_from(log.close().unwrap().seq()).unwrap();
    assert_eq!(log.stats().noticed(NoticeKind::RetentionWaits), 1);
    let left = segments(&path);
    assert!(before > 0 && (3..=5).contains(&left), "{before} {left}");
    assert_eq!(forward(), now - before);
    open(retention()).close().unwrap();
    assert_eq!(segments(&path), 1);
}
