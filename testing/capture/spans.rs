//! Tests of what events inherit from spans, with and without the cache for the thread's last span.

use proptest::{collection::vec, option, prelude::*};
use serde_json::json;
use tracing::{
    Dispatch, Span,
    dispatcher::{set_default, with_default},
    field::Empty,
    info, info_span,
    span::EnteredSpan,
};
use tracing_subscriber::{
    filter::filter_fn,
    layer::{Layer, Layered, SubscriberExt as _},
    registry::Registry,
    reload,
};

use super::{Json, Log, Recorder, Rules, content::runner, install};

/// The number of events in a span after which the cache is used: the first look spans up, one gathers, the last uses it.
const ENOUGH: usize = 5;

const NAMES: [&str; 3] = ["actor", "session_id", "request_id"];

/// Returns what each of the last events inherited: actor, session, request.
#[track_caller]
fn inherited(log: &Log) -> Vec<Json> {
    log.records().iter().map(|record| NAMES.iter().map(|name| record[*name].clone()).collect()).collect()
}

/// Emits events from one callsite, because a new callsite invalidates the cache.
fn emit() {
    (0..ENOUGH).for_each(|_| info!(target: "audit", action = "a"));
}

#[derive(Debug, Clone)]
enum Step {
    /// Enters a span of one of four kinds.
    Enter(u8, u8),
    Leave,
    /// Records a value for one of the names in the span at a depth.
    Record(usize, usize, u8),
    /// Emits events in the current span, with or without an actor of their own.
    Emit(Option<u8>),
    /// Emits an event that names its parent by depth, or has none.
    EmitIn(Option<usize>),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let value = 0..3_u8;
    let step = prop_oneof![
        (0..4_u8, value.clone()).prop_map(|(kind, value)| Step::Enter(kind, value)),
        Just(Step::Leave),
        (0..4_usize, 0..NAMES.len(), value.clone())
            .prop_map(|(depth, name, value)| Step::Record(depth, name, value)),
        option::of(value).prop_map(Step::Emit),
        option::of(0..4_usize).prop_map(Step::EmitIn),
    ];
    vec(step, 1..40)
}

/// The values of a span, by name.
type Said = [Option<String>; NAMES.len()];

/// Open spans, each inside the previous one.
#[derive(Default)]
struct Spans(Vec<(EnteredSpan, Said)>);

impl Spans {
    /// Takes a step, and returns what its events must inherit.
    fn take(&mut self, step: &Step) -> Vec<Json> {
        match *step {
            Step::Enter(kind, value) => self.enter(kind, value.to_string()),
            Step::Leave => drop(self.0.pop()),
            Step::Record(depth, name, value) => self.record(depth, name, value.to_string()),
            Step::Emit(actor) => {
                let actor = actor.map(|actor| actor.to_string());
                (0..ENOUGH).for_each(|_| info!(target: "audit", action = "a", actor));
                return vec![inherits(actor, &self.0); ENOUGH];
            }
            Step::EmitIn(depth) => {
                // A span that no layer wants does not exist: `tracing` treats it as no parent.
                let parent = depth.and_then(|depth| self.0.get(depth)?.0.id());
                let around = depth.filter(|_| parent.is_some()).map_or(0, |depth| depth + 1);
                info!(target: "audit", parent: parent, action = "a");
                return vec![inherits(None, &self.0[..around])];
            }
        }
        Vec::new()
    }

    fn enter(&mut self, kind: u8, value: String) {
        let span = match kind {
            0 => info_span!("session", session_id = value, request_id = Empty),
            1 => info_span!("all", actor = value, session_id = value, request_id = value),
            2 => info_span!("empty", actor = Empty, session_id = Empty, request_id = Empty),
            _ => info_span!("barren", number = 1),
        };
        let said = match kind {
            0 => [None, Some(value), None],
            1 => NAMES.map(|_| Some(value.clone())),
            _ => Said::default(),
        };
        self.0.push((span.entered(), said));
    }

    fn record(&mut self, depth: usize, name: usize, value: String) {
        let Some((span, said)) = self.0.get_mut(depth) else { return };
        if span.has_field(NAMES[name]) {
            span.record(NAMES[name], &value);
            said[name] = Some(value);
        }
    }
}

impl Drop for Spans {
    fn drop(&mut self) {
        // Spans must be exited in reverse order.
        while self.0.pop().is_some() {}
    }
}

/// Returns what an event inherits, with or without an actor of its own.
fn inherits(actor: Option<String>, around: &[(EnteredSpan, Said)]) -> Json {
    let mut known: Said = [actor, None, None];
    for (_, said) in around.iter().rev() {
        for (known, said) in known.iter_mut().zip(said) {
            *known = known.take().or_else(|| said.clone());
        }
    }
    json!(known)
}

#[test]
fn the_nearest_span_with_a_value_wins_whatever_happened_before() {
    let log = Log::new();
    let alone = Dispatch::new(Registry::default().with(log.layer()));
    // With another layer that wants them, spans exist of which nothing is inherited.
    let beside_another = Dispatch::new(Registry::default().with(Recorder::default()).with(log.layer()));
    for dispatch in [alone, beside_another] {
        let _guard = set_default(&dispatch);
        let result = runner(1000).run(&steps(), |steps| {
            let mut spans = Spans::default();
            for step in steps {
                let expected = spans.take(&step);
                prop_assert_eq!(inherited(&log), expected);
            }
            Ok(())
        });
        result.unwrap();
    }
}

/// The id of a closed span is reused sooner or later.
#[test]
fn nothing_is_inherited_from_an_earlier_span_with_the_same_id() {
    type Open = fn(&Span) -> Span;
    let log = Log::new();
    let _guard = install(Registry::default().with(Recorder::default()).with(log.layer()));
    let (old, new) = (info_span!("connection", actor = "old"), info_span!("connection", actor = "new"));
    let opens: [(_, Open); 3] = [
        (Some("1"), |around| info_span!(parent: around, "request", session_id = "1")),
        (None, |around| info_span!(parent: around, "request", session_id = Empty)),
        (None, |around| info_span!(parent: around, "request", number = 1)),
    ];
    for (session, open) in opens {
        let emit_in = |span: &Span| {
            span.in_scope(emit);
        };
        let span = open(&old);
        emit_in(&span);
        let number = span.id();
        drop(span);
        let again =
            (0..1 << 20).map(|_| open(&new)).find(|span| span.id() == number).expect("numbers come again");
        emit_in(&again);
        let mut expected = vec![json!(["old", session, null]); ENOUGH];
        expected.extend(vec![json!(["new", session, null]); ENOUGH]);
        assert_eq!(inherited(&log), expected);
    }
}

/// Each subscriber numbers its spans from one.
#[test]
fn spans_of_two_subscribers_are_distinguished() {
    let log = Log::new();
    let one = Dispatch::new(Registry::default().with(log.layer()));
    let other = Dispatch::new(Registry::default().with(log.layer()));
    let span_in = |dispatch: &Dispatch, session: &str| {
        with_default(dispatch, || info_span!("request", session_id = session))
    };
    let spans = [(&one, span_in(&one, "one")), (&other, span_in(&other, "other"))];
    assert_eq!(spans[0].1.id(), spans[1].1.id());
    for _ in 0..ENOUGH {
        for (dispatch, span) in &spans {
            with_default(dispatch, || {
                span.in_scope(emit);
            });
        }
    }
    let expected: Vec<Json> = (0..ENOUGH)
        .flat_map(|_| ["one", "other"])
        .flat_map(|session| vec![json!([null, session, null]); ENOUGH])
        .collect();
    assert_eq!(inherited(&log), expected);
}

/// A subscriber whose layer was removed may still have spans with the ids of another subscriber's spans.
#[test]
fn a_layer_that_is_removed_and_reused_distinguishes_its_spans() {
    type Boxed = Option<Box<dyn Layer<Registry> + Send + Sync>>;
    let log = Log::new();
    let installed = |layer: Boxed| {
        let (layer, handle) = reload::Layer::<Boxed, Registry>::new(layer);
        (Dispatch::new(Registry::default().with(layer)), handle)
    };
    let emit_in = |dispatch: &Dispatch, span: &Span| {
        with_default(dispatch, || {
            span.in_scope(emit);
        });
    };
    let open =
        |dispatch: &Dispatch, session| with_default(dispatch, || info_span!("request", session_id = session));
    let (one, handle) = installed(Some(log.layer().boxed()));
    let (other, other_handle) = installed(Some(log.layer().boxed()));
    let (span, another) = (open(&one, "one"), open(&other, "other"));
    assert_eq!(span.id(), another.id());
    let swap = || {
        let (mut layer, mut other_layer) = (None, None);
        handle.modify(|place| layer = place.take()).unwrap();
        other_handle.modify(|place| other_layer = place.take()).unwrap();
        handle.modify(|place| *place = other_layer).unwrap();
        other_handle.modify(|place| *place = layer).unwrap();
    };
    emit_in(&one, &span);
    swap();
    emit_in(&other, &another);
    emit_in(&one, &span);
    // The layer is also removed from a subscriber that continues without one.
    let mut taken = None;
    handle.modify(|layer| taken = layer.take()).unwrap();
    let (third, _handle) = installed(taken);
    let last = open(&third, "third");
    assert_eq!(span.id(), last.id());
    emit_in(&third, &last);
    let expected = ["one", "other", "one", "third"].map(|session| vec![json!([null, session, null]); ENOUGH]);
    assert_eq!(inherited(&log), expected.concat());
}

/// A span that was created while the layer was removed can be given a value after the layer is back.
#[test]
fn a_span_that_the_layer_did_not_see_is_looked_up_each_time() {
    type Boxed = Option<Box<dyn Layer<Layered<Recorder, Registry>> + Send + Sync>>;
    let log = Log::new();
    let (layer, handle) = reload::Layer::<Boxed, _>::new(Some(log.layer().boxed()));
    let _guard = install(Registry::default().with(Recorder::default()).with(layer));
    let mut taken = None;
    handle.modify(|layer| taken = layer.take()).unwrap();
    let outer = info_span!("connection", actor = Empty).entered();
    handle.modify(|layer| *layer = taken).unwrap();
    let _inner = info_span!("request", session_id = "1").entered();
    emit();
    outer.record("actor", "mia");
    emit();
    let expected = [json!([null, "1", null]), json!(["mia", "1", null])]
        .map(|inherited_values| vec![inherited_values; ENOUGH]);
    assert_eq!(inherited(&log), expected.concat());
}

/// Rules differ between logs, and so do the inherited values.
#[test]
fn each_log_inherits_by_its_own_rules() {
    let plain = Log::new();
    let mut rules = Rules::default();
    assert!(rules.redact.insert("session_id"));
    let hushed = Log::with(rules);
    let _guard = install(Registry::default().with(plain.layer()).with(hushed.layer()));
    let _span = info_span!("request", session_id = "secret").entered();
    emit();
    assert_eq!(inherited(&plain), vec![json!([null, "secret", null]); ENOUGH]);
    assert_eq!(inherited(&hushed), vec![json!([null, "[redacted]", null]); ENOUGH]);
}

#[test]
fn a_value_that_another_thread_records_in_the_span_is_inherited() {
    let log = Log::new();
    let _guard = log.install();
    let outer = info_span!("connection", actor = Empty).entered();
    let inner = info_span!("request", session_id = "1").entered();
    emit();
    let span: Span = (*outer).clone();
    std::thread::spawn(move || {
        span.record("actor", "mia");
    })
    .join()
    .unwrap();
    emit();
    drop((inner, outer));
    let mut expected = vec![json!([null, "1", null]); ENOUGH];
    expected.extend(vec![json!(["mia", "1", null]); ENOUGH]);
    assert_eq!(inherited(&log), expected);
}

/// Fields that are no named members are not gathered, and must still be inherited.
#[test]
fn fields_named_by_the_application_are_inherited_each_time() {
    let log = Log::with(Rules { inherit: vec!["tenant".to_owned()], ..Rules::default() });
    let _guard = log.install();
    let _connection = info_span!("connection", tenant = "t1").entered();
    let _request = info_span!("request", actor = "mia", session_id = "1").entered();
    emit();
    let inherited_values = log.records();
    let inherited_values = inherited_values
        .iter()
        .map(|record| json!([record["actor"], record["session_id"], record["fields"]]));
    assert_eq!(inherited_values.collect::<Vec<_>>(), vec![json!(["mia", "1", {"tenant": "t1"}]); ENOUGH]);
}

/// For example a task that is spawned inside a request and runs in a span of its own.
#[test]
fn enclosing_spans_count_even_if_the_thread_is_not_in_them() {
    let log = Log::new();
    let dispatch = Dispatch::new(Registry::default().with(Recorder::default()).with(log.layer()));
    let (request, work) = with_default(&dispatch, || {
        let request = info_span!("request", actor = "mia");
        let work = request.in_scope(|| info_span!("work", number = 1));
        (request, work)
    });
    let elsewhere = std::thread::spawn(move || {
        with_default(&dispatch, || {
            work.in_scope(emit);
        });
    });
    elsewhere.join().unwrap();
    drop(request);
    assert_eq!(inherited(&log), vec![json!(["mia", null, null]); ENOUGH]);
}

#[test]
fn a_span_that_a_filter_hides_from_the_layer_does_not_hide_those_around_it() {
    let log = Log::new();
    let layer = log.layer().with_filter(filter_fn(|metadata| metadata.name() != "hidden"));
    let _guard = install(Registry::default().with(Recorder::default()).with(layer));
    let _request = info_span!("request", session_id = "1").entered();
    let _hidden = info_span!("hidden", actor = "mia").entered();
    emit();
    assert_eq!(inherited(&log), vec![json!([null, "1", null]); ENOUGH]);
}
