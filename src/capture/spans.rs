//! What spans pass on to the events inside them, kept encoded in the registry.

use std::sync::{Arc, Weak};

use tracing_core::{Event, Subscriber, span::Id};
use tracing_subscriber::{
    layer::Context,
    registry::{Extensions, LookupSpan, SpanRef},
};

use super::{
    event::{KEPT_BYTES, Piece, Values},
    plan::Role,
    rules::NAMED,
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
    /// Gone when the span has closed, before its number names another one.
    alive: Arc<()>,
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

/// Keeps what was collected with its span; a later value of a name stands for the earlier one.
pub(super) fn keep<S>(span: &SpanRef<'_, S>, log: u64, values: &Values)
where
    S: for<'a> LookupSpan<'a>,
{
    let new = collected(values);
    if new.is_empty() {
        return;
    }
    let mut extensions = span.extensions_mut();
    if extensions.get_mut::<Inherited>().is_none() {
        extensions.insert(Inherited::default());
    }
    let Some(inherited) = extensions.get_mut::<Inherited>() else { return };
    if let Some(of_log) = inherited.logs.iter_mut().find(|of_log| of_log.log == log) {
        of_log.values.retain(|old| !new.iter().any(|new| new.name == old.name));
        of_log.values.extend(new);
        of_log.whole = Whole::of(&of_log.values);
    } else {
        let whole = Whole::of(&new);
        inherited.logs.push(OfLog { log, values: new, whole, alive: Arc::new(()) });
    }
}

/// Where an event is looked at, and how much had been recorded in spans by then.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) log: u64,
    /// The address of the layer: the numbers of spans are their subscriber's.
    pub(super) layer: usize,
    /// How often spans of the log were given values after they had begun.
    pub(super) recorded: u64,
}

/// What a thread's events inherit in the span that it was in last, in one piece: most are in the same span as
/// the one before.
#[derive(Debug, Default)]
pub(super) struct Recent {
    span: Option<(Place, Id)>,
    is_gathered: bool,
    /// What was gathered counts as long as the span is open; afterwards its number may name another.
    alive: Weak<()>,
    known: u32,
    pieces: Vec<(usize, Piece)>,
    members: Vec<u8>,
}

impl Recent {
    /// Gives back what unusually large values needed.
    pub(super) fn shrink(&mut self) {
        if self.members.capacity() > KEPT_BYTES {
            *self = Self::default();
        }
    }

    fn is_of(&self, place: Place, span: &Id) -> bool {
        self.span.as_ref().is_some_and(|(known, id)| *known == place && id == span)
    }

    fn begin(&mut self, place: Place, span: &Id) {
        self.span = Some((place, span.clone()));
        self.is_gathered = false;
        self.alive = Weak::new();
    }

    /// Gathers what the span and those around it pass on. What cannot be passed on in one piece is looked up
    /// for each event; so is all of a span that has nothing itself, because nothing would tell that it closed.
    fn gather<'a, S>(&mut self, span: Option<SpanRef<'a, S>>, log: u64)
    where
        S: LookupSpan<'a>,
    {
        self.is_gathered = true;
        self.known = 0;
        self.pieces.clear();
        self.members.clear();
        let mut alive = None;
        let mut next = span;
        for _ in 0..MAX_SPANS {
            let Some(span) = next else {
                self.alive = alive.unwrap_or_default();
                return;
            };
            let extensions = span.extensions();
            match of_log(&extensions, log) {
                Some(OfLog { whole: Some(whole), alive: of_span, .. }) => {
                    alive.get_or_insert_with(|| Arc::downgrade(of_span));
                    self.add(whole);
                }
                None if alive.is_some() => {}
                _ => return,
            }
            drop(extensions);
            next = span.parent();
        }
    }

    /// Adds what a span says and nearer ones do not.
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
        self.alive.strong_count() > 0 && values.inherit_all(self.known, &self.pieces, &self.members)
    }
}

/// Fills in what the event does not say itself from the spans around it, nearest first. Says
/// whether all of them were looked at.
pub(super) fn inherit<S>(
    event: &Event<'_>,
    context: &Context<'_, S>,
    place: Place,
    recent: &mut Recent,
    values: &mut Values,
) -> bool
where
    S: Subscriber + for<'a> LookupSpan<'a>,
{
    if !event.is_contextual() {
        return inherit_from(context.event_span(event), place.log, values);
    }
    let current = context.current_span();
    let Some(id) = current.id() else { return true };
    if recent.is_of(place, id) {
        if !recent.is_gathered {
            recent.gather(context.span(id), place.log);
        }
        if recent.fill(values) {
            return true;
        }
    } else {
        recent.begin(place, id);
    }
    // A filter may hide the innermost span from the layer, and not the one around it.
    inherit_from(context.span(id).or_else(|| context.event_span(event)), place.log, values)
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
