//! What other layers and other subscribers see and do.

use std::{fmt, path::Path};

use tracing::{Level, info, info_span};
use tracing_subscriber::{
    EnvFilter,
    filter::{FilterExt as _, Filtered},
    layer::{Layer as _, SubscriberExt as _},
    registry::Registry,
    reload,
};

use super::{super::ensure_attached, Log, Recorder, Rules, install};
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

#[test]
fn a_tag_that_prints_as_false_is_none() {
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
    struct Emits;
    impl fmt::Debug for Emits {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            info!(target: "audit", action = "nested");
            f.write_str("yes")
        }
    }
    let log = Log::new();
    let _guard = log.install();
    info!(audit = ?false, action = "no");
    info!(audit = %false, action = "no");
    info!(audit = %"false", action = "no");
    info!(audit = "false", action = "no");
    info!(audit = ?Prints(&["f", "", "alse"]), action = "no");
    info!(audit = ?Prints(&["false", "!"]), action = "1");
    info!(audit = ?Prints(&["fals"]), action = "2");
    info!(audit = ?Prints(&[]), action = "3");
    info!(audit = ?true, action = "4");
    info!(audit = ?Some(false), action = "5");
    info!(audit = ?Panics, action = "6");
    info!(audit = ?Emits, action = "7");
    assert_eq!(log.actions(), ["1", "2", "3", "4", "5", "6", "7"]);
}

/// The layer has no filter of its own there: it records what it is given, but `tracing-subscriber` panics in a debug
/// build. The proof once blamed a veto that nobody had cast, or panicked itself.
#[test]
fn a_layer_that_was_put_in_by_a_reload_is_named() {
    let log = Log::new();
    let ensured =
        || ensure_attached(&log.capture, Path::new("log"), &["audit"]).map_err(|error| error.to_string());
    let (layer, handle) = reload::Layer::new(None::<Filtered<AuditLayer, AuditFilter, Registry>>);
    let _guard = install(Registry::default().with(layer).with(Recorder::default()));
    handle.reload(Some(log.layer())).unwrap();
    let refused = ensured().unwrap_err();
    assert!(refused.contains("`reload`") && !refused.contains("veto"), "{refused}");
    // Also where another layer of the log was there first.
    let (layer, handle) = reload::Layer::new(log.layer());
    let _guard = install(Registry::default().with(layer));
    assert_eq!(ensured(), Ok(()));
    handle.reload(log.layer()).unwrap();
    let refused = ensured().unwrap_err();
    assert!(refused.contains("`reload`"), "{refused}");
}

/// What hides spans below the level of the log hides nothing that the log promises, unless it was asked for.
#[test]
fn spans_below_the_level_of_the_log_are_proved_where_they_were_asked_for() {
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

/// A call site that a thread without the subscriber met first was dead for the life of the process.
#[test]
fn a_call_site_that_another_thread_met_too_early_is_alive_after_the_proof() {
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
