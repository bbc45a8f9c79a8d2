//! The results of `confirm`, and what the log records about them.

use std::{
    pin::Pin,
    task::{Context, Waker},
    time::Duration,
};

use tracing_audit::{AuditLog, Error, FlushMode, NoteKind, Record, verify};
use tracing_subscriber::prelude::*;

use crate::{
    promises::Vetoes,
    support::{events, fresh, with_layer},
};

/// With the shortest possible bound, and more to write than the disk takes in that time. Some events are confirmed and
/// some are not, and the log records exactly which.
#[test]
fn a_log_names_the_records_for_which_confirm_returned_an_error() {
    let (_dir, path) = fresh();
    let log = AuditLog::builder(&path).wait_bound(Duration::from_millis(1)).open().unwrap();
    let mut refused = Vec::new();
    with_layer(&log, || {
        for request in 0..100_i64 {
            if request % 10 == 3 {
                for _ in 0..500 {
                    tracing::info!(target: "audit", action = "much", actor = "x".repeat(2000));
                }
            }
            let recorded = log.confirm(|| {
                tracing::info!(target: "audit", action = "key.export", actor = "mia", request, outcome = "attempted");
            });
            match recorded {
                Ok(_) => {}
                Err(Error::Unconfirmed { .. }) => refused.push(request),
                Err(error) => panic!("{error}"),
            }
        }
    });
    while log.close().is_err() {}
    let events = events(&path);
    let exports = events.iter().filter(|event| event.action() == Some("key.export"));
    let named: Vec<i64> = exports
        .filter(|event| event.is_unconfirmed())
        .map(|event| event.field("request").unwrap().as_i64().unwrap())
        .collect();
    assert_eq!(named, refused);
    assert!(!refused.is_empty(), "the disk is too fast for this test");
    let report = verify(&path).unwrap();
    report.ensure_intact().unwrap();
    assert!(report.notes().iter().any(|note| note.kind() == NoteKind::Unconfirmed), "{report}");
}

fn one_of_two_is_lost() {
    tracing::info!(target: "audit", action = "first", actor = "mia");
    tracing::info!(target: "audit::vetoed", action = "second", actor = "mia");
}

/// One lost event is enough for an error. The other event then describes an action that was refused.
#[test]
fn if_one_event_of_a_confirm_is_lost_the_others_are_named() {
    let (_dir, path) = fresh();
    let mode = FlushMode::Batched { size: u32::MAX, interval: Duration::from_secs(3600) };
    let log = AuditLog::builder(&path).flush_mode(mode).open().unwrap();
    let subscriber = tracing_subscriber::registry().with(Vetoes).with(log.layer());
    tracing::subscriber::with_default(subscriber, || {
        let recorded = log.confirm(one_of_two_is_lost);
        assert!(matches!(recorded, Err(Error::Lost { lost: 1, .. })), "{recorded:?}");
        let outer = log.confirm(|| {
            tracing::info!(target: "audit", action = "before", actor = "mia");
            drop(log.confirm(one_of_two_is_lost));
        });
        assert!(matches!(outer, Err(Error::Lost { lost: 1, .. })), "{outer:?}");
        let mut waiting = log.confirm_async(one_of_two_is_lost);
        assert!(Pin::new(&mut waiting).poll(&mut Context::from_waker(Waker::noop())).is_ready());
        drop(log.confirm_async(one_of_two_is_lost));
        tracing::info!(target: "audit", action = "last", actor = "mia");
    });
    log.close().unwrap();
    let named: Vec<bool> = events(&path).iter().map(Record::is_unconfirmed).collect();
    assert_eq!(named, [true, true, true, true, false, false]);
    let report = verify(&path).unwrap();
    report.ensure_intact().unwrap();
    assert!(report.to_string().contains("(lost)"), "{report}");
}

/// No caller got an error.
#[test]
fn a_dropped_confirm_names_no_record() {
    let (_dir, path) = fresh();
    let log = AuditLog::open(&path).unwrap();
    with_layer(&log, || {
        drop(log.confirm_async(|| tracing::info!(target: "audit", action = "never.polled", actor = "mia")));
        let mut polled =
            log.confirm_async(|| tracing::info!(target: "audit", action = "polled", actor = "mia"));
        drop(Pin::new(&mut polled).poll(&mut Context::from_waker(Waker::noop())));
        drop(polled);
    });
    log.close().unwrap();
    let events = events(&path);
    assert!(events.len() == 2 && events.iter().all(|event| !event.is_unconfirmed()));
}
