//! Tests that exactly the audit events arrive, and that other layers receive the same as without the audit layer.

use tracing::{Level, Subscriber, debug, enabled, error, info, info_span, warn};
use tracing_subscriber::{
    EnvFilter,
    filter::{LevelFilter, Targets, filter_fn},
    layer::{Filter, Layer as _, SubscriberExt as _},
    registry::{LookupSpan, Registry},
};

use super::{Log, Recorder, install};

type Other<S> = Box<dyn Filter<S> + Send + Sync>;

/// Returns filters that another layer may have.
fn others<S>() -> Vec<Other<S>>
where
    S: Subscriber + for<'a> LookupSpan<'a> + 'static,
{
    vec![
        Box::new(LevelFilter::ERROR),
        Box::new(LevelFilter::WARN),
        Box::new(LevelFilter::INFO),
        Box::new(LevelFilter::TRACE),
        Box::new(LevelFilter::OFF),
        Box::new(Targets::new().with_default(Level::INFO).with_target("audit", LevelFilter::OFF)),
        Box::new(Targets::new().with_target("audit", Level::TRACE)),
        Box::new(EnvFilter::new("info,audit=off")),
        Box::new(EnvFilter::new("warn,[span]=debug")),
        Box::new(filter_fn(|metadata| *metadata.level() <= Level::WARN)),
    ]
}

/// All filters of [`others`] except the one that depends on spans. It is asked about `audit` callsites even without an
/// audit layer, and nested events then make it fail by itself (tokio-rs/tracing#2704).
const STEADY: [usize; 9] = [0, 1, 2, 3, 4, 5, 6, 7, 9];

/// The filters of [`others`] that pass any error.
const ERRORS: [usize; 7] = [0, 1, 2, 3, 5, 7, 9];

/// Checks the audit layer next to another layer with each filter, and alone.
#[track_caller]
fn check(emit: fn(), audited: &[&str]) {
    check_beside(&STEADY, emit, audited);
    let log = Log::new();
    let _guard = log.install();
    emit();
    assert_eq!(log.actions(), audited, "alone");
}

/// Checks the audit layer next to another layer with each filter, in both orders.
#[track_caller]
fn check_beside(filters: &[usize], emit: fn(), audited: &[&str]) {
    for &index in filters {
        let (log, other) = (Log::new(), Recorder::default());
        let filter = others().swap_remove(index);
        let without = {
            let _guard = install(Registry::default().with(other.clone().with_filter(filter)));
            emit();
            other.seen()
        };

        {
            let filter = others().swap_remove(index);
            let _guard =
                install(Registry::default().with(other.clone().with_filter(filter)).with(log.layer()));
            emit();
        }
        assert_eq!(log.actions(), audited, "inside ours: {index}");
        assert_eq!(other.seen(), without, "inside ours: {index}");

        {
            let filter = others().swap_remove(index);
            let _guard =
                install(Registry::default().with(log.layer()).with(other.clone().with_filter(filter)));
            emit();
        }
        assert_eq!(log.actions(), audited, "outside ours: {index}");
        assert_eq!(other.seen(), without, "outside ours: {index}");
        assert_eq!(log.lost(), "");
    }
}

/// Makes the messages equal, whatever the answer is.
fn nothing(_: bool) -> u8 {
    0
}

#[test]
fn audit_events_arrive_whatever_others_filter() {
    fn emit() {
        info!("plain");
        info!(target: "audit", action = "1");
        let _span = info_span!("span", actor = "a").entered();
        error!("plain");
        warn!(target: "audit::x", action = "2");
        debug!(target: "audit", action = "no");
        let _other = info_span!("other", x = 1).entered();
        debug!("plain");
        error!(audit = true, action = "3");
        info!(audit = false, action = "no");
    }
    check_beside(&std::array::from_fn::<_, 10, _>(|index| index), emit, &["1", "2", "3"]);
}

#[test]
fn asking_whether_something_is_enabled_just_before_changes_nothing() {
    fn emit() {
        for _ in 0..3 {
            enabled!(Level::TRACE);
            info!(target: "audit", action = "1");
            enabled!(Level::INFO);
            info!("plain");
            enabled!(target: "audit", Level::INFO);
            info!(target: "audit", action = "2");
            enabled!(target: "audit", Level::INFO);
            error!("plain");
            enabled!(Level::ERROR);
            error!(target: "audit", action = "3");
            enabled!(target: "audit", Level::INFO);
            drop(info_span!("span"));
        }
    }
    check(emit, &["1", "2", "3", "1", "2", "3", "1", "2", "3"]);
}

#[test]
fn an_audit_callsite_reports_that_it_is_enabled() {
    let log = Log::new();
    let _guard = install(
        Registry::default().with(log.layer()).with(Recorder::default().with_filter(LevelFilter::ERROR)),
    );
    assert!(enabled!(target: "audit", Level::INFO));
    assert!(!enabled!(target: "audit", Level::DEBUG));
    assert!(!enabled!(target: "other", Level::INFO));
}

#[test]
fn asking_inside_a_field_changes_nothing() {
    fn emit() {
        for _ in 0..2 {
            info!(target: "audit", action = "1", x = enabled!(Level::WARN), y = enabled!(Level::TRACE));
            info!(target: "audit", action = "2", x = enabled!(target: "audit", Level::INFO));
            error!("plain {}", enabled!(Level::WARN));
            info!(audit = true, action = "3", x = enabled!(target: "other", Level::ERROR));
        }
    }
    check(emit, &["1", "2", "3", "1", "2", "3"]);
}

/// Without the audit layer no filter is asked about the inner callsite, so it overwrites no answer.
#[test]
fn asking_about_audit_inside_a_plain_field_changes_nothing() {
    fn emit() {
        for _ in 0..2 {
            error!("plain {}", nothing(enabled!(target: "audit", Level::INFO)));
            warn!("plain {}", nothing(enabled!(target: "audit", Level::INFO)));
        }
    }
    check(emit, &[]);
}

#[test]
fn an_event_inside_a_field_of_a_plain_event_changes_nothing() {
    fn audited() -> u8 {
        info!(target: "audit", action = "inner");
        0
    }
    fn emit() {
        for _ in 0..2 {
            error!("plain {}", audited());
            info!(target: "audit", action = "after");
        }
    }
    check_beside(&ERRORS, emit, &["inner", "after", "inner", "after"]);
}

/// The field is evaluated only because the audit layer wants the event, so a run without it is no reference. Each layer
/// must receive what its own filter passes.
#[test]
fn an_event_inside_a_field_of_an_audit_event_reaches_the_layers_that_want_it() {
    fn plain(level: Level) -> u8 {
        if level == Level::ERROR {
            error!("inner");
        } else {
            info!("inner");
        }
        0
    }
    for (filter, expected) in [
        (LevelFilter::ERROR, vec!["inner"]),
        (LevelFilter::INFO, vec!["inner", "outer 1", "inner", "outer 2"]),
        (LevelFilter::OFF, vec![]),
    ] {
        for outside in [true, false] {
            let log = Log::new();
            let other = Recorder::default();
            let recorder = other.clone();
            let _guard = if outside {
                install(Registry::default().with(log.layer()).with(recorder.with_filter(filter)))
            } else {
                install(Registry::default().with(recorder.with_filter(filter)).with(log.layer()))
            };
            info!(target: "audit", action = "outer 1", x = plain(Level::ERROR));
            info!(target: "audit", action = "outer 2", x = plain(Level::INFO));
            assert_eq!(log.actions(), ["outer 1", "outer 2"]);
            assert_eq!(other.seen(), expected, "{filter}, outside {outside}");
        }
    }
}

#[test]
fn an_audit_event_inside_a_field_of_an_audit_event_is_recorded_too() {
    fn inner() -> u8 {
        info!(target: "audit", action = "inner");
        0
    }
    fn emit() {
        info!(target: "audit", action = "outer", x = inner());
    }
    let log = Log::new();
    let _guard = log.install();
    emit();
    assert_eq!(log.actions(), ["inner", "outer"]);
    assert_eq!(log.lost(), "");
}

#[test]
fn layers_without_a_filter_still_see_everything() {
    fn emit() {
        debug!("plain");
        info!(target: "audit", action = "1");
        debug!(target: "audit", action = "plain");
        let _span = info_span!("span", actor = 1).entered();
        let _other = tracing::trace_span!("other").entered();
    }
    let everything = ["plain", "1", "plain", "span span", "span other"];
    for ours_outside in [true, false] {
        let (log, other) = (Log::new(), Recorder::default());
        let _guard = if ours_outside {
            install(Registry::default().with(other.clone()).with(log.layer()))
        } else {
            install(Registry::default().with(log.layer()).with(other.clone()))
        };
        emit();
        assert_eq!(other.seen(), everything);
        assert_eq!(log.actions(), ["1"]);
    }
}

#[test]
fn callsites_of_no_interest_stay_disabled() {
    let log = Log::new();
    let _guard = install(
        Registry::default().with(log.layer()).with(Recorder::default().with_filter(LevelFilter::ERROR)),
    );
    let mut evaluated = false;
    info!(
        x = {
            evaluated = true;
            0
        },
        "plain"
    );
    let _span = info_span!(
        "span",
        x = {
            evaluated = true;
            0
        }
    );
    debug!(target: "audit", x = { evaluated = true; 0 });
    assert!(!evaluated);
}

#[test]
fn boxed_optional_and_reloaded_layers_work() {
    fn emit(log: &Log) {
        let _span = info_span!("span", actor = "mia").entered();
        info!("plain");
        info!(target: "audit", action = "1");
        assert_eq!(log.only()["actor"], "mia");
    }
    let log = Log::new();
    {
        let _guard = install(Registry::default().with(log.layer().boxed()));
        emit(&log);
    }
    {
        let _guard = install(Registry::default().with(Some(log.layer())));
        emit(&log);
    }
    {
        let _guard =
            install(Registry::default().with(vec![log.layer().boxed(), Recorder::default().boxed()]));
        emit(&log);
    }
    {
        let _guard = install(Registry::default().with(log.layer().and_then(Recorder::default())));
        emit(&log);
    }
    {
        let (layer, _handle) = tracing_subscriber::reload::Layer::new(log.layer());
        let _guard = install(Registry::default().with(layer));
        emit(&log);
    }
    {
        let _guard = install(Registry::default().with(log.layer().with_filter(LevelFilter::INFO)));
        emit(&log);
    }
    assert_eq!(log.lost(), "");
}

#[test]
fn two_logs_in_one_subscriber_both_record() {
    let (one, two) = (Log::new(), Log::new());
    let _guard = install(Registry::default().with(one.layer()).with(two.layer()));
    let span = info_span!("span", actor = "mia").entered();
    span.record("actor", "eve");
    info!(target: "audit", action = "1");
    assert_eq!((&one.only()["actor"], &two.only()["actor"]), (&"eve".into(), &"eve".into()));
    assert_eq!((one.lost(), two.lost()), (String::new(), String::new()));
}
