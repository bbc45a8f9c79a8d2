//! Tests of which values events inherit from which spans, and of the events' own values.

use serde_json::json;
use tracing::{Level, Span, debug_span, field::Empty, info, info_span, trace_span};

use super::{Json, Log, Rules};

/// Returns rules under which events also inherit these names.
fn inheriting(names: &[&str]) -> Rules {
    Rules { inherit: names.iter().map(|name| (*name).to_owned()).collect(), ..Rules::default() }
}

/// Emits an event inside a span, and returns its record.
#[track_caller]
fn inside(log: &Log, span: Span) -> Json {
    let _entered = span.entered();
    tracing::error!(target: "audit", action = "a");
    log.only()
}

/// An inherited actor once replaced the empty text, as if the service itself had acted.
#[test]
fn an_empty_text_is_recorded_and_not_replaced_by_an_inherited_value() {
    let log = Log::new();
    let _guard = log.install();
    let _service =
        info_span!("service", actor = "service-account", source = "::1", request_id = "r").entered();
    info!(target: "audit", action = "a", actor = "", request_id = %"");
    let record = log.only();
    assert_eq!(
        (&record["actor"], &record["request_id"], &record["source"]),
        (&"".into(), &"".into(), &"::1".into())
    );
    assert_eq!(record["incomplete"], json!(["actor", "request_id"]));

    info!(target: "audit", action = "a", actor = None::<&str>, request_id = Empty);
    let record = log.only();
    assert_eq!((&record["actor"], &record["request_id"]), (&"service-account".into(), &"r".into()));
    assert_eq!(record.get("incomplete"), None);

    info!(target: "audit", action = "a", actor = ?"");
    assert_eq!(log.only()["incomplete"], json!(["actor"]), "two quotes are an empty text too");

    let inner = inside(&log, info_span!("nobody", actor = ""));
    assert_eq!((&inner["actor"], &inner["incomplete"]), (&"".into(), &json!(["actor"])));
    let inner = inside(&log, info_span!("nobody", actor = ?"", request_id = "\"\""));
    assert_eq!(inner["incomplete"], json!(["actor", "request_id"]), "nor from a span");
    let span = info_span!("later", actor = Empty);
    span.record("actor", "mia");
    span.record("actor", "");
    for _ in 0..5 {
        assert_eq!(inside(&log, span.clone())["actor"], "");
    }
}

#[test]
fn named_members_are_texts_wherever_they_come_from() {
    let log = Log::with(inheriting(&["resource", "outcome"]));
    let _guard = log.install();
    let _span =
        info_span!("s", resource = 7_u32, outcome = true, session_id = 1.5, request_id = i64::MIN).entered();
    info!(target: "audit", action = 5, actor = -3_i8, reason = f64::NAN, source = u128::MAX, trace_id = false, message = 9);
    let record = log.only();
    for (member, text) in [
        ("action", "5"),
        ("actor", "-3"),
        ("resource", "7"),
        ("outcome", "true"),
        ("reason", "NaN"),
        ("session_id", "1.5"),
        ("request_id", "-9223372036854775808"),
        ("source", "340282366920938463463374607431768211455"),
        ("trace_id", "false"),
        ("message", "9"),
    ] {
        assert_eq!(record[member], text, "{member}");
    }
}

/// The `outcome` of a cache's span was once recorded as that of the application's event.
#[test]
fn events_inherit_who_and_where_but_not_what_happened() {
    let span = || {
        info_span!(
            "op",
            action = "get",
            resource = "key",
            outcome = "miss",
            reason = "retry 2",
            actor = "mia",
            session_id = "s",
            request_id = "r",
            source = "::1",
            trace_id = "t",
            span_id = "i",
        )
    };
    let log = Log::new();
    let _guard = log.install();
    let record = inside(&log, span());
    assert_eq!(record["action"], "a");
    for missing in ["resource", "outcome", "reason"] {
        assert_eq!(record.get(missing), None, "{missing}");
    }
    for (member, value) in [
        ("actor", "mia"),
        ("session_id", "s"),
        ("request_id", "r"),
        ("source", "::1"),
        ("trace_id", "t"),
        ("span_id", "i"),
    ] {
        assert_eq!(record[member], value, "{member}");
    }
    let named = Log::with(inheriting(&["outcome", "action"]));
    let _guard = named.install();
    let record = inside(&named, span());
    assert_eq!(
        (&record["action"], &record["outcome"], record.get("reason")),
        (&"a".into(), &"miss".into(), None)
    );
    let _entered = span().entered();
    info!(target: "audit", "no action of its own");
    assert_eq!(named.only()["action"], "get");
}

/// The span of a request is at DEBUG in `tower-http`. Its `actor` was once missing from events.
#[test]
fn spans_are_used_down_to_debug_unless_another_level_is_set() {
    #[track_caller]
    fn check(rules: Rules, expected: [bool; 3]) {
        let log = Log::with(rules);
        let _guard = log.install();
        let spans: [fn() -> Span; 3] = [
            || info_span!("request", actor = "mia"),
            || debug_span!("request", actor = "mia"),
            || trace_span!("request", actor = "mia"),
        ];
        assert_eq!(spans.map(|span| inside(&log, span()).get("actor").is_some()), expected);
    }
    check(Rules::default(), [true, true, false]);
    check(Rules { level: Level::TRACE, ..Rules::default() }, [true, true, true]);
    check(Rules { level: Level::WARN, ..Rules::default() }, [true, true, false]);
    check(Rules { span_level: Some(Level::TRACE), ..Rules::default() }, [true, true, true]);
    check(
        Rules { span_level: Some(Level::INFO), level: Level::TRACE, ..Rules::default() },
        [true, false, false],
    );
}

#[test]
fn nothing_is_inherited_from_spans_of_other_targets() {
    let rules = Rules { inherit_from: vec!["my_app".to_owned(), "billing::".to_owned()], ..Rules::default() };
    let log = Log::with(rules);
    let _guard = log.install();
    let _outer = info_span!(target: "my_app", "outer", actor = "mia").entered();
    for (span, expected) in [
        (info_span!(target: "my_app", "s", actor = "sam"), "sam"),
        (info_span!(target: "my_app::http", "s", actor = "sam"), "sam"),
        (info_span!(target: "my_app.http", "s", actor = "sam"), "sam"),
        (info_span!(target: "billing::refund", "s", actor = "sam"), "sam"),
        (info_span!(target: "audit", "s", actor = "sam"), "sam"),
        (info_span!(target: "my_apple", "s", actor = "sam"), "mia"),
        (info_span!(target: "my_app_2", "s", actor = "sam"), "mia"),
        (info_span!(target: "billing", "s", actor = "sam"), "mia"),
        (info_span!(target: "cache", "s", actor = "sam"), "mia"),
    ] {
        let shown = format!("{span:?}");
        assert_eq!(inside(&log, span)["actor"], expected, "{shown}");
    }
}

#[test]
fn an_explicit_member_that_was_inherited_is_listed_as_incomplete() {
    let explicit = ["actor", "resource"].iter().filter_map(|name| super::super::named_bit(name)).sum();
    let log = Log::with(Rules {
        explicit,
        enrich: Some(Box::new(|event| {
            if event.has("fill") {
                event.set("actor", "from the task");
            }
        })),
        ..Rules::default()
    });
    let _guard = log.install();
    let span = info_span!("held over an await", actor = "sam").entered();
    for _ in 0..5 {
        info!(target: "audit", action = "a", resource = "r");
        let record = log.only();
        assert_eq!((&record["actor"], &record["incomplete"]), (&"sam".into(), &json!(["actor"])));
    }
    info!(target: "audit", action = "a", resource = "r", actor = "mia");
    assert_eq!(log.only().get("incomplete"), None);
    drop(span);
    info!(target: "audit", action = "a", actor = "mia");
    assert_eq!(log.only()["incomplete"], json!(["resource"]));
    info!(target: "audit", action = "a", resource = "r", fill = 1);
    let record = log.only();
    assert_eq!((&record["actor"], record.get("incomplete")), (&"from the task".into(), None));
}
