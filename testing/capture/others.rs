//! Tests with other layers and other subscribers.

use std::{fmt, path::Path};

use tracing::{Level, info, info_span};
use tracing_subscriber::{
    EnvFilter,
    filter::{FilterExt as _, Filtered, LevelFilter},
    layer::{Layer as _, SubscriberExt as _},
    registry::Registry,
    reload,
};

use super::{super::ensure_attached, Log, Recorder, Rules, emit_through, install};
use crate::capture::{AuditFilter, AuditLayer, NotAudit};

#[test]
fn audit_events_are_kept_away_from_other_layers() {
    struct False;
    impl fmt::Debug for False {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("fal").and_then(|()| f.write_str("se"))
        }
    }
    let (log, other, filtered) = (Log::new(), Recorder::default(), Recorder::default());
    let not_audit = NotAudit::new(std::sync::Arc::clone(&log.capture));
    let _guard = install(
        Registry::default()
            .with(other.clone().with_filter(not_audit.clone()))
            .with(log.layer())
            .with(filtered.clone().with_filter(not_audit.and(EnvFilter::new("warn")))),
    );
    info!(target: "audit", action = "1");
    info!(target: "audit::x", action = "2");
    info!(audit = true, action = "3");
    info!(audit = "login", action = "4");
    info!(audit = ?true, action = "5");
    tracing::warn!(audit = true, action = "6");
    info!(audit = false, action = "plain 1");
    info!(audit = ?False, action = "plain 2");
    info!(audit = %false, action = "plain 3");
    info!(target: "auditor", action = "plain 4");
    tracing::warn!(action = "plain 5");
    tracing::debug!(target: "audit", action = "below the level of the log");
    let _span = info_span!("plain").entered();
    let _own = info_span!(target: "audit", "secret").entered();
    assert_eq!(log.actions(), ["1", "2", "3", "4", "5", "6"]);
    let plain =
        ["plain 1", "plain 2", "plain 3", "plain 4", "plain 5", "below the level of the log", "span plain"];
    assert_eq!(other.seen(), plain);
    assert_eq!(filtered.seen(), ["plain 5"]);
}

/// Per-layer filters keep their answer in a thread-local. A nested event once overwrote the answer about the audit event
/// around it, which `fmt` then printed with its secrets.
#[test]
fn a_nested_event_lets_no_audit_event_through_to_other_layers() {
    struct Talkative(tracing::Dispatch);
    impl fmt::Debug for Talkative {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            emit_through(&self.0, "plain", Level::WARN, "nested");
            f.write_str("true")
        }
    }
    thread_local! {
        static DISPATCH: std::cell::RefCell<Option<tracing::Dispatch>> = const { std::cell::RefCell::new(None) };
    }
    fn nested() -> &'static str {
        let dispatch = DISPATCH.take().unwrap();
        emit_through(&dispatch, "plain", Level::WARN, "nested");
        DISPATCH.set(Some(dispatch));
        "hush"
    }
    for is_outside in [true, false] {
        let enrich: crate::capture::rules::Enricher = Box::new(|event| event.set("added", nested()));
        let log = Log::with(Rules { enrich: Some(enrich), ..Rules::default() });
        let (other, warned, reloaded) = (Recorder::default(), Recorder::default(), Recorder::default());
        let not_audit = NotAudit::new(std::sync::Arc::clone(&log.capture));
        macro_rules! with_others {
            ($inner:expr) => {
                $inner
                    .with(other.clone().with_filter(not_audit.clone()))
                    .with(warned.clone().with_filter(LevelFilter::WARN))
                    .with(
                        reloaded
                            .clone()
                            .with_filter(not_audit.and(reload::Layer::new(EnvFilter::new("info")).0)),
                    )
            };
        }
        let dispatch = if is_outside {
            tracing::Dispatch::new(with_others!(Registry::default().with(log.layer())))
        } else {
            tracing::Dispatch::new(with_others!(Registry::default()).with(log.layer()))
        };
        let _guard = tracing::dispatcher::set_default(&dispatch);
        DISPATCH.set(Some(dispatch.clone()));
        info!(audit = true, action = "by field", value = nested());
        info!(target: "audit", action = "by target", value = nested());
        info!(audit = ?Talkative(dispatch.clone()), action = "by what it prints");
        info!(target: "audit", action = "formatted", value = ?Talkative(dispatch.clone()));
        info!(audit = false, action = "plain", value = ?Talkative(dispatch.clone()));
        DISPATCH.take();
        assert_eq!(log.actions(), ["by field", "by target", "by what it prints", "formatted"]);
        for (name, seen) in [("other", other.seen()), ("reloaded", reloaded.seen())] {
            assert!(
                seen.iter().all(|seen| seen == "nested" || seen == "plain"),
                "{name}, {is_outside}: {seen:?}"
            );
            assert_eq!(seen.iter().filter(|seen| *seen == "plain").count(), 1, "{name}, {is_outside}");
            assert!(
                seen.iter().filter(|seen| *seen == "nested").count() >= 6,
                "{name}, {is_outside}: {seen:?}"
            );
        }
        let seen = warned.seen();
        assert!(seen.iter().all(|seen| seen == "nested"), "warned, {is_outside}: {seen:?}");
    }
}

/// `and` takes the smaller of two hints, and a missing hint counts as the smallest.
#[test]
fn not_audit_keeps_the_level_hint_of_the_filter_it_is_combined_with() {
    let log = Log::new();
    let not_audit = NotAudit::new(std::sync::Arc::clone(&log.capture));
    let joined = not_audit.and(EnvFilter::new("info"));
    let hint = tracing_subscriber::layer::Filter::<Registry>::max_level_hint(&joined);
    assert_eq!(hint, Some(LevelFilter::INFO));
}

#[test]
fn a_tag_that_prints_as_false_does_not_count() {
    struct Prints(&'static [&'static str]);
    impl fmt::Debug for Prints {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            self.0.iter().try_for_each(|piece| f.write_str(piece))
        }
    }
    struct Panics;
    impl fmt::Debug for Panics {
        fn fmt(&self, _: &mut fmt::Formatter<'_>) -> fmt::Result {
            panic!("in Debug")
        }
    }
    struct Emits(tracing::Dispatch);
    impl fmt::Debug for Emits {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            emit_through(&self.0, "audit", Level::INFO, "nested");
            f.write_str("yes")
        }
    }
    let log = Log::new();
    let dispatch = tracing::Dispatch::new(Registry::default().with(log.layer()));
    let _guard = tracing::dispatcher::set_default(&dispatch);
    info!(audit = ?false, action = "no");
    info!(audit = %false, action = "no");
    info!(audit = %"false", action = "no");
    info!(audit = "false", action = "no");
    info!(audit = ?"false", action = "no");
    info!(audit = ?String::from("false"), action = "no");
    info!(audit = ?Prints(&["f", "", "alse"]), action = "no");
    info!(audit = ?Prints(&["false", "!"]), action = "1");
    info!(audit = ?Prints(&["fals"]), action = "2");
    info!(audit = ?Prints(&[]), action = "3");
    info!(audit = ?true, action = "4");
    info!(audit = ?Some(false), action = "5");
    info!(audit = ?Panics, action = "6");
    info!(audit = ?Emits(dispatch.clone()), action = "7");
    assert_eq!(log.actions(), ["1", "2", "3", "4", "5", "6", "7"]);
    assert_eq!(log.lost(), "1 routine reentrant", "what a tag emits while it is printed is counted, once");
}

/// Inside a `reload` the layer's own filter has no id. The layer records what it is given, but `tracing-subscriber` panics
/// in a debug build. The check once blamed a veto that did not exist, or panicked itself.
#[test]
fn a_layer_that_was_added_by_a_reload_is_reported() {
    let log = Log::new();
    let ensured =
        || ensure_attached(&log.capture, Path::new("log"), &["audit"]).map_err(|error| error.to_string());
    let (layer, handle) = reload::Layer::new(None::<Filtered<AuditLayer, AuditFilter, Registry>>);
    let _guard = install(Registry::default().with(layer).with(Recorder::default()));
    handle.reload(Some(log.layer())).unwrap();
    let refused = ensured().unwrap_err();
    assert!(refused.contains("`reload`") && !refused.contains("veto"), "{refused}");
    // Even if another layer of the log was there first.
    let (layer, handle) = reload::Layer::new(log.layer());
    let _guard = install(Registry::default().with(layer));
    assert_eq!(ensured(), Ok(()));
    handle.reload(log.layer()).unwrap();
    let refused = ensured().unwrap_err();
    assert!(refused.contains("`reload`"), "{refused}");
}

/// By default, the log does not promise to use spans below its level, so a filter may hide them.
#[test]
fn spans_below_the_level_of_the_log_are_checked_only_on_request() {
    for (span_level, hidden) in
        [(None, None), (Some(Level::DEBUG), Some("at DEBUG")), (Some(Level::INFO), None)]
    {
        let log = Log::with(Rules { span_level, ..Rules::default() });
        let _guard = install(
            Registry::default().with(tracing_subscriber::filter::LevelFilter::INFO).with(log.layer()),
        );
        let proof = ensure_attached(&log.capture, Path::new("log"), &["audit"]);
        match hidden {
            None => assert!(proof.is_ok(), "{span_level:?}: {proof:?}"),
            Some(part) => assert!(proof.unwrap_err().to_string().contains(part)),
        }
    }
}

#[test]
fn spans_are_checked_for_the_targets_that_events_inherit_from() {
    let rules = Rules { inherit_from: vec!["my_app".to_owned(), "billing".to_owned()], ..Rules::default() };
    let log = Log::with(rules);
    let ensured = |targets: &[&str]| {
        ensure_attached(&log.capture, Path::new("log"), targets).map_err(|error| error.to_string())
    };
    let _guard = log.install();
    assert_eq!(ensured(&["audit", "rustls"]), Ok(()), "spans of this one are not listened to anyway");
    let hiding = Registry::default().with(EnvFilter::new("my_app=info,audit=info")).with(log.layer());
    let _guard = install(hiding);
    let refused = ensured(&["audit"]).unwrap_err();
    assert!(refused.contains("target `billing`") && !refused.contains("target `my_app`"), "{refused}");
}

/// A call site that was first reached by a thread without the subscriber stayed disabled for the life of the process; see
/// tokio-rs/tracing#2874.
#[test]
fn a_call_site_that_another_thread_reached_too_early_works_after_the_check() {
    fn emit() {
        let _span = info_span!("early", actor = "mia").entered();
        info!(target: "audit", action = "early");
    }
    let log = Log::new();
    let subscriber = tracing::Dispatch::new(Registry::default().with(log.layer()));
    std::thread::scope(|scope| scope.spawn(emit).join().unwrap());
    let _guard = tracing::dispatcher::set_default(&subscriber);
    emit();
    assert!(log.payloads().is_empty(), "tracing asks every subscriber: is the rebuilding still needed?");
    ensure_attached(&log.capture, Path::new("log"), &["audit"]).unwrap();
    emit();
    let record = log.only();
    assert_eq!((&record["action"], &record["actor"]), (&"early".into(), &"mia".into()));
}
