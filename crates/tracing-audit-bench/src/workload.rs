//! The one workload: an event with target, action, actor, resource, outcome and a number inside a
//! span with session and request; about 300 bytes of JSON.

use std::{
    cell::RefCell,
    time::{SystemTime, UNIX_EPOCH},
};

const ACTION: &str = "order.placed";
const ACTOR: &str = "mia.tanaka";
const RESOURCE: &str = "order/2026-11-21/000471";
const OUTCOME: &str = "accepted";
const MESSAGE: &str = "an order was placed";
const SESSION: &str = "s-1907-7f3a";
const REQUEST: &str = "r-4711-09bc";

/// One event to emit.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Event<'a> {
    pub(crate) number: u64,
    /// Whether the event is critical: durable when the macro returns, for tracing-audit in `Hybrid`.
    pub(crate) is_critical: bool,
    /// Text that makes the record longer.
    pub(crate) text: Option<&'a str>,
}

impl Event<'_> {
    pub(crate) const fn routine(number: u64) -> Self {
        Self { number, is_critical: false, text: None }
    }
}

/// Enters the span in which all events are emitted.
pub(crate) fn span() -> tracing::span::EnteredSpan {
    tracing::info_span!("request", session_id = SESSION, request_id = REQUEST).entered()
}

/// Emits the event through tracing.
pub(crate) fn emit(event: Event<'_>) {
    let number = event.number;
    match event {
        Event { is_critical: true, .. } => tracing::info!(
            target: "audit",
            severity = "critical",
            action = ACTION,
            actor = ACTOR,
            resource = RESOURCE,
            outcome = OUTCOME,
            number,
            "an order was placed"
        ),
        Event { text: None, .. } => tracing::info!(
            target: "audit",
            action = ACTION,
            actor = ACTOR,
            resource = RESOURCE,
            outcome = OUTCOME,
            number,
            "an order was placed"
        ),
        Event { text: Some(text), .. } => {
            // In two halves, because tracing-audit cuts a value beyond 16 KiB.
            let (first, second) = text.split_at(text.len() / 2);
            tracing::info!(
                target: "audit",
                action = ACTION,
                actor = ACTOR,
                resource = RESOURCE,
                outcome = OUTCOME,
                number,
                first,
                second,
                "an order was placed"
            );
        }
    }
}

/// Emits the same content as text, for loggers without fields.
macro_rules! as_text {
    ($log:path, $number:expr) => {
        $log!(
            "{{\"action\":\"{}\",\"actor\":\"{}\",\"resource\":\"{}\",\"outcome\":\"{}\",\"number\":{},\"session_id\":\"{}\",\"request_id\":\"{}\",\"message\":\"{}\",\"target\":\"audit\",\"module\":\"{}\"}}",
            $crate::workload::action(),
            $crate::workload::actor(),
            $crate::workload::resource(),
            $crate::workload::outcome(),
            $number,
            $crate::workload::session(),
            $crate::workload::request(),
            $crate::workload::message(),
            module_path!()
        )
    };
}
pub(crate) use as_text;

/// Defines functions that hide constants from the compiler, which could otherwise merge them into format strings. In an
/// application, these values are known only at run time.
macro_rules! opaque {
    ($($name:ident $value:ident),*) => {
        $(
            #[inline(never)]
            pub(crate) fn $name() -> &'static str {
                std::hint::black_box($value)
            }
        )*
    };
}
opaque!(action ACTION, actor ACTOR, resource RESOURCE, outcome OUTCOME);
opaque!(message MESSAGE, session SESSION, request REQUEST);

thread_local! {
    static LINE: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// Passes the event to a closure as one line of JSON, for contestants that store bytes.
pub(crate) fn with_line<T>(number: u64, use_line: impl FnOnce(&[u8]) -> T) -> T {
    LINE.with_borrow_mut(|line| {
        line.clear();
        let nanos = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos();
        let mut digits = itoa::Buffer::new();
        let mut member = |name: &str, value: &str, quote: &str| {
            for part in [",\"", name, "\":", quote, value, quote] {
                line.extend_from_slice(part.as_bytes());
            }
        };
        member("ts", digits.format(nanos), "");
        member("kind", "event", "\"");
        member("severity", "routine", "\"");
        member("level", "INFO", "\"");
        member("action", action(), "\"");
        member("actor", actor(), "\"");
        member("resource", resource(), "\"");
        member("outcome", outcome(), "\"");
        member("session_id", session(), "\"");
        member("request_id", request(), "\"");
        member("message", message(), "\"");
        member("target", "audit", "\"");
        member("number", digits.format(number), "");
        // The leading comma becomes the opening brace.
        line.splice(..1, *b"{").for_each(drop);
        line.extend_from_slice(b"}\n");
        use_line(line)
    })
}
