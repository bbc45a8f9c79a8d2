//! Tests of values that an application adds to events, and of events from `#[instrument]`.

use std::fmt;

use serde_json::json;
use tracing::{info, info_span, instrument};
use tracing_subscriber::{layer::SubscriberExt as _, registry::Registry};

use super::{Json, Log, Recorder, Rules, emit_through, install};
use crate::{Severity, capture::Enrichment};

fn enriching(enrich: impl Fn(&mut Enrichment<'_>) + Send + Sync + 'static) -> Log {
    Log::with(Rules { enrich: Some(Box::new(enrich)), ..Rules::default() })
}

#[test]
fn an_application_adds_values_that_neither_event_nor_spans_have() {
    let log = enriching(|event| {
        assert!(event.has("action") && !event.has("tenant"));
        event.set("actor", "task");
        event.set("trace_id", format_args!("{:04x}", 255));
        event.set("tenant", "t1");
        event.set("tenant", "t2");
        event.set_u64("shard", 3);
        event.set_i64("delta", i64::MIN);
        event.set_bool("replayed", true);
        event.set("api_key", "hush");
        event.set_u64("span_id", 7);
        event.set("audit", "spent");
    });
    let _guard = log.install();
    info!(target: "audit", action = "a");
    let record = log.only();
    assert_eq!(
        (&record["actor"], &record["trace_id"], &record["span_id"]),
        (&"task".into(), &"00ff".into(), &"7".into())
    );
    let expected = json!({
        "tenant": "t1", "shard": 3, "delta": "-9223372036854775808", "replayed": true, "api_key": "[redacted]",
    });
    assert_eq!((&record["fields"], &record["redacted"]), (&expected, &json!(["api_key"])));
    assert_eq!((record.get("repeated"), record.get("incomplete")), (None, None));

    let _span = info_span!("s", actor = "span").entered();
    info!(target: "audit", action = "a", trace_id = "");
    let record = log.only();
    assert_eq!((&record["actor"], &record["trace_id"]), (&"span".into(), &"".into()), "existing values stay");
}

#[test]
fn an_added_severity_can_make_an_event_critical() {
    let log = enriching(|event| event.set("severity", "critical"));
    let _guard = log.install();
    info!(target: "audit", action = "a", actor = "b");
    info!(target: "audit", action = "a", actor = "b", severity = "routine");
    let severities: Vec<Json> = log.records().iter().map(|record| record["severity"].clone()).collect();
    assert_eq!(severities, [Severity::Critical.as_str(), "routine"]);
}

#[test]
fn a_closure_that_panics_never_ends_or_emits_loses_only_its_own_value() {
    struct Endless;
    impl fmt::Display for Endless {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            loop {
                f.write_str("0123456789")?;
            }
        }
    }
    let log = enriching(|event| {
        event.set("before", "b");
        event.set("endless", Endless);
        emit_through(event.dispatch().unwrap(), "audit", tracing::Level::INFO, "nested");
        panic!("in the closure");
    });
    let _guard = install(Registry::default().with(log.layer()));
    info!(target: "audit", action = "a", actor = "b");
    assert_eq!(log.lost(), "1 routine reentrant");
    let mut records = log.records();
    records.retain(|record| record["kind"] == "event");
    let [record] = &records[..] else { panic!("{records:#?}") };
    assert_eq!((&record["action"], &record["fields"]["before"]), (&"a".into(), &"b".into()));
    assert_eq!(record["truncated"]["endless"]["stopped"], true);
    assert_eq!(record["incomplete"], json!(["enrich"]));
}

/// Once a scoped subscriber exists, a layer cannot ask `tracing` for the current span or subscriber.
#[test]
fn a_closure_is_given_the_span_and_the_subscriber() {
    let log = enriching(|event| {
        let name = event.dispatch().and_then(|dispatch| {
            let registry = dispatch.downcast_ref::<Registry>()?;
            let span = tracing_subscriber::registry::LookupSpan::span(registry, event.span()?)?;
            Some(span.name())
        });
        event.set("span", name.unwrap_or("none"));
    });
    let _guard = log.install();
    let outer = info_span!("outer");
    // A span of which nothing is inherited, so the layer has no interest in it.
    let inner = tracing::trace_span!("inner");
    let in_span = |emit: fn()| {
        emit();
        log.only()["fields"]["span"].clone()
    };
    assert_eq!(in_span(|| info!(target: "audit", action = "a")), "none");
    let _everything = install(Registry::default().with(log.layer()).with(Recorder::default()));
    drop((outer, inner));
    let (outer, inner) = (info_span!("outer"), tracing::trace_span!("inner"));
    let _outer = outer.enter();
    assert_eq!(in_span(|| info!(target: "audit", action = "a")), "outer");
    let _inner = inner.enter();
    assert_eq!(in_span(|| info!(target: "audit", action = "a")), "inner");
    info!(target: "audit", parent: &outer, action = "a");
    assert_eq!(log.only()["fields"]["span"], "outer");
    info!(target: "audit", parent: None, action = "a");
    assert_eq!(log.only()["fields"]["span"], "none");
    let closed = info_span!("closed").id();
    info!(target: "audit", parent: closed, action = "a");
    assert_eq!(log.only()["fields"]["span"], "none", "a span that has closed is none");
}

/// The thread may still be in the span of another task, so the closure gives the right actor.
#[test]
fn an_explicit_member_replaces_an_inherited_one() {
    let explicit = super::super::named_bit("actor").unwrap();
    let enrich = |event: &mut Enrichment<'_>| {
        event.set("actor", "of the task");
        event.set("actor", "again");
        event.set("source", "of the task");
    };
    let log = Log::with(Rules { explicit, enrich: Some(Box::new(enrich)), ..Rules::default() });
    let _guard = log.install();
    let _span = info_span!("s", actor = "of another", source = "of the span").entered();
    info!(target: "audit", action = "a");
    let record = log.only();
    assert_eq!((&record["actor"], &record["source"]), (&"of the task".into(), &"of the span".into()));
    assert_eq!((record.get("incomplete"), record.get("repeated")), (None, None));
    info!(target: "audit", action = "a", actor = "");
    let record = log.only();
    assert_eq!(
        (&record["actor"], &record["incomplete"]),
        (&"".into(), &json!(["actor"])),
        "the event's own value stays"
    );
}

#[derive(Debug)]
struct Refused;

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("refused by policy")
    }
}

#[instrument(target = "audit", err, ret)]
fn withdraw(actor: &str, amount: u64) -> Result<&'static str, Refused> {
    if amount > 100 { Err(Refused) } else { Ok("card 4929 0000") }
}

#[test]
fn instrument_records_that_a_function_returned_but_not_the_value() {
    let log = Log::new();
    let _guard = log.install();
    withdraw("mia", 5).unwrap();
    let record = log.only();
    assert_eq!((&record["actor"], &record["fields"]), (&"mia".into(), &json!({"return": "[redacted]"})));
    assert_eq!((&record["severity"], &record["redacted"]), (&"routine".into(), &json!(["return"])));
    assert_eq!(record["incomplete"], json!(["action"]));

    withdraw("mia", 500).unwrap_err();
    let record = log.only();
    assert_eq!(
        (&record["actor"], &record["fields"]),
        (&"mia".into(), &json!({"error": "refused by policy"}))
    );
    assert_eq!((&record["severity"], &record["level"]), (&"critical".into(), &"ERROR".into()));
}

#[test]
fn the_returned_value_is_recorded_on_request() {
    let mut rules = Rules::default();
    assert!(rules.redact.keep("return"));
    let log = Log::with(rules);
    let _guard = log.install();
    withdraw("mia", 5).unwrap();
    assert_eq!(log.only()["fields"], json!({"return": "\"card 4929 0000\""}));
}
