//! Tests of events from unexpected places: inside other events, on the log's own threads, from a dying thread; and of
//! vetoed events.

use std::{
    fmt,
    panic::{AssertUnwindSafe, catch_unwind},
    thread,
};

use serde_json::json;
use tracing::{Event, Level, Subscriber, error, info, info_span};
use tracing_subscriber::{
    filter::LevelFilter,
    layer::{Context, Layer, SubscriberExt as _},
    registry::Registry,
};

use super::{Log, Recorder, emit_through, install};
use crate::{capture, stats::NoticeKind};

/// A value that emits audit events whenever it is formatted.
struct Talkative(tracing::Dispatch);

impl fmt::Debug for Talkative {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        emit_through(&self.0, "audit", Level::ERROR, "nested");
        emit_through(&self.0, "audit", Level::INFO, "nested");
        emit_through(&self.0, "plain", Level::INFO, "plain");
        f.write_str("talked")
    }
}

#[test]
fn an_audit_event_inside_the_formatting_of_one_is_counted() {
    let (log, other) = (Log::new(), Recorder::default());
    let subscriber = Registry::default().with(log.layer()).with(other.clone().with_filter(LevelFilter::INFO));
    let dispatch = tracing::Dispatch::new(subscriber);
    let _guard = tracing::dispatcher::set_default(&dispatch);
    info!(target: "audit", action = "outer", actor = "a", x = ?Talkative(dispatch.clone()));
    let records = log.records();
    let events: Vec<_> = records.iter().filter(|record| record["kind"] == "event").collect();
    assert_eq!(events.len(), 1);
    assert_eq!(events[0]["fields"], json!({"x": "talked"}));
    assert_eq!(log.lost(), "1 critical reentrant, 1 routine reentrant");
    assert_eq!(other.seen(), ["nested", "nested", "plain", "outer"]);
}

#[test]
fn an_audit_event_inside_the_formatting_of_a_span_is_counted() {
    let log = Log::new();
    let dispatch = tracing::Dispatch::new(Registry::default().with(log.layer()));
    let _guard = tracing::dispatcher::set_default(&dispatch);
    let span = info_span!("s", actor = ?Talkative(dispatch.clone()));
    span.record("actor", tracing::field::debug(Talkative(dispatch.clone())));
    info!(target: "audit", parent: &span, action = "outer");
    let record = log.records().pop().unwrap();
    assert_eq!((&record["actor"], &record["action"]), (&json!("talked"), &json!("outer")));
    assert_eq!(log.lost(), "2 critical reentrant, 2 routine reentrant");
}

/// The other layer formats the event before the audit layer receives it. Events of that formatting are nested, not vetoed.
#[test]
fn an_audit_event_inside_the_formatting_of_another_layer_is_recorded() {
    struct Formats(Recorder);
    impl<S: Subscriber> Layer<S> for Formats {
        fn on_event(&self, event: &Event<'_>, context: Context<'_, S>) {
            if event.metadata().fields().field("x").is_some() {
                self.0.on_event(event, context);
                event.record(&mut |_: &tracing::field::Field, value: &dyn fmt::Debug| {
                    drop(format!("{value:?}"));
                });
            }
        }
    }
    let log = Log::new();
    let dispatch =
        tracing::Dispatch::new(Registry::default().with(Formats(Recorder::default())).with(log.layer()));
    let _guard = tracing::dispatcher::set_default(&dispatch);
    for _ in 0..3 {
        // The value is formatted by the other layer, where its event is captured, and by the audit layer, where it is
        // counted as lost.
        info!(target: "audit", action = "outer", x = ?Talkative(dispatch.clone()));
    }
    assert_eq!(
        log.actions(),
        ["nested", "nested", "outer", "nested", "nested", "outer", "nested", "nested", "outer"]
    );
    assert_eq!(log.lost(), "3 critical reentrant, 3 routine reentrant");
    assert!(log.notices.lock().unwrap().iter().all(|notice| notice.kind != NoticeKind::Vetoed));
}

#[test]
fn events_from_our_own_threads_are_counted() {
    let log = Log::new();
    let dispatch = tracing::Dispatch::new(Registry::default().with(log.layer()));
    thread::scope(|scope| {
        scope.spawn(|| {
            capture::mark_own_thread();
            let _guard = tracing::dispatcher::set_default(&dispatch);
            info!(target: "audit", action = "a");
            info!(target: "audit", action = "auth.failure");
            info!("plain");
        });
    });
    assert_eq!(log.actions(), [""; 0]);
    assert_eq!(log.lost(), "1 critical reentrant, 1 routine reentrant");
}

#[test]
fn a_dying_thread_can_still_record_events() {
    struct LastWords(tracing::Dispatch);
    impl Drop for LastWords {
        fn drop(&mut self) {
            // Like with a global subscriber: the thread has no scoped one any more.
            let callsite = tracing::Dispatch::clone(&self.0);
            tracing::dispatcher::with_default(&callsite, || info!(target: "audit", action = "scoped"));
        }
    }
    thread_local! {
        static WORDS: std::cell::RefCell<Option<LastWords>> = const { std::cell::RefCell::new(None) };
    }
    for first in [true, false] {
        let log = Log::new();
        let dispatch = tracing::Dispatch::new(Registry::default().with(log.layer()));
        let words = dispatch.clone();
        let thread = thread::spawn(move || {
            if first {
                WORDS.with_borrow_mut(|last| *last = Some(LastWords(words.clone())));
            }
            tracing::dispatcher::with_default(&words, || info!(target: "audit", action = "alive"));
            if !first {
                WORDS.with_borrow_mut(|last| *last = Some(LastWords(words.clone())));
            }
        });
        thread.join().unwrap();
        assert_eq!(log.actions()[0], "alive");
        assert_eq!(log.lost(), "");
    }
}

#[test]
fn a_confirm_counts_what_this_thread_emits_for_this_log() {
    let (one, two) = (Log::new(), Log::new());
    let dispatch = tracing::Dispatch::new(Registry::default().with(one.layer()).with(two.layer()));
    let _guard = tracing::dispatcher::set_default(&dispatch);
    let outer = capture::confirm_scope(&one.capture);
    info!(target: "audit", action = "1");
    let inner = capture::confirm_scope(&one.capture);
    let other = capture::confirm_scope(&two.capture);
    info!(target: "audit", action = "2");
    info!(target: "audit", action = "3", x = ?Talkative(dispatch.clone()));
    thread::scope(|scope| {
        scope.spawn(|| {
            tracing::dispatcher::with_default(&dispatch, || info!(target: "audit", action = "elsewhere"));
        });
    });
    drop(other);
    info!(target: "audit", action = "4");
    let counts = inner.scope().counts();
    // Both logs format the third event, and neither captures events emitted meanwhile.
    assert_eq!((counts.accepted, counts.lost), (3, 4));
    drop(inner);
    info!(target: "audit", action = "5");
    assert_eq!(outer.scope().counts().accepted, 5);
    let panicked = catch_unwind(AssertUnwindSafe(|| {
        let _inner = capture::confirm_scope(&one.capture);
        panic!("in the closure");
    }));
    assert!(panicked.is_err());
    drop(outer);
    assert!(super::super::current_scope::innermost(one.capture.id).is_none());
    assert!(super::super::current_scope::innermost(two.capture.id).is_none());
}

/// A layer nearer to the registry that vetoes.
struct Vetoes;

impl<S: Subscriber> Layer<S> for Vetoes {
    fn event_enabled(&self, event: &Event<'_>, _: Context<'_, S>) -> bool {
        event.metadata().fields().field("veto").is_none()
    }
}

#[test]
fn a_vetoed_event_is_counted_and_reported_once() {
    fn deeper() {
        info!(target: "audit", action = "auth.failure", veto = 1);
        info!("plain",);
    }
    let log = Log::new();
    let _guard = install(Registry::default().with(Vetoes).with(log.layer()));
    for _ in 0..3 {
        info!(target: "audit", action = "seen");
        deeper();
        error!(target: "audit", action = "vetoed", veto = 1);
        tracing::event!(Level::INFO, veto = 1, "plain");
    }
    info!(target: "audit", action = "seen");
    assert_eq!(log.actions(), ["seen"; 4]);
    // Before the first notice, a critical action is not looked for, so the first failure counts as routine.
    assert_eq!(log.lost(), "5 critical vetoed, 1 routine vetoed");
    let notices =
        || log.notices.lock().unwrap().iter().filter(|notice| notice.kind == NoticeKind::Vetoed).count();
    while notices() == 0 {
        thread::yield_now();
    }
    assert_eq!(notices(), 1);
}

#[test]
fn events_vetoed_by_a_layer_further_out_are_not_counted() {
    let log = Log::new();
    let _guard = install(Registry::default().with(log.layer()).with(Vetoes));
    info!(target: "audit", action = "vetoed", veto = 1);
    info!(target: "audit", action = "seen");
    assert_eq!(log.actions(), ["seen"]);
    assert_eq!(log.lost(), "");
}
