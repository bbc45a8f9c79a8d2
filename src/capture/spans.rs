//! What spans pass on to the events inside them, kept encoded in the registry.

use tracing_subscriber::registry::{LookupSpan, SpanRef};

use super::{
    event::{Piece, Values},
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
    match inherited.logs.iter_mut().find(|of_log| of_log.log == log) {
        Some(of_log) => {
            of_log.values.retain(|old| !new.iter().any(|new| new.name == old.name));
            of_log.values.extend(new);
            of_log.whole = Whole::of(&of_log.values);
        }
        None => inherited.logs.push(OfLog { log, whole: Whole::of(&new), values: new }),
    }
}

/// Fills in what the event does not say itself from the spans around it, nearest first. Says
/// whether all of them were looked at.
pub(super) fn inherit<'a, S>(innermost: Option<SpanRef<'a, S>>, log: u64, values: &mut Values) -> bool
where
    S: LookupSpan<'a>,
{
    let mut next = innermost;
    for _ in 0..MAX_SPANS {
        let Some(span) = next else { return true };
        let extensions = span.extensions();
        let inherited = extensions.get::<Inherited>();
        if let Some(of_log) = inherited.and_then(|inherited| inherited.logs.iter().find(|of| of.log == log)) {
            of_log.fill(values);
        }
        drop(extensions);
        next = span.parent();
    }
    next.is_none()
}
