//! What spans pass on to the events inside them, kept encoded in the registry.

use std::sync::{Arc, Weak};

use tracing_core::{Event, Subscriber, span::Id};
use tracing_subscriber::{
    layer::Context,
    registry::{Extensions, LookupSpan, SpanRef},
};

use super::{
    event::{Piece, Values},
    plan::Role,
    rules::{NAMED, Rules},
};

/// The values of one span that events inherit, for each log. A span extension.
#[derive(Debug, Default)]
pub(super) struct Inherited {
    logs: Vec<OfLog>,
}

#[derive(Debug)]
struct OfLog {
    log: u64,
    values: Vec<Value>,
    whole: Option<Whole>,
    /// Another one whenever values are recorded, and none when the span has closed.
    version: Arc<()>,
}

/// All members in one piece, where all are named and nothing happened to any: most spans.
#[derive(Debug)]
struct Whole {
    known: u32,
    pieces: Box<[(usize, Piece)]>,
    members: Box<[u8]>,
}

impl OfLog {
    fn fill(&self, values: &mut Values) {
        if let Some(whole) = &self.whole
            && values.inherit_all(whole.known, &whole.pieces, &whole.members)
        {
            return;
        }
        for value in &self.values {
            values.inherit(value.role, value.name, &value.piece, &value.member);
        }
    }
}

impl Whole {
    fn of(values: &[Value]) -> Option<Self> {
        let (mut known, mut pieces, mut members) = (0, Vec::new(), Vec::new());
        for value in values {
            let Role::Named(index) = value.role else { return None };
            if !value.piece.is_unremarkable() {
                return None;
            }
            known |= 1 << index;
            pieces.push((index, value.piece.placed_at(members.len())));
            members.extend_from_slice(&value.member);
        }
        Some(Self { known, pieces: pieces.into(), members: members.into() })
    }
}

#[derive(Debug)]
struct Value {
    role: Role,
    name: &'static str,
    piece: Piece,
    member: Box<[u8]>,
}

/// How many spans around an event are looked at, from the nearest outwards.
const MAX_SPANS: usize = 1024;

/// The values to pass on among those that were just collected from a span.
fn collected(values: &Values) -> Vec<Value> {
    let value = |role, name, piece: &Piece| Value {
        role,
        name,
        piece: *piece,
        member: values.bytes(Values::member(piece)).into(),
    };
    let named = values
        .named
        .iter()
        .filter_map(|(index, piece)| Some(value(Role::Named(index), *NAMED.get(index)?, piece)));
    let fields = values.fields.iter().map(|entry| value(Role::Field, entry.name, &entry.piece));
    named.chain(fields).collect()
}

/// Keeps what was collected with its span, also where it is nothing yet; a later value of a name stands for
/// the earlier one.
pub(super) fn keep<S>(span: &SpanRef<'_, S>, log: u64, values: &Values)
where
    S: for<'a> LookupSpan<'a>,
{
    let new = collected(values);
    let mut extensions = span.extensions_mut();
    if extensions.get_mut::<Inherited>().is_none() {
        extensions.insert(Inherited::default());
    }
    let Some(inherited) = extensions.get_mut::<Inherited>() else { return };
    if let Some(of_log) = inherited.logs.iter_mut().find(|of_log| of_log.log == log) {
        if new.is_empty() {
            return;
        }
        of_log.values.retain(|old| !new.iter().any(|new| new.name == old.name));
        of_log.values.extend(new);
        of_log.whole = Whole::of(&of_log.values);
        of_log.version = Arc::default();
    } else {
        let whole = Whole::of(&new);
        inherited.logs.push(OfLog { log, values: new, whole, version: Arc::default() });
    }
}

/// This event of a thread in the same span gathers what it inherits, and later ones use it: fewer gain nothing.
const WORTH_GATHERING: u32 = 3;

/// In which subscriber a span is looked up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Place {
    /// The address of the layer: the numbers of spans are their subscriber's.
    pub(super) layer: usize,
    /// How often callsites had been registered with the log. All are, whenever a subscriber is made or a layer
    /// reloaded: afterwards another layer may be at that address, or this one in another subscriber.
    pub(super) registered: u64,
}

/// What a thread's events inherit in the span that it was in last, in one piece: many are in the same span as
/// the one before. Where two layers take turns at each event, nothing is gathered.
#[derive(Debug, Default)]
pub(super) struct Recent {
    span: Option<(Place, Id)>,
    /// How many events have come there.
    events: u32,
    /// One for each span that can pass anything on, the innermost first. While all of them live, nothing was
    /// recorded in these spans, and the innermost is open: its number is its own, and those around it are open.
    versions: Vec<Weak<()>>,
    is_gathered: bool,
    known: u32,
    pieces: Vec<(usize, Piece)>,
    members: Vec<u8>,
}

impl Recent {
    fn come_to(&mut self, place: Place, span: &Id) {
        let is_there = self.span.as_ref().is_some_and(|(known, id)| *known == place && id == span);
        if !(is_there && self.versions.iter().all(|version| version.strong_count() > 0)) {
            self.span = Some((place, span.clone()));
            self.events = 0;
            self.is_gathered = false;
            self.versions.clear();
        }
        self.events = self.events.saturating_add(1);
    }

    /// Gathers what the span and those around it pass on. Where that cannot be passed on in one piece, or it
    /// could not be told that it is out of date, spans are looked up for each event.
    fn gather<'a, S>(&mut self, span: Option<SpanRef<'a, S>>, log: u64, rules: &Rules)
    where
        S: LookupSpan<'a>,
    {
        self.known = 0;
        self.pieces.clear();
        self.members.clear();
        self.is_gathered = self.add_all(span, log, rules) && !self.versions.is_empty();
        if !self.is_gathered {
            self.versions.clear();
        }
    }

    fn add_all<'a, S>(&mut self, span: Option<SpanRef<'a, S>>, log: u64, rules: &Rules) -> bool
    where
        S: LookupSpan<'a>,
    {
        let mut next = span;
        for _ in 0..MAX_SPANS {
            let Some(span) = next else { return true };
            let extensions = span.extensions();
            match of_log(&extensions, log) {
                Some(OfLog { whole: Some(whole), version, .. }) => {
                    self.versions.push(Arc::downgrade(version));
                    self.add(whole);
                }
                // It never will pass anything on; but if it is the innermost, nothing tells that it closed.
                None if !self.versions.is_empty() && !rules.wants_span(span.metadata()) => {}
                _ => return false,
            }
            drop(extensions);
            next = span.parent();
        }
        false
    }

    /// Adds what a span says and nearer ones do not: each named member once, so it stays small.
    fn add(&mut self, whole: &Whole) {
        for (index, piece) in &whole.pieces {
            if self.known & (1 << index) == 0 {
                self.known |= 1 << index;
                self.pieces.push((*index, piece.placed_at(self.members.len())));
                self.members.extend_from_slice(whole.members.get(Values::member(piece)).unwrap_or_default());
            }
        }
    }

    /// Whether the event inherits all that was gathered, and nothing else.
    fn fill(&self, values: &mut Values) -> bool {
        self.is_gathered && values.inherit_all(self.known, &self.pieces, &self.members)
    }
}

/// Fills in what the event does not say itself from the spans around it, nearest first. Says
/// whether all of them were looked at.
pub(super) fn inherit<S>(
    event: &Event<'_>,
    context: &Context<'_, S>,
    place: Place,
    (log, rules): (u64, &Rules),
    recent: &mut Recent,
    values: &mut Values,
) -> bool
where
    S: Subscriber + for<'a> LookupSpan<'a>,
{
    if !event.is_contextual() {
        return inherit_from(context.event_span(event), log, values);
    }
    let current = context.current_span();
    let Some(id) = current.id() else { return true };
    recent.come_to(place, id);
    if recent.events == WORTH_GATHERING {
        recent.gather(context.span(id), log, rules);
    }
    if recent.fill(values) {
        return true;
    }
    // A filter may hide the innermost span from the layer, and not the one around it.
    inherit_from(context.span(id).or_else(|| context.event_span(event)), log, values)
}

fn inherit_from<'a, S>(innermost: Option<SpanRef<'a, S>>, log: u64, values: &mut Values) -> bool
where
    S: LookupSpan<'a>,
{
    let mut next = innermost;
    for _ in 0..MAX_SPANS {
        let Some(span) = next else { return true };
        let extensions = span.extensions();
        if let Some(of_log) = of_log(&extensions, log) {
            of_log.fill(values);
        }
        drop(extensions);
        next = span.parent();
    }
    next.is_none()
}

fn of_log<'e>(extensions: &'e Extensions<'_>, log: u64) -> Option<&'e OfLog> {
    extensions.get::<Inherited>()?.logs.iter().find(|of_log| of_log.log == log)
}
