//! Writes the payload of an event: its values in the order of a record, shortened to fit one line.

use tracing_core::Level;

use super::{
    fields::{Ending, FullValue, whole_length},
    rules::{ACTION, ACTOR, NAMED},
    values::{MemberSpan, OtherField, Values},
};
use crate::{
    clock::Timestamp,
    format::{Beginning, MAX_PAYLOAD, Payload, escape_into},
    severity::Severity,
};

/// The longest list of names, in bytes of the line.
const MAX_LIST: usize = 4096;

/// The longest member `truncated`, in bytes of the line.
const MAX_TRUNCATED: usize = 16 * 1024;

/// The name in `truncated` for all values whose own names find no room there.
const REST: &str = "…";

/// The shortest length, in bytes, to which values are cut. If that is not enough, whole fields are omitted.
const MIN_VALUE: usize = 64;

/// The most bytes that a cut value takes in `truncated`, beside its name: `{"bytes":…,"sha256":"…"},`.
const MAX_WHOLE: usize = 9 + 10 + 11 + 64 + 4;

/// The most bytes that the length of a name takes there: `,"name_bytes":…`.
const MAX_NAME_BYTES: usize = 14 + 10;

/// The properties of an event beside its values.
#[derive(Debug, Clone, Copy)]
pub(super) struct EventContext<'a> {
    pub(super) at: Timestamp,
    pub(super) severity: Severity,
    pub(super) level: Level,
    /// The members `target` and `module`.
    pub(super) origin: &'a [u8],
    /// Whether there are too many spans around the event, so that the outermost were not looked at.
    pub(super) spans_omitted: bool,
    /// Whether the closure that adds to events panicked.
    pub(super) enrich_failed: bool,
    /// A bit for each named member that must not be inherited.
    pub(super) explicit: u32,
}

/// Writes the payload of an event, so that it fits a line.
///
/// Returns `None` only after a bug, if a member is not one of `values`. The event is then lost, which is counted and
/// reported. Recording a part of it would go unnoticed.
pub(super) fn write(
    out: &mut Vec<u8>,
    beginning: &mut Beginning,
    context: &EventContext<'_>,
    values: &Values,
) -> Option<()> {
    let mut limits = Limits { value: usize::MAX, fields: values.fields.len() };
    loop {
        out.clear();
        Writer { values, limits, context }.write(out, beginning)?;
        if out.len() <= MAX_PAYLOAD {
            return Some(());
        }
        // Only long values are cut, all to the same length. Short ones stay whole.
        if limits.value == usize::MAX {
            limits.value = longest_that_fits(values, out.len()).unwrap_or(MIN_VALUE).max(MIN_VALUE);
        } else if limits.value > MIN_VALUE {
            limits.value = MIN_VALUE;
        } else {
            // This ends: without fields, named members of `MIN_VALUE` bytes and the bounded lists fit a line.
            limits.fields /= 2;
        }
    }
}

/// Returns how long values may be for the payload to fit. With all values uncut, it has `total` bytes.
#[cold]
fn longest_that_fits(values: &Values, total: usize) -> Option<usize> {
    let named = values.named.iter().map(|(_, member)| member);
    let fields = values.fields.iter().map(|field| &field.member);
    let mut members: Vec<&MemberSpan> = named.chain(fields).collect();
    members.sort_unstable_by_key(|member| std::cmp::Reverse(Values::length(member)));
    // From the longest value on, as few as possible are cut. `rest` is the length of everything that is not cut, with
    // all names and lists.
    let mut rest = total + r#","truncated":{}"#.len();
    for (index, member) in members.iter().enumerate() {
        // A cut value adds an entry with its name to `truncated`.
        let name_bytes = if member.name_bytes > 0 { MAX_NAME_BYTES } else { 0 };
        let listed = Values::range(member).len() - Values::length(member) + MAX_WHOLE + name_bytes;
        rest = (rest + listed).checked_sub(Values::length(member))?;
        let limit = MAX_PAYLOAD.saturating_sub(rest) / (index + 1);
        let next = members.get(index + 1).map_or(0, |member| Values::length(member));
        // The limit is that of the text, without its two quotes.
        if limit >= next && limit >= MIN_VALUE + 2 {
            return Some(limit - 2);
        }
    }
    None
}

/// Returns the members `severity` and `level`, as one static text, which is faster than writing each part.
fn head(severity: Severity, level: Level) -> &'static str {
    macro_rules! of {
        ($severity:literal) => {
            match level {
                Level::ERROR => concat!(",\"severity\":\"", $severity, "\",\"level\":\"ERROR\""),
                Level::WARN => concat!(",\"severity\":\"", $severity, "\",\"level\":\"WARN\""),
                Level::INFO => concat!(",\"severity\":\"", $severity, "\",\"level\":\"INFO\""),
                Level::DEBUG => concat!(",\"severity\":\"", $severity, "\",\"level\":\"DEBUG\""),
                Level::TRACE => concat!(",\"severity\":\"", $severity, "\",\"level\":\"TRACE\""),
            }
        };
    }
    match severity {
        Severity::Critical => of!("critical"),
        Severity::Routine => of!("routine"),
    }
}

/// The limits of one attempt to fit the payload into a line.
#[derive(Debug, Clone, Copy)]
struct Limits {
    /// The longest value, in bytes; `usize::MAX` in the first attempt, in which no value is cut.
    value: usize,
    /// The most fields under `fields`.
    fields: usize,
}

struct Writer<'a> {
    values: &'a Values,
    limits: Limits,
    context: &'a EventContext<'a>,
}

impl Writer<'_> {
    fn write(&self, out: &mut Vec<u8>, beginning: &mut Beginning) -> Option<()> {
        let members = head(self.context.severity, self.context.level);
        let mut payload = beginning.write(out, self.context.at, members);
        self.copy(payload.members(b""), self.values.named.iter().map(|(_, member)| member))?;
        payload.members(self.context.origin);
        let fields = self.fields();
        if fields.len() > 0 {
            let out = payload.members(b",\"fields\":");
            let start = out.len();
            self.copy(out, fields.map(|field| &field.member))?;
            // Every member begins with a comma. That of the first becomes the opening brace.
            if let Some(first) = out.get_mut(start) {
                *first = b'{';
            }
            out.push(b'}');
        }
        self.lists(&mut payload);
        Some(())
    }

    /// Returns the named members and the message, as far as they are present.
    fn members(&self) -> impl Iterator<Item = (&'static str, &MemberSpan)> {
        self.values.named.iter().map(|(index, member)| (*NAMED.get(index).unwrap_or(&"message"), member))
    }

    fn fields(&self) -> impl ExactSizeIterator<Item = &OtherField> {
        self.values.fields.iter().take(self.limits.fields)
    }

    /// Appends members. Neighbours that are already in this order are copied together.
    fn copy<'p>(&self, out: &mut Vec<u8>, members: impl Iterator<Item = &'p MemberSpan>) -> Option<()> {
        let mut run = 0..0;
        for member in members {
            let range = Values::range(member);
            if self.is_too_long(member) {
                out.extend_from_slice(self.values.bytes(run)?);
                run = 0..0;
                self.cut(out, member)?;
            } else if range.start == run.end {
                run.end = range.end;
            } else {
                out.extend_from_slice(self.values.bytes(run)?);
                run = range;
            }
        }
        out.extend_from_slice(self.values.bytes(run)?);
        Some(())
    }

    /// Appends a member whose value is too long, cut. Only texts are that long.
    #[cold]
    fn cut(&self, out: &mut Vec<u8>, member: &MemberSpan) -> Option<()> {
        let bytes = self.values.bytes(Values::range(member))?;
        // The opening quote belongs to the start.
        let (start, inside) = bytes.split_at_checked(bytes.len() - Values::length(member) + 1)?;
        out.extend_from_slice(start);
        out.extend_from_slice(inside.get(..whole_length(inside, self.limits.value))?);
        out.push(b'"');
        Some(())
    }

    fn is_too_long(&self, member: &MemberSpan) -> bool {
        self.limits.value != usize::MAX && Values::length(member) > self.limits.value + 2
    }

    /// Appends the lists of names: `incomplete`, `redacted`, `repeated`, `truncated`.
    fn lists(&self, payload: &mut Payload<'_>) {
        let named = &self.values.named;
        let missing = named.incomplete(1 << ACTION | 1 << ACTOR) & !(1 << NAMED.len())
            | (self.context.explicit & !self.values.own);
        let EventContext { spans_omitted, enrich_failed, .. } = *self.context;
        if missing != 0 || self.values.severity_unclear || spans_omitted || enrich_failed {
            self.incomplete(payload, missing);
        }
        let is_shortened = self.limits.value < usize::MAX || self.limits.fields < self.values.fields.len();
        if self.values.is_remarkable || is_shortened {
            self.remarkable(payload);
        }
    }

    /// Appends what the event lacks. Not inlined, because most events lack nothing.
    #[inline(never)]
    fn incomplete(&self, payload: &mut Payload<'_>, missing: u32) {
        let missing = NAMED.iter().enumerate().filter(|(index, _)| missing & (1 << index) != 0);
        let unclear = self.values.severity_unclear.then_some("severity");
        let spans = self.context.spans_omitted.then_some("spans");
        let enrich = self.context.enrich_failed.then_some("enrich");
        let names = missing.map(|(_, name)| *name).chain(unclear).chain(spans).chain(enrich);
        list(payload, "incomplete", names);
    }

    /// Appends which values were withheld, given several times, or cut.
    #[inline(never)]
    fn remarkable(&self, payload: &mut Payload<'_>) {
        let fields = self.values.fields.iter().map(|field| (field.name, &field.member));
        let redacted =
            self.members().chain(fields).filter(|(_, member)| member.redacted).map(|(name, _)| name);
        let omitted = self.values.omitted.iter().filter(|omitted| omitted.full.ending == Ending::Withheld);
        list(payload, "redacted", redacted.chain(omitted.map(|omitted| omitted.name)));

        // A repeated `severity` can also be a field, and must be listed only once.
        let severity = self.values.severity_repeated.then_some("severity");
        let is_repeated = |(name, member): &(&str, &MemberSpan)| member.repeated && severity != Some(*name);
        let repeated = self.all().filter(is_repeated).map(|(name, _)| name);
        list(payload, "repeated", repeated.chain(severity));
        self.truncated(payload);
    }

    /// Appends the values that are cut or omitted, with what is known of the full values.
    fn truncated(&self, payload: &mut Payload<'_>) {
        let full_value = |member: &MemberSpan| self.values.full_value(member);
        let mut list = Truncated { payload, start: None, more: self.values.omitted_more };
        for (name, member) in self.all() {
            let is_cut = member.cut || self.is_too_long(member);
            if is_cut || member.name_bytes > 0 {
                list.add(name, is_cut.then(|| full_value(member)).flatten(), member.name_bytes);
            }
        }
        for field in self.values.fields.iter().skip(self.limits.fields) {
            list.add(field.name, full_value(&field.member), field.member.name_bytes);
        }
        for omitted in &self.values.omitted {
            list.add(omitted.name, Some(omitted.full), omitted.name_bytes);
        }
        list.end();
    }

    fn all(&self) -> impl Iterator<Item = (&'static str, &MemberSpan)> {
        self.members().chain(self.fields().map(|field| (field.name, &field.member)))
    }
}

/// The member `truncated` while it is written. It is absent if it would be empty.
struct Truncated<'a, 'p> {
    payload: &'a mut Payload<'p>,
    /// The position at which its value begins; `None` before the first entry.
    start: Option<usize>,
    /// How many values are not named in it.
    more: usize,
}

impl Truncated<'_, '_> {
    fn add(&mut self, name: &str, full: Option<FullValue>, name_bytes: u32) {
        let (start, length) = (self.start, self.payload.members(b"").len());
        // A field named like `REST` is counted there, so that no name occurs twice.
        if name == REST || start.is_some_and(|start| length - start > MAX_TRUNCATED) {
            self.more += 1;
            return;
        }
        let out = self.open(name);
        if let Some(full) = full {
            full.write(out);
        }
        if name_bytes > 0 {
            out.extend_from_slice(if full.is_some() { b",\"name_bytes\":" } else { b"\"name_bytes\":" });
            out.extend_from_slice(itoa::Buffer::new().format(name_bytes).as_bytes());
        }
        out.push(b'}');
    }

    /// Begins the entry of a name.
    fn open(&mut self, name: &str) -> &mut Vec<u8> {
        let is_first = self.start.is_none();
        let out = if is_first { self.payload.name("truncated") } else { self.payload.members(b"") };
        self.start.get_or_insert(out.len());
        out.push(if is_first { b'{' } else { b',' });
        out.push(b'"');
        escape_into(out, name);
        out.extend_from_slice(b"\":{");
        out
    }

    fn end(mut self) {
        if self.more > 0 {
            let more = self.more;
            let out = self.open(REST);
            out.extend_from_slice(b"\"values\":");
            out.extend_from_slice(itoa::Buffer::new().format(more).as_bytes());
            out.push(b'}');
        }
        if self.start.is_some() {
            self.payload.members(b"}");
        }
    }
}

/// Appends a member that lists names, unless there are none.
fn list<'n>(payload: &mut Payload<'_>, member: &str, names: impl Iterator<Item = &'n str>) {
    let mut names = names.peekable();
    if names.peek().is_none() {
        return;
    }
    let out = payload.name(member);
    let start = out.len();
    for name in names {
        out.push(if out.len() == start { b'[' } else { b',' });
        // All names that find no room are listed as one ellipsis.
        let is_full = out.len() - start > MAX_LIST;
        out.push(b'"');
        escape_into(out, if is_full { "…" } else { name });
        out.push(b'"');
        if is_full {
            break;
        }
    }
    out.push(b']');
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn severity_and_level_are_one_static_text() {
        for severity in [Severity::Critical, Severity::Routine] {
            for level in [Level::ERROR, Level::WARN, Level::INFO, Level::DEBUG, Level::TRACE] {
                let expected = format!(",\"severity\":\"{severity}\",\"level\":\"{level}\"");
                assert_eq!(head(severity, level), expected);
            }
        }
    }
}
