//! What spans pass on to the events inside them, kept encoded in the registry.

use std::sync::{Arc, Weak, atomic::Ordering};

use tracing_core::{Event, Subscriber, span::Id};
use tracing_subscriber::{
    layer::Context,
    registry::{LookupSpan, SpanRef},
};

use super::{
    Capture,
    fields::FullValue,
    plan::Role,
    rules::{NAMED, Rules},
    values::{MemberSpan, Values, is_blank},
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
    joined: Option<JoinedMembers>,
    /// Another one whenever values are recorded, and none when the span has closed.
    version: Arc<()>,
}

/// All members in one piece, where all are named, say something, and nothing happened to any: most spans.
#[derive(Debug, Default)]
struct JoinedMembers {
    known: u32,
    members: Vec<(usize, MemberSpan)>,
    bytes: Vec<u8>,
}

impl OfLog {
    fn fill(&self, values: &mut Values) {
        if self.joined.as_ref().is_some_and(|joined| joined.fill(values)) {
            return;
        }
        for value in &self.values {
            values.inherit(value.role, value.name, &value.member, &value.bytes, value.full.map(Box::new));
        }
    }
}

impl JoinedMembers {
    fn of(values: &[Value]) -> Option<Self> {
        let mut joined = Self::default();
        for value in values {
            let Role::Named(index) = value.role else { return None };
            if !value.member.is_unremarkable() || is_blank(value.json()) {
                return None;
            }
            joined.add(index, &value.member, &value.bytes);
        }
        Some(joined)
    }

    /// Adds a member, if it is the first of its name.
    fn add(&mut self, index: usize, member: &MemberSpan, bytes: &[u8]) {
        if self.known & (1 << index) == 0 {
            self.known |= 1 << index;
            self.members.push((index, member.placed_at(self.bytes.len())));
            self.bytes.extend_from_slice(bytes);
        }
    }

    fn clear(&mut self) {
        self.known = 0;
        self.members.clear();
        self.bytes.clear();
    }

    /// Whether the event inherits all of it, because it says nothing of that itself.
    fn fill(&self, values: &mut Values) -> bool {
        values.inherit_all(self.known, &self.members, &self.bytes)
    }
}

#[derive(Debug)]
struct Value {
    role: Role,
    name: &'static str,
    member: MemberSpan,
    bytes: Box<[u8]>,
    /// What is known of it, if it is cut.
    full: Option<FullValue>,
}

impl Value {
    fn json(&self) -> &[u8] {
        self.bytes.get((self.member.value - self.member.start) as usize..).unwrap_or_default()
    }
}

/// How many spans around an event are looked at, from the nearest outwards.
const MAX_SPANS: usize = 1024;

/// The values to pass on among those that were just collected from a span.
fn collected(values: &Values) -> Vec<Value> {
    let value = |role, name, member: &MemberSpan| {
        let bytes = values.bytes(Values::range(member))?.into();
        Some(Value { role, name, member: *member, bytes, full: values.full_of_cut(member) })
    };
    let named = values
        .named
        .iter()
        .filter_map(|(index, member)| value(Role::Named(index), *NAMED.get(index)?, member));
    let fields = values.fields.iter().filter_map(|field| value(Role::Field, field.name, &field.member));
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
        of_log.joined = JoinedMembers::of(&of_log.values);
        of_log.version = Arc::default();
    } else {
        let joined = JoinedMembers::of(&new);
        inherited.logs.push(OfLog { log, values: new, joined, version: Arc::default() });
    }
}

/// This event of a thread in the same span gathers what it inherits, and later ones use it: fewer gain nothing.
const WORTH_GATHERING: u32 = 3;

/// In which subscriber a span is looked up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct SubscriberKey {
    /// The address of the layer: the numbers of spans are their subscriber's.
    layer: usize,
    /// How often callsites had been registered with the log. All are, whenever a subscriber is made or a layer
    /// reloaded: afterwards another layer may be at that address, or this one in another subscriber.
    registered: u64,
}

/// What a thread's events inherit in the span that it was in last, in one piece: many are in the same span as
/// the one before. Where two layers take turns at each event, nothing is gathered.
///
/// Without it an event in a span costs 20 % more, 404 ns instead of 334: the median of 12 runs in turns of
/// `tracing-audit-bench -- ours cost`, burst, one thread, p50.
#[derive(Debug, Default)]
pub(super) struct Recent {
    span: Option<(SubscriberKey, Id)>,
    /// How many events have come there.
    events: u32,
    /// One for each span that can pass anything on, the innermost first. While all of them live, nothing was
    /// recorded in these spans, and the innermost is open: its number is its own, and those around it are open.
    versions: Vec<Weak<()>>,
    is_gathered: bool,
    joined: JoinedMembers,
}

impl Recent {
    fn come_to(&mut self, subscriber: SubscriberKey, span: &Id) {
        let is_there = self.span.as_ref().is_some_and(|(known, id)| *known == subscriber && id == span);
        if !(is_there && self.versions.iter().all(|version| version.strong_count() > 0)) {
            self.span = Some((subscriber, span.clone()));
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
        self.joined.clear();
        let is_all = walk(span, log, |span, of_log| match of_log {
            Some(OfLog { joined: Some(joined), version, .. }) => {
                self.versions.push(Arc::downgrade(version));
                // Each named member once, so it stays small.
                joined.members.iter().all(|(index, member)| {
                    let bytes = joined.bytes.get(Values::range(member));
                    bytes.inspect(|bytes| self.joined.add(*index, member, bytes)).is_some()
                })
            }
            Some(_) => false,
            // It never will pass anything on; but if it is the innermost, nothing tells that it closed.
            None => !self.versions.is_empty() && !rules.wants_span(span.metadata()),
        });
        self.is_gathered = is_all && !self.versions.is_empty();
        if !self.is_gathered {
            self.versions.clear();
        }
    }
}

/// Fills in what the event does not say itself from the spans around it, nearest first. Says
/// whether all of them were looked at.
pub(super) fn inherit<S>(
    event: &Event<'_>,
    context: &Context<'_, S>,
    capture: &Capture,
    layer: usize,
    recent: &mut Recent,
    values: &mut Values,
) -> bool
where
    S: Subscriber + for<'a> LookupSpan<'a>,
{
    let Capture { id: log, rules, registered, .. } = capture;
    let from = |span, values: &mut Values| {
        walk(span, *log, |_, of_log| {
            of_log.inspect(|of_log| of_log.fill(values));
            true
        })
    };
    if !event.is_contextual() {
        return from(context.event_span(event), values);
    }
    let current = context.current_span();
    let Some(id) = current.id() else { return true };
    recent.come_to(SubscriberKey { layer, registered: registered.load(Ordering::Acquire) }, id);
    if recent.events == WORTH_GATHERING {
        recent.gather(context.span(id), *log, rules);
    }
    if recent.is_gathered && recent.joined.fill(values) {
        return true;
    }
    // A filter may hide the innermost span from the layer, and not the one around it.
    from(context.span(id).or_else(|| context.event_span(event)), values)
}

/// Meets the spans from the innermost outwards, with what each passes on in the log, as long as `meet` says so.
/// Says whether it met all.
fn walk<'a, S>(
    innermost: Option<SpanRef<'a, S>>,
    log: u64,
    mut meet: impl FnMut(&SpanRef<'a, S>, Option<&OfLog>) -> bool,
) -> bool
where
    S: LookupSpan<'a>,
{
    let mut next = innermost;
    for _ in 0..MAX_SPANS {
        let Some(span) = next else { return true };
        let extensions = span.extensions();
        let inherited = extensions.get::<Inherited>();
        let of_log = inherited.and_then(|inherited| inherited.logs.iter().find(|of_log| of_log.log == log));
        if !meet(&span, of_log) {
            return false;
        }
        drop(extensions);
        next = span.parent();
    }
    next.is_none()
}
