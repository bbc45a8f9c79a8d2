//! OpenTelemetry trace and span ids in each record, added by `Builder::enrich` as in docs/events.md.

use std::path::Path;

use opentelemetry::trace::{SpanContext, TraceContextExt as _, TracerProvider as _};
use opentelemetry_sdk::trace::SdkTracerProvider;
use tracing::{Subscriber, info, info_span};
use tracing_audit::{AuditLog, Enrichment};
use tracing_opentelemetry::{OpenTelemetrySpanExt as _, get_otel_context};
use tracing_subscriber::{Registry, filter::filter_fn, prelude::*, registry::LookupSpan as _};

use crate::support::{child, events, fresh};

/// Returns the trace of an event, as in docs/events.md.
fn trace_of(event: &Enrichment<'_>) -> Option<SpanContext> {
    let (id, dispatch) = event.span().zip(event.dispatch())?;
    // The OpenTelemetry layer may not see the innermost span.
    let span = dispatch.downcast_ref::<Registry>()?.span(id)?;
    let context = span.scope().find_map(|span| get_otel_context(&span.id(), dispatch))?;
    Some(context.span().span_context().clone()).filter(SpanContext::is_valid)
}

fn add_trace(event: &mut Enrichment<'_>) {
    if let Some(trace) = trace_of(event) {
        event.set("trace_id", trace.trace_id());
        event.set("span_id", trace.span_id());
    }
}

fn subscriber(log: &AuditLog) -> impl Subscriber + Send + Sync + 'static {
    let tracer = SdkTracerProvider::builder().build().tracer("test");
    let layer = tracing_opentelemetry::layer().with_tracer(tracer);
    tracing_subscriber::registry()
        .with(layer.with_filter(filter_fn(|metadata| metadata.name() != "unseen")))
        .with(log.layer())
}

/// Emits an event in each of two spans and in none, and prints their trace and span ids.
fn emit() {
    let outer = info_span!("outer");
    // A span that only OpenTelemetry records.
    let inner = tracing::trace_span!(parent: &outer, "inner");
    for span in [&outer, &inner] {
        let context = span.context().span().span_context().clone();
        println!("\n@{} {}", context.trace_id(), context.span_id());
        span.in_scope(|| info!(target: "audit", action = "a", actor = "b"));
    }
    outer.in_scope(|| {
        info_span!("unseen", actor = "b").in_scope(|| info!(target: "audit", action = "a"));
    });
    info!(target: "audit", action = "a", actor = "b");
}

pub(crate) fn play(how: &str, path: &Path) {
    let log = AuditLog::builder(path).enrich(add_trace).open().unwrap();
    let subscriber = subscriber(&log);
    if how == "global" {
        subscriber.init();
        log.ensure_attached().unwrap();
        emit();
    } else {
        tracing::subscriber::with_default(subscriber, || {
            log.ensure_attached().unwrap();
            emit();
        });
    }
    log.close().unwrap();
}

#[test]
fn records_have_the_trace_and_the_span_of_opentelemetry() {
    for how in ["global", "scoped"] {
        let (_dir, path) = fresh();
        let output = child("traces", &path, &[how]).output().unwrap();
        assert!(output.status.success(), "{how}: {}", String::from_utf8_lossy(&output.stderr));
        let told = String::from_utf8(output.stdout).unwrap();
        let told: Vec<&str> = told.lines().filter_map(|line| line.strip_prefix('@')).collect();
        let events = events(&path);
        let recorded: Vec<String> = events
            .iter()
            .map(|event| {
                format!(
                    "{} {}",
                    event.trace_id().unwrap_or("-"),
                    event.get("span_id").map_or_else(|| "-".into(), ToString::to_string)
                )
            })
            .collect();
        assert_eq!(recorded, [told[0], told[1], told[0], "- -"], "{how}");
        assert_eq!(told[0].split(' ').next(), told[1].split(' ').next(), "one trace");
        assert_ne!(told[0], told[1]);
    }
}
