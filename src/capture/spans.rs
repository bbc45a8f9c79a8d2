//! Stores the values that events inherit from spans, encoded, in the extensions of the spans.

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

/// The values that events inherit from one span, for each log. A span extension.
#[derive(Debug, Default)]
pub(super) struct Inherited {
    logs: Vec<OfLog>,
}

/// The values for one log.
#[derive(Debug)]
struct OfLog {
    /// The log's `Capture::id`.
    log: u64,
    values: Vec<Value>,
    joined: Option<JoinedMembers>,
    /// Replaced whenever values are recorded, and dropped when the span closes. Caches hold it weakly, and are out of
    /// date once it is gone.
    version: Arc<()>,
}

/// All values of a span as one copyable block, if all are named members, not blank, and neither cut, withheld nor
/// repeated. That is so for most spans.
#[derive(Debug, Default)]
struct JoinedMembers {
    known: u32,
    members: Vec<(usize, MemberSpan)>,
    bytes: Vec<u8>,
}

impl OfLog {
    /// Adds the values that the event does not have.
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
    /// Joins the values; `None` if one of them does not allow that.
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

    /// Adds all members if the event has none of them. Returns whether it did.
    fn fill(&self, values: &mut Values) -> bool {
        values.inherit_all(self.known, &self.members, &self.bytes)
    }
}

/// One inherited value.
#[derive(Debug)]
struct Value {
    role: Role,
    name: &'static str,
    member: MemberSpan,
    bytes: Box<[u8]>,
    /// What is known of the full value, if it is cut.
    full: Option<FullValue>,
}

impl Value {
    fn json(&self) -> &[u8] {
        self.bytes.get((self.member.value - self.member.start) as usize..).unwrap_or_default()
    }
}

/// The most spans around an event that are looked at, from the nearest outwards.
const MAX_SPANS: usize = 1024;

/// Returns the values that were just collected from a span, as those to inherit.
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

/// Stores what was collected with its span, even if it is nothing yet. A later value of a name replaces the earlier one.
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
        // A new version makes the caches of all threads out of date.
        of_log.version = Arc::default();
    } else {
        let joined = JoinedMembers::of(&new);
        inherited.logs.push(OfLog { log, values: new, joined, version: Arc::default() });
    }
}

/// The number of consecutive events in one span at which the inherited values are gathered for later events. With fewer
/// events, gathering costs more than it saves.
const WORTH_GATHERING: u32 = 3;

/// Identifies the subscriber in which a span is looked up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct SubscriberKey {
    /// The address of the layer. Span ids are unique only within a subscriber.
    layer: usize,
    /// How often callsites had been registered with the log. All are registered again whenever a subscriber is created
    /// or a layer reloaded. After that another layer may be at the same address, or this one in another subscriber.
    registered: u64,
}

/// A cache of what events inherit in the span that the thread was in last, because consecutive events are often in the
/// same span. If two layers alternate at each event, nothing is gathered.
///
/// Without it an event in a span costs 20 % more: 404 ns instead of 334. Median of 12 alternating runs of
/// `tracing-audit-bench -- ours cost`, burst, one thread, p50.
#[derive(Debug, Default)]
pub(super) struct Recent {
    span: Option<(SubscriberKey, Id)>,
    /// How many consecutive events were in that span.
    events: u32,
    /// The versions of the spans from which values can be inherited, the innermost first. While all of them live, no
    /// value was recorded in these spans, and the innermost span is open. So its id was not reused, and the spans around
    /// it are open too.
    versions: Vec<Weak<()>>,
    is_gathered: bool,
    joined: JoinedMembers,
}

impl Recent {
    /// Notes an event in a span, and discards what was gathered if that is another span or out of date.
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

    /// Gathers what events inherit from the span and those around it. Gathers nothing if that cannot be joined, or if it
    /// could not be detected that it is out of date. Then spans are looked up for each event.
    fn gather<'a, S>(&mut self, span: Option<SpanRef<'a, S>>, log: u64, rules: &Rules)
    where
        S: LookupSpan<'a>,
    {
        self.joined.clear();
        let is_all = walk(span, log, |span, of_log| match of_log {
            Some(OfLog { joined: Some(joined), version, .. }) => {
                self.versions.push(Arc::downgrade(version));
                // Each named member is added at most once, so the block stays small.
                joined.members.iter().all(|(index, member)| {
                    let bytes = joined.bytes.get(Values::range(member));
                    bytes.inspect(|bytes| self.joined.add(*index, member, bytes)).is_some()
                })
            }
            Some(_) => false,
            // Nothing will ever be inherited from this span. But if it is the innermost, it has no version that would
            // show that it has closed.
            None => !self.versions.is_empty() && !rules.wants_span(span.metadata()),
        });
        self.is_gathered = is_all && !self.versions.is_empty();
        if !self.is_gathered {
            self.versions.clear();
        }
    }
}

/// Adds the values that the event does not have from the spans around it, nearest first. Returns whether all spans were
/// looked at.
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
    // An explicit parent is not the thread's current span, for which the cache is.
    if !event.is_contextual() {
        return from(context.event_span(event), values);
    }
    let current = context.current_span();
    let Some(id) = current.id() else { return true };
    // Acquire pairs with the release in `callsite_enabled`.
    recent.come_to(SubscriberKey { layer, registered: registered.load(Ordering::Acquire) }, id);
    if recent.events == WORTH_GATHERING {
        recent.gather(context.span(id), *log, rules);
    }
    if recent.is_gathered && recent.joined.fill(values) {
        return true;
    }
    // A filter may hide the innermost span from the layer, but not the one around it.
    from(context.span(id).or_else(|| context.event_span(event)), values)
}

/// Calls `meet` with each span from the innermost outwards, and with its values for the log, until `meet` returns false.
/// Returns whether all spans were met.
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
        // The extensions are a read lock, which must not be held while another span is looked up.
        drop(extensions);
        next = span.parent();
    }
    next.is_none()
}
