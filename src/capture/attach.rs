//! Checks, at one moment, that audit events and the spans around them reach the layer of a log.
//!
//! A probe takes the same path as the macros of `tracing`, with a callsite of its own. On that path are the levels
//! compiled in, the maximum level, the interest of the subscriber, `enabled` and `event_enabled`. The layer in question
//! notes that it was asked, and vetoes the event, so that no layer records it.

use std::{
    cell::Cell,
    collections::HashMap,
    fmt,
    path::Path,
    ptr,
    sync::{Mutex, OnceLock, PoisonError},
    thread,
};

use tracing::level_filters::STATIC_MAX_LEVEL;
use tracing_core::{
    Callsite, Dispatch, Event, Level, LevelFilter, Metadata, Subscriber,
    callsite::{Identifier, rebuild_interest_cache},
    dispatcher,
    field::{FieldSet, Value},
    metadata::Kind,
    subscriber::{Interest, NoSubscriber},
};
use tracing_subscriber::{
    Registry,
    layer::{Context, Layer, Layered, SubscriberExt as _},
};

use super::{
    AuditLayer, Capture,
    rules::{TAG, is_audit_target},
};
use crate::error::Error;

/// The name of every probe. Its address identifies a probe.
static PROBE: &str = "tracing-audit probe";

/// The target of the span probe if only the target `audit` was given: a stand-in for the application's own.
const ANY_TARGET: &str = "your_application";

static EVENT_FIELDS: &[&str] = &["message", "action", "actor", TAG];
static SPAN_FIELDS: &[&str] = &["actor"];

/// Which layer of the log was asked about the callsite of a probe.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum Asked {
    #[default]
    Nobody,
    /// A layer that was added to a subscriber.
    Registered,
    /// A layer that was never added to one.
    Unregistered,
}

/// The parts of the log's layer that a probe has reached so far.
#[derive(Debug, Clone, Copy, Default)]
struct Traces {
    /// The log whose layer is looked for.
    log: u64,
    asked: Asked,
    /// The address of the filter that was asked last. Each layer has a filter of its own.
    filter: Option<usize>,
    /// Whether several filters were asked: the layer of each would record the event.
    is_doubled: bool,
    /// Whether a layer was asked about the event.
    layer: bool,
}

thread_local! {
    /// The probe that runs on this thread.
    static TRACES: Cell<Option<Traces>> = const { Cell::new(None) };
}

/// Returns whether metadata belong to a probe.
pub(super) fn is_probe(metadata: &Metadata<'_>) -> bool {
    ptr::eq(metadata.name().as_ptr(), PROBE.as_ptr())
}

/// Notes something about the current probe, if this is one for the log. Returns whether it is.
fn met(metadata: &Metadata<'_>, log: u64, note: impl FnOnce(&mut Traces)) -> bool {
    if !is_probe(metadata) {
        return false;
    }
    let Some(mut traces) = TRACES.get().filter(|traces| traces.log == log) else { return false };
    note(&mut traces);
    TRACES.set(Some(traces));
    true
}

/// Notes that the filter of a log was asked about a callsite.
pub(super) fn met_callsite(metadata: &Metadata<'_>, log: u64, is_registered: bool) {
    met(metadata, log, |traces| {
        if !is_registered {
            traces.asked = Asked::Unregistered;
        } else if traces.asked == Asked::Nobody {
            traces.asked = Asked::Registered;
        }
    });
}

/// Notes that the filter of a log, at this address, was asked whether it enables something.
pub(super) fn met_filter(metadata: &Metadata<'_>, log: u64, address: usize) {
    met(metadata, log, |traces| {
        let before = traces.filter.replace(address);
        traces.is_doubled |= before.is_some_and(|before| before != address);
    });
}

/// Notes that the layer of a log was asked about an event. Returns whether that is the log being probed.
pub(super) fn met_layer(metadata: &Metadata<'_>, log: u64) -> bool {
    met(metadata, log, |traces| traces.layer = true)
}

/// Returns whether the calling thread has a subscriber.
pub(super) fn has_subscriber() -> bool {
    dispatcher::get_default(|dispatch| !dispatch.is::<NoSubscriber>())
}

/// A fault of a subscriber.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Flaw {
    /// Some events or spans do not reach the log: which, and why.
    Hidden(String),
    /// The layer is in it more than once.
    Doubled,
}

impl fmt::Display for Flaw {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Hidden(why) => f.write_str(why),
            Self::Doubled => f.write_str("the layer is in the subscriber more than once"),
        }
    }
}

/// Checks that audit events with these targets reach the log exactly once, at every level from the log's own to
/// `ERROR`. Checks too that the spans from which they inherit reach it.
///
/// The subscriber is that of the calling thread, global or scoped.
pub(crate) fn ensure_attached(capture: &Capture, path: &Path, targets: &[&str]) -> Result<(), Error> {
    if capture.queue.is_forked() {
        // In a forked child, events still reach the layer, but no writer records them.
        return Err(Error::Forked { path: path.to_owned() });
    }
    // A callsite that is first reached on a thread without a subscriber can be cached as `never`, and then stays
    // disabled on every thread: https://github.com/tokio-rs/tracing/issues/2874. Rebuilding the cache repairs that.
    // On a thread without a subscriber, rebuilding would instead disable all callsites in this way.
    if has_subscriber() {
        rebuild_interest_cache();
    }
    match prove(capture, targets) {
        Ok(()) => Ok(()),
        Err(Flaw::Doubled) => Err(Error::AttachedTwice { path: path.to_owned() }),
        Err(why) => {
            let mut reason = why.to_string();
            if is_proved_elsewhere(capture, targets) {
                reason += " (this is about the scoped subscriber of this thread; the global one is attached)";
            }
            Err(Error::NotAttached { path: path.to_owned(), reason })
        }
    }
}

/// Returns whether the check succeeds on a new thread, whose subscriber can only be the global one.
fn is_proved_elsewhere(capture: &Capture, targets: &[&str]) -> bool {
    let prove = || prove(capture, targets).is_ok();
    let prover = thread::Builder::new().name("audit-probe".to_owned());
    thread::scope(|scope| {
        prover.spawn_scoped(scope, prove).is_ok_and(|thread| thread.join().unwrap_or_default())
    })
}

/// Checks the subscriber of the calling thread.
pub(super) fn prove(capture: &Capture, targets: &[&str]) -> Result<(), Flaw> {
    dispatcher::get_default(|dispatch| prove_for(dispatch, capture, targets))
}

fn prove_for(dispatch: &Dispatch, capture: &Capture, targets: &[&str]) -> Result<(), Flaw> {
    if dispatch.is::<NoSubscriber>() {
        return Err(Flaw::Hidden(
            "no audit event reaches the log, because no tracing subscriber is set; add the layer to one and call \
             `init()` before `ensure_attached`"
                .to_owned(),
        ));
    }
    let targets = if targets.is_empty() { &["audit"] } else { targets };
    let levels = [Level::ERROR, Level::WARN, Level::INFO, Level::DEBUG, Level::TRACE];
    let levels = levels.into_iter().filter(|level| *level <= capture.rules.level);

    // Whether the log's layer is in the subscriber at all: decides which advice the error gives.
    let mut was_met = dispatch.downcast_ref::<AuditLayer>().is_some_and(|layer| layer.is_of(capture));
    let mut is_doubled = false;
    let mut events = Vec::new();
    for (target, level) in targets.iter().flat_map(|target| levels.clone().map(move |level| (*target, level)))
    {
        let (traces, obstacle) = probe(dispatch, capture, target, level, Kind::EVENT);
        was_met |= traces.asked != Asked::Nobody || traces.filter.is_some();
        is_doubled |= traces.is_doubled;
        if let Some(obstacle) = obstacle {
            events.push(Hidden { target, level, obstacle });
        }
    }

    let mut spans = Vec::new();
    // Probes the given targets from whose spans events inherit. If there is none, all targets of the setting
    // `inherit_from`; without that setting, a span of any target.
    let may_pass = |target: &&str| capture.rules.listens_to_target(target);
    let mut span_targets: Vec<&str> =
        targets.iter().copied().filter(|target| !is_audit_target(target)).filter(may_pass).collect();
    if span_targets.is_empty() {
        span_targets.extend(capture.rules.inherit_from.iter().map(String::as_str));
    }
    if span_targets.is_empty() {
        span_targets.push(ANY_TARGET);
    }
    for target in span_targets {
        // Without a span level of its own, the log uses spans below its level only if they are enabled.
        let level = capture.rules.span_level.unwrap_or(capture.rules.level);
        let (traces, obstacle) = probe(dispatch, capture, target, level, Kind::SPAN);
        was_met |= traces.asked != Asked::Nobody || traces.filter.is_some();
        if let Some(obstacle) = obstacle {
            spans.push(Hidden { target, level, obstacle });
        }
    }
    clear_filter_state();
    match explain(&events, &spans, was_met) {
        Some(message) => Err(Flaw::Hidden(message)),
        None if is_doubled => Err(Flaw::Doubled),
        None => Ok(()),
    }
}

/// The reason why a callsite does not reach the layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Obstacle {
    /// A feature of the `tracing` crate removes it from the program.
    Compiled,
    /// It is more verbose than the maximum level of all subscribers.
    MaxLevel(LevelFilter),
    /// The subscriber has no interest in such a callsite.
    Callsite,
    /// The subscriber does not enable it.
    Disabled,
    /// The subscriber enables it, but does not ask the layer.
    PassedBy,
    /// Another layer vetoes the event.
    Vetoed,
    /// A `reload` layer received the layer later, so that its filter was never registered.
    Reloaded,
}

/// A probe that did not reach the layer.
#[derive(Debug)]
struct Hidden<'a> {
    target: &'a str,
    level: Level,
    obstacle: Obstacle,
}

/// Sends a probe on the path of the macros, until an obstacle stops it.
fn probe(
    dispatch: &Dispatch,
    capture: &Capture,
    target: &str,
    level: Level,
    kind: Kind,
) -> (Traces, Option<Obstacle>) {
    // The macros compare with both levels before they look at their callsite.
    if level > STATIC_MAX_LEVEL {
        return (Traces::default(), Some(Obstacle::Compiled));
    }
    if level > LevelFilter::current() {
        return (Traces::default(), Some(Obstacle::MaxLevel(LevelFilter::current())));
    }
    let metadata = callsite(target, level, kind);
    TRACES.set(Some(Traces { log: capture.id, ..Traces::default() }));
    let obstacle = walk(dispatch, metadata);
    let traces = TRACES.take().unwrap_or_default();
    let obstacle = obstacle.or(match traces {
        Traces { filter: None, .. } => Some(Obstacle::PassedBy),
        Traces { layer: false, .. } if metadata.is_event() => Some(Obstacle::Vetoed),
        _ => None,
    });
    (traces, obstacle)
}

/// Asks the subscriber what the macros ask it, in the same order.
fn walk(dispatch: &Dispatch, metadata: &'static Metadata<'static>) -> Option<Obstacle> {
    let interest = dispatch.register_callsite(metadata);
    // The filter of such a layer has no id: in a debug build `tracing-subscriber` panics if it is asked more.
    if TRACES.get().is_some_and(|traces| traces.asked == Asked::Unregistered) {
        return Some(Obstacle::Reloaded);
    }
    if interest.is_never() {
        return Some(Obstacle::Callsite);
    }
    if !dispatch.enabled(metadata) {
        return Some(Obstacle::Disabled);
    }
    // Only a layer whose filter was asked is certain to veto the event. Otherwise other layers would print it.
    let is_met = TRACES.get().is_some_and(|traces| traces.filter.is_some());
    if metadata.is_event() && is_met {
        let tag = metadata.fields().field(TAG)?;
        let yes: &dyn Value = &true;
        dispatch.event(&Event::new(metadata, &metadata.fields().value_set(&[(&tag, Some(yes))])));
    }
    None
}

/// Describes what is hidden, by what, and how to fix it. Returns `None` if nothing is hidden.
fn explain(events: &[Hidden<'_>], spans: &[Hidden<'_>], was_met: bool) -> Option<String> {
    if events.is_empty() && spans.is_empty() {
        return None;
    }
    let mut message = String::new();
    if !was_met {
        message.push_str(
            "the layer of this log is not in the subscriber, or everything is hidden from it; \
             add `layer()` of the same log to the subscriber: ",
        );
    }
    if !events.is_empty() {
        message.push_str("audit events do not reach the log: ");
        message.push_str(&list(events));
    }
    if !spans.is_empty() {
        message.push_str(if events.is_empty() { "" } else { "; " });
        message.push_str(
            "spans do not reach the log, so that events would miss the `actor` and other fields \
             that they inherit: ",
        );
        message.push_str(&list(spans));
        message.push_str(
            "; put the filter on the layer that it is meant for, with `.with_filter(…)`, not in front of all",
        );
        if spans.iter().any(|hidden| hidden.target == ANY_TARGET) {
            message.push_str(
                ", or name the targets whose spans matter in `ensure_attached_for` if others may stay hidden",
            );
        }
    }
    if let Some(hidden) = events.iter().find(|hidden| is_filter(hidden.obstacle)) {
        let lowest = events.iter().map(|hidden| hidden.level).max().unwrap_or(hidden.level);
        let advice = format!(
            "; a global `EnvFilter` or `LevelFilter`, or an empty `Vec` of layers, hides events from \
             every layer, and without `RUST_LOG` an `EnvFilter` lets only ERROR through: give the other \
             layers filters of their own with `.with_filter(…)`, or add the directive `{}={}`",
            hidden.target,
            lowest.as_str().to_lowercase()
        );
        message.push_str(&advice);
    }
    Some(message)
}

/// Returns whether a filter of the application is the likely obstacle.
fn is_filter(obstacle: Obstacle) -> bool {
    matches!(obstacle, Obstacle::Callsite | Obstacle::Disabled | Obstacle::MaxLevel(_))
}

/// Lists which levels of which targets are hidden, and why.
fn list(hidden: &[Hidden<'_>]) -> String {
    let same = |a: &Hidden<'_>, b: &Hidden<'_>| a.target == b.target && a.obstacle == b.obstacle;
    let groups = hidden.chunk_by(same).filter_map(|group| {
        let first = group.first()?;
        let levels: Vec<&str> = group.iter().map(|hidden| hidden.level.as_str()).collect();
        let (levels, why) = (levels.join(", "), first.obstacle.explain());
        Some(format!("target `{}` at {levels}, because {why}", first.target))
    });
    groups.collect::<Vec<_>>().join("; ")
}

impl Obstacle {
    /// Returns the reason as a clause of a message.
    fn explain(self) -> String {
        match self {
            Self::Compiled => {
                "a `max_level_…` or `release_max_level_…` feature of `tracing` removes them from this build"
                    .to_owned()
            }
            Self::MaxLevel(max) => format!("no subscriber enables a level more verbose than {max}"),
            Self::Callsite => "a filter in front of the layer disables their call sites".to_owned(),
            Self::Disabled => "a filter in front of the layer, or behind it, disables them".to_owned(),
            Self::PassedBy => "they are enabled, but this layer is not asked".to_owned(),
            Self::Reloaded => {
                "a `reload` layer was given this layer after it was added to the subscriber, which leaves the \
                 layer's own filter without an id: a debug build panics at each event, and a release build records \
                 only what no filter of another layer refuses; add the layer itself when the subscriber is built, and reload the other layers"
                    .to_owned()
            }
            Self::Vetoed => {
                "a layer in front of it vetoes them in `event_enabled`: let that layer pass audit \
                             events, or give it a filter of its own with `.with_filter(…)`"
                    .to_owned()
            }
        }
    }
}

/// A callsite that is created while the program runs.
struct ProbeCallsite {
    metadata: OnceLock<Metadata<'static>>,
}

/// The metadata of a callsite before its own are set. No subscriber sees them.
static UNFINISHED: Metadata<'static> = {
    static NOBODY: ProbeCallsite = ProbeCallsite { metadata: OnceLock::new() };
    Metadata::new(
        "unfinished",
        "unfinished",
        Level::TRACE,
        None,
        None,
        None,
        FieldSet::new(&[], Identifier(&NOBODY)),
        Kind::HINT,
    )
};

impl Callsite for ProbeCallsite {
    /// Ignores the interest: each probe asks the subscriber anew.
    fn set_interest(&self, _: Interest) {}

    fn metadata(&self) -> &Metadata<'_> {
        self.metadata.get().unwrap_or(&UNFINISHED)
    }
}

/// Returns the callsite of a probe. Each is created once and leaked: `tracing` needs static metadata.
fn callsite(target: &str, level: Level, kind: Kind) -> &'static Metadata<'static> {
    type Key = (String, Level, bool);
    /// Guards the callsites created so far. Held only to look one up or add it.
    static CALLSITES: Mutex<Option<HashMap<Key, &'static Metadata<'static>>>> = Mutex::new(None);
    let is_span = kind == Kind::SPAN;
    let mut callsites = CALLSITES.lock().unwrap_or_else(PoisonError::into_inner);
    let known = callsites.get_or_insert_default().entry((target.to_owned(), level, is_span));
    known.or_insert_with(|| {
        let callsite: &'static ProbeCallsite =
            Box::leak(Box::new(ProbeCallsite { metadata: OnceLock::new() }));
        let target: &'static str = Box::leak(target.to_owned().into_boxed_str());
        let fields = FieldSet::new(if is_span { SPAN_FIELDS } else { EVENT_FIELDS }, Identifier(callsite));
        callsite
            .metadata
            .get_or_init(|| Metadata::new(PROBE, target, level, None, None, Some(target), fields, kind))
    })
}

/// A layer that disables everything.
struct Deny;

impl<S: Subscriber> Layer<S> for Deny {
    fn enabled(&self, _: &Metadata<'_>, _: Context<'_, S>) -> bool {
        false
    }
}

/// Clears the answers that per-layer filters keep for this thread.
///
/// The last answers are about a probe. If a callsite is cached as `always`, filters are not asked about its next event,
/// and those answers would be applied to it: <https://github.com/tokio-rs/tracing/issues/2519>. A subscriber that
/// disables something clears them.
fn clear_filter_state() {
    static DENYING: OnceLock<Layered<Deny, Registry>> = OnceLock::new();
    DENYING.get_or_init(|| Registry::default().with(Deny)).enabled(&UNFINISHED);
}
