//! `AuditLog::current`: finding the log through the subscriber of the calling thread.

use tracing::{
    Dispatch, Instrument as _, Subscriber, dispatcher::with_default, instrument::WithSubscriber as _,
};
use tracing_audit::{AuditLog, Error, audit};
use tracing_subscriber::{
    EnvFilter, Layer, filter::LevelFilter, fmt, prelude::*, registry, registry::LookupSpan, reload,
};

use crate::support::{child, events, fresh, with_layer};

/// Returns the directory of the log that is found.
fn found() -> Option<std::path::PathBuf> {
    AuditLog::current().map(|log| log.path().to_owned())
}

#[track_caller]
fn check(subscriber: impl Subscriber + Send + Sync + 'static, expected: Option<&AuditLog>) {
    let expected = expected.map(|log| log.path().to_owned());
    assert_eq!(with_default(&Dispatch::new(subscriber), found), expected);
}

/// Returns a layer that has nothing to do with audit logs.
fn quiet<S: Subscriber + for<'a> LookupSpan<'a>>() -> impl Layer<S> + Send + Sync {
    fmt::layer().with_writer(std::io::sink)
}

/// Confirms an event as a library does, which was not given a log.
fn of_a_library(actor: &str) -> Result<(), Error> {
    let audit = AuditLog::current().expect("a log");
    audit.confirm(|| tracing::info!(target: "audit", action = "key.export", actor)).map(drop)
}

#[test]
fn a_library_confirms_without_being_given_a_log() {
    let (_dir, path) = fresh();
    let log = AuditLog::open(&path).unwrap();
    with_layer(&log, || of_a_library("mia")).unwrap();
    assert_eq!((log.stats().durable, events(&path)[0].actor()), (1, Some("mia")));
    // In spans, and in a subscriber inside another one.
    with_layer(&log, || {
        tracing::info_span!("request", actor = "tom").in_scope(|| {
            tracing::subscriber::with_default(registry(), || assert_eq!(found(), None));
            audit!(action = "a");
            of_a_library("mia").unwrap();
        });
    });
    assert_eq!((log.stats().durable, found()), (3, None));
}

#[test]
fn a_log_is_found_in_every_stack_that_can_be_searched() {
    let (_dir, path) = fresh();
    let log = AuditLog::open(&path).unwrap();
    check(registry().with(log.layer()), Some(&log));
    check(registry().with(log.layer()).with(quiet()), Some(&log));
    check(registry().with(quiet()).with(log.layer()), Some(&log));
    check(registry().with(EnvFilter::new("off")).with(log.layer()), Some(&log));
    check(registry().with(log.layer().boxed()), Some(&log));
    check(registry().with(Some(log.layer())), Some(&log));
    check(registry().with(vec![quiet().boxed(), log.layer().boxed()]), Some(&log));
    check(registry().with(quiet().and_then(log.layer())), Some(&log));
    check(registry().with(log.layer().with_filter(LevelFilter::INFO)), Some(&log));
    check(registry().with(log.layer().with_filter(reload::Layer::new(LevelFilter::INFO).0)), Some(&log));
    check(
        registry().with(quiet().with_filter(reload::Layer::new(LevelFilter::INFO).0)).with(log.layer()),
        Some(&log),
    );
    // The documented cases in which the log is not found.
    check(registry().with(reload::Layer::new(log.layer()).0), None);
    check(registry().with(quiet()), None);
    check(registry(), None);
    assert_eq!(found(), None);
}

#[test]
fn of_two_logs_the_one_added_last_is_found() {
    let ((_first_dir, first), (_second_dir, second)) = (fresh(), fresh());
    let (first, second) = (AuditLog::open(first).unwrap(), AuditLog::open(second).unwrap());
    check(registry().with(first.layer()).with(second.layer()), Some(&second));
    check(registry().with(second.layer()).with(first.layer()), Some(&first));
    check(registry().with(vec![first.layer(), second.layer()]), Some(&first));
}

#[test]
fn a_log_is_found_in_tasks_that_carry_their_subscriber() {
    let (_dir, path) = fresh();
    let log = AuditLog::open(&path).unwrap();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).build().unwrap();
    let dispatch = Dispatch::new(registry().with(log.layer()));
    let work = async {
        AuditLog::current().unwrap().ensure_attached().unwrap();
        tokio::task::yield_now().await;
        let audit = AuditLog::current().unwrap();
        audit.confirm_async(|| audit!(action = "a", actor = "b")).await.unwrap();
    };
    let work = work.instrument(tracing::Span::none()).with_subscriber(dispatch);
    runtime.block_on(async { tokio::spawn(work).await.unwrap() });
    assert_eq!(runtime.block_on(async { tokio::spawn(async { found() }).await.unwrap() }), None);
    assert_eq!(events(&path).len(), 1);
}

/// The subscriber outlives the log, and must not keep it open.
#[test]
fn a_subscriber_keeps_no_log_open() {
    let (_dir, path) = fresh();
    let log = AuditLog::open(&path).unwrap();
    let dispatch = Dispatch::new(registry().with(log.layer()));
    with_default(&dispatch, || {
        drop(AuditLog::current().unwrap());
        audit!(action = "before", actor = "b");
        let borrowed = AuditLog::current().unwrap();
        drop(log);
        // A handle found this way keeps the log open like any other.
        borrowed.confirm(|| audit!(action = "borrowed", actor = "b")).unwrap();
        drop(borrowed);
        assert_eq!(found(), None);
    });
    let closed = tracing_audit::read(&path).unwrap().last().unwrap().unwrap();
    assert_eq!((closed.kind(), events(&path).len()), (tracing_audit::RecordKind::Close, 2));
}

#[test]
fn a_closed_log_is_found_and_refuses() {
    let (_dir, path) = fresh();
    let log = AuditLog::open(&path).unwrap();
    with_layer(&log, || {
        log.close().unwrap();
        assert_eq!(found().as_deref(), Some(log.path()));
        of_a_library("mia").unwrap_err();
    });
    assert_eq!(events(&path).len(), 0);
}

/// Plays the role of the child process.
pub(crate) fn play(path: &std::path::Path) {
    let log = AuditLog::open(path).unwrap();
    registry().with(log.layer()).init();
    std::thread::spawn(|| of_a_library("mia").unwrap()).join().unwrap();
    tracing::subscriber::with_default(registry(), || assert_eq!(found(), None));
    log.close().unwrap();
}

#[test]
fn a_log_behind_the_global_subscriber_is_found_by_every_thread() {
    let (_dir, path) = fresh();
    let output = child("current", &path, &[]).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(events(&path).len(), 1);
}
