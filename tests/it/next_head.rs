//! Waiting for the next head.

use std::{
    thread,
    time::{Duration, Instant},
};

use tracing_audit::{AuditLog, FlushMode};
use tracing_subscriber::prelude::*;

const LONG: Duration = Duration::from_secs(20);
const SHORT: Duration = Duration::from_millis(100);

fn open(dir: &tempfile::TempDir) -> AuditLog {
    let mode = FlushMode::Batched { size: 1_000_000, interval: Duration::from_secs(3600) };
    AuditLog::builder(dir.path().join("log")).flush_mode(mode).stderr(false).open().unwrap()
}

fn emit(log: &AuditLog) {
    tracing::subscriber::with_default(tracing_subscriber::registry().with(log.layer()), || {
        tracing::info!(target: "audit", action = "a", actor = "b");
    });
}

#[test]
fn a_wait_for_the_next_head_ends_with_it_and_causes_no_sync() {
    let dir = tempfile::tempdir().unwrap();
    let log = open(&dir);
    let known = log.head();
    assert_eq!(log.next_head(known, SHORT), None);
    // Batched for an hour: waiting for a head does not cause a sync.
    emit(&log);
    assert_eq!(log.next_head(known, SHORT), None);
    assert_eq!(log.head(), known);
    let waiting = {
        let log = log.clone();
        thread::spawn(move || (log.next_head(known, LONG), Instant::now()))
    };
    thread::sleep(SHORT);
    assert!(!waiting.is_finished());
    log.flush().unwrap();
    let flushed = Instant::now();
    let (head, ended) = waiting.join().unwrap();
    assert_eq!(head, Some(log.head()));
    assert!(ended.saturating_duration_since(flushed) < Duration::from_secs(5));
    // A head that is already there is returned at once.
    assert_eq!(log.next_head(known, Duration::ZERO), head);
    let last = log.close().unwrap();
    assert_eq!(log.next_head(last, LONG), None);
    assert_eq!(log.next_head(known, LONG), Some(last));
}

#[tokio::test]
async fn tasks_wait_too() {
    let dir = tempfile::tempdir().unwrap();
    let log = open(&dir);
    let known = log.head();
    assert_eq!(log.next_head_async(known, SHORT).await.unwrap(), known);
    let waiting = tokio::spawn(log.next_head_async(known, LONG));
    // Two waits that are woken together, in one task.
    let (first, second) = (log.next_head_async(known, LONG), log.next_head_async(known, LONG));
    emit(&log);
    log.flush_async().await.unwrap();
    let (first, second) = tokio::join!(first, second);
    let head = log.head();
    assert_eq!((first.unwrap(), second.unwrap(), waiting.await.unwrap().unwrap()), (head, head, head));
    // Dropping one wait does not drop the waker of another.
    let dropped = log.next_head_async(head, LONG);
    let kept = tokio::spawn(log.next_head_async(head, LONG));
    tokio::select! {
        biased;
        head = dropped => panic!("{head:?}"),
        () = tokio::time::sleep(SHORT) => {}
    }
    emit(&log);
    log.flush_async().await.unwrap();
    assert_eq!(kept.await.unwrap().unwrap(), log.head());
    let last = log.close_async().await.unwrap();
    assert_eq!(log.next_head_async(last, LONG).await.unwrap(), last);
}
