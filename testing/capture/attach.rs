//! Tests that `ensure_attached` finds and names everything that can hide audit events.

use tracing::{Event, Level, Subscriber, info, info_span};
use tracing_subscriber::{
    EnvFilter,
    filter::LevelFilter,
    layer::{Context, Layer, SubscriberExt as _},
    registry::Registry,
};

use super::{
    super::{
        attach::{Flaw, prove},
        ensure_attached,
    },
    Log, Recorder, Rules, install,
};

/// Checks a subscriber, and that the result is right: real events at INFO, WARN and ERROR and a real span arrive exactly
/// if it is a success. No other layer sees a probe.
#[track_caller]
fn check(log: &Log, subscriber: impl Subscriber + Send + Sync + 'static, other: &Recorder, parts: &[&str]) {
    let _guard = install(subscriber);
    let result = prove(&log.capture, &["audit"]);
    match &result {
        Ok(()) => assert!(parts.is_empty(), "it was not found: {parts:?}"),
        Err(flaw) => {
            let message = flaw.to_string();
            assert!(!parts.is_empty(), "{message}");
            for part in parts {
                assert!(message.contains(part), "{part:?} is not in {message:?}");
            }
        }
    }
    assert_eq!(other.seen(), [""; 0], "a probe was seen");
    assert!(log.payloads().is_empty());

    let _span = info_span!("span", actor = "mia").entered();
    info!(target: "audit", action = "info");
    tracing::warn!(target: "audit", action = "warn");
    tracing::error!(target: "audit", action = "error");
    let records = log.records();
    let events = records.iter().filter(|record| record["kind"] == "event");
    let whole = events.clone().count() == 3 && events.clone().all(|record| record["actor"] == "mia");
    assert_eq!(whole, result.is_ok(), "{result:?}: {records:?}");
    other.seen();
}

#[test]
fn a_correct_stack_passes() {
    let log = Log::new();
    let other = Recorder::default();
    check(&log, Registry::default().with(log.layer()), &other, &[]);
    check(&log, Registry::default().with(log.layer()).with(other.clone()), &other, &[]);
    check(&log, Registry::default().with(other.clone()).with(log.layer()), &other, &[]);
    check(
        &log,
        Registry::default().with(other.clone().with_filter(LevelFilter::WARN)).with(log.layer()),
        &other,
        &[],
    );
    check(
        &log,
        Registry::default()
            .with(tracing_subscriber::fmt::layer().with_writer(std::io::sink).with_filter(LevelFilter::WARN))
            .with(log.layer())
            .with(other.clone().with_filter(EnvFilter::new("warn,audit=off"))),
        &other,
        &[],
    );
    check(&log, Registry::default().with(log.layer().boxed()).with(Some(other.clone())), &other, &[]);
    check(&log, Registry::default().with(Some(log.layer())).with(None::<Recorder>), &other, &[]);
    check(&log, Registry::default().with(vec![other.clone().boxed(), log.layer().boxed()]), &other, &[]);
    check(&log, Registry::default().with(log.layer()).with(LevelFilter::INFO), &other, &[]);
    check(&log, Registry::default().with(EnvFilter::new("info")).with(log.layer()), &other, &[]);
    let (reloaded, _handle) = tracing_subscriber::reload::Layer::new(log.layer());
    check(&log, Registry::default().with(reloaded).with(other.clone()), &other, &[]);
    assert_eq!(log.lost(), "");
}

#[test]
fn a_second_log_does_not_interfere() {
    let (log, second, other) = (Log::new(), Log::new(), Recorder::default());
    check(&log, Registry::default().with(second.layer()).with(log.layer()).with(other.clone()), &other, &[]);
    check(&log, Registry::default().with(log.layer()).with(other.clone()).with(second.layer()), &other, &[]);
    assert_eq!(second.actions(), ["info", "warn", "error", "info", "warn", "error"]);
    assert_eq!((log.lost(), second.lost()), (String::new(), String::new()));
}

#[test]
fn a_global_filter_in_front_is_found() {
    let log = Log::new();
    let other = Recorder::default();
    let stack = || Registry::default().with(log.layer()).with(other.clone());
    check(
        &log,
        stack().with(EnvFilter::new("warn")),
        &other,
        &["target `audit` at INFO, because", "`audit=info`", ".with_filter("],
    );
    check(&log, stack().with(LevelFilter::ERROR), &other, &["target `audit` at WARN, INFO"]);
    // Like `EnvFilter::from_default_env` without `RUST_LOG`.
    check(&log, stack().with(EnvFilter::new("")), &other, &["at WARN, INFO", "RUST_LOG"]);
    check(&log, stack().with(EnvFilter::new("info,audit=off")), &other, &["at ERROR, WARN, INFO"]);
    check(
        &log,
        Registry::default().with(EnvFilter::new("warn")).with(log.layer()).with(other.clone()),
        &other,
        &["target `audit` at INFO", "spans"],
    );
}

#[test]
fn a_hidden_span_is_found() {
    let log = Log::new();
    let other = Recorder::default();
    check(
        &log,
        Registry::default().with(log.layer()).with(other.clone()).with(EnvFilter::new("warn,audit=info")),
        &other,
        &["spans do not reach the log", "`actor`", ".with_filter("],
    );
}

#[test]
fn an_empty_vec_of_layers_is_found() {
    let log = Log::new();
    let empty = Vec::<Recorder>::new();
    check(
        &log,
        Registry::default().with(log.layer()).with(empty),
        &Recorder::default(),
        &["at ERROR, WARN, INFO", "empty `Vec`", "spans"],
    );
}

struct Vetoes;

impl<S: Subscriber> Layer<S> for Vetoes {
    fn event_enabled(&self, event: &Event<'_>, _: Context<'_, S>) -> bool {
        *event.metadata().level() != Level::WARN
    }
}

#[test]
fn a_layer_in_front_that_vetoes_is_found() {
    let log = Log::new();
    let other = Recorder::default();
    check(
        &log,
        Registry::default().with(log.layer()).with(other.clone()).with(Vetoes),
        &other,
        &["target `audit` at WARN, because a layer in front of it vetoes them in `event_enabled`"],
    );
}

#[test]
fn a_filter_around_the_layer_itself_is_found() {
    let log = Log::new();
    let other = Recorder::default();
    check(
        &log,
        Registry::default().with(log.layer().with_filter(LevelFilter::WARN)).with(other.clone()),
        &other,
        &["target `audit` at INFO, because they are enabled, but this layer is not asked"],
    );
}

#[test]
fn a_subscriber_without_the_layer_is_found() {
    let (log, second) = (Log::new(), Log::new());
    let other = Recorder::default();
    let not_in = ["the layer of this log is not in the subscriber"];
    check(&log, Registry::default().with(other.clone()), &other, &not_in);
    check(&log, Registry::default().with(second.layer()).with(other.clone()), &other, &not_in);
    check(
        &log,
        Registry::default()
            .with(None::<tracing_subscriber::filter::Filtered<_, _, _>>.or(Some(second.layer()))),
        &other,
        &not_in,
    );
    let result = prove(&log.capture, &[]).unwrap_err().to_string();
    assert!(result.contains("no tracing subscriber is set"), "{result}");
    assert_eq!(second.lost(), "");
}

/// Scoped subscribers were once refused, so tests of an application could not call the application's own setup.
#[test]
fn a_scoped_subscriber_is_enough_for_its_own_thread() {
    let log = Log::new();
    let ensured = || {
        ensure_attached(&log.capture, std::path::Path::new("log"), &["audit"])
            .map_err(|error| error.to_string())
    };
    let refused = ensured().unwrap_err();
    assert!(refused.contains("no tracing subscriber is set"), "{refused}");
    {
        let _guard = log.install();
        assert_eq!(ensured(), Ok(()));
        let elsewhere =
            std::thread::scope(|scope| scope.spawn(|| prove(&log.capture, &["audit"])).join().unwrap());
        assert!(elsewhere.unwrap_err().to_string().contains("no tracing subscriber is set"));
    }
    assert!(ensured().is_err());
    // The innermost subscriber counts.
    let _outer = log.install();
    let hiding = tracing::Dispatch::new(Registry::default().with(LevelFilter::WARN).with(log.layer()));
    let refused = tracing::dispatcher::with_default(&hiding, ensured).unwrap_err();
    assert!(refused.contains("at INFO"), "{refused}");
    assert_eq!(ensured(), Ok(()));
}

#[test]
fn other_targets_can_be_checked_too() {
    let log = Log::new();
    let _guard =
        install(Registry::default().with(log.layer()).with(EnvFilter::new("warn,audit=info,app::a=info")));
    assert_eq!(prove(&log.capture, &["audit", "app::a"]), Ok(()));
    let message = prove(&log.capture, &["audit::x", "app::b"]).unwrap_err().to_string();
    assert!(message.contains("target `app::b` at INFO"), "{message}");
    assert!(!message.contains("target `audit"), "{message}");
}

#[test]
fn every_level_down_to_the_configured_one_is_checked() {
    let log = Log::with(Rules { level: Level::TRACE, ..Rules::default() });
    let _guard = install(Registry::default().with(log.layer()).with(LevelFilter::INFO));
    let message = prove(&log.capture, &["audit"]).unwrap_err().to_string();
    assert!(message.contains("at DEBUG, TRACE"), "{message}");
    let _guard = install(Registry::default().with(log.layer()));
    assert_eq!(prove(&log.capture, &["audit"]), Ok(()));
}

/// With such a stack every event was once recorded twice, without any error.
#[test]
fn a_layer_that_is_in_the_stack_twice_is_found() {
    #[track_caller]
    fn check(log: &Log, flaw: Option<&Flaw>, subscriber: impl Subscriber + Send + Sync + 'static) {
        let _guard = install(subscriber);
        let proof = prove(&log.capture, &["audit"]);
        assert_eq!(proof.as_ref().err(), flaw);
        assert!(log.payloads().is_empty(), "a probe was recorded");
        info!(target: "audit", action = "info");
        assert_eq!(log.actions().len(), if flaw.is_some() { 2 } else { 1 });
    }
    let (log, second, other) = (Log::new(), Log::new(), Recorder::default());
    let stack = || Registry::default().with(log.layer());
    let twice = Some(&Flaw::Doubled);
    check(&log, twice, stack().with(log.layer()));
    check(&log, twice, stack().with(other.clone()).with(log.layer().boxed()));
    check(&log, twice, Registry::default().with(vec![log.layer().boxed(), log.layer().boxed()]));
    check(&log, twice, stack().with(Some(log.layer())).with(second.layer()));
    check(&log, twice, stack().with(tracing_subscriber::reload::Layer::new(log.layer()).0));
    check(&log, twice, stack().with(log.layer().with_filter(LevelFilter::INFO)));
    // Layers of two logs are not one layer twice, and a layer behind `OFF` records nothing.
    check(&log, None, stack().with(second.layer()));
    check(&log, None, stack().with(log.layer().with_filter(LevelFilter::OFF)));
    // Hidden events are reported first, because they would be lost.
    let hiding = stack().with(log.layer()).with(LevelFilter::WARN);
    let _guard = install(hiding);
    assert!(matches!(prove(&log.capture, &["audit"]), Err(Flaw::Hidden(_))));
    assert_eq!(other.seen(), ["info"], "a probe was seen");
}

/// The answers of filters about a probe must not be applied to a later event.
#[test]
fn a_check_leaves_no_answers_behind() {
    let log = Log::new();
    let other = Recorder::default();
    let watched = Registry::default()
        .with(other.clone().with_filter(EnvFilter::new("warn,audit=off")))
        .with(log.layer());
    let alone =
        tracing::Dispatch::new(Registry::default().with(other.clone().with_filter(LevelFilter::INFO)));
    let watched = tracing::Dispatch::new(watched);
    tracing::dispatcher::with_default(&watched, || prove(&log.capture, &["audit"]).unwrap());
    drop(watched);
    tracing::dispatcher::with_default(&alone, || info!("seen"));
    assert_eq!(other.seen(), ["seen"]);
}
