//! Puts the values of an event in the order in which they stand in a record, and sees that they fit.

use tracing_core::Level;

use super::{
    event::{Entry, Piece, Values},
    fields::{MAX_VALUE, whole_length},
    rules::{ACTION, ACTOR, NAMED},
};
use crate::{
    Severity,
    clock::Timestamp,
    format::{Kind, MAX_PAYLOAD, Payload, escape_into},
};

/// The longest list of names, in bytes as it stands in the line.
const MAX_LIST: usize = 4096;

/// Values are not shortened below this before whole fields go.
const MIN_VALUE: usize = 64;

/// What is known of an event beside its values.
#[derive(Debug, Clone, Copy)]
pub(super) struct Facts<'a> {
    pub(super) at: Timestamp,
    pub(super) severity: Severity,
    pub(super) level: Level,
    /// The members `target` and `module`.
    pub(super) origin: &'a [u8],
    /// Whether spans far out were not looked at.
    pub(super) spans_omitted: bool,
}

/// Writes the payload of an event, never longer than what fits a line.
pub(super) fn write(out: &mut Vec<u8>, facts: &Facts<'_>, values: &Values) {
    let mut limits = Limits { value: MAX_VALUE, fields: values.fields.len() };
    loop {
        out.clear();
        Writer { values, limits, facts }.write(out);
        if out.len() <= MAX_PAYLOAD {
            return;
        }
        // Long values give way first, all alike; short ones stay whole.
        if limits.value > MIN_VALUE {
            limits.value /= 2;
        } else {
            limits.fields /= 2;
        }
    }
}

#[derive(Debug, Clone, Copy)]
struct Limits {
    value: usize,
    fields: usize,
}

struct Writer<'a> {
    values: &'a Values,
    limits: Limits,
    facts: &'a Facts<'a>,
}

impl Writer<'_> {
    fn write(&self, out: &mut Vec<u8>) {
        let mut payload = Payload::begin(out, self.facts.at, Kind::Event);
        payload.raw(
            "severity",
            match self.facts.severity {
                Severity::Critical => b"\"critical\"",
                Severity::Routine => b"\"routine\"",
            },
        );
        payload.raw(
            "level",
            match self.facts.level {
                Level::ERROR => b"\"ERROR\"",
                Level::WARN => b"\"WARN\"",
                Level::INFO => b"\"INFO\"",
                Level::DEBUG => b"\"DEBUG\"",
                Level::TRACE => b"\"TRACE\"",
            },
        );
        for (name, piece) in self.members() {
            self.value(payload.name(name), piece);
        }
        payload.members(self.facts.origin);
        let fields = self.fields();
        if planted!(FieldsAtTopLevel) {
            for entry in fields {
                self.value(payload.name(entry.name.text), &entry.piece);
            }
        } else if let Some((first, rest)) = fields.split_first() {
            let out = payload.name("fields");
            out.push(b'{');
            self.field(out, first);
            for entry in rest {
                out.push(b',');
                self.field(out, entry);
            }
            out.push(b'}');
        }
        self.lists(&mut payload);
    }

    /// The named members and the message, those that there are.
    fn members(&self) -> impl Iterator<Item = (&'static str, &Piece)> {
        let named = NAMED.into_iter().zip(&self.values.named);
        named
            .chain(std::iter::once(("message", &self.values.message)))
            .filter_map(|(name, piece)| Some((name, piece.as_ref()?)))
    }

    fn fields(&self) -> &[Entry] {
        self.values.fields.get(..self.limits.fields).unwrap_or(&self.values.fields)
    }

    fn field(&self, out: &mut Vec<u8>, entry: &Entry) {
        out.push(b'"');
        entry.name.write(out);
        out.extend_from_slice(b"\":");
        self.value(out, &entry.piece);
    }

    fn value(&self, out: &mut Vec<u8>, piece: &Piece) {
        let json = self.values.json(piece);
        if !self.is_too_long(json) {
            out.extend_from_slice(json);
            return;
        }
        // Only texts are that long.
        let inside = json.get(1..).unwrap_or_default();
        let length = whole_length(inside, self.limits.value);
        out.push(b'"');
        out.extend_from_slice(inside.get(..length).unwrap_or_default());
        out.push(b'"');
    }

    fn is_too_long(&self, json: &[u8]) -> bool {
        json.len() > self.limits.value + 2
    }

    fn lists(&self, payload: &mut Payload<'_>) {
        let is_missing = |index: &usize| self.values.named.get(*index).is_some_and(Option::is_none);
        let missing = [ACTION, ACTOR].into_iter().filter(is_missing);
        list(payload, "incomplete", missing.filter_map(|index| NAMED.get(index).copied()));

        let is_shortened = self.limits.value < MAX_VALUE || self.limits.fields < self.values.fields.len();
        if !self.values.is_remarkable && !is_shortened && !self.facts.spans_omitted {
            return;
        }
        let is_cut = |piece: &Piece| piece.cut || self.is_too_long(self.values.json(piece));
        let cut = self.all().filter(|(_, piece)| is_cut(piece)).map(|(name, _)| name);
        let unwritten = self.values.fields.get(self.limits.fields..).unwrap_or_default();
        let unwritten =
            unwritten.iter().map(|entry| entry.name.text).chain(self.values.omitted.iter().copied());
        let spans = self.facts.spans_omitted.then_some("spans");
        list(payload, "truncated", cut.chain(unwritten).chain(spans));

        list(payload, "redacted", self.all().filter(|(_, piece)| piece.redacted).map(|(name, _)| name));

        let severity = self.values.severity_repeated.then_some("severity");
        let repeated = self.all().filter(|(_, piece)| piece.repeated).map(|(name, _)| name);
        list(payload, "repeated", repeated.chain(severity));
    }

    fn all(&self) -> impl Iterator<Item = (&'static str, &Piece)> {
        self.members().chain(self.fields().iter().map(|entry| (entry.name.text, &entry.piece)))
    }
}

/// Adds a member that lists names. It is not there when there are none.
fn list<'n>(payload: &mut Payload<'_>, member: &str, names: impl Iterator<Item = &'n str>) {
    let mut names = names.peekable();
    if names.peek().is_none() {
        return;
    }
    let out = payload.name(member);
    let start = out.len();
    for name in names {
        out.push(if out.len() == start { b'[' } else { b',' });
        // The names that find no room are one ellipsis.
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
